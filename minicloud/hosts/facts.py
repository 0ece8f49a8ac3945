"""What a host is: measured by the host side, by libvirt, and by booting a kernel under KVM. Reads only.

Called by libvirt_host.py and by `probe_host`.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

import libvirt

from minicloud.errors import PermanentError
from minicloud.hosts.libvirt_errors import INTERNAL_ERROR
from minicloud.model.plans import HostFacts

ARCHITECTURE = "x86_64"
_MACHINE = re.compile(r"pc-q35-(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Versions:
    """What libvirt tells of itself and of the host's QEMU."""

    machine_type: str
    qemu: str
    libvirt: str
    offers_kvm: bool = True


def read_versions(connection: libvirt.virConnect) -> Versions:
    """Ask libvirt. Raises libvirtError, and PermanentError where the host's QEMU has no q35 machine."""
    capabilities = connection.getCapabilities()
    return Versions(
        machine_type=choose_machine_type(capabilities),
        qemu=render_version(connection.getVersion()),
        libvirt=render_version(connection.getLibVersion()),
        offers_kvm=parse_offers_kvm(capabilities),
    )


def make_facts(measured: dict[str, Any], versions: Versions, virt_type: str, virt_type_reason: str) -> HostFacts:
    """Put the facts of a host together; `measured` is what the host side's verb `facts` returned. Pure."""
    return HostFacts(
        hostname=measured["hostname"],
        vcpus=measured["vcpus"],
        memory_mib=measured["memory_mib"],
        virt_type=virt_type,
        virt_type_reason=virt_type_reason,
        machine_type=versions.machine_type,
        qemu_version=versions.qemu,
        libvirt_version=versions.libvirt,
        kernel=measured["kernel"],
        boot_id=measured["boot_id"],
    )


def choose_machine_type(capabilities: str) -> str:
    """Return the newest versioned q35 machine that libvirt's capabilities list, such as `pc-q35-7.2`.

    Names of a distribution's own (`pc-q35-jammy`) are left aside: another host may not have them.
    """
    found = []
    for machine in ET.fromstring(capabilities).iterfind(f"guest/arch[@name='{ARCHITECTURE}']/machine"):
        for name in (machine.get("canonical"), machine.text):
            if match := _MACHINE.fullmatch(name or ""):
                found.append((int(match[1]), int(match[2]), match[0]))
    if not found:
        raise PermanentError(INTERNAL_ERROR, "the host's QEMU offers no pc-q35 machine for x86_64")
    return max(found)[2]


def parse_offers_kvm(capabilities: str) -> bool:
    """Say whether libvirt's own QEMU user may use KVM, which a probe by root does not tell. Pure."""
    return ET.fromstring(capabilities).find(f"guest/arch[@name='{ARCHITECTURE}']/domain[@type='kvm']") is not None


def render_version(number: int) -> str:
    """Return libvirt's packed version (1000000 * major + 1000 * minor + release) as text."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
