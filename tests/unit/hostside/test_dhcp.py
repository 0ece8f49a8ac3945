"""Choosing the host's resolvers, and naming configurations by what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.port_plans import port

from minicloud.hostside.dhcp import choose_upstream, config_name, render_config

ETC, RESOLVED = Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")


@pytest.mark.parametrize(
    ("etc", "resolved", "expected"),
    [
        ("nameserver 192.0.2.53\n", None, ETC),
        ("# nameserver 192.0.2.53\nnameserver\t192.0.2.53 # mine\n", None, ETC),
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.53\n", RESOLVED),
        ("nameserver 127.0.0.1\n", None, None),
        ("nameserver ::1\nnameserver 2001:db8::53\n", None, None),
        ("nameserver 0.0.0.0\n", None, None),
        ("search example.org\nnameserver\n", "", None),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.53\n", "nameserver 192.0.2.54\n", ETC),
    ],
)
def test_choose_upstream(etc: str, resolved: str | None, expected: Path | None) -> None:
    texts = {ETC: etc} if resolved is None else {ETC: etc, RESOLVED: resolved}
    assert choose_upstream(texts) == expected


def test_a_configuration_is_named_by_its_content() -> None:
    one, two = (render_config(plans, Path("/s"), "dnsmasq", None) for plans in ([port(10)], [port(10, subnet=2)]))
    assert config_name(one) == config_name(one) != config_name(two)
    # A port more is no other configuration: dnsmasq need not restart for it.
    assert render_config([port(10), port(11)], Path("/s"), "dnsmasq", None) == one
