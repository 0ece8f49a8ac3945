"""Credentials that are not good, as boto3 hears of them from every service: each in its own words."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import boto3
import botocore.session
import pytest
from botocore import UNSIGNED
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from support import front as build

from minicloud.clock import ManualClock, SystemClock

CALLS: dict[str, Callable[[Any], Any]] = {
    "ec2": lambda client: client.describe_regions(),
    "sts": lambda client: client.get_caller_identity(),
    "iam": lambda client: client.list_account_aliases(),
    "ssm": lambda client: client.get_parameter(Name="/minicloud/images/none"),
}
# What each service says: EC2, those of the query protocol, those of AWS JSON.
CODES = {
    "unknown key": ("AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException"),
    "wrong secret": ("AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "wrong region": ("AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "wrong service": ("AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "unsigned": ("MissingParameter", "MissingAuthenticationToken", "MissingAuthenticationTokenException"),
    "stale": ("RequestExpired", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "too early": ("RequestExpired", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "token of nobody": ("AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException"),
}
HOUR_US = 3600 * 1_000_000


@cache
def session() -> Any:
    return boto3.Session(botocore_session=botocore.session.Session())


def client(url: str, service: str, secret: str, fault: str, key: str) -> Any:
    changes: dict[str, Any] = {
        "unknown key": {"aws_access_key_id": "AKIA" + "N" * 16},
        "wrong secret": {"aws_secret_access_key": "wrong"},
        "wrong region": {"region_name": "eu-west-1"},
        "token of nobody": {"aws_session_token": "token"},
    }.get(fault, {})
    config = Config(retries={"total_max_attempts": 1}, read_timeout=20)
    if fault == "unsigned":
        config = config.merge(Config(signature_version=UNSIGNED))
    return session().client(
        service,
        **{
            "region_name": build.REGION,
            "endpoint_url": url,
            "aws_access_key_id": key,
            "aws_secret_access_key": secret,
            "config": config,
            **changes,
        },
    )


@pytest.mark.parametrize("fault", CODES)
@pytest.mark.parametrize("service", CALLS)
def test_every_fault_has_the_services_code(front: build.Front, server: Any, service: str, fault: str) -> None:
    (key,) = front.cloud.store.read(lambda tx: tx.access_keys.where())
    signing = client(server[1], service, key.secret, fault, key.id)
    shift_us = {"stale": HOUR_US, "too early": -HOUR_US}.get(fault, 0)
    if shift_us:
        clock = ManualClock(SystemClock().now_us() + shift_us)
        server[0].app = build.endpoint_of(replace(front, services=replace(front.services, clock=clock)))
    if fault == "wrong service":
        signing._request_signer._signing_name = "sts" if service == "ec2" else "ec2"
    expected = CODES[fault][0 if service == "ec2" else 2 if service == "ssm" else 1]
    try:
        CALLS[service](signing)
    except ClientError as error:
        assert error.response["Error"]["Code"] == expected
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status == (
            400
            if service == "ssm" or expected in ("RequestExpired", "MissingParameter")
            else 401
            if service == "ec2"
            else 403
        )
    else:
        pytest.fail("it was believed")


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_link_is_good_until_it_expires_however_often(front: build.Front, server: Any) -> None:
    (key,) = front.cloud.store.read(lambda tx: tx.access_keys.where())
    request = AWSRequest("GET", f"{server[1]}/?Action=DescribeRegions&Version=2016-11-15")
    SigV4QueryAuth(Credentials(key.id, key.secret), "ec2", build.REGION, expires=900).add_auth(request)
    for seconds, status in ((0, 200), (0, 200), (890, 200), (910, 400)):
        clock = ManualClock(SystemClock().now_us() + seconds * 1_000_000)
        server[0].app = build.endpoint_of(replace(front, services=replace(front.services, clock=clock)))
        assert get(request.url) == status
