"""Tags: limits, setting, removing, listing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support import rows as make
from support.bare_cloud import IMAGE_ID, OTHER, ROOT, SNAPSHOT_ID, UNKNOWN, BareCloud, request

from minicloud.cloud import launch, tags
from minicloud.cloud.metadata_options import MetadataRequest
from minicloud.errors import ApiError
from minicloud.store.store import Tx


def test_tags_are_checked_into_a_mapping() -> None:
    assert tags.check_tags([("Name", "web"), ("empty", ""), ("none", None)]) == {"Name": "web", "empty": "", "none": ""}


@pytest.mark.parametrize(
    "pairs",
    [
        [("k" * 128, "v" * 256)],
        [("é" * 128, "é" * 256)],
        [("Name", "a"), ("name", "b")],
        [("awsome", "aws:x")],
        [("my:aws:key", "x")],
        [(f"k{n}", "") for n in range(50)],
    ],
    ids=["long", "characters", "case", "prefix", "inside", "fifty"],
)
def test_tags_at_their_limits(pairs: list[tuple[str, str]]) -> None:
    assert tags.check_tags(pairs) == dict(pairs)


@pytest.mark.parametrize(
    ("pairs", "code", "message"),
    [
        ([("", "v")], "InvalidParameterValue", "Tag key cannot be empty."),
        ([(None, "v")], "InvalidParameterValue", "Tag key cannot be empty."),
        ([("k" * 129, "v")], "InvalidParameterValue", "Tag key exceeds the maximum length of 128 characters"),
        ([("k", "v" * 257)], "InvalidParameterValue", "Tag value exceeds the maximum length of 256 characters"),
        ([("aws:name", "v")], "InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use"),
        ([("AWS:name", "v")], "InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use"),
        ([("k", "v"), ("k", "w")], "InvalidParameterValue", "Duplicate tag key 'k' specified."),
        (
            [(f"k{n}", "") for n in range(51)],
            "TagLimitExceeded",
            "The maximum number of Tags for a resource has been reached.",
        ),
    ],
)
def test_tags_that_cannot_be(pairs: list[tuple[str | None, str]], code: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        tags.check_tags(pairs)
    assert (caught.value.code, caught.value.message) == (code, message)


def test_tags_are_set_and_replaced_on_every_resource(bare: BareCloud) -> None:
    instance = bare.run_one().instance
    tags.create_tags(bare.cloud, ROOT, [instance.id], {"a": "0", "old": "x"})
    with bare.one_transaction():
        tags.create_tags(bare.cloud, ROOT, [instance.id, IMAGE_ID, instance.id], {"a": "1", "b": "2"})
    assert bare.tags(instance.id) == {"a": "1", "b": "2", "old": "x"}
    assert bare.tags(IMAGE_ID) == {"a": "1", "b": "2"}


def every_resource(bare: BareCloud) -> dict[str, str]:
    """Return an id of every kind of resource, with EC2's name of the kind."""
    view = bare.run_one()

    def add(tx: Tx) -> None:
        tx.key_pairs.insert(make.key_pair(1))
        tx.import_tasks.insert(make.import_task(1))
        tx.import_tasks.insert(make.import_task(2, id=make.number("import-ami", 2), kind="image"))

    bare.store.write(add)
    group_id = view.ports[0].group_ids[0]
    rule = bare.store.read(lambda tx: tx.security_group_rules.where())[0]
    return {
        view.instance.id: "instance",
        IMAGE_ID: "image",
        SNAPSHOT_ID: "snapshot",
        view.attachments[0][1].id: "volume",
        make.number("key", 1): "key-pair",
        view.instance.vpc_id: "vpc",
        view.instance.subnet_id: "subnet",
        group_id: "security-group",
        rule.id: "security-group-rule",
        view.ports[0].id: "network-interface",
        make.number("import-snap", 1): "import-snapshot-task",
        make.number("import-ami", 2): "import-image-task",
    }


def test_every_kind_of_resource_takes_tags_and_is_listed_by_its_type(bare: BareCloud) -> None:
    resources = every_resource(bare)
    tags.create_tags(bare.cloud, ROOT, list(resources), {"b": "2", "a": "1"})
    with bare.one_transaction():
        views = tags.describe_tags(bare.cloud, ROOT).items
    assert {view.tag.resource_id: view.resource_type for view in views} == resources
    assert [(view.tag.resource_id, view.tag.key) for view in views] == sorted(
        (resource_id, key) for resource_id in resources for key in "ab"
    )
    assert tags.describe_tags(bare.cloud, OTHER).items == []


@pytest.mark.parametrize(
    ("resource_id", "code"),
    [
        ("", "InvalidID"), ("nonsense", "InvalidID"), (f"zz-{UNKNOWN}", "InvalidID"),
        ("i-xyz", "InvalidInstanceID.Malformed"), (f"i-{UNKNOWN}", "InvalidInstanceID.NotFound"),
        ("ami-1", "InvalidAMIID.Malformed"), (f"ami-{UNKNOWN}", "InvalidAMIID.NotFound"),
        ("snap-1", "InvalidSnapshotID.Malformed"), (f"snap-{UNKNOWN}", "InvalidSnapshot.NotFound"),
        ("vol-1", "InvalidVolumeID.Malformed"), (f"vol-{UNKNOWN}", "InvalidVolume.NotFound"),
        (f"key-{UNKNOWN}", "InvalidKeyPair.NotFound"), (f"vpc-{UNKNOWN}", "InvalidVpcID.NotFound"),
        ("vpc-1", "InvalidVpcID.NotFound"), (f"subnet-{UNKNOWN}", "InvalidSubnetID.NotFound"),
        ("sg-1", "InvalidGroupId.Malformed"), (f"sg-{UNKNOWN}", "InvalidGroup.NotFound"),
        ("sgr-1", "InvalidSecurityGroupRuleId.Malformed"),
        (f"sgr-{UNKNOWN}", "InvalidSecurityGroupRuleId.NotFound"),
        ("eni-1", "InvalidNetworkInterfaceId.Malformed"), (f"eni-{UNKNOWN}", "InvalidNetworkInterfaceID.NotFound"),
        ("import-snap-1", "InvalidConversionTaskId.Malformed"), (f"import-ami-{UNKNOWN}", "InvalidConversionTaskId"),
    ],
)  # fmt: skip
def test_bad_ids_have_their_kinds_errors_and_nothing_is_tagged(bare: BareCloud, resource_id: str, code: str) -> None:
    with bare.refuses(code):
        tags.create_tags(bare.cloud, ROOT, [IMAGE_ID, resource_id], {"a": "1"})
    with bare.refuses(code):
        tags.delete_tags(bare.cloud, ROOT, [IMAGE_ID, resource_id], None)


def test_another_accounts_resources_do_not_exist(bare: BareCloud) -> None:
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {"a": "1"})
    with bare.refuses("InvalidAMIID.NotFound"):
        tags.create_tags(bare.cloud, OTHER, [IMAGE_ID], {"a": "2"})
    with bare.refuses("InvalidAMIID.NotFound"):
        tags.delete_tags(bare.cloud, OTHER, [IMAGE_ID], None)


def test_tags_must_be_given(bare: BareCloud) -> None:
    with bare.refuses("MissingParameter"):
        tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {})


def test_a_resource_holds_fifty_tags(bare: BareCloud) -> None:
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {f"k{n}": "" for n in range(49)})
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {"k0": "again", "k49": ""})
    with bare.refuses("TagLimitExceeded"):
        tags.create_tags(bare.cloud, ROOT, [SNAPSHOT_ID, IMAGE_ID], {"k50": ""})
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {"k49": "replaced"})


def test_one_request_names_at_most_a_thousand_resources(bare: BareCloud) -> None:
    many = [make.number("i", n) for n in range(1001)]
    with bare.refuses("InvalidParameterValue", "1000"):
        tags.create_tags(bare.cloud, ROOT, many, {"a": ""})


@pytest.mark.parametrize(
    ("removed", "left"),
    [
        (None, {}),
        ([("a", None)], {"b": "2", "empty": ""}),
        ([("a", "1")], {"b": "2", "empty": ""}),
        ([("a", "other")], {"a": "1", "b": "2", "empty": ""}),
        ([("a", "")], {"a": "1", "b": "2", "empty": ""}),
        ([("empty", "")], {"a": "1", "b": "2"}),
        ([("absent", None)], {"a": "1", "b": "2", "empty": ""}),
        ([("a", None), ("b", "2")], {"empty": ""}),
        ([], {"a": "1", "b": "2", "empty": ""}),
    ],
    ids=str,
)
def test_tags_are_removed_by_key_and_value(
    bare: BareCloud, removed: Sequence[tuple[str, str | None]] | None, left: dict[str, str]
) -> None:
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID, SNAPSHOT_ID], {"a": "1", "b": "2", "empty": ""})
    with bare.one_transaction():
        tags.delete_tags(bare.cloud, ROOT, [IMAGE_ID], removed)
    assert bare.tags(IMAGE_ID) == left
    assert bare.tags(SNAPSHOT_ID) == {"a": "1", "b": "2", "empty": ""}


# Tags that the metadata service shows


METADATA_TAGS = MetadataRequest(instance_metadata_tags="enabled")


@pytest.mark.parametrize("key", ["a b", "a/b", ".", "..", "_index", "a#b", "ä", "a\nb", "a\\b", "a%2fb"])
def test_keys_that_cannot_be_paths_are_refused_where_metadata_shows_them(bare: BareCloud, key: str) -> None:
    with bare.refuses("InvalidParameterValue", "is not a valid tag key"):
        bare.run(metadata=METADATA_TAGS, tags={"instance": {key: "v"}})
    shown = bare.run_one(metadata=METADATA_TAGS).instance
    with bare.refuses("InvalidParameterValue", "is not a valid tag key"):
        tags.create_tags(bare.cloud, ROOT, [IMAGE_ID, shown.id], {key: "v"})
    hidden = bare.run_one(tags={"instance": {key: "v"}, "volume": {key: "v"}}).instance
    tags.create_tags(bare.cloud, ROOT, [hidden.id], {key: "w"})


@pytest.mark.parametrize("key", ["Name", "a-b_c+d=e,f.g@h:i", "...", "_", "0" * 128])
def test_keys_that_can(bare: BareCloud, key: str) -> None:
    view = bare.run_one(metadata=METADATA_TAGS, tags={"instance": {key: "v"}})
    assert view.tags == {key: "v"}


@pytest.mark.parametrize("kind", ["image", "snapshot", "key-pair", "Instance", ""])
def test_a_launch_takes_tags_of_what_it_makes_only(bare: BareCloud, kind: str) -> None:
    with bare.refuses("InvalidParameterValue", f"'{kind}' is not a valid taggable resource type"):
        launch.run(bare.cloud, ROOT, request(tags={kind: {"a": "1"}}))
