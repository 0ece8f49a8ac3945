from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minicloud.clock import SystemClock
from minicloud.errors import TransientError
from minicloud.hosts import directory as module
from minicloud.hosts.directory import Destination, LibvirtHostDirectory
from minicloud.model.plans import HostEvent
from minicloud.model.resources import Host
from minicloud.model.states import HostState

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"
ROW = Host(
    id="h-0123456789abcdef0",
    name="one",
    zone="lab-1a",
    address="10.0.0.1",
    ssh_user="root",
    ssh_port=22,
    host_key=HOST_KEY,
    state=HostState.UP,
    vcpus=1,
    memory_mib=1,
    virt_type="qemu",
    machine_type="pc-q35-7.2",
    uplink=None,
    facts={},
    state_reason=None,
    created_us=0,
)


class Connections:
    """Stands for connections that come and go when a test says so."""

    made: list[Connections]

    def __init__(self, host_id: str, uri: str, on_domain: Any, on_state: Any, check: Callable[[], object]) -> None:
        self.uri = uri
        self.on_domain = on_domain
        self.on_state = on_state
        self.is_started = self.is_up = self.is_closed = False
        self.why_down = "the test says so"
        Connections.made.append(self)

    def start(self) -> None:
        self.is_started = True

    def come_up(self) -> None:
        self.is_up = True
        self.on_state("connected", self.uri)

    def close(self) -> None:
        self.is_up, self.is_closed = False, True


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LibvirtHostDirectory]:
    Connections.made = []
    monkeypatch.setattr(module, "Connections", Connections)
    made = LibvirtHostDirectory(str(tmp_path), "/keys/id", "qemu", SystemClock())
    yield made
    made.close()
    assert all(each.is_closed for each in Connections.made)


def test_a_host_can_be_had_only_while_it_is_connected(directory: LibvirtHostDirectory) -> None:
    with pytest.raises(TransientError, match="no such host"):
        directory.get(ROW.id)
    directory.put(ROW)
    assert Connections.made[0].is_started
    with pytest.raises(TransientError, match="the test says so"):
        directory.get(ROW.id)
    Connections.made[0].come_up()
    host = directory.get(ROW.id)
    assert host.host_id == ROW.id
    assert directory.get(ROW.id) is host
    assert directory.ids() == {ROW.id}


def test_a_row_that_changed_elsewhere_keeps_its_connections(directory: LibvirtHostDirectory) -> None:
    directory.put(ROW)
    directory.put(replace(ROW, state=HostState.DRAINING, facts={"kernel": "6.1"}))
    assert len(Connections.made) == 1


@pytest.mark.parametrize("changes", [{"address": "10.0.0.2"}, {"ssh_port": 2222}, {"ssh_user": "cloud"}])
def test_a_row_that_moved_is_connected_anew(directory: LibvirtHostDirectory, changes: dict[str, Any]) -> None:
    directory.put(ROW)
    directory.put(replace(ROW, **changes))
    old, new = Connections.made
    assert old.is_closed
    assert new.is_started
    assert not new.is_closed
    assert old.uri != new.uri


def test_this_machine_needs_no_ssh(directory: LibvirtHostDirectory, tmp_path: Path) -> None:
    directory.put(replace(ROW, address="local", host_key=None))
    assert Connections.made[0].uri == "qemu:///system"
    assert list(tmp_path.iterdir()) == []


def test_a_remote_host_without_a_pinned_key_is_refused(directory: LibvirtHostDirectory) -> None:
    with pytest.raises(ValueError, match="no host key"):
        directory.put(replace(ROW, host_key=None))
    assert directory.ids() == frozenset()


def test_a_removed_host_leaves_no_files(directory: LibvirtHostDirectory, tmp_path: Path) -> None:
    directory.put(ROW)
    assert {file.name for file in (tmp_path / "ssh").iterdir()} == {f"{ROW.id}.sh", f"{ROW.id}.known_hosts"}
    directory.remove(ROW.id)
    directory.remove(ROW.id)
    assert Connections.made[0].is_closed
    assert list((tmp_path / "ssh").iterdir()) == []


def test_events_reach_every_listener_even_after_one_that_fails(
    directory: LibvirtHostDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[HostEvent] = []

    def fail(event: HostEvent) -> None:
        raise RuntimeError("broken listener")

    directory.subscribe(fail)
    directory.subscribe(heard.append)
    directory.put(ROW)
    connections = Connections.made[0]
    connections.come_up()
    connections.on_domain("i-0123456789abcdef0", "stopped/crashed")
    connections.on_state("disconnected", "gone")
    assert heard == [
        HostEvent(ROW.id, "connected", None, connections.uri),
        HostEvent(ROW.id, "domain", "i-0123456789abcdef0", "stopped/crashed"),
        HostEvent(ROW.id, "disconnected", None, "gone"),
    ]
    assert "broken listener" in caplog.text


def test_destinations() -> None:
    assert Destination("local").is_local
    assert not Destination("localhost").is_local
