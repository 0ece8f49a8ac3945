"""Volumes and snapshots through boto3: what launches and imports made."""

from __future__ import annotations

from typing import Any

import pytest
from support import front as build
from support import rows as make

from minicloud.clock import to_datetime
from minicloud.model.states import AttachmentState, HostState, SnapshotState, VolumeState
from minicloud.store.store import Tx

ACCOUNT = build.root_caller().account_id
DEVICES = [
    {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 8, "VolumeType": "gp2", "DeleteOnTermination": False}},
    {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 10, "VolumeType": "io1", "Iops": 200}},
]


def values(name: str, *wanted: str) -> list[dict[str, Any]]:
    """One filter."""
    return [{"Name": name, "Values": list(wanted)}]


def test_volumes_as_terraform_reads_them(front: Any, ec2: Any, run: Any) -> None:
    (instance,) = run(BlockDeviceMappings=DEVICES)["Instances"]
    build.settle(front.cloud)
    shown = ec2.describe_volumes(Filters=values("attachment.instance-id", instance["InstanceId"]))["Volumes"]
    volumes = {one["Attachments"][0]["Device"]: one for one in shown}
    root, gp2, io1 = volumes["/dev/sda1"], volumes["/dev/sdf"], volumes["/dev/sdg"]
    for one in volumes.values():
        assert (one["State"], one["Encrypted"], one["MultiAttachEnabled"]) == ("in-use", False, False)
        assert one["CreateTime"] and one["Attachments"][0]["AttachTime"]
        assert one["Attachments"][0]["VolumeId"] == one["VolumeId"]
        assert one["Attachments"][0]["State"] == "attached"
        assert (one["AvailabilityZone"], one["AvailabilityZoneId"]) == ("lab-1a", "lab1-az1")
    # What the owner did not ask for is the type's own.
    assert (root["VolumeType"], root["Size"], root["Iops"], root["Throughput"]) == ("gp3", 2, 3000, 125)
    assert (gp2["VolumeType"], gp2["Size"], gp2["Iops"], gp2.get("Throughput")) == ("gp2", 8, 100, None)
    assert (io1["VolumeType"], io1["Size"], io1["Iops"], io1.get("Throughput")) == ("io1", 10, 200, None)
    assert (root["SnapshotId"], gp2["SnapshotId"]) == (build.SNAPSHOT_ID, "")
    assert [one["Attachments"][0]["DeleteOnTermination"] for one in (root, gp2)] == [True, False]


@pytest.mark.parametrize(("size_gib", "iops"), [(1, 100), (33, 100), (34, 102), (5333, 15999), (16384, 16000)])
def test_gp2_has_iops_by_its_size(front: Any, ec2: Any, run: Any, size_gib: int, iops: int) -> None:
    run()
    volume_id = ec2.describe_volumes()["Volumes"][0]["VolumeId"]
    changes = {"volume_type": "gp2", "size_gib": size_gib, "iops": None, "throughput_mibps": None}
    front.cloud.store.write(lambda tx: tx.volumes.update(volume_id, **changes))
    (volume,) = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    assert (volume["Size"], volume["Iops"]) == (size_gib, iops)


def test_types_without_iops_show_none(front: Any, ec2: Any, run: Any) -> None:
    run(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 125, "VolumeType": "st1"}}])
    (volume,) = ec2.describe_volumes(Filters=values("volume-type", "st1"))["Volumes"]
    assert "Iops" not in volume and "Throughput" not in volume


def test_filters_and_tags_of_volumes(front: Any, ec2: Any, run: Any) -> None:
    run(
        BlockDeviceMappings=DEVICES,
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "mine"}]}],
    )

    def found(name: str, *wanted: str) -> list[str]:
        shown = ec2.describe_volumes(Filters=values(name, *wanted))["Volumes"]
        assert all(one["Tags"] == [{"Key": "Name", "Value": "mine"}] for one in shown)
        return sorted(one["Attachments"][0]["Device"] for one in shown)

    everything = ["/dev/sda1", "/dev/sdf", "/dev/sdg"]
    assert found("tag:Name", "m*") == everything
    assert found("attachment.device", "/dev/sd[fg]") == []
    assert found("attachment.device", "/dev/sdf", "/dev/sdg") == everything[1:]
    assert found("attachment.delete-on-termination", "false") == ["/dev/sdf"]
    assert found("size", "8", "10") == everything[1:]
    assert found("status", "creating") == everything
    assert found("status", "in-use") == []
    assert found("attachment.status", "attaching") == everything
    build.settle(front.cloud)
    assert found("status", "in-use") == everything


def test_a_detached_attachment_is_history(front: Any, ec2: Any, run: Any) -> None:
    (instance,) = run()["Instances"]

    def detach(tx: Tx) -> None:
        (one,) = tx.attachments.where()
        tx.attachments.update(one.id, state=AttachmentState.DETACHED)
        tx.volumes.update(one.volume_id, state=VolumeState.AVAILABLE)

    front.cloud.store.write(detach)
    (volume,) = ec2.describe_volumes()["Volumes"]
    assert (volume["State"], volume["Attachments"]) == ("available", [])
    assert ec2.describe_volumes(Filters=values("attachment.instance-id", instance["InstanceId"]))["Volumes"] == []


def test_the_status_of_volumes_follows_their_host(front: Any, ec2: Any, run: Any) -> None:
    (instance,) = run()["Instances"]

    def status() -> tuple[str, dict[str, str]]:
        (one,) = ec2.describe_volume_status()["VolumeStatuses"]
        shown = one["VolumeStatus"]["Status"]
        assert ec2.describe_volume_status(Filters=values("volume-status.status", shown))["VolumeStatuses"] == [one]
        assert one["AttachmentStatuses"] == [{"InstanceId": instance["InstanceId"], "IoPerformance": "not-applicable"}]
        return shown, {each["Name"]: each["Status"] for each in one["VolumeStatus"]["Details"]}

    unknown = ("insufficient-data", {"io-enabled": "insufficient-data", "io-performance": "insufficient-data"})
    # Nobody has made it yet.
    assert status() == unknown
    build.settle(front.cloud)
    good = ("ok", {"io-enabled": "passed", "io-performance": "not-applicable"})
    assert status() == good
    (row,) = front.cloud.store.read(lambda tx: tx.instances.where())
    front.cloud.store.write(lambda tx: tx.hosts.update(row.host_id, state=HostState.DRAINING))
    assert status() == good
    front.cloud.store.write(lambda tx: tx.hosts.update(row.host_id, state=HostState.DOWN))
    assert status() == unknown


def test_attributes_and_modifications_of_volumes(ec2: Any, run: Any, refused: Any) -> None:
    run()
    (volume,) = ec2.describe_volumes()["Volumes"]
    named = {"VolumeId": volume["VolumeId"]}
    assert ec2.describe_volume_attribute(**named, Attribute="autoEnableIO")["AutoEnableIO"] == {"Value": False}
    assert ec2.describe_volume_attribute(**named, Attribute="productCodes")["ProductCodes"] == []
    other = make.number("vol", 0xABC)
    refused("InvalidVolume.NotFound", ec2.describe_volume_attribute, VolumeId=other, Attribute="autoEnableIO")
    assert ec2.describe_volumes_modifications(Filters=values("volume-id", "*"))["VolumesModifications"] == []
    refused("InvalidVolumeModification.NotFound", ec2.describe_volumes_modifications, VolumeIds=[volume["VolumeId"]])
    refused("InvalidVolume.NotFound", ec2.describe_volumes_modifications, VolumeIds=[other])


@pytest.mark.parametrize(
    ("call", "parameter", "prefix", "not_found", "malformed"),
    [
        ("describe_volumes", "VolumeIds", "vol", "InvalidVolume.NotFound", "InvalidVolumeID.Malformed"),
        ("describe_volume_status", "VolumeIds", "vol", "InvalidVolume.NotFound", "InvalidVolumeID.Malformed"),
        ("describe_snapshots", "SnapshotIds", "snap", "InvalidSnapshot.NotFound", "InvalidSnapshotID.Malformed"),
    ],
)
def test_ids_that_lead_nowhere(
    ec2: Any, clients: Any, refused: Any, call: str, parameter: str, prefix: str, not_found: str, malformed: str
) -> None:
    describe = getattr(ec2, call)
    refused(not_found, describe, **{parameter: [make.number(prefix, 0xABC)]})
    refused(malformed, describe, **{parameter: ["nonsense"]})
    refused("InvalidParameterValue", describe, Filters=values("color", "red"))
    refused("InvalidParameterValue", getattr(clients("ec2", validate=False), call), MaxResults=4)
    refused("InvalidParameterValue", describe, MaxResults=1001)
    refused("InvalidParameterCombination", describe, **{parameter: [make.number(prefix, 1)]}, MaxResults=5)


def test_pages_of_volumes(ec2: Any, run: Any) -> None:
    run(MinCount=7, MaxCount=7)
    every = [one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]]
    for name, member in (("describe_volumes", "Volumes"), ("describe_volume_status", "VolumeStatuses")):
        pages = list(ec2.get_paginator(name).paginate(PaginationConfig={"PageSize": 5}))
        assert [len(page[member]) for page in pages] == [5, 2]
        assert [one["VolumeId"] for page in pages for one in page[member]] == every


def test_snapshots(front: Any, ec2: Any) -> None:
    (shown,) = ec2.describe_snapshots()["Snapshots"]
    assert (shown["SnapshotId"], shown["State"], shown["Progress"]) == (build.SNAPSHOT_ID, "completed", "100%")
    assert (shown["OwnerId"], shown["VolumeSize"], shown["Encrypted"]) == (ACCOUNT, 2, False)
    assert shown["StartTime"] == to_datetime(make.BORN_US)
    # EC2 names a volume even where there was none.
    assert shown["VolumeId"] == "vol-ffffffff"
    assert "StateMessage" not in shown
    pending = make.snapshot(
        2,
        region=build.REGION,
        state=SnapshotState.ERROR,
        state_reason="The file is empty.",
        progress_percent=7,
        completed_us=None,
        created_us=make.BORN_US + 1_000_000,
        description="later",
    )
    front.cloud.store.write(lambda tx: tx.snapshots.insert(pending))
    (found,) = ec2.describe_snapshots(Filters=values("status", "error"))["Snapshots"]
    assert (found["Progress"], found["StateMessage"], found["Description"]) == ("7%", "The file is empty.", "later")
    assert "CompletionTime" not in found
    ec2.create_tags(Resources=[found["SnapshotId"]], Tags=[{"Key": "a", "Value": "b"}])
    for name, value in (
        ("progress", "7%"),
        ("start-time", "2023-11-14T22:13:21.000Z"),
        ("volume-size", "1"),
        ("description", "l?ter"),
        ("tag:a", "b"),
    ):
        named = [one["SnapshotId"] for one in ec2.describe_snapshots(Filters=values(name, value))["Snapshots"]]
        assert named == [found["SnapshotId"]], name


def test_whose_snapshots(front: Any, ec2: Any, refused: Any) -> None:
    other = make.snapshot(3, account_id="200000000002", region=build.REGION)
    front.cloud.store.write(lambda tx: tx.snapshots.insert(other))

    def found(**parameters: Any) -> list[str]:
        return [one["SnapshotId"] for one in ec2.describe_snapshots(**parameters)["Snapshots"]]

    mine = [build.SNAPSHOT_ID]
    assert found() == mine
    for who in ("self", ACCOUNT):
        assert found(OwnerIds=[who]) == found(RestorableByUserIds=[who]) == mine
        assert found(OwnerIds=["amazon", who], RestorableByUserIds=["all", who], SnapshotIds=mine) == mine
    for who in ("amazon", other.account_id):
        assert found(OwnerIds=[who]) == []
    for who in ("all", other.account_id):
        assert found(RestorableByUserIds=[who]) == []
    refused("InvalidSnapshot.NotFound", ec2.describe_snapshots, SnapshotIds=[other.id])
    for who in ("me", "all", "1234", ""):
        refused("InvalidUserID.Malformed", ec2.describe_snapshots, OwnerIds=[who])
    refused("InvalidUserID.Malformed", ec2.describe_snapshots, RestorableByUserIds=["amazon"])


def test_attributes_of_snapshots(ec2: Any, refused: Any) -> None:
    named = {"SnapshotId": build.SNAPSHOT_ID}
    permissions = ec2.describe_snapshot_attribute(**named, Attribute="createVolumePermission")
    assert permissions["CreateVolumePermissions"] == []
    assert ec2.describe_snapshot_attribute(**named, Attribute="productCodes")["ProductCodes"] == []
    named["SnapshotId"] = make.number("snap", 0xABC)
    refused("InvalidSnapshot.NotFound", ec2.describe_snapshot_attribute, **named, Attribute="productCodes")
