"""AWS JSON: which operation is meant, what is wrong with a request in these services' words, and answers."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicloud.aws.awsjson import JsonCall
from minicloud.aws.dispatch import Undispatched, choose_call, early_failure
from minicloud.aws.models import Catalog
from minicloud.aws.request import Request
from minicloud.errors import ApiError

GET_PARAMETER = "AmazonSSM.GetParameter"
PUT_METRIC_DATA = "GraniteServiceVersion20100801.PutMetricData"
TYPE_1_1 = (b"content-type", b"application/x-amz-json-1.1")


def post(
    body: bytes, target: str | None = GET_PARAMETER, *headers: tuple[bytes, bytes], method: str = "POST"
) -> Request:
    named = [(b"x-amz-target", target.encode())] if target is not None else []
    return Request.build(method, b"/", b"", [*named, *(headers or [TYPE_1_1])], body)


@pytest.fixture
def parse(catalog: Catalog) -> Any:
    def parsed(parameters: Any, target: str = GET_PARAMETER) -> dict[str, Any]:
        return choose_call(post(json.dumps(parameters).encode(), target), catalog).parse()

    return parsed


@pytest.fixture
def refused(parse: Any) -> Any:
    def answer(parameters: Any, target: str = GET_PARAMETER) -> tuple[str, str]:
        with pytest.raises(ApiError) as caught:
            parse(parameters, target)
        return caught.value.code, caught.value.message

    return answer


def test_the_target_names_the_operation(catalog: Catalog) -> None:
    call = choose_call(post(b'{"Name":"n"}'), catalog)
    assert (call.service.name, call.operation.name, call.parse()) == ("ssm", "GetParameter", {"Name": "n"})
    metrics = choose_call(post(b"{}", PUT_METRIC_DATA, (b"content-type", b"application/x-amz-json-1.0")), catalog)
    assert (metrics.service.name, metrics.operation.name) == ("cloudwatch", "PutMetricData")
    packed = post(gzip.compress(b'{"Name":"n"}'), GET_PARAMETER, TYPE_1_1, (b"content-encoding", b"gzip"))
    assert choose_call(packed, catalog).parse() == {"Name": "n"}
    with_charset = post(b'{"Name":"n"}', GET_PARAMETER, (b"Content-Type", b"application/x-amz-json-1.1; charset=UTF-8"))
    assert choose_call(with_charset, catalog).parse() == {"Name": "n"}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (post(b"{}", None), ("UnknownOperationException", 400)),
        (post(b"{}", ""), ("UnknownOperationException", 400)),
        (post(b"{}", "GetParameter"), ("UnknownOperationException", 400)),
        (post(b"{}", "AmazonSSM.PutParameter"), ("UnknownOperationException", 400)),  # AWS has it, this cloud does not
        (post(b"{}", "AmazonEC2.GetParameter"), ("UnknownOperationException", 400)),
        (post(b"{}", ".GetParameter"), ("UnknownOperationException", 400)),
        (post(b"{}", GET_PARAMETER, (b"content-type", b"application/json")), ("UnsupportedMediaType", 415)),
        (post(b"{}", GET_PARAMETER, (b"accept", b"*/*")), ("UnsupportedMediaType", 415)),
        (post(b"{}", GET_PARAMETER, TYPE_1_1, TYPE_1_1), ("InvalidRequest", 400)),
        (post(b"{}", GET_PARAMETER, TYPE_1_1, (b"x-amz-target", b"AmazonSSM.X")), ("InvalidRequest", 400)),
        (post(b"{}", GET_PARAMETER, TYPE_1_1, (b"content-encoding", b"br")), ("UnsupportedMediaType", 415)),
        (post(b"{}", method="PUT"), ("InvalidMethod", 405)),
        (
            post(gzip.compress(b" " * 5000), GET_PARAMETER, TYPE_1_1, (b"content-encoding", b"gzip")),
            ("RequestEntityTooLarge", 413),
        ),
    ],
)
def test_requests_for_nothing_are_told_so_in_json(catalog: Catalog, request_: Request, answer: tuple[str, int]) -> None:
    with pytest.raises(Undispatched) as caught:
        choose_call(request_, catalog, max_body_bytes=1000)
    reply = caught.value.reply("request-1")
    document = json.loads(reply.body)
    assert (document["__type"], reply.status) == answer
    assert document["message"]
    assert dict(reply.headers)["Content-Type"] == "application/x-amz-json-1.1"


def test_other_protocols_are_left_to_others(catalog: Catalog) -> None:
    with pytest.raises(Undispatched) as caught:
        choose_call(post(b"", PUT_METRIC_DATA, (b"smithy-protocol", b"rpc-v2-cbor")), catalog)
    assert caught.value.code == "UnsupportedProtocol"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"Name": 1e999999'])
def test_what_is_no_json_object(catalog: Catalog, body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        choose_call(post(body), catalog).parse()
    assert caught.value.code == "SerializationException"


def test_constraints_are_worded_as_the_services_word_them(refused: Any) -> None:
    start = "1 validation error detected: "
    assert refused({}) == (
        "ValidationException",
        f"{start}Value null at 'name' failed to satisfy constraint: Member must not be null",
    )
    assert refused({"Name": ""}) == (
        "ValidationException",
        f"{start}Value '' at 'name' failed to satisfy constraint: Member must have length greater than or equal to 1",
    )
    assert refused({"Name": None})[0] == "ValidationException"
    data = {"Namespace": "n", "MetricData": [{"MetricName": "m", "Unit": "Parsec"}]}
    code, message = refused(data, PUT_METRIC_DATA)
    assert code == "ValidationException"
    assert message.startswith(
        f"{start}Value 'Parsec' at 'metricData.1.member.unit' failed to satisfy constraint: Member"
    )
    missing = {"Namespace": "n", "MetricData": [{}]}
    assert "at 'metricData.1.member.metricName'" in refused(missing, PUT_METRIC_DATA)[1]
    assert refused({"Name": "n", "Colour": "red"}) == (
        "ValidationException",
        "The parameter Colour is not recognized",
    )
    assert "\x00" not in refused({"Name": "\x00"})[1]


@pytest.mark.parametrize(
    ("parameters", "target"),
    [
        ({"Name": 1}, GET_PARAMETER),
        ({"Name": ["n"]}, GET_PARAMETER),
        ({"Name": "n", "WithDecryption": "true"}, GET_PARAMETER),
        ({"Name": "n", "WithDecryption": 1}, GET_PARAMETER),
        ({"Namespace": "n", "MetricData": {}}, PUT_METRIC_DATA),
        ({"Namespace": "n", "MetricData": ["m"]}, PUT_METRIC_DATA),
        ({"Namespace": "n", "MetricData": [{"MetricName": "m", "Value": "1"}]}, PUT_METRIC_DATA),
        ({"Namespace": "n", "MetricData": [{"MetricName": "m", "StorageResolution": 1.5}]}, PUT_METRIC_DATA),
        ({"Namespace": "n", "MetricData": [{"MetricName": "m", "Timestamp": True}]}, PUT_METRIC_DATA),
    ],
)
def test_values_of_another_type(refused: Any, parameters: Any, target: str) -> None:
    assert refused(parameters, target)[0] == "SerializationException"


def test_times_are_seconds(parse: Any) -> None:
    for written in (1767323045, 1767323045.0, "2026-01-02T03:04:05Z"):
        data = {"Namespace": "n", "MetricData": [{"MetricName": "m", "Timestamp": written}]}
        assert parse(data, PUT_METRIC_DATA)["MetricData"][0]["Timestamp"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_an_answer(catalog: Catalog) -> None:
    call = choose_call(post(b'{"Name":"n"}'), catalog)
    for microsecond, written in ((0, 1767323045), (123_456, 1767323045.123)):
        when = datetime(2026, 1, 2, 3, 4, 5, microsecond, tzinfo=UTC)
        reply = call.reply({"Parameter": {"Name": "n", "LastModifiedDate": when, "Selector": None}}, "request-1")
        assert json.loads(reply.body) == {"Parameter": {"Name": "n", "LastModifiedDate": written}}
    assert reply.status == 200
    headers = dict(reply.headers)
    assert (headers["x-amzn-RequestId"], headers["Content-Type"]) == ("request-1", "application/x-amz-json-1.1")
    for nonsense in ({"Nonsense": 1}, {"Parameter": {"Version": "1"}}):
        with pytest.raises(TypeError):
            call.reply(nonsense, "request-1")


@pytest.mark.parametrize(
    ("code", "status", "name", "answered"),
    [
        ("ParameterNotFound", 400, "ParameterNotFound", 400),
        ("SignatureDoesNotMatch", 403, "InvalidSignatureException", 400),
        ("InvalidClientTokenId", 403, "UnrecognizedClientException", 400),
        ("MissingAuthenticationToken", 403, "MissingAuthenticationTokenException", 400),
        ("InternalFailure", 500, "InternalFailure", 500),
    ],
)
def test_errors_are_named_as_json_services_name_them(
    catalog: Catalog, code: str, status: int, name: str, answered: int
) -> None:
    reply = choose_call(post(b"{}"), catalog).error(ApiError(code, "Why <&> \ud800", status), "request-1")
    assert json.loads(reply.body) == {"__type": name, "message": "Why <&> \ud800"}
    assert reply.status == answered
    assert "x-amzn-query-error" not in dict(reply.headers)


@pytest.mark.parametrize(
    ("code", "status", "name", "header"),
    [
        ("InvalidParameterValue", 400, "InvalidParameterValueException", "InvalidParameterValue;Sender"),
        ("MissingParameter", 400, "MissingRequiredParameterException", "MissingParameter;Sender"),
        ("InternalServiceError", 500, "InternalServiceFault", "InternalServiceError;Receiver"),
        ("ValidationException", 400, "ValidationException", "ValidationError;Sender"),
        ("ResourceNotFound", 404, "ResourceNotFound", "ResourceNotFound;Sender"),
        ("InvalidClientTokenId", 403, "UnrecognizedClientException", "InvalidClientTokenId;Sender"),
    ],
)
def test_cloudwatch_tells_its_query_codes_to_who_asks(
    catalog: Catalog, code: str, status: int, name: str, header: str
) -> None:
    asking = post(b"{}", PUT_METRIC_DATA, TYPE_1_1, (b"x-amzn-query-mode", b"true"))
    reply = choose_call(asking, catalog).error(ApiError(code, "m", status), "request-1")
    assert json.loads(reply.body)["__type"] == name
    headers = dict(reply.headers)
    assert headers["x-amzn-query-error"] == header
    assert headers["Content-Type"] == "application/x-amz-json-1.0"
    quiet = choose_call(post(b"{}", PUT_METRIC_DATA), catalog).error(ApiError(code, "m", status), "request-1")
    assert "x-amzn-query-error" not in dict(quiet.headers)
    other = choose_call(post(b"{}", GET_PARAMETER, TYPE_1_1, (b"x-amzn-query-mode", b"true")), catalog)
    assert "x-amzn-query-error" not in dict(other.error(ApiError(code, "m"), "request-1").headers)


def test_what_could_not_even_be_read_is_answered_by_its_content_type() -> None:
    error = ApiError("RequestLimitExceeded", "Request limit exceeded.", 503)
    assert json.loads(early_failure("application/x-amz-json-1.0", error, "r").body)["__type"] == error.code
    for other in (None, "", "application/x-www-form-urlencoded", "application/json"):
        assert early_failure(other, error, "r").body.startswith(b"<?xml")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMES = st.sampled_from(
    ["Name", "WithDecryption", "Namespace", "MetricData", "MetricName", "Dimensions", "Value", "Values", "Timestamp",
     "StatisticValues", "Unit", "StrictEntityValidation", "EntityMetricData", "__type"]
) | st.text(max_size=6)  # fmt: skip
DOCUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
    ),
    max_size=5,
)


@settings(max_examples=400, deadline=None)
@given(
    body=st.binary(max_size=40) | DOCUMENTS.map(lambda document: json.dumps(document).encode()),
    target=st.sampled_from([GET_PARAMETER, PUT_METRIC_DATA, "AmazonSSM", ""]) | st.text("AmazonS.G", max_size=20),
    content_type=st.sampled_from([b"application/x-amz-json-1.1", b"application/x-amz-json-1.0", b"", b"text/plain"]),
)
def test_no_request_does_worse_than_be_refused(catalog: Catalog, body: bytes, target: str, content_type: bytes) -> None:
    try:
        call = choose_call(post(body, target, (b"content-type", content_type)), catalog)
        assert isinstance(call, JsonCall)
        call.parse()
    except ApiError as error:
        assert 400 <= error.status < 500
        assert error.code in (
            "SerializationException", "ValidationException", "UnknownOperationException", "UnsupportedMediaType",
        )  # fmt: skip
