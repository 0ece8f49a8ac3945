"""The verbs: what each does in which order, under which fence. The network is another room's: watched, not run."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from minicloud.hostside import codes, disks, network, supervisor, verbs
from minicloud.hostside.failures import Failure
from minicloud.model import names
from minicloud.model.plans import DiskPlan, InstancePlan, InstanceRemoval, to_json

INSTANCE, VOLUME, SNAPSHOT = "i-0123456789abcdef0", "vol-0123456789abcdef0", "snap-0123456789abcdef0"
GIB = 1024**3


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the network was asked for."""
    asked: list[Any] = []
    monkeypatch.setattr(network, "ensure_ports", lambda plans, folder: asked.append(("ensure", plans)))
    monkeypatch.setattr(network, "ensure_no_ports", lambda ids, folder: asked.append(("remove", list(ids))))
    monkeypatch.setattr(network, "list_ports", lambda folder: ["eni-1"])
    monkeypatch.setattr(network, "list_routers", lambda: ["mcr-1"])
    monkeypatch.setattr(supervisor, "restore", lambda folder: None)
    return asked


class Host:
    """A host's state folder with a pool and a console folder in it."""

    def __init__(self, folder: Path) -> None:
        self.state = str(folder / "state")
        self.pool = str(folder / "pool")
        self.console = str(folder / "console" / f"{INSTANCE}.log")
        self.volume = names.volume_path(self.pool, VOLUME)
        verbs.prepare(self.state)

    def call(self, verb: str, seconds: float = 60.0, **arguments: Any) -> Any:
        return verbs.call(self.state, verb, arguments, time.monotonic() + seconds)

    def plan(self, base_path: str | None = None) -> dict[str, object]:
        disk = DiskPlan(VOLUME, self.volume, "qcow2", GIB, base_path)
        return to_json(InstancePlan(INSTANCE, (disk,), (), self.console))

    def removal(self, is_last: bool) -> dict[str, object]:
        return to_json(InstanceRemoval(INSTANCE, ("eni-1",), (self.volume,), self.console if is_last else None))


@pytest.fixture
def host(tmp_path: Path, ports: list[Any]) -> Host:
    return Host(tmp_path)


def test_an_instance_comes_and_goes(host: Host, ports: list[Any]) -> None:
    for _ in range(2):
        assert host.call("ensure_instance", plan=host.plan(), epoch=1) is None
        assert Path(host.volume).exists()
    Path(host.console).write_bytes(b"boot")
    assert base64.b64decode(host.call("read_console", path=host.console, max_bytes=100)) == b"boot"
    assert host.call("inventory") == {
        "ports": ["eni-1"],
        "routers": ["mcr-1"],
        "disk_paths": [host.volume],
        "jobs": [],
    }
    host.call("ensure_no_instance", removal=host.removal(is_last=False), epoch=2)
    assert Path(host.console).exists(), "the console goes with the instance only"
    for _ in range(2):
        host.call("ensure_no_instance", removal=host.removal(is_last=True), epoch=2)
    assert not Path(host.console).exists()
    assert host.call("inventory")["disk_paths"] == []
    assert ports[-1] == ("remove", ["eni-1"])


def test_a_late_call_of_an_older_lease_brings_nothing_back(host: Host, ports: list[Any]) -> None:
    host.call("ensure_instance", plan=host.plan(), epoch=4)
    host.call("ensure_no_instance", removal=host.removal(is_last=True), epoch=5)
    ports.clear()
    with pytest.raises(Failure) as caught:
        host.call("ensure_instance", plan=host.plan(), epoch=4)
    assert caught.value.code == codes.STALE_EPOCH
    assert not Path(host.volume).exists()
    assert ports == []


def test_a_call_past_its_deadline_does_not_wait_for_the_fence(
    host: Host, ports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(plans: Any, folder: Any) -> None:
        entered.set()
        leave.wait(60)

    monkeypatch.setattr(network, "ensure_ports", slow)
    first = threading.Thread(target=host.call, args=("ensure_instance",), kwargs={"plan": host.plan(), "epoch": 1})
    first.start()
    entered.wait(60)
    with pytest.raises(Failure) as caught:
        host.call("ensure_no_instance", seconds=0.05, removal=host.removal(is_last=True), epoch=2)
    leave.set()
    first.join()
    assert caught.value.code == codes.BUSY
    assert Path(host.volume).exists()


def test_the_network_s_failure_waits_for_the_disks(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have ended before the fence opens: a removal that comes next must not meet disks still being made."""
    done = threading.Event()
    real = disks.ensure_disks

    def late(*arguments: Any) -> None:
        time.sleep(0.05)
        real(*arguments)
        done.set()

    def fail(plans: Any, folder: Any) -> None:
        raise Failure("CommandFailed", "nft", transient=True)

    monkeypatch.setattr(disks, "ensure_disks", late)
    monkeypatch.setattr(network, "ensure_ports", fail)
    with pytest.raises(Failure, match="nft"):
        host.call("ensure_instance", plan=host.plan(), epoch=1)
    assert done.is_set()


def test_a_missing_base_is_answered_as_such(host: Host) -> None:
    with pytest.raises(Failure) as caught:
        host.call("ensure_instance", plan=host.plan(names.base_path(host.pool, SNAPSHOT)), epoch=1)
    assert (caught.value.code, caught.value.transient) == ("missing-base", False)


def test_jobs_are_fenced_by_their_names(host: Host) -> None:
    asked = {"path": names.base_path(host.pool, SNAPSHOT), "size_bytes": 4096, "blocks": [], "certificate_sha256": None}
    assert host.call("job_status", name="fill-1")["state"] == "absent"
    started = host.call("start_job", name="fill-1", kind="fill_base", arguments=asked, epoch=3)
    assert started["state"] in ("running", "succeeded")
    with pytest.raises(Failure) as caught:
        host.call("clean_job", name="fill-1", epoch=2)
    assert caught.value.code == codes.STALE_EPOCH
    assert host.call("inventory")["jobs"] == ["fill-1"]
    for _ in range(2):
        host.call("clean_job", name="fill-1", epoch=3)
    assert host.call("inventory")["jobs"] == []


def test_a_pool_is_made_and_measured(host: Host) -> None:
    usage = host.call("pool_usage", pool_folder=host.pool)
    assert 0 < usage["free_bytes"] <= usage["capacity_bytes"]
    assert Path(host.pool, "volumes").is_dir()


def test_facts_are_measured(host: Host) -> None:
    facts = host.call("facts")
    assert {"hostname", "vcpus", "memory_mib", "kernel", "boot_id", "qemu_version"} <= facts.keys()
    assert facts["vcpus"] >= 1
    assert facts["memory_mib"] > 100


def test_verbs_that_do_not_exist(host: Host) -> None:
    for verb in ("", "rm", "__init__", "call", "prepare"):
        with pytest.raises(Failure, match="no such verb"):
            host.call(verb)


def test_a_session_restores_the_network_of_hosts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    restored = threading.Event()

    def restore(folder: str) -> None:
        restored.set()
        raise Failure("CommandFailed", "no nft", transient=True)

    monkeypatch.setattr(supervisor, "restore", restore)
    before = set(threading.enumerate())
    verbs.prepare(str(tmp_path))
    assert set(threading.enumerate()) <= before
    verbs.ports.folder(tmp_path).mkdir(parents=True)
    verbs.prepare(str(tmp_path))
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert restored.is_set()
    assert "no nft" in capsys.readouterr().err


def test_an_inventory_restores_what_somebody_took_while_the_session_lasts(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored = threading.Event()
    begun: list[str] = []
    goes_on = threading.Event()

    def restore(folder: str) -> None:
        begun.append(folder)
        restored.set()
        assert goes_on.wait(60)

    monkeypatch.setattr(supervisor, "restore", restore)
    for thread in threading.enumerate():
        if thread.name == "restore":
            thread.join(60)
    host.call("inventory")
    assert restored.wait(60)
    host.call("inventory")
    goes_on.set()
    assert begun == [host.state]
    monkeypatch.setattr(network, "list_ports", lambda folder: [])
    for thread in threading.enumerate():
        if thread.name == "restore":
            thread.join(60)
    host.call("inventory")
    assert begun == [host.state]


def test_an_inventory_forgets_fences_that_ended_long_ago(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.call("ensure_no_instance", removal=host.removal(is_last=True), epoch=1)
    fence = Path(host.state, "fences", INSTANCE)
    assert fence.exists()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 8 * 24 * 3600)
    host.call("inventory")
    assert not fence.exists()
