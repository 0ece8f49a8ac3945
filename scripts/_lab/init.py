"""Process 1 of a lab machine: makes its private view of the file system, starts its daemons, then only reaps.

Started by _lab/machines.py inside fresh network, mount, PID and UTS namespaces, as `init.py SPEC_FILE READY_FD`; the
file is the JSON of plan.render_init_spec. Writes one line to READY_FD: "ready", or what went wrong. Imports nothing of
the lab: it runs by path, and after a moment that path may be hidden.
"""

from __future__ import annotations

import ctypes
import grp
import json
import os
import resource
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Any

MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    def encoded(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    if _libc.mount(encoded(source), encoded(target), encoded(kind), ctypes.c_ulong(flags), encoded(data)):
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} on {target}: {os.strerror(code)}")


def detach_mounts_below(folder: str) -> None:
    """Detach every mount below `folder` from this mount namespace (which is private already).

    Other people's network namespaces are mounts below /run/netns: a copy here would keep theirs alive.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        targets = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    for target in reversed(targets):
        if target.startswith(folder.rstrip("/") + "/"):
            _libc.umount2(os.fsencode(target), MNT_DETACH)


def is_below(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def make_private_view(spec: dict[str, Any]) -> None:
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    hidden = [target for _source, target in spec["folders"]]
    # Hold what must stay visible by descriptor before anything is covered, and bind it back afterwards.
    kept = [(path, os.open(path, os.O_PATH)) for path in spec["keep"] if is_below(path, [*hidden, "/run"])]
    sources = [(os.open(source, os.O_PATH), target) for source, target in [*spec["folders"], *spec["files"]]]
    resolvers = os.path.realpath("/etc/resolv.conf")
    detach_mounts_below("/run")
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    for folder in spec["run_folders"]:
        Path(folder).mkdir(0o755, parents=True)
    for descriptor, target in sources:
        # A file that this machine lacks needs no hiding; folders have been made by machines.py.
        if Path(target).exists():
            mount(f"/proc/self/fd/{descriptor}", target, None, MS_BIND)
        os.close(descriptor)
    for path, descriptor in kept:
        Path(path).mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, None, MS_BIND | MS_REC)
        os.close(descriptor)
    private_resolvers = "/run/resolv.conf"
    Path(private_resolvers).write_text(spec["resolvers"])
    if is_below(resolvers, ["/run"]):
        Path(resolvers).parent.mkdir(parents=True, exist_ok=True)
        Path(resolvers).write_text(spec["resolvers"])
    elif Path(resolvers).exists():
        mount(private_resolvers, resolvers, None, MS_BIND)


def make_kvm_usual() -> None:
    """Show /dev/kvm with the owner and mode udev gives it, where no udev runs and only root may open it.

    libvirt probes KVM with root's capabilities and then checks as the user QEMU runs as: where the two differ it finds
    its cached capabilities outdated and probes QEMU again, for ten seconds in every call that defines a domain.
    """
    try:
        group = grp.getgrnam("kvm").gr_gid
        device = Path("/dev/kvm").stat()
        if device.st_mode & 0o006 == 0o006 or (device.st_gid == group and device.st_mode & 0o060 == 0o060):
            return
        # A node of its own: changing the machine's would outlive the lab.
        os.mknod("/run/kvm", 0o660 | stat.S_IFCHR, device.st_rdev)
        os.chown("/run/kvm", 0, group)
        Path("/run/kvm").chmod(0o660)
        mount("/run/kvm", "/dev/kvm", None, MS_BIND)
    except (KeyError, OSError) as error:
        # No group, no KVM, or no right to make nodes: libvirt works without, slower at worst.
        print(f"/dev/kvm stays as it is: {error}", flush=True)


def run(commands: list[list[str]]) -> None:
    """Run commands at once and wait for them (a daemon's ends when it listens); RuntimeError if one fails.

    Meanwhile orphans are reaped, as they are later: libvirt waits for those it left behind.
    """
    no_input = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    running = {os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=no_input): argv for argv in commands}
    while running:
        pid, status = os.waitpid(-1, 0)
        argv = running.pop(pid, [])
        if argv and status != 0:
            raise RuntimeError(f"{' '.join(argv)} failed (exit status {os.waitstatus_to_exitcode(status)})")


def reap() -> None:
    """Wait for orphans until SIGTERM. Process 1 that does not reap makes libvirt wait seconds for the dead."""
    signals = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        if signal.sigwait(signals) == signal.SIGTERM:
            return


def main() -> None:
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    ready = int(sys.argv[2])
    os.set_inheritable(ready, False)
    try:
        socket.sethostname(spec["hostname"])
        make_private_view(spec)
        make_kvm_usual()
        for name, value in spec["sysctl"].items():
            Path("/proc/sys", name).write_text(value)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spec["open_files"], spec["open_files"]))
        os.chdir("/")
        run(spec["daemons"])
        run(spec["then"])
    except (OSError, RuntimeError) as error:
        os.write(ready, f"{error}\n".encode())
        raise
    os.write(ready, b"ready\n")
    os.close(ready)
    reap()


if __name__ == "__main__":
    main()
