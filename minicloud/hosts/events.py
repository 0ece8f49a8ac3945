"""libvirt's event loop, and what its events mean: "look at this instance again", or "this connection is gone".

Owns the process's one event loop thread. libvirt calls back on that thread, so everything here only hands on; it
decides nothing and calls libvirt for nothing. Called by connections.py.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import libvirt

from minicloud import ids
from minicloud.model.plans import REBOOTED

# A loop without timers sleeps in poll(2) and does not see what another thread added meanwhile.
DUMMY_TIMEOUT_MS = 1000

log = logging.getLogger(__name__)

DomainListener = Callable[[str, str], None]
"""Called with an instance id and what happened ("stopped/crashed"), on the loop's thread: only enqueue."""

_started_lock = threading.Lock()
_started = False

# virDomainEventType and the details that anybody would look for in a log.
_KINDS = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: "defined",
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: "undefined",
    libvirt.VIR_DOMAIN_EVENT_STARTED: "started",
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "suspended",
    libvirt.VIR_DOMAIN_EVENT_RESUMED: "resumed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED: "stopped",
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: "pmsuspended",
    libvirt.VIR_DOMAIN_EVENT_CRASHED: "crashed",
}
_STOPPED_DETAILS = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "failed",
}
# Definitions come and go with our own calls, and say nothing of the guest.
_SILENT = frozenset({libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED})


def ensure_event_loop() -> None:
    """Start the loop's thread unless it runs. To be called before any connection is opened."""
    global _started
    with _started_lock:
        if _started:
            return
        # Errors come as exceptions; without this libvirt prints every one of them as well.
        libvirt.registerErrorHandler(_ignore_error, None)
        libvirt.virEventRegisterDefaultImpl()
        libvirt.virEventAddTimeout(DUMMY_TIMEOUT_MS, _ignore_timeout, None)
        threading.Thread(target=_run, name="libvirt-events", daemon=True).start()
        _started = True


def subscribe(connection: libvirt.virConnect, listener: DomainListener) -> tuple[int, ...]:
    """Have `listener` called for every life-cycle event and reboot of minicloud's domains.

    Returns the ids to deregister with; until then libvirt holds the connection. Raises libvirtError.
    """
    return (
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, _on_lifecycle, listener),
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, _on_reboot, listener),
    )


def describe_lifecycle(event: int, detail: int) -> str:
    """Return an event as words for logs, such as "stopped/crashed". Pure."""
    kind = _KINDS.get(event, f"event {event}")
    if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
        return f"{kind}/{_STOPPED_DETAILS.get(detail, detail)}"
    return kind


def _on_lifecycle(
    connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, listener: DomainListener
) -> None:
    name = domain.name()
    if event not in _SILENT and ids.is_well_formed(name, ids.INSTANCE):
        listener(name, describe_lifecycle(event, detail))


def _on_reboot(connection: libvirt.virConnect, domain: libvirt.virDomain, listener: DomainListener) -> None:
    name = domain.name()
    if ids.is_well_formed(name, ids.INSTANCE):
        listener(name, REBOOTED)


def _run() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            log.exception("the event loop of libvirt failed once")
            threading.Event().wait(DUMMY_TIMEOUT_MS / 1000)


def _ignore_error(context: object, error: object) -> None:
    pass


def _ignore_timeout(timer: int, opaque: object) -> None:
    pass
