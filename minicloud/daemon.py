"""The composition root of `minicloud serve`: builds every room, starts them in order, stops them in reverse.

Owns no decision and no state. Imported lazily by the commands that need it (`serve`, `init`, `doctor`) and by nothing
else.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount

from minicloud import ids
from minicloud.api.app import create_endpoint
from minicloud.api.changes import ChangeHub
from minicloud.api.door import create_door
from minicloud.api.import_files import clear_spool
from minicloud.api.operations import load_served_catalog
from minicloud.api.request_log import RequestLog
from minicloud.api.services import HostAddress, HostProbe, Services
from minicloud.clock import MICROSECONDS, Clock, SystemClock
from minicloud.cloud.bootstrap import ensure_region, ensure_root
from minicloud.cloud.context import Cloud
from minicloud.cloud.instance_types import load_instance_types
from minicloud.config import Config
from minicloud.controller.context import Context
from minicloud.controller.engine import Engine
from minicloud.controller.events import EventPump
from minicloud.controller.programs.image_copy import ImageCopyProgram
from minicloud.controller.programs.image_import import ImportProgram
from minicloud.controller.programs.instance import InstanceProgram
from minicloud.controller.signals import EventSignals
from minicloud.controller.worker import Worker
from minicloud.errors import ConfigError, PermanentError, StoreError, TransientError
from minicloud.hosts.checkup import Check, check_up
from minicloud.hosts.directory import Destination, LibvirtHostDirectory, probe_host
from minicloud.hosts.local_probe import libvirt_version, probe_virt
from minicloud.hosts.session import HostSession
from minicloud.hosts.session_jobs import SessionJobs
from minicloud.hosts.ssh_files import ensure_key_pair
from minicloud.hosts.transports import LocalTransport
from minicloud.listen import Doors, listen
from minicloud.model.resources import Snapshot
from minicloud.objects.fill import render_fill_arguments
from minicloud.objects.folder import FolderStore
from minicloud.objects.protocol import ObjectError, ObjectStore
from minicloud.objects.serve import objects_app
from minicloud.store import queries
from minicloud.store.store import Store
from minicloud.tls import ServerTls, load_tls

log = logging.getLogger(__name__)

BLOCK_URL_SECONDS = 6 * 3600
CONSOLE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Initialised:
    """What `minicloud init` tells its owner."""

    account_id: str
    access_key_id: str
    secret_access_key: str


def initialise(config: Config) -> Initialised:
    """Make folders, database, SSH key, root account and default network; what exists is kept. Raises ConfigError."""
    try:
        _ensure_folders(config)
        ensure_key_pair(config.state_folder)
        store = Store(config.database, SystemClock())
        try:
            store.migrate()
            cloud = _build_cloud(config, store)
            root = ensure_root(cloud)
            ensure_region(cloud, root.account.id, config.region)
        finally:
            store.close()
    except (OSError, StoreError) as error:
        raise ConfigError(f"{config.path}: the state cannot be made: {error}") from error
    return Initialised(root.account.id, root.access_key.id, root.access_key.secret)


def check_this_machine(config: Config) -> list[Check]:
    """Run the check-up of `minicloud doctor`."""
    return check_up(probe_virt, libvirt_version, config.state_folder)


def _ensure_folders(config: Config) -> None:
    for folder in (config.state_folder, config.object_folder, config.spool_folder):
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)


def _build_cloud(config: Config, store: Store) -> Cloud:
    types = load_instance_types(config.instance_types_files)
    return Cloud(store, config, types, ids.make_id, secrets.token_bytes)


def serve(config: Config, log_level: str) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raises ConfigError when it cannot start."""
    logging.basicConfig(
        level=log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("paramiko", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    tls = load_tls(config)
    initialise(config)
    with contextlib.ExitStack() as stack:
        try:
            doors = _start(config, tls, SystemClock(), stack)
        except (OSError, StoreError) as error:
            raise ConfigError(f"{config.path}: the daemon cannot start: {error}") from error
        asyncio.run(listen(config, doors, tls))
    log.info("stopped; guests go on")


def _start(config: Config, tls: ServerTls | None, clock: Clock, stack: contextlib.ExitStack) -> Doors:
    """Build and start every room; `stack` stops them in reverse."""
    store = Store(config.database, clock)
    stack.callback(store.close)
    store.lock_exclusively()
    store.migrate()
    if config.database.startswith("sqlite"):
        # This daemon owns the database alone: whoever held a lease before it is gone.
        voided = store.write(lambda tx: queries.void_leases(tx))
        log.info("took over %d leases", voided)
    cloud = _build_cloud(config, store)
    objects = FolderStore(config.object_folder)
    objects.collect()  # Blocks of imports that were abandoned before their manifest was written.

    key_path = ensure_key_pair(config.state_folder).key_path
    directory = LibvirtHostDirectory(config.state_folder, key_path, config.virt_type, clock)
    stack.callback(directory.close)

    syncing = threading.Lock()

    def hosts_changed() -> None:
        # One at a time: what one call read before another's change must not be put over it.
        with syncing:
            _sync_hosts(store, directory)

    local_session = HostSession("controller", LocalTransport(), clock)
    stack.callback(local_session.close)
    signals = EventSignals()
    snapshots = _Snapshots(objects, config, tls, clock)
    context = Context(
        store=store,
        hosts=directory,
        jobs=SessionJobs(local_session),
        signals=signals,
        config=config,
        clock=clock,
        incarnation=secrets.token_hex(8),
        fill_arguments=snapshots.fill_arguments,
        copy_snapshot=snapshots.copy,
    )
    worker = Worker(Engine(context, [InstanceProgram(), ImportProgram(), ImageCopyProgram()]), config.workers)
    pump = EventPump(store, directory, signals, clock)
    changes = ChangeHub()
    store.on_commit(changes.notify)
    requests = RequestLog(Path(config.request_log_folder), clock, config.slow_request_seconds)
    requests.start()
    stack.callback(requests.stop)
    services = Services(
        cloud=cloud,
        catalog=load_served_catalog(),
        clock=clock,
        changes=changes,
        make_request_id=lambda: str(uuid.uuid4()),
        read_console=lambda instance: directory.get(instance.host_id).read_console(instance.id, CONSOLE_BYTES),
        probe_host=_HostProber(key_path, config.virt_type, clock),
        hosts_changed=hosts_changed,
        trusted_uids=frozenset({0, os.geteuid()}),
        requests=requests,
    )
    clear_spool(config, store.read(lambda tx: [row.path for row in tx.import_tasks.where() if row.ended_us is None]))
    pump.start()
    stack.callback(pump.stop)
    hosts_changed()
    worker.start()
    stack.callback(worker.stop)
    gc.collect()
    gc.freeze()
    endpoint = Starlette(
        routes=[Mount("/_objects", objects_app(objects, clock)), Mount("/", create_endpoint(services))]
    )
    return Doors(endpoint=endpoint, door=create_door(services))


def _sync_hosts(store: Store, directory: LibvirtHostDirectory) -> None:
    """Let the directory hold exactly the hosts that have rows."""
    rows = store.read(lambda tx: tx.hosts.where())
    for row in rows:
        try:
            directory.put(row)
        except ValueError as error:
            log.error("host %s cannot be used: %s", row.name, error)
    for host_id in set(directory.ids()) - {row.id for row in rows}:
        directory.remove(host_id)


class _Snapshots:
    """What the controller's programs want of the object store, with errors as they know them."""

    def __init__(self, objects: ObjectStore, config: Config, tls: ServerTls | None, clock: Clock) -> None:
        self._objects = objects
        self._config = config
        self._tls = tls
        self._clock = clock

    def fill_arguments(self, snapshot: Snapshot, path: str) -> dict[str, object]:
        """Return the arguments of the host job `fill_base`. Raises PermanentError, TransientError."""
        expires_at = self._clock.now_us() // MICROSECONDS + BLOCK_URL_SECONDS
        with _as_host_errors(snapshot.id):
            return render_fill_arguments(
                self._objects,
                snapshot.id,
                snapshot.manifest_digest or "",
                path,
                self._config.endpoint_url,
                expires_at,
                None if self._tls is None else self._tls.certificate_sha256,
            )

    def copy(self, source_id: str, target_id: str) -> None:
        """Give a snapshot's content a second name. Raises PermanentError, TransientError."""
        with _as_host_errors(source_id):
            self._objects.copy_snapshot(source_id, target_id)


@contextlib.contextmanager
def _as_host_errors(snapshot_id: str) -> Iterator[None]:
    try:
        yield
    except ObjectError as error:
        raise PermanentError("Server.InternalError", f"{snapshot_id}: {error}") from error
    except OSError as error:
        raise TransientError(f"the object store cannot be used: {error}") from error


class _HostProber:
    """Measures a machine that is to become a host."""

    def __init__(self, key_path: str, virt_type: str, clock: Clock) -> None:
        self._key_path = key_path
        self._virt_type = virt_type
        self._clock = clock

    def __call__(self, asked: HostAddress) -> HostProbe:
        destination = Destination(asked.address, asked.ssh_user, asked.ssh_port, asked.host_key)
        probed = probe_host(destination, self._key_path, self._virt_type, self._clock, asked.pool_path)
        return HostProbe(probed.facts, probed.pool_capacity_bytes, probed.host_key)
