"""Port plans on a host: what is refused, how they are kept, and read back cheaply."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.port_plans import allow, group, port

from minicloud.hostside import ports
from minicloud.hostside.failures import Failure

PLAN = port(
    10, group(1, allow("tcp", 1, 65535), allow("icmp", 8, -1), allow("-1", group="sg-2")), public_ip="192.0.2.1"
)


def with_value(path: str, value: Any) -> dict[str, Any]:
    plan = copy.deepcopy(PLAN)
    at: Any = plan
    *outer, last = path.split(".")
    for key in outer:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[last] = value
    return plan


REFUSED = [
    ("id", "../../etc/passwd"),
    ("id", ""),
    ("id", None),
    ("tap", "eth0"),
    ("tap", 'mct" ; flush'),
    ("tap", "mct" + "x" * 13),
    ("mac", "0A:00:00:00:01:0A"),
    ("mac", "0a:00:00:00:01"),
    ("private_ip", "10.0.1.010"),
    ("private_ip", "10.0.9.9"),
    ("private_ip", "::1"),
    ("public_ip", "192.0.2.1/24"),
    ("hostname", "name\nuser=root"),
    ("hostname", "a b"),
    ("hostname", "-a"),
    ("router.netns", "../mnt"),
    ("router.cidr", "10.0.0.1/16"),
    ("router.cidr", "10.0.0.0/255.255.0.0"),
    ("router.cidr", 10),
    ("subnet.cidr", False),
    ("subnet.gateway_ip", 167772417),
    ("router.uplink", "eth0; reboot"),
    ("router.mtu", 100),
    ("router.mtu", True),
    ("router.mtu", "1450"),
    ("router.domain_name", "a,b"),
    ("router.dns_servers", ["192.0.2.1\n"]),
    ("router.host_transit_ip", ""),
    ("subnet.bridge", "x" * 16),
    ("subnet.gateway_ip", "10.0.9.1"),
    ("groups.0.id", "sg {"),
    ("groups.0.members", ["10.0.0.0/8"]),
    ("groups.0.rules", [{}]),
    ("groups.0.rules", None),
    ("groups.0.rules", [PLAN["groups"][0]["rules"][0]] * 1001),
    ("metadata.http_tokens", "maybe"),
    ("metadata.hop_limit", 0),
    ("metadata.hop_limit", 65),
    ("metadata.leaves", {"a": 1}),
    ("metadata.leaves", None),
    ("metadata.user_data_base64", "***"),
    ("metadata.user_data_base64", "AAAA" * 25000),
]


@pytest.mark.parametrize(("path", "value"), REFUSED)
def test_what_could_mean_something_elsewhere_is_refused_for_good(path: str, value: Any) -> None:
    with pytest.raises(Failure) as raised:
        ports.check(with_value(path, value))
    assert not raised.value.transient


@pytest.mark.parametrize(
    "changes",
    [
        {"egress": 1},
        {"protocol": "tcp accept"},
        {"from_port": -2},
        {"from_port": "22"},
        {"to_port": 65536},
        {"cidr": "10.0.0.0/33"},
        {"cidr": None},
        {"cidr": 5},
        {"group_id": "sg }"},
    ],
)
def test_rules_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(Failure):
        ports.check(with_value("groups.0.rules", [{**PLAN["groups"][0]["rules"][0], **changes}]))


def test_a_plan_passes() -> None:
    ports.check(PLAN)
    ports.check(with_value("public_ip", None))
    ports.check(with_value("router.uplink", "enp1s0.100"))
    ports.check(with_value("hostname", "ip-10-0-1-10.lab-1.compute.internal"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any, prefix: str = "") -> list[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, inner in items for path in (f"{prefix}{key}", *paths(inner, f"{prefix}{key}."))]


@given(st.sampled_from([path for path in paths(PLAN) if not path.split(".")[-1].isdigit()]), JSON)
def test_any_other_json_is_a_plan_or_a_failure(path: str, value: Any) -> None:
    try:
        ports.check(with_value(path, value))
    except Failure as failure:
        assert not failure.transient


@given(JSON)
def test_any_json_is_a_failure(value: Any) -> None:
    with pytest.raises(Failure):
        ports.check(value)


def test_plans_are_kept_and_read_back_the_newest_first(tmp_path: Path) -> None:
    ports.folder(tmp_path).mkdir()
    cache = ports.Cache()
    assert cache.read(tmp_path) == []
    for number, plan in enumerate([older := port(11), newer := port(10)]):
        path = ports.write(plan, tmp_path)
        assert path is not None and path.stat().st_mode & 0o777 == 0o600
        os.utime(path, (number, number))
    assert cache.read(tmp_path) == [newer, older]
    assert ports.write(older, tmp_path) is None
    changed = port(11, hop_limit=2)
    assert ports.write(changed, tmp_path) == ports.path_of(tmp_path, older["id"])
    assert cache.read(tmp_path) == [changed, newer]
    ports.path_of(tmp_path, newer["id"]).unlink()
    assert cache.read(tmp_path) == [changed]


def test_a_plan_that_does_not_pass_is_not_kept(tmp_path: Path) -> None:
    ports.folder(tmp_path).mkdir()
    with pytest.raises(Failure):
        ports.write(with_value("tap", "eth0"), tmp_path)
    assert list(ports.folder(tmp_path).iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"id": "eni-1"}', "\x00"])
def test_half_a_file_counts_as_none(tmp_path: Path, text: str) -> None:
    ports.folder(tmp_path).mkdir()
    ports.write(port(10), tmp_path)
    (ports.folder(tmp_path) / "eni-half.json").write_text(text)
    (ports.folder(tmp_path) / ".eni-tmp.json").write_text(text)
    assert ports.Cache().read(tmp_path) == [port(10)]


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports.folder(tmp_path).mkdir()
    ports.write(port(10), tmp_path)
    cache = ports.Cache()
    first = cache.read(tmp_path)
    monkeypatch.setattr(ports.files, "read_json", lambda path: pytest.fail(f"read {path} again"))
    assert cache.read(tmp_path) == first


def test_syncing_what_is_gone_already_is_fine(tmp_path: Path) -> None:
    ports.sync([tmp_path / "gone.json"])
    ports.sync([])


def test_a_removal_that_began_is_known_until_it_ends(tmp_path: Path) -> None:
    ports.folder(tmp_path).mkdir()
    plan = port(10)
    assert ports.begin_removal(tmp_path, plan["id"]) is None
    ports.write(plan, tmp_path)
    for _ in range(2):
        left = ports.begin_removal(tmp_path, plan["id"])
        assert left is not None and ports.read(left) == plan
        assert ports.Cache().read(tmp_path) == []
        assert ports.leaving(tmp_path) == [left]
    ports.end_removal([left])
    assert ports.leaving(tmp_path) == []
    ports.end_removal([])
