"""The catalogue of instance types: AWS's figures, the operator's files, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicloud.cloud.instance_types import DEFAULT_TYPE, GB, load_instance_types, parse_instance_types
from minicloud.errors import ConfigError

CATALOGUE = load_instance_types(())


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_mib", "store"),
    [
        ("t3.nano", 2, 512, ()),
        ("t3.micro", 2, 1024, ()),
        ("t3.2xlarge", 8, 32768, ()),
        ("t2.micro", 1, 1024, ()),
        ("m5.2xlarge", 8, 32768, ()),
        ("c5.large", 2, 4096, ()),
        ("r5.xlarge", 4, 32768, ()),
        ("m5d.large", 2, 8192, (75,)),
        ("c5d.large", 2, 4096, (50,)),
    ],
)
def test_aws_s_sizes(name: str, vcpus: int, memory_mib: int, store: tuple[int, ...]) -> None:
    found = CATALOGUE[name]
    assert (found.vcpus, found.memory_mib, found.instance_store_gb) == (vcpus, memory_mib, store)


def test_every_type_adds_up() -> None:
    assert DEFAULT_TYPE in CATALOGUE
    for one in CATALOGUE.values():
        assert one.cores * one.threads_per_core == one.vcpus, one
        # Disks are whole sectors.
        assert all(size * GB % 512 == 0 for size in one.instance_store_gb)


def test_the_source_tree_s_file_is_the_packaged_one() -> None:
    linked = Path(__file__).parents[3] / "config" / "instance-types.yaml"
    assert load_instance_types([str(linked)]) == CATALOGUE


def test_the_operator_adds_and_redefines(tmp_path: Path) -> None:
    file = tmp_path / "more.yaml"
    file.write_text(
        "ci.huge: {vcpus: 6, memory_mib: 1000, instance_store_gb: [1, 2], threads_per_core: 1}\n"
        "t3.nano: {vcpus: 1, memory_mib: 256}\n"
    )
    types = load_instance_types([str(file)])
    assert (types["ci.huge"].cores, types["ci.huge"].instance_store_gb) == (6, (1, 2))
    assert (types["t3.nano"].vcpus, types["t3.nano"].threads_per_core) == (1, 1)
    assert types["t3.micro"] == CATALOGUE["t3.micro"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[1]", "mapping"),
        ("x: [", "not valid YAML"),
        ("x: 5", "x: needs"),
        ("x: {vcpus: 1}", "x: needs"),
        ("x: {vcpus: 1, memory_mib: 512, gpus: 1}", "gpus: no such field"),
        ("x: {vcpus: two, memory_mib: 512}", "vcpus: 'two'"),
        ("x: {vcpus: true, memory_mib: 512}", "vcpus: True"),
        ("x: {vcpus: 0, memory_mib: 512}", "vcpus must be"),
        ("x: {vcpus: 1, memory_mib: 1}", "memory_mib 16"),
        ("x: {vcpus: 2, memory_mib: 512, burstable: 1}", "burstable: 1"),
        ("x: {vcpus: 2, memory_mib: 512, instance_store_gb: [0]}", "instance_store_gb"),
        ("x: {vcpus: 2, memory_mib: 512, instance_store_gb: 5}", "instance_store_gb"),
        ("x: {vcpus: 3, memory_mib: 512}", "must be vcpus (3)"),
        ("x: {vcpus: 4, memory_mib: 512, threads_per_core: 0}", "threads_per_core (0)"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_instance_types(text, "/etc/types.yaml")
    assert named in str(caught.value)
    assert str(caught.value).startswith("/etc/types.yaml: ")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="/nonexistent/types.yaml"):
        load_instance_types(["/nonexistent/types.yaml"])
