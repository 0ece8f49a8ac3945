"""The signed endpoint's edges: who is let in, how much, and what is said of our own failures."""

from __future__ import annotations

import base64
import http.client
import logging
import re
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from support import front as build

from minicloud.api import bodies, operations, rows
from minicloud.api.gate import Gate
from minicloud.api.services import MAX_HOST_READS
from minicloud.clock import ManualClock
from minicloud.errors import ApiError, StoreUnavailableError

ACTION = "Action=DescribeRegions&Version=2016-11-15"
FORM = "application/x-www-form-urlencoded; charset=utf-8"


@pytest.fixture
def address(front: Any, server: Any) -> tuple[str, int]:
    parts = urlsplit(server[1])
    return str(parts.hostname), int(parts.port or 0)


def send(
    address: tuple[str, int], method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(*address, timeout=120)
    try:
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode(), {k.lower(): v for k, v in response.getheaders()}
    finally:
        connection.close()


def code_of(text: str) -> str:
    match = re.search(r"<Code>([^<]+)</Code>", text)
    assert match, text
    return match[1]


def sign(url: str, body: str, credentials: Credentials, query: bool = False) -> AWSRequest:
    request = AWSRequest("GET" if query else "POST", url, data=None if query else body)
    if not query:
        request.headers["Content-Type"] = FORM
    signer = (SigV4QueryAuth if query else SigV4Auth)(credentials, "ec2", build.REGION)
    signer.add_auth(request)
    return request


@pytest.fixture
def credentials() -> Credentials:
    key = "AKIA" + base64.b32encode(build.fixed_bytes(10)).decode()
    return Credentials(key, base64.b64encode(build.fixed_bytes(30)).decode())


def test_wrong_secrets_and_unknown_keys_are_refused(front: Any, clients: Any, refused: Any) -> None:
    error = refused("AuthFailure", clients("ec2", secret="x" * 40).describe_regions)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 401
    refused("AuthFailure", clients("ec2", key="AKIA0000000000000000").describe_regions)
    refused("SignatureDoesNotMatch", clients("sts", secret="x" * 40).get_caller_identity)
    refused("InvalidClientTokenId", clients("sts", key="AKIA0000000000000000").get_caller_identity)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_clocks_may_differ_by_five_minutes_and_no_more(
    catalog: Any, server: Any, boto_ec2: Any, refused: Any, minutes: int
) -> None:
    now_us = int(datetime.now(UTC).timestamp()) * 1_000_000
    clock = ManualClock(now_us + minutes * 60_000_000)
    front = build.build_front(catalog, clock=clock)
    server[0].app = build.endpoint_of(front)
    refused("RequestExpired", boto_ec2.describe_regions)
    clock.jump_wall(-minutes * 60 + (4.5 if minutes > 0 else -4.5) * 60)
    assert boto_ec2.describe_regions()["Regions"]


def test_unsigned_requests_are_refused(address: tuple[str, int]) -> None:
    status, text, _ = send(address, "POST", "/", ACTION, {"Content-Type": FORM})
    assert (status, code_of(text)) == (400, "MissingParameter")
    status, text, _ = send(address, "GET", f"/?{ACTION}")
    assert status == 400


def test_presigned_requests_work_and_their_tampering_does_not(
    address: tuple[str, int], server: Any, credentials: Credentials
) -> None:
    url = sign(f"{server[1]}/?{ACTION}", "", credentials, query=True).prepare().url
    target = url[len(server[1]) :]
    status, text, _ = send(address, "GET", target)
    assert status == 200 and "<regionName>lab-1</regionName>" in text
    status, text, _ = send(address, "GET", target.replace("DescribeRegions", "DescribeVpcs"))
    assert (status, code_of(text)) == (401, "AuthFailure")


def test_a_reply_echoes_the_version_and_has_its_request_id(
    address: tuple[str, int], server: Any, credentials: Credentials
) -> None:
    body = "Action=DescribeRegions&Version=2014-10-01"
    request = sign(f"{server[1]}/", body, credentials).prepare()
    status, text, headers = send(address, "POST", "/", body, dict(request.headers))
    assert status == 200
    assert 'xmlns="http://ec2.amazonaws.com/doc/2014-10-01/"' in text
    assert f"<requestId>{headers['x-amzn-requestid']}</requestId>" in text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("Action=CreateVpc&Version=2016-11-15", "InvalidAction"),
        ("Action=RunRocket&Version=2016-11-15", "InvalidAction"),
        ("Action=DescribeRegions&Version=1999-01-01", "NoSuchVersion"),
        ("Version=2016-11-15", "MissingAction"),
        ("%ff=%ff", "MalformedQueryString"),
        (ACTION + "&Rocket=1", "UnknownParameter"),
        (ACTION + "&RegionName.1=a&RegionName.1=b", "InvalidQueryParameter"),
        (ACTION + "&AllRegions=perhaps", "InvalidParameterValue"),
        ("Action=RunInstances&Version=2016-11-15&MinCount=one&MaxCount=1&ImageId=ami-1", "InvalidParameterValue"),
        ("Action=RunInstances&Version=2016-11-15&ImageId=ami-1", "MissingParameter"),
        ("Action=RunInstances&Version=2016-11-15&MinCount=1&MaxCount=99999999999999999999", "InvalidParameterValue"),
    ],
)
def test_malformed_requests_have_ec2_s_codes(
    address: tuple[str, int], server: Any, credentials: Credentials, body: str, code: str
) -> None:
    request = sign(f"{server[1]}/", body, credentials).prepare()
    status, text, _ = send(address, "POST", "/", body, dict(request.headers))
    assert (status, code_of(text)) == (400, code)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(address: tuple[str, int], method: str) -> None:
    status, text, _ = send(address, method, "/")
    assert (status, code_of(text)) == (405, "InvalidMethod")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_ten_megabytes_is_refused(address: tuple[str, int], chunked: bool) -> None:
    body: Any = b"x" * 10_000_000
    if chunked:
        body = (b"x" * 65536 for _ in range(160))
    status, text, _ = send(address, "POST", "/", body, {"Content-Type": FORM})
    assert (status, code_of(text)) == (413, "RequestEntityTooLarge")


def test_a_declared_gigabyte_is_refused_unread(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=120) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_never_comes_is_not_waited_for_for_ever(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.2)
    with socket.create_connection(address, timeout=120) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_hangs_up_is_no_error(
    address: tuple[str, int], server: Any, credentials: Credentials, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(address, timeout=120) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    request = sign(f"{server[1]}/", ACTION, credentials).prepare()
    assert send(address, "POST", "/", ACTION, dict(request.headers))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_many_headers_and_long_addresses_are_refused(address: tuple[str, int]) -> None:
    headers = {f"X-Header-{n}": "x" for n in range(120)}
    status, text, _ = send(address, "POST", "/", b"", headers)
    assert (status, code_of(text)) == (431, "RequestHeaderSectionTooLarge")
    status, _, _ = send(address, "GET", "/?" + "x" * 60_000)
    assert status == 400


def test_a_bug_is_logged_whole_and_told_to_nobody(
    ec2: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refused: Any
) -> None:
    def buggy(*_: Any) -> None:
        raise RuntimeError("secret at /var/lib/minicloud/minicloud.db")

    row = operations.OPERATIONS["ec2"]["DescribeRegions"]
    monkeypatch.setitem(operations.OPERATIONS["ec2"], "DescribeRegions", rows.Row(buggy, row.honours))  # type: ignore[arg-type]
    error = refused("InternalError", ec2.describe_regions)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "secret" not in str(error) and "/var" not in str(error)
    (record,) = [record for record in caplog.records if record.name == "minicloud.api.app"]
    assert error.response["ResponseMetadata"]["RequestId"] in record.getMessage()
    assert record.exc_info is not None and "secret" in str(record.exc_info[1])


def test_a_handler_that_answers_nonsense_is_a_bug(ec2: Any, monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    row = rows.Row(lambda *_: {"Nonsense": 1})
    monkeypatch.setitem(operations.OPERATIONS["ec2"], "DescribeRegions", row)  # type: ignore[arg-type]
    refused("InternalError", ec2.describe_regions)


def test_a_database_that_is_away_is_unavailable(
    ec2: Any, front: Any, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailableError("connection to 10.0.0.7 refused")

    monkeypatch.setattr(front.cloud.store, "read", away)
    error = refused("Unavailable", ec2.describe_instances)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert "10.0.0.7" not in str(error)


def test_more_requests_than_there_is_room_for_are_told_so(
    front: Any, server: Any, clients: Any, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    entered, release = threading.Barrier(3), threading.Event()

    def slow(*_: Any) -> dict[str, Any]:
        entered.wait(60)
        release.wait(60)
        return {"Regions": []}

    row = rows.Row(slow, operations.OPERATIONS["ec2"]["DescribeRegions"].honours)
    monkeypatch.setitem(operations.OPERATIONS["ec2"], "DescribeRegions", row)  # type: ignore[arg-type]
    monkeypatch.setattr("minicloud.api.app.MAX_REQUESTS", 2)
    server[0].app = build.endpoint_of(front)
    ec2 = clients("ec2")
    threads = [threading.Thread(target=ec2.describe_regions) for _ in range(2)]
    for thread in threads:
        thread.start()
    entered.wait(60)
    try:
        error = refused("RequestLimitExceeded", ec2.describe_vpcs)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    finally:
        release.set()
        for thread in threads:
            thread.join(60)
    assert ec2.describe_vpcs()["Vpcs"]


def test_a_host_that_hangs_does_not_hold_every_thread(
    front: Any, server: Any, ec2: Any, clients: Any, run: Any, refused: Any
) -> None:
    id = run()["Instances"][0]["InstanceId"]
    entered, release = threading.Barrier(MAX_HOST_READS + 1), threading.Event()

    def hang(_: Any) -> bytes:
        entered.wait(60)
        release.wait(60)
        return b""

    server[0].app = build.endpoint_of(replace(front, services=replace(front.services, read_console=hang)))
    client = clients("ec2")
    threads = [
        threading.Thread(target=client.get_console_output, kwargs={"InstanceId": id}) for _ in range(MAX_HOST_READS)
    ]
    for thread in threads:
        thread.start()
    entered.wait(60)
    try:
        refused("RequestLimitExceeded", ec2.get_console_output, InstanceId=id)
        assert ec2.describe_instances()["Reservations"]
    finally:
        release.set()
        for thread in threads:
            thread.join(60)


def test_every_operation_of_the_table_is_in_aws_s_model(catalog: Any) -> None:
    for service, served in operations.OPERATIONS.items():
        for name, row in served.items():
            shape = catalog.operation(service, name).input
            for path in [*row.honours, *row.tolerates]:
                at = shape
                for part in path.split("."):
                    while at.kind == "list":
                        at = at.element.shape
                    assert part in at.members, f"{name}: {path}"
                    at = at.members[part].shape


def test_the_gate_counts_only_who_is_inside() -> None:
    async def scenario() -> None:
        gate = Gate(threads=1, max_requests=1)
        async with gate.admitted():
            with pytest.raises(ApiError) as caught:
                async with gate.admitted():
                    raise AssertionError("there was no room")
            assert caught.value.code == "RequestLimitExceeded"
        with pytest.raises(RuntimeError, match="inside"):
            async with gate.admitted():
                raise RuntimeError("inside")
        async with gate.admitted():
            assert await gate.run(lambda: 7) == 7

    anyio.run(scenario)
