"""Two looks at this machine for `minicloud doctor`, without a session or a connection that lasts."""

from __future__ import annotations

from pathlib import Path

import libvirt

from minicloud.hosts.facts import render_version
from minicloud.hostside import kvm_probe
from minicloud.model.names import STATE_FOLDER

LOCAL_URI = "qemu:///system"


def libvirt_version() -> str:
    """Return the version of the libvirt daemon of this machine. Raises OSError if none answers."""
    try:
        connection = libvirt.openReadOnly(LOCAL_URI)
    except libvirt.libvirtError as error:
        raise OSError(f"{LOCAL_URI} does not answer: {error.get_error_message()}") from error
    try:
        return f"libvirt {render_version(connection.getLibVersion())}, QEMU {render_version(connection.getVersion())}"
    except libvirt.libvirtError as error:
        raise OSError(f"{LOCAL_URI} broke off: {error.get_error_message()}") from error
    finally:
        connection.close()


def probe_virt() -> tuple[str, str]:
    """Return "kvm" or "qemu", and why; boots a small guest under KVM once per boot of this machine."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    answer = kvm_probe.probe(STATE_FOLDER, boot_id)
    return answer["virt_type"], answer["reason"]
