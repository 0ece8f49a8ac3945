"""Events through libvirt's own loop, from its test driver: a libvirt inside this process."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import libvirt
import pytest

from minicloud.hosts.events import ensure_event_loop, subscribe

NAME = "i-0123456789abcdef0"
LONG = 60.0


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    ensure_event_loop()
    ensure_event_loop()
    made = libvirt.open("test:///default")
    yield made
    made.close()


def start_and_destroy(connection: libvirt.virConnect, name: str) -> None:
    xml = f"<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
    domain = connection.defineXML(xml)
    domain.create()
    domain.destroy()
    domain.undefine()


def test_lives_of_instances_are_told_and_nothing_else(connection: libvirt.virConnect) -> None:
    heard: queue.Queue[tuple[str, str]] = queue.Queue()
    ids = subscribe(connection, lambda name, detail: heard.put((name, detail)))
    start_and_destroy(connection, "somebody-elses")
    start_and_destroy(connection, NAME)
    assert heard.get(timeout=LONG) == (NAME, "started")
    assert heard.get(timeout=LONG) == (NAME, "stopped/destroyed")
    for each in ids:
        connection.domainEventDeregisterAny(each)
    start_and_destroy(connection, NAME)
    assert heard.empty()


def test_libvirt_prints_no_errors_of_its_own(connection: libvirt.virConnect, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(libvirt.libvirtError):
        connection.lookupByName("absent")
    assert capfd.readouterr() == ("", "")
