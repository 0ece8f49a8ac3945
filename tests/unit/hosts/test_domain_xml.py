"""What the golden files do not show: refusals, digests, and telling our domains from others'."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from minicloud.hosts.domain_xml import MAX_ROOT_PORTS, DomainIdentity, parse_metadata, render_domain, spec_digest
from minicloud.model.plans import DomainDisk, DomainNic, DomainSpec


def disk(slot: int, **changes: object) -> DomainDisk:
    return replace(DomainDisk(f"/p/{slot}.raw", "raw", "vda", f"s{slot}", f"a{slot}", slot), **changes)  # type: ignore[arg-type]


def spec(**changes: object) -> DomainSpec:
    made = DomainSpec(
        name="i-0123456789abcdef0",
        uuid="ec2a1b2c-3d4e-4f50-8162-738495a6b7c8",
        account_id="123456789012",
        virt_type="qemu",
        machine_type="pc-q35-7.2",
        boot_mode="legacy-bios",
        vcpus=1,
        memory_mib=128,
        disks=(disk(0),),
        nics=(DomainNic("mct0", "mcb0", "02:00:00:00:00:01", "eni-0", 1, 1450),),
        console_path="/c/i.log",
        root_ports=4,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def addresses(xml: str) -> dict[str, tuple[str, str, str]]:
    """Return where every device with an alias of ours sits."""
    found = {}
    for device in ET.fromstring(xml).iterfind("devices/*"):
        alias, address = device.find("alias"), device.find("address")
        if alias is not None and address is not None:
            bus, slot, function = (address.get(key, "") for key in ("bus", "slot", "function"))
            found[alias.get("name", "")] = (bus, slot, function)
    return found


def test_a_device_sits_behind_the_root_port_of_its_slot() -> None:
    assert addresses(render_domain(spec())) == {"ua-a0": ("0x01", "0x00", "0x0"), "ua-eni-0": ("0x02", "0x00", "0x0")}


def test_adding_and_removing_devices_moves_no_other() -> None:
    before = addresses(render_domain(spec()))
    more = spec(disks=(disk(3), disk(0), disk(2)), root_ports=32)
    after = addresses(render_domain(more))
    assert {alias: after[alias] for alias in before} == before


def test_no_two_devices_share_an_address() -> None:
    root = ET.fromstring(render_domain(spec(root_ports=MAX_ROOT_PORTS)))
    used = [
        (each.get("bus"), each.get("slot"), each.get("function"))
        for each in root.iterfind("devices/*/address[@type='pci']")
    ]
    assert len(set(used)) == len(used) == MAX_ROOT_PORTS + 5


@pytest.mark.parametrize(
    "changes",
    [
        {"root_ports": 1},
        {"root_ports": MAX_ROOT_PORTS + 1},
        {"root_ports": -1},
        {"disks": (disk(0), disk(1))},
        {"disks": (disk(-1),)},
    ],
)
def test_impossible_slots_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="root port"):
        render_domain(spec(**changes))


def test_every_disk_names_its_format_and_ends_its_chain() -> None:
    # A raw volume into which a guest wrote a qcow2 header must never be opened as one.
    root = ET.fromstring(render_domain(spec(disks=(disk(0), disk(2, format="qcow2", base_path="/p/base.raw")))))
    raw, overlay = root.findall("devices/disk")
    assert raw.find("driver").get("type") == "raw"  # type: ignore[union-attr]
    assert list(raw.find("backingStore")) == []  # type: ignore[arg-type]
    assert overlay.find("backingStore/format").get("type") == "raw"  # type: ignore[union-attr]
    assert list(overlay.find("backingStore/backingStore")) == []  # type: ignore[arg-type]


def test_text_in_a_spec_cannot_become_markup() -> None:
    hostile = "/c/<x>&\"'.log"
    root = ET.fromstring(render_domain(spec(console_path=hostile, disks=(disk(0, path=hostile),))))
    assert root.find("devices/disk/source").get("file") == hostile  # type: ignore[union-attr]
    assert root.find("devices/serial/log").get("file") == hostile  # type: ignore[union-attr]


def test_ours_is_told_from_the_whole_xml_and_from_the_metadata_alone() -> None:
    made = spec()
    expected = DomainIdentity(made.name, made.account_id, spec_digest(made))
    assert parse_metadata(render_domain(made)) == expected
    # The form virDomainGetMetadata returns it in: no prefix, no namespace.
    alone = f'<instance id="{made.name}" account="{made.account_id}" spec="{spec_digest(made)}"/>'
    assert parse_metadata(alone) == expected


@pytest.mark.parametrize(
    "text",
    [
        "<domain><name>i-0123456789abcdef0</name></domain>",
        '<domain><metadata><x:instance xmlns:x="urn:other" id="a" account="b" spec="c"/></metadata></domain>',
        '<instance id="a"/>',
        '<domain><devices><instance id="a" account="b" spec="c"/></devices></domain>',
    ],
)
def test_others_are_not_ours(text: str) -> None:
    assert parse_metadata(text) is None


def test_the_digest_follows_every_part_of_the_spec() -> None:
    made = spec()
    assert spec_digest(made) == spec_digest(spec())
    others = [spec(memory_mib=256), spec(disks=(disk(2),)), spec(nics=()), spec(cpu_shares=1)]
    assert len({spec_digest(each) for each in [made, *others]}) == 5
