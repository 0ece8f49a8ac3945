"""Start, stop, reboot and terminate, from every state that a user can see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import rows as make
from support.bare_cloud import OTHER, ROOT, UNKNOWN, BareCloud

from minicloud.cloud import hosts, instances
from minicloud.cloud.context import Caller
from minicloud.cloud.instances import StateChange
from minicloud.model.states import HostState, InstanceState, Intent

PENDING, RUNNING, STOPPING = InstanceState.PENDING, InstanceState.RUNNING, InstanceState.STOPPING
STOPPED, SHUTTING_DOWN, TERMINATED = InstanceState.STOPPED, InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED

# What a user sees comes from the row's state and the owner's intent.
SEEN = {
    "pending": (PENDING, Intent.RUNNING),
    "starting": (STOPPED, Intent.RUNNING),
    "running": (RUNNING, Intent.RUNNING),
    "about to stop": (RUNNING, Intent.STOPPED),
    "pending, then stopped": (PENDING, Intent.STOPPED),
    "stopping": (STOPPING, Intent.STOPPED),
    "stopped": (STOPPED, Intent.STOPPED),
    "about to end": (RUNNING, Intent.TERMINATED),
    "stopped, about to end": (STOPPED, Intent.TERMINATED),
    "shutting-down": (SHUTTING_DOWN, Intent.TERMINATED),
    "terminated": (TERMINATED, Intent.TERMINATED),
}
USER_SHUTDOWN = "Client.UserInitiatedShutdown"

Act = Callable[..., Any]


def start(bare: BareCloud, *ids: str) -> list[StateChange]:
    return instances.start(bare.cloud, ROOT, ids)


def stop(bare: BareCloud, *ids: str) -> list[StateChange]:
    return instances.stop(bare.cloud, ROOT, ids, force=False, hibernate=False)


def force_stop(bare: BareCloud, *ids: str) -> list[StateChange]:
    return instances.stop(bare.cloud, ROOT, ids, force=True, hibernate=False)


def reboot(bare: BareCloud, *ids: str) -> None:
    instances.reboot(bare.cloud, ROOT, ids)


def terminate(bare: BareCloud, *ids: str) -> list[StateChange]:
    return instances.terminate(bare.cloud, ROOT, ids)


def instance_in(bare: BareCloud, seen: str, **launch: Any) -> str:
    state, intent = SEEN[seen]
    return bare.run_in(state, intent=intent, **launch).id


# The state shown afterwards; "same" where nothing changes; None where EC2 refuses.
OUTCOMES: dict[str, dict[str, InstanceState | str | None]] = {
    "start": {
        "pending": "same", "starting": "same", "running": "same", "about to stop": None,
        "pending, then stopped": None, "stopping": None, "stopped": PENDING, "about to end": None,
        "stopped, about to end": None, "shutting-down": None, "terminated": None,
    },
    "stop": {
        "pending": None, "starting": None, "running": STOPPING, "about to stop": "same",
        "pending, then stopped": "same", "stopping": "same", "stopped": "same", "about to end": None,
        "stopped, about to end": None, "shutting-down": None, "terminated": None,
    },
    "force_stop": {
        "pending": None, "starting": None, "running": STOPPING, "about to stop": STOPPING,
        "pending, then stopped": STOPPING, "stopping": STOPPING, "stopped": "same", "about to end": None,
        "stopped, about to end": None, "shutting-down": None, "terminated": None,
    },
    "reboot": {
        "pending": None, "starting": None, "running": RUNNING, "about to stop": None, "pending, then stopped": None,
        "stopping": None, "stopped": None, "about to end": None, "stopped, about to end": None,
        "shutting-down": None, "terminated": None,
    },
    "terminate": {
        "pending": SHUTTING_DOWN, "starting": SHUTTING_DOWN, "running": SHUTTING_DOWN,
        "about to stop": SHUTTING_DOWN, "pending, then stopped": SHUTTING_DOWN, "stopping": SHUTTING_DOWN,
        "stopped": SHUTTING_DOWN, "about to end": "same", "stopped, about to end": "same", "shutting-down": "same",
        "terminated": "same",
    },
}  # fmt: skip
ACTS: dict[str, Act] = {
    "start": start, "stop": stop, "force_stop": force_stop, "reboot": reboot, "terminate": terminate,
}  # fmt: skip
DONE = {"start": "started", "stop": "stopped", "force_stop": "stopped", "reboot": "rebooted"}


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("act", ACTS)
def test_every_call_in_every_state(bare: BareCloud, act: str, seen: str) -> None:
    instance_id = instance_in(bare, seen)
    before = bare.instance(instance_id)
    expected = OUTCOMES[act][seen]
    if expected is None:
        with bare.refuses(
            "IncorrectInstanceState",
            f"The instance '{instance_id}' is not in a state from which it can be {DONE[act]}.",
        ):
            ACTS[act](bare, instance_id)
        return
    if expected == "same":
        with bare.unchanged(), bare.one_transaction():
            changes = ACTS[act](bare, instance_id)
        assert changes == [StateChange(instance_id, before.shown_state, before.shown_state)]
        return
    with bare.one_transaction():
        changes = ACTS[act](bare, instance_id)
    after = bare.instance(instance_id)
    assert after.shown_state is expected
    # Only the controller writes a state; it is woken by the commit.
    assert after.state is before.state
    assert bare.woken == [frozenset({instance_id})]
    if act != "reboot":
        assert changes == [StateChange(instance_id, before.shown_state, expected)]


# What each leaves behind


def test_a_start_clears_what_the_stop_left(bare: BareCloud) -> None:
    instance_id = instance_in(bare, "running")
    force_stop(bare, instance_id)
    bare.rest(instance_id, STOPPED)
    bare.clock.advance(100)
    start(bare, instance_id)
    row = bare.instance(instance_id)
    assert (row.intent, row.stop_forced, row.state_reason, row.transition_reason) == (Intent.RUNNING, False, None, "")
    assert row.launched_us == row.created_us + 100_000_000


@pytest.mark.parametrize("act", [stop, terminate])
def test_the_reason_is_the_user(bare: BareCloud, act: Act) -> None:
    instance_id = instance_in(bare, "running")
    act(bare, instance_id)
    row = bare.instance(instance_id)
    assert row.state_reason is not None
    assert row.state_reason.code == USER_SHUTDOWN
    assert row.state_reason.message == "Client.UserInitiatedShutdown: User initiated shutdown"
    assert row.transition_reason == "User initiated (2023-11-14 22:13:20 GMT)"


def test_force_is_remembered(bare: BareCloud) -> None:
    instance_id = instance_in(bare, "running")
    stop(bare, instance_id)
    assert bare.instance(instance_id).stop_forced is False
    force_stop(bare, instance_id)
    assert bare.instance(instance_id).stop_forced is True


def test_reboots_are_counted(bare: BareCloud) -> None:
    instance_id = instance_in(bare, "running")
    reboot(bare, instance_id)
    reboot(bare, instance_id)
    row = bare.instance(instance_id)
    assert (row.reboot_requested, row.reboot_done, row.intent) == (2, 0, Intent.RUNNING)


def test_a_terminated_instance_stays_terminated(bare: BareCloud) -> None:
    instance_id = instance_in(bare, "running", disable_api_stop=False)
    terminate(bare, instance_id)
    reason = bare.instance(instance_id).transition_reason
    bare.clock.advance(60)
    with bare.refuses("IncorrectInstanceState"):
        start(bare, instance_id)
    terminate(bare, instance_id)
    assert bare.instance(instance_id).transition_reason == reason


# Protection and hibernation


@pytest.mark.parametrize("seen", sorted(set(SEEN) - {"terminated"}))
@pytest.mark.parametrize("attribute", ["disable_api_termination", "disable_api_stop"])
def test_a_protected_instance_is_not_terminated(bare: BareCloud, attribute: str, seen: str) -> None:
    instance_id = instance_in(bare, seen, **{attribute: True})
    shown = {"disable_api_termination": "disableApiTermination", "disable_api_stop": "disableApiStop"}[attribute]
    message = (
        f"The instance '{instance_id}' may not be terminated. Modify its '{shown}' instance attribute and try again."
    )
    with bare.refuses("OperationNotPermitted", message):
        terminate(bare, instance_id)


def test_a_terminated_instance_is_beyond_protection(bare: BareCloud) -> None:
    instance_id = instance_in(bare, "terminated", disable_api_termination=True, disable_api_stop=True)
    assert terminate(bare, instance_id) == [StateChange(instance_id, TERMINATED, TERMINATED)]


@pytest.mark.parametrize("act", [stop, force_stop])
def test_stop_protection(bare: BareCloud, act: Act) -> None:
    instance_id = instance_in(bare, "running", disable_api_stop=True)
    with bare.refuses("OperationNotPermitted", f"'{instance_id}' may not be stopped. Modify its 'disableApiStop'"):
        act(bare, instance_id)
    reboot(bare, instance_id)


def test_termination_protection_lets_stop_and_start(bare: BareCloud) -> None:
    instance_id = instance_in(bare, "running", disable_api_termination=True)
    stop(bare, instance_id)
    bare.rest(instance_id, STOPPED)
    start(bare, instance_id)


@pytest.mark.parametrize("force", [False, True])
def test_hibernation_is_refused(bare: BareCloud, force: bool) -> None:
    instance_id = instance_in(bare, "running")
    with bare.refuses("UnsupportedHibernationConfiguration", instance_id):
        instances.stop(bare.cloud, ROOT, [instance_id], force=force, hibernate=True)


# Room and addresses at a start


def test_a_start_needs_room_on_the_instances_own_host(bare: BareCloud) -> None:
    first = instance_in(bare, "stopped", zone="lab-1a", instance_type="m5.large")
    bare.run(min_count=2, max_count=2, zone="lab-1a", instance_type="m5.large")
    bare.add_host("host-a2", "lab-1a")
    with bare.refuses("InsufficientInstanceCapacity", "m5.large capacity", 500):
        start(bare, first)


def test_a_start_needs_no_room_for_volumes_that_are_there(bare: BareCloud) -> None:
    first = instance_in(bare, "stopped", zone="lab-1a")
    for pool in bare.store.read(lambda tx: tx.pools.where()):
        bare.store.write(lambda tx, id=pool.id: tx.pools.update(id, capacity_bytes=2 * 2**30))
    assert start(bare, first)[0].current is PENDING


@pytest.mark.parametrize("state", [HostState.DOWN, HostState.DRAINING])
def test_a_start_needs_a_host_that_is_up(bare: BareCloud, state: HostState) -> None:
    first = instance_in(bare, "stopped", zone="lab-1a")
    host_id = bare.instance(first).host_id
    bare.store.write(lambda tx: tx.hosts.update(host_id, state=state))
    with bare.refuses("InsufficientInstanceCapacity", status=500):
        start(bare, first)


def test_two_starts_share_the_room_there_is(bare: BareCloud) -> None:
    """16 GiB hold two m5.large; one runs, two are stopped: both of those together do not fit."""
    stopped = [instance_in(bare, "stopped", zone="lab-1a", instance_type="m5.large") for _ in range(2)]
    bare.run(zone="lab-1a", instance_type="m5.large")
    with bare.refuses("InsufficientInstanceCapacity", status=500):
        start(bare, *stopped)
    assert start(bare, stopped[1])[0].current is PENDING
    with bare.refuses("InsufficientInstanceCapacity", status=500):
        start(bare, stopped[0])


def test_a_start_gets_a_new_public_address(bare: BareCloud) -> None:
    first = instance_in(bare, "stopped")
    other = bare.run_one()
    start(bare, first)
    port = bare.store.read(lambda tx: tx.network_interfaces.where(instance_id=first))[0]
    assert other.ports[0].public_ip == "10.200.0.0"
    assert port.public_ip == "10.200.0.1"


def test_a_start_keeps_an_address_that_was_not_yet_released(bare: BareCloud) -> None:
    first = instance_in(bare, "running")
    bare.store.write(lambda tx: tx.instances.update(first, state=STOPPED, intent=Intent.STOPPED))
    start(bare, first)
    port = bare.store.read(lambda tx: tx.network_interfaces.where(instance_id=first))[0]
    assert port.public_ip == "10.200.0.0"


def test_a_start_without_a_public_address_to_be_had(build: Callable[..., BareCloud]) -> None:
    bare = build(public_address_pools=("10.200.0.0/32",))
    first = instance_in(bare, "stopped")
    second = bare.run_one()
    with bare.refuses("InsufficientAddressCapacity", status=500):
        start(bare, first)
    bare.rest(second.instance.id, TERMINATED)
    start(bare, first)


# Ids


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    ("bad", "code", "message"),
    [
        ("i-xyz", "InvalidInstanceID.Malformed", 'Invalid id: "i-xyz"'),
        ("vol-" + UNKNOWN, "InvalidInstanceID.Malformed", "expecting"),
        ("", "InvalidInstanceID.Malformed", ""),
        ("i-" + UNKNOWN, "InvalidInstanceID.NotFound", f"The instance ID 'i-{UNKNOWN}' does not exist"),
    ],
)
def test_one_bad_id_and_nothing_happens(bare: BareCloud, act: str, bad: str, code: str, message: str) -> None:
    good = instance_in(bare, "stopped" if act == "start" else "running")
    with bare.refuses(code, message):
        ACTS[act](bare, good, bad)


@pytest.mark.parametrize("act", ACTS)
def test_one_instance_in_a_wrong_state_and_nothing_happens(bare: BareCloud, act: str) -> None:
    good = instance_in(bare, "stopped" if act == "start" else "running")
    bad = instance_in(bare, "shutting-down", disable_api_termination=True)
    with bare.refuses("OperationNotPermitted" if act == "terminate" else "IncorrectInstanceState", bad):
        ACTS[act](bare, good, bad)


@pytest.mark.parametrize("caller", [OTHER, Caller(ROOT.account_id, "lab-2")])
def test_instances_of_others_do_not_exist(bare: BareCloud, caller: Caller) -> None:
    instance_id = instance_in(bare, "running")
    for act in (
        lambda: instances.start(bare.cloud, caller, [instance_id]),
        lambda: instances.stop(bare.cloud, caller, [instance_id], False, False),
        lambda: instances.reboot(bare.cloud, caller, [instance_id]),
        lambda: instances.terminate(bare.cloud, caller, [instance_id]),
    ):
        with bare.refuses("InvalidInstanceID.NotFound"):
            act()


def test_several_unknown_ids_are_all_named(bare: BareCloud) -> None:
    unknown = [make.number("i", 0xE), make.number("i", 0xF)]
    with bare.refuses("InvalidInstanceID.NotFound", f"The instance IDs '{', '.join(unknown)}' do not exist"):
        terminate(bare, *unknown)


def test_repeated_ids_count_once_and_answers_keep_the_order(bare: BareCloud) -> None:
    first, second = (instance_in(bare, "running") for _ in range(2))
    changes = stop(bare, second, first, second)
    assert [change.instance_id for change in changes] == [second, first]
    reboot_target = instance_in(bare, "running")
    reboot(bare, reboot_target, reboot_target)
    assert bare.instance(reboot_target).reboot_requested == 1


def test_too_many_ids(bare: BareCloud) -> None:
    with bare.refuses("InvalidParameterValue", "1000 ids"):
        terminate(bare, *(make.number("i", n) for n in range(1001)))


def test_capacity_comes_back(bare: BareCloud) -> None:
    instance_id = instance_in(bare, "running", zone="lab-1a")
    assert hosts.describe_hosts(bare.cloud, ROOT)[0].used.vcpus == 2
    stop(bare, instance_id)
    # Still running as far as the host is concerned.
    assert hosts.describe_hosts(bare.cloud, ROOT)[0].used.vcpus == 2
    bare.rest(instance_id, STOPPED)
    assert hosts.describe_hosts(bare.cloud, ROOT)[0].used.vcpus == 0
    start(bare, instance_id)
    assert hosts.describe_hosts(bare.cloud, ROOT)[0].used.vcpus == 2
