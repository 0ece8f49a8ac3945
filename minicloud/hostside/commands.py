"""Runs programs on a host: argv lists, bounded in time and output, with what they said in the failure.

It refuses shells and unbounded waits. Every host-side module that needs a program calls `run`. A program runs in the
network namespace of the calling thread (see namespaces.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
from typing import Sequence, Tuple, Union

from minicloud.hostside.failures import Failure

COMMAND_SECONDS = 20.0
DETAIL_BYTES = 4000

# A fixed environment: output is parsed, so it must not follow the caller's language.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin", "LC_ALL": "C", "HOME": "/"}


def run(
    argv: Sequence[str],
    stdin: Union[bytes, str] = b"",
    timeout_seconds: float = COMMAND_SECONDS,
    accepted: Tuple[int, ...] = (0,),
    keep: Tuple[int, ...] = (),
) -> bytes:
    """Run a program to its end and return its standard output; it inherits the descriptors in `keep` (files.locked).

    Raises Failure: `missing-program` (permanent), `command-timeout` (transient: it was killed, its outcome is unknown)
    or `command-failed` (transient: an exit status not in `accepted`), with standard error in the detail.
    """
    return finish(start(argv, keep), argv, stdin, timeout_seconds, accepted)


def start(argv: Sequence[str], keep: Tuple[int, ...] = ()) -> "subprocess.Popen[bytes]":
    """Start a program with pipes on all three streams, in a process group of its own; `finish` ends it."""
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            start_new_session=True,
            pass_fds=keep,
        )
    except FileNotFoundError as error:
        raise Failure("missing-program", "%s is not installed (%s)" % (argv[0], error), transient=False) from error
    except OSError as error:
        raise Failure("command-failed", "cannot start %s: %s" % (argv[0], error), transient=True) from error


def finish(
    process: "subprocess.Popen[bytes]",
    argv: Sequence[str],
    stdin: Union[bytes, str] = b"",
    timeout_seconds: float = COMMAND_SECONDS,
    accepted: Tuple[int, ...] = (0,),
) -> bytes:
    """Feed and await what `start` started; `run` says what is returned and raised."""
    text = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        output, errors = process.communicate(text, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        _kill_group(process)
        raise Failure(
            "command-timeout", "%s took over %g s" % (_words(argv), timeout_seconds), transient=True
        ) from error
    except BaseException:
        _kill_group(process)
        raise
    if process.returncode not in accepted:
        said = errors[-DETAIL_BYTES:].decode("utf-8", "replace").strip()
        detail = "%s ended with status %d: %s" % (_words(argv), process.returncode, said)
        raise Failure("command-failed", detail, transient=True)
    return output


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def _words(argv: Sequence[str]) -> str:
    return textwrap.shorten(" ".join(argv), 500, placeholder=" …")
