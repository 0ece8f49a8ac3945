"""`minicloud host …`: KVM hosts join, are listed and leave."""

from __future__ import annotations

from typing import Any

import click

from minicloud.cli.output import gib, json_option, print_fields, print_json, print_table


@click.group()
def host() -> None:
    """Add and list KVM hosts. HOST is a name or an id."""


@host.command("add")
@click.argument("name")
@click.option("--zone", required=True, help="Availability zone; it is made when it is new (such as local-1a).")
@click.option("--address", default="local", show_default=True, help="`local`, or where its SSH server listens.")
@click.option("--user", default="root", show_default=True, help="SSH login; must be root or able to act as root.")
@click.option("--port", default=22, show_default=True, type=click.IntRange(1, 65535), help="SSH port.")
@click.option(
    "--host-key", metavar="KEY", help="Expected SSH host key, `ssh-ed25519 AAAA…` (default: first seen is pinned)."
)
@click.option("--pool", "pool_path", help="Folder for disks on the host (default: /var/lib/minicloud/pool).")
@click.option("--uplink", help="Interface that public addresses are announced on (default: that of the default route).")
@json_option
@click.pass_obj
def add(
    settings: Any,
    name: str,
    zone: str,
    address: str,
    user: str,
    port: int,
    host_key: str | None,
    pool_path: str | None,
    uplink: str | None,
    as_json: bool,
) -> None:
    """Add this machine (`--address local`) or another one by SSH as a KVM host."""
    one = settings.door(180).minicloud(
        "AddHost",
        Name=name,
        Zone=zone,
        Address=address,
        User=user,
        Port=port,
        HostKey=host_key,
        PoolPath=pool_path,
        Uplink=uplink,
    )["Host"]
    if as_json:
        print_json(one)
        return
    click.echo(f"{one['HostId']}  {name}  {zone}  {one['Vcpus']} vCPUs, {one['MemoryMiB']} MiB, {one['VirtType']}")
    if one.get("HostKeyFingerprint"):
        click.echo(f"pinned SSH host key {one['HostKeyFingerprint']}", err=True)
    if one.get("VirtTypeReason") and one["VirtType"] == "qemu":
        click.echo(f"guests will be emulated, which is slow: {one['VirtTypeReason']}", err=True)


@host.command("ls")
@json_option
@click.pass_obj
def ls(settings: Any, as_json: bool) -> None:
    """List hosts."""
    rows = settings.door().minicloud("DescribeHosts")["Hosts"]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("NAME", "ID", "ZONE", "STATE", "ADDRESS", "VIRT", "VCPUS USED", "MEMORY USED", "INSTANCES"),
        [
            (
                one["Name"],
                one["HostId"],
                one["Zone"],
                one["State"],
                one["Address"],
                one["VirtType"],
                f"{one['UsedVcpus']}/{one['UsableVcpus']}",
                f"{one['UsedMemoryMiB']}/{one['UsableMemoryMiB']} MiB",
                one["Instances"],
            )
            for one in rows
        ],
        "No hosts. Add this machine: `minicloud host add $(hostname) --zone local-1a`.",
    )


@host.command("show")
@click.argument("host_ref", metavar="HOST")
@json_option
@click.pass_obj
def show(settings: Any, host_ref: str, as_json: bool) -> None:
    """Show everything about a host."""
    one = _find(settings.door(), host_ref)
    if as_json:
        print_json(one)
        return
    facts = one.get("Facts") or {}
    pools = [f"{pool['Path']} ({gib(pool['CapacityBytes'])}, {pool['Backend']})" for pool in one.get("Pools") or []]
    print_fields(
        one["Name"],
        [
            ("id", one["HostId"]),
            ("zone", one["Zone"]),
            ("state", one["State"]),
            ("reason", one.get("StateReason")),
            ("address", one["Address"]),
            ("virtualization", one["VirtType"]),
            ("why", one.get("VirtTypeReason")),
            ("machine type", one.get("MachineType")),
            ("vCPUs used", f"{one['UsedVcpus']} of {one['UsableVcpus']}"),
            ("memory used", f"{one['UsedMemoryMiB']} of {one['UsableMemoryMiB']} MiB"),
            ("instances", one["Instances"]),
            ("pools", pools),
            *sorted((name.replace("_", " "), value) for name, value in facts.items() if isinstance(value, str)),
        ],
    )


@host.command("rm")
@click.argument("host_ref", metavar="HOST")
@click.pass_obj
def rm(settings: Any, host_ref: str) -> None:
    """Remove a host that holds no instances and no volumes."""
    door = settings.door()
    one = _find(door, host_ref)
    door.minicloud("RemoveHost", HostId=one["HostId"])
    click.echo(f"{one['HostId']}  removed")


def _find(door: Any, ref: str) -> dict[str, Any]:
    for one in door.minicloud("DescribeHosts")["Hosts"]:
        if ref in (one["Name"], one["HostId"]):
            return dict(one)
    raise click.ClickException(f"there is no host {ref!r}. See `minicloud host ls`.")
