"""AWS's own test vectors of the JSON protocols, from botocore's source distribution, read from the server's side.

An input vector is a request that a client sends: it must be dispatched and parse to its parameters. An output vector is
an answer that a client understands: what we write for its result must be that, and botocore must read it as that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import HeadersDict
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from support.botocore_sdist import botocore_sdist
from support.protocol_vectors import as_python

from minicloud.aws.awsjson import JsonCall
from minicloud.aws.dispatch import choose_call
from minicloud.aws.models import Catalog, Operation, load_service
from minicloud.aws.request import Request
from minicloud.errors import ApiError

INPUTS = ("json", "json_1_0", "json_1_0-query-compatible")
OUTPUTS = ("json", "json_1_0")
# Document types: no service that is served has any.
UNTYPED = {"PutAndGetInlineDocumentsInput"}
# These have no body, so nothing could be compressed. Gzip itself is tested with the query protocol's requests.
COMPRESSED = ("SDKApplied", "SDKAppends")
# Numbers that are none. No operation could do anything with one, and CloudWatch refuses them as well.
NOT_FINITE = {
    f"AwsJson1{x}Supports{what}FloatInputs" for x in (0, 1) for what in ("NaN", "Infinity", "NegativeInfinity")
}
# What a client must bear from servers that are not like this one: it never sends that.
LENIENCE = {
    "AwsJson10DeserializeAllowNulls",
    "AwsJson10DeserializeIgnoreType",
    "AwsJson10HandlesUnexpectedJsonOutput",
    "AwsJson10ServiceRespondsWithNoPayload",
    "AwsJson11DateTimeWithFractionalSeconds",
    "AwsJson11DateTimeWithNegativeOffset",
    "AwsJson11DateTimeWithPositiveOffset",
    "AwsJson11DeserializeIgnoreType",
    "AwsJson11StructuresDontDeserializeNullValues",
    "handles_unexpected_json_output",
    "json_1_1_service_responds_with_no_payload",
    "parses_httpdate_timestamps",
    "parses_iso8601_timestamps",
    "parses_operations_with_empty_json_bodies",
    "parses_the_request_id_from_the_response",
}


@dataclass(frozen=True)
class Vector:
    """A case of a suite, with the operation it is about and the model that it belongs to."""

    case: dict[str, Any]
    operation: Operation
    model: ServiceModel


def vectors(folder: Path, direction: str, name: str) -> Iterator[Vector]:
    suites = json.loads((botocore_sdist() / "tests/unit/protocols" / direction / f"{name}.json").read_text())
    for number, suite in enumerate(suites):
        for case in suite["cases"]:
            metadata = {"endpointPrefix": "vectors", **suite["metadata"]}
            raw = {
                "metadata": metadata,
                "operations": {case["given"]["name"]: case["given"]},
                "shapes": suite["shapes"],
            }
            service = folder / f"{name}-{number}-{case['id']}"
            (service / "2020-01-01").mkdir(parents=True)
            (service / "2020-01-01" / "service-2.json").write_text(json.dumps(raw))
            loaded = load_service(service.name, [case["given"]["name"]], data=folder)
            yield Vector(case, loaded.operations[case["given"]["name"]], ServiceModel(raw))


def request_of(vector: Vector) -> Request:
    service, sent = vector.operation.service, vector.case["serialized"]
    # Vectors about something else leave out what every request has.
    always = {
        "Content-Type": f"application/x-amz-json-{service.json_version}",
        "X-Amz-Target": f"{service.target_prefix}.{vector.operation.name}",
    }
    headers = [(name.encode(), value.encode()) for name, value in {**always, **sent.get("headers", {})}.items()]
    return Request.build("POST", sent.get("uri", "/").encode(), b"", headers, sent.get("body", "").encode())


@pytest.mark.parametrize("name", INPUTS)
def test_what_clients_send_is_understood(tmp_path: Path, name: str) -> None:
    seen = 0
    for vector in vectors(tmp_path, "input", name):
        case, operation = vector.case, vector.operation
        if case["id"] in UNTYPED or case["id"].startswith(COMPRESSED):
            continue
        call = choose_call(request_of(vector), Catalog([operation.service]))
        assert call.operation is operation, case["id"]
        if case["id"] in NOT_FINITE:
            with pytest.raises(ApiError) as caught:
                call.parse()
            assert caught.value.code == "SerializationException"
        else:
            expected = as_python(operation.input, case["params"]) if operation.input else {}
            assert call.parse() == expected, case["id"]
        seen += 1
    assert seen >= 1


@pytest.mark.parametrize("name", OUTPUTS)
def test_answers_are_what_clients_are_told_to_expect(tmp_path: Path, name: str) -> None:
    seen = 0
    for vector in vectors(tmp_path, "output", name):
        case, operation = vector.case, vector.operation
        if "error" in case or case["id"] in UNTYPED | NOT_FINITE:
            continue
        output = operation.output
        result = as_python(output, case["result"]) if output else {}
        reply = JsonCall(operation=operation, body=b"", query_mode=False).reply(result, "request-1")
        headers = dict(reply.headers)
        assert headers["Content-Type"] == f"application/x-amz-json-{operation.service.json_version}"
        if case["id"] not in LENIENCE:
            assert json.loads(reply.body) == json.loads(case["response"]["body"]), case["id"]
        shape = vector.model.operation_model(operation.name).output_shape
        parsed = create_parser("json").parse(
            {"status_code": reply.status, "headers": HeadersDict(headers), "body": reply.body}, shape
        )
        assert parsed.pop("ResponseMetadata")["RequestId"] == "request-1"
        assert parsed == result, case["id"]
        seen += 1
    assert seen >= 10


def test_errors_of_a_service_that_spoke_query_keep_their_codes(tmp_path: Path) -> None:
    """The vector's error has the name CustomCodeError in JSON and the code Customized in the query protocol."""
    seen = {}
    for vector in vectors(tmp_path, "output", "json_1_0-query-compatible"):
        operation, response = vector.operation, vector.case["response"]
        expected = response["headers"].get("x-amzn-query-error")
        code = expected.partition(";")[0] if expected else vector.case["errorCode"]
        call = JsonCall(operation=operation, body=b"", query_mode=True)
        reply = call.error(ApiError(code, "Hi", response["status_code"]), "request-1")
        assert reply.status == response["status_code"]
        assert json.loads(reply.body)["__type"] == json.loads(response["body"])["__type"].partition("#")[2]
        seen[vector.case["id"]] = (expected, dict(reply.headers)["x-amzn-query-error"])
        parsed = create_parser("json").parse(
            {"status_code": reply.status, "headers": HeadersDict(reply.headers), "body": reply.body}, None
        )
        assert parsed["Error"]["Code"] == vector.case["errorCode"]
        quiet = JsonCall(operation=operation, body=b"", query_mode=False).error(ApiError(code, "Hi"), "request-1")
        assert "x-amzn-query-error" not in dict(quiet.headers)
    assert seen == {
        "QueryCompatibleAwsJson10NoCustomCodeError": (None, "NoCustomCodeError;Sender"),
        "QueryCompatibleAwsJson10CustomCodeError": ("Customized;Sender", "Customized;Sender"),
    }
