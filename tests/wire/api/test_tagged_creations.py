"""Tags given as something is made: every action that makes something, EC2's limits on them, and that a refused tag
leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support import front as build
from support.minimal_requests import minimal

from minicloud.api.operations import OPERATIONS, load_served_catalog
from minicloud.cloud.lookups import IMPORT_IMAGE_TASKS, IMPORT_SNAPSHOT_TASKS

MAXIMUM = {f"k{n}": "" for n in range(50)}
# The resource types that each action makes, by EC2's name for them in tags.
TYPES: dict[str, tuple[str, ...]] = {
    "CopyImage": ("image", "snapshot"),
    "CreateKeyPair": ("key-pair",),
    "ImportImage": ("import-image-task",),
    "ImportKeyPair": ("key-pair",),
    "ImportSnapshot": ("import-snapshot-task",),
    "RegisterImage": ("image",),
    "RunInstances": ("instance", "volume", "network-interface"),
}
# What EC2's model lets one write, and the action does not make.
FOREIGN = {"RunInstances": ("spot-instances-request", "image", "snapshot", "launch-template", "elastic-gpu")}
EVERY_TYPE = [(name, resource_type) for name, types in TYPES.items() for resource_type in types]

Create = Callable[..., dict[str, Any]]


@pytest.fixture
def create(ec2: Any, tmp_path: Path) -> Create:
    """Call a creating action with tag specifications."""
    disk = tmp_path / "images" / "disk.raw"
    disk.write_bytes(b"x" * 512)
    container = {"Format": "RAW", "Url": f"file://{disk}"}
    key = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    requests: dict[str, dict[str, Any]] = {
        "CreateKeyPair": {"KeyName": "made", "KeyType": "ed25519"},
        "ImportImage": {"DiskContainers": [container]},
        "ImportKeyPair": {"KeyName": "made", "PublicKeyMaterial": key},
        "ImportSnapshot": {"DiskContainer": container},
    }

    def call(name: str, *specifications: Any) -> dict[str, Any]:
        parameters = requests.get(name) or minimal(name, None)
        return dict(getattr(ec2, xform_name(name))(**parameters, TagSpecifications=list(specifications)))

    return call


def specification(resource_type: str, tags: dict[str, str]) -> dict[str, Any]:
    return {"ResourceType": resource_type, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def test_every_action_that_takes_tags_is_tested() -> None:
    """An action that is added to the table comes into TYPES."""
    catalog = load_served_catalog()
    shapes = {name: catalog.operation("ec2", name).input for name in OPERATIONS["ec2"]}
    assert {name for name, shape in shapes.items() if shape and "TagSpecifications" in shape.members} == TYPES.keys()
    for name in TYPES:
        assert "TagSpecifications" in OPERATIONS["ec2"][name].honours


@pytest.mark.parametrize("name", TYPES)
def test_everything_that_is_made_bears_its_tags(ec2: Any, create: Create, name: str) -> None:
    specifications = [specification(one, {**dict(list(MAXIMUM.items())[:49]), "of": one}) for one in TYPES[name]]
    create(name, *specifications)
    found = ec2.describe_tags()["Tags"]
    assert {one["Value"] for one in found if one["Key"] == "of"} == set(TYPES[name])
    for one in found:
        if one["Key"] == "of":
            assert one["ResourceType"] == one["Value"]
    assert len(found) == 50 * len(TYPES[name])


@pytest.mark.parametrize(("name", "resource_type"), EVERY_TYPE)
@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ([{"Key": "aws:x", "Value": ""}], "InvalidParameterValue"),
        ([{"Key": "AWS:x", "Value": ""}], "InvalidParameterValue"),
        ([{"Key": "", "Value": "x"}], "InvalidParameterValue"),
        ([{"Value": "x"}], "InvalidParameterValue"),
        ([{"Key": "k" * 129, "Value": ""}], "InvalidParameterValue"),
        ([{"Key": "k", "Value": "v" * 257}], "InvalidParameterValue"),
        ([{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}], "InvalidParameterValue"),
        ([{"Key": f"k{n}", "Value": ""} for n in range(51)], "TagLimitExceeded"),
        ([], "InvalidParameterValue"),
    ],
    ids=["reserved", "reserved capitals", "empty", "no key", "long key", "long value", "twice", "51", "none"],
)
def test_tags_that_cannot_be_refuse_the_whole_action(
    front: build.Front, create: Create, refused: Any, name: str, resource_type: str, tags: Any, code: str
) -> None:
    before = build.count_rows(front.cloud)
    refused(code, create, name, {"ResourceType": resource_type, "Tags": tags})
    assert build.count_rows(front.cloud) == before


@pytest.mark.parametrize("name", TYPES)
def test_only_what_is_made_can_be_tagged(front: build.Front, create: Create, refused: Any, name: str) -> None:
    before = build.count_rows(front.cloud)
    tags = {"k": "v"}
    for resource_type in ("vpc", *FOREIGN.get(name, ())):
        error = refused("InvalidParameterValue", create, name, specification(resource_type, tags))
        assert f"'{resource_type}' is not a valid taggable resource type for this operation." in str(error)
    refused("InvalidParameterValue", create, name, specification("rocket", tags))
    error = refused("InvalidParameterValue", create, name, {"Tags": [{"Key": "k", "Value": "v"}]})
    assert "Tag specification resource type must have a value" in str(error)
    twice = specification(TYPES[name][0], tags)
    refused("InvalidParameterValue", create, name, twice, twice)
    assert build.count_rows(front.cloud) == before


def test_a_copy_has_its_own_tags_and_the_source_s_but_never_51(ec2: Any, create: Create, refused: Any) -> None:
    ec2.create_tags(Resources=[build.IMAGE_ID], Tags=[{"Key": key, "Value": ""} for key in MAXIMUM])
    parameters = {**minimal("CopyImage", None), "CopyImageTags": True}
    refused("TagLimitExceeded", ec2.copy_image, **parameters, TagSpecifications=[specification("image", {"new": ""})])
    made = ec2.copy_image(**parameters, TagSpecifications=[specification("image", {"k1": "changed"})])["ImageId"]
    (image,) = ec2.describe_images(ImageIds=[made])["Images"]
    assert {one["Key"]: one["Value"] for one in image["Tags"]} == {**MAXIMUM, "k1": "changed"}


@pytest.mark.parametrize("call", ["create_tags", "delete_tags"])
def test_a_deregistered_image_takes_no_tags(ec2: Any, front: build.Front, refused: Any, call: str) -> None:
    tags = [{"Key": "k", "Value": "v"}]
    ec2.create_tags(Resources=[build.IMAGE_ID], Tags=tags)
    ec2.deregister_image(ImageId=build.IMAGE_ID)
    before = build.count_rows(front.cloud)
    refused("InvalidAMIID.NotFound", getattr(ec2, call), Resources=[build.IMAGE_ID], Tags=tags)
    refused("InvalidAMIID.NotFound", getattr(ec2, call), Resources=[build.SNAPSHOT_ID, build.IMAGE_ID], Tags=tags)
    assert build.count_rows(front.cloud) == before
    assert ec2.describe_tags()["Tags"] == []


def test_reserved_tags_cannot_be_removed(ec2: Any, refused: Any) -> None:
    for key in ("aws:x", "Aws:x"):
        refused("InvalidParameterValue", ec2.delete_tags, Resources=[build.IMAGE_ID], Tags=[{"Key": key}])
    ec2.delete_tags(Resources=[build.IMAGE_ID], Tags=[{"Key": "awsome"}])


def test_tags_are_utf_8_and_any_of_it(ec2: Any) -> None:
    odd = {"\u00e9 +-=._:/@": "\U0001f600 ' \" < & >", "a,b;c": " leading and trailing ", "empty": ""}
    ec2.create_tags(Resources=[build.IMAGE_ID], Tags=[{"Key": key, "Value": value} for key, value in odd.items()])
    assert {one["Key"]: one["Value"] for one in ec2.describe_tags()["Tags"]} == odd


def test_a_task_s_tags_are_its_own(ec2: Any, create: Create) -> None:
    for name, kind in (("ImportImage", IMPORT_IMAGE_TASKS), ("ImportSnapshot", IMPORT_SNAPSHOT_TASKS)):
        answer = create(name, specification(kind.tag_type, {"k": name}))
        assert answer["Tags"] == [{"Key": "k", "Value": name}]
        assert answer["ImportTaskId"].startswith(kind.prefix)


def test_a_key_pair_shows_the_tags_it_was_made_with(create: Create) -> None:
    assert create("CreateKeyPair", specification("key-pair", {"k": "v"}))["Tags"] == [{"Key": "k", "Value": "v"}]
