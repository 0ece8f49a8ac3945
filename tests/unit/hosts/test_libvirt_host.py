"""How calls to libvirt and the session are put together, where the lab cannot bring the moment about at will."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import libvirt
import pytest

from minicloud.clock import SystemClock
from minicloud.errors import PermanentError, TransientError
from minicloud.hosts import libvirt_host as module
from minicloud.hosts.libvirt_host import END_ATTEMPTS, LibvirtHost
from minicloud.model.plans import DomainDisk, DomainSpec, DomainStatus

NAME = "i-0123456789abcdef0"
SPEC = DomainSpec(
    name=NAME,
    uuid="ec2a1b2c-3d4e-4f50-8162-738495a6b7c8",
    account_id="123456789012",
    virt_type="qemu",
    machine_type="pc-q35-7.2",
    boot_mode="legacy-bios",
    vcpus=1,
    memory_mib=64,
    disks=(),
    nics=(),
    console_path="/c.log",
    root_ports=2,
)
RUNNING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
SHUTOFF = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN)
HALF_STARTED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
FULL_POOL = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
LONG = 60.0


def failure(code: int, domain: int = libvirt.VIR_FROM_QEMU) -> libvirt.libvirtError:
    made = libvirt.libvirtError("made by a test")
    made.err = (code, domain, "said", 2, None, None, None, 0, 0)
    return made


class Domain:
    """A domain of the libvirt below, with the calls a host makes."""

    def __init__(self, libvirtd: Libvirt) -> None:
        self.libvirtd = libvirtd
        self.state_now: tuple[int, int] = SHUTOFF
        self.is_ours = True

    def log(self, call: str) -> None:
        self.libvirtd.log(call)

    def name(self) -> str:
        return NAME

    def UUID(self) -> bytes:
        return b"uuid"

    def state(self) -> list[int]:
        self.log("state")
        return list(self.state_now)

    def metadata(self, kind: int, uri: str) -> str:
        if not self.is_ours:
            raise failure(libvirt.VIR_ERR_NO_DOMAIN_METADATA)
        return f'<instance id="{NAME}" account="1" spec="2"/>'

    def createWithFlags(self, flags: int) -> None:
        self.log("create")
        if self.state_now != SHUTOFF:
            raise failure(libvirt.VIR_ERR_OPERATION_INVALID)
        self.state_now = RUNNING
        self.libvirtd.pids[NAME] = 77

    def destroyFlags(self, flags: int) -> None:
        self.log("destroy")
        if self.state_now == SHUTOFF:
            raise failure(libvirt.VIR_ERR_OPERATION_INVALID)
        self.state_now = SHUTOFF
        if not self.libvirtd.qemu_survives:
            self.libvirtd.pids.pop(NAME, None)

    def undefineFlags(self, flags: int) -> None:
        self.log("undefine")
        self.libvirtd.domain = None

    def resume(self) -> None:
        self.log("resume")
        self.state_now = RUNNING

    def shutdownFlags(self, flags: int) -> None:
        self.log("shutdown")
        if self.state_now == SHUTOFF:
            raise failure(libvirt.VIR_ERR_OPERATION_INVALID)


class Libvirt:
    """Connections, a connection, and the session of the same host: one domain at most, calls in `calls`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.domain: Domain | None = None
        self.pids: dict[str, int] = {}
        self.qemu_survives = False
        self.offers_kvm = True
        self.before: dict[str, Callable[[], object]] = {}

    def log(self, call: str) -> None:
        self.calls.append(call)
        self.before.get(call, lambda: None)()

    # Connections

    @contextlib.contextmanager
    def lease(self) -> Iterator[Libvirt]:
        yield self

    # virConnect

    def defineXML(self, xml: str) -> Domain:
        self.log("define")
        self.domain = self.domain or Domain(self)
        return self.domain

    def lookupByName(self, name: str) -> Domain:
        self.log("lookup")
        if self.domain is None or name != NAME:
            raise failure(libvirt.VIR_ERR_NO_DOMAIN)
        return self.domain

    def getCapabilities(self) -> str:
        kvm = "<domain type='kvm'/>" if self.offers_kvm else ""
        return f"<c><guest><arch name='x86_64'><machine>pc-q35-7.2</machine>{kvm}</arch></guest></c>"

    def getVersion(self) -> int:
        return 7002000

    def getLibVersion(self) -> int:
        return 9000000

    # Session

    def call(self, verb: str, arguments: dict[str, Any], timeout_seconds: float = 30.0) -> Any:
        self.log(verb)
        if verb == "admit_domain":
            return {"pid": self.pids.get(arguments["instance_id"])}
        if verb == "qemu_processes":
            return dict(self.pids)
        if verb == "facts":
            return {"hostname": "h", "vcpus": 1, "memory_mib": 1, "kernel": "k", "boot_id": "b"}
        if verb == "probe_kvm":
            return {"virt_type": "kvm", "reason": "it ran"}
        if verb == "end_qemu":
            return {"gone": self.pids.pop(arguments["instance_id"], None) is not None}
        raise AssertionError(verb)

    def close(self) -> None:
        pass


@pytest.fixture
def fake() -> Libvirt:
    return Libvirt()


@pytest.fixture
def host(fake: Libvirt) -> Iterator[LibvirtHost]:
    made = LibvirtHost("h-1", fake, fake, SystemClock(), "qemu")  # type: ignore[arg-type]
    yield made
    made.close()


def test_a_launch_costs_two_calls_to_libvirt_and_two_to_the_host_side(host: LibvirtHost, fake: Libvirt) -> None:
    assert host.ensure_domain(SPEC, 1) == DomainStatus("running", "unknown", 77)
    assert fake.calls == ["admit_domain", "define", "create", "admit_domain"]


def test_a_half_started_domain_is_started_anew(host: LibvirtHost, fake: Libvirt) -> None:
    fake.domain = Domain(fake)
    fake.domain.state_now = HALF_STARTED
    assert host.ensure_domain(SPEC, 1).state == "running"
    assert fake.calls.count("destroy") == 1
    assert "resume" not in fake.calls


def test_a_guest_that_waits_for_room_in_its_pool_is_left_to_wait(host: LibvirtHost, fake: Libvirt) -> None:
    fake.domain = Domain(fake)
    fake.domain.state_now = FULL_POOL
    assert host.ensure_domain(SPEC, 1).state == "paused"
    assert not {"destroy", "resume"} & set(fake.calls)


def test_a_start_that_libvirt_refuses_is_an_error_of_ours(host: LibvirtHost, fake: Libvirt) -> None:
    def refuse() -> None:
        raise failure(libvirt.VIR_ERR_CONFIG_UNSUPPORTED)

    fake.before["create"] = refuse
    with pytest.raises(PermanentError) as refusal:
        host.ensure_domain(SPEC, 1)
    assert refusal.value.code == "Server.InternalError"


def test_a_spec_that_cannot_be_is_refused_before_libvirt_is_asked(host: LibvirtHost, fake: Libvirt) -> None:
    impossible = replace(SPEC, disks=(DomainDisk("/p", "raw", "vda", "s", "a", 9),))
    with pytest.raises(PermanentError):
        host.ensure_domain(impossible, 1)
    assert fake.calls == []


def test_a_call_that_hangs_puts_its_instance_alone_in_quarantine(
    host: LibvirtHost, fake: Libvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", LONG)
    host.ensure_domain(SPEC, 1)
    gate = threading.Event()
    fake.before["shutdown"] = gate.wait
    with monkeypatch.context() as impatient, pytest.raises(TransientError, match="the outcome is unknown"):
        impatient.setattr(module, "MONITOR_SECONDS", 0.05)
        host.press_power_button(NAME, 1)
    for refused in (lambda: host.press_power_button(NAME, 2), lambda: host.ensure_domain(SPEC, 2)):
        with pytest.raises(TransientError, match="quarantine"):
            refused()
    assert host.domain_status(NAME).state == "running"
    host.press_power_button("i-00000000000000001", 1)
    # Its end is asked for all the same; the hung call returns when the QEMU it waits for is gone.
    fake.before["destroy"] = gate.set
    assert host.ensure_no_domain(NAME, 2) == DomainStatus("absent")
    assert host.ensure_domain(SPEC, 3).state == "running"


def test_an_end_is_not_claimed_while_an_older_call_may_still_define_the_domain(
    host: LibvirtHost, fake: Libvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    fake.before["define"] = gate.wait
    with monkeypatch.context() as impatient, pytest.raises(TransientError):
        impatient.setattr(module, "CALL_SECONDS", 0.2)
        host.ensure_domain(SPEC, 1)
    with monkeypatch.context() as impatient, pytest.raises(TransientError, match="still out"):
        impatient.setattr(module, "SETTLE_SECONDS", 0.05)
        host.ensure_no_domain(NAME, 2)
    del fake.before["define"]
    gate.set()
    assert host._calls.wait_settled(NAME, LONG)
    # The late call went no further than its definition, and the next end removes that.
    assert "create" not in fake.calls
    assert host.ensure_no_domain(NAME, 2) == DomainStatus("absent")
    assert fake.domain is None


def test_a_domain_that_comes_back_while_it_is_ended_is_ended_again(host: LibvirtHost, fake: Libvirt) -> None:
    returns = [1]

    class Returning(Domain):
        def undefineFlags(self, flags: int) -> None:
            super().undefineFlags(flags)
            if returns:
                returns.pop()
                fake.domain = Returning(fake)

    fake.domain = Returning(fake)
    assert host.ensure_no_domain(NAME, 1) == DomainStatus("absent")
    returns.extend([1] * END_ATTEMPTS)
    fake.domain = Returning(fake)
    with pytest.raises(TransientError, match="came back"):
        host.ensure_no_domain(NAME, 1)


def test_a_qemu_that_survives_its_domain_is_killed(host: LibvirtHost, fake: Libvirt) -> None:
    # libvirt 9.0 reports success when the process does not die in time.
    fake.qemu_survives = True
    host.ensure_domain(SPEC, 1)
    assert host.ensure_no_domain(NAME, 1) == DomainStatus("absent")
    assert fake.calls.count("end_qemu") == 1


def test_a_domain_that_is_not_ours_is_left_alone(host: LibvirtHost, fake: Libvirt) -> None:
    fake.domain = Domain(fake)
    fake.domain.is_ours = False
    fake.domain.state_now = RUNNING
    with pytest.raises(PermanentError, match="not minicloud's"):
        host.ensure_no_domain(NAME, 1)
    assert not {"destroy", "undefine"} & set(fake.calls)


def test_no_more_is_asked_of_monitors_when_many_calls_hang(
    host: LibvirtHost, fake: Libvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HUNG", 1)
    monkeypatch.setattr(module, "MONITOR_SECONDS", 0.05)
    host.ensure_domain(SPEC, 1)
    gate = threading.Event()
    fake.before["shutdown"] = gate.wait
    with pytest.raises(TransientError):
        host.press_power_button(NAME, 1)
    with pytest.raises(TransientError, match="1 calls hang"):
        host.press_power_button("i-00000000000000001", 1)
    gate.set()


@pytest.mark.parametrize(
    ("configured", "offered", "expected", "probed"),
    [
        ("auto", True, "kvm", True),
        ("auto", False, "qemu", False),
        ("kvm", False, "kvm", False),
        ("qemu", True, "qemu", False),
    ],
)
def test_kvm_is_probed_where_it_is_left_to_us_and_libvirt_offers_it(
    fake: Libvirt, configured: str, offered: bool, expected: str, probed: bool
) -> None:
    fake.offers_kvm = offered
    host = LibvirtHost("h-1", fake, fake, SystemClock(), configured)  # type: ignore[arg-type]
    with contextlib.closing(host):
        facts = host.facts()
    assert facts.virt_type == expected
    assert facts.virt_type_reason
    assert ("probe_kvm" in fake.calls) is probed
