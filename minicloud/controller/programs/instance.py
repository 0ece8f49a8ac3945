"""The life of an instance: from its rows to a running domain, through stops and reboots, to nothing.

Owns every change of Instance.state and of the volumes, attachments and network interfaces that were born with it.
Refuses to decide what the owner did not ask for: it compares intent with the world and acts.

    prepare ─► boot ─► watch ─► press ─► await_off ─► unplug ─► rest ─► prepare …
       │ ▲              │  ▲                                     │
       ▼ │              ▼  │                                     ▼
      fill             reboot ─► rebooting        (from anywhere) destroy ─► clean ─► forget

A failed launch leaves by `destroy`, the same way TerminateInstances takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from minicloud.clock import MICROSECONDS, to_datetime
from minicloud.cloud import plans
from minicloud.controller.context import Context
from minicloud.controller.verdicts import ChangedError, Done, Facts, Hop, Nap, Verdict
from minicloud.errors import PermanentError, RefusedError, TransientError
from minicloud.hosts.protocol import Host
from minicloud.model import names
from minicloud.model.plans import REBOOTED, DomainStatus
from minicloud.model.resources import Instance, MetadataOptions, Snapshot, StateReason, Task
from minicloud.model.states import (
    LEGAL_TRANSITIONS,
    AttachmentState,
    InstanceState,
    Intent,
    VolumeState,
)
from minicloud.store.store import Tx

MISSING_BASE = "missing-base"
PARK_SECONDS = 3600.0
# Events end these naps; the figures are the safety net for a lost one.
FILL_POLL_SECONDS = 0.25
OFF_POLL_SECONDS = 5.0
GONE_POLL_SECONDS = 0.25
BOOT_ATTEMPTS = 5

GUEST_SHUTDOWN = StateReason(
    "Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
)
INTERNAL_ERROR = StateReason("Server.InternalError", "Server.InternalError: Internal error")
LAUNCH_ERROR = StateReason("Server.InternalError", "Server.InternalError: Internal error on launch")

OFF_STATES = frozenset({"absent", "shutoff"})


class InstanceProgram:
    """Program of kind "instance"; a task's id is its instance's."""

    kind = "instance"
    steps = (
        "prepare",
        "fill",
        "boot",
        "watch",
        "reboot",
        "rebooting",
        "press",
        "await_off",
        "unplug",
        "rest",
        "destroy",
        "clean",
        "forget",
    )

    def run(self, context: Context, task: Task) -> Verdict:
        """Run one step. An instance whose row is gone needs nothing any more."""
        instance = context.read(lambda tx: tx.instances.get(task.id))
        if instance is None:
            return Done()
        step: Callable[[Context, Task, Instance], Verdict] = getattr(self, f"_{task.step}")
        return step(context, task, instance)

    def fail(self, context: Context, task: Task, code: str, detail: str) -> Verdict:
        """A launch that never ran is destroyed, a restart goes back to stopped, a failing goodbye is tried for ever."""
        instance = context.read(lambda tx: tx.instances.get(task.id))
        if instance is None:
            return Done()
        if task.step in ("reboot", "rebooting"):
            return Hop("watch", writes=lambda tx: _mark_impaired(tx, task.id))
        if task.step == "prepare" and code == MISSING_BASE:
            if not task.facts.get("filled"):
                return Hop("fill", facts=_launching(task))
            return Nap(FILL_POLL_SECONDS, facts=_without(task.facts, "filled"))
        if task.step not in ("prepare", "fill", "boot"):
            # Work on the way out cannot be given up: what is left on the host would be debris.
            raise TransientError(f"{code}: {detail}")
        return self._launch_failed(instance, task)

    def _launch_failed(self, instance: Instance, task: Task) -> Verdict:
        if not task.facts.get("ran"):
            return Hop("destroy", writes=lambda tx: _give_up(tx, task.id, Intent.TERMINATED, LAUNCH_ERROR))
        return Hop(
            "press",
            facts=_without(task.facts, "deadline_us", "launch_started_us", "filled"),
            writes=lambda tx: _give_up(tx, task.id, Intent.STOPPED, LAUNCH_ERROR),
        )

    # Towards running

    def _prepare(self, context: Context, task: Task, instance: Instance) -> Verdict:
        if elsewhere := _leave_launch(instance, task):
            return elsewhere
        plan = context.read(lambda tx: plans.instance_plan(tx, context.config, instance))
        _check_launch_deadline(context, task)
        _host(context, instance).ensure_instance(plan, task.lease_epoch)

        def writes(tx: Tx) -> None:
            _set_volumes_made(tx, instance.id)
            _set_options_applied(tx, instance.id, instance.metadata_options)

        return Hop("boot", facts={**_launching(task), "pushed": plans.ports_digest(plan)}, writes=writes)

    def _fill(self, context: Context, task: Task, instance: Instance) -> Verdict:
        """Bring the base of every root and data volume that is made from a snapshot to the host."""
        if elsewhere := _leave_launch(instance, task):
            return elsewhere
        _check_launch_deadline(context, task)
        host = _host(context, instance)
        done = True
        bases = context.read(lambda tx: _bases(tx, instance))
        for snapshot, path in bases:
            name = _fill_job(instance.id, snapshot.id)
            status = host.job_status(name)
            if status.state == "absent":
                status = host.start_job(name, "fill_base", context.fill_arguments(snapshot, path), task.lease_epoch)
            if status.state == "failed":
                host.clean_job(name, task.lease_epoch)
                raise TransientError(f"{snapshot.id} could not be brought to the host: {status.error}")
            done = done and status.state == "succeeded"
        if not done:
            return Nap(FILL_POLL_SECONDS)
        for snapshot, _ in bases:
            host.clean_job(_fill_job(instance.id, snapshot.id), task.lease_epoch)
        return Hop("prepare", facts={**task.facts, "filled": True})

    def _boot(self, context: Context, task: Task, instance: Instance) -> Verdict:
        if elsewhere := _leave_launch(instance, task):
            return elsewhere
        spec = context.read(lambda tx: plans.domain_spec(tx, context.config, instance))
        _check_launch_deadline(context, task)
        host = _host(context, instance)
        try:
            status = host.ensure_domain(spec, task.lease_epoch)
            if status.state not in ("running", "shutoff"):
                raise TransientError(f"the domain is {status.state} after its start")
        except RefusedError as error:
            # A host that says why it cannot start this domain will hardly learn to: tell the owner soon.
            if task.attempt >= BOOT_ATTEMPTS:
                raise PermanentError("Server.InternalError", error.detail) from error
            raise
        # A guest that powered off within its first moments has still run: `watch` sees it off.
        return Hop(
            "watch",
            facts={**_without(task.facts, "launch_started_us", "filled"), "ran": True},
            writes=lambda tx: _set_running(tx, instance.id),
        )

    # Running

    def _watch(self, context: Context, task: Task, instance: Instance) -> Verdict:
        if instance.intent is Intent.TERMINATED:
            return _to_destroy(instance)
        if instance.intent is Intent.STOPPED:
            return _to_press(context, task, instance)
        status = _host(context, instance).domain_status(instance.id)
        if status.state in OFF_STATES and status.pid is None:
            return self._ended_by_itself(context, instance, status)
        if status.state == "stopping":
            # Perhaps a QEMU that outlived its domain: nobody sends an event when that ends.
            return Nap(OFF_POLL_SECONDS)
        if instance.reboot_requested > instance.reboot_done:
            return Hop("reboot")
        pushed = self._push(context, task, instance)

        def writes(tx: Tx) -> None:
            _set_options_applied(tx, instance.id, instance.metadata_options)
            if instance.impaired and status.state == "running":
                _update(tx, instance.id, impaired=False)

        return Nap(PARK_SECONDS, facts={**task.facts, "pushed": pushed}, writes=writes)

    def _push(self, context: Context, task: Task, instance: Instance) -> str:
        """Have the host hold the instance's ports as its rows say now: metadata options, and tags that a guest sees.

        Returns the digest of what the host holds. Disks are left out of the plan: a guest runs on them.
        """
        plan = context.read(lambda tx: plans.instance_plan(tx, context.config, instance))
        digest = plans.ports_digest(plan)
        if task.facts.get("pushed") != digest:
            _host(context, instance).ensure_instance(replace(plan, disks=()), task.lease_epoch)
        return digest

    def _ended_by_itself(self, context: Context, instance: Instance, status: DomainStatus) -> Verdict:
        """The guest powered off, or QEMU died: the instance follows its shutdown behaviour, or is stopped."""
        by_guest = status.reason == "shutdown"
        ends = by_guest and instance.shutdown_behavior == "terminate"
        state = InstanceState.SHUTTING_DOWN if ends else InstanceState.STOPPING

        def writes(tx: Tx) -> None:
            now = _require(tx, instance.id)
            if now.intent is not Intent.RUNNING or now.shutdown_behavior != instance.shutdown_behavior:
                raise ChangedError("the owner asked for something else meanwhile")
            _set_state(
                tx,
                instance.id,
                state,
                intent=Intent.TERMINATED if ends else Intent.STOPPED,
                state_reason=GUEST_SHUTDOWN if by_guest else INTERNAL_ERROR,
                transition_reason="" if by_guest else f"Server.InternalError ({_when(context)})",
            )

        return Hop("destroy" if ends else "unplug", writes=writes)

    def _reboot(self, context: Context, task: Task, instance: Instance) -> Verdict:
        """Ask for a reboot. A guest that hangs cannot be asked: its owner may stop it, or gets it impaired."""
        if instance.intent is not Intent.RUNNING:
            return Hop("watch")
        limit_us = int(context.config.deadlines.guest_reboot_seconds * MICROSECONDS)
        if task.attempt > 0 and context.clock.steady_us() - task.step_started_us > limit_us:
            raise PermanentError(
                "Server.InternalError", f"no reboot within {limit_us // MICROSECONDS} s: {task.last_error}"
            )
        requested = instance.reboot_requested
        context.signals.take(instance.id, REBOOTED)
        _host(context, instance).reboot_domain(instance.id, task.lease_epoch)
        deadline_us = context.clock.steady_us() + int(context.config.deadlines.guest_reboot_seconds * MICROSECONDS)
        facts: Facts = {
            **task.facts,
            "deadline_us": deadline_us,
            "reboot": requested,
            "incarnation": context.incarnation,
        }
        return Hop("rebooting", facts=facts)

    def _rebooting(self, context: Context, task: Task, instance: Instance) -> Verdict:
        """Wait for the machine's reset; force it at the deadline, as EC2 does for a guest that ignores the request."""
        if instance.intent is not Intent.RUNNING:
            return Hop("watch", facts=_without(task.facts, "deadline_us", "reboot", "incarnation"))
        host = _host(context, instance)
        requested = _integer(task.facts, "reboot")
        done = Hop(
            "watch",
            facts=_without(task.facts, "deadline_us", "reboot", "incarnation"),
            writes=lambda tx: _update(tx, instance.id, reboot_done=requested),
        )
        # An event that came while no controller ran is lost: resetting the machine a second time, minutes after the
        # guest may have rebooted, would be worse than trusting that it did.
        if context.signals.take(instance.id, REBOOTED) or task.facts.get("incarnation") != context.incarnation:
            return done
        if host.domain_status(instance.id).state in OFF_STATES:
            return done
        left = _seconds_left(context, task)
        if left > 0:
            return Nap(left)
        host.reset_domain(instance.id, task.lease_epoch)
        return done

    # Towards stopped

    def _press(self, context: Context, task: Task, instance: Instance) -> Verdict:
        """Set the deadline until which the guest is asked; `await_off` presses its power button."""
        if instance.intent is Intent.TERMINATED:
            return _to_destroy(instance)
        seconds = 0.0 if instance.stop_forced else context.config.deadlines.guest_shutdown_seconds
        deadline_us = context.clock.steady_us() + int(seconds * MICROSECONDS)
        return Hop("await_off", facts={**task.facts, "deadline_us": deadline_us})

    def _await_off(self, context: Context, task: Task, instance: Instance) -> Verdict:
        if instance.intent is Intent.TERMINATED:
            return _to_destroy(instance)
        host = _host(context, instance)
        status = host.domain_status(instance.id)
        left = _seconds_left(context, task)
        if status.state not in OFF_STATES and (left <= 0 or instance.stop_forced):
            status = host.ensure_no_domain(instance.id, task.lease_epoch)
        if status.state in OFF_STATES and status.pid is None:
            return Hop("unplug", facts=_without(task.facts, "deadline_us"))
        if left <= 0:
            return Nap(GONE_POLL_SECONDS)
        # Again and again, for a guest that was still booting did not hear the first press.
        host.press_power_button(instance.id, task.lease_epoch)
        return Nap(min(OFF_POLL_SECONDS, left))

    def _unplug(self, context: Context, task: Task, instance: Instance) -> Verdict:
        """Take everything from the host but the volumes: the address, the rules and the ephemeral disks go."""
        if instance.intent is Intent.TERMINATED:
            return _to_destroy(instance)
        host = _host(context, instance)
        if host.ensure_no_domain(instance.id, task.lease_epoch).pid is not None:
            return Nap(GONE_POLL_SECONDS)
        removal = context.read(lambda tx: plans.removal(tx, instance, final=False))
        host.ensure_no_instance(removal, task.lease_epoch)
        return Hop("rest", writes=lambda tx: _set_stopped(tx, instance.id))

    def _rest(self, context: Context, task: Task, instance: Instance) -> Verdict:
        if instance.intent is Intent.TERMINATED:
            return _to_destroy(instance)
        if instance.intent is Intent.RUNNING:
            return Hop("prepare", writes=lambda tx: _set_state(tx, instance.id, InstanceState.PENDING))
        return Nap(PARK_SECONDS)

    # Towards nothing

    def _destroy(self, context: Context, task: Task, instance: Instance) -> Verdict:
        status = _host(context, instance).ensure_no_domain(instance.id, task.lease_epoch)
        if status.pid is not None:
            return Nap(GONE_POLL_SECONDS)
        return Hop("clean")

    def _clean(self, context: Context, task: Task, instance: Instance) -> Verdict:
        """QEMU is gone: now its disks, its address and its MAC may go, too."""
        host = _host(context, instance)
        for snapshot, _ in context.read(lambda tx: _bases(tx, instance)):
            host.clean_job(_fill_job(instance.id, snapshot.id), task.lease_epoch)
        removal = context.read(lambda tx: plans.removal(tx, instance, final=True))
        host.ensure_no_instance(removal, task.lease_epoch)
        return Hop("forget", facts={}, writes=lambda tx: _set_terminated(tx, instance.id, context.clock.now_us()))

    def _forget(self, context: Context, task: Task, instance: Instance) -> Verdict:
        """A terminated instance stays visible for an hour (EC2 user guide, "Terminate Amazon EC2 instances")."""
        ended_us = instance.terminated_us or 0
        visible_us = int(context.config.deadlines.terminated_visible_seconds * MICROSECONDS)
        left_us = ended_us + visible_us - context.clock.now_us()
        if left_us > 0:
            # A wall clock that was set back meanwhile makes it longer, but no nap longer than it should have been.
            return Nap(min(left_us, visible_us) / MICROSECONDS)

        def writes(tx: Tx) -> None:
            tx.tags.delete(instance.id, None)
            tx.instances.delete(instance.id)

        return Done(writes)


def _host(context: Context, instance: Instance) -> Host:
    return context.hosts.get(instance.host_id)


def _leave_launch(instance: Instance, task: Task) -> Verdict | None:
    """Where a launch goes when its owner changed their mind."""
    if instance.intent is Intent.TERMINATED:
        return _to_destroy(instance)
    if instance.intent is Intent.STOPPED:
        return Hop(
            "press",
            facts=_without(task.facts, "launch_started_us"),
            writes=lambda tx: _set_state(tx, instance.id, InstanceState.STOPPING),
        )
    return None


def _to_destroy(instance: Instance) -> Verdict:
    return Hop("destroy", writes=lambda tx: _set_state(tx, instance.id, InstanceState.SHUTTING_DOWN))


def _to_press(context: Context, task: Task, instance: Instance) -> Verdict:
    return Hop("press", writes=lambda tx: _set_state(tx, instance.id, InstanceState.STOPPING))


def _fill_job(instance_id: str, snapshot_id: str) -> str:
    # A job per instance, for each task has lease epochs of its own; the host side makes one of the two do the work.
    return f"fill-{instance_id}-{snapshot_id}"


def _bases(tx: Tx, instance: Instance) -> list[tuple[Snapshot, str]]:
    """Return the snapshots that the instance's not yet created volumes stand on, and where each belongs on the host."""
    bases: dict[str, tuple[Snapshot, str]] = {}
    attachments = tx.attachments.where(instance_id=instance.id)
    for volume in tx.volumes.where(id=[attachment.volume_id for attachment in attachments]):
        if volume.snapshot_id is None or volume.state is not VolumeState.CREATING:
            continue
        snapshot = tx.snapshots.get(volume.snapshot_id)
        pool = tx.pools.get(volume.pool_id)
        if snapshot is not None and pool is not None:
            bases[snapshot.id] = (snapshot, names.base_path(pool.path, snapshot.id))
    return list(bases.values())


def _launching(task: Task) -> Facts:
    """Return the facts of a launch, which remember since when it is tried."""
    return {"launch_started_us": task.step_started_us, **task.facts}


def _check_launch_deadline(context: Context, task: Task) -> None:
    """Raise PermanentError's way out for a launch that keeps failing: nobody should wait for it for ever."""
    limit_us = int(context.config.deadlines.launch_seconds * MICROSECONDS)
    started_us = _integer(_launching(task), "launch_started_us")
    if task.attempt > 0 and context.clock.steady_us() - started_us > limit_us:
        raise PermanentError("Server.InternalError", f"gave up after {limit_us // MICROSECONDS} s: {task.last_error}")


def _seconds_left(context: Context, task: Task) -> float:
    return (_integer(task.facts, "deadline_us") - context.clock.steady_us()) / MICROSECONDS


def _integer(facts: Facts, key: str) -> int:
    value = facts.get(key, 0)
    return value if isinstance(value, int) else 0


def _without(facts: Facts, *keys: str) -> Facts:
    return {key: value for key, value in facts.items() if key not in keys}


def _when(context: Context) -> str:
    return f"{to_datetime(context.clock.now_us()):%Y-%m-%d %H:%M:%S} GMT"


def _require(tx: Tx, instance_id: str) -> Instance:
    instance = tx.instances.get(instance_id)
    if instance is None:
        raise KeyError(instance_id)
    return instance


def _update(tx: Tx, instance_id: str, **changes: object) -> None:
    tx.instances.update(instance_id, **changes)


def _mark_impaired(tx: Tx, instance_id: str) -> None:
    tx.instances.update(instance_id, impaired=True, reboot_done=_require(tx, instance_id).reboot_requested)


def _set_state(tx: Tx, instance_id: str, state: InstanceState, **changes: object) -> None:
    """Move an instance along LEGAL_TRANSITIONS; staying where it is is fine, anything else is a bug."""
    current = _require(tx, instance_id).state
    if state is not current and state not in LEGAL_TRANSITIONS[current]:
        raise ValueError(f"{instance_id}: {current} -> {state} is not a legal transition")
    tx.instances.update(instance_id, state=state, **changes)


def _give_up(tx: Tx, instance_id: str, intent: Intent, reason: StateReason) -> None:
    state = InstanceState.SHUTTING_DOWN if intent is Intent.TERMINATED else InstanceState.STOPPING
    current = _require(tx, instance_id)
    # A termination that was asked for meanwhile stands.
    wanted = current.intent if current.intent is Intent.TERMINATED else intent
    tx.instances.update(
        instance_id, intent=wanted, state_reason=reason, transition_reason="Server.InternalError", stop_forced=True
    )
    if current.state is not InstanceState.SHUTTING_DOWN:
        _set_state(tx, instance_id, state)


def _set_options_applied(tx: Tx, instance_id: str, told: MetadataOptions) -> None:
    """Note that the host answers by these options, unless others were asked for while it was told."""
    if told.state == "pending" and _require(tx, instance_id).metadata_options == told:
        tx.instances.update(instance_id, metadata_options=replace(told, state="applied"))


def _set_volumes_made(tx: Tx, instance_id: str) -> None:
    """From here on a guest may have run on them, whether we learn of it or not: they are never made anew, and those
    that their owner keeps are kept.
    """
    volumes = [attachment.volume_id for attachment in tx.attachments.where(instance_id=instance_id)]
    for volume in tx.volumes.where(id=volumes, state=VolumeState.CREATING):
        tx.volumes.update(volume.id, state=VolumeState.IN_USE)


def _set_running(tx: Tx, instance_id: str) -> None:
    instance = _require(tx, instance_id)
    changes: dict[str, object] = {"reboot_done": instance.reboot_requested}
    if instance.intent is Intent.RUNNING:
        changes |= {"state_reason": None, "transition_reason": ""}
    _set_state(tx, instance_id, InstanceState.RUNNING, **changes)
    for attachment in tx.attachments.where(instance_id=instance_id):
        if attachment.state is AttachmentState.ATTACHING:
            tx.attachments.update(attachment.id, state=AttachmentState.ATTACHED)


def _set_stopped(tx: Tx, instance_id: str) -> None:
    options = replace(_require(tx, instance_id).metadata_options, state="applied")
    _set_state(tx, instance_id, InstanceState.STOPPED, stop_forced=False, metadata_options=options)
    for interface in tx.network_interfaces.where(instance_id=instance_id):
        if interface.public_ip is not None:
            tx.network_interfaces.update(interface.id, public_ip=None)


def _set_terminated(tx: Tx, instance_id: str, now_us: int) -> None:
    """The rows of what the host no longer holds go in the commit that says so."""
    for attachment in tx.attachments.where(instance_id=instance_id):
        tx.attachments.delete(attachment.id)
        volume = tx.volumes.get(attachment.volume_id)
        if volume is None:
            continue
        if attachment.delete_on_termination or volume.state is VolumeState.CREATING:
            tx.tags.delete(volume.id, None)
            tx.volumes.delete(volume.id)
        else:
            tx.volumes.update(volume.id, state=VolumeState.AVAILABLE)
    for interface in tx.network_interfaces.where(instance_id=instance_id):
        tx.tags.delete(interface.id, None)
        tx.network_interfaces.delete(interface.id)
    _set_state(tx, instance_id, InstanceState.TERMINATED, terminated_us=now_us)
