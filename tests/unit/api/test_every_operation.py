"""What holds for every operation of the table: ids are checked by form before existence, a dry run changes nothing, and
a client token makes a call happen once. An operation added to the table is covered without being named here, unless it
brings a new kind of id (ID_KINDS) or a client token (TOKEN_CASES)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support import front as build
from support import rows as make
from support.minimal_requests import ROOT_DEVICE, leaves, minimal, place

from minicloud.api.operations import OPERATIONS, load_served_catalog, perform
from minicloud.api.services import Context
from minicloud.aws.jsonwire import parse_json
from minicloud.cloud import lookups
from minicloud.cloud.lookups import Kind
from minicloud.errors import ApiError
from minicloud.store import schema

CATALOG = load_served_catalog()
EC2 = OPERATIONS["ec2"]
EVERY_NAME = sorted(EC2)


class World:
    """A front door over a cloud with one instance, and calls as the JSON door makes them."""

    def __init__(self, folder: Path | None = None, **settings: Any) -> None:
        self.front = build.build_front(CATALOG, folder, **settings)
        self.context = Context(self.front.services, build.root_caller())

    def call(self, name: str, parameters: dict[str, Any]) -> Any:
        operation = CATALOG.operation("ec2", name)
        return perform(self.context, "ec2", name, parse_json(operation, copy.deepcopy(parameters)))

    def refusal(self, name: str, parameters: dict[str, Any]) -> ApiError:
        with pytest.raises(ApiError) as caught:
            self.call(name, parameters)
        return caught.value

    def rows(self) -> dict[str, list[Any]]:
        """Everything in the database but the keys of seals, which are made when they are first needed."""

        def look(tx: Any) -> dict[str, list[Any]]:
            tables = [one for one in schema.metadata.sorted_tables if one.name != "secrets"]
            return {one.name: sorted(map(repr, tx.connection.execute(select(one)))) for one in tables}

        return self.front.cloud.store.read(look)


@pytest.fixture(scope="module")
def world() -> World:
    world = World()
    world.call("RunInstances", minimal("RunInstances", None))
    return world


# Dry runs


@pytest.mark.parametrize("name", EVERY_NAME)
def test_a_dry_run_says_so_and_changes_nothing(world: World, name: str) -> None:
    """EC2 asks whether the caller may do it; which ids exist is looked at only when it is done (see operations.py)."""
    shape = CATALOG.operation("ec2", name).input
    assert shape is not None and "DryRun" in shape.members
    before = world.rows()
    error = world.refusal(name, {**minimal(name, shape), "DryRun": True})
    assert (error.code, error.status) == ("DryRunOperation", 412)
    assert error.message == "Request would have succeeded, but DryRun flag is set."
    assert world.rows() == before


@pytest.mark.parametrize("name", EVERY_NAME)
def test_a_dry_run_of_what_cannot_be_is_refused_as_the_run_would_be(world: World, name: str) -> None:
    shape = CATALOG.operation("ec2", name).input
    assert shape is not None
    parameters = {**minimal(name, shape), "DryRun": True}
    assert world.refusal(name, {**parameters, "Rocket": 1}).code == "UnknownParameter"
    for required in shape.required:
        without = {key: value for key, value in parameters.items() if key != required}
        assert world.refusal(name, without).code == "MissingParameter"
    row = EC2[name]
    known = {path.partition(".")[0] for path in (*row.honours, *row.tolerates, "DryRun")}
    for member in sorted(shape.members.keys() - known):
        of_member = shape.members[member].shape
        if of_member.kind == "string" and not of_member.enum and not of_member.minimum:
            assert world.refusal(name, {**parameters, member: "xxx"}).code == "UnsupportedOperation"


def test_a_dry_run_that_is_none_is_carried_out() -> None:
    world = World()
    assert world.call("DescribeInstances", {"DryRun": False}) == {"Reservations": [], "NextToken": None}


# Ids


@dataclass(frozen=True)
class Codes:
    """EC2's codes for an id that is none, and for one that nothing has (EC2 API reference, "Error codes")."""

    prefix: str
    malformed: str
    not_found: str


def of(kind: Kind[Any]) -> Codes:
    return Codes(kind.prefix, kind.malformed_code, kind.not_found_code)


GROUPS, IMAGES, INSTANCES = of(lookups.SECURITY_GROUPS), of(lookups.IMAGES), of(lookups.INSTANCES)
# By the parameter's last name.
ID_KINDS: dict[str, Codes] = {
    "AllocationIds": Codes("eipalloc", "InvalidAllocationID.NotFound", "InvalidAllocationID.NotFound"),
    "DhcpOptionsIds": Codes("dopt", "InvalidDhcpOptionsId.Malformed", "InvalidDhcpOptionID.NotFound"),
    "GroupId": GROUPS,
    "GroupIds": GROUPS,
    "Groups": GROUPS,
    "ImageId": IMAGES,
    "ImageIds": IMAGES,
    "InstanceId": INSTANCES,
    "InstanceIds": INSTANCES,
    "InternetGatewayIds": Codes("igw", "InvalidInternetGatewayId.Malformed", "InvalidInternetGatewayID.NotFound"),
    "KeyPairId": of(lookups.KEY_PAIRS),
    "KeyPairIds": of(lookups.KEY_PAIRS),
    "NetworkAclIds": Codes("acl", "InvalidNetworkAclId.Malformed", "InvalidNetworkAclID.NotFound"),
    "NetworkInterfaceId": of(lookups.NETWORK_INTERFACES),
    "NetworkInterfaceIds": of(lookups.NETWORK_INTERFACES),
    "PrefixListIds": Codes("pl", "InvalidPrefixListId.Malformed", "InvalidPrefixListID.NotFound"),
    "RouteTableIds": Codes("rtb", "InvalidRouteTableId.Malformed", "InvalidRouteTableID.NotFound"),
    "SecurityGroupIds": GROUPS,
    "SecurityGroupRuleIds": of(lookups.SECURITY_GROUP_RULES),
    "SnapshotId": of(lookups.SNAPSHOTS),
    "SnapshotIds": of(lookups.SNAPSHOTS),
    "SourceImageId": IMAGES,
    "SubnetId": of(lookups.SUBNETS),
    "SubnetIds": of(lookups.SUBNETS),
    "VolumeId": of(lookups.VOLUMES),
    "VolumeIds": of(lookups.VOLUMES),
    "VpcId": of(lookups.VPCS),
    "VpcIds": of(lookups.VPCS),
}
# By operation and whole path, where that makes a difference.
BY_OPERATION: dict[tuple[str, str], Codes] = {
    ("CreateTags", "Resources"): INSTANCES,
    ("DeleteTags", "Resources"): INSTANCES,
    ("DescribeImportImageTasks", "ImportTaskIds"): of(lookups.IMPORT_IMAGE_TASKS),
    ("DescribeImportSnapshotTasks", "ImportTaskIds"): of(lookups.IMPORT_SNAPSHOT_TASKS),
    # The volume that is meant must be the one that is attached.
    ("ModifyInstanceAttribute", "BlockDeviceMappings.Ebs.VolumeId"): Codes(
        "vol", "InvalidVolumeID.Malformed", "InvalidInstanceAttributeValue"
    ),
}
# Of accounts, zones and the like: these are names, and have tests of their own.
NO_RESOURCES = {
    "AvailabilityZoneId", "ClientToken", "OwnerId", "OwnerIds", "RestorableByUserIds", "UserId", "UserIds", "ZoneIds",
}  # fmt: skip
# EC2 API reference, DeleteKeyPair: what is not there is as good as deleted.
NEVER_MISSING = {("DeleteKeyPair", "KeyPairId")}
# What an id needs around it to be looked at, where the least request has nothing there.
AROUND: dict[tuple[str, str], dict[str, Any]] = {
    ("RunInstances", "BlockDeviceMappings.Ebs.SnapshotId"): {"BlockDeviceMappings": [{"DeviceName": "/dev/sdb"}]},
    ("RunInstances", "NetworkInterfaces.Groups"): {"NetworkInterfaces": [{"DeviceIndex": 0}]},
    ("RunInstances", "NetworkInterfaces.SubnetId"): {"NetworkInterfaces": [{"DeviceIndex": 0}]},
    ("ModifyInstanceAttribute", "BlockDeviceMappings.Ebs.VolumeId"): {
        "BlockDeviceMappings": [{"DeviceName": ROOT_DEVICE, "Ebs": {"DeleteOnTermination": True}}]
    },
}


def _honoured(name: str, path: str) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:end]) in EC2[name].honours for end in range(1, len(parts) + 1))


def _id_parameters() -> list[tuple[str, str]]:
    found = []
    for name in EVERY_NAME:
        shape = CATALOG.operation("ec2", name).input
        assert shape is not None
        for path, member in leaves(shape):
            last = path.rpartition(".")[2]
            looks = last.endswith(("Id", "Ids")) or member.shape.name.endswith("Id") or last == "Resources"
            if member.shape.kind == "string" and looks and last not in NO_RESOURCES and _honoured(name, path):
                found.append((name, path))
    return found


ID_PARAMETERS = _id_parameters()


def _kind(name: str, path: str) -> Codes:
    kind = BY_OPERATION.get((name, path)) or ID_KINDS.get(path.rpartition(".")[2])
    assert kind is not None, f"{name}: ID_KINDS must say what kind of id {path} takes"
    return kind


def _with_ids(world: World, name: str, path: str, values: list[str]) -> dict[str, Any]:
    shape = CATALOG.operation("ec2", name).input
    assert shape is not None
    parameters = minimal(name, shape)
    if path != "InstanceId" and "InstanceId" in shape.required:
        found = world.call("DescribeInstances", {})["Reservations"][0]["Instances"][0]
        parameters = {"InstanceId": found["InstanceId"]}
    return place(shape, {**parameters, **AROUND.get((name, path), {})}, path, values)


@pytest.mark.parametrize(("name", "path"), ID_PARAMETERS)
def test_ids_are_checked_by_form_before_existence(world: World, name: str, path: str) -> None:
    kind = _kind(name, path)
    before = world.rows()
    prefix = kind.prefix
    unknown = make.number(prefix, 0xABCDEF)
    malformed = [
        f"{prefix}-",
        f"{prefix}-xyz",
        f"{prefix}-1234567",
        f"{prefix}-0123456789abcdef01",
        f"{prefix}-ABCDEF01",
    ]
    for value in malformed:
        assert world.refusal(name, _with_ids(world, name, path, [value])).code == kind.malformed, value
    for value in (unknown, f"{prefix}-0abcdef0"):
        parameters = _with_ids(world, name, path, [value])
        if (name, path) in NEVER_MISSING:
            world.call(name, parameters)
        else:
            error = world.refusal(name, parameters)
            assert error.code == kind.not_found, value
            assert value in error.message
    shape = CATALOG.operation("ec2", name).input
    assert shape is not None
    if "." not in path and shape.members[path].shape.kind == "list":
        both = _with_ids(world, name, path, [unknown, f"{prefix}-xyz"])
        assert world.refusal(name, both).code == kind.malformed
    assert world.rows() == before


@pytest.mark.parametrize(("name", "path"), [one for one in ID_PARAMETERS if one[1] != "Resources"])
def test_an_id_of_another_kind_is_malformed(world: World, name: str, path: str) -> None:
    kind = _kind(name, path)
    other = "vol" if kind.prefix != "vol" else "i"
    parameters = _with_ids(world, name, path, [make.number(other, 1)])
    assert world.refusal(name, parameters).code == kind.malformed


# Client tokens


def _import(world_folder: Path, container: str, **more: Any) -> dict[str, Any]:
    (world_folder / "images").mkdir(exist_ok=True)
    (world_folder / "images" / "disk.raw").write_bytes(b"x" * 512)
    disk = {"Format": "RAW", "Url": f"file://{world_folder}/images/disk.raw"}
    return {container: [disk] if container.endswith("s") else disk, **more}


@dataclass(frozen=True)
class TokenCase:
    """A request that may be repeated, what to change in it, what it may tag, and what names in its answer what it made.
    `again` makes it possible a second time without a token."""

    request: Callable[[Path], dict[str, Any]]
    change: dict[str, Any]
    taggable: str
    made: str
    again: dict[str, Any] = field(default_factory=dict)


TOKEN_CASES: dict[str, TokenCase] = {
    "CopyImage": TokenCase(
        lambda _: minimal("CopyImage", None), {"Name": "other"}, "image", "ImageId", again={"Name": "third"}
    ),
    "ImportImage": TokenCase(
        lambda folder: _import(folder, "DiskContainers"), {"BootMode": "uefi"}, "import-image-task", "ImportTaskId"
    ),
    "ImportSnapshot": TokenCase(
        lambda folder: _import(folder, "DiskContainer"), {"Description": "x"}, "import-snapshot-task", "ImportTaskId"
    ),
    "RunInstances": TokenCase(
        lambda _: minimal("RunInstances", None), {"InstanceType": "t3.micro"}, "instance", "ReservationId"
    ),
}


def _with_token() -> list[str]:
    shapes = {name: CATALOG.operation("ec2", name).input for name in EVERY_NAME}
    return [name for name, shape in shapes.items() if shape is not None and "ClientToken" in shape.members]


@pytest.fixture
def token_world(tmp_path: Path) -> World:
    return World(tmp_path, image_import_folders=(str(tmp_path / "images"),))


@pytest.mark.parametrize("name", _with_token())
def test_a_client_token_makes_a_call_happen_once(token_world: World, tmp_path: Path, name: str) -> None:
    assert "ClientToken" in EC2[name].honours
    assert name in TOKEN_CASES, "TOKEN_CASES must have a request for every operation with a client token"
    world, case = token_world, TOKEN_CASES[name]
    request, token = case.request(tmp_path), "t" * 64
    first = world.call(name, {**request, "ClientToken": token})
    after_first = world.rows()
    assert world.call(name, {**request, "ClientToken": token})[case.made] == first[case.made]
    tagged = {"TagSpecifications": [{"ResourceType": case.taggable, "Tags": [{"Key": "k"}]}]}
    for changed in (case.change, tagged):
        error = world.refusal(name, {**request, **changed, "ClientToken": token})
        assert error.code == "IdempotentParameterMismatch"
    for bad in ("t" * 65, "\u00e9"):
        assert world.refusal(name, {**request, "ClientToken": bad}).code == "InvalidParameterValue"
    assert world.rows() == after_first
    other = world.call(name, {**request, **case.again, "ClientToken": "another"})
    assert other[case.made] != first[case.made]


@pytest.mark.parametrize("name", _with_token())
def test_without_a_token_a_call_happens_again(token_world: World, tmp_path: Path, name: str) -> None:
    case = TOKEN_CASES[name]
    request = case.request(tmp_path)
    first = token_world.call(name, request)
    again = token_world.call(name, {**request, **case.again})
    assert again[case.made] != first[case.made]
