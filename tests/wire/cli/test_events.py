"""`minicloud events` against the daemon's own door."""

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

from minicloud.clock import MICROSECONDS

Run = Callable[..., Result]


def answer(front: build.Front, operation: str, code: str | None = None, **known: Any) -> None:
    """A request of the signed endpoint, as the log sees it."""
    log = front.services.requests
    entry = log.begin("request", "endpoint", "192.0.2.7")
    entry.claims("AKIAEXAMPLE")
    entry.asks("ec2", operation)
    for name, value in known.items():
        setattr(entry, name, value)
    if code is not None:
        entry.refused(code)
    log.end(entry, 400 if code else 200, 10)


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def test_the_newest_stand_last(run: Run, front: build.Front) -> None:
    ids = tuple(f"i-0000000000000000{n}" for n in range(5))
    answer(front, "RunInstances", account_id="100000000001", made=ids)
    answer(front, "DescribeRegions", "AuthFailure")
    header, launch, failure = rows(run("events"))
    assert header == ["TIME", "WHO", "FROM", "ACTION", "MS", "STATUS", "CODE", "RESOURCES"]
    assert launch[1:4] == ["AKIAEXAMPLE", "192.0.2.7", "ec2:RunInstances"]
    assert launch[5:] == ["200", "-", *ids[:3], "+2"]
    # A signature that did not hold proves nobody.
    assert failure[1] == "AKIAEXAMPLE?"
    assert failure[5:] == ["400", "AuthFailure"]


def test_what_is_asked_for(run: Run, front: build.Front) -> None:
    # Began long ago, and was slow.
    answer(front, "CopyImage", began_us=1_700_000_000 * MICROSECONDS, began_seconds=-100.0)
    answer(front, "RunInstances", made=("i-00000000000000001",))
    answer(front, "StopInstances", "IncorrectInstanceState", named=("i-00000000000000001",))

    def actions(*options: str) -> list[str]:
        return [row[3] for row in rows(run("events", *options))[1:] if row[3].startswith("ec2:")]

    assert actions() == ["ec2:CopyImage", "ec2:RunInstances", "ec2:StopInstances"]
    assert actions("--errors") == ["ec2:StopInstances"]
    assert actions("--resource", "i-00000000000000001") == ["ec2:RunInstances", "ec2:StopInstances"]
    assert actions("--operation", "RunInstances") == ["ec2:RunInstances"] == actions("--operation", "ec2:RunInstances")
    assert actions("--slow") == ["ec2:CopyImage"]
    assert actions("--since", "10m") == ["ec2:RunInstances", "ec2:StopInstances"]
    assert actions("--since", "2023-11-14T22:13:20Z", "--slow") == ["ec2:CopyImage"]
    assert len(rows(run("events", "-n", "2"))) == 3


def test_more_than_a_page(run: Run, front: build.Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicloud.cli.commands.events.PAGE", 10)
    for number in range(35):
        answer(front, f"Operation{number}")
    found = json.loads(run("events", "--limit", "25", "--json").stdout)
    assert [one["Operation"] for one in found if one["Service"] == "ec2"][-1] == "Operation34"
    assert len(found) == 25
    assert [one["Sequence"] for one in found] == sorted(one["Sequence"] for one in found)


def test_nothing_to_show_says_so(run: Run) -> None:
    result = run("events", "--errors")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No requests." in result.stderr


def test_wrong_usage(run: Run) -> None:
    assert run("events", "--since", "yesterday").exit_code == 2
    assert run("events", "--since", "999999d").exit_code == 2
    assert run("events", "--limit", "0").exit_code == 2
    refused = run("events", "--operation", "no such action")
    assert refused.exit_code == 1 and "InvalidParameterValue" in refused.stderr


def test_following(front: build.Front, socket_path: Path) -> None:
    answer(front, "RunInstances")
    command = [sys.executable, "-m", "minicloud", "--socket", str(socket_path), "events", "--follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["Operation"] == "RunInstances"
            answer(front, "StopInstances")
            front.services.requests.flush()
            shown = ""
            while shown != "StopInstances":  # its own question stands between
                shown = json.loads(process.stdout.readline())["Operation"]
                assert shown in ("DescribeEvents", "StopInstances")
        finally:
            process.terminate()
