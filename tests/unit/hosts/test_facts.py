from __future__ import annotations

import pytest

from minicloud.errors import PermanentError
from minicloud.hosts.facts import Versions, choose_machine_type, make_facts, parse_offers_kvm, render_version


def capabilities(*machines: str, arch: str = "x86_64") -> str:
    return f"<capabilities><guest><arch name='{arch}'>{''.join(machines)}</arch></guest></capabilities>"


def test_the_newest_versioned_q35_is_chosen() -> None:
    text = capabilities(
        "<machine canonical='pc-i440fx-10.0'>pc</machine>",
        "<machine canonical='pc-q35-9.2'>q35</machine>",
        "<machine>pc-q35-8.1</machine>",
        "<machine>pc-q35-10.0</machine>",
        "<machine>pc-q35-noble</machine>",
        "<machine>pc-q35-10.1-deb</machine>",
    )
    assert choose_machine_type(text) == "pc-q35-10.0"


@pytest.mark.parametrize("text", [capabilities(), capabilities("<machine>pc-q35-7.2</machine>", arch="aarch64")])
def test_a_host_without_q35_cannot_be_used(text: str) -> None:
    with pytest.raises(PermanentError):
        choose_machine_type(text)


def test_kvm_is_offered_where_a_domain_type_says_so() -> None:
    assert parse_offers_kvm(capabilities("<domain type='qemu'/>", "<domain type='kvm'/>"))
    assert not parse_offers_kvm(capabilities("<domain type='qemu'/>"))
    assert not parse_offers_kvm(capabilities("<domain type='kvm'/>", arch="i686"))


def test_versions_are_unpacked() -> None:
    assert [render_version(each) for each in (7002022, 9000000, 10001003)] == ["7.2.22", "9.0.0", "10.1.3"]


def test_facts_join_what_was_measured_with_what_libvirt_said() -> None:
    measured = {"hostname": "h", "vcpus": 8, "memory_mib": 16384, "kernel": "6.1", "boot_id": "b", "python": "3.11"}
    facts = make_facts(measured, Versions("pc-q35-7.2", "7.2.22", "9.0.0"), "kvm", "it booted")
    assert (facts.vcpus, facts.memory_mib, facts.virt_type, facts.virt_type_reason) == (8, 16384, "kvm", "it booted")
    assert (facts.machine_type, facts.qemu_version, facts.libvirt_version) == ("pc-q35-7.2", "7.2.22", "9.0.0")
