"""RunInstances: what a launch writes, and everything that refuses one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from support import rows as make
from support.bare_cloud import IMAGE_ID, OTHER, ROOT, ROOT_DEVICE, SNAPSHOT_ID, UNKNOWN, BareCloud

from minicloud.cloud import bootstrap, keys, security_groups, subnets, views, vpcs
from minicloud.cloud.block_devices import DeviceRequest
from minicloud.cloud.metadata_options import MetadataRequest
from minicloud.model.resources import MetadataOptions
from minicloud.model.states import AttachmentState, InstanceState, Intent, SnapshotState, VolumeState


def test_a_launch_writes_every_row_and_a_task_per_instance(bare: BareCloud) -> None:
    with bare.one_transaction():
        reservation = bare.run(min_count=2, max_count=2, zone="lab-1a")
    first, second = reservation.instances
    row = first.instance
    assert (row.state, row.intent, row.shown_state) == (InstanceState.PENDING, Intent.RUNNING, InstanceState.PENDING)
    assert (row.instance_type, row.vcpus, row.memory_mib, row.image_id) == ("t3.nano", 2, 512, IMAGE_ID)
    assert (row.zone, row.machine_type, row.root_device_name) == ("lab-1a", "pc-q35-7.2", ROOT_DEVICE)
    assert (row.state_reason, row.transition_reason, row.terminated_us, row.client_token) == (None, "", None, None)
    assert row.created_us == row.launched_us == bare.clock.now_us()
    assert [view.instance.launch_index for view in reservation.instances] == [0, 1]
    assert {view.instance.reservation_id for view in reservation.instances} == {reservation.id}
    ((attachment, volume),) = first.attachments
    assert (volume.state, volume.size_gib, volume.snapshot_id) == (VolumeState.CREATING, 8, SNAPSHOT_ID)
    assert (attachment.state, attachment.device_name, attachment.pci_slot) == (
        AttachmentState.ATTACHING, ROOT_DEVICE, 1,
    )  # fmt: skip
    (port,) = first.ports
    (group,) = security_groups.describe_security_groups(bare.cloud, ROOT, [], ["default"]).items
    assert (port.device_index, port.pci_slot, port.group_ids) == (0, 0, (group.group.id,))
    assert first.ports[0].private_ip != second.ports[0].private_ip
    tasks = bare.store.read(lambda tx: tx.tasks.where())
    ids = [first.instance.id, second.instance.id]
    assert [(task.id, task.kind, task.step) for task in tasks] == [(one, "instance", "prepare") for one in ids]
    assert bare.woken == [frozenset(ids)]


def test_the_domain_uuid_is_one_that_cloud_init_takes_for_ec2(bare: BareCloud) -> None:
    uuids = {view.instance.domain_uuid for view in bare.run(min_count=3, max_count=3).instances}
    assert len(uuids) == 3
    for one in uuids:
        assert re.fullmatch(r"ec2[0-9a-f]{5}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}", one)


def test_parameters_are_kept(bare: BareCloud) -> None:
    row = bare.run_one(
        user_data=b"\x00\xff", shutdown_behavior="terminate", disable_api_termination=True, disable_api_stop=True,
        monitoring=True, ebs_optimized=True, client_token="t",
    ).instance  # fmt: skip
    assert (row.user_data, row.shutdown_behavior, row.client_token) == (b"\x00\xff", "terminate", "t")
    assert (row.disable_api_termination, row.disable_api_stop, row.monitoring, row.ebs_optimized) == (True,) * 4


@pytest.mark.parametrize(
    ("boot_mode", "of_the_instance"),
    [("legacy-bios", "legacy-bios"), ("uefi", "uefi"), ("uefi-preferred", "uefi")],
)
def test_boot_modes(bare: BareCloud, boot_mode: str, of_the_instance: str) -> None:
    image = bare.add_image(5, boot_mode=boot_mode)
    assert bare.run_one(image_id=image.id).instance.boot_mode == of_the_instance


@pytest.mark.parametrize(
    ("counts", "parameter"),
    [((0, 1), "minCount"), ((-1, 1), "minCount"), ((1, 0), "maxCount"), ((1, 1001), "maxCount"), ((3, 2), "maxCount")],
)
def test_counts(bare: BareCloud, counts: tuple[int, int], parameter: str) -> None:
    with bare.refuses("InvalidParameterValue", f"for parameter {parameter} is invalid"):
        bare.run(min_count=counts[0], max_count=counts[1])


def test_the_instance_limit(build: Callable[..., BareCloud]) -> None:
    bare = build(max_instances_per_account=5)
    bare.run(min_count=3, max_count=3)
    with bare.refuses("InstanceLimitExceeded", "2 more may be launched"):
        bare.run(min_count=3, max_count=3)
    views_ = bare.run(min_count=1, max_count=10).instances
    assert len(views_) == 2
    with bare.refuses("InstanceLimitExceeded", "0 more"):
        bare.run()
    # Stopped instances count, terminated ones do not.
    bare.rest(views_[0].instance.id, InstanceState.STOPPED)
    with bare.refuses("InstanceLimitExceeded"):
        bare.run()
    bare.rest(views_[1].instance.id, InstanceState.TERMINATED)
    bare.run()


@pytest.mark.parametrize("size", [0, 16 * 1024])
def test_user_data_of_sixteen_kib(bare: BareCloud, size: int) -> None:
    assert bare.run_one(user_data=b"x" * size).instance.user_data == b"x" * size


def test_user_data_is_bounded(bare: BareCloud) -> None:
    with bare.refuses("InvalidParameterValue", "User data is limited to 16384 bytes"):
        bare.run(user_data=b"x" * (16 * 1024 + 1))


@pytest.mark.parametrize(
    ("imds_support", "given", "kept"),
    [
        (None, MetadataRequest(), MetadataOptions("enabled", "optional", 1, "disabled")),
        ("v2.0", MetadataRequest(), MetadataOptions("enabled", "required", 2, "disabled")),
        ("v2.0", MetadataRequest(http_tokens="optional"), MetadataOptions("enabled", "optional", 2, "disabled")),
        (
            None,
            MetadataRequest("disabled", "required", 64, "enabled"),
            MetadataOptions("disabled", "required", 64, "enabled"),
        ),
    ],
)
def test_metadata_options(
    bare: BareCloud, imds_support: str | None, given: MetadataRequest, kept: MetadataOptions
) -> None:
    image = bare.add_image(5, imds_support=imds_support)
    assert bare.run_one(image_id=image.id, metadata=given).instance.metadata_options == kept


@pytest.mark.parametrize("limit", [0, -1, 65])
def test_hop_limits(bare: BareCloud, limit: int) -> None:
    with bare.refuses("InvalidParameterValue", "HttpPutResponseHopLimit"):
        bare.run(metadata=MetadataRequest(http_put_response_hop_limit=limit))


def test_an_instance_keeps_its_key_when_the_pair_is_deleted(bare: BareCloud) -> None:
    made = keys.create_key_pair(bare.cloud, ROOT, "mine", "ed25519", {}).key_pair
    row = bare.run_one(key_name="mine").instance
    keys.delete_key_pair(bare.cloud, ROOT, "mine", None)
    assert (bare.instance(row.id).key_name, bare.instance(row.id).public_key) == ("mine", made.public_key)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"image_id": f"ami-{UNKNOWN}"}, "InvalidAMIID.NotFound", f"The image id '[ami-{UNKNOWN}]' does not exist"),
        ({"image_id": "tiny"}, "InvalidAMIID.Malformed", 'Invalid id: "tiny" (expecting "ami-...")'),
        ({"instance_type": "t9.huge"}, "InvalidParameterValue", "Invalid value 't9.huge' for InstanceType."),
        ({"key_name": "nope"}, "InvalidKeyPair.NotFound", "The key pair 'nope' does not exist"),
        ({"zone": "lab-1z"}, "InvalidParameterValue", "Invalid availability zone: [lab-1z]"),
        ({"zone_id": "lab1-az9"}, "InvalidParameterValue", "Invalid availability zone: [lab1-az9]"),
        ({"zone": "lab-1a", "zone_id": "lab1-az1"}, "InvalidParameterCombination", "AvailabilityZoneId"),
        ({"subnet_id": f"subnet-{UNKNOWN}"}, "InvalidSubnetID.NotFound", f"The subnet ID 'subnet-{UNKNOWN}'"),
        ({"group_ids": (f"sg-{UNKNOWN}",)}, "InvalidGroup.NotFound", f"The security group 'sg-{UNKNOWN}'"),
        ({"group_ids": ("default",)}, "InvalidGroupId.Malformed", "default"),
        ({"group_names": ("default", "web")}, "InvalidGroup.NotFound", "The security group 'web' does not exist in"),
        (
            {"block_devices": (DeviceRequest("/dev/sdf", snapshot_id=f"snap-{UNKNOWN}"),)},
            "InvalidSnapshot.NotFound",
            UNKNOWN,
        ),
        (
            {"block_devices": (DeviceRequest(ROOT_DEVICE, size_gib=7),)},
            "InvalidBlockDeviceMapping",
            f"Volume of size 7GB is smaller than snapshot '{SNAPSHOT_ID}', expect size >= 8GB",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_launches_that_cannot_be(bare: BareCloud, changes: dict[str, Any], code: str, message: str) -> None:
    with bare.refuses(code, message):
        bare.run(client_token="t", tags={"instance": {"a": "1"}}, **changes)


def test_a_snapshot_must_be_completed(bare: BareCloud) -> None:
    bare.add_snapshot(5, state=SnapshotState.PENDING)
    with bare.refuses("IncorrectState", "is not completed: it is pending."):
        bare.run(block_devices=(DeviceRequest("/dev/sdf", snapshot_id=make.number("snap", 5)),))


def test_zones_and_subnets_choose_the_place(bare: BareCloud) -> None:
    by_zone = {one.subnet.zone: one.subnet for one in subnets.describe_subnets(bare.cloud, ROOT, []).items}
    assert bare.run_one(zone_id="lab1-az2").instance.zone == "lab-1b"
    view = bare.run_one(subnet_id=by_zone["lab-1b"].id)
    assert (view.instance.zone, view.instance.subnet_id) == ("lab-1b", by_zone["lab-1b"].id)
    with bare.refuses("InvalidParameterCombination", "is in zone lab-1b"):
        bare.run(subnet_id=by_zone["lab-1b"].id, zone="lab-1a")
    bootstrap.ensure_region(bare.cloud, OTHER.account_id, OTHER.region)
    bare.add_image(5, account_id=OTHER.account_id)
    with bare.refuses("InvalidSubnetID.NotFound"):
        bare.run(OTHER, image_id=make.number("ami", 5), subnet_id=by_zone["lab-1a"].id)


def test_without_a_default_subnet_one_must_be_named(empty: BareCloud) -> None:
    image = empty.add_image(5)
    with empty.refuses("MissingInput", "No subnets found for the default VPC"):
        empty.run(image_id=image.id)


def test_without_a_default_vpc(bare: BareCloud) -> None:
    image = bare.add_image(5, account_id=OTHER.account_id)
    with bare.refuses("VPCIdNotSpecified", "No default VPC for this user"):
        bare.run(OTHER, image_id=image.id)


def test_groups_by_id_and_by_name(bare: BareCloud) -> None:
    (default,) = security_groups.describe_security_groups(bare.cloud, ROOT, [], []).items
    vpc_id = default.group.vpc_id
    more = [make.security_group(n, vpc_id=vpc_id) for n in range(1, 6)]
    bare.store.write(lambda tx: tx.security_groups.insert_many(more))
    view = bare.run_one(group_ids=(more[1].id, more[0].id), group_names=("default", "group1"))
    assert view.ports[0].group_ids == (more[1].id, more[0].id, default.group.id)
    assert bare.run_one(group_ids=tuple(one.id for one in more)).ports[0].group_ids == tuple(one.id for one in more)
    with bare.refuses("SecurityGroupsPerInterfaceLimitExceeded", "(5)"):
        bare.run(group_ids=tuple(one.id for one in more), group_names=("default",))


def test_a_group_of_another_vpc(bare: BareCloud) -> None:
    bare.store.write(
        lambda tx: (
            tx.vpcs.insert(make.vpc(7, is_default=False)),
            tx.security_groups.insert(make.security_group(7, vpc_id=make.number("vpc", 7))),
        )
    )
    with bare.refuses("InvalidParameter", "belong to different networks."):
        bare.run(group_ids=(make.number("sg", 7),))


def test_tags_go_to_what_they_are_for(bare: BareCloud) -> None:
    view = bare.run_one(tags={"instance": {"a": "1"}, "volume": {"b": "2"}, "network-interface": {"c": "3"}})
    assert view.tags == bare.tags(view.instance.id) == {"a": "1"}
    assert bare.tags(view.attachments[0][1].id) == {"b": "2"}
    assert bare.tags(view.ports[0].id) == {"c": "3"}


# What is shown of instances


def test_instances_are_described_by_reservation(bare: BareCloud) -> None:
    first = bare.run(min_count=2, max_count=2)
    bare.clock.advance(1)
    second = bare.run()
    with bare.one_transaction():
        assert views.describe_instances(bare.cloud, ROOT, []).items == [first, second]
    ids = [second.instances[0].instance.id, first.instances[1].instance.id]
    named = views.describe_instances(bare.cloud, ROOT, ids).items
    assert [[view.instance.id for view in one.instances] for one in named] == [[ids[1]], [ids[0]]]
    assert views.describe_instances(bare.cloud, OTHER, []).items == []
    with bare.refuses("InvalidInstanceID.NotFound"):
        views.describe_instances(bare.cloud, OTHER, ids)


def test_a_terminated_instance_is_shown_without_disks_and_ports(bare: BareCloud) -> None:
    row = bare.run_in(InstanceState.TERMINATED)
    ((view,),) = [one.instances for one in views.describe_instances(bare.cloud, ROOT, [row.id]).items]
    assert (view.ports, view.attachments, view.instance.state) == ((), (), InstanceState.TERMINATED)
    assert views.find_instance(bare.cloud, ROOT, row.id) == row


@pytest.mark.parametrize("state", sorted(InstanceState))
def test_status_is_of_running_instances_unless_all_are_asked_for(bare: BareCloud, state: InstanceState) -> None:
    row = bare.run_in(state)
    running = views.describe_instance_status(bare.cloud, ROOT, [row.id], include_all=False).items
    everything = views.describe_instance_status(bare.cloud, ROOT, [], include_all=True).items
    assert [one.id for one, _ in running] == ([row.id] if state is InstanceState.RUNNING else [])
    assert [(one.id, zone.id) for one, zone in everything] == [(row.id, row.zone)]


def test_networks_are_described_to_their_owner_only(bare: BareCloud) -> None:
    (vpc,) = vpcs.describe_vpcs(bare.cloud, ROOT, []).items
    own = subnets.describe_subnets(bare.cloud, ROOT, []).items
    (group,) = security_groups.describe_security_groups(bare.cloud, ROOT, [], []).items
    assert security_groups.describe_security_groups(bare.cloud, ROOT, [group.group.id], ["default"]).items == [group]
    for described in (
        vpcs.describe_vpcs(bare.cloud, OTHER, []).items,
        subnets.describe_subnets(bare.cloud, OTHER, []).items,
        security_groups.describe_security_groups(bare.cloud, OTHER, [], []).items,
    ):
        assert described == []
    for code, call in (
        ("InvalidVpcID.NotFound", lambda: vpcs.describe_vpcs(bare.cloud, OTHER, [vpc.vpc.id])),
        ("InvalidSubnetID.NotFound", lambda: subnets.describe_subnets(bare.cloud, OTHER, [own[0].subnet.id])),
        (
            "InvalidGroup.NotFound",
            lambda: security_groups.describe_security_groups(bare.cloud, OTHER, [group.group.id], []),
        ),
        ("VPCIdNotSpecified", lambda: security_groups.describe_security_groups(bare.cloud, OTHER, [], ["default"])),
        ("InvalidGroup.NotFound", lambda: security_groups.describe_security_groups(bare.cloud, ROOT, [], ["web"])),
    ):
        with bare.refuses(code):
            call()
