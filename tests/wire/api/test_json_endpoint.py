"""The signed endpoint as callers of AWS JSON meet it: its edges, and what is said of our own failures."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from support import front as build

from minicloud.api import operations, rows
from minicloud.errors import StoreUnavailableError

TARGET = "AmazonSSM.GetParameter"
MEDIA_TYPE = "application/x-amz-json-1.1"


@pytest.fixture
def credentials() -> Credentials:
    key = "AKIA" + base64.b32encode(build.fixed_bytes(10)).decode()
    return Credentials(key, base64.b64encode(build.fixed_bytes(30)).decode())


def signed(url: str, body: str, credentials: Credentials, **headers: str) -> dict[str, str]:
    request = AWSRequest("POST", url, data=body, headers=headers)
    SigV4Auth(credentials, "ssm", build.REGION).add_auth(request)
    return dict(request.prepare().headers.items())


def named(answer: httpx.Response) -> str:
    assert answer.headers["content-type"].startswith("application/x-amz-json-1.")
    assert answer.headers["x-amzn-requestid"].startswith("request-")
    assert answer.json()["message"]
    return str(answer.json()["__type"])


def test_a_call_by_hand(front: Any, server: Any, credentials: Credentials) -> None:
    body = json.dumps({"Name": "/minicloud/images/image1"})
    headers = signed(server[1], body, credentials, **{"X-Amz-Target": TARGET, "Content-Type": MEDIA_TYPE})
    answer = httpx.post(server[1], content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["Parameter"]["Value"] == build.IMAGE_ID
    assert answer.headers["content-type"] == MEDIA_TYPE


def test_the_target_must_be_signed(front: Any, server: Any, credentials: Credentials) -> None:
    """Otherwise whoever carries the request could make another operation of it."""
    headers = signed(server[1], "{}", credentials, **{"Content-Type": MEDIA_TYPE})
    answer = httpx.post(server[1], content="{}", headers={**headers, "X-Amz-Target": TARGET})
    assert (answer.status_code, named(answer)) == (400, "InvalidSignatureException")
    headers = signed(server[1], "{}", credentials, **{"X-Amz-Target": TARGET, "Content-Type": MEDIA_TYPE})
    other = {name: value for name, value in headers.items() if name.lower() != "x-amz-target"}
    answer = httpx.post(server[1], content="{}", headers={**other, "X-Amz-Target": "AmazonSSM.GetParameters"})
    assert (answer.status_code, named(answer)) == (400, "InvalidSignatureException")


def test_unsigned_and_unknown_calls(front: Any, server: Any) -> None:
    headers = {"X-Amz-Target": TARGET, "Content-Type": MEDIA_TYPE}
    answer = httpx.post(server[1], content="{}", headers=headers)
    assert (answer.status_code, named(answer)) == (400, "MissingAuthenticationTokenException")
    answer = httpx.post(server[1], content="{}", headers={**headers, "X-Amz-Target": "AmazonSSM.PutParameter"})
    assert (answer.status_code, named(answer)) == (400, "UnknownOperationException")


def test_a_body_that_is_too_large_is_refused_in_json(front: Any, server: Any) -> None:
    headers = {"X-Amz-Target": TARGET, "Content-Type": "application/x-amz-json-1.0"}
    answer = httpx.post(server[1], content=b"x" * (2 << 20), headers=headers)
    assert (answer.status_code, named(answer)) == (413, "RequestEntityTooLarge")


def test_a_bug_is_told_to_nobody(
    front: Any,
    clients: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refused: Any,
) -> None:
    def buggy(*_: Any) -> None:
        raise RuntimeError("secret at /var/lib/minicloud/minicloud.db")

    row = rows.Row(buggy, frozenset({"Name"}))
    monkeypatch.setitem(operations.OPERATIONS["ssm"], "GetParameter", row)  # type: ignore[arg-type]
    error = refused("InternalFailure", clients("ssm").get_parameter, Name="/x")
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "secret" not in str(error)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_a_database_that_is_away_is_unavailable(
    front: Any, clients: Any, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailableError("connection to 10.0.0.7 refused")

    ssm = clients("ssm")
    monkeypatch.setattr("minicloud.cloud.image_parameters._find", away)
    error = refused("Unavailable", ssm.get_parameter, Name="/x")
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert "10.0.0.7" not in str(error)
