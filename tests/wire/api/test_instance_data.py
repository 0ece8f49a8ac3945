"""What boto3 reads of one instance beside its description: credits, password, UEFI data, launch template data."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError
from support import front as build
from support import rows as make

from minicloud.model.resources import BlockDevice

Refused = Callable[..., ClientError]
Run = Callable[..., dict[str, Any]]


def launch(run: Run, **changes: Any) -> str:
    instance_id: str = run(**changes)["Instances"][0]["InstanceId"]
    return instance_id


def credits_of(reply: dict[str, Any]) -> dict[str, str]:
    return {one["InstanceId"]: one["CpuCredits"] for one in reply["InstanceCreditSpecifications"]}


def test_nothing_throttles_burstable_instances(ec2: Any, run: Run, refused: Refused) -> None:
    small, large = launch(run, InstanceType="t3.nano"), launch(run, InstanceType="m5.large")
    assert credits_of(ec2.describe_instance_credit_specifications()) == {small: "unlimited"}
    named = ec2.describe_instance_credit_specifications(InstanceIds=[small, large])
    assert credits_of(named) == {small: "unlimited", large: "standard"}
    refused(
        "InvalidInstanceID.NotFound",
        ec2.describe_instance_credit_specifications,
        InstanceIds=[small, make.number("i", 0xABC)],
    )


def test_a_launch_may_ask_for_what_burstable_instances_get_anyway(run: Run, refused: Refused) -> None:
    launch(run, CreditSpecification={"CpuCredits": "unlimited"})
    refused("UnsupportedOperation", run, CreditSpecification={"CpuCredits": "standard"})


def test_credit_specifications_are_filtered_and_paged(
    ec2: Any, run: Run, refused: Refused, clients: Callable[..., Any]
) -> None:
    ids = [one["InstanceId"] for one in run(MinCount=7, MaxCount=7)["Instances"]]
    launch(run, InstanceType="m5.large")
    call = ec2.describe_instance_credit_specifications
    assert set(credits_of(call(Filters=[{"Name": "instance-id", "Values": ids[2:4]}]))) == set(ids[2:4])
    pages = list(
        ec2.get_paginator("describe_instance_credit_specifications").paginate(PaginationConfig={"PageSize": 5})
    )
    assert [len(credits_of(page)) for page in pages] == [5, 2]
    assert {id for page in pages for id in credits_of(page)} == set(ids)
    unchecked = clients("ec2", validate=False).describe_instance_credit_specifications
    refused("InvalidParameterValue", unchecked, MaxResults=4)
    refused("InvalidParameterCombination", call, MaxResults=5, InstanceIds=ids)
    refused("InvalidParameterValue", call, Filters=[{"Name": "instance-type", "Values": ["t3.nano"]}])


def test_a_linux_instance_has_no_password(ec2: Any, run: Run) -> None:
    instance_id = launch(run)
    reply = ec2.get_password_data(InstanceId=instance_id)
    assert (reply["InstanceId"], reply["PasswordData"]) == (instance_id, "")
    assert reply["Timestamp"].tzinfo is not None


def test_there_is_no_uefi_data(ec2: Any, run: Run, refused: Refused) -> None:
    refused("UnsupportedOperation", ec2.get_instance_uefi_data, InstanceId=launch(run))
    # Terraform asks for that of images, too, and goes on.
    refused("InvalidInstanceID.Malformed", ec2.get_instance_uefi_data, InstanceId=build.IMAGE_ID)


# What two instances of one template cannot share.
OF_ITS_OWN = {
    "InstanceId",
    "PrivateIpAddress",
    "PrivateDnsName",
    "PublicIpAddress",
    "LaunchTime",
    "ClientToken",
    "UsageOperationUpdateTime",
    "NetworkInterfaces",
    "BlockDeviceMappings",
}


def test_launch_template_data_launches_another_like_it(front: build.Front, ec2: Any, run: Run) -> None:
    key = ec2.create_key_pair(KeyName="mine")
    (group,) = ec2.describe_security_groups()["SecurityGroups"]
    user_data = "#!/bin/sh\necho one\n"
    original = launch(
        run,
        InstanceType="m5d.large",
        KeyName=key["KeyName"],
        UserData=user_data,
        SecurityGroupIds=[group["GroupId"]],
        Placement={"AvailabilityZone": "lab-1b"},
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 5, "DeleteOnTermination": False}},
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 4, "VolumeType": "io2", "Iops": 200}},
            {"DeviceName": "/dev/sdz", "VirtualName": "ephemeral0"},
        ],
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "one"}]}],
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 3, "InstanceMetadataTags": "enabled"},
        InstanceInitiatedShutdownBehavior="terminate",
        DisableApiTermination=True,
        DisableApiStop=True,
        Monitoring={"Enabled": True},
        EbsOptimized=True,
    )
    build.settle(front.cloud)
    data = ec2.get_launch_template_data(InstanceId=original)["LaunchTemplateData"]
    assert data["UserData"] == base64.b64encode(user_data.encode()).decode()
    another = launch(run, **{**data, "UserData": user_data})
    build.settle(front.cloud)

    def shown(instance_id: str) -> dict[str, Any]:
        (one,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"]
        return {name: value for name, value in one.items() if name not in OF_ITS_OWN}

    def row(instance_id: str) -> Any:
        return front.cloud.store.read(lambda tx: tx.instances.get(instance_id))

    assert shown(another) == shown(original)
    for name in ("user_data", "ephemeral_disks", "disable_api_stop", "shutdown_behavior", "public_key"):
        assert getattr(row(another), name) == getattr(row(original), name), name
    again = ec2.get_launch_template_data(InstanceId=another)["LaunchTemplateData"]
    assert again == data


def test_launch_template_data_leaves_out_what_the_instance_left_out(front: build.Front, ec2: Any, run: Run) -> None:
    more = (*build.image().block_devices, BlockDevice("/dev/sdf", size_gib=1))
    front.cloud.store.write(lambda tx: tx.images.update(build.IMAGE_ID, block_devices=more))
    data = ec2.get_launch_template_data(
        InstanceId=launch(run, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "NoDevice": ""}])
    )["LaunchTemplateData"]
    (mapping,) = run(**data)["Instances"][0]["BlockDeviceMappings"]
    assert mapping["DeviceName"] == "/dev/sda1"
    # One that has the device, on the other hand, gives it on.
    data = ec2.get_launch_template_data(InstanceId=launch(run))["LaunchTemplateData"]
    assert len(run(**data)["Instances"][0]["BlockDeviceMappings"]) == 2


def test_launch_template_data_of_the_plainest_instance(front: build.Front, ec2: Any, run: Run) -> None:
    data = ec2.get_launch_template_data(InstanceId=launch(run))["LaunchTemplateData"]
    assert "UserData" not in data and "KeyName" not in data and "TagSpecifications" not in data
    launch(run, **data)


def test_launch_template_data_of_a_terminated_instance(front: build.Front, ec2: Any, run: Run) -> None:
    instance_id = launch(run)
    ec2.terminate_instances(InstanceIds=[instance_id])
    build.settle(front.cloud)
    data = ec2.get_launch_template_data(InstanceId=instance_id)["LaunchTemplateData"]
    assert data["InstanceType"] == "t3.nano"
    launch(run, **data)
