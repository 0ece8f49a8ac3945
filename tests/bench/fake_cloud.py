"""minicloud's signed endpoint over hosts in memory, as a process of its own: `fake_cloud.py FOLDER INSTANCES`.

Everything is the product's but the hosts. INSTANCES running instances are put into the database beforehand, each with a
volume, an interface and tags. Prints the port, and then lives until standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import sys
import threading
import uuid
from pathlib import Path

import uvicorn
from support import front
from support import rows as make

from minicloud import ids
from minicloud.api.app import create_endpoint
from minicloud.api.changes import ChangeHub
from minicloud.api.operations import load_served_catalog
from minicloud.api.request_log import RequestLog
from minicloud.api.services import Services
from minicloud.clock import SystemClock
from minicloud.cloud import bootstrap, hosts, zones
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.instance_types import load_instance_types
from minicloud.config import Config
from minicloud.controller.context import Context
from minicloud.controller.engine import Engine
from minicloud.controller.events import EventPump
from minicloud.controller.programs.instance import InstanceProgram
from minicloud.controller.signals import EventSignals
from minicloud.controller.worker import Worker
from minicloud.hosts.fake import FakeHost, FakeHostDirectory, Guest
from minicloud.model.resources import Attachment, Instance, NetworkInterface, StateReason, Volume
from minicloud.model.states import AttachmentState, InstanceState, VolumeState
from minicloud.store.store import Store, Tx

HOSTS = 20
VCPUS = 64_000


def main(folder: Path, count: int) -> None:
    """Serve until standard input ends."""
    clock = SystemClock()
    store = Store(f"sqlite:///{folder}/minicloud.db", clock)
    store.migrate()
    config = Config(
        region=front.REGION,
        state_folder=str(folder),
        reserved_memory_mib=0,
        public_address_pools=("10.192.0.0/10",),
        max_instances_per_account=1_000_000,
    )
    cloud = Cloud(store, config, load_instance_types(()), ids.make_id, secrets.token_bytes)
    root = bootstrap.ensure_root(cloud)
    caller = Caller(root.account.id, front.REGION)
    bootstrap.ensure_region(cloud, root.account.id, front.REGION)
    zones.add_zone(cloud, caller, "lab-1a")
    for number in range(HOSTS):
        hosts.register_host(
            cloud, caller, front.new_host(f"host{number}", "lab-1a", vcpus=VCPUS, memory_mib=VCPUS * 1024)
        )
    store.write(lambda tx: _widen_pools(tx))
    store.write(front._insert_image)
    _fill(store, caller, count)

    rows = store.read(lambda tx: tx.hosts.where())
    guest = Guest(boot_seconds=0.0, shutdown_seconds=0.0)
    fakes = [FakeHost(row.id, clock, vcpus=VCPUS, guest_of=lambda _id: guest) for row in rows]
    directory = FakeHostDirectory(fakes)
    signals = EventSignals()
    context = Context(
        store=store,
        hosts=directory,
        jobs=FakeHost("controller", clock),
        signals=signals,
        config=config,
        clock=clock,
        incarnation="bench",
        fill_arguments=lambda snapshot, path: {
            "path": path,
            "size_bytes": snapshot.virtual_size_bytes,
            "blocks": [],
            "certificate_sha256": None,
        },
        copy_snapshot=lambda _source, _target: None,
    )
    worker = Worker(Engine(context, [InstanceProgram()]), config.workers)
    pump = EventPump(store, directory, signals, clock)
    changes = ChangeHub()
    store.on_commit(changes.notify)
    with contextlib.ExitStack() as stack:
        log = RequestLog(Path(config.request_log_folder), clock, config.slow_request_seconds)
        services = Services(
            cloud=cloud,
            catalog=load_served_catalog(),
            clock=clock,
            changes=changes,
            make_request_id=lambda: str(uuid.uuid4()),
            read_console=lambda _instance: b"",
            probe_host=lambda _address: (_ for _ in ()).throw(AssertionError("no host is added")),
            hosts_changed=lambda: None,
            trusted_uids=frozenset(),
            requests=log,
        )
        pump.start()
        stack.callback(pump.stop)
        worker.start()
        stack.callback(worker.stop)
        gc.collect()
        gc.freeze()
        print(root.access_key.id, root.access_key.secret, flush=True)
        server = uvicorn.Server(
            uvicorn.Config(
                create_endpoint(services),
                port=0,
                lifespan="off",
                ws="none",
                access_log=False,
                timeout_keep_alive=600,
                log_config=None,
                proxy_headers=False,
            )
        )
        threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
        asyncio.run(_serve(server))


async def _serve(server: uvicorn.Server) -> None:
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


def _end_with_input(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


def _widen_pools(tx: Tx) -> None:
    for pool in tx.pools.where():
        tx.pools.update(pool.id, capacity_bytes=2**60)


def _fill(store: Store, caller: Caller, count: int) -> None:
    """Put running instances into the database, in a VPC of their own."""
    if not count:
        return

    def decide(tx: Tx) -> None:
        group = tx.security_groups.where()[0]
        hosts_, pools = tx.hosts.where(), tx.pools.where()
        owned = {"account_id": caller.account_id, "region": caller.region}
        tx.vpcs.insert(make.vpc(99, **owned, cidr="10.0.0.0/9", is_default=False, transit_index=99))
        tx.subnets.insert(
            make.subnet(
                99, account_id=caller.account_id, vpc_id=make.number("vpc", 99), cidr="10.0.0.0/9", is_default=False
            )
        )
        instances: list[Instance] = []
        volumes: list[Volume] = []
        attachments: list[Attachment] = []
        ports: list[NetworkInterface] = []
        for n in range(1, count + 1):
            place = n % len(hosts_)
            born = {"created_us": tx.now_us - (count - n) * 1000}
            instances.append(
                make.instance(
                    n, **owned, **born, state=InstanceState.RUNNING, host_id=hosts_[place].id, image_id=front.IMAGE_ID,
                    state_reason=None if n % 2 else StateReason("pending", "pending"), ephemeral_disks=(),
                    vpc_id=make.number("vpc", 99), subnet_id=make.number("subnet", 99), key_name=None,
                    domain_uuid=str(uuid.UUID(int=n)), user_data=None,
                )
            )  # fmt: skip
            volumes.append(
                make.volume(n, **owned, **born, state=VolumeState.IN_USE, pool_id=pools[place].id, snapshot_id=None)
            )
            attachments.append(make.attachment(n, state=AttachmentState.ATTACHED))
            ports.append(
                make.network_interface(
                    n, account_id=caller.account_id, vpc_id=make.number("vpc", 99),
                    subnet_id=make.number("subnet", 99), group_ids=(group.id,),
                    private_ip=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",
                    public_ip=f"10.{128 + (n >> 16)}.{n >> 8 & 255}.{n & 255}",
                    mac="06:" + ":".join(f"{byte:02x}" for byte in n.to_bytes(5, "big")),
                )
            )  # fmt: skip
        tx.instances.insert_many(instances)
        tx.volumes.insert_many(volumes)
        tx.attachments.insert_many(attachments)
        tx.network_interfaces.insert_many(ports)
        tx.tags.set_many({row.id: {"Name": f"node-{n}", "team": str(n % 7)} for n, row in enumerate(instances)})

    store.write(decide)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
