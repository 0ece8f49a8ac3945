"""STS by boto3: temporary credentials at work, at their end, in the wrong hands; and signatures that keep failing."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import botocore.auth
import botocore.session
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from support import front as build

from minicloud.api import throttle
from minicloud.clock import ManualClock, SystemClock
from minicloud.cloud.bootstrap import ROOT_ACCOUNT_ID

# The one key of every cloud of these tests.
ACCESS_KEY = "AKIA" + base64.b32encode(build.fixed_bytes(10)).decode()
SECRET_KEY = base64.b64encode(build.fixed_bytes(30)).decode()
ROLE = f"arn:aws:iam::{ROOT_ACCOUNT_ID}:role/deploy"


@pytest.fixture
def sts(front: build.Front, clients: Callable[..., Any]) -> Any:
    return clients("sts")


@pytest.fixture(scope="module")
def session() -> Any:
    return boto3.Session(botocore_session=botocore.session.Session())


@pytest.fixture
def through(server: Any, session: Any) -> Callable[..., Any]:
    """Make a client that signs with temporary credentials."""

    def make(service: str, credentials: dict[str, Any], **changes: Any) -> Any:
        return session.client(
            service,
            **{
                "region_name": build.REGION,
                "endpoint_url": server[1],
                "aws_access_key_id": credentials["AccessKeyId"],
                "aws_secret_access_key": credentials["SecretAccessKey"],
                "aws_session_token": credentials["SessionToken"],
                "config": Config(retries={"total_max_attempts": 1}, read_timeout=20),
                **changes,
            },
        )

    return make


@pytest.fixture
def later(front: build.Front, server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Let so many seconds pass for the endpoint and for botocore's signatures."""

    def move(seconds: float) -> None:
        now_us = SystemClock().now_us() + int(seconds * 1_000_000)
        server[0].app = build.endpoint_of(replace(front, services=replace(front.services, clock=ManualClock(now_us))))
        signed_at = datetime.fromtimestamp(now_us // 1_000_000, UTC).replace(tzinfo=None)
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: signed_at)

    yield move


def test_a_session_token_acts_as_who_asked(sts: Any, through: Callable[..., Any]) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    credentials = sts.get_session_token(DurationSeconds=900)["Credentials"]
    assert credentials["AccessKeyId"].startswith("ASIA")
    assert timedelta(0) <= credentials["Expiration"] - before - timedelta(seconds=900) <= timedelta(seconds=60)
    identity = through("sts", credentials).get_caller_identity()
    assert identity["Arn"] == f"arn:aws:iam::{ROOT_ACCOUNT_ID}:root"
    assert identity["UserId"] == identity["Account"] == ROOT_ACCOUNT_ID
    assert through("ec2", credentials).describe_regions()["Regions"]


def test_a_role_acts_as_itself(sts: Any, through: Callable[..., Any]) -> None:
    assumed = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")
    user = assumed["AssumedRoleUser"]
    assert user["Arn"] == f"arn:aws:sts::{ROOT_ACCOUNT_ID}:assumed-role/deploy/me"
    assert assumed["PackedPolicySize"] == 0
    identity = through("sts", assumed["Credentials"]).get_caller_identity()
    assert (identity["UserId"], identity["Account"], identity["Arn"]) == (
        user["AssumedRoleId"], ROOT_ACCOUNT_ID, user["Arn"],
    )  # fmt: skip
    assert through("ec2", assumed["Credentials"]).describe_regions()["Regions"]


def test_what_a_role_makes_is_the_accounts(sts: Any, ec2: Any, through: Callable[..., Any]) -> None:
    credentials = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
    through("ec2", credentials).create_key_pair(KeyName="made")
    assert [one["KeyName"] for one in ec2.describe_key_pairs()["KeyPairs"]] == ["made"]


def test_roles_are_chained_and_session_tokens_are_not(
    sts: Any, through: Callable[..., Any], refused: Callable[..., ClientError]
) -> None:
    temporary = through("sts", sts.get_session_token()["Credentials"])
    assumed = temporary.assume_role(RoleArn=ROLE, RoleSessionName="me", DurationSeconds=3600)
    role = through("sts", assumed["Credentials"])
    assert role.assume_role(RoleArn=ROLE + "er", RoleSessionName="me")["Credentials"]
    for client in (temporary, role):
        refused("AccessDenied", client.get_session_token)
        refused("ValidationError", client.assume_role, RoleArn=ROLE, RoleSessionName="me", DurationSeconds=3601)


@pytest.mark.parametrize(
    ("operation", "seconds", "bound"),
    [
        ("get_session_token", 899, "greater than or equal to 900"),
        ("get_session_token", 129_601, "less than or equal to 129600"),
        ("assume_role", 899, "greater than or equal to 900"),
        ("assume_role", 43_201, "less than or equal to 43200"),
    ],
)
def test_durations_have_bounds(
    front: Any,
    clients: Callable[..., Any],
    refused: Callable[..., ClientError],
    operation: str,
    seconds: int,
    bound: str,
) -> None:
    role = {"RoleArn": ROLE, "RoleSessionName": "me"} if operation == "assume_role" else {}
    call = getattr(clients("sts", validate=False), operation)
    assert bound in str(refused("ValidationError", call, DurationSeconds=seconds, **role))


@pytest.mark.parametrize(
    "parameters",
    [
        {"Policy": '{"Version": "2012-10-17", "Statement": []}'},
        {"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}]},
        {"Tags": [{"Key": "a", "Value": "b"}]},
        {"TransitiveTagKeys": ["a"]},
        {"ExternalId": "external"},
        {"SourceIdentity": "somebody"},
        {"SerialNumber": "GAHT12345678", "TokenCode": "123456"},
    ],
)
def test_what_would_narrow_a_session_is_refused(
    sts: Any, refused: Callable[..., ClientError], parameters: dict[str, Any]
) -> None:
    refused("UnsupportedOperation", sts.assume_role, RoleArn=ROLE, RoleSessionName="me", **parameters)
    if "SerialNumber" in parameters:
        refused("UnsupportedOperation", sts.get_session_token, **parameters)


def test_a_role_of_another_account_is_denied(sts: Any, refused: Callable[..., ClientError]) -> None:
    arn = "arn:aws:iam::200000000002:role/deploy"
    error = refused("AccessDenied", sts.assume_role, RoleArn=arn, RoleSessionName="me")
    assert f"is not authorized to perform: sts:AssumeRole on resource: {arn}" in str(error)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_sessions_end_is_told_in_each_services_words(
    sts: Any, through: Callable[..., Any], refused: Callable[..., ClientError], later: Callable[[float], None]
) -> None:
    credentials = sts.get_session_token(DurationSeconds=900)["Credentials"]
    later(890)
    assert through("ec2", credentials).describe_regions()["Regions"]
    later(901)
    error = refused("RequestExpired", through("ec2", credentials).describe_regions)
    assert error.response["Error"]["Message"] == "Request has expired."
    refused("ExpiredToken", through("sts", credentials).get_caller_identity)
    assert sts.get_caller_identity()


def test_a_key_and_another_keys_token_go_nowhere(
    front: build.Front, server: Any, sts: Any, through: Callable[..., Any], refused: Callable[..., ClientError]
) -> None:
    one = sts.get_session_token()["Credentials"]
    taken = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY}
    for spoilt in (
        {**one, "SessionToken": None},
        {**one, "SessionToken": one["SessionToken"][:-8] + "AAAAAAA="},
        {**one, "SessionToken": "nonsense"},
        {**one, "AccessKeyId": "ASIA" + "A" * 16},
        {**one, **taken},
    ):
        refused("AuthFailure", through("ec2", spoilt).describe_regions)
        refused("InvalidClientTokenId", through("sts", spoilt).get_caller_identity)
    refused("SignatureDoesNotMatch", through("sts", {**one, "SecretAccessKey": "wrong"}).get_caller_identity)


def test_a_presigned_request_may_carry_a_session(front: Any, server: Any, sts: Any) -> None:
    made = sts.get_session_token()["Credentials"]
    credentials = Credentials(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])
    request = AWSRequest("GET", f"{server[1]}/?Action=GetCallerIdentity&Version=2011-06-15")
    SigV4QueryAuth(credentials, "sts", build.REGION, expires=600).add_auth(request)
    with urllib.request.urlopen(request.url, timeout=20) as reply:
        assert f"<Account>{ROOT_ACCOUNT_ID}</Account>" in reply.read().decode()
    # As often as anybody likes, until it expires: AWS has no memory of requests either.
    with urllib.request.urlopen(request.url, timeout=20) as reply:
        assert reply.status == 200
    cut = request.url.replace("X-Amz-Security-Token=", "X-Amz-Security-Token=A")
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(cut, timeout=20):
        pass
    assert (caught.value.code, b"<Code>InvalidClientTokenId</Code>" in caught.value.read()) == (403, True)


def test_a_request_for_another_region_is_told_so(
    sts: Any, through: Callable[..., Any], refused: Callable[..., ClientError]
) -> None:
    lasting = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "SessionToken": None}
    error = refused("AuthFailure", through("ec2", lasting, region_name="lab-2").describe_regions)
    assert "not 'lab-2': this endpoint's is 'lab-1'" in str(error)
    refused("SignatureDoesNotMatch", through("sts", lasting, region_name="lab-2").get_caller_identity)
    assert through("ec2", lasting, region_name="us-east-1").describe_regions()["Regions"]


def test_who_keeps_failing_is_sent_away_and_the_owner_is_not(
    front: build.Front, sts: Any, clients: Callable[..., Any], refused: Callable[..., ClientError]
) -> None:
    front.services.failed_signatures._clock = ManualClock()  # or tokens would trickle in between
    wrong = clients("sts", secret="wrong")
    assert sts.get_caller_identity()
    for _ in range(int(throttle.PAIR_BURST)):
        refused("SignatureDoesNotMatch", wrong.get_caller_identity)
    for _ in range(2):
        refused("Throttling", wrong.get_caller_identity)
    refused("RequestLimitExceeded", clients("ec2", secret="wrong").describe_regions)
    assert sts.get_caller_identity()


def test_who_never_signed_well_is_not_even_verified(
    front: build.Front, clients: Callable[..., Any], refused: Callable[..., ClientError]
) -> None:
    clock = front.services.failed_signatures._clock = ManualClock()
    wrong = clients("ec2", secret="wrong")
    for _ in range(int(throttle.PAIR_BURST)):
        refused("AuthFailure", wrong.describe_regions)
    error = refused("RequestLimitExceeded", wrong.describe_regions)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    refused("RequestLimitExceeded", clients("ec2").describe_regions)
    clock.advance(1 / throttle.PAIR_PER_SECOND)
    assert clients("ec2").describe_regions()["Regions"]
