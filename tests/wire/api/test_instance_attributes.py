"""Attributes of instances through boto3: every one described, those that may change changed, the others refused."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support import front as build
from support import rows as make

Refused = Callable[..., ClientError]
Run = Callable[..., dict[str, Any]]

ALL = {
    "instanceType": {"InstanceType": {"Value": "m5d.large"}},
    "kernel": {"KernelId": {}},
    "ramdisk": {"RamdiskId": {}},
    "userData": {"UserData": {"Value": base64.b64encode(b"#!/bin/sh\n").decode()}},
    "disableApiTermination": {"DisableApiTermination": {"Value": True}},
    "disableApiStop": {"DisableApiStop": {"Value": False}},
    "instanceInitiatedShutdownBehavior": {"InstanceInitiatedShutdownBehavior": {"Value": "terminate"}},
    "rootDeviceName": {"RootDeviceName": {"Value": "/dev/sda1"}},
    "productCodes": {"ProductCodes": []},
    "sourceDestCheck": {"SourceDestCheck": {"Value": True}},
    "ebsOptimized": {"EbsOptimized": {"Value": True}},
    "sriovNetSupport": {"SriovNetSupport": {}},
    "enaSupport": {"EnaSupport": {"Value": True}},
    "enclaveOptions": {"EnclaveOptions": {"Enabled": False}},
}


def attribute(ec2: Any, instance_id: str, name: str) -> dict[str, Any]:
    found = dict(ec2.describe_instance_attribute(InstanceId=instance_id, Attribute=name))
    del found["ResponseMetadata"]
    assert found.pop("InstanceId") == instance_id
    return found


@pytest.fixture
def stopped(front: build.Front, ec2: Any, run: Run) -> str:
    instance_id: str = run()["Instances"][0]["InstanceId"]
    build.settle(front.cloud)
    ec2.stop_instances(InstanceIds=[instance_id])
    build.settle(front.cloud)
    return instance_id


@pytest.fixture
def running(front: build.Front, run: Run) -> str:
    instance_id: str = run()["Instances"][0]["InstanceId"]
    build.settle(front.cloud)
    return instance_id


def test_every_attribute_is_described(front: build.Front, ec2: Any, run: Run) -> None:
    launched = run(
        InstanceType="m5d.large",
        UserData="#!/bin/sh\n",
        DisableApiTermination=True,
        InstanceInitiatedShutdownBehavior="terminate",
        EbsOptimized=True,
    )["Instances"][0]
    instance_id = launched["InstanceId"]
    for name, wanted in ALL.items():
        assert attribute(ec2, instance_id, name) == wanted, name
    described = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert attribute(ec2, instance_id, "blockDeviceMapping") == {
        "BlockDeviceMappings": described["BlockDeviceMappings"]
    }
    assert attribute(ec2, instance_id, "groupSet") == {"Groups": described["SecurityGroups"]}
    names = set(ec2.meta.service_model.shape_for("InstanceAttributeName").enum)
    assert names == {*ALL, "blockDeviceMapping", "groupSet"}


def test_an_instance_without_user_data_has_an_empty_attribute(ec2: Any, running: str) -> None:
    assert attribute(ec2, running, "userData") == {"UserData": {}}


def test_unknown_instances_have_no_attributes(ec2: Any, refused: Refused) -> None:
    unknown = make.number("i", 0xABC)
    for call, more in (
        (ec2.describe_instance_attribute, {"Attribute": "userData"}),
        (ec2.modify_instance_attribute, {"DisableApiStop": {"Value": True}}),
        (ec2.reset_instance_attribute, {"Attribute": "sourceDestCheck"}),
        (ec2.modify_instance_metadata_options, {"HttpTokens": "required"}),
        (ec2.get_password_data, {}),
        (ec2.get_instance_uefi_data, {}),
        (ec2.get_launch_template_data, {}),
    ):
        refused("InvalidInstanceID.NotFound", call, InstanceId=unknown, **more)
        refused("InvalidInstanceID.Malformed", call, InstanceId="ami-12345678", **more)
        refused("InvalidInstanceID.NotFound", call, InstanceId=unknown, **more)


STRUCTURES: list[tuple[dict[str, Any], str]] = [
    ({"InstanceType": {"Value": "t3.small"}}, "instanceType"),
    ({"DisableApiTermination": {"Value": True}}, "disableApiTermination"),
    ({"DisableApiStop": {"Value": True}}, "disableApiStop"),
    ({"InstanceInitiatedShutdownBehavior": {"Value": "terminate"}}, "instanceInitiatedShutdownBehavior"),
    ({"EbsOptimized": {"Value": True}}, "ebsOptimized"),
    ({"SourceDestCheck": {"Value": True}}, "sourceDestCheck"),
]


@pytest.mark.parametrize(("given", "name"), STRUCTURES)
def test_attributes_change_by_a_structure(ec2: Any, stopped: str, given: dict[str, Any], name: str) -> None:
    ec2.modify_instance_attribute(InstanceId=stopped, **given)
    assert attribute(ec2, stopped, name) == given


@pytest.mark.parametrize(("given", "name"), STRUCTURES)
def test_attributes_change_by_attribute_and_value(ec2: Any, stopped: str, given: dict[str, Any], name: str) -> None:
    ((_, structure),) = given.items()
    value = structure["Value"]
    text = str(value).lower() if isinstance(value, bool) else value
    ec2.modify_instance_attribute(InstanceId=stopped, Attribute=name, Value=text)
    assert attribute(ec2, stopped, name) == given


def test_user_data_changes_in_both_forms_and_goes(ec2: Any, stopped: str, refused: Refused) -> None:
    ec2.modify_instance_attribute(InstanceId=stopped, UserData={"Value": b"first"})
    assert attribute(ec2, stopped, "userData")["UserData"]["Value"] == base64.b64encode(b"first").decode()
    second = base64.b64encode(b"second").decode()
    ec2.modify_instance_attribute(InstanceId=stopped, Attribute="userData", Value=second)
    assert attribute(ec2, stopped, "userData")["UserData"]["Value"] == second
    refused(
        "InvalidUserData.Malformed",
        ec2.modify_instance_attribute,
        InstanceId=stopped,
        Attribute="userData",
        Value="no base64!",
    )
    refused(
        "InvalidParameterValue",
        ec2.modify_instance_attribute,
        InstanceId=stopped,
        UserData={"Value": b"x" * (16 * 1024 + 1)},
    )
    assert attribute(ec2, stopped, "userData")["UserData"]["Value"] == second
    ec2.modify_instance_attribute(InstanceId=stopped, UserData={"Value": b""})
    assert attribute(ec2, stopped, "userData") == {"UserData": {}}


def test_a_resized_instance_shows_its_type(ec2: Any, stopped: str) -> None:
    ec2.modify_instance_attribute(InstanceId=stopped, InstanceType={"Value": "c5.xlarge"})
    (one,) = ec2.describe_instances(InstanceIds=[stopped])["Reservations"][0]["Instances"]
    assert one["InstanceType"] == "c5.xlarge"
    assert one["CpuOptions"] == {"CoreCount": 2, "ThreadsPerCore": 2}


@pytest.mark.parametrize("form", ["structure", "value"])
@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"InstanceType": {"Value": "t3.small"}}, "instanceType"),
        ({"UserData": {"Value": b"new"}}, "userData"),
        ({"EbsOptimized": {"Value": True}}, "ebsOptimized"),
    ],
)
def test_what_needs_a_stopped_instance(
    ec2: Any, running: str, refused: Refused, given: dict[str, Any], name: str, form: str
) -> None:
    if form == "value":
        given = {"Attribute": name, "Value": {"userData": "bmV3", "ebsOptimized": "true"}.get(name, "t3.small")}
    error = refused("IncorrectInstanceState", ec2.modify_instance_attribute, InstanceId=running, **given)
    assert "is not in the 'stopped' state" in str(error)


def test_protection_and_shutdown_behaviour_change_while_it_runs(ec2: Any, running: str, refused: Refused) -> None:
    ec2.modify_instance_attribute(InstanceId=running, DisableApiStop={"Value": True})
    refused("OperationNotPermitted", ec2.stop_instances, InstanceIds=[running])
    refused("OperationNotPermitted", ec2.terminate_instances, InstanceIds=[running])
    ec2.modify_instance_attribute(InstanceId=running, DisableApiStop={"Value": False})
    ec2.modify_instance_attribute(InstanceId=running, DisableApiTermination={"Value": True})
    refused("OperationNotPermitted", ec2.terminate_instances, InstanceIds=[running])
    ec2.modify_instance_attribute(InstanceId=running, Attribute="disableApiTermination", Value="false")
    ec2.terminate_instances(InstanceIds=[running])
    refused(
        "IncorrectInstanceState",
        ec2.modify_instance_attribute,
        InstanceId=running,
        DisableApiTermination={"Value": True},
    )


def test_volumes_are_kept_or_not_by_device_name(front: build.Front, ec2: Any, run: Run, refused: Refused) -> None:
    (launched,) = run(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}])["Instances"]
    instance_id = launched["InstanceId"]
    build.settle(front.cloud)

    def flags() -> dict[str, bool]:
        mappings = attribute(ec2, instance_id, "blockDeviceMapping")["BlockDeviceMappings"]
        return {one["DeviceName"]: one["Ebs"]["DeleteOnTermination"] for one in mappings}

    def change(*mappings: dict[str, Any]) -> None:
        ec2.modify_instance_attribute(InstanceId=instance_id, BlockDeviceMappings=list(mappings))

    assert flags() == {"/dev/sda1": True, "/dev/sdf": True}
    change({"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": False}})
    assert flags() == {"/dev/sda1": False, "/dev/sdf": True}
    # Two at once, and the documented default.
    change({"DeviceName": "/dev/sda1"}, {"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": False}})
    assert flags() == {"/dev/sda1": True, "/dev/sdf": False}
    refused(
        "InvalidInstanceAttributeValue",
        change,
        {"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": False}},
        {"DeviceName": "/dev/sdg", "Ebs": {"DeleteOnTermination": False}},
    )
    volume = {"VolumeId": make.number("vol", 0xABC), "DeleteOnTermination": False}
    refused("InvalidInstanceAttributeValue", change, {"DeviceName": "/dev/sda1", "Ebs": volume})
    refused("MissingParameter", change, {"Ebs": {"DeleteOnTermination": False}})
    refused("UnsupportedOperation", change, {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"})
    assert flags() == {"/dev/sda1": True, "/dev/sdf": False}


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("InvalidParameterCombination", {}),
        (
            "InvalidParameterCombination",
            {"DisableApiStop": {"Value": True}, "DisableApiTermination": {"Value": True}},
        ),
        (
            "InvalidParameterCombination",
            {"Attribute": "disableApiStop", "Value": "true", "DisableApiTermination": {"Value": True}},
        ),
        ("MissingParameter", {"Attribute": "disableApiStop"}),
        ("MissingParameter", {"Attribute": "disableApiStop", "DisableApiTermination": {"Value": True}}),
        ("MissingParameter", {"Value": "true"}),
        ("InvalidParameterCombination", {"Attribute": "blockDeviceMapping", "Value": "/dev/sda1=:true"}),
        ("InvalidParameterValue", {"Attribute": "disableApiStop", "Value": "perhaps"}),
        ("InvalidParameterValue", {"InstanceInitiatedShutdownBehavior": {"Value": "hibernate"}}),
        ("InvalidInstanceAttributeValue", {"InstanceType": {"Value": "t3.imaginary"}}),
        ("UnsupportedOperation", {"SourceDestCheck": {"Value": False}}),
        ("UnsupportedOperation", {"Groups": [make.number("sg", 1)]}),
        ("UnsupportedOperation", {"Attribute": "groupSet", "Value": make.number("sg", 1)}),
        ("UnsupportedOperation", {"Attribute": "kernel", "Value": "aki-12345678"}),
        ("UnsupportedOperation", {"Kernel": {"Value": "aki-12345678"}}),
        ("UnsupportedOperation", {"EnaSupport": {"Value": True}}),
        ("UnsupportedOperation", {"EnclaveOptions": {"Enabled": True}}),
    ],
)
def test_what_cannot_be_changed(
    front: build.Front, ec2: Any, stopped: str, refused: Refused, code: str, given: dict[str, Any]
) -> None:
    before = front.cloud.store.read(lambda tx: tx.instances.get(stopped))
    refused(code, ec2.modify_instance_attribute, InstanceId=stopped, **given)
    assert front.cloud.store.read(lambda tx: tx.instances.get(stopped)) == before


def test_attribute_may_name_the_structure_beside_it(ec2: Any, stopped: str) -> None:
    mapping = [{"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": False}}]
    ec2.modify_instance_attribute(InstanceId=stopped, Attribute="blockDeviceMapping", BlockDeviceMappings=mapping)
    (found,) = attribute(ec2, stopped, "blockDeviceMapping")["BlockDeviceMappings"]
    assert found["Ebs"]["DeleteOnTermination"] is False


def test_reset(ec2: Any, running: str, refused: Refused) -> None:
    ec2.reset_instance_attribute(InstanceId=running, Attribute="sourceDestCheck")
    for name in ("kernel", "ramdisk"):
        refused("UnsupportedOperation", ec2.reset_instance_attribute, InstanceId=running, Attribute=name)
    refused("InvalidParameterValue", ec2.reset_instance_attribute, InstanceId=running, Attribute="userData")


def test_detailed_monitoring_is_switched(front: build.Front, ec2: Any, run: Run, refused: Refused) -> None:
    ids = [one["InstanceId"] for one in run(MinCount=2, MaxCount=2)["Instances"]]

    def shown() -> list[str]:
        found = ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"]
        return [one["Monitoring"]["State"] for one in found]

    reply = ec2.monitor_instances(InstanceIds=ids)["InstanceMonitorings"]
    assert reply == [{"InstanceId": one, "Monitoring": {"State": "enabled"}} for one in ids]
    assert shown() == ["enabled", "enabled"]
    reply = ec2.unmonitor_instances(InstanceIds=ids[:1])["InstanceMonitorings"]
    assert reply == [{"InstanceId": ids[0], "Monitoring": {"State": "disabled"}}]
    assert shown() == ["disabled", "enabled"]
    ec2.terminate_instances(InstanceIds=ids[:1])
    refused("IncorrectInstanceState", ec2.monitor_instances, InstanceIds=ids)
    assert shown() == ["disabled", "enabled"]
