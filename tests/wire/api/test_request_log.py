"""The request log through both doors: what a line says of real requests, refused ones too, and reading it back."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import httpx
import pytest
from botocore.exceptions import ClientError
from support import front as build

from minicloud.api import events as events_module
from minicloud.api.gate import Gate
from minicloud.api.request_log import RequestLog
from minicloud.api.services import Context
from minicloud.clock import SystemClock
from minicloud.errors import ApiError

ACCESS_KEY = "AKIA" + base64.b32encode(build.fixed_bytes(10)).decode()
SECRET_KEY = base64.b64encode(build.fixed_bytes(30)).decode()
Events = Callable[..., list[dict[str, Any]]]


def ask(front: build.Front, operation: str, peer: str = "uid:0", **parameters: Any) -> tuple[int, dict[str, Any]]:
    """Call the door."""

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(build.door_of(front, peer))
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            return await client.post(f"/v1/{operation}", content=json.dumps(parameters))

    response = asyncio.run(once())
    return response.status_code, response.json()


@pytest.fixture
def events(front: build.Front) -> Events:
    """What the log holds, the oldest first."""

    def read(**parameters: Any) -> list[dict[str, Any]]:
        status, answer = ask(front, "minicloud/DescribeEvents", **parameters)
        assert status == 200, answer
        return answer["Events"][::-1]

    return read


def test_a_launch_and_what_became_of_it(run: Callable[..., Any], ec2: Any, events: Events) -> None:
    launched = run(MinCount=2, MaxCount=2)
    ids = [one["InstanceId"] for one in launched["Instances"]]
    ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": ids}])
    ec2.terminate_instances(InstanceIds=ids)
    launch, described, ended = events()
    assert (launch["Service"], launch["Operation"], launch["Door"]) == ("ec2", "RunInstances", "endpoint")
    assert launch["Principal"] == ACCESS_KEY
    assert launch["AccountId"] == build.root_caller().account_id
    assert launch["SourceAddress"] == "127.0.0.1"
    assert launch["ResourceIds"][:2] == ids
    assert build.IMAGE_ID in launch["ResourceIds"]
    assert (launch["Status"], launch["Code"]) == (200, None)
    assert launch["RequestId"] == launched["ResponseMetadata"]["RequestId"]
    assert launch["ReplyBytes"] == int(launched["ResponseMetadata"]["HTTPHeaders"]["content-length"])
    assert launch["LatencyMs"] > 0
    # A filter's values are taken out of the parameters before the handler sees them, and named nevertheless.
    assert described["ResourceIds"] == ids
    assert ended["ResourceIds"] == ids


def test_what_is_refused_is_logged_with_its_code(ec2: Any, events: Events) -> None:
    with pytest.raises(ClientError):
        ec2.terminate_instances(InstanceIds=["i-0123456789abcdef0"])
    with pytest.raises(ClientError):
        ec2.create_vpc(CidrBlock="10.0.0.0/16")
    missing, unserved = events()
    assert (missing["Status"], missing["Code"]) == (400, "InvalidInstanceID.NotFound")
    assert missing["ResourceIds"] == ["i-0123456789abcdef0"]
    # Who it was is not looked at before the operation is known, so it is a claim.
    assert (unserved["Operation"], unserved["Code"], unserved["AccountId"]) == ("CreateVpc", "InvalidAction", None)
    assert unserved["Principal"] == ACCESS_KEY


def test_a_signature_that_does_not_hold_is_a_claim(
    front: build.Front, clients: Callable[..., Any], events: Events
) -> None:
    with pytest.raises(ClientError):
        clients("ec2", secret="wrong").describe_regions()
    with pytest.raises(ClientError):
        clients("ec2", key="AKIANOBODY").describe_regions()
    wrong, nobody = events()
    assert (wrong["Principal"], wrong["AccountId"], wrong["Code"]) == (ACCESS_KEY, None, "AuthFailure")
    assert (nobody["Principal"], nobody["AccountId"], nobody["Operation"]) == ("AKIANOBODY", None, "DescribeRegions")


def test_no_secret_is_ever_in_it(front: build.Front, run: Callable[..., Any], ec2: Any, tmp_path: Path) -> None:
    run(UserData="a password")
    key = ec2.create_key_pair(KeyName="k2", KeyType="ed25519")
    front.services.requests.flush()
    written = b"".join(path.read_bytes() for path in (tmp_path / "requests").iterdir()).decode()
    assert "RunInstances" in written
    for secret in (SECRET_KEY, key["KeyMaterial"][50:80], "YSBwYXNzd29yZA", "a password", "Signature"):
        assert secret not in written


def test_nonsense_from_strangers_makes_plain_lines(
    front: build.Front, server: tuple[build.Server, str], events: Events
) -> None:
    for path in ("/?Action=Evil%0A%1b%5B31m&Version=2016-11-15", "/", "/?Action=%00%ff"):
        with pytest.raises(HTTPError):
            urllib.request.urlopen(server[1] + path, timeout=10)
    found = events()
    assert [one["Operation"] for one in found] == ["Evil??[31m", None, "??"]
    assert all(one["Principal"] is None and one["AccountId"] is None and one["Code"] for one in found)


def test_what_the_gate_turns_away_is_logged(
    front: build.Front, ec2: Any, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Gate) -> Any:
        raise ApiError("RequestLimitExceeded", "Request limit exceeded.", 503)

    with monkeypatch.context() as patch:
        patch.setattr(Gate, "admitted", full)
        with pytest.raises(ClientError):
            ec2.describe_regions()
    (one,) = events()
    assert (one["Status"], one["Code"], one["Operation"]) == (503, "RequestLimitExceeded", None)


def test_bugs_are_counted_as_ours(
    front: build.Front, ec2: Any, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: Any) -> None:
        raise RuntimeError("secret")

    with monkeypatch.context() as patch:
        patch.setattr("minicloud.api.app.perform", bug)
        with pytest.raises(ClientError):
            ec2.describe_regions()
    (one,) = events(ErrorsOnly=True)
    assert (one["Status"], one["Code"]) == (500, "InternalError")
    _, status = ask(front, "minicloud/DaemonStatus")
    errors = [one for one in status["Metrics"] if one["Name"] == "minicloud_api_request_errors_total"]
    labels = {"service": "ec2", "operation": "DescribeRegions", "class": "5xx", "code": "InternalError"}
    assert errors == [{"Name": "minicloud_api_request_errors_total", "Labels": labels, "Value": 1}]


def test_a_log_that_cannot_be_written_fails_no_request(front: build.Front, ec2: Any, tmp_path: Path) -> None:
    (tmp_path / "requests").write_text("a file where the folder should be")
    ec2.describe_regions()
    for operation, parameters in (("DescribeEvents", {}), ("WaitForEvents", {"After": 0, "TimeoutSeconds": 0})):
        status, refusal = ask(front, f"minicloud/{operation}", **parameters)
        assert (status, refusal["Error"]["Code"]) == (503, "Unavailable")
    front.services.requests.flush()
    ec2.describe_regions()


# The door


def test_the_socket_s_requests_are_logged_by_user(front: build.Front, events: Events) -> None:
    ask(front, "ec2/RunInstances", ImageId=build.IMAGE_ID, MinCount=1, MaxCount=1)
    ask(front, "minicloud/RemoveHost", HostId="h-0123456789abcdef0")
    ask(front, "ec2/DescribeRegions", peer="uid:1000")
    ask(front, "s3/ListBuckets")
    launch, remove, stranger, unserved = events()
    assert (launch["Door"], launch["Principal"], launch["SourceAddress"]) == ("socket", "uid:0", "pid:4711")
    assert launch["ResourceIds"][0].startswith("i-")
    assert (remove["Service"], remove["ResourceIds"]) == ("minicloud", ["h-0123456789abcdef0"])
    assert (stranger["Principal"], stranger["AccountId"], stranger["Status"]) == ("uid:1000", None, 403)
    assert (unserved["Operation"], unserved["Code"]) == ("ListBuckets", "InvalidAction")


# Reading it


def answer(log: RequestLog, operation: str, code: str | None = None, resource: str | None = None) -> None:
    entry = log.begin("request", "endpoint", "192.0.2.7")
    entry.asks("ec2", operation)
    if resource is not None:
        entry.names({"Id": resource})
    if code is not None:
        entry.refused(code)
    log.end(entry, 400 if code else 200, 10)


def test_what_is_asked_for_and_nothing_else(front: build.Front, events: Events) -> None:
    log = front.services.requests
    mine, other = "i-0123456789abcdef0", "i-0123456789abcdef1"
    answer(log, "RunInstances", resource=mine)
    answer(log, "StopInstances", "IncorrectInstanceState", mine)
    answer(log, "StopInstances", resource=other)
    assert [one["Operation"] for one in events(ResourceId=mine)] == ["RunInstances", "StopInstances"]
    assert [one["Code"] for one in events(ErrorsOnly=True)] == ["IncorrectInstanceState"]
    assert len(events(Operation="StopInstances")) == 2
    assert events(Operation="Stop") == [] == events(SlowOnly=True)
    assert len(events(Operation="StopInstances", ResourceId=other)) == 1


def test_slow_ones_are_found(front: build.Front, events: Events, tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests", SystemClock(), 0.0)
    answer(log, "RunInstances")
    log.flush()
    answer(front.services.requests, "StopInstances")
    assert [one["Operation"] for one in events(SlowOnly=True)] == ["RunInstances"]


def test_pages_lead_back_to_the_beginning(front: build.Front, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(25):
        answer(front.services.requests, f"Operation{number}")
    seen: list[str] = []
    token = None
    while True:
        _, page = ask(front, "minicloud/DescribeEvents", MaxResults=10, NextToken=token)
        seen += [one["Operation"] for one in page["Events"]]
        token = page.get("NextToken")
        if token is None:
            break
    assert [name for name in seen if name != "DescribeEvents"] == [f"Operation{n}" for n in range(24, -1, -1)]
    # A question about something rare reads a bounded part of the log at a time.
    monkeypatch.setattr(events_module, "MAX_SCANNED", 4)
    _, page = ask(front, "minicloud/DescribeEvents", Operation="Operation0")
    assert page["Events"] == [] and page["NextToken"]


def test_no_older_than_asked_for(front: build.Front, events: Events) -> None:
    answer(front.services.requests, "RunInstances")
    (one,) = events()
    assert len(events(StartTime=one["Time"], Operation="RunInstances")) == 1
    assert events(StartTime="2999-01-01T00:00:00+02:00") == []


def test_an_upload_that_took_hours_hides_nothing(front: build.Front, events: Events) -> None:
    log = front.services.requests
    answer(log, "RunInstances")
    log.flush()
    (launch,) = events()
    hours = 3 * 3600
    upload = log.begin("request", "socket", "pid:1")
    upload.asks("minicloud", "UploadImport")
    upload.began_us -= hours * 1_000_000
    upload.began_seconds -= hours
    log.end(upload, 200, 10)
    assert launch in events(StartTime=launch["Time"])
    # What ended long before is where the search ends.
    old = log.begin("request", "socket", "pid:1")
    old.asks("ec2", "RunInstances")
    old.began_us -= hours * 1_000_000
    log.end(old, 200, 10)
    assert events(StartTime=launch["Time"], Operation="RunInstances") == []


@pytest.mark.parametrize(
    ("code", "parameters"),
    [
        ("InvalidParameterValue", {"MaxResults": 0}),
        ("InvalidParameterValue", {"MaxResults": 1001}),
        ("InvalidParameterValue", {"StartTime": "yesterday"}),
        ("InvalidParameterValue", {"StartTime": "2026-01-01T00:00:00"}),
        ("InvalidParameterValue", {"StartTime": "0001-01-01T00:00:00+14:00"}),
        ("InvalidParameterValue", {"Operation": 'x"y'}),
        ("InvalidParameterValue", {"ResourceId": "i-\u00e9 \n"}),
        ("InvalidNextToken", {"NextToken": "x"}),
        ("UnknownParameter", {"Color": "red"}),
    ],
)
def test_nonsense_is_refused(front: build.Front, code: str, parameters: dict[str, Any]) -> None:
    status, refusal = ask(front, "minicloud/DescribeEvents", **parameters)
    assert (status, refusal["Error"]["Code"]) == (400, code)


def test_following_wakes_for_what_is_wanted_and_only_that(front: build.Front) -> None:
    context = Context(front.services, build.root_caller())
    log = front.services.requests

    async def scenario() -> None:
        gate = Gate(2, 10)
        wanted = {"After": 0, "Operation": "StopInstances", "TimeoutSeconds": 30}
        waiting = asyncio.create_task(events_module.wait_for_events(context, gate, dict(wanted)))
        while not log.changes._waiters:
            await asyncio.sleep(0)
        answer(log, "RunInstances")
        await asyncio.to_thread(log.flush)
        while not log.changes._waiters:
            await asyncio.sleep(0)
        assert not waiting.done()
        answer(log, "StopInstances")
        await asyncio.to_thread(log.flush)
        found = await waiting
        assert [one["Operation"] for one in found["Events"]] == ["StopInstances"]
        assert found["LastSequence"] == 2
        nothing = {"After": 2, "TimeoutSeconds": 0}
        assert (await events_module.wait_for_events(context, gate, nothing)) == {"Events": [], "LastSequence": 2}

    asyncio.run(scenario())


def test_following_goes_through_a_burst_in_order(front: build.Front) -> None:
    for number in range(25):
        answer(front.services.requests, f"Operation{number}")
    seen: list[str] = []
    after = 0
    while len(seen) < 25:
        _, found = ask(front, "minicloud/WaitForEvents", After=after, MaxResults=10, TimeoutSeconds=0)
        seen += [one["Operation"] for one in found["Events"]]
        after = found["LastSequence"]
    assert seen == [f"Operation{number}" for number in range(25)]
    # A number of a log that is gone means: from now on.
    _, found = ask(front, "minicloud/WaitForEvents", After=10**9, TimeoutSeconds=0)
    assert found == {"Events": [], "LastSequence": 25}
