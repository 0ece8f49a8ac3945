"""libvirt's domain states and reasons, in the words of plans.DomainStatus. Pure.

Source: virDomainState and virDomain*Reason of libvirt-domain.h. Called by libvirt_host.py.
"""

from __future__ import annotations

import libvirt

from minicloud.model.plans import DomainStatus

ACTIVE_STATES = frozenset({"running", "paused", "stopping"})

_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: "running",
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "stopping",
    libvirt.VIR_DOMAIN_SHUTOFF: "shutoff",
    libvirt.VIR_DOMAIN_CRASHED: "shutoff",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "paused",
}

_SHUTOFF_REASONS = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "failed",
}

PAUSED_HALF_STARTED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
"""A guest whose start did not end: its vCPUs never ran."""

PAUSED_RESUMABLE = frozenset(
    (libvirt.VIR_DOMAIN_PAUSED, reason)
    for reason in (
        libvirt.VIR_DOMAIN_PAUSED_UNKNOWN,
        libvirt.VIR_DOMAIN_PAUSED_USER,
        libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT,
    )
)
"""Pauses that somebody asked for. Not an I/O error: a guest whose pool is full resumes when there is room again."""


def parse_state(state: int, reason: int) -> DomainStatus:
    """Return what `virDomainGetState` said; the pid is for the host side to find out."""
    name = _STATES.get(state, "running")
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return DomainStatus(name, "crashed")
    return DomainStatus(name, _SHUTOFF_REASONS.get(reason, "unknown") if name == "shutoff" else "unknown")
