"""AWS's own test vectors of the ec2 and query protocols, from botocore's source distribution, read from the server's
side.

An input vector is a request that a client sends: it must be dispatched and parse to its parameters. An output vector is
an answer that a client understands: what we write for its result must be that, and botocore must read it as that.
"""

from __future__ import annotations

import copy
import gzip
import json
import re
import xml.etree.ElementTree as ET
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

from minicloud.api.operations import OPERATIONS
from minicloud.aws.dispatch import QueryCall, choose_call
from minicloud.aws.models import Catalog, Operation, botocore_data, load_service
from minicloud.aws.request import Request
from minicloud.errors import ApiError

PROTOCOLS = ("ec2", "query")
REQUEST_IDS = ("ResponseMetadata", "requestId", "RequestId", "RequestID")
# These have no body, so nothing could be compressed. Gzip itself is tested in tests/unit/aws.
COMPRESSED = ("SDKApplied", "SDKAppends")
# What the vector's client adds, and what the protocols have no words for.
FILLED = {"token": "00000000-0000-4000-8000-000000000000"}
SAID: dict[str, dict[str, Any]] = {
    "Ec2ProtocolIdempotencyTokenAutoFill": FILLED,
    "QueryProtocolIdempotencyTokenAutoFill": FILLED,
    "Ec2EmptyQueryLists": {},
    "QueryEmptyQueryMaps": {},
}
# Times that a client must understand from servers that are not like this one.
OTHER_SPELLINGS = (
    "DateTimeWithNegativeOffset",
    "DateTimeWithPositiveOffset",
    "EpochSecondsFormat",
    "EpochSecondsOnTargetFormat",
    "HttpDateFormat",
    "HttpDateOnTargetFormat",
)


@dataclass(frozen=True)
class Vector:
    """A case of a suite, with the operation it is about and the model that it belongs to."""

    case: dict[str, Any]
    operation: Operation | None  # None: its model has flattened lists or maps, which are refused
    model: ServiceModel


def vectors(folder: Path, direction: str, protocol: str) -> Iterator[Vector]:
    suites = json.loads((botocore_sdist() / "tests/unit/protocols" / direction / f"{protocol}.json").read_text())
    for number, suite in enumerate(suites):
        for case in suite["cases"]:
            name = case["given"]["name"]
            given = copy.deepcopy(case["given"])
            if protocol == "query" and "output" in given:
                given["output"]["resultWrapper"] = f"{name}Result"  # every service's model says so; vectors do not
            raw = {
                "metadata": {"endpointPrefix": "vectors", **suite["metadata"]},
                "operations": {name: given},
                "shapes": copy.deepcopy(suite["shapes"]),
            }
            model = ServiceModel(copy.deepcopy(raw))
            used = case.get("params" if direction == "input" else "result", {})
            forget_flattened(raw["shapes"], case["given"].get(direction), used)
            service = folder / f"{protocol}-{number}-{case['id']}"
            version = service / suite["metadata"]["apiVersion"]
            version.mkdir(parents=True)
            (version / "service-2.json").write_text(json.dumps(raw))
            try:
                loaded = load_service(service.name, [name], data=folder)
            except ValueError as error:
                assert "flattened" in str(error)
                yield Vector(case, None, model)
            else:
                yield Vector(case, loaded.operations[name], model)


def forget_flattened(shapes: dict[str, Any], reference: dict[str, Any] | None, used: dict[str, Any]) -> None:
    """Take members from the operation's structure that are flattened and that the case does not use."""
    members = shapes[reference["shape"]]["members"] if reference else {}
    for name, member in list(members.items()):
        if name not in used and ("flattened" in member or "flattened" in shapes[member["shape"]]):
            del members[name]


def request_of(vector: Vector) -> Request:
    sent = vector.case["serialized"]
    headers = [(name.encode(), value.encode()) for name, value in sent.get("headers", {}).items()]
    return Request.build("POST", sent.get("uri", "/").encode(), b"", headers, sent.get("body", "").encode())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_clients_send_is_understood(tmp_path: Path, protocol: str) -> None:
    seen = 0
    for vector in vectors(tmp_path, "input", protocol):
        case, operation = vector.case, vector.operation
        if operation is None or case["id"].startswith(COMPRESSED):
            continue
        call = choose_call(request_of(vector), Catalog([operation.service]))
        assert call.operation is operation, case["id"]
        if case["id"].endswith("FloatInputs"):  # numbers that are none: no operation could do anything with one
            with pytest.raises(ApiError) as caught:
                call.parse()
            assert caught.value.code in ("InvalidParameterValue", "ValidationError"), case["id"]
        else:
            expected = as_python(operation.input, case["params"]) if operation.input else {}
            assert call.parse() == SAID.get(case["id"], expected), case["id"]
        seen += 1
    assert seen >= 15


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answers_are_what_clients_are_told_to_expect(tmp_path: Path, protocol: str) -> None:
    seen = 0
    for vector in vectors(tmp_path, "output", protocol):
        case, operation = vector.case, vector.operation
        if operation is None or "error" in case or case["id"].endswith("FloatOutputs"):
            continue
        result = as_python(operation.output, case["result"]) if operation.output else {}
        reply = call_of(operation).reply(result, "request-1")
        body = case["response"].get("body")
        if body and not case["id"].endswith(OTHER_SPELLINGS):
            assert tree(reply.body, protocol) == tree(body.encode(), protocol), case["id"]
        shape = vector.model.operation_model(operation.name).output_shape
        parsed = create_parser(protocol).parse(
            {"status_code": reply.status, "headers": HeadersDict(dict(reply.headers)), "body": reply.body}, shape
        )
        assert parsed.pop("ResponseMetadata")["RequestId"] == "request-1"
        assert parsed == result, case["id"]
        seen += 1
    assert seen >= 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_errors_are_what_clients_are_told_to_expect(tmp_path: Path, protocol: str) -> None:
    seen = 0
    for vector in vectors(tmp_path, "output", protocol):
        case, operation = vector.case, vector.operation
        if operation is None or "errorMessage" not in case:  # an error with members of its own: none that is served
            continue
        refusal = ApiError(case["errorCode"], case["errorMessage"], case["response"]["status_code"])
        reply = call_of(operation).error(refusal, "foo-id")
        assert reply.status == case["response"]["status_code"]
        assert tree(reply.body, protocol) == tree(case["response"]["body"].encode(), protocol), case["id"]
        seen += 1
    assert seen >= 1


def test_no_served_service_spells_times_in_another_way() -> None:
    for service in OPERATIONS:
        model = max((botocore_data() / service).glob("*/service-2.json.gz"))
        raw = json.loads(gzip.decompress(model.read_bytes()))
        if {"ec2", "query"} & set(raw["metadata"]["protocols"]):
            assert "timestampFormat" not in json.dumps(raw), service


def call_of(operation: Operation) -> QueryCall:
    return QueryCall(operation=operation, version=operation.service.api_version, pairs=[])


def tree(body: bytes, protocol: str) -> Any:
    """An answer without its namespaces, its request id, and the choices that a server has."""

    def branch(element: ET.Element) -> Any:
        name = element.tag.rpartition("}")[2]
        if protocol == "ec2" and name == "member":
            name = "item"  # what EC2 calls every element of a list, and its model says so itself
        below = [branch(one) for one in element if one.tag.rpartition("}")[2] not in REQUEST_IDS]
        text = "" if below else (element.text or "").strip()
        return name, re.sub(r"\.000Z\Z", "Z", text), below

    return branch(ET.fromstring(body))
