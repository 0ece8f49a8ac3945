"""Names of what lives on hosts, derived from ids so that every verb may run twice. Pure.

Linux holds 15 bytes in an interface name, so those carry the last 11 digits of an id. Nothing else in minicloud
invents such a name: hosts and the host side are handed them inside plans.
"""

from __future__ import annotations

from minicloud import ids

STATE_FOLDER = "/var/lib/minicloud"
DEFAULT_POOL_FOLDER = "/var/lib/minicloud/pool"
CONSOLE_FOLDER = "/var/lib/minicloud/console"


def tap(network_interface_id: str) -> str:
    """Return the tap device of an ENI."""
    return "mct" + ids.short(network_interface_id)


def bridge(subnet_id: str) -> str:
    """Return the bridge of a subnet in the host's namespace."""
    return "mcb" + ids.short(subnet_id)


def bridge_veth(subnet_id: str) -> str:
    """Return the host's end of the veth that joins a subnet's bridge to the router."""
    return "mcv" + ids.short(subnet_id)


def router_veth(subnet_id: str) -> str:
    """Return the router's end of that veth: it carries the subnet's gateway address."""
    return "mcg" + ids.short(subnet_id)


def router(vpc_id: str) -> str:
    """Return the network namespace that is a VPC's router on a host."""
    return "mcr-" + ids.short(vpc_id, 17)


def transit_veth(vpc_id: str) -> str:
    """Return the host's end of the transit link to a VPC's router."""
    return "mch" + ids.short(vpc_id)


def router_transit_veth(vpc_id: str) -> str:
    """Return the router's end of the transit link to the host."""
    return "mcu" + ids.short(vpc_id)


def volume_path(pool_folder: str, volume_id: str) -> str:
    """Return the file of a volume in a `directory` pool."""
    return f"{pool_folder}/volumes/{volume_id}.qcow2"


def base_path(pool_folder: str, snapshot_id: str) -> str:
    """Return the read-only raw file that overlays of a snapshot stand on in a `directory` pool."""
    return f"{pool_folder}/bases/{snapshot_id}.raw"


def ephemeral_path(pool_folder: str, instance_id: str, virtual_name: str) -> str:
    """Return the raw file of an instance-store disk."""
    return f"{pool_folder}/ephemeral/{instance_id}-{virtual_name}.raw"


def console_path(instance_id: str) -> str:
    """Return the file that virtlogd writes an instance's serial console to."""
    return f"{CONSOLE_FOLDER}/{instance_id}.log"


def volume_serial(volume_id: str) -> str:
    """Return a virtio-blk serial for a volume: 20 bytes at most, so the dash of `vol-…` goes (as on AWS's Nitro)."""
    return volume_id.replace("-", "")


def owner_of(path: str) -> str:
    """Return the id of the volume, instance or snapshot that a disk file of a pool belongs to, by its name."""
    folder, _, file = path.rpartition("/")
    stem = file.split(".", 1)[0]
    return stem.rpartition("-")[0] if folder.endswith("/ephemeral") else stem
