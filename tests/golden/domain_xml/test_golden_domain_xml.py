"""Domain XML as text: what each kind of guest is given, to be read by people in a diff.

MINICLOUD_REGENERATE=1 writes the files anew. Each is also held to libvirt's own schema and parser (`test:///`).
"""

from __future__ import annotations

import os
from pathlib import Path

import libvirt
import pytest

from minicloud.hosts.domain_xml import render_domain
from minicloud.model.plans import DomainDisk, DomainNic, DomainSpec

FOLDER = Path(__file__).parent
REGENERATE = os.environ.get("MINICLOUD_REGENERATE", "") not in ("", "0")

POOL = "/var/lib/minicloud/pool"
NAME = "i-0123456789abcdef0"
ROOT = DomainDisk(
    path=f"{POOL}/volumes/vol-0aaaaaaaaaaaaaaaa.qcow2",
    format="qcow2",
    target="vda",
    serial="vol0aaaaaaaaaaaaaaaa",
    alias="vol-0aaaaaaaaaaaaaaaa",
    pci_slot=0,
    boot_order=1,
    base_path=f"{POOL}/bases/snap-0bbbbbbbbbbbbbbbb.raw",
)
LIMITED = DomainDisk(
    path=f"{POOL}/volumes/vol-0cccccccccccccccc.qcow2",
    format="qcow2",
    target="vdb",
    serial="vol0cccccccccccccccc",
    alias="vol-0cccccccccccccccc",
    pci_slot=4,
    iops=3000,
    throughput_bytes_per_second=125 * 1024**2,
)
EPHEMERAL = DomainDisk(
    path=f"{POOL}/ephemeral/{NAME}-ephemeral0.raw",
    format="raw",
    target="vdc",
    serial="ephemeral0",
    alias="ephemeral0",
    pci_slot=2,
)
NIC = DomainNic("mct0123456789a", "mcb0123456789a", "02:11:22:33:44:55", "eni-0dddddddddddddddd", 1, 1450)
SECOND_NIC = DomainNic("mct0123456789b", "mcb0123456789a", "02:11:22:33:44:66", "eni-0eeeeeeeeeeeeeeee", 9, 1450)


def spec(**changes: object) -> DomainSpec:
    values: dict[str, object] = {
        "name": NAME,
        "uuid": "ec2a1b2c-3d4e-4f50-8162-738495a6b7c8",
        "account_id": "123456789012",
        "virt_type": "qemu",
        "machine_type": "pc-q35-7.2",
        "boot_mode": "legacy-bios",
        "vcpus": 2,
        "memory_mib": 512,
        "disks": (ROOT,),
        "nics": (NIC,),
        "console_path": f"/var/lib/minicloud/console/{NAME}.log",
        "root_ports": 4,
    }
    return DomainSpec(**{**values, **changes})  # type: ignore[arg-type]


CASES = {
    "emulated": spec(),
    "kvm": spec(virt_type="kvm", vcpus=8, memory_mib=32768),
    "uefi": spec(virt_type="kvm", boot_mode="uefi"),
    "many-devices": spec(disks=(ROOT, LIMITED, EPHEMERAL), nics=(NIC, SECOND_NIC), root_ports=10, cpu_shares=2048),
    "bare": spec(disks=(), nics=(), root_ports=0),
}


@pytest.mark.parametrize("case", CASES)
def test_text_is_as_kept(case: str) -> None:
    text = render_domain(CASES[case])
    kept = FOLDER / f"{case}.xml"
    if REGENERATE:
        kept.write_text(text, encoding="utf-8")
    assert text == kept.read_text(encoding="utf-8"), "if it is meant to change: MINICLOUD_REGENERATE=1"


def test_nothing_is_kept_without_a_case() -> None:
    assert {file.stem for file in FOLDER.glob("*.xml")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_libvirt_accepts_it(case: str) -> None:
    text = render_domain(CASES[case])
    # libvirt's test driver knows no other domain type; everything else goes through the schema and the parser.
    for virt_type in ("kvm", "qemu"):
        text = text.replace(f'<domain type="{virt_type}">', '<domain type="test">')
    connection = libvirt.open("test:///default")
    try:
        domain = connection.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        domain.undefine()
    finally:
        connection.close()
