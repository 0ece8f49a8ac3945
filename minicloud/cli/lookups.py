"""From what people type (an id or a name) to the one resource they mean. Calls the door, decides nothing else."""

from __future__ import annotations

import re
from typing import Any

import click

from minicloud.cli.output import name_of


def all_instances(door: Any, ids: list[str] | None = None) -> list[dict[str, Any]]:
    """Return described instances, all or those of `ids`, in launch order."""
    parameters: dict[str, Any] = {"InstanceIds": ids} if ids else {}
    reservations = door.ec2("DescribeInstances", **parameters).get("Reservations") or []
    found = [one for reservation in reservations for one in reservation["Instances"]]
    return sorted(found, key=lambda one: (one["LaunchTime"], one.get("AmiLaunchIndex", 0), one["InstanceId"]))


def find_instance(door: Any, ref: str) -> dict[str, Any]:
    """Return the instance with this id or, unless it is terminated, this Name tag."""
    if re.fullmatch(r"i-[0-9a-f]+", ref):
        return all_instances(door, [ref])[0]
    named = [one for one in all_instances(door) if name_of(one) == ref and one["State"]["Name"] != "terminated"]
    return _one(named, "InstanceId", f"instance named {ref!r}", "`minicloud instance ls`")


def choose_image(door: Any, ref: str | None) -> dict[str, Any]:
    """Return the image with this id or name; the only one there is when `ref` is None."""
    if ref and re.fullmatch(r"ami-[0-9a-f]+", ref):
        return dict(door.ec2("DescribeImages", ImageIds=[ref])["Images"][0])
    images = door.ec2("DescribeImages").get("Images") or []
    if ref is None:
        if not images:
            raise click.ClickException("no image is registered. `minicloud image register FILE --name NAME` does it.")
        return _one(images, "ImageId", "image", "name one of them; `minicloud image ls`")
    named = [one for one in images if one.get("Name") == ref]
    return _one(named, "ImageId", f"image named {ref!r}", "`minicloud image ls`")


def _one(found: list[dict[str, Any]], id_key: str, what: str, where: str) -> dict[str, Any]:
    if not found:
        raise click.ClickException(f"there is no {what}. See {where}.")
    if len(found) > 1:
        ids = ", ".join(str(one[id_key]) for one in found[:5])
        raise click.ClickException(f"there is more than one {what} ({ids}…): use an id. See {where}.")
    return found[0]
