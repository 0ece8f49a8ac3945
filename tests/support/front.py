"""The front door over a cloud in memory: two zones with a host each, one image, no controller. Nothing ever runs; rows
change only as requests change them, or as a test says that the controller would have.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn
from support import rows as make

from minicloud.api.app import create_endpoint
from minicloud.api.changes import ChangeHub
from minicloud.api.door import create_door
from minicloud.api.request_log import RequestLog
from minicloud.api.services import HostAddress, HostProbe, Services
from minicloud.aws.models import Catalog
from minicloud.clock import Clock, SystemClock
from minicloud.cloud import bootstrap, hosts, zones
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.instance_types import load_instance_types
from minicloud.config import Config
from minicloud.errors import TransientError
from minicloud.model.plans import HostFacts
from minicloud.model.resources import BlockDevice, Image, Instance
from minicloud.model.states import AttachmentState, InstanceState, Intent, VolumeState
from minicloud.store.backend import Isolation
from minicloud.store.store import Store, Tx

REGION = "lab-1"
IMAGE_ID = make.number("ami", 1)
SNAPSHOT_ID = make.number("snap", 1)
GIB = 1024**3
FACTS = HostFacts(
    hostname="host",
    vcpus=8,
    memory_mib=16384,
    virt_type="qemu",
    virt_type_reason="/dev/kvm is absent",
    machine_type="pc-q35-7.2",
    qemu_version="7.2.0",
    libvirt_version="9.0.0",
    kernel="6.1.0",
    boot_id="boot",
)
_TYPES = load_instance_types(())
_template: bytes | None = None


def fixed_bytes(count: int) -> bytes:
    """Every cloud of the tests has the same access key."""
    return bytes(range(count))


def build_cloud(clock: Clock | None = None, **settings: Any) -> Cloud:
    """Return a cloud with zones lab-1a and lab-1b, a host in each, and an image of 2 GiB."""
    store = _open_store(clock or SystemClock())
    numbers = itertools.count(0x1000)
    config = Config(**{"region": REGION, "state_folder": "/nonexistent", "reserved_memory_mib": 0, **settings})
    cloud = Cloud(store, config, _TYPES, lambda prefix: make.number(prefix, next(numbers)), fixed_bytes)
    root = bootstrap.ensure_root(cloud)
    caller = Caller(root.account.id, REGION)
    bootstrap.ensure_region(cloud, root.account.id, REGION)
    for number, zone in enumerate(("lab-1a", "lab-1b"), start=1):
        zones.add_zone(cloud, caller, zone)
        hosts.register_host(cloud, caller, new_host(f"host{number}", zone))
    store.write(_insert_image)
    return cloud


def _open_store(clock: Clock) -> Store:
    """Return a migrated store in memory; migrating every test's anew would take most of the time."""
    global _template
    store = Store("sqlite://", clock)
    # A database that is not closed is a ResourceWarning since Python 3.13.
    weakref.finalize(store, store._backend.close)
    if _template is None:
        store.migrate()
        _template = store.read(_serialised)
        return store
    with store._backend.connect(Isolation.READ) as connection:
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.deserialize(_template)
    return store


def _serialised(tx: Tx) -> bytes:
    driver_connection: Any = tx.connection.connection.driver_connection
    return bytes(driver_connection.serialize())


def root_caller() -> Caller:
    """The root account in the tests' region."""
    return Caller(bootstrap.ROOT_ACCOUNT_ID, REGION)


def new_host(name: str, zone: str, **facts: Any) -> hosts.NewHost:
    return hosts.NewHost(name, zone, f"{name}.test", "root", 22, None, None, replace(FACTS, **facts), 400 * GIB)


def _insert_image(tx: Tx) -> None:
    tx.snapshots.insert(make.snapshot(1, region=REGION, size_gib=2, virtual_size_bytes=2 * GIB))
    tx.images.insert(image())


def image(n: int = 1, **changes: Any) -> Image:
    """A valid image of the snapshot."""
    defaults = {"region": REGION, "block_devices": (BlockDevice("/dev/sda1", snapshot_id=SNAPSHOT_ID),)}
    return make.image(n, **{**defaults, "root_device_name": "/dev/sda1", "imds_support": None, **changes})


def settle(cloud: Cloud) -> None:
    """Do to every instance's rows what the controller would, in one stroke."""

    def writes(tx: Tx) -> None:
        for row in tx.instances.where():
            wanted = InstanceState(row.intent.value)
            if row.state is InstanceState.TERMINATED or wanted is row.state:
                continue
            tx.instances.update(row.id, state=wanted, reboot_done=row.reboot_requested)
            attachments = tx.attachments.where(instance_id=row.id)
            if row.intent is Intent.RUNNING:
                for one in attachments:
                    tx.attachments.update(one.id, state=AttachmentState.ATTACHED)
                    tx.volumes.update(one.volume_id, state=VolumeState.IN_USE)
            else:
                for port in tx.network_interfaces.where(instance_id=row.id):
                    tx.network_interfaces.update(port.id, public_ip=None)
            if row.intent is Intent.TERMINATED:
                _remove(tx, row)

    cloud.store.write(writes)


def _remove(tx: Tx, row: Instance) -> None:
    for one in tx.attachments.where(instance_id=row.id):
        tx.attachments.delete(one.id)
        tx.volumes.delete(one.volume_id)
    for port in tx.network_interfaces.where(instance_id=row.id):
        tx.network_interfaces.delete(port.id)
    tx.instances.update(row.id, terminated_us=tx.now_us)


def count_rows(cloud: Cloud) -> dict[str, int]:
    """Return how many rows a launch could have left behind."""

    def look(tx: Tx) -> dict[str, int]:
        names = ("instances", "volumes", "attachments", "network_interfaces", "tasks", "images", "snapshots")
        found = {name: getattr(tx, name).count() for name in (*names, "import_tasks", "key_pairs", "client_tokens")}
        return {**found, "tags": sum(map(len, tx.tags.all().values()))}

    return cloud.store.read(look)


@dataclass
class Front:
    """A cloud, what its front door was given, and what that was asked."""

    cloud: Cloud
    services: Services
    consoles: dict[str, bytes]
    probed: list[HostAddress]
    hosts_changed: list[None]


def build_front(catalog: Catalog, spool: Path | None = None, clock: Clock | None = None, **settings: Any) -> Front:
    """Return a front door over a new cloud."""
    if spool is not None:
        settings = {"state_folder": str(spool), **settings}
    cloud = build_cloud(**settings)
    consoles: dict[str, bytes] = {}
    probed: list[HostAddress] = []
    changed: list[None] = []
    numbers = itertools.count(1)

    def read_console(instance: Instance) -> bytes:
        if instance.id not in consoles:
            raise TransientError("ssh: connect to host host1.test: No route to host")
        return consoles[instance.id]

    def probe(address: HostAddress) -> HostProbe:
        if address.address == "unreachable":
            raise TransientError("ssh: No route to host")
        probed.append(address)
        key = None if address.address == "local" else address.host_key or "ssh-ed25519 AAAA"
        return HostProbe(FACTS, 100 * GIB, key)

    changes = ChangeHub()
    cloud.store.on_commit(changes.notify)
    services = Services(
        cloud=cloud,
        catalog=catalog,
        clock=clock or SystemClock(),
        changes=changes,
        make_request_id=lambda: f"request-{next(numbers)}",
        read_console=read_console,
        probe_host=probe,
        hosts_changed=lambda: changed.append(None),
        trusted_uids=frozenset({0}),
        # Nothing that a test asks for is slow, however busy the machine is: a slow request is made one.
        requests=RequestLog(Path(cloud.config.request_log_folder), clock or SystemClock(), 60.0),
    )
    return Front(cloud, services, consoles, probed, changed)


class Server:
    """A real HTTP server on loopback whose application tests replace."""

    def __init__(self) -> None:
        self.app: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            self._serve,
            host="127.0.0.1",
            port=0,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def start(self) -> str:
        """Start to listen and return the endpoint's URL."""
        started = threading.Event()
        startup: Callable[..., Any] = self._server.startup

        async def announce(sockets: Any = None) -> None:
            await startup(sockets=sockets)
            started.set()

        self._server.startup = announce  # type: ignore[method-assign]
        self._thread.start()
        if not started.wait(60):
            raise AssertionError("the server did not start")
        (socket,) = self._server.servers[0].sockets
        return f"http://127.0.0.1:{socket.getsockname()[1]}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(60)


def endpoint_of(front: Front) -> Any:
    return create_endpoint(front.services)


def door_of(front: Front, peer: str = "uid:0") -> Any:
    """The unix socket's application, as a peer of that user would meet it."""
    door = create_door(front.services)

    async def with_peer(scope: Any, receive: Any, send: Any) -> None:
        await door({**scope, "client": (peer, 4711)}, receive, send)

    return with_peer
