"""The hosts by id, each connecting in the background; and a look at a machine before it becomes a host.

Owns which hosts exist while the daemon runs, how a row becomes a libvirt URI and a session, and who hears of events.
Nobody waits here: a host that is not connected is a TransientError at once. Built by daemon.py, which hands it rows.
Implements protocol.HostDirectory.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from minicloud.clock import Clock
from minicloud.errors import TransientError
from minicloud.hosts.connections import Connections
from minicloud.hosts.libvirt_host import LibvirtHost
from minicloud.hosts.session import HostSession
from minicloud.hosts.ssh import SshTarget, SshTransport, read_host_key
from minicloud.hosts.ssh_files import remove_ssh_program, render_remote_uri, write_ssh_program
from minicloud.hosts.transports import LocalTransport, Transport
from minicloud.model.plans import HostEvent, HostFacts
from minicloud.model.resources import Host

LOCAL = "local"
LOCAL_URI = "qemu:///system"
PROBE_SECONDS = 25.0
PROBE_ID = "h-probe"

log = logging.getLogger(__name__)

EventListener = Callable[[HostEvent], None]


@dataclass(frozen=True, slots=True)
class Destination:
    """How a host is reached. `address` is "local" or ssh's destination; `host_key` pins that server."""

    address: str
    user: str = "root"
    port: int = 22
    host_key: str | None = None

    @property
    def is_local(self) -> bool:
        return self.address == LOCAL


class LibvirtHostDirectory:
    """Hosts from rows. `key_path` is the controller's private SSH key, `virt_type` the configuration's."""

    def __init__(self, state_folder: str, key_path: str, virt_type: str, clock: Clock) -> None:
        self._state_folder = state_folder
        self._key_path = key_path
        self._virt_type = virt_type
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: dict[str, tuple[Destination, _Member]] = {}
        self._listeners: list[EventListener] = []

    def put(self, row: Host) -> None:
        """Add a host, or reconnect it where the row's destination changed; returns at once.

        Raises ValueError for a remote host whose row pins no host key.
        """
        destination = Destination(row.address, row.ssh_user, row.ssh_port, row.host_key)
        with self._lock:
            known = self._hosts.get(row.id)
            if known is not None and known[0] == destination:
                return
            member = _connect(
                row.id, destination, self._state_folder, self._key_path, self._virt_type, self._clock, self._publish
            )
            self._hosts[row.id] = (destination, member)
        if known is not None:
            known[1].close()
        member.connections.start()

    def remove(self, host_id: str) -> None:
        """Let a host go, and forget its files; absent ones are fine."""
        with self._lock:
            known = self._hosts.pop(host_id, None)
        if known is not None:
            known[1].close()
            remove_ssh_program(self._state_folder, host_id)

    def ids(self) -> frozenset[str]:
        """Return the ids of the hosts that are here, connected or not."""
        with self._lock:
            return frozenset(self._hosts)

    def get(self, host_id: str) -> LibvirtHost:
        with self._lock:
            known = self._hosts.get(host_id)
        if known is None:
            raise TransientError(f"{host_id}: no such host is connected")
        member = known[1]
        if not member.connections.is_up:
            raise TransientError(f"{host_id}: not connected: {member.connections.why_down}")
        return member.host

    def subscribe(self, listener: EventListener) -> None:
        with self._lock:
            self._listeners.append(listener)

    def close(self) -> None:
        """Let every host go."""
        with self._lock:
            known, self._hosts = list(self._hosts.values()), {}
        for _, member in known:
            member.close()

    def _publish(self, event: HostEvent) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", event)


class _Member:
    """A host with its connections."""

    def __init__(self, host: LibvirtHost, connections: Connections) -> None:
        self.host = host
        self.connections = connections

    def close(self) -> None:
        self.host.close()


@dataclass(frozen=True, slots=True)
class ProbedHost:
    """What a machine said of itself; `host_key` is None for this machine."""

    facts: HostFacts
    host_key: str | None
    pool_capacity_bytes: int


def probe_host(destination: Destination, key_path: str, virt_type: str, clock: Clock, pool_folder: str) -> ProbedHost:
    """Connect to a machine once and measure it, the file system of its pool included.

    With no key pinned in `destination`, the key that the server shows is used and returned for an operator to confirm
    (ssh_files.render_fingerprint); with one pinned, no other is accepted. Raises TransientError when the machine cannot
    be reached, saying what failed, and PermanentError when it cannot be a host.
    """
    if not destination.is_local and destination.host_key is None:
        destination = replace(destination, host_key=_read_host_key(destination))
    with tempfile.TemporaryDirectory(prefix="minicloud-probe-") as folder:
        member = _connect(PROBE_ID, destination, folder, key_path, virt_type, clock, lambda event: None)
        try:
            # First alone, so that a login that fails says so in paramiko's words and not in those of libvirt's ssh.
            member.host.check()
            member.connections.start()
            if not member.connections.wait_up(PROBE_SECONDS):
                raise TransientError(f"{destination.address}: libvirt: {member.connections.why_down}")
            capacity_bytes, _ = member.host.pool_usage(pool_folder)
            return ProbedHost(member.host.facts(), destination.host_key, capacity_bytes)
        finally:
            member.close()


def _read_host_key(destination: Destination) -> str:
    try:
        return read_host_key(destination.address, destination.port)
    except OSError as error:
        raise TransientError(f"{destination.address}:{destination.port}: {error}") from error


def _connect(
    host_id: str,
    destination: Destination,
    state_folder: str,
    key_path: str,
    virt_type: str,
    clock: Clock,
    publish: EventListener,
) -> _Member:
    """Put a host together; its connections are not started."""
    transport: Transport
    if destination.is_local:
        uri, transport = LOCAL_URI, LocalTransport()
    elif destination.host_key is None:
        raise ValueError(f"{host_id}: no host key is pinned for {destination.address}")
    else:
        program = write_ssh_program(state_folder, host_id, destination.host_key, key_path)
        uri = render_remote_uri(destination.user, destination.address, destination.port, program)
        target = SshTarget(
            destination.address, destination.host_key, key_path, user=destination.user, port=destination.port
        )
        transport = SshTransport(target)
    session = HostSession(host_id, transport, clock)
    connections = Connections(
        host_id,
        uri,
        on_domain=lambda name, detail: publish(HostEvent(host_id, "domain", name, detail)),
        on_state=lambda state, why: publish(HostEvent(host_id, state, None, why)),
        check=lambda: host.check(),
    )
    host = LibvirtHost(host_id, connections, session, clock, virt_type)
    return _Member(host, connections)
