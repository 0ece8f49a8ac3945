"""Where quickstart puts the cloud, what it does again and what not, and what it ends with."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from _lab import cloud as lab_cloud
from _lab import plan, state
from _lab.progress import Stages, count
from _quickstart import decide, main, places
from _quickstart.decide import Facts

RUNNING = {
    "InstanceId": "i-0123456789abcdef0",
    "State": {"Name": "running"},
    "PublicIpAddress": "10.99.1.4",
    "Tags": [{"Key": "Name", "Value": "quickstart"}],
}


@pytest.mark.parametrize(
    ("facts", "place", "because"),
    [
        (Facts(systemd_runs=True), "machine", "systemd runs this machine's libvirt"),
        (Facts(systemd_runs=False), "lab", "systemd does not run here"),
        (Facts(systemd_runs=True, libvirt_trouble="no such socket"), "lab", "no such socket"),
        (Facts(systemd_runs=False, libvirt_trouble="no such socket"), "lab", "systemd does not run here"),
    ],
)
def test_the_machine_itself_only_where_systemd_runs_its_libvirt(facts: Facts, place: str, because: str) -> None:
    choice = decide.choose_place(facts)
    assert choice.place == place
    assert because in choice.reason


def virsh(folder: Path, script: str) -> None:
    program = folder / "virsh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_facts_without_systemd_ask_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    virsh(tmp_path, f"touch {tmp_path}/asked")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert decide.read_facts(tmp_path / "absent") == Facts(systemd_runs=False)
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("exit 0", ""),
        (
            "echo 'error: failed to connect' >&2; echo 'error: no socket' >&2; exit 1",
            "failed to connect error: no socket",
        ),
        ("exit 3", "virsh ended with 3"),
    ],
)
def test_facts_say_why_libvirt_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, trouble: str
) -> None:
    virsh(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert decide.read_facts(tmp_path) == Facts(systemd_runs=True, libvirt_trouble=trouble)


def test_facts_without_virsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert decide.read_facts(tmp_path).libvirt_trouble == "virsh: No such file or directory"


class FakePlace:
    command = "minicloud"

    def argv(self, *arguments: str) -> list[str]:
        return ["minicloud", *arguments]

    def up(self, stages: Stages) -> None: ...

    def down(self, stages: Stages) -> None: ...


class FakeCloud:
    """Answers minicloud's commands from a table and remembers them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> None:
        self.calls: list[str] = []
        self._answers = answers
        monkeypatch.setattr(main, "run", self.run)

    def run(self, argv: list[str]) -> str:
        call = " ".join(argv[1:])
        self.calls.append(call)
        return json.dumps(self._answers.get(call, []))


def test_a_key_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key.pem"
    empty = FakeCloud(monkeypatch, {})
    assert main.ensure_key(FakePlace(), key)
    assert empty.calls == ["key ls --json", f"key create quickstart --output {key}"]
    key.touch()
    full = FakeCloud(monkeypatch, {"key ls --json": [{"KeyName": "quickstart"}]})
    assert not main.ensure_key(FakePlace(), key)
    assert full.calls == ["key ls --json"]


def test_half_a_key_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key.pem"
    lost = FakeCloud(monkeypatch, {"key ls --json": [{"KeyName": "quickstart"}]})
    assert main.ensure_key(FakePlace(), key)
    assert lost.calls[1:] == ["key rm quickstart", f"key create quickstart --output {key}"]
    key.touch()
    stale = FakeCloud(monkeypatch, {})
    assert main.ensure_key(FakePlace(), key)
    assert not key.exists(), "`key create` refuses to overwrite a file"
    assert stale.calls[1:] == [f"key create quickstart --output {key}"]


def test_an_instance_that_runs_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**RUNNING, "Tags": [{"Key": "Name", "Value": "mine"}]}
    stopped = {**RUNNING, "State": {"Name": "stopped"}}
    FakeCloud(monkeypatch, {"instance ls --json": [other, stopped, RUNNING]})
    assert main.find_running(FakePlace()) == RUNNING
    FakeCloud(monkeypatch, {"instance ls --json": [other, stopped]})
    assert main.find_running(FakePlace()) is None


def test_the_report_shows_address_login_console_and_times(tmp_path: Path) -> None:
    ssh = main.render_ssh("10.99.1.4", tmp_path / "key.pem", tmp_path / "known_hosts")
    times = [("setup", 60.0), ("waiting for ssh", 2.5)]
    report = main.render_report("minicloud", RUNNING, ssh, "Linux tiny", "boot\ntiny: ready\n", times)
    assert "i-0123456789abcdef0 at 10.99.1.4 (Linux tiny)" in report
    assert f"ssh -i {tmp_path}/key.pem" in report and "ec2-user@10.99.1.4" in report
    assert "  | tiny: ready\n" in report
    assert "     2.5 s  waiting for ssh\n     62.5 s  altogether" in report
    assert "scripts/quickstart --down" in report


def test_down_removes_what_up_kept(tmp_path: Path) -> None:
    keep = tmp_path / ".lab" / "quickstart"
    keep.mkdir(parents=True)
    (keep / "key.pem").touch()
    downs: list[str] = []

    class Recording(FakePlace):
        def down(self, stages: Stages) -> None:
            downs.append("down")

    main.take_down({"lab": Recording(), "machine": Recording()}, keep, Stages(quiet=True))
    assert downs == ["down", "down"]
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_has_a_minicloud_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CONFIG_FOLDER", tmp_path / "etc")
    monkeypatch.setattr(places, "STATE_FOLDER", tmp_path / "var")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "minicloud.yaml").write_text("region: mine-1\n")
    place = places.MachinePlace(Path("/nowhere"), "host")
    with pytest.raises(state.LabError, match="has a minicloud already"):
        place.up(Stages(quiet=True))
    place.down(Stages(quiet=True))
    assert (tmp_path / "etc" / "minicloud.yaml").read_text() == "region: mine-1\n"


@pytest.mark.parametrize(("number", "shown"), [(0, "0 hosts"), (1, "1 host"), (2, "2 hosts")])
def test_things_are_counted_in_english(number: int, shown: str) -> None:
    assert count(number, "host") == shown


class FakeMachine:
    """Plays systemd and the minicloud of a machine: what is run is remembered, the daemon listens once started."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.listening = False
        self.answers: dict[str, Any] = {}
        self.folders = [tmp_path / name for name in ("etc", "var", "run")]
        self.place = places.MachinePlace(Path("/checkout"), "box")
        monkeypatch.setattr(places, "CONFIG_FOLDER", self.folders[0])
        monkeypatch.setattr(places, "STATE_FOLDER", self.folders[1])
        monkeypatch.setattr(places, "SOCKET", str(self.folders[2] / "minicloud.sock"))
        monkeypatch.setattr(places, "run", self.run)
        monkeypatch.setattr(lab_cloud, "is_listening", lambda path: self.listening)
        monkeypatch.setattr(lab_cloud, "start_image_build", lambda project: None)
        monkeypatch.setattr(lab_cloud, "finish_image_build", lambda build: Path("/cache/tiny.qcow2"))

    def run(self, argv: list[str], *, may_fail: bool = False) -> str:
        call = " ".join(argv).removeprefix("/checkout/.venv/bin/")
        self.calls.append(call)
        self.listening = self.listening or call.startswith("systemd-run")
        return json.dumps(self.answers.get(call, []))

    def take_calls(self) -> list[str]:
        taken, self.calls = self.calls, []
        return taken


def test_a_machine_with_systemd_gets_a_unit_a_host_and_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(tmp_path, monkeypatch)
    machine.place.up(Stages(quiet=True))
    assert machine.take_calls() == [
        "minicloud init",
        "systemd-run --unit=minicloud-quickstart.service --property=KillMode=process --property=LimitNOFILE=65536"
        " --collect --quiet /checkout/.venv/bin/minicloud serve",
        "minicloud host ls --json",
        "minicloud host add box --zone local-1a",
        "minicloud image ls --json",
        "minicloud image register /cache/tiny.qcow2 --name tiny --ssh-user ec2-user",
    ]
    assert (machine.folders[0] / "minicloud.yaml").read_text() == places.CONFIG

    # Again: only what is missing is made.
    machine.answers = {
        "minicloud host ls --json": [{"Name": "box", "HostId": "h-1"}],
        "minicloud image ls --json": [{"Name": "tiny"}],
    }
    machine.place.up(Stages(quiet=True))
    assert machine.take_calls() == ["minicloud init", "minicloud host ls --json", "minicloud image ls --json"]

    machine.listening = False
    machine.answers["minicloud instance ls --json"] = [{"InstanceId": "i-1"}, {"InstanceId": "i-2"}]
    machine.place.down(Stages(quiet=True))
    calls = machine.take_calls()
    assert calls[0].startswith("systemd-run"), "only the daemon can take guests away: it is started for that"
    assert calls[1:] == [
        "minicloud instance ls --json",
        "minicloud instance terminate i-1 i-2",
        "minicloud host ls --json",
        "minicloud host rm h-1",
        "systemctl stop minicloud-quickstart.service",
        "systemctl kill --signal=SIGKILL minicloud-quickstart.service",
    ]
    assert not any(folder.exists() for folder in machine.folders)
    machine.place.down(Stages(quiet=True))
    assert machine.take_calls() == [], "there is nothing to take down twice"


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (state.LabError("no host answers"), 1, "quickstart: no host answers"),
        (KeyboardInterrupt(), 130, "quickstart: interrupted"),
        (KeyError("PublicIpAddress"), 1, "KeyError: 'PublicIpAddress'"),
    ],
)
def test_whatever_fails_ends_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, shown: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(main, "bring_up", fail)
    assert main.main(["--up", "0"]) == status
    said = capsys.readouterr().err
    assert shown in said
    assert said.splitlines()[-1] == main.NEXT_STEP


def test_a_guest_that_takes_connections_and_says_nothing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ssh"
    program.write_text(
        f"#!/bin/sh\n[ -e {tmp_path}/asked ] && echo Linux tiny && exit\ntouch {tmp_path}/asked; exec sleep 9\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(main, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(main, "SSH_POLL_SECONDS", 0.0)
    ssh = main.render_ssh("10.99.1.4", tmp_path / "key.pem", tmp_path / "known_hosts")
    assert main.wait_for_ssh([str(program), *ssh[1:]]) == "Linux tiny"


def test_stages_are_timed_and_a_failed_one_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    ticks = iter([0.0, 1.5, 2.0, 2.25])
    stages = Stages(clock=lambda: next(ticks))
    with stages("one"):
        pass
    with pytest.raises(RuntimeError), stages("two"):
        raise RuntimeError
    assert stages.times == [("one", 1.5)]
    assert capsys.readouterr().err == "one … 1.5 s\ntwo … failed after 0.2 s\n"


def test_hosts_go_round_robin_into_zones() -> None:
    assert [lab_cloud.choose_zone(n, 2) for n in range(2)] == ["lab-1a", "lab-1b"]
    assert [lab_cloud.choose_zone(n, 5) for n in range(5)] == ["lab-1a", "lab-1b", "lab-1c", "lab-1a", "lab-1b"]
    assert lab_cloud.choose_zone(0, 1) == "lab-1a"


def test_minicloud_accepts_the_labs_configuration() -> None:
    import yaml

    from minicloud.config import parse_config

    lab = plan.LabPlan("x", 98, 2, Path("/run/x"), Path("/data/x"), Path("/project"))
    config = parse_config(yaml.safe_load(lab_cloud.render_config(lab)), "lab")
    assert config.endpoint_url == "http://10.98.0.1:8010"
    assert config.public_address_pools == ("10.98.1.0/24",)
    assert config.socket_path == lab_cloud.SOCKET_PATH
    assert config.state_folder == lab_cloud.STATE_FOLDER


def test_minicloud_accepts_the_machines_configuration() -> None:
    import yaml

    from minicloud.config import parse_config

    config = parse_config(yaml.safe_load(places.CONFIG), "machine")
    assert (config.socket_path, config.state_folder) == (places.SOCKET, f"{places.STATE_FOLDER}/controller")
