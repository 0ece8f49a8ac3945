from __future__ import annotations

import libvirt
import pytest

from minicloud.hosts.domain_states import PAUSED_HALF_STARTED, PAUSED_RESUMABLE, parse_state
from minicloud.hosts.events import describe_lifecycle
from minicloud.hosts.libvirt_host import merge_process
from minicloud.model.plans import DomainStatus


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED, DomainStatus("running")),
        # The number of a reason means something else in another state: 1 is "shutdown" only when it is off.
        (libvirt.VIR_DOMAIN_RUNNING, 1, DomainStatus("running")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, DomainStatus("paused")),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0, DomainStatus("paused")),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, DomainStatus("stopping")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, DomainStatus("shutoff", "shutdown")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, DomainStatus("shutoff", "destroyed")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, DomainStatus("shutoff", "crashed")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED, DomainStatus("shutoff", "failed")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DAEMON, DomainStatus("shutoff", "unknown")),
        (libvirt.VIR_DOMAIN_CRASHED, 0, DomainStatus("shutoff", "crashed")),
    ],
)
def test_states(state: int, reason: int, expected: DomainStatus) -> None:
    assert parse_state(state, reason) == expected


def test_a_guest_that_ran_into_a_full_pool_is_not_resumed_by_us() -> None:
    assert (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR) not in PAUSED_RESUMABLE
    assert PAUSED_HALF_STARTED not in PAUSED_RESUMABLE


@pytest.mark.parametrize(
    ("said", "pid", "expected"),
    [
        (DomainStatus("absent"), None, DomainStatus("absent")),
        (DomainStatus("absent"), 7, DomainStatus("stopping", "unknown", 7)),
        (DomainStatus("shutoff", "destroyed"), 7, DomainStatus("stopping", "destroyed", 7)),
        (DomainStatus("shutoff", "shutdown"), None, DomainStatus("shutoff", "shutdown")),
        (DomainStatus("running"), 7, DomainStatus("running", "unknown", 7)),
    ],
)
def test_a_domain_is_off_only_when_its_process_is_gone(
    said: DomainStatus, pid: int | None, expected: DomainStatus
) -> None:
    assert merge_process(said, pid) == expected


def test_events_are_described_for_logs() -> None:
    stopped = libvirt.VIR_DOMAIN_EVENT_STOPPED
    assert describe_lifecycle(stopped, libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED) == "stopped/crashed"
    assert describe_lifecycle(libvirt.VIR_DOMAIN_EVENT_STARTED, 0) == "started"
    assert describe_lifecycle(99, 0) == "event 99"
