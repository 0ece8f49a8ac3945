"""Starting, stopping, rebooting and terminating: the owner's intent, written; the controller makes it so.

Each call decides about all its instances or about none. Answers carry the state before and the state that the owner
sees from now on. Source of states and refusals: EC2 user guide, "Instance lifecycle"; EC2 API reference, "Error codes".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from minicloud.clock import to_datetime
from minicloud.cloud.addresses import allocate_public_ips
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.launch import RunRequest, run
from minicloud.cloud.lookups import INSTANCES, require
from minicloud.cloud.placement import Demand, host_usages, insufficient_capacity
from minicloud.errors import ApiError
from minicloud.model.resources import Instance, StateReason
from minicloud.model.states import InstanceState, Intent
from minicloud.store.store import Tx

__all__ = ["RunRequest", "StateChange", "reboot", "run", "start", "stop", "terminate"]

USER_SHUTDOWN = StateReason("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")


@dataclass(frozen=True, slots=True)
class StateChange:
    """What became of one instance: the state before the call and the one shown after it."""

    instance_id: str
    previous: InstanceState
    current: InstanceState


def start(cloud: Cloud, caller: Caller, ids: Iterable[str]) -> list[StateChange]:
    """Start stopped instances on their hosts, with new public addresses; running ones stay as they are.

    Raises IncorrectInstanceState, InsufficientInstanceCapacity, InsufficientAddressCapacity.
    """
    wanted = list(ids)

    def decide(tx: Tx) -> list[StateChange]:
        rows = require(tx, caller, INSTANCES, wanted)
        for row in rows:
            if row.shown_state not in (InstanceState.STOPPED, InstanceState.RUNNING, InstanceState.PENDING):
                raise _incorrect_state(row, "started")
        return [_start_one(cloud, tx, row) for row in rows]

    return cloud.store.write(decide)


def _start_one(cloud: Cloud, tx: Tx, row: Instance) -> StateChange:
    if row.shown_state is not InstanceState.STOPPED:
        return StateChange(row.id, row.shown_state, row.shown_state)
    host = tx.hosts.get(row.host_id)
    ephemeral = sum(disk.size_bytes for disk in row.ephemeral_disks)
    # Its volumes are in the host's pool and counted there already.
    demand = Demand(row.vcpus, row.memory_mib, ephemeral)
    if host is None or not host_usages(tx, cloud.config, [host])[0].fits(demand):
        raise insufficient_capacity(row.instance_type, row.zone)
    _assign_public_ips(cloud, tx, row)
    after = tx.instances.update(
        row.id,
        intent=Intent.RUNNING,
        stop_forced=False,
        transition_reason="",
        state_reason=None,
        launched_us=tx.now_us,
    )
    tx.wake(row.id)
    return StateChange(row.id, row.shown_state, after.shown_state)


def _assign_public_ips(cloud: Cloud, tx: Tx, row: Instance) -> None:
    """Give each interface of an instance that starts again a public address where its subnet promises one."""
    subnet = tx.subnets.get(row.subnet_id)
    if subnet is None or not subnet.map_public_ip_on_launch:
        return
    for port in tx.network_interfaces.where(instance_id=row.id):
        if port.public_ip is None:
            (public_ip,) = allocate_public_ips(tx, cloud.config.public_address_pools, 1, 1)
            tx.network_interfaces.update(port.id, public_ip=public_ip)


def stop(cloud: Cloud, caller: Caller, ids: Iterable[str], force: bool, hibernate: bool) -> list[StateChange]:
    """Stop running instances: by the power button, or at once with `force`. Stopped ones stay as they are.

    Raises IncorrectInstanceState, OperationNotPermitted (stop protection), UnsupportedHibernationConfiguration.
    """
    wanted = list(ids)

    def decide(tx: Tx) -> list[StateChange]:
        rows = require(tx, caller, INSTANCES, wanted)
        for row in rows:
            if hibernate:
                raise ApiError(
                    "UnsupportedHibernationConfiguration",
                    f"The instance '{row.id}' is not configured for hibernation.",
                )
            if row.shown_state not in (InstanceState.RUNNING, InstanceState.STOPPING, InstanceState.STOPPED):
                raise _incorrect_state(row, "stopped")
            if row.disable_api_stop and row.shown_state is InstanceState.RUNNING:
                raise _protected(row, "stopped", "disableApiStop")
        return [_stop_one(tx, row, force) for row in rows]

    return cloud.store.write(decide)


def _stop_one(tx: Tx, row: Instance, force: bool) -> StateChange:
    previous = row.shown_state
    if previous is InstanceState.STOPPED or (previous is InstanceState.STOPPING and not force):
        return StateChange(row.id, previous, previous)
    after = tx.instances.update(
        row.id,
        intent=Intent.STOPPED,
        stop_forced=force or row.stop_forced,
        state_reason=USER_SHUTDOWN,
        transition_reason=_user_initiated(tx),
    )
    tx.wake(row.id)
    return StateChange(row.id, previous, after.shown_state)


def reboot(cloud: Cloud, caller: Caller, ids: Iterable[str]) -> None:
    """Ask running instances to reboot. Raises IncorrectInstanceState."""
    wanted = list(ids)

    def decide(tx: Tx) -> None:
        rows = require(tx, caller, INSTANCES, wanted)
        for row in rows:
            if row.shown_state is not InstanceState.RUNNING:
                raise _incorrect_state(row, "rebooted")
        for row in rows:
            tx.instances.update(row.id, reboot_requested=row.reboot_requested + 1)
            tx.wake(row.id)

    cloud.store.write(decide)


def terminate(cloud: Cloud, caller: Caller, ids: Iterable[str]) -> list[StateChange]:
    """Terminate instances, from any state; those that are terminated stay so. Raises OperationNotPermitted."""
    wanted = list(ids)

    def decide(tx: Tx) -> list[StateChange]:
        rows = require(tx, caller, INSTANCES, wanted)
        for row in rows:
            if row.state is InstanceState.TERMINATED:
                continue
            # EC2 user guide, "Enable stop protection": it protects from termination, too.
            for attribute, is_set in (
                ("disableApiTermination", row.disable_api_termination),
                ("disableApiStop", row.disable_api_stop),
            ):
                if is_set:
                    raise _protected(row, "terminated", attribute)
        return [_terminate_one(tx, row) for row in rows]

    return cloud.store.write(decide)


def _terminate_one(tx: Tx, row: Instance) -> StateChange:
    previous = row.shown_state
    if row.intent is Intent.TERMINATED or previous is InstanceState.TERMINATED:
        return StateChange(row.id, previous, previous)
    after = tx.instances.update(
        row.id, intent=Intent.TERMINATED, state_reason=USER_SHUTDOWN, transition_reason=_user_initiated(tx)
    )
    tx.wake(row.id)
    return StateChange(row.id, previous, after.shown_state)


def _user_initiated(tx: Tx) -> str:
    return f"User initiated ({to_datetime(tx.now_us):%Y-%m-%d %H:%M:%S} GMT)"


def _incorrect_state(row: Instance, done: str) -> ApiError:
    return ApiError("IncorrectInstanceState", f"The instance '{row.id}' is not in a state from which it can be {done}.")


def _protected(row: Instance, done: str, attribute: str) -> ApiError:
    return ApiError(
        "OperationNotPermitted",
        f"The instance '{row.id}' may not be {done}. Modify its '{attribute}' instance attribute and try again.",
    )
