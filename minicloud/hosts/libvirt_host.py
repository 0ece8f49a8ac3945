"""A KVM host for real: libvirt for domains, a host-side session for everything else. Implements protocol.Host.

Owns how each method becomes libvirt calls and verbs, and what an outcome that was not seen means. Decides nothing about
instances: what to start or end is the controller's business. Built by directory.py.

Bounds: every libvirt call runs in a thread that can be left behind (bounded_calls.py). An instance with such a call
still out is in quarantine: nothing but its end is asked of libvirt until the call returns, because what it will still
do is not known. A create that comes late finds no domain: `ensure_no_domain` ends when libvirt knows the name no more.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from typing import TypeVar

import libvirt

from minicloud import ids
from minicloud.clock import Clock
from minicloud.errors import PermanentError, TransientError
from minicloud.hosts.bounded_calls import BoundedCalls, Call
from minicloud.hosts.connections import Connections
from minicloud.hosts.domain_states import ACTIVE_STATES, PAUSED_HALF_STARTED, PAUSED_RESUMABLE, parse_state
from minicloud.hosts.domain_xml import METADATA_NAMESPACE, parse_metadata, render_domain
from minicloud.hosts.epochs import EpochFences
from minicloud.hosts.facts import Versions, make_facts, read_versions
from minicloud.hosts.libvirt_errors import INTERNAL_ERROR, is_no_domain, is_wrong_state, translate, translate_define
from minicloud.hosts.protocol import HOST_CALL_SECONDS
from minicloud.hosts.session_jobs import Session, SessionJobs
from minicloud.model import names
from minicloud.model.plans import (
    DomainSpec,
    DomainStatus,
    HostFacts,
    InstancePlan,
    InstanceRemoval,
    Inventory,
    to_json,
)

T = TypeVar("T")

# Every public method ends before its caller's bound; the rest is for the way there and back.
CALL_SECONDS = HOST_CALL_SECONDS - 2.0
# Calls that wait for QEMU's monitor, and so hang with it, leave room for something else in the same step.
MONITOR_SECONDS = 10.0
END_QEMU_SECONDS = 5.0
SETTLE_SECONDS = 1.0
MAX_THREADS = 48
# libvirtd has 20 workers; with this many waiting for hung guests, ask no more of what could join them.
MAX_HUNG = 12
# The last one finds that the name is gone.
END_ATTEMPTS = 3

UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)

assert MONITOR_SECONDS < CALL_SECONDS < HOST_CALL_SECONDS

log = logging.getLogger(__name__)


class LibvirtHost(SessionJobs):
    """One KVM host behind a libvirt URI and a session. `virt_type` is the configuration's: auto, kvm or qemu."""

    def __init__(
        self, host_id: str, connections: Connections, session: Session, clock: Clock, virt_type: str = "auto"
    ) -> None:
        self._host_id = host_id
        self._connections = connections
        super().__init__(session)
        self._clock = clock
        self._virt_type = virt_type
        self._calls = BoundedCalls(f"libvirt-{host_id}", MAX_THREADS)
        self._fences = EpochFences()
        # Whether a domain bears our metadata, by uuid: asking again at every poll would cost a call for each.
        self._ours: dict[bytes, bool] = {}

    @property
    def host_id(self) -> str:
        return self._host_id

    def facts(self) -> HostFacts:
        deadline = self._deadline()
        measured = self._session.call("facts", {}, deadline.left())
        versions = self._libvirt(
            "asking for capabilities", lambda connection, call: read_versions(connection), deadline.left()
        )
        return make_facts(measured, versions, *self._choose_virt_type(versions, deadline))

    def ensure_instance(self, plan: InstancePlan, epoch: int) -> None:
        self._session.call("ensure_instance", {"plan": to_json(plan), "epoch": epoch}, CALL_SECONDS)

    def ensure_no_instance(self, removal: InstanceRemoval, epoch: int) -> None:
        self._session.call("ensure_no_instance", {"removal": to_json(removal), "epoch": epoch}, CALL_SECONDS)

    def ensure_domain(self, spec: DomainSpec, epoch: int) -> DomainStatus:
        deadline = self._deadline()
        try:
            xml = render_domain(spec)
        except ValueError as error:
            raise PermanentError(INTERNAL_ERROR, str(error)) from error
        with self._fences.held(spec.name, epoch, deadline.left()):
            self._refuse_quarantined(spec.name)
            pid = self._admit(spec.name, epoch, deadline)
            if pid is not None:
                self._end_lost_qemu(spec.name, epoch, deadline)
            status = self._libvirt(
                f"starting {spec.name}",
                lambda connection, call: self._start(connection, call, spec.name, xml),
                deadline.left(),
                spec.name,
            )
            if status.state not in ACTIVE_STATES:
                return status
            return DomainStatus(status.state, status.reason, self._admit(spec.name, epoch, deadline))

    def ensure_no_domain(self, instance_id: str, epoch: int) -> DomainStatus:
        deadline = self._deadline()
        with self._fences.held(instance_id, epoch, deadline.left()):
            self._admit(instance_id, epoch, deadline)
            self._libvirt(
                f"ending {instance_id}",
                lambda connection, call: self._end(connection, instance_id),
                deadline.left(),
                instance_id,
            )
            if not self._calls.wait_settled(instance_id, min(SETTLE_SECONDS, deadline.left())):
                raise TransientError(f"{instance_id}: a call from before is still out; it may define the domain again")
            status = self._look(instance_id, deadline)
            if status.pid is None:
                return status
            self._end_qemu(instance_id, status.pid, epoch, deadline)
            return self._look(instance_id, deadline)

    def domain_status(self, instance_id: str) -> DomainStatus:
        return self._look(instance_id, self._deadline())

    def domain_statuses(self) -> dict[str, DomainStatus]:
        return self._look_at_all(self._deadline())

    def press_power_button(self, instance_id: str, epoch: int) -> None:
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        self._act(instance_id, epoch, "pressing the power button of", lambda domain: domain.shutdownFlags(flags))

    def reboot_domain(self, instance_id: str, epoch: int) -> None:
        flags = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
        self._act(instance_id, epoch, "rebooting", lambda domain: domain.reboot(flags))

    def reset_domain(self, instance_id: str, epoch: int) -> None:
        self._act(instance_id, epoch, "resetting", lambda domain: domain.reset(0))

    def read_console(self, instance_id: str, max_bytes: int) -> bytes:
        arguments = {"path": names.console_path(instance_id), "max_bytes": max_bytes}
        return base64.b64decode(self._session.call("read_console", arguments, CALL_SECONDS))

    def inventory(self) -> Inventory:
        deadline = self._deadline()
        held = self._session.call("inventory", {}, deadline.left())
        return Inventory(
            domains=self._look_at_all(deadline),
            ports=tuple(held["ports"]),
            routers=tuple(held["routers"]),
            disk_paths=tuple(held["disk_paths"]),
            jobs=tuple(held["jobs"]),
        )

    def pool_usage(self, pool_folder: str) -> tuple[int, int]:
        usage = self._session.call("pool_usage", {"pool_folder": pool_folder}, CALL_SECONDS)
        return usage["capacity_bytes"], usage["free_bytes"]

    def check(self) -> None:
        """Make sure the session works, which also opens it before the first launch needs it. Raises HostError."""
        self._session.call("qemu_processes", {"names": []}, CALL_SECONDS)

    def close(self) -> None:
        self._connections.close()
        self._session.close()
        self._calls.close()

    # What several methods share.

    def _deadline(self) -> _Deadline:
        return _Deadline(self._clock, CALL_SECONDS)

    def _admit(self, instance_id: str, epoch: int, deadline: _Deadline) -> int | None:
        """Show the epoch to the host's own fence; return the pid that libvirt's pid file names, if it lives."""
        arguments = {"instance_id": instance_id, "epoch": epoch}
        pid: int | None = self._session.call("admit_domain", arguments, deadline.left())["pid"]
        return pid

    def _choose_virt_type(self, versions: Versions, deadline: _Deadline) -> tuple[str, str]:
        """Return what guests run under, and why."""
        if self._virt_type != "auto":
            return self._virt_type, f"the configuration says {self._virt_type}"
        if not versions.offers_kvm:
            return "qemu", "libvirt offers no KVM: there is no /dev/kvm, or its QEMU user may not open it"
        answer = self._session.call("probe_kvm", {}, deadline.left())
        return answer["virt_type"], answer["reason"]

    def _refuse_quarantined(self, instance_id: str) -> None:
        if self._calls.hung(instance_id):
            raise TransientError(f"{instance_id}: in quarantine: a call to libvirt about it has not returned")

    def _libvirt(
        self,
        what: str,
        work: Callable[[libvirt.virConnect, Call], T],
        timeout_seconds: float,
        instance_id: str | None = None,
    ) -> T:
        """Run `work` on a connection. Raises TransientError or PermanentError, nothing of libvirt's."""

        def leased(call: Call) -> T:
            with self._connections.lease() as connection:
                try:
                    return work(connection, call)
                except libvirt.libvirtError as error:
                    raise translate(error, f"{self._host_id}: {what}") from error

        return self._calls.run(what, leased, timeout_seconds, instance_id)

    def _act(self, instance_id: str, epoch: int, doing: str, action: Callable[[libvirt.virDomain], object]) -> None:
        """Do something to a domain through QEMU's monitor; nothing if the domain is absent or not active."""

        def work(connection: libvirt.virConnect, call: Call) -> None:
            _unless_over(lambda: action(connection.lookupByName(instance_id)))

        deadline = self._deadline()
        with self._fences.held(instance_id, epoch, deadline.left()):
            self._refuse_quarantined(instance_id)
            if self._calls.hung_total() >= MAX_HUNG:
                raise TransientError(f"{self._host_id}: {MAX_HUNG} calls hang; nothing more is asked of monitors")
            self._admit(instance_id, epoch, deadline)
            self._libvirt(f"{doing} {instance_id}", work, min(MONITOR_SECONDS, deadline.left()), instance_id)

    def _start(self, connection: libvirt.virConnect, call: Call, instance_id: str, xml: str) -> DomainStatus:
        """Define and start a domain: two calls, and more only where it is active already."""
        try:
            domain = connection.defineXML(xml)
        except libvirt.libvirtError as error:
            raise translate_define(error, f"{self._host_id}: defining {instance_id}") from error
        call.checkpoint()
        try:
            domain.createWithFlags(0)
            return DomainStatus("running", "unknown")
        except libvirt.libvirtError as error:
            if not is_wrong_state(error):
                raise
        state, reason = domain.state()
        if (state, reason) == PAUSED_HALF_STARTED:
            # libvirtd ended while it started this guest, which has not run: begin again.
            log.warning("%s: %s was left half-started; starting it again", self._host_id, instance_id)
            domain.destroyFlags(0)
            call.checkpoint()
            domain.createWithFlags(0)
        elif (state, reason) in PAUSED_RESUMABLE:
            domain.resume()
        return parse_state(*domain.state())

    def _end(self, connection: libvirt.virConnect, instance_id: str) -> None:
        """Destroy and undefine, until libvirt knows the name no more.

        Destroy comes first: undefining waits for what else is asked of the domain, so a hung QEMU would hold it up for
        longer than we wait. A create from before may start the domain again in between; hence the loop.
        """
        for _ in range(END_ATTEMPTS):
            try:
                domain = connection.lookupByName(instance_id)
            except libvirt.libvirtError as error:
                if is_no_domain(error):
                    return
                raise
            if not self._is_ours(domain):
                raise PermanentError(
                    INTERNAL_ERROR, f"{self._host_id}: domain {instance_id} is not minicloud's: untouched"
                )
            _destroy_and_undefine(domain)
        raise TransientError(f"{self._host_id}: {instance_id} came back {END_ATTEMPTS} times")

    def _is_ours(self, domain: libvirt.virDomain) -> bool:
        uuid = domain.UUID()
        known = self._ours.get(uuid)
        if known is None:
            try:
                text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, METADATA_NAMESPACE)
                known = parse_metadata(text) is not None
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                    raise
                known = False
            self._ours[uuid] = known
        return known

    def _look(self, instance_id: str, deadline: _Deadline) -> DomainStatus:
        def work(connection: libvirt.virConnect, call: Call) -> DomainStatus:
            try:
                return parse_state(*connection.lookupByName(instance_id).state())
            except libvirt.libvirtError as error:
                if is_no_domain(error):
                    return DomainStatus("absent")
                raise

        # libvirt first: a process that is seen after libvirt said "off" is one that outlived it.
        status = self._libvirt(f"looking at {instance_id}", work, deadline.left(), None)
        processes = self._session.call("qemu_processes", {"names": [instance_id]}, deadline.left())
        return merge_process(status, processes.get(instance_id))

    def _look_at_all(self, deadline: _Deadline) -> dict[str, DomainStatus]:
        def work(connection: libvirt.virConnect, call: Call) -> dict[str, DomainStatus]:
            found, ours = {}, {}
            # One call for all domains. Group STATE needs no monitor, so that a hung guest does not hold it up.
            for domain, stats in connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0):
                name = domain.name()
                if ids.is_well_formed(name, ids.INSTANCE):
                    ours[domain.UUID()] = self._is_ours_still(domain)
                    if ours[domain.UUID()]:
                        found[name] = parse_state(stats["state.state"], stats.get("state.reason", 0))
            self._ours = ours
            return found

        found = self._libvirt("listing domains", work, deadline.left(), None)
        processes = self._session.call("qemu_processes", {}, deadline.left())
        for name, pid in processes.items():
            if ids.is_well_formed(name, ids.INSTANCE):
                found[name] = merge_process(found.get(name, DomainStatus("absent")), pid)
        return found

    def _is_ours_still(self, domain: libvirt.virDomain) -> bool:
        try:
            return self._is_ours(domain)
        except libvirt.libvirtError as error:
            if is_no_domain(error):
                return False
            raise

    def _end_lost_qemu(self, instance_id: str, epoch: int, deadline: _Deadline) -> None:
        """Make sure that no QEMU lives which libvirt does not run: a second one must never start on the same disks."""
        status = self._look(instance_id, deadline)
        if status.pid is None or status.state in ("running", "paused"):
            return
        if not self._end_qemu(instance_id, status.pid, epoch, deadline):
            raise TransientError(f"{instance_id}: its QEMU {status.pid} does not die")

    def _end_qemu(self, instance_id: str, pid: int, epoch: int, deadline: _Deadline) -> bool:
        """Kill a QEMU that outlived its domain; False if it still lives."""
        log.warning("%s: QEMU %d of %s outlived libvirt's knowledge of it: killed", self._host_id, pid, instance_id)
        arguments = {"instance_id": instance_id, "epoch": epoch}
        gone: bool = self._session.call("end_qemu", arguments, min(END_QEMU_SECONDS, deadline.left()))["gone"]
        return gone


def merge_process(status: DomainStatus, pid: int | None) -> DomainStatus:
    """Return what libvirt says of a domain corrected by whether its QEMU lives: one that is off with a process is
    `stopping`. Pure."""
    if pid is not None and status.state in ("absent", "shutoff"):
        return DomainStatus("stopping", status.reason, pid)
    return DomainStatus(status.state, status.reason, pid)


def _unless_over(action: Callable[[], object]) -> None:
    """Do something to a domain; nothing where it is gone or not in the state for it."""
    try:
        action()
    except libvirt.libvirtError as error:
        if not is_no_domain(error) and not is_wrong_state(error):
            raise


def _destroy_and_undefine(domain: libvirt.virDomain) -> None:
    _unless_over(lambda: domain.destroyFlags(0))
    _unless_over(lambda: domain.undefineFlags(UNDEFINE_FLAGS))


class _Deadline:
    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._ends = clock.monotonic_seconds() + seconds

    def left(self) -> float:
        """Return the seconds left. Raises TransientError when there are none."""
        seconds = self._ends - self._clock.monotonic_seconds()
        if seconds <= 0:
            raise TransientError("out of time")
        return seconds
