"""Keeps every router's dnsmasq and metadata server running on this host: one small detached process per state folder.

It alone starts those servers, so two calls never start two; network.py asks it through supervision.py. It notices a
death by the kernel's own word (pidfd) and starts a successor at once, handing it the metadata socket that stayed open
meanwhile. Servers outlive it: whoever starts next finds them in their namespaces and takes them over. A twin process
waits for its death and starts it again; a newer version of the host side replaces it by asking it to retire.
When it starts it restores the routers of this host from the last plans that were pushed.

It refuses to decide what a router needs: that is in the router's folder, written by network.py.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from minicloud.hostside import commands, files, metadata, namespaces, network, supervision
from minicloud.hostside.failures import Failure
from minicloud.hostside.nft import METADATA_IP
from minicloud.hostside.program import program_argv

# A server that lived this long died by accident; one that did not may be unable to live, and is not hurried.
STEADY_SECONDS = 5.0
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 5.0
MAX_LOGGED_ERRORS = 1000
METADATA_PORT = 80

_SYS_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)


def restore(state_folder: Union[str, Path]) -> None:
    """Bring every router of the pushed plans back, with its servers, as after a reboot; cheap where all is well.

    Also starts or replaces the supervisor: sessions call it as they open. Raises Failure.
    """
    folder = Path(state_folder)
    files.ensure_folder(folder)
    supervision.ensure_running(folder)
    network.restore(folder)


class Server:
    """A program in a router's namespace: running, or waiting to be started again."""

    def __init__(self) -> None:
        self.argv: List[str] = []
        self.pid: Optional[int] = None
        self.pidfd: Optional[int] = None
        self.child: Optional["subprocess.Popen[bytes]"] = None
        self.started_at = 0.0
        self.pause_seconds = 0.0
        self.start_again_at: Optional[float] = None


class Router:
    """A router's two servers, the metadata socket, and which hosts files dnsmasq has read.

    `inode` tells its namespace from a later one of that name.
    """

    def __init__(self, name: str, inode: Optional[int]) -> None:
        self.name = name
        self.inode = inode
        self.dnsmasq = Server()
        self.metadata = Server()
        self.listener: Optional[socket.socket] = None
        self.read_files: Tuple[Tuple[int, int], ...] = ()


class Supervisor:
    """The event loop. `clock` is monotonic."""

    def __init__(self, state_folder: Path, listener: socket.socket, clock: Callable[[], float]) -> None:
        self._folder = state_folder
        self._listener = listener
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._routers: Dict[str, Router] = {}
        self._twin: Optional[Tuple[int, int]] = None
        self._errors = 0
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def run(self) -> None:
        """Serve until told to retire."""
        self._start_twin()
        threading.Thread(target=self._restore, name="restore", daemon=True).start()
        while True:
            for key, _ in self._selector.select(self._pause()):
                self._guard(key.data)
            now = self._clock()
            for router in list(self._routers.values()):
                for server in (router.dnsmasq, router.metadata):
                    if server.start_again_at is not None and server.start_again_at <= now:
                        self._guard(lambda router=router: self._ensure(router))  # type: ignore[misc]

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            self._log()

    def _log(self) -> None:
        self._errors += 1
        if self._errors <= MAX_LOGGED_ERRORS:
            traceback.print_exc()

    def _pause(self) -> Optional[float]:
        times = [
            server.start_again_at
            for router in self._routers.values()
            for server in (router.dnsmasq, router.metadata)
            if server.start_again_at is not None
        ]
        return max(0.0, min(times) - self._clock()) if times else None

    def _restore(self) -> None:
        # A thread: restoring waits for locks whose holders may be waiting for an answer of the event loop.
        try:
            network.restore(self._folder)
        except Exception:
            self._log()

    # Messages.

    def _accept(self) -> None:
        link, _ = self._listener.accept()
        link.settimeout(supervision.CALL_SECONDS)
        self._selector.register(link, selectors.EVENT_READ, lambda: self._message(link))

    def _message(self, link: socket.socket) -> None:
        self._selector.unregister(link)
        with link:
            data = link.recv(supervision.MAX_MESSAGE_BYTES)
            if not data:
                return
            message = json.loads(data)
            operation = message.get("operation")
            if operation == "retire":
                self._retire(link)
            link.send(json.dumps(self._answer(operation, message)).encode())

    def _answer(self, operation: str, message: Dict[str, Any]) -> Dict[str, Any]:
        try:
            # Asked by another version: it sees from the answer that it has to replace this one first.
            if operation == "ensure" and message["version"] == supervision.version():
                self._ensure_named(message["router"])
            elif operation == "forget":
                self._forget(message["router"])
        except (Failure, OSError) as error:
            self._log()
            return {"version": supervision.version(), "error": str(error)}
        return {"version": supervision.version()}

    def _retire(self, link: socket.socket) -> None:
        if self._twin is not None:
            signal.pidfd_send_signal(self._twin[1], signal.SIGKILL)
        self._listener.close()
        files.remove_file(self._folder / "supervisor.sock")
        link.close()
        os._exit(0)

    # Routers.

    def _ensure_named(self, name: str) -> None:
        router = self._routers.get(name)
        inode = namespaces.inode(name)
        if router is not None and router.inode != inode:
            self._forget(name)
            router = None
        if router is None:
            router = Router(name, inode)
            self._adopt(router)
            self._routers[name] = router
        self._ensure(router)

    def _ensure(self, router: Router) -> None:
        if router.inode is None or namespaces.inode(router.name) != router.inode:
            self._forget(router.name)
            raise Failure("no-namespace", f"there is no router {router.name}", transient=True)
        folder = metadata.router_folder(self._folder, router.name)
        try:
            self._ensure_metadata(router, folder)
        finally:
            self._ensure_dnsmasq(router, folder)

    def _ensure_metadata(self, router: Router, folder: Path) -> None:
        if router.listener is None:
            router.listener = namespaces.inside(router.name, lambda: metadata.listen(METADATA_IP, METADATA_PORT))
        argv = program_argv("metadata", str(self._folder), router.name)
        self._ensure_server(router, router.metadata, argv, router.listener, folder / "metadata.log")

    def _ensure_dnsmasq(self, router: Router, folder: Path) -> None:
        config = network.dnsmasq_config(folder)
        if config is None:
            raise Failure("no-configuration", f"{folder} has no dnsmasq configuration", transient=True)
        current = tuple(_stamp(folder / name) for name in ("hosts", "names"))
        argv = ["dnsmasq", f"--conf-file={config}"]
        started = self._ensure_server(router, router.dnsmasq, argv, None, folder / "dnsmasq.log")
        if not started and current != router.read_files and router.dnsmasq.pidfd is not None:
            signal.pidfd_send_signal(router.dnsmasq.pidfd, signal.SIGHUP)
        router.read_files = current

    def _ensure_server(
        self, router: Router, server: Server, argv: List[str], stdin: Optional[socket.socket], log: Path
    ) -> bool:
        """Start a server unless it runs as it should; True if it was started."""
        now = self._clock()
        if server.pid is not None and server.argv == argv:
            return False
        if server.argv == argv and server.start_again_at is not None and server.start_again_at > now:
            return False
        self._end(server)
        server.argv = argv
        try:
            child = namespaces.inside(router.name, lambda: _start(argv, stdin, log))
        except BaseException:
            self._back_off(server)
            raise
        self._watch(router, server, child.pid, os.pidfd_open(child.pid))
        server.child = child
        return True

    def _back_off(self, server: Server) -> None:
        server.pause_seconds = min(max(server.pause_seconds * 2, FIRST_PAUSE_SECONDS), MAX_PAUSE_SECONDS)
        server.start_again_at = self._clock() + server.pause_seconds

    def _watch(self, router: Router, server: Server, pid: int, pidfd: int) -> None:
        server.pid, server.pidfd, server.started_at = pid, pidfd, self._clock()
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._died(router, server, pid))

    def _died(self, router: Router, server: Server, pid: int) -> None:
        if server.pid != pid:
            return  # an event from before it was replaced
        lived = self._clock() - server.started_at
        self._unwatch(server)
        if lived >= STEADY_SECONDS:
            server.pause_seconds = 0.0
            server.start_again_at = self._clock()
        else:
            self._back_off(server)
        if self._routers.get(router.name) is router and namespaces.inode(router.name) != router.inode:
            self._forget(router.name)

    def _unwatch(self, server: Server) -> None:
        if server.pidfd is not None:
            self._selector.unregister(server.pidfd)
            os.close(server.pidfd)
        if server.child is not None:
            # It is dead, or no signal can end it: then it is init's one day.
            server.child.poll()
        server.pid = server.pidfd = server.child = None

    def _end(self, server: Server) -> None:
        if server.pidfd is not None:
            try:
                signal.pidfd_send_signal(server.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            _await_death(server.pidfd)
            self._unwatch(server)
        server.start_again_at = None

    def _forget(self, name: str) -> None:
        router = self._routers.pop(name, None)
        if router is not None:
            self._end(router.dnsmasq)
            self._end(router.metadata)
            if router.listener is not None:
                router.listener.close()

    def _adopt(self, router: Router) -> None:
        """Take over what an earlier supervisor left running; end what is older than its configuration."""
        number = router.inode
        for pid in namespaces.processes_by_inode().get(number, []) if number is not None else []:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            server = self._role(router, _argv_of(pid))
            # What else runs there (somebody looking for a fault, perhaps) is none of ours. Nor is another's process
            # that got the id before the pidfd was open.
            if server is None or namespaces.inode_of(pid) != number:
                os.close(pidfd)
            elif server.pid is None:
                server.argv = _argv_of(pid)
                if server is router.metadata:
                    router.listener = _socket_of(pidfd)
                self._watch(router, server, pid, pidfd)
            else:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                _await_death(pidfd)
                os.close(pidfd)

    def _role(self, router: Router, argv: List[str]) -> Optional[Server]:
        if argv[:1] == ["dnsmasq"] and argv[1:2] and argv[1].startswith(f"--conf-file={self._folder}/"):
            return router.dnsmasq
        return router.metadata if argv[-3:] == ["metadata", str(self._folder), router.name] else None

    # The twin.

    def _start_twin(self) -> None:
        pid = os.fork()
        if pid == 0:
            _be_twin(os.getppid(), self._folder)
        self._twin = (pid, os.pidfd_open(pid))
        self._selector.register(self._twin[1], selectors.EVENT_READ, self._twin_died)

    def _twin_died(self) -> None:
        if self._twin is not None:
            pid, pidfd = self._twin
            self._selector.unregister(pidfd)
            os.close(pidfd)
            os.waitpid(pid, 0)
            self._twin = None
        self._start_twin()


def _be_twin(supervisor: int, state_folder: Path) -> None:
    """Wait until the supervisor is dead, then become the next one. Never returns."""
    try:
        # Its sockets and its lock must end with it, so this process may not hold them too.
        os.closerange(3, 4096)
        try:
            pidfd = os.pidfd_open(supervisor)
        except ProcessLookupError:
            pidfd = None
        if pidfd is not None and os.getppid() == supervisor:
            _await_death(pidfd, None)
        argv = program_argv("supervisor", str(state_folder))
        os.execv(argv[0], argv)
    finally:
        os._exit(1)


def _start(argv: List[str], stdin: Optional[socket.socket], log: Path) -> "subprocess.Popen[bytes]":
    with open(log, "wb") as errors:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else stdin.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd="/",
            env=commands.ENVIRONMENT,
            start_new_session=True,
        )


def _await_death(pidfd: int, timeout_seconds: Optional[float] = 5.0) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        selector.select(timeout_seconds)


def _argv_of(pid: int) -> List[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []


def _socket_of(pidfd: int) -> Optional[socket.socket]:
    """Return the standard input of a metadata server, its listening socket; None where the kernel cannot (< 5.6)."""
    descriptor = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, 0, 0)
    if descriptor < 0:
        return None
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None


def _stamp(path: Path) -> Tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def _listen(state_folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    files.remove_file(state_folder / "supervisor.sock")
    with supervision.socket_path(state_folder) as path:
        listener.bind(path)
    (state_folder / "supervisor.sock").chmod(0o600)
    listener.listen(64)
    return listener


def _detach(state_folder: Path) -> int:
    """Return in a child that belongs to nobody's session, with the end of a pipe to say on that it is ready."""
    ready, say_ready = os.pipe()
    if os.fork():
        os.close(say_ready)
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open(state_folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number, source in ((0, nothing), (1, nothing), (2, log)):
        os.dup2(source, number)
    os.close(nothing)
    os.close(log)
    return say_ready


def main(argv: List[str]) -> int:
    """`supervisor STATE_FOLDER`: detach and supervise; returns when it is ready, or somebody else already is."""
    folder = Path(argv[0])
    files.ensure_folder(folder)
    say_ready = _detach(folder)
    lock = os.open(folder / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(say_ready, b"+")
        return 0
    # dnsmasq inherits it: a SIGHUP that finds dnsmasq before its handler is set would kill it otherwise.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervision.version()
    listener = _listen(folder)
    os.write(say_ready, b"+")
    os.close(say_ready)
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    Supervisor(folder, listener, time.monotonic).run()
    return 0
