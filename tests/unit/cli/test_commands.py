"""The command line against canned answers: what is asked of the daemon, what people see, how it exits."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.certificates import make_key, write_certificate, write_key

from minicloud.cli.commands.init import write_profile
from minicloud.cli.main import COMMANDS, cli

ID = "i-00000000000000001"
IMAGE = {
    "ImageId": "ami-00000000000000001",
    "Name": "tiny",
    "State": "available",
    "Architecture": "x86_64",
    "Public": False,
    "RootDeviceName": "/dev/sda1",
    "CreationDate": "2026-01-01T00:00:00.000Z",
    "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 1, "SnapshotId": "snap-1"}}],
    "Tags": [{"Key": "ssh-user", "Value": "admin"}],
}
Run = Callable[..., Result]


def described(instance_id: str = ID, state: str = "running", name: str | None = None) -> dict[str, Any]:
    return {
        "InstanceId": instance_id,
        "State": {"Name": state, "Code": 16},
        "InstanceType": "t3.micro",
        "ImageId": IMAGE["ImageId"],
        "Placement": {"AvailabilityZone": "lab-1a"},
        "LaunchTime": "2026-01-01T00:00:00.000Z",
        "PublicIpAddress": "10.99.1.1",
        "PrivateIpAddress": "172.31.0.4",
        "KeyName": "default",
        "Tags": [{"Key": "Name", "Value": name}] if name else [],
    }


def reservations(*instances: dict[str, Any]) -> dict[str, Any]:
    return {"Reservations": [{"Instances": list(instances)}]}


def change(*resources: tuple[str, str, str]) -> dict[str, Any]:
    return {"Token": "t", "Resources": [{"Id": id, "State": state, "Step": step} for id, state, step in resources]}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, run: Run) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_instances_are_listed_without_terminated_ones(run: Run, door: Any) -> None:
    door.on("DescribeInstances", reservations(described(name="web"), described("i-00000000000000002", "terminated")))
    result = run("instance", "ls")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATE", "TYPE", "ZONE", "PUBLIC", "IP", "PRIVATE", "IP", "AGE"]
    assert lines[1].split()[:5] == [ID, "web", "running", "t3.micro", "lab-1a"]
    assert len(lines) == 2
    assert "i-00000000000000002" in run("instance", "ls", "--all").stdout


def test_json_is_what_the_api_said(run: Run, door: Any) -> None:
    door.on("DescribeInstances", reservations(described(name="web")))
    assert json.loads(run("instance", "ls", "--json").stdout) == [described(name="web")]


def test_run_waits_through_the_stages_and_prints_the_address(run: Run, door: Any, tmp_path: Path) -> None:
    user_data = tmp_path / "user-data"
    user_data.write_bytes(b"#!/bin/sh\n\xff")
    stages = iter(
        [change((ID, "pending", "prepare")), change((ID, "pending", "boot")), change((ID, "running", "watch"))]
    )
    door.on("DescribeImages", {"Images": [IMAGE]})
    door.on("DescribeKeyPairs", {"KeyPairs": [{"KeyName": "default"}]})
    door.on("RunInstances", {"Instances": [described(state="pending")]})
    door.on("WaitForChange", lambda _parameters: next(stages))
    door.on("DescribeInstances", reservations(described()))
    result = run("run", "tiny", "--name", "web", "--zone", "lab-1a", "--user-data", str(user_data), "--imdsv2")
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [ID, "running", "10.99.1.1"]
    assert [text for text in ("preparing disks", "starting the domain", "running") if text in result.stderr]
    asked = door.parameters("RunInstances")
    assert asked["ImageId"] == IMAGE["ImageId"]
    assert asked["KeyName"] == "default"
    assert asked["Placement"] == {"AvailabilityZone": "lab-1a"}
    assert asked["TagSpecifications"] == [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}]}]
    assert base64.b64decode(asked["UserData"]) == b"#!/bin/sh\n\xff"
    assert asked["MetadataOptions"] == {"HttpTokens": "required"}


def test_a_launch_that_fails_says_why_and_exits_with_1(run: Run, door: Any) -> None:
    door.on("DescribeImages", {"Images": [IMAGE]})
    door.on("DescribeKeyPairs", {"KeyPairs": []})
    door.on("RunInstances", {"Instances": [described(state="pending")]})
    failed = {"Id": ID, "State": "terminated", "Step": "forget", "Reason": "Server.InternalError: Internal error"}
    door.on("WaitForChange", {"Token": "t", "Resources": [failed]})
    result = run("run")
    assert result.exit_code == 1
    assert "Server.InternalError" in result.stderr


def test_waiting_too_long_exits_with_4(run: Run, door: Any) -> None:
    door.on("DescribeInstances", reservations(described()))
    door.on("StopInstances", {})
    door.on("WaitForChange", change((ID, "stopping", "await_off")))
    result = run("instance", "stop", ID, "--timeout", "0")
    assert result.exit_code == 4
    assert "goes on without us" in result.stderr


def test_an_instance_may_be_called_by_its_name(run: Run, door: Any) -> None:
    door.on("DescribeInstances", reservations(described(name="web"), described("i-00000000000000002", name="db")))
    door.on("StopInstances", {})
    door.on("WaitForChange", change(("i-00000000000000002", "stopped", "rest")))
    assert run("instance", "stop", "db", "--force").exit_code == 0
    assert door.parameters("StopInstances") == {"InstanceIds": ["i-00000000000000002"], "Force": True}


def test_a_name_that_two_instances_have_is_refused(run: Run, door: Any) -> None:
    door.on("DescribeInstances", reservations(described(name="web"), described("i-00000000000000002", name="web")))
    result = run("instance", "show", "web")
    assert result.exit_code == 1
    assert "more than one" in result.output


def test_errors_carry_the_next_step(run: Run, door: Any) -> None:
    door.on("DescribeKeyPairs", {"KeyPairs": []})
    door.on("DescribeImages", {"Images": [IMAGE]})
    door.refuse("RunInstances", "InsufficientInstanceCapacity", "There is not enough capacity.")
    result = run("run")
    assert result.exit_code == 1
    assert "There is not enough capacity. (InsufficientInstanceCapacity)" in result.stderr
    assert "minicloud host ls" in result.stderr


def test_no_daemon_exits_with_3_and_says_how_to_start_one(run: Run, tmp_path: Path, door: Any) -> None:
    result = run("--socket", str(tmp_path / "nobody.sock"), "instance", "ls")
    assert result.exit_code == 3
    assert "minicloud serve" in result.stderr


def test_a_private_key_is_kept_for_its_owner_alone(run: Run, door: Any, tmp_path: Path) -> None:
    door.on("CreateKeyPair", {"KeyName": "default", "KeyPairId": "key-1", "KeyMaterial": "SECRET\n"})
    assert run("key", "create", "default").exit_code == 0
    file = tmp_path / "home" / ".config" / "minicloud" / "keys" / "default.pem"
    assert file.read_text() == "SECRET\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = run("key", "create", "default")
    assert again.exit_code == 1
    assert "not overwritten" in again.output
    assert file.read_text() == "SECRET\n"


def test_a_refused_key_leaves_no_file(run: Run, door: Any, tmp_path: Path) -> None:
    door.refuse("CreateKeyPair", "InvalidKeyPair.Duplicate", "exists")
    assert run("key", "create", "default").exit_code == 1
    assert not (tmp_path / "home" / ".config" / "minicloud" / "keys" / "default.pem").exists()


def test_register_uploads_imports_and_names_the_image(run: Run, door: Any, tmp_path: Path) -> None:
    file = tmp_path / "disk.qcow2"
    file.write_bytes(b"QFI\xfb" + b"x" * 3_000_000)
    task = {"ImportTaskId": "import-snap-1", "SnapshotTaskDetail": {"SnapshotId": "snap-1"}}
    door.on("ImportSnapshot", {"ImportTaskId": "import-snap-1"})
    door.on("WaitForChange", change(("import-snap-1", "completed", "cleanup")))
    door.on("DescribeImportSnapshotTasks", {"ImportSnapshotTasks": [task]})
    door.on("RegisterImage", {"ImageId": "ami-1"})
    result = run("image", "register", str(file), "--name", "tiny", "--ssh-user", "root")
    assert result.exit_code == 0, result.output
    assert door.uploads == [file.read_bytes()]
    assert door.parameters("ImportSnapshot")["DiskContainer"] == {"Format": "QCOW2", "Url": "file:///spool/upload"}
    asked = door.parameters("RegisterImage")
    assert asked["BlockDeviceMappings"] == [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-1"}}]
    assert asked["TagSpecifications"][0]["Tags"] == [{"Key": "ssh-user", "Value": "root"}]


def test_a_refused_image_exits_with_its_reason(run: Run, door: Any, tmp_path: Path) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"\0" * 4096)
    door.on("ImportSnapshot", {"ImportTaskId": "import-snap-1"})
    refused = {"Id": "import-snap-1", "State": "deleted", "Reason": "ClientError: it names a backing file"}
    door.on("WaitForChange", {"Token": "t", "Resources": [refused]})
    result = run("image", "register", str(file), "--name", "bad")
    assert result.exit_code == 1
    assert "backing file" in result.stderr
    assert door.parameters("ImportSnapshot")["DiskContainer"]["Format"] == "RAW"


def test_ssh_line_uses_the_images_user_and_the_kept_key(run: Run, door: Any, tmp_path: Path) -> None:
    door.on("DescribeInstances", reservations(described()))
    door.on("DescribeImages", {"Images": [IMAGE]})
    door.on("CreateKeyPair", {"KeyName": "default", "KeyPairId": "key-1", "KeyMaterial": "SECRET\n"})
    run("key", "create", "default")
    result = run("instance", "ssh", ID, "--print", "uname", "-a")
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith("admin@10.99.1.1 uname -a")
    assert f"-i {tmp_path}/home/.config/minicloud/keys/default.pem" in result.stdout


def test_console_prints_the_last_lines(run: Run, door: Any) -> None:
    door.on("DescribeInstances", reservations(described()))
    door.on("GetConsoleOutput", {"Output": base64.b64encode(b"one\r\ntwo\r\nthree\r\n").decode()})
    assert run("instance", "console", ID, "-n", "2").stdout == "two\nthree\n"


def test_aws_profile_leaves_others_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    config.write_text(
        "# mine\n[default]\nregion = eu-west-1\n[profile minicloud]\nregion = old\n\n[profile z]\na = b\n"
    )
    for _ in range(2):
        write_profile("http://127.0.0.1:8010", "lab-1", "AKIA", "secret")
    assert config.read_text() == (
        "# mine\n[default]\nregion = eu-west-1\n"
        "[profile minicloud]\nregion = lab-1\nendpoint_url = http://127.0.0.1:8010\n[profile z]\na = b\n"
    )
    assert credentials.read_text() == "[minicloud]\naws_access_key_id = AKIA\naws_secret_access_key = secret\n"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600


@pytest.mark.parametrize("issuer", [None, "authority"])
def test_aws_tools_are_told_of_a_certificate_that_nobody_vouches_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, issuer: str | None
) -> None:
    certificate, key_file, key = tmp_path / "certificate.pem", tmp_path / "key.pem", make_key()
    write_certificate(certificate, key, issuer=issuer)
    write_key(key_file, key)
    settings = tmp_path / "minicloud.yaml"
    settings.write_text(f"state_folder: {tmp_path}/state\ntls_certificate: {certificate}\ntls_key: {key_file}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    result = CliRunner().invoke(cli, ["--config", str(settings), "init", "--aws-profile"])
    assert result.exit_code == 0, result.output
    profile = "[profile minicloud]\nregion = local-1\nendpoint_url = https://127.0.0.1:8010\n"
    bundle = f"ca_bundle = {certificate}\n" if issuer is None else ""
    assert (tmp_path / "config").read_text() == profile + bundle


def test_completion_is_printed_for_each_shell(run: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_MINICLOUD_COMPLETE" in run("completion", shell).stdout


def test_listing_imports_no_wire_no_yaml_and_no_rich(door: Any) -> None:
    door.on("DescribeInstances", reservations(described()))
    code = (
        "import sys\nfrom minicloud.cli.main import cli\n"
        f"cli(['--socket', {str(door.socket_path)!r}, 'instance', 'ls'], standalone_mode=False)\n"
        "heavy = {'botocore', 'yaml', 'rich', 'sqlalchemy', 'libvirt', 'paramiko'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "HEAVY []"


def test_the_tree_lists_what_it_has() -> None:
    for name in COMMANDS:
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.name == name
