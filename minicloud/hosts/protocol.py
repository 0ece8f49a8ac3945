"""What the controller may ask of a host. Implemented for real by libvirt_host.py and in memory by fake.py; one contract
suite (tests/contract) holds both to this text.

Every method may be called twice with the same arguments and is bounded by HOST_CALL_SECONDS; it raises TransientError
(try again, the outcome may be unknown) or PermanentError (repeating cannot help), nothing else. Methods that change
the world carry the lease's `epoch`: a host refuses, with TransientError, an epoch older than one it has seen for the
same resource, so that a controller that lost its lease cannot undo its successor's work.
Threads: any method may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from minicloud.model.plans import (
    DomainSpec,
    DomainStatus,
    HostEvent,
    HostFacts,
    InstancePlan,
    InstanceRemoval,
    Inventory,
    JobStatus,
)

HOST_CALL_SECONDS = 30.0


class Host(Protocol):
    """One KVM host."""

    @property
    def host_id(self) -> str:
        """The host's row."""

    def facts(self) -> HostFacts:
        """Measure the host: cores, memory, versions, whether KVM is usable."""

    def ensure_instance(self, plan: InstancePlan, epoch: int) -> None:
        """Make the disks, ports, router, rules, DHCP and metadata of an instance. PermanentError: no space, no base."""

    def ensure_no_instance(self, removal: InstanceRemoval, epoch: int) -> None:
        """Take the named ports, files and console away; absent ones are fine. Never call while QEMU lives."""

    def ensure_domain(self, spec: DomainSpec, epoch: int) -> DomainStatus:
        """Define the domain; start it unless it is active; let it run where it was paused or its start broke off.

        A guest that waits for room in its pool stays `paused`.
        """

    def ensure_no_domain(self, instance_id: str, epoch: int) -> DomainStatus:
        """Destroy and undefine the domain. Its PID may outlive the call: poll domain_status until `pid` is None."""

    def domain_status(self, instance_id: str) -> DomainStatus:
        """Return the state of one domain; `absent` if libvirt does not know it and no QEMU of it lives."""

    def domain_statuses(self) -> dict[str, DomainStatus]:
        """Return the state of every domain of minicloud's on the host, by instance id."""

    def press_power_button(self, instance_id: str, epoch: int) -> None:
        """Send an ACPI power-button press; the guest may ignore it. No error if the domain is not active."""

    def reboot_domain(self, instance_id: str, epoch: int) -> None:
        """Ask the guest to reboot by ACPI (libvirt resets the machine once it has powered off)."""

    def reset_domain(self, instance_id: str, epoch: int) -> None:
        """Reset the machine as its reset button would."""

    def read_console(self, instance_id: str, max_bytes: int) -> bytes:
        """Return the last `max_bytes` of serial output, rotations included; empty if there is none."""

    def start_job(self, name: str, kind: str, arguments: dict[str, object], epoch: int) -> JobStatus:
        """Start a detached job unless one of that name exists; return its status either way."""

    def job_status(self, name: str) -> JobStatus:
        """Return the status of a job."""

    def clean_job(self, name: str, epoch: int) -> None:
        """End a job if it runs and forget it, its folder and its partial files."""

    def inventory(self) -> Inventory:
        """List everything on the host that bears minicloud's names."""

    def pool_usage(self, pool_folder: str) -> tuple[int, int]:
        """Return (capacity, free) bytes of a directory pool's file system; makes the folder if it is absent."""

    def close(self) -> None:
        """Let connections and sessions go; the host itself is untouched."""


class HostDirectory(Protocol):
    """Finds hosts by id; the daemon's is filled from rows, tests fill it with fakes."""

    def get(self, host_id: str) -> Host:
        """Return the host. Raises TransientError while it cannot be reached."""

    def subscribe(self, listener: Callable[[HostEvent], None]) -> None:
        """Call `listener`, which must only enqueue, for every event of every host."""
