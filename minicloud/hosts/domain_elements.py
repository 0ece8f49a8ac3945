"""Parts of a libvirt domain as frozen values that write themselves as XML: one class per element, no policy in any.

Owns the spelling of libvirt's format (its guide "Domain XML format", libvirt 9.0) and nothing else: which device a
guest gets, where it sits and how it is tuned is decided in domain_xml.py, the only caller.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

Element = ET.Element


def element(name: str, text: str | None = None, /, **attributes: str | int | None) -> Element:
    """Return an element; attributes that are None are left out, and a trailing underscore of a name is dropped."""
    made = Element(name, {key.rstrip("_"): str(value) for key, value in attributes.items() if value is not None})
    made.text = text
    return made


def parent(made: Element, *children: Element | None) -> Element:
    """Return `made` with `children` in it; None stands for a child that is left out."""
    made.extend([child for child in children if child is not None])
    return made


@dataclass(frozen=True, slots=True)
class PciAddress:
    """Where a device sits: `bus` 0 is the root complex, bus N the root port whose controller index is N."""

    bus: int
    slot: int
    function: int = 0
    multifunction: bool = False

    def to_element(self) -> Element:
        return element(
            "address",
            type="pci",
            domain="0x0000",
            bus=f"0x{self.bus:02x}",
            slot=f"0x{self.slot:02x}",
            function=f"0x{self.function:x}",
            multifunction="on" if self.multifunction else None,
        )


@dataclass(frozen=True, slots=True)
class RootPort:
    """A pcie-root-port: `index` is the number of the bus behind it."""

    index: int
    chassis: int
    port: int
    address: PciAddress

    def to_element(self) -> Element:
        return parent(
            element("controller", type="pci", index=self.index, model="pcie-root-port"),
            element("model", name="pcie-root-port"),
            element("target", chassis=self.chassis, port=f"0x{self.port:x}"),
            self.address.to_element(),
        )


@dataclass(frozen=True, slots=True)
class Controller:
    """A controller other than a root port."""

    type: str
    index: int
    model: str | None = None
    address: PciAddress | None = None

    def to_element(self) -> Element:
        return parent(
            element("controller", type=self.type, index=self.index, model=self.model),
            self.address.to_element() if self.address else None,
        )


@dataclass(frozen=True, slots=True)
class IoTune:
    """Limits of a disk, reads and writes together."""

    total_iops: int | None
    total_bytes_per_second: int | None

    def to_element(self) -> Element:
        return parent(
            element("iotune"),
            element("total_bytes_sec", str(self.total_bytes_per_second)) if self.total_bytes_per_second else None,
            element("total_iops_sec", str(self.total_iops)) if self.total_iops else None,
        )


@dataclass(frozen=True, slots=True)
class Disk:
    """A virtio-blk disk in a file. The backing chain is always written out: one raw file, or nothing."""

    path: str
    format: str
    io: str
    cache: str
    discard: str
    error_policy: str
    iothread: int
    target: str
    serial: str
    alias: str
    address: PciAddress
    raw_backing_path: str | None = None
    boot_order: int | None = None
    iotune: IoTune | None = None

    def to_element(self) -> Element:
        return parent(
            element("disk", type="file", device="disk"),
            element(
                "driver",
                name="qemu",
                type=self.format,
                cache=self.cache,
                error_policy=self.error_policy,
                io=self.io,
                discard=self.discard,
                iothread=self.iothread,
            ),
            element("source", file=self.path),
            self._backing_store(),
            element("target", dev=self.target, bus="virtio"),
            self.iotune.to_element() if self.iotune else None,
            element("serial", self.serial),
            element("boot", order=self.boot_order) if self.boot_order is not None else None,
            element("alias", name=self.alias),
            self.address.to_element(),
        )

    def _backing_store(self) -> Element:
        if self.raw_backing_path is None:
            return element("backingStore")
        return parent(
            element("backingStore", type="file"),
            element("format", type="raw"),
            element("source", file=self.raw_backing_path),
            element("backingStore"),
        )


@dataclass(frozen=True, slots=True)
class BridgeInterface:
    """A virtio NIC whose tap joins a bridge as an isolated port; no boot ROM."""

    tap: str
    bridge: str
    mac: str
    alias: str
    mtu: int
    address: PciAddress

    def to_element(self) -> Element:
        return parent(
            element("interface", type="bridge"),
            element("mac", address=self.mac),
            element("source", bridge=self.bridge),
            element("target", dev=self.tap),
            element("port", isolated="yes"),
            element("model", type="virtio"),
            element("mtu", size=self.mtu),
            element("rom", enabled="no"),
            element("alias", name=self.alias),
            self.address.to_element(),
        )


@dataclass(frozen=True, slots=True)
class LoggedSerial:
    """ttyS0: a pty for whoever attaches, everything it prints appended to a file by virtlogd."""

    log_path: str

    def to_element(self) -> Element:
        return parent(
            element("serial", type="pty"),
            element("log", file=self.log_path, append="on"),
            parent(element("target", type="isa-serial", port=0), element("model", name="isa-serial")),
        )

    def console_element(self) -> Element:
        """Return the console that is this serial port."""
        return parent(
            element("console", type="pty"),
            element("log", file=self.log_path, append="on"),
            element("target", type="serial", port=0),
        )


@dataclass(frozen=True, slots=True)
class AgentChannel:
    """The virtio-serial port that qemu-guest-agent listens on; libvirt names its socket."""

    controller: int

    def to_element(self) -> Element:
        return parent(
            element("channel", type="unix"),
            element("source", mode="bind"),
            element("target", type="virtio", name="org.qemu.guest_agent.0"),
            element("address", type="virtio-serial", controller=self.controller, bus=0, port=1),
        )


@dataclass(frozen=True, slots=True)
class Rng:
    """A virtio random number generator fed from the host's kernel."""

    address: PciAddress

    def to_element(self) -> Element:
        return parent(
            element("rng", model="virtio"),
            element("backend", "/dev/urandom", model="random"),
            self.address.to_element(),
        )


@dataclass(frozen=True, slots=True)
class Balloon:
    """A virtio balloon whose guest reports memory statistics every `stats_period_seconds`."""

    stats_period_seconds: int
    address: PciAddress

    def to_element(self) -> Element:
        return parent(
            element("memballoon", model="virtio"),
            element("stats", period=self.stats_period_seconds),
            self.address.to_element(),
        )


@dataclass(frozen=True, slots=True)
class Smbios:
    """What dmidecode shows inside the guest; each table is (entry name, text) pairs."""

    bios: tuple[tuple[str, str], ...]
    system: tuple[tuple[str, str], ...]
    base_board: tuple[tuple[str, str], ...]
    chassis: tuple[tuple[str, str], ...]

    def to_element(self) -> Element:
        tables = (
            ("bios", self.bios),
            ("system", self.system),
            ("baseBoard", self.base_board),
            ("chassis", self.chassis),
        )
        return parent(
            element("sysinfo", type="smbios"),
            *(
                parent(element(table), *(element("entry", text, name=entry) for entry, text in entries))
                for table, entries in tables
            ),
        )
