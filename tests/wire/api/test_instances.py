"""Instances through boto3: launched, shown, started, stopped, rebooted, terminated; and every refusal on the way."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from support import front as build
from support import rows as make

from minicloud.cloud import hosts
from minicloud.cloud.instance_types import instance_store_bytes
from minicloud.model.states import ImageState, InstanceState, Intent, SnapshotState

UNKNOWN = "i-0123456789abcdef0"


def only(ec2: Any, instance_id: str) -> dict[str, Any]:
    (reservation,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    (instance,) = reservation["Instances"]
    return dict(instance)


def launch(run: Any, **changes: Any) -> str:
    return str(run(**changes)["Instances"][0]["InstanceId"])


def test_run_shows_what_every_client_looks_for(front: Any, run: Any) -> None:
    reservation = run(
        KeyName=None,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}]}],
        Monitoring={"Enabled": True},
    )
    assert reservation["ReservationId"].startswith("r-")
    assert reservation["OwnerId"] == build.root_caller().account_id
    (instance,) = reservation["Instances"]
    assert instance["State"] == {"Code": 0, "Name": "pending"}
    assert instance["StateReason"] == {"Code": "pending", "Message": "pending"}
    assert instance["InstanceType"] == "t3.nano"
    assert instance["Placement"]["AvailabilityZone"] == "lab-1a"
    assert instance["Placement"]["Tenancy"] == "default"
    assert instance["PrivateIpAddress"] == "172.31.0.4"
    assert instance["PrivateDnsName"] == "ip-172-31-0-4.lab-1.compute.internal"
    assert instance["PublicIpAddress"] == "10.200.0.0"
    assert instance["Architecture"] == "x86_64"
    assert instance["RootDeviceType"] == "ebs"
    assert instance["RootDeviceName"] == "/dev/sda1"
    assert instance["VirtualizationType"] == "hvm"
    assert instance["Hypervisor"] == "xen"
    assert instance["AmiLaunchIndex"] == 0
    assert instance["Monitoring"] == {"State": "enabled"}
    assert instance["Tags"] == [{"Key": "Name", "Value": "web"}]
    assert instance["SecurityGroups"][0]["GroupName"] == "default"
    assert instance["CpuOptions"] == {"CoreCount": 1, "ThreadsPerCore": 2}
    assert instance["MetadataOptions"]["HttpTokens"] == "optional"
    assert abs((datetime.now(UTC) - instance["LaunchTime"]).total_seconds()) < 60
    (device,) = instance["BlockDeviceMappings"]
    assert device["DeviceName"] == "/dev/sda1"
    assert device["Ebs"]["Status"] == "attaching"
    assert device["Ebs"]["DeleteOnTermination"] is True
    (port,) = instance["NetworkInterfaces"]
    assert port["MacAddress"] == "02:00:00:00:00:04"
    assert port["Association"]["PublicIp"] == "10.200.0.0"
    assert port["Attachment"]["Status"] == "attaching"
    # One task per instance waits for the controller.
    assert front.cloud.store.read(lambda tx: [(task.id, task.kind, task.step) for task in tx.tasks.where()]) == [
        (instance["InstanceId"], "instance", "prepare")
    ]


def test_describe_shows_the_same_as_run_and_then_running(front: Any, ec2: Any, run: Any) -> None:
    launched = run(MaxCount=2)["Instances"]
    assert [one["AmiLaunchIndex"] for one in launched] == [0, 1]
    (reservation,) = ec2.describe_instances()["Reservations"]
    assert reservation["Instances"] == launched
    build.settle(front.cloud)
    instance = only(ec2, launched[1]["InstanceId"])
    assert instance["State"] == {"Code": 16, "Name": "running"}
    assert instance["MetadataOptions"]["State"] == "applied"
    assert "StateReason" not in instance
    assert instance["BlockDeviceMappings"][0]["Ebs"]["Status"] == "attached"


def test_instances_spread_over_the_hosts_of_the_zone(front: Any, run: Any) -> None:
    hosts.register_host(front.cloud, build.root_caller(), build.new_host("host3", "lab-1a"))
    run(MaxCount=4, MinCount=4, Placement={"AvailabilityZone": "lab-1a"})
    rows = front.cloud.store.read(lambda tx: tx.instances.where())
    assert sorted([row.host_id for row in rows].count(host_id) for host_id in {row.host_id for row in rows}) == [2, 2]
    assert {row.zone for row in rows} == {"lab-1a"}


def test_the_named_zone_decides_the_subnet(ec2: Any, run: Any) -> None:
    (instance,) = run(Placement={"AvailabilityZone": "lab-1b"})["Instances"]
    assert instance["PrivateIpAddress"] == "172.31.16.4"
    (subnet,) = ec2.describe_subnets(SubnetIds=[instance["SubnetId"]])["Subnets"]
    assert subnet["AvailabilityZone"] == "lab-1b"
    assert subnet["AvailableIpAddressCount"] == 4096 - 5 - 1
    (by_id,) = run(Placement={"AvailabilityZoneId": "lab1-az2"})["Instances"]
    assert by_id["Placement"]["AvailabilityZone"] == "lab-1b"


def test_the_same_token_gives_the_same_reservation(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    first = run(ClientToken="once", MaxCount=2)
    before = build.count_rows(front.cloud)
    again = run(ClientToken="once", MaxCount=2)
    assert again["ReservationId"] == first["ReservationId"]
    assert [one["InstanceId"] for one in again["Instances"]] == [one["InstanceId"] for one in first["Instances"]]
    assert build.count_rows(front.cloud) == before
    refused("IdempotentParameterMismatch", run, ClientToken="once", MaxCount=1)
    ec2.terminate_instances(InstanceIds=[one["InstanceId"] for one in first["Instances"]])
    build.settle(front.cloud)
    refused("IdempotentInstanceTerminated", run, ClientToken="once", MaxCount=2)
    refused("InvalidParameterValue", run, ClientToken="x" * 65)


def test_dry_run_changes_nothing(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    before = build.count_rows(front.cloud)
    error = refused("DryRunOperation", run, DryRun=True)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert build.count_rows(front.cloud) == before
    refused("DryRunOperation", ec2.describe_instances, DryRun=True)


def test_as_many_as_fit_but_not_fewer_than_the_minimum(front: Any, run: Any, refused: Any) -> None:
    # A host of 8 threads holds 32 vCPUs at the ratio of 4: 16 t3.nano.
    reservation = run(MinCount=1, MaxCount=40, Placement={"AvailabilityZone": "lab-1a"})
    assert len(reservation["Instances"]) == 16
    before = build.count_rows(front.cloud)
    error = refused("InsufficientInstanceCapacity", run, Placement={"AvailabilityZone": "lab-1a"})
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert build.count_rows(front.cloud) == before
    # The other zone has room.
    assert run()["Instances"][0]["Placement"]["AvailabilityZone"] == "lab-1b"


@pytest.mark.parametrize(("type_", "why"), [("r5.2xlarge", "memory"), ("m5.2xlarge", "memory"), ("m5d.large", "disk")])
def test_capacity_counts_memory_and_disk(front: Any, run: Any, refused: Any, type_: str, why: str) -> None:
    if why == "disk":
        small = [pool.id for pool in front.cloud.store.read(lambda tx: tx.pools.where())]
        for pool_id in small:
            front.cloud.store.write(lambda tx, id=pool_id: tx.pools.update(id, capacity_bytes=10 * build.GIB))
    refused("InsufficientInstanceCapacity", run, InstanceType=type_)


def test_hosts_that_are_not_up_get_nothing(front: Any, run: Any, refused: Any) -> None:
    for name in ("host1", "host2"):
        hosts.set_host_draining(front.cloud, build.root_caller(), name, True)
    refused("InsufficientInstanceCapacity", run)


def test_the_account_has_a_limit(catalog: Any, server: Any, boto_ec2: Any, refused: Any) -> None:
    front = build.build_front(catalog, max_instances_per_account=3)
    server[0].app = build.endpoint_of(front)
    parameters = {"ImageId": build.IMAGE_ID, "InstanceType": "t3.nano"}
    assert len(boto_ec2.run_instances(MinCount=1, MaxCount=5, **parameters)["Instances"]) == 3
    refused("InstanceLimitExceeded", boto_ec2.run_instances, MinCount=1, MaxCount=1, **parameters)


def test_public_addresses_run_out(catalog: Any, server: Any, boto_ec2: Any, refused: Any) -> None:
    front = build.build_front(catalog, public_address_pools=("10.9.0.0/31", "10.9.1.7/32"))
    server[0].app = build.endpoint_of(front)
    parameters = {"ImageId": build.IMAGE_ID, "InstanceType": "t3.nano"}
    found = boto_ec2.run_instances(MinCount=1, MaxCount=5, **parameters)["Instances"]
    assert [one["PublicIpAddress"] for one in found] == ["10.9.0.0", "10.9.0.1", "10.9.1.7"]
    refused("InsufficientAddressCapacity", boto_ec2.run_instances, MinCount=1, MaxCount=1, **parameters)
    # A stop gives the address back.
    boto_ec2.stop_instances(InstanceIds=[_make_running(front, found[1]["InstanceId"])])
    build.settle(front.cloud)
    (instance,) = boto_ec2.run_instances(MinCount=1, MaxCount=1, **parameters)["Instances"]
    assert instance["PublicIpAddress"] == "10.9.0.1"


def _make_running(front: Any, instance_id: str) -> str:
    build.settle(front.cloud)
    return instance_id


def test_a_subnet_runs_out_of_addresses(front: Any, run: Any, refused: Any) -> None:
    subnet = front.cloud.store.read(lambda tx: tx.subnets.where(zone="lab-1a"))[0]
    front.cloud.store.write(lambda tx: tx.subnets.update(subnet.id, cidr="172.31.0.0/29"))
    assert len(run(MaxCount=10, SubnetId=subnet.id)["Instances"]) == 3
    refused("InsufficientFreeAddressesInSubnet", run, SubnetId=subnet.id)


def test_a_private_address_can_be_asked_for(ec2: Any, run: Any, refused: Any) -> None:
    (subnet, _) = ec2.describe_subnets()["Subnets"]
    (instance,) = run(SubnetId=subnet["SubnetId"], PrivateIpAddress="172.31.0.77")["Instances"]
    assert instance["PrivateIpAddress"] == "172.31.0.77"
    assert instance["NetworkInterfaces"][0]["MacAddress"] == "02:00:00:00:00:4d"
    refused("InvalidIPAddress.InUse", run, SubnetId=subnet["SubnetId"], PrivateIpAddress="172.31.0.77")
    for address in ("172.31.0.3", "172.31.15.255", "172.31.16.9", "nonsense"):
        refused("InvalidParameterValue", run, SubnetId=subnet["SubnetId"], PrivateIpAddress=address)
    refused("InvalidParameterCombination", run, MaxCount=2, PrivateIpAddress="172.31.0.9")


def test_one_network_interface_may_be_described_at_launch(ec2: Any, run: Any, refused: Any) -> None:
    (_, subnet) = ec2.describe_subnets()["Subnets"]
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    interface = {
        "DeviceIndex": 0,
        "SubnetId": subnet["SubnetId"],
        "Groups": [group],
        "AssociatePublicIpAddress": True,
        "DeleteOnTermination": True,
    }
    (instance,) = run(NetworkInterfaces=[interface])["Instances"]
    assert instance["SubnetId"] == subnet["SubnetId"]
    assert "PublicIpAddress" in instance
    refused("InvalidParameterCombination", run, NetworkInterfaces=[interface], SubnetId=subnet["SubnetId"])
    refused("UnsupportedOperation", run, NetworkInterfaces=[interface, {**interface, "DeviceIndex": 1}])
    refused("UnsupportedOperation", run, NetworkInterfaces=[{**interface, "AssociatePublicIpAddress": False}])
    refused("UnsupportedOperation", run, NetworkInterfaces=[{**interface, "DeleteOnTermination": False}])


# Bad input: EC2's error code each, nothing left behind.

MAPPING = "BlockDeviceMappings"
BAD_LAUNCHES: list[tuple[str, dict[str, Any]]] = [
    ("InvalidParameterValue", {"MinCount": 0}),
    ("InvalidParameterValue", {"MinCount": -1}),
    ("InvalidParameterValue", {"MaxCount": 0}),
    ("InvalidParameterValue", {"MinCount": 2, "MaxCount": 1}),
    ("InvalidParameterValue", {"MaxCount": 1001}),
    ("InvalidParameterValue", {"InstanceType": "t9.gigantic"}),
    ("InvalidAMIID.Malformed", {"ImageId": "nonsense"}),
    ("InvalidAMIID.Malformed", {"ImageId": "ami-XYZ"}),
    ("InvalidAMIID.Malformed", {"ImageId": "ami-" + "a" * 300}),
    ("InvalidAMIID.NotFound", {"ImageId": "ami-0123456789abcdef0"}),
    ("MissingParameter", {"ImageId": None}),
    ("InvalidKeyPair.NotFound", {"KeyName": "nobody"}),
    ("InvalidParameterValue", {"Placement": {"AvailabilityZone": "lab-1z"}}),
    ("InvalidParameterValue", {"Placement": {"AvailabilityZone": "us-east-1a"}}),
    ("InvalidParameterValue", {"Placement": {"AvailabilityZoneId": "lab1-az9"}}),
    ("UnsupportedOperation", {"Placement": {"Tenancy": "dedicated"}}),
    ("UnsupportedOperation", {"Placement": {"GroupName": "together"}}),
    ("InvalidSubnetID.NotFound", {"SubnetId": "subnet-0123456789abcdef0"}),
    ("InvalidSubnetID.NotFound", {"SubnetId": "../etc"}),
    ("InvalidGroup.NotFound", {"SecurityGroupIds": ["sg-0123456789abcdef0"]}),
    ("InvalidGroupId.Malformed", {"SecurityGroupIds": ["default"]}),
    ("InvalidGroup.NotFound", {"SecurityGroups": ["nobody"]}),
    ("InvalidParameterValue", {"UserData": b"x" * (16 * 1024 + 1)}),
    ("InvalidParameterValue", {"UserData": b"x" * (17 * 1024)}),
    ("InvalidParameterValue", {"MetadataOptions": {"HttpTokens": "sometimes"}}),
    ("InvalidParameterValue", {"MetadataOptions": {"HttpPutResponseHopLimit": 0}}),
    ("InvalidParameterValue", {"MetadataOptions": {"HttpPutResponseHopLimit": 65}}),
    ("UnsupportedOperation", {"MetadataOptions": {"HttpProtocolIpv6": "enabled"}}),
    ("InvalidParameterValue", {"InstanceInitiatedShutdownBehavior": "explode"}),
    ("UnsupportedOperation", {"HibernationOptions": {"Configured": True}}),
    ("UnsupportedOperation", {"InstanceMarketOptions": {"MarketType": "spot"}}),
    ("UnsupportedOperation", {"IamInstanceProfile": {"Name": "role"}}),
    ("UnsupportedOperation", {"LaunchTemplate": {"LaunchTemplateName": "x"}}),
    ("UnsupportedOperation", {"CreditSpecification": {"CpuCredits": "standard"}}),
    ("UnsupportedOperation", {"CpuOptions": {"CoreCount": 4}}),
    ("UnsupportedOperation", {"KernelId": "aki-01234567"}),
    ("UnsupportedOperation", {"Ipv6AddressCount": 1}),
    ("UnsupportedOperation", {"AdditionalInfo": "x"}),
    ("InvalidParameterValue", {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "aws:x"}]}]}),
    ("InvalidParameterValue", {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "k" * 129}]}]}),
    ("InvalidParameterValue", {"TagSpecifications": [{"ResourceType": "vpc", "Tags": [{"Key": "k"}]}]}),
    (
        "TagLimitExceeded",
        {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": f"k{n}"} for n in range(51)]}]},
    ),
    (
        "InvalidParameterValue",
        {
            "MetadataOptions": {"InstanceMetadataTags": "enabled"},
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a/b"}]}],
        },
    ),
    ("InvalidBlockDeviceMapping", {MAPPING: [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 1}}]}),
    ("InvalidBlockDeviceMapping", {MAPPING: [{"DeviceName": "/dev/sda1", "NoDevice": ""}]}),
    ("InvalidBlockDeviceMapping", {MAPPING: [{"DeviceName": "/dev/sda1", "VirtualName": "ephemeral0"}]}),
    ("InvalidBlockDeviceMapping", {MAPPING: [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4}}]}),
    ("InvalidBlockDeviceMapping", {MAPPING: [{"DeviceName": "/dev/sdb", "VirtualName": "floppy"}]}),
    ("InvalidBlockDeviceMapping", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1}}] * 2}),
    ("InvalidParameterValue", {MAPPING: [{"DeviceName": "/etc/passwd", "Ebs": {"VolumeSize": 1}}]}),
    ("InvalidParameterValue", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 0}}]}),
    ("InvalidParameterValue", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": -5}}]}),
    ("InvalidParameterValue", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 70000}}]}),
    ("InvalidParameterValue", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, "VolumeType": "gp9"}}]}),
    ("MissingParameter", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeType": "gp2"}}]}),
    ("MissingParameter", {MAPPING: [{"Ebs": {"VolumeSize": 1}}]}),
    ("MissingParameter", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 4, "VolumeType": "io1"}}]}),
    (
        "InvalidParameterCombination",
        {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, "VolumeType": "gp2", "Iops": 3000}}]},
    ),
    ("InvalidParameterValue", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, "Iops": 1}}]}),
    ("UnsupportedOperation", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, "Encrypted": True}}]}),
    ("UnsupportedOperation", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, "KmsKeyId": "k"}}]}),
    (
        "InvalidSnapshot.NotFound",
        {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}]},
    ),
    ("InvalidSnapshotID.Malformed", {MAPPING: [{"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": "x"}}]}),
    (
        "AttachmentLimitExceeded",
        {MAPPING: [{"DeviceName": f"/dev/sd{letter}", "Ebs": {"VolumeSize": 1}} for letter in "bcdefghijklmnopqr"]},
    ),
]


@pytest.mark.parametrize(("code", "changes"), BAD_LAUNCHES, ids=lambda value: str(value)[:70])
def test_a_bad_launch_is_refused_and_leaves_nothing(
    front: Any, clients: Any, refused: Any, code: str, changes: dict[str, Any]
) -> None:
    before = build.count_rows(front.cloud)
    client = clients("ec2", validate=False)
    parameters = {"ImageId": build.IMAGE_ID, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano", **changes}
    refused(code, client.run_instances, **{name: value for name, value in parameters.items() if value is not None})
    assert build.count_rows(front.cloud) == before


@pytest.mark.parametrize("text", ["%%%", "YWJj=", "YWJ", "ä", "YW Jj YQ"])
def test_user_data_that_is_not_base64_is_refused(front: Any, run: Any, ec2: Any, refused: Any, text: str) -> None:
    # botocore encodes user data by itself: tell it not to.
    def raw(params: dict[str, Any], **_: Any) -> None:
        params["body"]["UserData"] = text

    ec2.meta.events.register("before-call.ec2.RunInstances", raw)
    try:
        refused("InvalidUserData.Malformed", run, UserData="x")
    finally:
        ec2.meta.events.unregister("before-call.ec2.RunInstances", raw)


def test_user_data_of_16_kilobytes_is_kept_to_the_byte(front: Any, run: Any) -> None:
    data = bytes(range(256)) * 64
    id = launch(run, UserData=data)
    assert front.cloud.store.read(lambda tx: tx.instances.get(id)).user_data == data


def test_images_that_are_not_available_cannot_be_launched(front: Any, run: Any, refused: Any) -> None:
    store = front.cloud.store
    store.write(lambda tx: tx.images.update(build.IMAGE_ID, state=ImageState.PENDING))
    refused("InvalidAMIID.Unavailable", run)
    store.write(lambda tx: tx.images.update(build.IMAGE_ID, state=ImageState.AVAILABLE))
    store.write(lambda tx: tx.snapshots.update(build.SNAPSHOT_ID, state=SnapshotState.PENDING))
    refused("IncorrectState", run)


def test_another_account_s_image_needs_permission(front: Any, run: Any, refused: Any) -> None:
    store = front.cloud.store
    store.write(lambda tx: tx.images.insert(build.image(2, account_id="200000000002", allowed_account_ids=())))
    refused("InvalidAMIID.NotFound", run, ImageId=make.number("ami", 2))
    store.write(lambda tx: tx.images.update(make.number("ami", 2), public=True))
    launch(run, ImageId=make.number("ami", 2))
    mine = build.root_caller().account_id
    store.write(lambda tx: tx.images.update(make.number("ami", 2), public=False, allowed_account_ids=(mine,)))
    launch(run, ImageId=make.number("ami", 2))


def test_data_volumes_and_instance_store_at_launch(front: Any, ec2: Any, run: Any) -> None:
    id = launch(
        run,
        InstanceType="m5d.large",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8, "DeleteOnTermination": False}},
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 5, "VolumeType": "io1", "Iops": 200}},
            {"DeviceName": "/dev/sdg", "Ebs": {"SnapshotId": build.SNAPSHOT_ID}},
            {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"},
        ],
        TagSpecifications=[
            {"ResourceType": "volume", "Tags": [{"Key": "for", "Value": "test"}]},
            {"ResourceType": "network-interface", "Tags": [{"Key": "port", "Value": "1"}]},
        ],
    )
    instance = only(ec2, id)
    shown = {one["DeviceName"]: one["Ebs"] for one in instance["BlockDeviceMappings"]}
    assert list(shown) == ["/dev/sda1", "/dev/sdf", "/dev/sdg"]
    assert shown["/dev/sda1"]["DeleteOnTermination"] is False
    row = front.cloud.store.read(lambda tx: tx.instances.get(id))
    (disk,) = row.ephemeral_disks
    assert (disk.virtual_name, disk.device_name, disk.size_bytes) == (
        "ephemeral0",
        "/dev/sdc",
        instance_store_bytes(75),
    )
    volumes = {row.id: row for row in front.cloud.store.read(lambda tx: tx.volumes.where())}
    sizes = {name: volumes[one["VolumeId"]].size_gib for name, one in shown.items()}
    assert sizes == {"/dev/sda1": 8, "/dev/sdf": 5, "/dev/sdg": 2}
    assert volumes[shown["/dev/sdf"]["VolumeId"]].iops == 200
    tags = ec2.describe_tags()["Tags"]
    assert sorted((tag["ResourceType"], tag["Key"]) for tag in tags) == [
        ("network-interface", "port"),
        ("volume", "for"),
        ("volume", "for"),
        ("volume", "for"),
    ]


def test_a_type_without_instance_store_ignores_its_mapping(front: Any, run: Any) -> None:
    id = launch(run, BlockDeviceMappings=[{"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"}])
    assert front.cloud.store.read(lambda tx: tx.instances.get(id)).ephemeral_disks == ()


def test_metadata_options_and_protection_are_kept(front: Any, ec2: Any, run: Any) -> None:
    id = launch(
        run,
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 3, "InstanceMetadataTags": "enabled"},
        InstanceInitiatedShutdownBehavior="terminate",
        DisableApiStop=True,
        EbsOptimized=True,
    )
    instance = only(ec2, id)
    assert instance["MetadataOptions"] == {
        "State": "pending",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 3,
        "HttpEndpoint": "enabled",
        "HttpProtocolIpv6": "disabled",
        "InstanceMetadataTags": "enabled",
    }
    assert instance["EbsOptimized"] is True
    row = front.cloud.store.read(lambda tx: tx.instances.get(id))
    assert (row.shutdown_behavior, row.disable_api_stop) == ("terminate", True)


def test_an_image_that_wants_imdsv2_gets_it(front: Any, ec2: Any, run: Any) -> None:
    front.cloud.store.write(lambda tx: tx.images.update(build.IMAGE_ID, imds_support="v2.0"))
    options = only(ec2, launch(run))["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 2)


def test_tolerated_defaults_are_no_error(run: Any) -> None:
    launch(
        run,
        Placement={"Tenancy": "default"},
        HibernationOptions={"Configured": False},
        EnclaveOptions={"Enabled": False},
        CapacityReservationSpecification={"CapacityReservationPreference": "open"},
        MetadataOptions={"HttpProtocolIpv6": "disabled"},
        MaintenanceOptions={"AutoRecovery": "default"},
        Ipv6AddressCount=0,
    )


def test_run_without_a_type_means_ec2_s_default(ec2: Any, front: Any) -> None:
    answer = ec2.run_instances(ImageId=build.IMAGE_ID, MinCount=1, MaxCount=1)
    assert answer["Instances"][0]["InstanceType"] == "m1.small"


# The life of an instance


def test_stop_start_and_terminate_answer_both_states(front: Any, ec2: Any, run: Any) -> None:
    id = launch(run)
    build.settle(front.cloud)
    (change,) = ec2.stop_instances(InstanceIds=[id])["StoppingInstances"]
    assert change["PreviousState"] == {"Code": 16, "Name": "running"}
    assert change["CurrentState"] == {"Code": 64, "Name": "stopping"}
    instance = only(ec2, id)
    assert instance["State"]["Name"] == "stopping"
    assert instance["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert instance["StateTransitionReason"].startswith("User initiated (20")
    (change,) = ec2.stop_instances(InstanceIds=[id])["StoppingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopping", "stopping")
    build.settle(front.cloud)
    instance = only(ec2, id)
    assert instance["State"] == {"Code": 80, "Name": "stopped"}
    assert "PublicIpAddress" not in instance
    assert "Association" not in instance["NetworkInterfaces"][0]
    (change,) = ec2.stop_instances(InstanceIds=[id])["StoppingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "stopped")

    (change,) = ec2.start_instances(InstanceIds=[id])["StartingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    instance = only(ec2, id)
    assert instance["PublicIpAddress"] == "10.200.0.0"
    assert instance["StateTransitionReason"] == ""
    build.settle(front.cloud)
    (change,) = ec2.start_instances(InstanceIds=[id])["StartingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "running")

    (change,) = ec2.terminate_instances(InstanceIds=[id])["TerminatingInstances"]
    assert change["PreviousState"]["Name"] == "running"
    assert change["CurrentState"] == {"Code": 32, "Name": "shutting-down"}
    build.settle(front.cloud)
    instance = only(ec2, id)
    assert instance["State"] == {"Code": 48, "Name": "terminated"}
    assert instance["BlockDeviceMappings"] == []
    assert instance["NetworkInterfaces"] == []
    assert instance["PrivateDnsName"] == ""
    (change,) = ec2.terminate_instances(InstanceIds=[id])["TerminatingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("terminated", "terminated")


@pytest.mark.parametrize(
    ("call", "state", "intent", "word"),
    [
        ("stop_instances", InstanceState.PENDING, Intent.RUNNING, "stopped"),
        ("stop_instances", InstanceState.TERMINATED, Intent.TERMINATED, "stopped"),
        ("stop_instances", InstanceState.SHUTTING_DOWN, Intent.TERMINATED, "stopped"),
        ("start_instances", InstanceState.STOPPING, Intent.STOPPED, "started"),
        ("start_instances", InstanceState.SHUTTING_DOWN, Intent.TERMINATED, "started"),
        ("start_instances", InstanceState.TERMINATED, Intent.TERMINATED, "started"),
        ("reboot_instances", InstanceState.STOPPED, Intent.STOPPED, "rebooted"),
        ("reboot_instances", InstanceState.PENDING, Intent.RUNNING, "rebooted"),
        ("reboot_instances", InstanceState.TERMINATED, Intent.TERMINATED, "rebooted"),
    ],
)
def test_wrong_states_are_refused_for_all_or_none(
    front: Any, ec2: Any, run: Any, refused: Any, call: str, state: InstanceState, intent: Intent, word: str
) -> None:
    fine, wrong = launch(run), launch(run)
    build.settle(front.cloud)
    before = front.cloud.store.write(lambda tx: tx.instances.update(wrong, state=state, intent=intent))
    error = refused("IncorrectInstanceState", getattr(ec2, call), InstanceIds=[fine, wrong])
    sentence = f"The instance '{wrong}' is not in a state from which it can be {word}."
    assert error.response["Error"]["Message"] == sentence
    assert front.cloud.store.read(lambda tx: tx.instances.get(wrong)) == before
    untouched = front.cloud.store.read(lambda tx: tx.instances.get(fine))
    assert (untouched.intent, untouched.reboot_requested) == (Intent.RUNNING, 0)


@pytest.mark.parametrize(
    "call", ["stop_instances", "start_instances", "reboot_instances", "terminate_instances", "describe_instances"]
)
def test_ids_that_do_not_exist(ec2: Any, run: Any, refused: Any, call: str) -> None:
    id = launch(run)
    error = refused("InvalidInstanceID.NotFound", getattr(ec2, call), InstanceIds=[id, UNKNOWN])
    assert error.response["Error"]["Message"] == f"The instance ID '{UNKNOWN}' does not exist"
    for malformed in ("nonsense", "i-1", "i-0123456789ABCDEF0", "ami-0123456789abcdef0", "i-../../../etc"):
        refused("InvalidInstanceID.Malformed", getattr(ec2, call), InstanceIds=[malformed])


def test_force_and_reboot_are_written_for_the_controller(front: Any, ec2: Any, run: Any) -> None:
    id = launch(run)
    build.settle(front.cloud)
    store = front.cloud.store
    woken = store.read(lambda tx: tx.tasks.get(id)).wake_count
    ec2.reboot_instances(InstanceIds=[id])
    assert store.read(lambda tx: tx.instances.get(id)).reboot_requested == 1
    assert store.read(lambda tx: tx.tasks.get(id)).wake_count == woken + 1
    ec2.stop_instances(InstanceIds=[id])
    assert store.read(lambda tx: tx.instances.get(id)).stop_forced is False
    # A guest that will not end is forced by a second call.
    ec2.stop_instances(InstanceIds=[id], Force=True)
    assert store.read(lambda tx: tx.instances.get(id)).stop_forced is True
    build.settle(front.cloud)
    ec2.start_instances(InstanceIds=[id])
    assert store.read(lambda tx: tx.instances.get(id)).stop_forced is False


def test_hibernation_is_refused_clearly(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    id = launch(run)
    build.settle(front.cloud)
    refused("UnsupportedHibernationConfiguration", ec2.stop_instances, InstanceIds=[id], Hibernate=True)
    assert only(ec2, id)["State"]["Name"] == "running"


def test_protection_holds(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    id, other = launch(run, DisableApiTermination=True, DisableApiStop=True), launch(run)
    build.settle(front.cloud)
    error = refused("OperationNotPermitted", ec2.terminate_instances, InstanceIds=[other, id])
    assert "'disableApiTermination'" in error.response["Error"]["Message"]
    refused("OperationNotPermitted", ec2.stop_instances, InstanceIds=[other, id])
    assert only(ec2, other)["State"]["Name"] == "running"


def test_starting_needs_room_on_its_own_host(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    id = launch(run, Placement={"AvailabilityZone": "lab-1a"})
    build.settle(front.cloud)
    ec2.stop_instances(InstanceIds=[id])
    build.settle(front.cloud)
    run(MaxCount=16, MinCount=16, Placement={"AvailabilityZone": "lab-1a"})
    refused("InsufficientInstanceCapacity", ec2.start_instances, InstanceIds=[id])
    assert only(ec2, id)["State"]["Name"] == "stopped"


def test_a_pending_instance_can_be_terminated(front: Any, ec2: Any, run: Any) -> None:
    id = launch(run)
    (change,) = ec2.terminate_instances(InstanceIds=[id])["TerminatingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("pending", "shutting-down")


def test_another_account_s_instance_does_not_exist(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    id = launch(run)
    front.cloud.store.write(lambda tx: tx.instances.update(id, account_id="200000000002"))
    refused("InvalidInstanceID.NotFound", ec2.terminate_instances, InstanceIds=[id])
    refused("InvalidInstanceID.NotFound", ec2.get_console_output, InstanceId=id)
    assert ec2.describe_instances()["Reservations"] == []


def test_status_shows_running_ones_unless_asked(front: Any, ec2: Any, run: Any) -> None:
    id = launch(run)
    assert ec2.describe_instance_status()["InstanceStatuses"] == []
    (status,) = ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert status["InstanceStatus"]["Status"] == "not-applicable"
    build.settle(front.cloud)
    (status,) = ec2.describe_instance_status(InstanceIds=[id])["InstanceStatuses"]
    assert status["InstanceState"]["Name"] == "running"
    assert status["InstanceStatus"] == {
        "Status": "ok",
        "Details": [{"Name": "reachability", "Status": "passed"}],
    }
    assert status["SystemStatus"]["Status"] == "ok"
    front.cloud.store.write(lambda tx: tx.instances.update(id, impaired=True))
    (status,) = ec2.describe_instance_status()["InstanceStatuses"]
    assert status["InstanceStatus"]["Status"] == "impaired"


@pytest.mark.parametrize(
    ("waiter", "intent"),
    [
        ("instance_running", Intent.RUNNING),
        ("instance_status_ok", Intent.RUNNING),
        ("instance_exists", Intent.RUNNING),
        ("instance_stopped", Intent.STOPPED),
        ("instance_terminated", Intent.TERMINATED),
    ],
)
def test_boto3_s_waiters_end(front: Any, ec2: Any, run: Any, waiter: str, intent: Intent) -> None:
    id = launch(run)
    build.settle(front.cloud)
    if intent is Intent.STOPPED:
        ec2.stop_instances(InstanceIds=[id])
    if intent is Intent.TERMINATED:
        ec2.terminate_instances(InstanceIds=[id])
    build.settle(front.cloud)
    ec2.get_waiter(waiter).wait(InstanceIds=[id], WaiterConfig={"Delay": 0, "MaxAttempts": 2})


def test_console_output(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    id = launch(run)
    refused("Unavailable", ec2.get_console_output, InstanceId=id)
    front.consoles[id] = b"\x1b[0mlogin: \xff\r\n"
    answer = ec2.get_console_output(InstanceId=id, Latest=True)
    assert answer["InstanceId"] == id
    # botocore decodes the base64 and keeps what is UTF-8.
    assert answer["Output"].startswith("\x1b[0mlogin: ")
    assert answer["Timestamp"].tzinfo is not None
    front.consoles[id] = b""
    assert "Output" not in ec2.get_console_output(InstanceId=id)
    refused("InvalidInstanceID.NotFound", ec2.get_console_output, InstanceId=UNKNOWN)
    ec2.terminate_instances(InstanceIds=[id])
    build.settle(front.cloud)
    front.consoles.clear()
    assert "Output" not in ec2.get_console_output(InstanceId=id)


def test_an_unreachable_host_s_name_is_not_told(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    error = refused("Unavailable", ec2.get_console_output, InstanceId=launch(run))
    assert "host1" not in str(error)


def test_a_thousand_instances_are_described_in_one_answer(front: Any, ec2: Any, catalog: Any, server: Any) -> None:
    big = build.build_front(catalog, public_address_pools=("10.8.0.0/16",))
    for host in big.cloud.store.read(lambda tx: tx.hosts.where()):
        big.cloud.store.write(lambda tx, id=host.id: tx.hosts.update(id, vcpus=2000, memory_mib=2**22))
    for pool in big.cloud.store.read(lambda tx: tx.pools.where()):
        big.cloud.store.write(lambda tx, id=pool.id: tx.pools.update(id, capacity_bytes=2**50))
    server[0].app = build.endpoint_of(big)
    launched = ec2.run_instances(ImageId=build.IMAGE_ID, MinCount=1000, MaxCount=1000, InstanceType="t3.nano")
    assert len(launched["Instances"]) == 1000
    found = [one for page in ec2.get_paginator("describe_instances").paginate() for one in page["Reservations"]]
    assert len(found[0]["Instances"]) == 1000
    assert len({one["PrivateIpAddress"] for one in found[0]["Instances"]}) == 1000


def test_user_data_arrives_as_the_caller_meant_it(front: Any, run: Any) -> None:
    id = launch(run, UserData="#!/bin/sh\necho ä\n")
    row = front.cloud.store.read(lambda tx: tx.instances.get(id))
    assert row.user_data == "#!/bin/sh\necho ä\n".encode()
    assert base64.b64encode(row.user_data)
