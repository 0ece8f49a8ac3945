"""Runs qemu-img on an image that inspect.py has accepted, as little trusted as can be.

The format is always spelled out, the image is named by descriptor, memory, processor time, file size and open files
are limited by the kernel, and the program dies with its caller. Called by disk_import.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from typing import Any, Callable, Dict, List

from minicloud.hostside import codes, commands
from minicloud.hostside.failures import Failure
from minicloud.hostside.inspect import Inspection, Rejected

MEMORY_BYTES = 1024**3
INFO_SECONDS = 20
SLOWEST_BYTES_PER_SECOND = 10 * 1000**2
MAX_OUTPUT_BYTES = 1024 * 1024


def cross_check(fd: int, inspection: Inspection) -> None:
    """Have qemu-img read the image too, and refuse it where the two disagree. Raises Rejected, Failure."""
    output = _run(["info", "-f", inspection.format, "--output", "json", f"/proc/self/fd/{fd}"], [fd], INFO_SECONDS, 0)
    try:
        info: Dict[str, Any] = json.loads(output)
    except ValueError as error:
        # Only the end of it was kept: names of internal snapshots alone can make it tens of megabytes long.
        raise Rejected("The image describes itself at greater length than is allowed.") from error
    data = info.get("format-specific", {}).get("data", {})
    agrees = (
        info.get("format") == inspection.format
        and info.get("virtual-size") == inspection.virtual_size_bytes
        and not {"backing-filename", "full-backing-filename"} & info.keys()
        and not info.get("encrypted")
        and "data-file" not in data
        and not data.get("corrupt")
    )
    if not agrees:
        raise Rejected("The image is read by QEMU as something else than it states.")


def convert_to_raw(fd: int, inspection: Inspection, output_fd: int, progress: Callable[[int], None]) -> None:
    """Write the disk as raw into a file of its size that is one hole; `progress` gets percents.

    Raises Rejected, Failure.
    """
    size_bytes = inspection.virtual_size_bytes
    seconds = 60 + size_bytes // SLOWEST_BYTES_PER_SECOND
    source, target = f"/proc/self/fd/{fd}", f"/proc/self/fd/{output_fd}"
    formats = ["-f", inspection.format, "-O", "raw"]
    argv = ["convert", "-p", "-n", "--target-is-zero", *formats, source, target]
    _run(argv, [fd, output_fd], seconds, size_bytes, progress)


def _run(
    arguments: List[str],
    fds: List[int],
    seconds: int,
    max_file_bytes: int,
    progress: Callable[[int], None] = lambda percent: None,
) -> bytes:
    limits = [f"--as={MEMORY_BYTES}", f"--cpu={seconds}", f"--fsize={max_file_bytes}", "--nofile=64", "--core=0"]
    argv = ["setpriv", "--pdeathsig", "KILL", "prlimit", *limits, "qemu-img", *arguments]
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=fds,
            env=commands.ENVIRONMENT,
        )
    except FileNotFoundError as error:
        raise Failure(codes.INTERNAL, f"{argv[0]} is not installed: {error}", transient=False) from error
    stdout, stderr = process.stdout, process.stderr
    assert stdout and stderr
    errors: List[bytes] = []
    error_reader = threading.Thread(target=lambda: errors.append(stderr.read(MAX_OUTPUT_BYTES)), daemon=True)
    deadline = threading.Timer(seconds, process.kill)
    deadline.daemon = True
    with process:
        error_reader.start()
        deadline.start()
        try:
            output = b""
            while piece := os.read(stdout.fileno(), 4096):
                output = (output + piece)[-MAX_OUTPUT_BYTES:]
                percents = re.findall(rb"\((\d+)\.\d+/100%\)", output[-64:])
                if percents:
                    progress(int(percents[-1]))
            status = process.wait()
            error_reader.join()
        finally:
            process.kill()
            deadline.cancel()
    if status in (126, 127):
        raise Failure(codes.INTERNAL, f"qemu-img cannot be run: {errors!r}", transient=False)
    if status != 0:
        _explain(arguments, status, b"".join(errors))
    return output


def _explain(arguments: List[str], status: int, errors: bytes) -> None:
    if b"No space left on device" in errors:
        raise Failure(codes.NO_SPACE, f"qemu-img {arguments[0]}: no space left on the device", transient=False)
    print(f"qemu-img {arguments[0]} ended with {status}: {errors[-4000:]!r}")  # Into the job's log.
    if b"lock" in errors:
        raise Rejected("The image is being written by another program.")
    raise Rejected("QEMU cannot read the image: it is damaged, or takes more time or memory than is allowed.")
