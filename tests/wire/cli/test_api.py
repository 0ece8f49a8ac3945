"""`minicloud api` against the daemon's own door."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from support import front as build

from minicloud.api.operations import OPERATIONS

Run = Callable[..., Result]
LAUNCH = ("api", "RunInstances", "--image-id", build.IMAGE_ID, "--instance-type", "t3.nano")


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_names_are_aws_s_or_aws_cli_s(run: Run) -> None:
    account = build.root_caller().account_id
    for words in (("GetCallerIdentity",), ("sts", "GetCallerIdentity"), ("sts", "get-caller-identity")):
        assert answer(run("api", *words))["Account"] == account


def test_parameters_of_every_kind(run: Run) -> None:
    launched = answer(
        run(*LAUNCH, "--min-count", "1", "--MaxCount", "2", "--disable-api-stop", "--monitoring", "Enabled=true",
            "--block-device-mappings", "DeviceName=/dev/sda1,Ebs={VolumeSize=9,DeleteOnTermination=false}",
            "--tag-specifications", '{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}]}')
    )  # fmt: skip
    ids = [one["InstanceId"] for one in launched["Instances"]]
    assert len(ids) == 2
    found = answer(run("api", "describe-instances", "--filters", "Name=tag:Name,Values=web,db", "--instance-ids", *ids))
    assert [one["InstanceId"] for one in found["Reservations"][0]["Instances"]] == ids
    volume = launched["Instances"][0]["BlockDeviceMappings"][0]["Ebs"]
    assert volume["DeleteOnTermination"] is False


def test_the_whole_input_as_json_and_from_standard_input(run: Run, tmp_path: Path) -> None:
    document = json.dumps({"ImageId": build.IMAGE_ID, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano"})
    file = tmp_path / "input.json"
    file.write_text(document)
    for words, stdin in ((("--json", document), None), (("--json", f"@{file}"), None), (("--json", "-"), document)):
        assert len(answer(run("api", "RunInstances", *words, stdin=stdin))["Instances"]) == 1
    # An option says more than the input does.
    assert len(answer(run("api", "RunInstances", "--json", document, "--max-count", "3"))["Instances"]) == 3


def test_every_page(run: Run) -> None:
    for _ in range(7):
        answer(run(*LAUNCH, "--min-count", "1", "--max-count", "1"))
    page = answer(run("api", "DescribeInstances", "--max-results", "5"))
    assert len(page["Reservations"]) == 5 and page["NextToken"]
    whole = answer(run("api", "DescribeInstances", "--max-results", "5", "--all"))
    assert "NextToken" not in whole
    assert whole["Reservations"] == answer(run("api", "DescribeInstances"))["Reservations"]


def test_refusals_exit_with_1_and_say_the_code(run: Run) -> None:
    result = run("api", "TerminateInstances", "--instance-ids", "i-0123456789abcdef0")
    assert result.exit_code == 1
    assert "(InvalidInstanceID.NotFound)" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RunInstance"], "Similar: RunInstances"),
        (["CreateVpc"], "ec2 has the action CreateVpc, but minicloud does not serve it"),
        (["s3", "ListBuckets"], "There is no service 's3'"),
        (["Zzzzzz"], "minicloud api --list"),
        (["minicloud", "LaunchRocket"], "not valid"),
    ],
)
def test_what_there_is_not(run: Run, words: list[str], said: str) -> None:
    result = run("api", *words)
    assert result.exit_code == 1
    assert said in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["a", "b", "c"],
        ["--all"],
        ["DescribeInstances", "--colour", "red"],
        ["DescribeInstances", "--all", "x"],
        ["DescribeInstances", "--json"],
        ["--list", "ec2", "sts"],
        ["minicloud", "DaemonStatus", "--verbose"],
    ],
)
def test_wrong_usage_exits_with_2(run: Run, words: list[str]) -> None:
    result = run("api", *words)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_the_list_has_every_action_that_is_served(run: Run) -> None:
    rows = [line.split() for line in run("api", "--list").stdout.splitlines()[1:]]
    assert {(row[0], row[1]) for row in rows} == {
        (service, name) for service, served in OPERATIONS.items() for name in served
    }
    services = answer(run("api", "--list", "sts", "--json"))
    assert [one["Service"] for one in services] == ["sts"]
    unserved = run("api", "--list", "ec2", "--unserved").stdout.splitlines()
    assert "ec2 CreateVpc" in unserved and "ec2 RunInstances" not in unserved


def test_help_lists_parameters_and_how_each_is_supported(run: Run) -> None:
    lines = [" ".join(line.split()) for line in run("api", "RunInstances", "--help").stdout.splitlines()]
    assert lines[0] == "ec2 RunInstances"
    for line in (
        "--image-id string honoured",
        "--min-count integer yes honoured",
        "Ebs.VolumeSize integer honoured",
        "Tenancy default|dedicated|host accepted: default",
        "--kernel-id string refused",
        "--security-group-ids list of string honoured",
    ):
        assert line in lines, line
    listing = run("api", "DescribeInstances", "-h").stdout
    assert "instance-state-name" in listing and "--max-results from 5 to 1000" in listing
    assert "It has no parameters" in run("api", "GetCallerIdentity", "--help").output
    assert "--include-managed-resources boolean accepted: any" in " ".join(listing.split())


def test_the_daemon_s_own_operations(run: Run) -> None:
    assert answer(run("api", "minicloud", "DaemonStatus"))["Region"] == build.REGION
    assert answer(run("api", "minicloud", "AddZone", "--json", '{"Name": "lab-1d"}'))["Zone"]["ZoneName"] == "lab-1d"


def test_every_operation_can_be_described(run: Run, front: build.Front) -> None:
    for service, rows in OPERATIONS.items():
        for name in rows:
            assert run("api", service, name, "--help").exit_code == 0, name


@pytest.mark.parametrize("words", [["api", "GetCallerIdentity"], ["events"]])
def test_neither_loads_the_wire_nor_yaml_nor_rich(socket_path: Path, words: list[str]) -> None:
    code = (
        "import sys\nfrom minicloud.cli.main import cli\n"
        f"cli(['--socket', {str(socket_path)!r}, *{words!r}], standalone_mode=False)\n"
        "heavy = {'botocore', 'yaml', 'rich', 'sqlalchemy', 'libvirt', 'paramiko', 'minicloud.aws'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "HEAVY []"
