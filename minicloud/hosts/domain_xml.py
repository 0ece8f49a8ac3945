"""From a DomainSpec to the text libvirt is given, and from libvirt's text back to "is this domain ours?". Pure.

Owns every choice about a guest's virtual hardware that is the same for all guests: chipset, addresses, cache modes,
console, firmware tables. What differs between guests is in the DomainSpec, which the controller renders from rows, so
the same rows always give the same text. Called by libvirt_host.py; golden files in tests/golden/domain_xml.
"""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from minicloud.hosts.domain_elements import (
    AgentChannel,
    Balloon,
    BridgeInterface,
    Controller,
    Disk,
    Element,
    IoTune,
    LoggedSerial,
    PciAddress,
    Rng,
    RootPort,
    Smbios,
    element,
    parent,
)
from minicloud.model.plans import DomainDisk, DomainNic, DomainSpec, to_json

METADATA_NAMESPACE = "urn:minicloud:domain:1"
METADATA_PREFIX = "minicloud"
MANUFACTURER = "Amazon EC2"

# Slots of pcie.0. 0x00 is the host bridge and 0x1f the ICH9 with its SATA; root ports fill slots from FIRST_PORT_SLOT,
# eight functions each, and what never leaves the guest sits above them so that adding a port moves nothing.
FIRST_PORT_SLOT = 0x02
PORTS_PER_SLOT = 8
VIRTIO_SERIAL = PciAddress(0, 0x1B)
BALLOON = PciAddress(0, 0x1C)
RNG = PciAddress(0, 0x1D)
MAX_ROOT_PORTS = (0x1B - FIRST_PORT_SLOT) * PORTS_PER_SLOT

BALLOON_STATS_SECONDS = 10
# TCG's translation cache: 1 GiB per guest when nothing is said, which a host full of small guests does not have.
TB_CACHE_MIB = 64


@dataclass(frozen=True, slots=True)
class DomainIdentity:
    """What the metadata of one of our domains says: whose it is and which spec its XML was rendered from."""

    instance_id: str
    account_id: str
    spec_digest: str


def render_domain(spec: DomainSpec) -> str:
    """Return the XML of a domain. ValueError if a device names a root port that does not exist or is taken twice."""
    _check_ports(spec)
    domain = parent(
        element("domain", type=spec.virt_type),
        element("name", spec.name),
        element("uuid", spec.uuid),
        parent(element("metadata"), _metadata(spec)),
        element("memory", str(spec.memory_mib), unit="MiB"),
        element("vcpu", str(spec.vcpus), placement="static"),
        element("iothreads", "1"),
        parent(element("cputune"), element("shares", str(spec.cpu_shares))) if spec.cpu_shares is not None else None,
        _smbios(spec).to_element(),
        _os(spec),
        _features(spec),
        _cpu(spec),
        _clock(spec),
        element("on_poweroff", "destroy"),
        element("on_reboot", "restart"),
        element("on_crash", "destroy"),
        # A guest that suspends itself would look like one that hangs, and EC2 has no such state.
        parent(
            element("pm"),
            element("suspend-to-mem", enabled="no"),
            element("suspend-to-disk", enabled="no"),
        ),
        _devices(spec),
    )
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def spec_digest(spec: DomainSpec) -> str:
    """Return the digest of a spec that is kept in its domain's metadata: 32 hexadecimal digits."""
    text = json.dumps(to_json(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def parse_metadata(text: str) -> DomainIdentity | None:
    """Return who a domain belongs to from libvirt's XML, whole or only our metadata element; None if it is not ours."""
    root = ET.fromstring(text)
    tags = (f"{{{METADATA_NAMESPACE}}}instance", "instance")
    # virDomainGetMetadata hands our element out without its prefix and namespace; a whole domain keeps both.
    found = root if root.tag in tags else root.find(f"metadata/{tags[0]}")
    if found is None:
        return None
    identity = [found.get(key) for key in ("id", "account", "spec")]
    if None in identity:
        return None
    return DomainIdentity(*(value or "" for value in identity))


def port_address(pci_slot: int) -> PciAddress:
    """Return the address of the device on root port `pci_slot`: the only slot of the bus behind it."""
    return PciAddress(bus=pci_slot + 1, slot=0)


def alias(name: str) -> str:
    """Return libvirt's form of an alias that its user chose."""
    return f"ua-{name}"


def _check_ports(spec: DomainSpec) -> None:
    if not 0 <= spec.root_ports <= MAX_ROOT_PORTS:
        raise ValueError(f"{spec.name}: {spec.root_ports} root ports; at most {MAX_ROOT_PORTS} fit")
    used = [disk.pci_slot for disk in spec.disks] + [nic.pci_slot for nic in spec.nics]
    if len(set(used)) != len(used):
        raise ValueError(f"{spec.name}: two devices on one root port: {sorted(used)}")
    if any(not 0 <= slot < spec.root_ports for slot in used):
        raise ValueError(f"{spec.name}: a device on a root port beyond the {spec.root_ports} there are: {sorted(used)}")


def _metadata(spec: DomainSpec) -> Element:
    # Written with its prefix by hand: ElementTree would put the declaration on <domain> and libvirt would move it.
    made = element(f"{METADATA_PREFIX}:instance")
    made.set(f"xmlns:{METADATA_PREFIX}", METADATA_NAMESPACE)
    made.set("id", spec.name)
    made.set("account", spec.account_id)
    made.set("spec", spec_digest(spec))
    return made


def _smbios(spec: DomainSpec) -> Smbios:
    # AWS, "Detect whether a host is an EC2 instance": a uuid that starts with ec2 and, where the vendor is named, this
    # name. cloud-init's ds-identify also wants the serial to equal the uuid; Nitro shows the instance's id as asset.
    return Smbios(
        bios=(("vendor", MANUFACTURER), ("version", "1.0")),
        system=(("manufacturer", MANUFACTURER), ("serial", spec.uuid), ("uuid", spec.uuid)),
        base_board=(("manufacturer", MANUFACTURER), ("asset", spec.name)),
        chassis=(("manufacturer", MANUFACTURER), ("asset", MANUFACTURER)),
    )


def _os(spec: DomainSpec) -> Element:
    machine = element("type", "hvm", arch="x86_64", machine=spec.machine_type)
    smbios = element("smbios", mode="sysinfo")
    if spec.boot_mode != "uefi":
        return parent(element("os"), machine, smbios)
    # libvirt chooses the OVMF build by these features; without secure boot, images that are not signed start too.
    firmware = parent(element("firmware"), element("feature", enabled="no", name="secure-boot"))
    return parent(element("os", firmware="efi"), machine, firmware, smbios)


def _features(spec: DomainSpec) -> Element:
    tcg = parent(element("tcg"), element("tb-cache", str(TB_CACHE_MIB), unit="MiB"))
    return parent(
        element("features"),
        element("acpi"),
        element("apic"),
        element("vmport", state="off"),
        tcg if spec.virt_type == "qemu" else None,
    )


def _cpu(spec: DomainSpec) -> Element:
    if spec.virt_type == "qemu":
        return element("cpu", mode="maximum", check="none")
    return element("cpu", mode="host-model", check="partial")


def _clock(spec: DomainSpec) -> Element:
    kvm_timers = (
        element("timer", name="rtc", tickpolicy="catchup"),
        element("timer", name="pit", tickpolicy="delay"),
    )
    return parent(
        element("clock", offset="utc"),
        *(kvm_timers if spec.virt_type == "kvm" else ()),
        element("timer", name="hpet", present="no"),
    )


def _devices(spec: DomainSpec) -> Element:
    serial = LoggedSerial(spec.console_path)
    return parent(
        element("devices"),
        *(_disk(disk).to_element() for disk in spec.disks),
        Controller("usb", 0, model="none").to_element(),
        Controller("pci", 0, model="pcie-root").to_element(),
        *(_root_port(number).to_element() for number in range(spec.root_ports)),
        Controller("virtio-serial", 0, address=VIRTIO_SERIAL).to_element(),
        *(_nic(nic).to_element() for nic in spec.nics),
        serial.to_element(),
        serial.console_element(),
        AgentChannel(controller=0).to_element(),
        Balloon(BALLOON_STATS_SECONDS, BALLOON).to_element(),
        Rng(RNG).to_element(),
    )


def _root_port(number: int) -> RootPort:
    slot, function = divmod(number, PORTS_PER_SLOT)
    return RootPort(
        index=number + 1,
        chassis=number + 1,
        port=number + 1,
        address=PciAddress(0, FIRST_PORT_SLOT + slot, function, multifunction=function == 0),
    )


def _disk(disk: DomainDisk) -> Disk:
    limited = disk.iops is not None or disk.throughput_bytes_per_second is not None
    return Disk(
        path=disk.path,
        format=disk.format,
        # A growing qcow2 allocates while it writes, which blocks io_submit; a raw file or device does not.
        io="threads" if disk.format == "qcow2" else "native",
        cache="none",
        discard="unmap",
        error_policy="enospace",
        iothread=1,
        target=disk.target,
        serial=disk.serial,
        alias=alias(disk.alias),
        address=port_address(disk.pci_slot),
        raw_backing_path=disk.base_path,
        boot_order=disk.boot_order,
        iotune=IoTune(disk.iops, disk.throughput_bytes_per_second) if limited else None,
    )


def _nic(nic: DomainNic) -> BridgeInterface:
    return BridgeInterface(
        tap=nic.tap,
        bridge=nic.bridge,
        mac=nic.mac,
        alias=alias(nic.alias),
        mtu=nic.mtu,
        address=port_address(nic.pci_slot),
    )
