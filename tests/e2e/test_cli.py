"""The `minicloud` command against a real daemon and real hosts: what it prints, its JSON and its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import e2e

REFUSED, USAGE, UNREACHABLE, TIMED_OUT = 1, 2, 3, 4
KEY = "cli-test"
NAME = f"cli-{uuid.uuid4().hex[:8]}"
LAUNCH = {
    "pending: preparing disks and network",
    "pending: bringing the image to the host",
    "pending: starting the domain",
}
TERMINATION = {
    "shutting-down: stopped",
    "shutting-down: ending the domain",
    "shutting-down: deleting disks and network",
}


def run(cloud: Any, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    return cloud.exec("controller", ["minicloud", *arguments], check=False, timeout=timeout)


def printed(cloud: Any, *arguments: str) -> str:
    """Return what a command printed that must succeed and say nothing of errors."""
    result = run(cloud, *arguments)
    assert result.returncode == 0, f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def parsed(cloud: Any, *arguments: str) -> Any:
    return json.loads(printed(cloud, *arguments, "--json"))


def refused(cloud: Any, status: int, *arguments: str) -> str:
    """Return the complaint of a command that must fail so: one or two lines, never a stack."""
    result = run(cloud, *arguments)
    assert result.returncode == status, f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr and result.stderr.strip()
    return result.stderr


@pytest.fixture(scope="module")
def key(cloud: Any) -> Iterator[dict[str, Any]]:
    made = parsed(cloud, "key", "create", KEY)
    yield made
    run(cloud, "key", "rm", KEY)
    Path(inside(cloud, made["PrivateKeyFile"])).unlink(missing_ok=True)


def inside(cloud: Any, path: str) -> Path:
    return Path(cloud.private("controller", path))


def assert_stages(lines: list[str], stages: set[str], last: str) -> None:
    """Fail unless these lines tell stages of that way, up to its end. A short stage may go by unseen."""
    told = [re.sub(r"( \d+%)?( \(attempt \d+\))?$", "", line.split("  ")[-1]) for line in lines]
    assert set(told[:-1]) <= stages and told[-1] == last, lines


@pytest.fixture(scope="module")
def instance(cloud: Any, key: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One guest, run by the command and waited for with its lines of progress."""
    user_data = tmp_path_factory.mktemp("cli") / "user-data"
    user_data.write_text("#!/bin/sh\necho cli user data\n")
    launch = ["run", "tiny", "--type", "t3.nano", "--key", KEY, "--name", NAME, "--tag", "purpose=test"]
    launch += ["--zone", "lab-1b", "--root-size", "2", "--imdsv2", "--user-data", str(user_data)]
    launch += ["--client-token", NAME]
    result = run(cloud, *launch)
    assert result.returncode == 0, result.stderr
    match = re.fullmatch(r"(i-[0-9a-f]{17})  running  (\d+\.\d+\.\d+\.\d+)\n", result.stdout)
    assert match, result.stdout
    stages = result.stderr.splitlines()
    assert all(re.match(rf" *\d+\.\d\ds  {match[1]}  \S", line) for line in stages), result.stderr
    assert_stages(stages, LAUNCH, "running")
    found = parsed(cloud, "instance", "show", match[1])
    found["launch"] = launch
    yield found
    e2e.terminate(cloud, [one["InstanceId"] for one in e2e.live_instances(cloud)])
    e2e.assert_no_debris(cloud)


def test_init_again_changes_nothing(cloud: Any) -> None:
    account = parsed(cloud, "init")
    assert account["AccessKeyId"] == cloud.environment["AWS_ACCESS_KEY_ID"]
    assert account["SecretAccessKey"] == cloud.environment["AWS_SECRET_ACCESS_KEY"]
    assert account["EndpointUrl"] == cloud.environment["AWS_ENDPOINT_URL"] and account["Region"] == "lab-1"
    # The profile is one that aws-cli takes.
    printed(cloud, "init", "--aws-profile")
    bare = ["env", "-u", "AWS_ENDPOINT_URL", "-u", "AWS_ACCESS_KEY_ID", "-u", "AWS_SECRET_ACCESS_KEY"]
    bare += ["-u", "AWS_DEFAULT_REGION", "aws", "--profile", "minicloud", "sts", "get-caller-identity"]
    assert json.loads(cloud.exec("controller", bare).stdout)["Account"] == account["AccountId"]


def test_hosts_and_zones(cloud: Any) -> None:
    hosts = parsed(cloud, "host", "ls")
    assert [(one["Name"], one["Zone"], one["State"]) for one in sorted(hosts, key=lambda one: one["Name"])] == [
        ("host1", "lab-1a", "up"),
        ("host2", "lab-1b", "up"),
    ]
    header, *rows = printed(cloud, "host", "ls").splitlines()
    assert header.split()[:4] == ["NAME", "ID", "ZONE", "STATE"] and len(rows) == 2
    shown = parsed(cloud, "host", "show", "host1")
    assert shown["HostId"] == next(one["HostId"] for one in hosts if one["Name"] == "host1")
    assert shown["Facts"]["kernel"] and shown["Pools"][0]["Backend"] == "directory"
    text = printed(cloud, "host", "show", shown["HostId"])
    assert cloud.address("host1") in text and "lab-1a" in text
    assert [one["ZoneName"] for one in parsed(cloud, "zone", "ls")][:2] == ["lab-1a", "lab-1b"]
    assert "minicloud host ls" in refused(cloud, REFUSED, "host", "show", "host9")


def test_a_host_that_cannot_be_reached_is_not_added(cloud: Any) -> None:
    before = parsed(cloud, "host", "ls")
    nobody = cloud.address("controller").rsplit(".", 1)[0] + ".99"
    complaint = refused(cloud, REFUSED, "host", "add", "nobody", "--zone", "lab-1y", "--address", nobody)
    assert nobody in complaint
    assert [one["HostId"] for one in parsed(cloud, "host", "ls")] == [one["HostId"] for one in before]
    assert "lab-1y" not in printed(cloud, "zone", "ls")


def test_keys(cloud: Any, key: dict[str, Any]) -> None:
    file = inside(cloud, key["PrivateKeyFile"])
    assert file.stat().st_mode & 0o777 == 0o600 and "PRIVATE KEY" in file.read_text()
    assert KEY in [one["KeyName"] for one in parsed(cloud, "key", "ls")]
    assert "is not overwritten" in refused(cloud, REFUSED, "key", "create", KEY)
    other = f"/tmp/{uuid.uuid4().hex}"
    complaint = refused(cloud, REFUSED, "key", "create", KEY, "--output", other)
    assert "InvalidKeyPair.Duplicate" in complaint and "minicloud key rm" in complaint
    assert not Path(other).exists()
    assert "minicloud key ls" in refused(cloud, REFUSED, "key", "rm", "nobody")


def test_an_image_comes_and_goes(cloud: Any) -> None:
    file = "/var/lib/minicloud/import/tiny.qcow2"
    name = f"copy-{NAME}"
    made = parsed(cloud, "image", "register", file, "--name", name, "--ssh-user", "ec2-user")
    assert made["ImageId"].startswith("ami-") and made["SnapshotId"].startswith("snap-")
    shown = parsed(cloud, "image", "show", name)
    assert (shown["ImageId"], shown["State"], shown["Architecture"]) == (made["ImageId"], "available", "x86_64")
    assert {"Key": "ssh-user", "Value": "ec2-user"} in shown["Tags"]
    assert made["SnapshotId"] in printed(cloud, "image", "show", made["ImageId"])
    assert name in printed(cloud, "image", "ls")
    assert "InvalidAMIName.Duplicate" in refused(cloud, REFUSED, "image", "register", file, "--name", name)
    printed(cloud, "image", "rm", name)
    assert made["ImageId"] not in [one["ImageId"] for one in parsed(cloud, "image", "ls")]
    assert "minicloud image ls" in refused(cloud, REFUSED, "image", "show", name)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("backing", "backing file"), ("empty", "must have 1 to"), ("text", "qcow2|multiple|sector|512|boot")],
)
def test_a_bad_image_is_refused_with_its_reason(cloud: Any, tmp_path: Path, kind: str, reason: str) -> None:
    before = e2e.task_rows(cloud).keys()
    bad = tmp_path / f"{kind}.qcow2"
    if kind == "backing":
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", str(bad), "1G"]
        subprocess.run(create, check=True)
    elif kind == "text":
        bad.write_text("this is no disk\n")
    else:
        bad.touch()
    arguments = ["image", "register", str(bad), "--name", f"bad-{NAME}", "--format", "qcow2"]
    complaint = refused(cloud, REFUSED, *arguments)
    assert re.search(reason, complaint), complaint
    assert str(tmp_path) not in complaint and "/var/lib" not in complaint
    assert f"bad-{NAME}" not in printed(cloud, "image", "ls")
    state = cloud.private("controller", e2e.STATE_FOLDER)
    # The refusal is told first, and what it left is cleaned up right after.
    e2e.until("no task", lambda: not e2e.task_rows(cloud).keys() - before)
    for folder in ("jobs", "controller/spool", "controller/objects/incoming", "controller/objects/tmp"):
        assert list((state / folder).rglob("*")) == []


def test_run_wait_and_show(cloud: Any, instance: dict[str, Any]) -> None:
    assert instance["State"]["Name"] == "running" and instance["Placement"]["AvailabilityZone"] == "lab-1b"
    assert instance["KeyName"] == KEY and instance["MetadataOptions"]["HttpTokens"] == "required"
    assert {"Key": "purpose", "Value": "test"} in instance["Tags"]
    # The same token is the same instance.
    assert printed(cloud, *instance["launch"]).startswith(instance["InstanceId"])
    assert [one["InstanceId"] for one in parsed(cloud, "instance", "ls")] == [instance["InstanceId"]]
    (row,) = printed(cloud, "instance", "ls").splitlines()[1:]
    assert row.split()[:5] == [instance["InstanceId"], NAME, "running", "t3.nano", "lab-1b"]
    shown = printed(cloud, "instance", "show", NAME)
    assert instance["PublicIpAddress"] in shown and "purpose=test" in shown


def test_ssh_and_console(cloud: Any, instance: dict[str, Any]) -> None:
    line = printed(cloud, "instance", "ssh", NAME, "--print").split()
    assert line[0] == "ssh" and line[-1] == f"ec2-user@{instance['PublicIpAddress']}"

    def hello() -> str | None:
        result = run(cloud, "instance", "ssh", NAME, "cat", "/sys/block/vda/size", ";", "exit", "7")
        return result.stdout if result.returncode == 7 else None

    # The status is the command's own.
    assert int(e2e.until("ssh", hello, e2e.GUEST_SECONDS, every=0.2)) == 2 * 2 * 1024**2
    text = e2e.until(
        "the user data's output",
        lambda: (
            "cli user data" in printed(cloud, "instance", "console", NAME)
            and parsed(cloud, "instance", "console", NAME)
        ),
        every=0.2,
    )
    assert text["InstanceId"] == instance["InstanceId"] and "cli user data" in text["Output"]
    assert len(printed(cloud, "instance", "console", NAME, "--lines", "2").splitlines()) == 2


def test_stop_start_reboot_terminate(cloud: Any, instance: dict[str, Any]) -> None:
    (stopped,) = parsed(cloud, "instance", "stop", NAME)
    assert stopped["State"]["Name"] == "stopped"
    assert "User initiated" in stopped["StateTransitionReason"]
    complaint = refused(cloud, REFUSED, "instance", "reboot", NAME)
    assert "IncorrectState" in complaint or "IncorrectInstanceState" in complaint
    assert printed(cloud, "instance", "start", NAME).split()[1] == "running"
    assert printed(cloud, "instance", "reboot", NAME).split()[0] == instance["InstanceId"]
    # Nobody waits: the answer is of the moment. A forced stop does not ask the guest, so it is quick.
    (stopping,) = parsed(cloud, "instance", "stop", NAME, "--force", "--no-wait")
    assert stopping["State"]["Name"] in ("stopping", "stopped")
    e2e.wait_state(cloud, [instance["InstanceId"]], "stopped")
    result = run(cloud, "instance", "terminate", NAME)
    assert (result.returncode, result.stdout) == (0, f"{instance['InstanceId']}  terminated\n")
    assert_stages(result.stderr.splitlines(), TERMINATION, "terminated")
    assert run(cloud, "instance", "ls").stdout == ""
    assert instance["InstanceId"] in printed(cloud, "instance", "ls", "--all")
    assert "no instance named" in refused(cloud, REFUSED, "instance", "show", NAME)


def test_exit_codes_and_next_steps(cloud: Any) -> None:
    complaint = refused(cloud, REFUSED, "run", "tiny", "--type", "t9.nano")
    assert "t9.nano" in complaint and "InvalidParameterValue" in complaint
    complaint = refused(cloud, REFUSED, "run", "tiny", "--type", "r5.2xlarge", "--count", "1000")
    assert "InsufficientInstanceCapacity" in complaint or "InstanceLimitExceeded" in complaint
    assert "minicloud image ls" in refused(cloud, REFUSED, "run", "nothing-like-it")
    assert "minicloud key ls" in refused(cloud, REFUSED, "run", "tiny", "--key", "nobody")
    refused(cloud, REFUSED, "instance", "show", "i-00000000000000000")
    refused(cloud, USAGE, "instance", "stop")
    refused(cloud, USAGE, "--config", "/etc/hostname", "init")
    assert "minicloud serve" in refused(cloud, UNREACHABLE, "--socket", "/run/nothing.sock", "instance", "ls")
    assert e2e.live_instances(cloud) == []


def test_waiting_has_an_end(cloud: Any) -> None:
    """`--timeout` gives up waiting, says that it goes on, and exits with a status of its own."""
    complaint = refused(cloud, TIMED_OUT, "run", "tiny", "--type", "t3.nano", "--zone", "lab-1a", "--timeout", "0")
    assert "still waiting" in complaint
    e2e.terminate(cloud, [one["InstanceId"] for one in e2e.live_instances(cloud)])
    e2e.assert_no_debris(cloud)


def test_doctor(cloud: Any) -> None:
    result = cloud.exec("controller", ["minicloud", "doctor", "--json"], check=False, timeout=300)
    checks = {one["name"]: one for one in json.loads(result.stdout)}
    assert {one["status"] for one in checks.values()} <= {"ok", "warn", "fail"}
    assert result.returncode == (1 if any(one["status"] == "fail" for one in checks.values()) else 0)
    assert all(one["mend"] for one in checks.values() if one["status"] != "ok")
    text = cloud.exec("controller", ["minicloud", "doctor"], check=False, timeout=300).stdout
    assert all(name in text for name in checks)
