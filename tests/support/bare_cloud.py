"""A cloud without a controller: use cases on a real store in memory, a manual clock, and ids that count.

For tests of decisions. What a use case leaves behind is asked with `dump`; `refuses` asserts that a refused one leaves
nothing, not even a wake-up.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import pytest
from support import rows as make

from minicloud.clock import ManualClock
from minicloud.cloud import bootstrap, hosts, launch, zones
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.instance_types import load_instance_types
from minicloud.cloud.views import InstanceView, Reservation
from minicloud.config import Config
from minicloud.errors import ApiError
from minicloud.model.plans import GIB, HostFacts
from minicloud.model.resources import BlockDevice, Host, Image, Instance, InstanceType, Snapshot
from minicloud.model.states import AttachmentState, InstanceState, Intent, VolumeState
from minicloud.store import schema
from minicloud.store.store import Store, Tx

T = TypeVar("T")

REGION = "lab-1"
ROOT = Caller(bootstrap.ROOT_ACCOUNT_ID, REGION)
OTHER = Caller("200000000002", REGION)
IMAGE_ID = make.number("ami", 1)
SNAPSHOT_ID = make.number("snap", 1)
UNKNOWN = "0" * 16 + "f"
ROOT_DEVICE = "/dev/xvda"

# The intent that an instance has when it rests in a state.
RESTING_INTENTS = {
    InstanceState.PENDING: Intent.RUNNING,
    InstanceState.RUNNING: Intent.RUNNING,
    InstanceState.STOPPING: Intent.STOPPED,
    InstanceState.STOPPED: Intent.STOPPED,
    InstanceState.SHUTTING_DOWN: Intent.TERMINATED,
    InstanceState.TERMINATED: Intent.TERMINATED,
}

# Databases to start from: migrating one costs more than a test.
_images: dict[str, bytes] = {}
# Stores of clouds that were closed: their engines have compiled the statements already.
_idle: list[CountingStore] = []


class CountingStore(Store):
    """A store that counts transactions: a use case makes one."""

    transactions = 0

    def begin_anew(self, clock: ManualClock) -> None:
        """Forget the clock and the listeners of another test."""
        self._clock = clock
        self._listeners.clear()

    def read(self, fn: Callable[[Tx], T]) -> T:
        self.transactions += 1
        return super().read(fn)

    def write(self, fn: Callable[[Tx], T]) -> T:
        self.transactions += 1
        return super().write(fn)


def facts(**changes: Any) -> HostFacts:
    known = HostFacts(
        hostname="host", vcpus=8, memory_mib=16384, virt_type="qemu", virt_type_reason="no /dev/kvm",
        machine_type="pc-q35-7.2", qemu_version="7.2.0", libvirt_version="9.0.0", kernel="6.1.0", boot_id="boot",
    )  # fmt: skip
    return replace(known, **changes)


def new_host(name: str = "host-a", zone: str = "lab-1a", **changes: Any) -> hosts.NewHost:
    """Return a registration; keywords of HostFacts change the facts, others the host."""
    measured = {key: changes.pop(key) for key in ("vcpus", "memory_mib", "virt_type", "machine_type") if key in changes}
    defaults: dict[str, Any] = {
        "name": name, "zone": zone, "address": f"{name}.lab", "ssh_user": "root", "ssh_port": 22,
        "host_key": "ssh-ed25519 AAAA", "uplink": "eth0", "facts": facts(hostname=name, **measured),
        "pool_capacity_bytes": 1024 * GIB,
    }  # fmt: skip
    return hosts.NewHost(**{**defaults, **changes})


class BareCloud:
    """Region lab-1 of the root account. `furnished`: two zones with one host each, and an image of 8 GiB."""

    def __init__(self, furnished: bool = True, **settings: Any) -> None:
        self.clock = ManualClock()
        self.store = _idle.pop() if _idle else CountingStore("sqlite://", self.clock)
        self.store.begin_anew(self.clock)
        self.config = Config(**{"region": REGION, "reserved_memory_mib": 0, **settings})
        counters: dict[str, itertools.count[int]] = defaultdict(lambda: itertools.count(0x100))
        self.cloud = Cloud(
            store=self.store,
            config=self.config,
            types=_packaged_types(),
            make_id=lambda prefix: make.number(prefix, next(counters[prefix])),
            random_bytes=lambda count: bytes(range(count)),
        )
        self.woken: list[frozenset[str]] = []
        key = "furnished" if furnished else "bare"
        if "migrated" not in _images:
            self.store.migrate()
            _images["migrated"] = self._sqlite(lambda connection: connection.serialize())
        # The default network is in the picture, so other settings of it need a cloud made from the start.
        if key in _images and "vpc_cidr" not in settings:
            self._sqlite(lambda connection: connection.deserialize(_images[key]))
        else:
            self._sqlite(lambda connection: connection.deserialize(_images["migrated"]))
            self._furnish(furnished)
            if "vpc_cidr" not in settings:
                _images[key] = self._sqlite(lambda connection: connection.serialize())
        # As many as the picture holds at most, so that ids do not depend on which test was first.
        for prefix in ("vpc", "subnet", "sg", "sgr", "h", "pool"):
            counters[prefix] = itertools.count(0x200)
        self.store.on_wake(self.woken.append)

    def _furnish(self, furnished: bool) -> None:
        bootstrap.ensure_root(self.cloud)
        bootstrap.ensure_region(self.cloud, ROOT.account_id, REGION)
        if furnished:
            for letter in "ab":
                zones.add_zone(self.cloud, ROOT, f"lab-1{letter}")
                self.add_host(f"host-{letter}", f"lab-1{letter}")
            self.add_image()

    def _sqlite(self, use: Callable[[sqlite3.Connection], T]) -> T:
        engine = self.store._backend._engine  # type: ignore[attr-defined]
        with engine.connect() as connection:
            return use(connection.connection.driver_connection)

    def close(self) -> None:
        """Let the store be used by another test, on another connection: SQLite crashes if a statement over json_each
        is kept while the database under it is replaced.
        """
        self.store._backend._engine.dispose()  # type: ignore[attr-defined]
        _idle.append(self.store)

    # What is there

    def add_host(self, name: str, zone: str = "lab-1a", **changes: Any) -> Host:
        return hosts.register_host(self.cloud, ROOT, new_host(name, zone, **changes))

    def add_snapshot(self, n: int, **changes: Any) -> Snapshot:
        row = make.snapshot(n, **{"size_gib": 8, **changes})
        self.store.write(lambda tx: tx.snapshots.insert(row))
        return row

    def add_image(self, n: int = 1, snapshot: dict[str, Any] | None = None, **changes: Any) -> Image:
        """Add an image of one 8 GiB snapshot, of the same number."""
        of = self.add_snapshot(n, **(snapshot or {}))
        devices = (BlockDevice(ROOT_DEVICE, of.id, of.size_gib),)
        row = make.image(
            n, **{"root_device_name": ROOT_DEVICE, "block_devices": devices, "allowed_account_ids": (), **changes}
        )
        self.store.write(lambda tx: tx.images.insert(row))
        return row

    def run(self, caller: Caller = ROOT, **changes: Any) -> Reservation:
        return launch.run(self.cloud, caller, request(**changes))

    def run_one(self, **changes: Any) -> InstanceView:
        (view,) = self.run(**changes).instances
        return view

    def rest(self, instance_id: str, state: InstanceState, **changes: Any) -> Instance:
        """Bring an instance to a state, as the controller would leave it there."""

        def settle(tx: Tx) -> Instance:
            values = {"state": state, "intent": RESTING_INTENTS[state], **changes}
            if state is InstanceState.TERMINATED:
                values["terminated_us"] = tx.now_us
                for port in tx.network_interfaces.where(instance_id=instance_id):
                    tx.network_interfaces.delete(port.id)
                for attachment in tx.attachments.where(instance_id=instance_id):
                    tx.attachments.delete(attachment.id)
                    tx.volumes.delete(attachment.volume_id)
            else:
                for attachment in tx.attachments.where(instance_id=instance_id):
                    tx.attachments.update(attachment.id, state=AttachmentState.ATTACHED)
                    tx.volumes.update(attachment.volume_id, state=VolumeState.IN_USE)
            if state is InstanceState.STOPPED:
                for port in tx.network_interfaces.where(instance_id=instance_id):
                    tx.network_interfaces.update(port.id, public_ip=None)
            return tx.instances.update(instance_id, **values)

        row = self.store.write(settle)
        self.woken.clear()
        return row

    def run_in(self, state: InstanceState, **changes: Any) -> Instance:
        """Launch one instance and bring it to a state; keywords of the row go to the row, others to the launch."""
        of_row = {key: changes.pop(key) for key in ("intent", "stop_forced", "impaired") if key in changes}
        return self.rest(self.run_one(**changes).instance.id, state, **of_row)

    def instance(self, instance_id: str) -> Instance:
        row = self.store.read(lambda tx: tx.instances.get(instance_id))
        assert row is not None
        return row

    def tags(self, resource_id: str) -> dict[str, str]:
        return self.store.read(lambda tx: tx.tags.of([resource_id])).get(resource_id, {})

    # What happened

    def dump(self) -> dict[str, list[Any]]:
        """Return every row of every table."""
        return self._sqlite(
            lambda connection: {
                table.name: connection.execute(f"SELECT * FROM {table.name}").fetchall()
                for table in schema.metadata.sorted_tables
            }
        )

    @contextmanager
    def refuses(self, code: str, message: str = "", status: int = 400) -> Iterator[None]:
        """Expect an ApiError of `code` whose message contains `message`, and no row changed and no task woken."""
        before, woken = self.dump(), list(self.woken)
        with pytest.raises(ApiError) as caught:
            yield
        assert (caught.value.code, caught.value.status) == (code, status), caught.value
        assert message in caught.value.message
        assert self.dump() == before
        assert self.woken == woken

    @contextmanager
    def one_transaction(self) -> Iterator[None]:
        """Expect exactly one transaction."""
        before = self.store.transactions
        yield
        assert self.store.transactions == before + 1

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Expect no row changed and no task woken."""
        before, woken = self.dump(), list(self.woken)
        yield
        assert self.dump() == before
        assert self.woken == woken


def request(**changes: Any) -> launch.RunRequest:
    """Return a launch of one t3.nano; keywords change fields."""
    defaults: dict[str, Any] = {"image_id": IMAGE_ID, "min_count": 1, "max_count": 1, "instance_type": "t3.nano"}
    return launch.RunRequest(**{**defaults, **changes})


@cache
def _packaged_types() -> dict[str, InstanceType]:
    return load_instance_types([])
