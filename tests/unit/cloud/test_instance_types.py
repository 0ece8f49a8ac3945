"""The catalogue of instance types: AWS's numbers, the operator's files, what is wrong with bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bare_cloud import ROOT, BareCloud

from minicloud.cloud.instance_types import (
    DEFAULT_TYPE,
    describe_instance_types,
    find_type,
    instance_store_bytes,
    load_instance_types,
    parse_instance_types,
)
from minicloud.errors import ApiError, ConfigError

# vCPUs, MiB, instance store in GB: AWS's pages of its instance types.
AWS = {
    "t2.nano": (1, 512, ()), "t2.micro": (1, 1024, ()), "t2.small": (1, 2048, ()), "t2.medium": (2, 4096, ()),
    "t2.large": (2, 8192, ()), "t2.xlarge": (4, 16384, ()), "t2.2xlarge": (8, 32768, ()),
    "t3.nano": (2, 512, ()), "t3.micro": (2, 1024, ()), "t3.small": (2, 2048, ()), "t3.medium": (2, 4096, ()),
    "t3.large": (2, 8192, ()), "t3.xlarge": (4, 16384, ()), "t3.2xlarge": (8, 32768, ()),
    "t3a.nano": (2, 512, ()), "t3a.micro": (2, 1024, ()), "t3a.small": (2, 2048, ()), "t3a.medium": (2, 4096, ()),
    "t3a.large": (2, 8192, ()), "t3a.xlarge": (4, 16384, ()), "t3a.2xlarge": (8, 32768, ()),
    "m5.large": (2, 8192, ()), "m5.xlarge": (4, 16384, ()), "m5.2xlarge": (8, 32768, ()),
    "c5.large": (2, 4096, ()), "c5.xlarge": (4, 8192, ()), "c5.2xlarge": (8, 16384, ()),
    "r5.large": (2, 16384, ()), "r5.xlarge": (4, 32768, ()), "r5.2xlarge": (8, 65536, ()),
    "m5d.large": (2, 8192, (75,)), "m5d.xlarge": (4, 16384, (150,)), "m5d.2xlarge": (8, 32768, (300,)),
    "c5d.large": (2, 4096, (50,)), "c5d.xlarge": (4, 8192, (100,)), "c5d.2xlarge": (8, 16384, (200,)),
}  # fmt: skip


PACKAGED = load_instance_types([])


@pytest.mark.parametrize("name", AWS)
def test_types_have_awss_sizes(name: str) -> None:
    found = PACKAGED[name]
    assert (found.vcpus, found.memory_mib, found.instance_store_gb) == AWS[name]
    assert found.cores * found.threads_per_core == found.vcpus
    assert found.burstable == name.startswith("t")


@pytest.mark.parametrize(
    ("name", "cores", "threads"), [("t2.micro", 1, 1), ("t2.large", 2, 1), ("t3.nano", 1, 2), ("m5.2xlarge", 4, 2)]
)
def test_cores_and_threads(name: str, cores: int, threads: int) -> None:
    assert (PACKAGED[name].cores, PACKAGED[name].threads_per_core) == (cores, threads)


def test_free_tier_and_generation() -> None:
    assert {name for name, one in PACKAGED.items() if one.free_tier} == {"t2.micro", "t3.micro"}
    assert {name for name, one in PACKAGED.items() if not one.current_generation} == {"m1.small"}


def test_the_default_type_exists() -> None:
    assert find_type(PACKAGED, DEFAULT_TYPE).vcpus == 1


def test_the_operators_copy_is_the_packaged_file() -> None:
    root = Path(__file__).parents[3]
    shown = (root / "config" / "instance-types.yaml").resolve()
    assert shown == root / "minicloud" / "cloud" / "instance-types.yaml"


def test_operator_files_add_types_and_replace_them_the_last_one_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("tiny.one: {vcpus: 1, memory_mib: 64}\nt3.nano: {vcpus: 2, memory_mib: 600}\n")
    second.write_text("tiny.one: {vcpus: 1, memory_mib: 128, instance_store_gb: [1, 2], clock_ghz: 3}\n")
    types = load_instance_types([str(first), str(second)])
    assert types["tiny.one"].memory_mib == 128
    assert types["tiny.one"].instance_store_gb == (1, 2)
    assert types["tiny.one"].clock_ghz == 3.0
    assert types["t3.nano"].memory_mib == 600
    assert types["t3.micro"] == PACKAGED["t3.micro"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: {", "is not valid YAML"),
        ("[]", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: 5", "a: needs at least"),
        ("a: {vcpus: 1}", "a: needs at least"),
        ("a: {memory_mib: 64}", "a: needs at least"),
        ("a: {vcpus: 1, memory_mib: 64, memory: 1}", "a: memory: no such field"),
        ("a: {vcpus: one, memory_mib: 64}", "a: vcpus: 'one'"),
        ("a: {vcpus: true, memory_mib: 64}", "a: vcpus: True"),
        ("a: {vcpus: 1.5, memory_mib: 64}", "a: vcpus: 1.5"),
        ("a: {vcpus: 1, memory_mib: 64, burstable: 1}", "a: burstable: 1"),
        ("a: {vcpus: 1, memory_mib: 64, clock_ghz: fast}", "a: clock_ghz: 'fast'"),
        ("a: {vcpus: 0, memory_mib: 64}", "vcpus must be 1 to 255"),
        ("a: {vcpus: 256, memory_mib: 64}", "vcpus must be 1 to 255"),
        ("a: {vcpus: 1, memory_mib: 15}", "memory_mib 16 to"),
        ("a: {vcpus: 1, memory_mib: 16777217}", "memory_mib 16 to"),
        ("a: {vcpus: 3, memory_mib: 64}", "cores (1) times threads_per_core (2) must be vcpus (3)"),
        ("a: {vcpus: 4, memory_mib: 64, cores: 4}", "cores (4) times threads_per_core (2)"),
        ("a: {vcpus: 4, memory_mib: 64, threads_per_core: 0}", "threads_per_core (0)"),
        ("a: {vcpus: 4, memory_mib: 64, threads_per_core: -1, cores: -4}", "threads_per_core (-1)"),
        ("a: {vcpus: 1, memory_mib: 64, instance_store_gb: 5}", "a: instance_store_gb: 5"),
        ("a: {vcpus: 1, memory_mib: 64, instance_store_gb: [0]}", "must list at most 8 sizes"),
        ("a: {vcpus: 1, memory_mib: 64, instance_store_gb: [x]}", "must list at most 8 sizes"),
        ("a: {vcpus: 1, memory_mib: 64, instance_store_gb: [1, 1, 1, 1, 1, 1, 1, 1, 1]}", "at most 8 sizes"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "types.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_instance_types([str(file)])
    assert str(caught.value).startswith(str(file))
    assert complaint in str(caught.value)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for file in (tmp_path / "absent", tmp_path, binary):
        with pytest.raises(ConfigError, match="instance types cannot be read"):
            load_instance_types([str(file)])


def test_defaults_of_an_entry() -> None:
    one = parse_instance_types("a: {vcpus: 4, memory_mib: 64}", "x")["a"]
    assert (one.cores, one.threads_per_core, one.instance_store_gb, one.clock_ghz) == (2, 2, (), None)
    assert (one.burstable, one.current_generation, one.free_tier) == (False, True, False)
    assert one.network_performance == "Up to 5 Gigabit"


def test_an_unknown_type_is_refused_in_ec2s_words() -> None:
    with pytest.raises(ApiError) as caught:
        find_type(PACKAGED, "t9.colossal")
    assert (caught.value.code, caught.value.message) == (
        "InvalidParameterValue",
        "Invalid value 't9.colossal' for InstanceType.",
    )


def test_types_are_described_by_name_or_all(bare: BareCloud) -> None:
    assert [one.name for one in describe_instance_types(bare.cloud, ROOT, ["m5.large", "t3.nano", "m5.large"])] == [
        "m5.large",
        "t3.nano",
    ]
    assert len(describe_instance_types(bare.cloud, ROOT, [])) == len(PACKAGED)
    with bare.refuses("InvalidInstanceType", "do not exist: [nope, t9.x]"):
        describe_instance_types(bare.cloud, ROOT, ["t3.nano", "nope", "t9.x"])


@pytest.mark.parametrize("size_gb", [1, 50, 75, 100, 150, 200, 300, 16384])
def test_instance_store_is_its_size_up_to_a_whole_mib(size_gb: int) -> None:
    size_bytes = instance_store_bytes(size_gb)
    assert size_bytes % 1024**2 == 0
    assert 0 <= size_bytes - size_gb * 10**9 < 1024**2
