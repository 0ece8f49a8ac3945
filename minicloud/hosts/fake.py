"""A KVM host in memory, held to protocol.py by the same contract suite as the real one. For tests and simulations only.

Honest where it hurts: guests answer the power button late or never, QEMU outlives its domain, calls fail before,
halfway and after doing their work, replies and events get lost. Nothing happens by itself: time is the injected
clock's, and what is due happens in `settle`, which every call begins with and whoever moves the clock calls.

`violations` collects what no correct controller ever causes (two machines on one disk, a disk removed under a running
one); calls go on, tests look at it. fake_faults.py says what goes wrong when.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from minicloud.clock import Clock
from minicloud.errors import PermanentError, TransientError
from minicloud.hosts.fake_faults import NO_FAULTS, ControllerCrash, EventFate, Fault, Faults
from minicloud.model.plans import (
    REBOOTED,
    DiskPlan,
    DomainSpec,
    DomainStatus,
    HostEvent,
    HostFacts,
    InstancePlan,
    InstanceRemoval,
    Inventory,
    JobStatus,
    PortPlan,
)

# The host side's own codes (hostside/codes.py, which only runs on hosts).
MISSING_BASE = "missing-base"
NO_SPACE = "Server.InsufficientInstanceCapacity"
JOB_LOST = "job-lost"
# What an import finds in whatever file it is given.
IMPORTED_BYTES = 2**30

Listener = Callable[[HostEvent], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Guest:
    """How a machine behaves. A guest that has not booted ignores its power button, as real ones do.

    `death_seconds` is how long QEMU lives on after its domain was destroyed.
    """

    boot_seconds: float = 2.0
    obeys_acpi: bool = True
    shutdown_seconds: float = 1.0
    death_seconds: float = 0.0


@dataclass(slots=True)
class Disk:
    """A disk file. `writer` is the last machine that ran on it: what it wrote there is what must not be lost."""

    plan: DiskPlan
    writer: str | None = None


@dataclass(slots=True)
class Domain:
    """A defined domain. `state` as in DomainStatus; `run` numbers its lives."""

    spec: DomainSpec
    state: str = "shutoff"
    reason: str = "unknown"
    pid: int | None = None
    run: int = 0
    booted_at: float = 0.0
    reboots: int = 0


@dataclass(slots=True)
class Job:
    """A detached job: done at `ends_at` unless something ends it before."""

    kind: str
    arguments: dict[str, object]
    started_at: float
    ends_at: float
    status: JobStatus = field(default_factory=lambda: JobStatus("running"))


@dataclass(order=True, slots=True)
class _Timer:
    at: float
    number: int
    act: Callable[[], None] = field(compare=False)


class FakeHost:
    """One KVM host.

    `guest_of` says how an instance's machine behaves, `sleep` moves the clock while a call hangs.
    """

    def __init__(
        self,
        host_id: str,
        clock: Clock,
        *,
        vcpus: int = 64,
        memory_mib: int = 65536,
        pool_bytes: int = 2**50,
        guest_of: Callable[[str], Guest] = lambda _instance_id: Guest(),
        faults: Faults = NO_FAULTS,
        sleep: Callable[[float], None] = lambda _seconds: None,
        job_seconds: float = 1.0,
    ) -> None:
        self._host_id = host_id
        self._clock = clock
        self._vcpus = vcpus
        self._memory_mib = memory_mib
        self.pool_bytes = pool_bytes
        self.guest_of = guest_of
        self.faults = faults
        self._sleep = sleep
        self.job_seconds = job_seconds
        self.lock = threading.RLock()
        self.is_reachable = True
        self.domains: dict[str, Domain] = {}
        # QEMU processes whose domain is gone already: pid -> the spec it still runs.
        self.leftovers: dict[int, DomainSpec] = {}
        self.disks: dict[str, Disk] = {}
        self.bases: dict[str, int] = {}
        self.ports: dict[str, PortPlan] = {}
        self.consoles: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        # Removed disks that a guest had run on: their owner must have wanted that.
        self.lost: list[str] = []
        self.violations: list[str] = []
        self.calls: list[tuple[str, str]] = []
        self._epochs: dict[str, int] = {}
        self._pids = itertools.count(1000)
        self._runs = itertools.count(1)
        self._timers: list[_Timer] = []
        self._numbers = itertools.count()
        self._listeners: list[Listener] = []
        self._boot = 1

    # Host

    @property
    def host_id(self) -> str:
        return self._host_id

    def facts(self) -> HostFacts:
        return self._look(
            "facts",
            "",
            lambda: HostFacts(
                hostname=self._host_id,
                vcpus=self._vcpus,
                memory_mib=self._memory_mib,
                virt_type="qemu",
                virt_type_reason="a host in memory has no KVM",
                machine_type="pc-q35-7.2",
                qemu_version="7.2.0",
                libvirt_version="9.0.0",
                kernel="fake",
                boot_id=f"boot-{self._boot}",
            ),
        )

    def ensure_instance(self, plan: InstancePlan, epoch: int) -> None:
        def half() -> None:
            self._ensure_disks(plan.disks[:1])
            self._ensure_ports(plan.ports[:0])

        def act() -> None:
            self._ensure_disks(plan.disks)
            self._ensure_ports(plan.ports)
            self.consoles.setdefault(plan.instance_id, b"")

        self._change("ensure_instance", plan.instance_id, epoch, act, half)

    def ensure_no_instance(self, removal: InstanceRemoval, epoch: int) -> None:
        def half() -> None:
            for port_id in removal.port_ids[:1]:
                self.ports.pop(port_id, None)

        def act() -> None:
            if self._live_spec(removal.instance_id) is not None:
                self._violate(f"{removal.instance_id} is taken away while its QEMU lives")
            for port_id in removal.port_ids:
                self.ports.pop(port_id, None)
            for path in removal.disk_paths:
                user = self._user_of(path)
                if user is not None:
                    self._violate(f"{path} is removed under {user}, which runs on it")
                disk = self.disks.pop(path, None)
                if disk is not None and disk.writer is not None:
                    self.lost.append(path)
            if removal.console_path is not None:
                self.consoles.pop(removal.instance_id, None)

        self._change("ensure_no_instance", removal.instance_id, epoch, act, half)

    def ensure_domain(self, spec: DomainSpec, epoch: int) -> DomainStatus:
        def half() -> None:
            # libvirt starts QEMU paused; a controller or libvirtd that dies here leaves it so.
            domain = self._define(spec)
            if domain.pid is None:
                self._start(domain)
                domain.state, domain.reason = "paused", "unknown"

        def act() -> DomainStatus:
            domain = self._define(spec)
            if domain.state == "paused":
                domain.state = "running"
            elif domain.pid is None:
                self._start(domain)
            return self._status(spec.name)

        return self._change("ensure_domain", spec.name, epoch, act, half)

    def ensure_no_domain(self, instance_id: str, epoch: int) -> DomainStatus:
        def half() -> None:
            domain = self.domains.get(instance_id)
            if domain is not None:
                self._end(domain, "destroyed", self.guest_of(instance_id).death_seconds)

        def act() -> DomainStatus:
            half()
            domain = self.domains.pop(instance_id, None)
            if domain is not None and domain.pid is not None:
                self.leftovers[domain.pid] = domain.spec
            return self._status(instance_id)

        return self._change("ensure_no_domain", instance_id, epoch, act, half)

    def domain_status(self, instance_id: str) -> DomainStatus:
        return self._look("domain_status", instance_id, lambda: self._status(instance_id))

    def domain_statuses(self) -> dict[str, DomainStatus]:
        return self._look("domain_statuses", "", self._statuses)

    def press_power_button(self, instance_id: str, epoch: int) -> None:
        self._change("press_power_button", instance_id, epoch, lambda: self._press(instance_id, self._power_off))

    def reboot_domain(self, instance_id: str, epoch: int) -> None:
        self._change("reboot_domain", instance_id, epoch, lambda: self._press(instance_id, self._restart))

    def reset_domain(self, instance_id: str, epoch: int) -> None:
        def act() -> None:
            domain = self.domains.get(instance_id)
            if domain is not None and domain.state == "running":
                self._restart(domain)

        self._change("reset_domain", instance_id, epoch, act)

    def read_console(self, instance_id: str, max_bytes: int) -> bytes:
        def act() -> bytes:
            text = self.consoles.get(instance_id, b"")
            return text[-max_bytes:] if max_bytes > 0 else b""

        return self._look("read_console", instance_id, act)

    def start_job(self, name: str, kind: str, arguments: dict[str, object], epoch: int) -> JobStatus:
        def act() -> JobStatus:
            if name not in self.jobs:
                now = self._clock.monotonic_seconds()
                self.jobs[name] = Job(kind, arguments, now, now + self.job_seconds)
                self._after(self.job_seconds, lambda: self._settle_job(name))
            return self._job_status(name)

        return self._change("start_job", name, epoch, act)

    def job_status(self, name: str) -> JobStatus:
        return self._look("job_status", name, lambda: self._job_status(name))

    def clean_job(self, name: str, epoch: int) -> None:
        self._change("clean_job", name, epoch, lambda: self.jobs.pop(name, None))

    def inventory(self) -> Inventory:
        return self._look("inventory", "", self.holdings)

    def pool_usage(self, pool_folder: str) -> tuple[int, int]:
        return self._look("pool_usage", pool_folder, lambda: (self.pool_bytes, self.pool_bytes - self._used_bytes()))

    def close(self) -> None:
        """There is nothing to let go."""

    # What befalls a host

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` for every event that faults let through."""
        self._listeners.append(listener)

    def settle(self) -> None:
        """Let everything happen that the clock says has happened by now."""
        with self.lock:
            now = self._clock.monotonic_seconds()
            while self._timers and self._timers[0].at <= now:
                heapq.heappop(self._timers).act()

    def next_at(self) -> float | None:
        """Return the monotonic second at which something happens next."""
        with self.lock:
            return self._timers[0].at if self._timers else None

    def disconnect(self) -> None:
        """Make the host unreachable; what runs there runs on."""
        with self.lock:
            if self.is_reachable:
                self.is_reachable = False
                self._deliver(HostEvent(self._host_id, "disconnected", detail="connection lost"))

    def reconnect(self) -> None:
        """Make the host reachable again. Events of the time between are lost."""
        self.settle()
        with self.lock:
            if not self.is_reachable:
                self.is_reachable = True
                self._deliver(HostEvent(self._host_id, "connected"))

    def restart_libvirtd(self) -> None:
        """Guests and jobs live on; the connection drops and every event on its way is lost."""
        self.disconnect()
        self.reconnect()

    def power_cycle(self) -> None:
        """Every machine and job dies with the host; disks and definitions stay. It comes back by `reconnect`."""
        self.settle()
        with self.lock:
            self.disconnect()
            self._timers.clear()
            self.leftovers.clear()
            for domain in self.domains.values():
                domain.state, domain.reason, domain.pid = "shutoff", "unknown", None
            for name, job in self.jobs.items():
                if job.status.state == "running":
                    self.jobs[name].status = JobStatus("failed", error_code=JOB_LOST, error="the host restarted")
            self._boot += 1

    def guest_powers_off(self, instance_id: str) -> None:
        """The guest shuts itself down, as `poweroff` inside it does."""
        self.settle()
        with self.lock:
            domain = self.domains.get(instance_id)
            if domain is not None and domain.pid is not None:
                self._power_off(domain)

    def pause(self, instance_id: str) -> None:
        """The machine is paused behind everybody's back, as a full disk or an operator does it."""
        with self.lock:
            domain = self.domains.get(instance_id)
            if domain is not None and domain.state == "running":
                domain.state = "paused"
                self._emit(instance_id, "suspended")

    def qemu_crashes(self, instance_id: str) -> None:
        """The machine's QEMU dies."""
        self.settle()
        with self.lock:
            domain = self.domains.get(instance_id)
            if domain is not None and domain.pid is not None:
                self._end(domain, "crashed", 0.0)

    def holdings(self) -> Inventory:
        """Return the inventory as it is, whatever befalls calls."""
        with self.lock:
            return Inventory(
                domains=self._statuses(),
                ports=tuple(sorted(self.ports)),
                routers=tuple(sorted({port.router.netns for port in self.ports.values()})),
                disk_paths=tuple(sorted(self.disks)),
                jobs=tuple(sorted(self.jobs)),
            )

    def live_specs(self) -> list[DomainSpec]:
        """Return the machines whose QEMU lives, defined or not."""
        with self.lock:
            return [domain.spec for domain in self.domains.values() if domain.pid is not None] + list(
                self.leftovers.values()
            )

    # Calls

    def _look(self, verb: str, resource_id: str, act: Callable[[], T]) -> T:
        """A verb that changes nothing."""
        self.settle()
        with self.lock:
            self.calls.append((verb, resource_id))
            fault = self._fault(verb, resource_id)
            if fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.CRASH_HALFWAY):
                raise ControllerCrash(f"{verb} {resource_id}")
            if fault is Fault.PERMANENT:
                raise PermanentError("Server.InternalError", f"{verb} {resource_id}: injected")
            if fault is not None:
                self._wait_out(fault)
                raise TransientError(f"{verb} {resource_id}: injected {fault.value}")
            return act()

    def _change(
        self,
        verb: str,
        resource_id: str,
        epoch: int,
        act: Callable[[], T],
        half: Callable[[], object] = lambda: None,
    ) -> T:
        """A verb that changes the world under the fence of a resource; `half` is as far as it may get when it fails."""
        self.settle()
        with self.lock:
            self.calls.append((verb, resource_id))
            fault = self._fault(verb, resource_id)
            if fault is Fault.CRASH_BEFORE:
                raise ControllerCrash(f"before {verb} {resource_id}")
            if fault is Fault.TRANSIENT:
                raise TransientError(f"{verb} {resource_id}: injected")
            if fault is Fault.PERMANENT:
                raise PermanentError("Server.InternalError", f"{verb} {resource_id}: injected")
            if fault is Fault.HANG:
                # The caller gives up, and the call arrives all the same, later than anybody expects it.
                self._after(self.faults.late_seconds(), lambda: self._arrive_late(resource_id, epoch, act))
                self._wait_out(fault)
                raise TransientError(f"{verb} {resource_id}: no answer in time")
            self._admit(resource_id, epoch)
            if fault in (Fault.HALFWAY, Fault.CRASH_HALFWAY):
                half()
                if fault is Fault.CRASH_HALFWAY:
                    raise ControllerCrash(f"halfway through {verb} {resource_id}")
                raise TransientError(f"{verb} {resource_id}: injected halfway")
            result = act()
            if fault is Fault.CRASH_AFTER:
                raise ControllerCrash(f"after {verb} {resource_id}")
            if fault is Fault.LOST_REPLY:
                raise TransientError(f"{verb} {resource_id}: the reply was lost")
            return result

    def _fault(self, verb: str, resource_id: str) -> Fault | None:
        if not self.is_reachable:
            raise TransientError(f"{self._host_id} cannot be reached")
        return self.faults.choose(self._host_id, verb, resource_id)

    def _wait_out(self, fault: Fault) -> None:
        if fault is Fault.HANG:
            self._sleep(self.faults.deadline_seconds)

    def _arrive_late(self, resource_id: str, epoch: int, act: Callable[[], object]) -> None:
        try:
            self._admit(resource_id, epoch)
            act()
        except (TransientError, PermanentError):
            pass

    def _admit(self, resource_id: str, epoch: int) -> None:
        seen = self._epochs.get(resource_id, epoch)
        if epoch < seen:
            raise TransientError(f"{resource_id}: epoch {epoch} is older than {seen}")
        self._epochs[resource_id] = epoch

    # Disks and ports

    def _ensure_disks(self, plans: Iterable[DiskPlan]) -> None:
        for plan in plans:
            existing = self.disks.get(plan.path)
            if existing is not None:
                if (existing.plan.format, existing.plan.size_bytes) != (plan.format, plan.size_bytes):
                    raise PermanentError("Server.InternalError", f"{plan.path} exists with another form")
                continue
            if not plan.may_create:
                raise PermanentError("Server.InternalError", f"{plan.path} was used by a guest and is gone")
            if plan.base_path is not None and plan.base_path not in self.bases:
                raise PermanentError(MISSING_BASE, f"{plan.base_path} is not on this host")
            if self._used_bytes() + plan.size_bytes > self.pool_bytes:
                raise PermanentError(NO_SPACE, f"{plan.path}: no space left")
            self.disks[plan.path] = Disk(plan)

    def _ensure_ports(self, plans: Iterable[PortPlan]) -> None:
        for plan in plans:
            for other in self.ports.values():
                if other.id != plan.id and (other.mac == plan.mac or other.private_ip == plan.private_ip):
                    self._violate(f"{plan.id} has {other.id}'s address")
            self.ports[plan.id] = plan

    def _used_bytes(self) -> int:
        return sum(disk.plan.size_bytes for disk in self.disks.values())

    def _user_of(self, path: str) -> str | None:
        """Return the instance whose living QEMU has a disk open."""
        for spec in self.live_specs():
            if any(disk.path == path for disk in spec.disks):
                return spec.name
        return None

    # Machines

    def _define(self, spec: DomainSpec) -> Domain:
        if spec.name not in self.domains:
            self.domains[spec.name] = Domain(spec)
        domain = self.domains[spec.name]
        if domain.pid is None:
            domain.spec = spec
        return domain

    def _start(self, domain: Domain) -> None:
        spec = domain.spec
        if any(leftover.name == spec.name for leftover in self.leftovers.values()):
            raise TransientError(f"{spec.name}: the QEMU of its last life still holds its disks")
        for disk in spec.disks:
            if disk.path not in self.disks:
                raise PermanentError("Server.InternalError", f"{spec.name}: {disk.path} does not exist")
            user = self._user_of(disk.path)
            if user is not None:
                self._violate(f"{spec.name} starts on {disk.path}, which {user} runs on")
        taps = {port.tap for port in self.ports.values()}
        for nic in spec.nics:
            if nic.tap not in taps:
                raise PermanentError("Server.InternalError", f"{spec.name}: there is no tap {nic.tap}")
        for disk in spec.disks:
            self.disks[disk.path].writer = spec.name
        domain.state, domain.reason, domain.pid = "running", "unknown", next(self._pids)
        domain.run = next(self._runs)
        domain.booted_at = self._clock.monotonic_seconds() + self.guest_of(spec.name).boot_seconds
        self._print(spec.name, f"life {domain.run}\n")
        self._emit(spec.name, "started")

    def _end(self, domain: Domain, reason: str, death_seconds: float) -> None:
        """End a machine; its process follows after `death_seconds`."""
        if domain.pid is None or domain.state == "shutoff":
            return
        pid = domain.pid
        domain.state, domain.reason = "shutoff", reason
        if death_seconds > 0:
            self._after(death_seconds, lambda: self._bury(pid))
        else:
            domain.pid = None
        self._emit(domain.spec.name, "crashed" if reason == "crashed" else "stopped")

    def _bury(self, pid: int) -> None:
        self.leftovers.pop(pid, None)
        for domain in self.domains.values():
            if domain.pid == pid:
                domain.pid = None

    def _press(self, instance_id: str, then: Callable[[Domain], None]) -> None:
        domain = self.domains.get(instance_id)
        guest = self.guest_of(instance_id)
        if domain is None or domain.state != "running":
            return
        if not guest.obeys_acpi or self._clock.monotonic_seconds() < domain.booted_at:
            return
        run, reboots = domain.run, domain.reboots

        def act() -> None:
            if (domain.run, domain.reboots) == (run, reboots) and domain.state == "running":
                then(domain)

        self._after(guest.shutdown_seconds, act)

    def _power_off(self, domain: Domain) -> None:
        self._end(domain, "shutdown", 0.0)

    def _restart(self, domain: Domain) -> None:
        domain.reboots += 1
        domain.booted_at = self._clock.monotonic_seconds() + self.guest_of(domain.spec.name).boot_seconds
        self._print(domain.spec.name, f"reboot {domain.reboots}\n")
        self._emit(domain.spec.name, REBOOTED)

    def _print(self, instance_id: str, text: str) -> None:
        self.consoles[instance_id] = self.consoles.get(instance_id, b"") + text.encode()

    def _live_spec(self, instance_id: str) -> DomainSpec | None:
        return next((spec for spec in self.live_specs() if spec.name == instance_id), None)

    def _status(self, instance_id: str) -> DomainStatus:
        domain = self.domains.get(instance_id)
        if domain is not None:
            state = "stopping" if domain.state == "shutoff" and domain.pid is not None else domain.state
            return DomainStatus(state, domain.reason, domain.pid)
        for pid, spec in self.leftovers.items():
            if spec.name == instance_id:
                return DomainStatus("stopping", "destroyed", pid)
        return DomainStatus("absent")

    def _statuses(self) -> dict[str, DomainStatus]:
        names = {*self.domains, *(spec.name for spec in self.leftovers.values())}
        return {name: self._status(name) for name in sorted(names)}

    # Jobs, time and events

    def _job_status(self, name: str) -> JobStatus:
        job = self.jobs.get(name)
        if job is None:
            return JobStatus("absent")
        if job.status.state == "running":
            done = (self._clock.monotonic_seconds() - job.started_at) / max(job.ends_at - job.started_at, 1e-9)
            return replace(job.status, progress_percent=min(99, int(done * 100)))
        return job.status

    def _settle_job(self, name: str) -> None:
        job = self.jobs.get(name)
        if job is None or job.status.state != "running" or job.ends_at > self._clock.monotonic_seconds():
            return
        failure = self.faults.job_failure(name)
        if failure is not None:
            job.status = JobStatus("failed", error_code=failure, error="injected")
            return
        if job.kind == "fill_base":
            path, size_bytes = job.arguments["path"], job.arguments["size_bytes"]
            if not isinstance(path, str) or not isinstance(size_bytes, int):
                raise TypeError(f"{name}: {job.arguments}")
            self.bases[path] = size_bytes
        result: dict[str, object] = {}
        if job.kind == "import_disk":
            result = {"virtual_size_bytes": IMPORTED_BYTES, "manifest_digest": "0" * 64}
        job.status = JobStatus("succeeded", 100, result)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        at = self._clock.monotonic_seconds() + seconds
        heapq.heappush(self._timers, _Timer(at, next(self._numbers), act))

    def _emit(self, instance_id: str, detail: str) -> None:
        event = HostEvent(self._host_id, "domain", instance_id, detail)
        for fate in self.faults.event_fates(event):
            if fate is EventFate.NOW:
                self._deliver(event)
            elif fate is EventFate.LATE:
                self._after(self.faults.late_seconds(), lambda: self._deliver(event))

    def _deliver(self, event: HostEvent) -> None:
        if self.is_reachable or event.kind == "disconnected":
            for listener in self._listeners:
                listener(event)

    def _violate(self, what: str) -> None:
        self.violations.append(f"{self._host_id}: {what}")


class FakeHostDirectory:
    """Hosts in memory by id."""

    def __init__(self, hosts: Iterable[FakeHost]) -> None:
        self.hosts = {host.host_id: host for host in hosts}

    def get(self, host_id: str) -> FakeHost:
        """Return the host. Raises TransientError if there is no such host, or while it cannot be reached."""
        host = self.hosts.get(host_id)
        if host is None:
            raise TransientError(f"{host_id} is not connected")
        if not host.is_reachable:
            raise TransientError(f"{host_id} cannot be reached")
        return host

    def subscribe(self, listener: Listener) -> None:
        for host in self.hosts.values():
            host.subscribe(listener)
