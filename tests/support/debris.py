"""Looks for debris: what a cloud at rest holds that no row accounts for, and what rows promise that is not there.

Works on a fake world; it knows nothing of how anything came to be.
"""

from __future__ import annotations

from pathlib import Path

from support.world import Rows, World, read_rows

from minicloud.cloud import plans
from minicloud.hosts.fake import FakeHost
from minicloud.model import names
from minicloud.model.states import AttachmentState, ImageState, ImportTaskState, InstanceState, VolumeState


def debris(world: World) -> list[str]:
    """Return every difference between what hosts hold and what rows say, of a cloud at rest."""
    rows = read_rows(world.store)
    missing = [
        f"{image.id} is available without {device.snapshot_id}"
        for image in rows.images
        if image.source_image_id is not None and image.state is ImageState.AVAILABLE
        for device in image.block_devices
        if device.snapshot_id is not None and device.snapshot_id not in world.manifests
    ]
    return [
        *missing,
        *_rows(rows),
        *(each for host in world.hosts for each in _host(world, rows, host.host_id)),
        *_jobs(world),
    ]


def assert_no_debris(world: World) -> None:
    """Fail if anything is left that should not be, or missing that should be there, or ever went wrong."""
    found = [*world.violations(), *debris(world)]
    if found:
        raise AssertionError("\n".join([*found, "", "What happened:", world.story()]))


def _rows(rows: Rows) -> list[str]:
    found: list[str] = []
    states = {row.id: row.state for row in rows.instances}
    resources = {*states, *(row.id for row in (*rows.import_tasks, *rows.images))}
    snapshots = {row.id: row.state for row in rows.snapshots}
    images = {row.id: row.state for row in rows.images}
    tasks = {task.id: task for task in rows.tasks}
    found += [f"task {id} belongs to nothing" for id in tasks.keys() - resources]
    found += [f"task {task.id} is still leased" for task in rows.tasks if task.lease_holder is not None]
    found += [f"instance {id} has no task" for id in states.keys() - tasks.keys()]
    for attachment in rows.attachments:
        state = states.get(attachment.instance_id)
        if state not in (InstanceState.RUNNING, InstanceState.STOPPED):
            found.append(f"{attachment.id} attaches to an instance that is {state}")
        elif attachment.state is not AttachmentState.ATTACHED:
            found.append(f"{attachment.id} is {attachment.state} on an instance that is {state}")
    for interface in rows.network_interfaces:
        state = states.get(interface.instance_id)
        if state not in (InstanceState.RUNNING, InstanceState.STOPPED):
            found.append(f"{interface.id} holds addresses of an instance that is {state}")
        if state is InstanceState.STOPPED and interface.public_ip is not None:
            found.append(f"{interface.id} holds a public address of a stopped instance")
        if state is InstanceState.RUNNING and interface.public_ip is None:
            found.append(f"{interface.id} has no public address, and its instance runs")
    attached = {attachment.volume_id for attachment in rows.attachments}
    for volume in rows.volumes:
        wanted = VolumeState.IN_USE if volume.id in attached else VolumeState.AVAILABLE
        if volume.state is not wanted:
            found.append(f"{volume.id} is {volume.state} and not {wanted}")
    for row in rows.import_tasks:
        if row.state is ImportTaskState.ACTIVE:
            found.append(f"{row.id} is still active")
        if row.remove_source and Path(row.path).exists():
            found.append(f"{row.id} left {row.path}")
        ended = ("completed", "available") if row.state is ImportTaskState.COMPLETED else (None, None)
        made = snapshots.get(row.snapshot_id), images.get(row.image_id)
        if made != ended:
            found.append(f"{row.id} is {row.state}, and its snapshot and image are {made}")
    found += [f"{id} is still pending" for id, state in (*snapshots.items(), *images.items()) if state == "pending"]
    known = {*states, *(row.id for row in (*rows.volumes, *rows.network_interfaces, *rows.import_tasks))}
    found += [
        f"{id} is gone, and its tags are not"
        for id in rows.tags
        if id.split("-")[0] in ("i", "vol", "eni") and id not in known
    ]
    return found


def _host(world: World, rows: Rows, host_id: str) -> list[str]:
    host = world.directory.hosts[host_id]
    # One look at a host on which workers act meanwhile.
    with host.lock:
        return _held(world, rows, host)


def _held(world: World, rows: Rows, host: FakeHost) -> list[str]:
    host_id = host.host_id
    inventory = host.holdings()
    mine = {row.id: row for row in rows.instances if row.host_id == host_id}
    running = {id for id, row in mine.items() if row.state is InstanceState.RUNNING}
    pools = {pool.id: pool for pool in rows.pools if pool.host_id == host_id}
    volumes = {
        names.volume_path(pools[volume.pool_id].path, volume.id) for volume in rows.volumes if volume.pool_id in pools
    }
    ephemeral = {
        names.ephemeral_path(pool.path, id, disk.virtual_name)
        for id in running
        for disk in mine[id].ephemeral_disks
        for pool in pools.values()
    }
    ports = {row.id for row in rows.network_interfaces if row.instance_id in running}
    consoles = {id for id, row in mine.items() if row.state is not InstanceState.TERMINATED}
    found: list[str] = []
    for what, there, wanted in (
        ("domain", set(inventory.domains), running),
        ("disk", set(inventory.disk_paths), volumes | ephemeral),
        ("port", set(inventory.ports), ports),
        ("console", set(host.consoles), consoles),
        ("job", set(inventory.jobs), set()),
        ("process", {spec.name for spec in host.leftovers.values()}, set()),
    ):
        found += [f"{host_id}: {what} {each} is left over" for each in sorted(there - wanted)]
        found += [f"{host_id}: {what} {each} is missing" for each in sorted(wanted - there)]
    found += [
        f"{host_id}: domain {id} is {status.state}"
        for id, status in inventory.domains.items()
        if status.state != "running"
    ]
    for id in running & set(host.domains):
        spec = host.domains[id].spec
        if (spec.vcpus, spec.memory_mib) != (mine[id].vcpus, mine[id].memory_mib):
            found.append(f"{host_id}: domain {id} has {spec.vcpus} vCPUs and {spec.memory_mib} MiB")
        if mine[id].metadata_options.state != "applied":
            found.append(f"{id} runs, and its metadata options are still {mine[id].metadata_options.state}")
        wanted_disks = {names.volume_serial(row.volume_id) for row in rows.attachments if row.instance_id == id}
        wanted_disks |= {disk.virtual_name for disk in mine[id].ephemeral_disks}
        if {disk.serial for disk in spec.disks} != wanted_disks:
            found.append(f"{host_id}: domain {id} has disks {[disk.serial for disk in spec.disks]}")
    return found + _told(world, host, running & set(host.domains))


def _told(world: World, host: FakeHost, running: set[str]) -> list[str]:
    """What a host was told of the ports of running instances and rows do not say any more."""
    ports = world.store.read(
        lambda tx: [
            port for row in tx.instances.where(id=running) for port in plans.instance_plan(tx, world.config, row).ports
        ]
    )
    return [f"{host.host_id}: port {one.id} is not as its rows say" for one in ports if host.ports.get(one.id) != one]


def _jobs(world: World) -> list[str]:
    return [f"job {name} is left over" for name in world.jobs.holdings().jobs]


def live_twice(world: World) -> list[str]:
    """Return machines, MACs and addresses that live more than once, on whichever hosts."""
    found: list[str] = []
    seen: dict[str, str] = {}
    for host in world.hosts:
        for spec in host.live_specs():
            for what in (spec.name, *(nic.mac for nic in spec.nics), *(disk.path for disk in spec.disks)):
                key = f"{host.host_id}:{what}" if what.startswith("/") else what
                if key in seen:
                    found.append(f"{what} lives on {seen[key]} and {host.host_id}")
                seen[key] = host.host_id
    return found
