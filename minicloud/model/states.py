"""States of every resource, EC2's codes for them, and the transitions that are legal. Pure data, no I/O.

Only the controller writes a state, and only along LEGAL_TRANSITIONS. Users write an intent; what they see meanwhile
is `shown_instance_state`, so that StopInstances answers `stopping` the moment its transaction commits.
"""

from __future__ import annotations

from enum import StrEnum


class InstanceState(StrEnum):
    """EC2's instance states (EC2 user guide, "Instance lifecycle")."""

    PENDING = "pending"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"
    STOPPING = "stopping"
    STOPPED = "stopped"


INSTANCE_STATE_CODES: dict[InstanceState, int] = {
    InstanceState.PENDING: 0,
    InstanceState.RUNNING: 16,
    InstanceState.SHUTTING_DOWN: 32,
    InstanceState.TERMINATED: 48,
    InstanceState.STOPPING: 64,
    InstanceState.STOPPED: 80,
}


class Intent(StrEnum):
    """What the owner of an instance last asked for."""

    RUNNING = "running"
    STOPPED = "stopped"
    TERMINATED = "terminated"


LEGAL_TRANSITIONS: dict[InstanceState, frozenset[InstanceState]] = {
    InstanceState.PENDING: frozenset(
        {InstanceState.RUNNING, InstanceState.STOPPING, InstanceState.STOPPED, InstanceState.SHUTTING_DOWN}
    ),
    InstanceState.RUNNING: frozenset({InstanceState.STOPPING, InstanceState.SHUTTING_DOWN, InstanceState.STOPPED}),
    InstanceState.STOPPING: frozenset({InstanceState.STOPPED, InstanceState.SHUTTING_DOWN}),
    InstanceState.STOPPED: frozenset({InstanceState.PENDING, InstanceState.SHUTTING_DOWN}),
    InstanceState.SHUTTING_DOWN: frozenset({InstanceState.TERMINATED}),
    InstanceState.TERMINATED: frozenset(),
}


def shown_instance_state(state: InstanceState, intent: Intent) -> InstanceState:
    """Return the state that the API shows for an instance in `state` whose owner asked for `intent`."""
    if state is InstanceState.TERMINATED:
        return state
    if intent is Intent.TERMINATED:
        return InstanceState.SHUTTING_DOWN
    if intent is Intent.STOPPED and state in (InstanceState.PENDING, InstanceState.RUNNING):
        return InstanceState.STOPPING
    if intent is Intent.RUNNING and state is InstanceState.STOPPED:
        return InstanceState.PENDING
    return state


class VolumeState(StrEnum):
    """EC2's volume states (EBS user guide, "Volume lifecycle")."""

    CREATING = "creating"
    AVAILABLE = "available"
    IN_USE = "in-use"
    DELETING = "deleting"
    DELETED = "deleted"
    ERROR = "error"


class AttachmentState(StrEnum):
    """EC2's volume attachment states."""

    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    DETACHED = "detached"


class SnapshotState(StrEnum):
    """EC2's snapshot states."""

    PENDING = "pending"
    COMPLETED = "completed"
    ERROR = "error"


class ImageState(StrEnum):
    """EC2's image states that minicloud uses."""

    PENDING = "pending"
    AVAILABLE = "available"
    FAILED = "failed"
    DEREGISTERED = "deregistered"


class ImportTaskState(StrEnum):
    """States of an ImportSnapshot or ImportImage task."""

    ACTIVE = "active"
    COMPLETED = "completed"
    DELETING = "deleting"
    DELETED = "deleted"


class HostState(StrEnum):
    """Whether the controller can use a host: only `up` hosts get new instances."""

    UP = "up"
    DOWN = "down"
    DRAINING = "draining"
