"""The awsJson1_0 and awsJson1_1 protocols: X-Amz-Target names the operation, a JSON object in, a JSON object out.

Owns the dispatch by target, the words that AWS's JSON services have for what is wrong with a request, the error
document, and the query-compatible errors of services that moved here from the query protocol (CloudWatch): such a
service keeps its old error codes in the header `x-amzn-query-error` for clients that ask for them. Refuses to read or
write values: that is `jsonwire`. Called by `dispatch`, and by the front door for requests that came to nothing earlier.

Source: the AWS JSON 1.0, JSON 1.1 and "query compatible" protocol pages of the Smithy specification. One rule is ours:
a member that the model does not have is refused, where AWS would not see it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minicloud.aws.calls import Call, Undispatched
from minicloud.aws.faults import Faults
from minicloud.aws.jsonwire import decode_json, parse_aws_json, render_aws_json
from minicloud.aws.models import Catalog, Service
from minicloud.aws.replies import Reply
from minicloud.aws.request import Request
from minicloud.aws.text import clip
from minicloud.errors import ApiError

TARGET = "x-amz-target"
MEDIA_TYPES = ("application/x-amz-json-1.0", "application/x-amz-json-1.1")
_DEFAULT_VERSION = "1.1"
_QUERY_MODE = "x-amzn-query-mode"

# What the services of the query protocol and those of JSON call the same fault of a request. Whatever status the former
# answer with, the latter answer 400.
_COMMON_NAMES = {
    "IncompleteSignature": "IncompleteSignatureException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "ValidationError": "ValidationException",
}


def choose_json_call(request: Request, catalog: Catalog, max_body_bytes: int) -> Call | None:
    """The call of a request that speaks AWS JSON, None if it does not. Raises Undispatched."""
    headers = request.headers
    targets, media_types = headers.all(TARGET), headers.all("content-type")
    if headers.all("smithy-protocol") or not (targets or any(map(speaks_json, media_types))):
        return None
    prefix, _, name = (targets[0] if targets else "").rpartition(".")
    service = next((one for one in catalog.services.values() if prefix and one.target_prefix == prefix), None)
    try:
        _check_headers(request, targets, media_types)
        operation = service.operations.get(name) if service is not None else None
        if operation is None:
            raise ApiError("UnknownOperationException", f"The operation {clip(targets[0])} is not known.")
        query_mode = (headers.one(_QUERY_MODE) or "").strip().lower() == "true"
        return JsonCall(operation=operation, body=request.inflated_body(max_body_bytes), query_mode=query_mode)
    except ApiError as error:
        answering = service or next(iter(catalog.services.values()))
        raise Undispatched(error.code, error.message, error.status, answering, _envelope) from None


def _check_headers(request: Request, targets: list[str], media_types: list[str]) -> None:
    if request.method != "POST":
        raise ApiError("InvalidMethod", f"The method {clip(request.method, 20)} is not allowed.", 405)
    if len(targets) > 1 or len(media_types) > 1:
        raise ApiError("InvalidRequest", "A header of the request has been specified more than once.")
    if not media_types or not speaks_json(media_types[0]):
        raise ApiError("UnsupportedMediaType", f"The request's Content-Type must be {' or '.join(MEDIA_TYPES)}.", 415)
    if not targets:
        raise ApiError("UnknownOperationException", "The request must contain the header X-Amz-Target.")


def speaks_json(media_type: str | None) -> bool:
    """Say whether a Content-Type is one of AWS JSON."""
    return media_type is not None and media_type.partition(";")[0].strip().lower() in MEDIA_TYPES


def early_failure(error: ApiError, request_id: str) -> Reply:
    """The answer to a caller of AWS JSON whose request came to nothing before it was read."""
    return _failure(error, request_id, _DEFAULT_VERSION)


def _envelope(service: Service, error: ApiError, request_id: str) -> Reply:
    return _failure(error, request_id, service.json_version or _DEFAULT_VERSION)


@dataclass(frozen=True, slots=True)
class JsonCall(Call):
    """A request in AWS JSON. `query_mode`: the caller wants to be told the query protocol's error codes, too."""

    body: bytes
    query_mode: bool

    def parse(self) -> dict[str, Any]:
        try:
            given = decode_json(self.body)
        except ApiError as error:
            raise ApiError("SerializationException", error.message) from None
        return parse_aws_json(self.operation, given, JSON_FAULTS)

    def reply(self, output: Mapping[str, Any] | None, request_id: str) -> Reply:
        return _json(200, render_aws_json(self.operation, output), request_id, self._version)

    def error(self, error: ApiError, request_id: str) -> Reply:
        if self.query_mode and self.service.query_compatible:
            return _failure(error, request_id, self._version, self.service.error_names)
        return _failure(error, request_id, self._version)

    @property
    def _version(self) -> str:
        return self.service.json_version or _DEFAULT_VERSION


class JsonFaults(Faults):
    """ValidationException for what breaks a constraint, SerializationException for what is of another type."""

    def missing(self, name: str) -> ApiError:
        return _invalid("Value null", name, "Member must not be null")

    def invalid(self, name: str, value: str | None, expected: str) -> ApiError:
        return _invalid(_shown(value), name, expected.removesuffix("."))

    def not_allowed(self, name: str, value: str | None, allowed: Sequence[str]) -> ApiError:
        return _invalid(_shown(value), name, f"Member must satisfy enum value set: [{clip(', '.join(allowed), 400)}]")

    def out_of_bounds(self, name: str, value: str | None, relation: str, bound: float, what: str) -> ApiError:
        return _invalid(_shown(value), name, f"Member must have {what} {relation} than or equal to {bound:g}")

    def unknown(self, name: str) -> ApiError:
        return ApiError("ValidationException", f"The parameter {clip(name)} is not recognized")

    def wrong_type(self, name: str, expected: str) -> ApiError:
        return ApiError("SerializationException", f"Expecting {expected} at '{clip(_camel(name))}'.")

    def bad_base64(self, name: str) -> ApiError:
        return self.wrong_type(name, "base64-encoded data")


JSON_FAULTS = JsonFaults()


def _invalid(value: str, name: str, constraint: str) -> ApiError:
    return ApiError(
        "ValidationException",
        f"1 validation error detected: {value} at '{clip(_camel(name))}' failed to satisfy constraint: {constraint}",
    )


def _shown(value: str | None) -> str:
    return "Value" if value is None else f"Value '{clip(value)}'"


def _camel(name: str) -> str:
    """A parameter's path as these services write it: each member begins with a small letter."""
    return ".".join(part[:1].lower() + part[1:] for part in name.split("."))


def _failure(error: ApiError, request_id: str, version: str, query_names: Mapping[str, str] | None = None) -> Reply:
    """An error document; with `query_names` (names by code), also the header that tells the query protocol's code."""
    status = 400 if error.code in _COMMON_NAMES else error.status
    name = _COMMON_NAMES.get(error.code, error.code)
    headers: tuple[tuple[str, str], ...] = ()
    if query_names is not None:
        name = query_names.get(error.code, name)
        code = next((code for code, renamed in query_names.items() if renamed == error.code), error.code)
        headers = (("x-amzn-query-error", f"{code};{'Receiver' if status >= 500 else 'Sender'}"),)
    return _json(status, {"__type": name, "message": error.message}, request_id, version, headers)


def _json(
    status: int, document: dict[str, Any], request_id: str, version: str, headers: tuple[tuple[str, str], ...] = ()
) -> Reply:
    common = (
        ("Content-Type", f"application/x-amz-json-{version}"),
        ("x-amzn-RequestId", request_id),
        ("Cache-Control", "no-cache, no-store"),
    )
    return Reply(status, common + headers, json.dumps(document).encode())
