"""Both directions against botocore's own serializers and parsers, over shapes drawn from the real models."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.awsrequest import HeadersDict
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicloud.aws.dispatch import choose_call
from minicloud.aws.jsonwire import parse_json, render_json
from minicloud.aws.models import OPEN_ENUMS, Catalog, load_catalog
from minicloud.aws.request import Request
from minicloud.errors import ApiError

OPERATIONS = {
    "ec2": [
        "AssociateAddress",
        "AttachVolume",
        "AuthorizeSecurityGroupIngress",
        "CopyImage",
        "CreateImage",
        "CreateKeyPair",
        "CreateLaunchTemplate",
        "CreateSecurityGroup",
        "CreateSnapshot",
        "CreateTags",
        "CreateVolume",
        "DeleteTags",
        "DescribeImageAttribute",
        "DescribeImages",
        "DescribeInstanceAttribute",
        "DescribeInstanceStatus",
        "DescribeInstanceTypes",
        "DescribeInstances",
        "DescribeNetworkInterfaces",
        "DescribeRegions",
        "DescribeSecurityGroupRules",
        "DescribeSecurityGroups",
        "DescribeSubnets",
        "DescribeVolumes",
        "GetConsoleOutput",
        "ImportImage",
        "ImportKeyPair",
        "ImportSnapshot",
        "ModifyImageAttribute",
        "ModifyInstanceAttribute",
        "RegisterImage",
        "RequestSpotInstances",
        "RunInstances",
        "StopInstances",
        "TerminateInstances",
    ],
    "sts": ["AssumeRole", "GetCallerIdentity", "GetSessionToken"],
    "cloudwatch": [
        "DescribeAlarms",
        "GetMetricData",
        "GetMetricStatistics",
        "ListTagsForResource",
        "PutMetricAlarm",
        "PutMetricData",
        "SetAlarmState",
    ],
    "iam": ["ListAccountAliases", "CreateRole", "GetAccountSummary", "SimulateCustomPolicy"],
    "autoscaling": ["CreateAutoScalingGroup", "DescribeAutoScalingGroups"],
}
# AWS JSON: what SSM speaks, and CloudWatch besides query.
JSON_OPERATIONS = {
    "cloudwatch": OPERATIONS["cloudwatch"],
    "ssm": ["DescribeParameters", "GetParameter", "GetParameters", "GetParametersByPath"],
}
EVERY_JSON_OPERATION = [(service, name) for service, names in JSON_OPERATIONS.items() for name in names]
EVERY_OPERATION = [(service, name) for service, names in OPERATIONS.items() for name in names]

# Whatever XML can carry; surrogates and most control characters cannot.
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("\t\n\r&<>\"'+%= ;/"),
    max_size=12,
)
WHOLE_SECONDS = st.integers(-2_000_000_000, 5_000_000_000)


@cache
def catalog() -> Catalog:
    return load_catalog({**OPERATIONS, **JSON_OPERATIONS})


@cache
def service_model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def protocol_of(service: str) -> str:
    return "ec2" if service == "ec2" else "query"


def strings(shape: Shape, may_be_empty: bool) -> st.SearchStrategy[str]:
    if shape.enum and shape.name not in OPEN_ENUMS:
        return st.sampled_from(shape.enum)
    low, high = shape.metadata.get("min", 0), shape.metadata.get("max", 10**6)
    low = max(low, 0 if may_be_empty else 1)
    return st.text("abcXYZ-09", min_size=low, max_size=min(high, low + 12)) | TEXT.filter(
        lambda text: low <= len(text) <= high
    )


def values(shape: Shape, *, speech: str, depth: int = 0, empty: bool = False) -> st.SearchStrategy[object]:
    """Values of a botocore shape, as far as `speech` can say them: "ec2" and "query" are requests, which have no words
    for an empty structure or map (nor ec2 for an empty list or most empty texts); "reply" says everything."""
    meta = shape.metadata

    def inner(part: Shape, name: str = "") -> st.SearchStrategy[object]:
        return values(
            part,
            speech=speech,
            depth=depth + 1,
            empty=speech != "ec2" or name in ("Value", "NoDevice", "element"),
        )

    match shape.type_name:
        case "structure":
            required = list(shape.required_members)
            optional = [name for name in shape.members if name not in required]
            if depth > 5:
                optional = [n for n in optional if shape.members[n].type_name not in ("structure", "list", "map")]

            if shape.is_tagged_union:
                return st.one_of(
                    [st.fixed_dictionaries({name: inner(part, name)}) for name, part in shape.members.items()]
                )

            @st.composite
            def structure(draw: st.DrawFn) -> dict[str, object]:
                least = 1 if speech != "reply" and depth and not required and optional else 0
                chosen = required + (
                    draw(st.lists(st.sampled_from(optional), unique=True, min_size=least, max_size=5))
                    if optional
                    else []
                )
                return {name: draw(inner(shape.members[name], name)) for name in chosen}

            return structure().filter(bool) if speech != "reply" and depth else structure()
        case "list":
            least = max(meta.get("min", 0), 1 if speech == "ec2" else 0)
            return st.lists(
                inner(shape.member, "element"), min_size=least, max_size=min(meta.get("max", 9), max(least, 3))
            )
        case "map":
            return st.dictionaries(
                inner(shape.key, "element"),
                inner(shape.value, "element"),
                min_size=max(meta.get("min", 0), 0 if speech == "reply" else 1),
                max_size=3,
            )
        case "string":
            return strings(shape, empty)
        case "integer" | "long":
            bits = 31 if shape.type_name == "integer" else 63
            return st.integers(meta.get("min", -(2**bits)), meta.get("max", 2**bits - 1))
        case "float" | "double":
            return st.floats(meta.get("min", -1e300), meta.get("max", 1e300), allow_nan=False, allow_infinity=False)
        case "boolean":
            return st.booleans()
        case "timestamp":
            return WHOLE_SECONDS.map(lambda seconds: datetime.fromtimestamp(seconds, UTC)) | st.datetimes(
                datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)
            ).map(lambda when: when.replace(microsecond=when.microsecond // 1000 * 1000))
        case "blob":
            return st.binary(min_size=max(meta.get("min", 0), 0 if empty else 1), max_size=40)
    raise AssertionError(shape.type_name)


def model_of(service: str, operation: str) -> OperationModel:
    return service_model(service).operation_model(operation)


def form_request(body: dict[str, object]) -> Request:
    return Request.build(
        "POST",
        b"/",
        b"",
        [(b"content-type", b"application/x-www-form-urlencoded; charset=utf-8"), (b"host", b"localhost")],
        urlencode(body).encode(),
    )


FAST = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(("service", "operation"), EVERY_OPERATION)
@FAST
@given(data=st.data())
def test_reads_what_botocore_writes(service: str, operation: str, data: st.DataObject) -> None:
    model = model_of(service, operation)
    parameters = data.draw(values(model.input_shape, speech=protocol_of(service))) if model.input_shape else {}
    written = create_serializer(protocol_of(service), False).serialize_to_request(parameters, model)

    call = choose_call(form_request(written["body"]), catalog())

    assert call.operation is catalog().operation(service, operation)
    assert call.parse() == parameters


@pytest.mark.parametrize(("service", "operation"), EVERY_OPERATION)
@FAST
@given(data=st.data())
def test_botocore_reads_what_is_written(service: str, operation: str, data: st.DataObject) -> None:
    model = model_of(service, operation)
    output = data.draw(values(model.output_shape, speech="reply")) if model.output_shape else {}
    call = choose_call(form_request({"Action": operation, "Version": model.service_model.api_version}), catalog())

    reply = call.reply(output, "11112222-aaaa")

    parsed = create_parser(protocol_of(service)).parse(
        {"body": reply.body, "headers": dict(reply.headers), "status_code": reply.status}, model.output_shape
    )
    metadata = parsed.pop("ResponseMetadata")
    assert metadata["RequestId"] == "11112222-aaaa"
    assert parsed == output


@pytest.mark.parametrize(("service", "operation"), EVERY_OPERATION)
@FAST
@given(data=st.data())
def test_the_json_door_agrees_with_the_query_protocol(service: str, operation: str, data: st.DataObject) -> None:
    """What one shape's JSON writes, the same shape's reader accepts: input rendered as JSON parses to itself."""
    model = model_of(service, operation)
    if model.input_shape is None:
        return
    parameters = data.draw(values(model.input_shape, speech=protocol_of(service)))
    known = catalog().operation(service, operation)
    echo = type(known)(known.name, known.service, known.input, known.input, None)

    assert parse_json(known, render_json(echo, parameters)) == parameters


def json_request(written: dict[str, Any]) -> Request:
    headers = [(name.encode(), value.encode()) for name, value in written["headers"].items()]
    return Request.build("POST", b"/", b"", headers, written["body"])


@pytest.mark.parametrize(("service", "operation"), EVERY_JSON_OPERATION)
@FAST
@given(data=st.data())
def test_json_requests_and_replies_are_botocore_s(service: str, operation: str, data: st.DataObject) -> None:
    model = model_of(service, operation)
    parameters = data.draw(values(model.input_shape, speech="reply"))
    written = create_serializer("json", False).serialize_to_request(parameters, model)
    call = choose_call(json_request(written), catalog())
    assert call.operation is catalog().operation(service, operation)
    assert call.parse() == parameters

    output = data.draw(values(model.output_shape, speech="reply")) if model.output_shape else {}
    reply = call.reply(output, "request-1")
    answer = {"body": reply.body, "headers": HeadersDict(reply.headers), "status_code": reply.status}
    parsed = create_parser("json").parse(answer, model.output_shape)
    assert parsed.pop("ResponseMetadata")["RequestId"] == "request-1"
    assert parsed == output


@pytest.mark.parametrize("service", ["ec2", "sts", "cloudwatch"])
@pytest.mark.parametrize("status", [400, 403, 500])
@given(message=TEXT)
@settings(max_examples=10, deadline=None)
def test_botocore_reads_errors(service: str, status: int, message: str) -> None:
    name = OPERATIONS[service][0]
    model = model_of(service, name)
    call = choose_call(form_request({"Action": name, "Version": model.service_model.api_version}), catalog())

    reply = call.error(ApiError("InvalidThing.NotFound", message, status), "req-1")

    parsed = create_parser(protocol_of(service)).parse(
        {"body": reply.body, "headers": dict(reply.headers), "status_code": reply.status}, model.output_shape
    )
    assert reply.status == status
    assert parsed["Error"]["Code"] == "InvalidThing.NotFound"
    assert (parsed["Error"]["Message"] or "") == message
    assert parsed["ResponseMetadata"]["RequestId"] == "req-1"
