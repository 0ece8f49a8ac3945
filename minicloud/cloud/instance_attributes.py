"""Attributes of an instance, one at a time: described, modified, reset.

Owns EC2's rules of which attribute may change when (EC2 API reference, ModifyInstanceAttribute; EC2 user guide, "Modify
a stopped instance"). What a host makes of an attribute is read from the row when the instance starts next, or, for
what is the API's own (protection, shutdown behaviour, what becomes of a volume), at the moment it matters. It refuses
to move an instance: a type for which the instance's host has no room is found out by StartInstances, as on EC2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from minicloud.cloud.block_devices import choose_ephemeral
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.launch import MAX_USER_DATA_BYTES
from minicloud.cloud.lookups import INSTANCES, VOLUMES, check_ids, require, require_one
from minicloud.cloud.views import InstanceView, view_instances
from minicloud.errors import ApiError
from minicloud.model.resources import Attachment, Instance
from minicloud.model.states import AttachmentState, InstanceState
from minicloud.store.store import Tx

SHUTDOWN_BEHAVIORS = ("stop", "terminate")


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What should become of an attached volume when its instance ends. `volume_id` None: whichever is there."""

    device_name: str
    delete_on_termination: bool
    volume_id: str | None = None


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """The new value of one attribute; None means not given. Empty user data removes what there is."""

    instance_type: str | None = None
    user_data: bytes | None = None
    disable_api_termination: bool | None = None
    disable_api_stop: bool | None = None
    shutdown_behavior: str | None = None
    ebs_optimized: bool | None = None
    source_dest_check: bool | None = None
    block_devices: tuple[DeviceChange, ...] | None = None


_EC2_NAMES = {
    "instance_type": "instanceType",
    "user_data": "userData",
    "disable_api_termination": "disableApiTermination",
    "disable_api_stop": "disableApiStop",
    "shutdown_behavior": "instanceInitiatedShutdownBehavior",
    "ebs_optimized": "ebsOptimized",
    "source_dest_check": "sourceDestCheck",
    "block_devices": "blockDeviceMapping",
}


def describe_attributes(cloud: Cloud, caller: Caller, instance_id: str) -> InstanceView:
    """Return an instance with all that its attributes are made of. Raises InvalidInstanceID.*."""

    def look(tx: Tx) -> InstanceView:
        return view_instances(cloud, tx, [require_one(tx, caller, INSTANCES, instance_id)])[0]

    return cloud.store.read(look)


def modify_attribute(cloud: Cloud, caller: Caller, instance_id: str, change: AttributeChange) -> None:
    """Change exactly one attribute.

    Raises InvalidInstanceID.*, InvalidParameterCombination (none, or several), IncorrectInstanceState,
    InvalidInstanceAttributeValue, InvalidParameterValue, UnsupportedOperation.
    """
    given = [field.name for field in fields(change) if getattr(change, field.name) is not None]
    if not given:
        raise ApiError("InvalidParameterCombination", "No attributes specified.")
    if len(given) > 1:
        names = ", ".join(_EC2_NAMES[name] for name in given)
        raise ApiError("InvalidParameterCombination", f"Fields for multiple attribute types specified: {names}")
    apply = _RULES[given[0]]

    def decide(tx: Tx) -> None:
        row = require_one(tx, caller, INSTANCES, instance_id)
        if row.shown_state in (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED):
            raise ApiError(
                "IncorrectInstanceState", f"The instance '{row.id}' is not in a state from which it can be modified."
            )
        changes = apply(cloud, tx, row, getattr(change, given[0]))
        if changes:
            tx.instances.update(row.id, **changes)

    cloud.store.write(decide)


def reset_source_dest_check(cloud: Cloud, caller: Caller, instance_id: str) -> None:
    """Check the source and destination of an instance's packets, which is always done. Raises InvalidInstanceID.*."""
    cloud.store.read(lambda tx: require_one(tx, caller, INSTANCES, instance_id))


def set_monitoring(cloud: Cloud, caller: Caller, ids: Iterable[str], enabled: bool) -> list[Instance]:
    """Switch detailed monitoring of instances on or off, of all or of none. Raises IncorrectInstanceState."""
    wanted = list(ids)

    def decide(tx: Tx) -> list[Instance]:
        rows = require(tx, caller, INSTANCES, wanted)
        for row in rows:
            if row.shown_state in (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED):
                raise ApiError(
                    "IncorrectInstanceState",
                    f"The instance '{row.id}' is not in a state from which it can be monitored.",
                )
        return [tx.instances.update(row.id, monitoring=enabled) for row in rows]

    return cloud.store.write(decide)


# One function per attribute: what its new value changes of the row. Raises ApiError for a value that cannot be.


def _require_stopped(row: Instance) -> None:
    if row.shown_state is not InstanceState.STOPPED:
        raise ApiError("IncorrectInstanceState", f"The instance '{row.id}' is not in the 'stopped' state.")


def _instance_type(cloud: Cloud, tx: Tx, row: Instance, value: str) -> dict[str, object]:
    """Every type has its own instance store: a stopped instance holds none, so the rows may say another."""
    type_ = cloud.types.get(value)
    if type_ is None:
        # Source of the code: EC2 API reference, ModifyInstanceAttribute, InstanceType.
        raise ApiError("InvalidInstanceAttributeValue", f"Invalid value '{value[:100]}' for InstanceType.")
    _require_stopped(row)
    return {
        "instance_type": type_.name,
        "vcpus": type_.vcpus,
        "memory_mib": type_.memory_mib,
        "ephemeral_disks": choose_ephemeral(row.ephemeral_disks, _attachments(tx, row), type_),
    }


def _user_data(_cloud: Cloud, _tx: Tx, row: Instance, value: bytes) -> dict[str, object]:
    if len(value) > MAX_USER_DATA_BYTES:
        raise ApiError("InvalidParameterValue", f"User data is limited to {MAX_USER_DATA_BYTES} bytes")
    _require_stopped(row)
    return {"user_data": value or None}


def _shutdown_behavior(_cloud: Cloud, _tx: Tx, _row: Instance, value: str) -> dict[str, object]:
    if value not in SHUTDOWN_BEHAVIORS:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({value[:100]}) for parameter instanceInitiatedShutdownBehavior is invalid. Expecting stop or "
            "terminate.",
        )
    return {"shutdown_behavior": value}


def _ebs_optimized(_cloud: Cloud, _tx: Tx, row: Instance, value: bool) -> dict[str, object]:
    _require_stopped(row)
    return {"ebs_optimized": value}


def _source_dest_check(_cloud: Cloud, _tx: Tx, _row: Instance, value: bool) -> dict[str, object]:
    if not value:
        raise ApiError(
            "UnsupportedOperation",
            "The source/destination check cannot be disabled: packets with a foreign source are always dropped.",
        )
    return {}


def _block_devices(_cloud: Cloud, tx: Tx, row: Instance, value: Collection[DeviceChange]) -> dict[str, object]:
    attached = {one.device_name: one for one in _attachments(tx, row)}
    check_ids(VOLUMES, [one.volume_id for one in value if one.volume_id is not None])
    for change in value:
        one = attached.get(change.device_name)
        if one is None or change.volume_id not in (None, one.volume_id):
            what = "No device is" if one is None else f"Another volume than '{str(change.volume_id)[:100]}' is"
            raise ApiError("InvalidInstanceAttributeValue", f"{what} currently mapped at {change.device_name[:100]}")
        tx.attachments.update(one.id, delete_on_termination=change.delete_on_termination)
    return {}


def _flag(name: str) -> Callable[[Cloud, Tx, Instance, Any], dict[str, object]]:
    return lambda _cloud, _tx, _row, value: {name: value}


_RULES: Mapping[str, Callable[[Cloud, Tx, Instance, Any], dict[str, object]]] = {
    "instance_type": _instance_type,
    "user_data": _user_data,
    "disable_api_termination": _flag("disable_api_termination"),
    "disable_api_stop": _flag("disable_api_stop"),
    "shutdown_behavior": _shutdown_behavior,
    "ebs_optimized": _ebs_optimized,
    "source_dest_check": _source_dest_check,
    "block_devices": _block_devices,
}


def _attachments(tx: Tx, row: Instance) -> list[Attachment]:
    return [one for one in tx.attachments.where(instance_id=row.id) if one.state is not AttachmentState.DETACHED]
