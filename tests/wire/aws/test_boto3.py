"""A real boto3 client whose connection is the room itself: signed by boto3, verified, read, answered, parsed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from minicloud.aws import replies, sigv4
from minicloud.aws.dispatch import Undispatched, choose_call
from minicloud.aws.models import Catalog, load_catalog
from minicloud.aws.request import Request
from minicloud.errors import ApiError

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "secret"
Handler = Callable[[str, dict[str, Any]], dict[str, Any] | None]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(
        {
            "ec2": ["CreateTags", "DeleteVolume", "DescribeInstances", "ImportKeyPair", "RunInstances"],
            "sts": ["GetCallerIdentity"],
        }
    )


class Raw(io.BytesIO):
    def stream(self, **_: Any) -> Any:
        yield self.read()


def answer(catalog: Catalog, request: Request, handler: Handler) -> replies.Reply:
    """The chain of the front door, in miniature."""
    try:
        call = choose_call(request, catalog)
    except Undispatched as error:
        return replies.failure(error.service, error, request_id="r-1")
    try:
        sigv4.verify(
            request,
            service=call.service,
            region="lab-1",
            known_services=("ec2", "sts"),
            find_key=lambda key, _: sigv4.Credential(key, SECRET, None) if key == KEY else None,
            now=datetime.now(UTC),
        )
        return call.reply(handler(call.operation.name, call.parse()), "r-1")
    except ApiError as error:
        return call.error(error, "r-1")


@pytest.fixture
def client(catalog: Catalog) -> Any:
    def made(service: str, handler: Handler, key: str = KEY, secret: str = SECRET) -> Any:
        def send(request: Any, **_: Any) -> AWSResponse:
            parts = urlsplit(request.url)
            headers = [(n.encode(), v if isinstance(v, bytes) else str(v).encode()) for n, v in request.headers.items()]
            body = request.body or b""
            received = Request.build(
                request.method,
                parts.path.encode(),
                parts.query.encode(),
                [*headers, (b"Host", parts.netloc.encode())],
                body if isinstance(body, bytes) else body.encode(),
            )
            reply = answer(catalog, received, handler)
            return AWSResponse(request.url, reply.status, dict(reply.headers), Raw(reply.body))

        built = boto3.client(
            service,
            region_name="lab-1",
            endpoint_url="http://127.0.0.1:8443",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}),
        )
        built.meta.events.register(f"before-send.{service}", send)
        return built

    return made


def test_run_instances(client: Any) -> None:
    seen = {}

    def handler(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        seen.update(parameters)
        return {"ReservationId": "r-9", "Instances": [{"InstanceId": "i-9", "State": {"Code": 0, "Name": "pending"}}]}

    ran = client("ec2", handler).run_instances(
        ImageId="ami-1", MinCount=1, MaxCount=3, UserData="#!/bin/sh\necho é\n", InstanceType="t3.nano"
    )
    assert ran["Instances"][0]["State"] == {"Code": 0, "Name": "pending"}
    assert ran["ResponseMetadata"]["RequestId"] == "r-1"
    assert seen.pop("ClientToken")
    assert base64.b64decode(seen.pop("UserData")).decode() == "#!/bin/sh\necho é\n"
    assert seen == {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 3, "InstanceType": "t3.nano"}


def test_key_material_is_bytes(client: Any) -> None:
    def handler(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        assert parameters == {"KeyName": "k", "PublicKeyMaterial": b"ssh-ed25519 \x00\xff"}
        return {"KeyName": "k", "KeyFingerprint": "aa:bb"}

    made = client("ec2", handler).import_key_pair(KeyName="k", PublicKeyMaterial=b"ssh-ed25519 \x00\xff")
    assert made["KeyFingerprint"] == "aa:bb"


def test_an_operation_without_a_result(client: Any) -> None:
    assert client("ec2", lambda *_: None).delete_volume(VolumeId="vol-1")["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_who_am_i(client: Any) -> None:
    me = client("sts", lambda *_: {"Account": "1", "Arn": "arn", "UserId": "1"}).get_caller_identity()
    assert (me["Account"], me["Arn"]) == ("1", "arn")


def test_errors_arrive_as_client_errors(client: Any) -> None:
    def handler(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        raise ApiError("InvalidInstanceID.NotFound", "The instance ID 'i-1' does not exist")

    with pytest.raises(ClientError) as caught:
        client("ec2", handler).describe_instances(InstanceIds=["i-1"])
    assert caught.value.response["Error"] == {
        "Code": "InvalidInstanceID.NotFound",
        "Message": "The instance ID 'i-1' does not exist",
    }
    assert caught.value.response["ResponseMetadata"]["RequestId"] == "r-1"


@pytest.mark.parametrize(
    ("service", "call", "code", "status"),
    [
        ("ec2", "describe_instances", "AuthFailure", 401),
        ("sts", "get_caller_identity", "SignatureDoesNotMatch", 403),
        ("ec2", "describe_vpcs", "InvalidAction", 400),
        ("sts", "get_session_token", "InvalidAction", 400),
    ],
)
def test_refusals(client: Any, service: str, call: str, code: str, status: int) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(client(service, lambda *_: None, secret="wrong"), call)()
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_presigned_urls(client: Any, catalog: Catalog) -> None:
    url = client("sts", lambda *_: None).generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
    parts = urlsplit(url)
    request = Request.build("GET", parts.path.encode(), parts.query.encode(), [(b"host", parts.netloc.encode())], b"")
    reply = answer(catalog, request, lambda *_: {"Account": "1"})
    assert reply.status == 200, reply.body
