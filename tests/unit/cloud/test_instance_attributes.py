"""Modifying an instance's attributes: when each may change, what it changes of the rows, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.bare_cloud import OTHER, ROOT, UNKNOWN, BareCloud

from minicloud.cloud import instance_attributes, instances
from minicloud.cloud.block_devices import DeviceRequest
from minicloud.cloud.instance_attributes import AttributeChange, DeviceChange
from minicloud.cloud.instance_types import instance_store_bytes
from minicloud.errors import ApiError
from minicloud.model.resources import EphemeralDisk, Instance, InstanceType
from minicloud.model.states import InstanceState, Intent

PENDING, RUNNING, STOPPING = InstanceState.PENDING, InstanceState.RUNNING, InstanceState.STOPPING
STOPPED, SHUTTING_DOWN, TERMINATED = InstanceState.STOPPED, InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED

# A value for each attribute that differs from what a launch gives.
NEW: dict[str, Any] = {
    "instance_type": "t3.small",
    "user_data": b"new",
    "disable_api_termination": True,
    "disable_api_stop": True,
    "shutdown_behavior": "terminate",
    "ebs_optimized": True,
    "block_devices": (DeviceChange("/dev/xvda", False),),
}
NEED_A_STOP = ("instance_type", "user_data", "ebs_optimized")


def modify(bare: BareCloud, instance_id: str, **change: Any) -> Instance:
    instance_attributes.modify_attribute(bare.cloud, ROOT, instance_id, AttributeChange(**change))
    return bare.instance(instance_id)


def flags(bare: BareCloud, instance_id: str) -> dict[str, bool]:
    rows = bare.store.read(lambda tx: tx.attachments.where(instance_id=instance_id))
    return {row.device_name: row.delete_on_termination for row in rows}


@pytest.mark.parametrize("name", NEW)
def test_a_stopped_instance_takes_every_change(bare: BareCloud, name: str) -> None:
    before = bare.run_in(STOPPED)
    with bare.one_transaction():
        instance_attributes.modify_attribute(bare.cloud, ROOT, before.id, AttributeChange(**{name: NEW[name]}))
    if name == "block_devices":
        assert flags(bare, before.id) == {"/dev/xvda": False}
    else:
        assert getattr(bare.instance(before.id), name) == NEW[name]


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("state", [PENDING, RUNNING, STOPPING, SHUTTING_DOWN, TERMINATED])
def test_what_may_change_in_which_state(bare: BareCloud, state: InstanceState, name: str) -> None:
    instance_id = bare.run_in(state).id
    if name in NEED_A_STOP or state in (SHUTTING_DOWN, TERMINATED):
        with bare.refuses("IncorrectInstanceState"):
            modify(bare, instance_id, **{name: NEW[name]})
    else:
        modify(bare, instance_id, **{name: NEW[name]})


def test_an_instance_that_starts_again_is_not_stopped(bare: BareCloud) -> None:
    instance_id = bare.run_in(STOPPED).id
    instances.start(bare.cloud, ROOT, [instance_id])
    with bare.refuses("IncorrectInstanceState"):
        modify(bare, instance_id, instance_type="t3.small")


def test_what_is_asked_must_be_one_thing(bare: BareCloud) -> None:
    instance_id = bare.run_in(STOPPED).id
    with bare.refuses("InvalidParameterCombination", "No attributes specified"):
        modify(bare, instance_id)
    with bare.refuses("InvalidParameterCombination", "disableApiTermination, disableApiStop"):
        modify(bare, instance_id, disable_api_termination=True, disable_api_stop=False)
    with bare.refuses("InvalidInstanceID.NotFound"):
        modify(bare, f"i-{UNKNOWN}", disable_api_stop=True)
    with bare.refuses("InvalidInstanceID.NotFound"):
        instance_attributes.modify_attribute(bare.cloud, OTHER, instance_id, AttributeChange(disable_api_stop=True))


# The type


def test_a_type_brings_its_size(bare: BareCloud) -> None:
    row = modify(bare, bare.run_in(STOPPED).id, instance_type="c5.xlarge")
    assert (row.instance_type, row.vcpus, row.memory_mib, row.ephemeral_disks) == ("c5.xlarge", 4, 8192, ())


def test_an_unknown_type(bare: BareCloud) -> None:
    instance_id = bare.run_in(STOPPED).id
    with bare.refuses("InvalidInstanceAttributeValue", "t3.imaginary"):
        modify(bare, instance_id, instance_type="t3.imaginary")


def test_a_type_too_large_for_the_host_is_found_out_by_the_start(bare: BareCloud) -> None:
    instance_id = bare.run_in(STOPPED).id
    modify(bare, instance_id, instance_type="m5d.2xlarge")
    with bare.refuses("InsufficientInstanceCapacity", "m5d.2xlarge", status=500):
        instances.start(bare.cloud, ROOT, [instance_id])
    modify(bare, instance_id, instance_type="t3.nano")
    instances.start(bare.cloud, ROOT, [instance_id])


def test_a_resized_instance_needs_the_room_of_its_new_type(build: Any) -> None:
    """The host has 8 vCPUs; two instances of 4 fill it, whatever they were when they stopped."""
    bare: BareCloud = build(vcpu_overcommit_ratio=1.0)
    first = bare.run_in(STOPPED, zone="lab-1a").id
    second = bare.run_in(RUNNING, instance_type="c5.xlarge", zone="lab-1a").id
    third = bare.run_in(RUNNING, instance_type="c5.large", zone="lab-1a").id
    modify(bare, first, instance_type="c5.xlarge")
    with pytest.raises(ApiError) as caught:
        instances.start(bare.cloud, ROOT, [first])
    assert caught.value.code == "InsufficientInstanceCapacity"
    instances.terminate(bare.cloud, ROOT, [third])
    bare.rest(third, TERMINATED)
    instances.start(bare.cloud, ROOT, [first])
    assert {bare.instance(one).shown_state for one in (first, second)} == {PENDING, RUNNING}


@pytest.fixture
def stores(bare: BareCloud) -> BareCloud:
    """A cloud whose operator has a type with two instance-store disks of 300 GB."""
    own = InstanceType("own.stores", vcpus=2, memory_mib=1024, instance_store_gb=(300, 300))
    bare.cloud = replace(bare.cloud, types={**bare.cloud.types, own.name: own})
    return bare


def disk(number: int, device_name: str, size_gb: int, pci_slot: int) -> EphemeralDisk:
    return EphemeralDisk(f"ephemeral{number}", device_name, instance_store_bytes(size_gb), pci_slot)


def test_a_type_brings_its_instance_store_beside_the_volumes(stores: BareCloud) -> None:
    instance_id = stores.run_in(
        STOPPED, block_devices=(DeviceRequest("/dev/sdb", size_gib=1), DeviceRequest("/dev/sdd", size_gib=1))
    ).id
    row = modify(stores, instance_id, instance_type="own.stores")
    assert row.ephemeral_disks == (disk(0, "/dev/sdc", 300, 4), disk(1, "/dev/sde", 300, 5))


def test_a_disk_of_both_types_keeps_its_name_and_its_slot(stores: BareCloud) -> None:
    instance_id = stores.run_in(
        STOPPED,
        instance_type="own.stores",
        block_devices=(
            DeviceRequest("/dev/sdh", virtual_name="ephemeral0"),
            DeviceRequest("/dev/sdi", size_gib=1),
            DeviceRequest("/dev/sdj", virtual_name="ephemeral1"),
        ),
    ).id
    assert stores.instance(instance_id).ephemeral_disks == (disk(0, "/dev/sdh", 300, 2), disk(1, "/dev/sdj", 300, 4))
    row = modify(stores, instance_id, instance_type="c5d.large")
    assert row.ephemeral_disks == (disk(0, "/dev/sdh", 50, 2),)
    # The name and the slot of the other have gone with it.
    row = modify(stores, instance_id, instance_type="own.stores")
    assert row.ephemeral_disks == (disk(0, "/dev/sdh", 300, 2), disk(1, "/dev/sdb", 300, 4))
    assert modify(stores, instance_id, instance_type="t3.nano").ephemeral_disks == ()


# The others


def test_user_data_has_its_limit_and_can_go(bare: BareCloud) -> None:
    instance_id = bare.run_in(STOPPED, user_data=b"old").id
    with bare.refuses("InvalidParameterValue", "16384 bytes"):
        modify(bare, instance_id, user_data=b"x" * (16 * 1024 + 1))
    assert modify(bare, instance_id, user_data=b"x" * 16 * 1024).user_data == b"x" * 16 * 1024
    assert modify(bare, instance_id, user_data=b"").user_data is None


def test_the_source_is_always_checked(bare: BareCloud) -> None:
    instance_id = bare.run_in(RUNNING).id
    with bare.unchanged():
        modify(bare, instance_id, source_dest_check=True)
        instance_attributes.reset_source_dest_check(bare.cloud, ROOT, instance_id)
    with bare.refuses("UnsupportedOperation"):
        modify(bare, instance_id, source_dest_check=False)
    with bare.refuses("InvalidInstanceID.NotFound"):
        instance_attributes.reset_source_dest_check(bare.cloud, ROOT, f"i-{UNKNOWN}")


def test_a_shutdown_behaviour_is_one_of_two(bare: BareCloud) -> None:
    instance_id = bare.run_in(RUNNING).id
    with bare.refuses("InvalidParameterValue", "hibernate"):
        modify(bare, instance_id, shutdown_behavior="hibernate")


def test_devices_change_all_or_none(bare: BareCloud) -> None:
    instance_id = bare.run_in(RUNNING, block_devices=(DeviceRequest("/dev/sdf", size_gib=1),)).id
    (volume_id,) = (
        row.volume_id
        for row in bare.store.read(lambda tx: tx.attachments.where(instance_id=instance_id))
        if row.device_name == "/dev/sdf"
    )
    modify(bare, instance_id, block_devices=(DeviceChange("/dev/sdf", False, volume_id),))
    assert flags(bare, instance_id) == {"/dev/xvda": True, "/dev/sdf": False}
    with bare.refuses("InvalidInstanceAttributeValue", "No device is currently mapped at /dev/sdg"):
        modify(bare, instance_id, block_devices=(DeviceChange("/dev/xvda", False), DeviceChange("/dev/sdg", False)))
    with bare.refuses("InvalidInstanceAttributeValue", "Another volume"):
        modify(bare, instance_id, block_devices=(DeviceChange("/dev/xvda", False, volume_id),))


def test_protection_protects(bare: BareCloud) -> None:
    instance_id = bare.run_in(RUNNING).id
    modify(bare, instance_id, disable_api_stop=True)
    with bare.refuses("OperationNotPermitted", "disableApiStop"):
        instances.stop(bare.cloud, ROOT, [instance_id], force=True, hibernate=False)
    modify(bare, instance_id, disable_api_stop=False)
    instances.stop(bare.cloud, ROOT, [instance_id], force=False, hibernate=False)
    assert bare.instance(instance_id).intent is Intent.STOPPED


def test_monitoring_is_switched_for_all_or_none(bare: BareCloud) -> None:
    runs, ended = bare.run_in(RUNNING).id, bare.run_in(TERMINATED).id
    with bare.refuses("IncorrectInstanceState"):
        instance_attributes.set_monitoring(bare.cloud, ROOT, [runs, ended], True)
    assert [row.monitoring for row in instance_attributes.set_monitoring(bare.cloud, ROOT, [runs], True)] == [True]
    assert bare.instance(runs).monitoring
