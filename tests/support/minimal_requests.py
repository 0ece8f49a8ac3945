"""For every operation of the table: the least parameters that its shape asks for, and what makes them sensible.

Tests that hold for every operation take their requests from here, so that an operation which is added to the table is
covered by them at once. Where the shape's own required members do not make a request that would be carried out,
SENSIBLE says what to add.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from support import front as build

from minicloud.aws.models import Member, Shape

ROOT_DEVICE = "/dev/sda1"
SENSIBLE: Mapping[str, Mapping[str, Any]] = {
    "CopyImage": {"Name": "copy", "SourceImageId": build.IMAGE_ID, "SourceRegion": build.REGION},
    "CreateTags": {"Tags": [{"Key": "k", "Value": "v"}]},
    "DescribeImageAttribute": {"Attribute": "description"},
    "DescribeInstanceAttribute": {"Attribute": "instanceType"},
    "DescribeNetworkInterfaceAttribute": {"Attribute": "description"},
    "ModifyImageAttribute": {"Description": {"Value": "changed"}},
    "ModifyInstanceAttribute": {"DisableApiStop": {"Value": True}},
    "RegisterImage": {
        "Name": "made",
        "RootDeviceName": ROOT_DEVICE,
        "BlockDeviceMappings": [{"DeviceName": ROOT_DEVICE, "Ebs": {"SnapshotId": build.SNAPSHOT_ID}}],
    },
    "ResetInstanceAttribute": {"Attribute": "sourceDestCheck"},
    "RunInstances": {"ImageId": build.IMAGE_ID, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano"},
}


def minimal(name: str, shape: Shape | None) -> dict[str, Any]:
    """Return parameters of an operation as JSON has them."""
    required = {} if shape is None else {one: _sample(shape.members[one]) for one in shape.required}
    return {**required, **SENSIBLE.get(name, {})}


def _sample(member: Member) -> Any:
    shape = member.shape
    if shape.kind == "structure":
        return {name: _sample(shape.members[name]) for name in shape.required}
    if shape.kind == "list":
        assert shape.element is not None
        return [_sample(shape.element)]
    if shape.kind == "boolean":
        return True
    if shape.kind in ("integer", "long", "float", "double"):
        return max(1, int(shape.minimum or 1))
    if shape.kind == "blob":
        return base64.b64encode(b"x").decode()
    return shape.enum[0] if shape.enum else "x" * max(3, int(shape.minimum or 1))


def leaves(shape: Shape, path: tuple[str, ...] = (), seen: tuple[Shape, ...] = ()) -> Iterator[tuple[str, Member]]:
    """Yield every scalar below a structure with its dotted path, lists left out, as rows of the table write them."""
    for name, member in shape.members.items():
        below, at = member, (*path, name)
        while below.shape.kind == "list":
            assert below.shape.element is not None
            below = below.shape.element
        if below.shape.kind != "structure":
            yield ".".join(at), below
        elif below.shape not in seen:
            yield from leaves(below.shape, at, (*seen, below.shape))


def place(shape: Shape, parameters: Mapping[str, Any], path: str, values: list[Any]) -> dict[str, Any]:
    """Return the parameters with values put at a dotted path: all in the list that is there, or the first."""
    name, _, rest = path.partition(".")
    member = shape.members[name]
    if member.shape.kind == "list":
        assert member.shape.element is not None
        inner = member.shape.element.shape
        if not rest:
            return {**parameters, name: values}
        before = parameters.get(name) or [{}]
        return {**parameters, name: [place(inner, before[0], rest, values), *before[1:]]}
    if not rest:
        return {**parameters, name: values[0]}
    return {**parameters, name: place(member.shape, parameters.get(name, {}), rest, values)}
