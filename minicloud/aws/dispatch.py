"""Which operation of which service a request is for, and in which protocol: before anybody is believed.

Owns the reading of Action and Version, and the answers to what cannot be dispatched. Refuses to look at credentials but
for one thing: where two services would accept the same request, the credential scope breaks the tie (an old client that
was given a bare address derives nonsense for a scope, so it decides nothing else). Called first by the front door.

The ec2 and query protocols are here, AWS JSON is in `awsjson`. A further protocol (smithy RPC v2 CBOR by path) is a
function in `_PROTOCOLS` that takes the request and the catalog and returns a Call, or None when the request does not
speak it; and its Call subclass, which reads parameters and writes replies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minicloud.aws import awsjson, replies, sigv4
from minicloud.aws.calls import Call as Call
from minicloud.aws.calls import Undispatched as Undispatched
from minicloud.aws.models import Catalog, Service
from minicloud.aws.query import Pairs, decode_form, parse_query
from minicloud.aws.replies import Reply
from minicloud.aws.request import MAX_BODY_BYTES, Request
from minicloud.aws.text import clip
from minicloud.errors import ApiError

_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class QueryCall(Call):
    """The ec2 and query protocols: a form in, XML out."""

    version: str
    pairs: Pairs

    def parse(self) -> dict[str, Any]:
        return parse_query(self.operation, self.pairs)

    def reply(self, output: Mapping[str, Any] | None, request_id: str) -> Reply:
        return replies.success(self.operation, output, request_id=request_id, version=self.version)

    def error(self, error: ApiError, request_id: str) -> Reply:
        return replies.failure(self.service, error, request_id=request_id)


def choose_call(request: Request, catalog: Catalog, *, max_body_bytes: int = MAX_BODY_BYTES) -> Call:
    """The call that a request makes. `max_body_bytes` bounds the body after inflation. Raises Undispatched."""
    for protocol in _PROTOCOLS:
        try:
            call = protocol(request, catalog, max_body_bytes)
        except Undispatched:
            raise
        except ApiError as error:
            raise Undispatched(error.code, error.message, error.status, _likely(request, catalog)) from None
        if call is not None:
            return call
    raise Undispatched(
        "UnsupportedProtocol", "The protocol of the request is not supported.", 400, _likely(request, catalog)
    )


def _choose_query_call(request: Request, catalog: Catalog, max_body_bytes: int) -> Call | None:
    headers = request.headers
    if headers.all("smithy-protocol"):
        return None
    if request.method not in ("GET", "POST"):
        raise ApiError("InvalidMethod", f"The method {clip(request.method, 20)} is not allowed.", 405)
    pairs = decode_form(request.query_string.encode("latin-1"))
    if request.body:
        media_type, _, media_parameters = (headers.one("content-type") or _FORM).partition(";")
        if media_type.strip().lower() != _FORM or not _is_utf8(media_parameters):
            raise ApiError("UnsupportedMediaType", f"The request's body must be {_FORM} in UTF-8.", 415)
        pairs += decode_form(request.inflated_body(max_body_bytes))
    action, version = _only_one(pairs, "Action"), _only_one(pairs, "Version")
    if action is None:
        raise ApiError("MissingAction", "The request must contain the parameter Action")
    service = _choose_service(request, catalog, action, version)
    if not service.speaks_ec2 and version not in service.versions:
        stated = clip(version) if version is not None else "NO_VERSION_SPECIFIED"
        raise Undispatched(
            "InvalidAction", f"Could not find operation {clip(action)} for version {stated}", 400, service
        )
    if version is None:
        raise Undispatched("MissingParameter", "The request must contain the parameter Version", 400, service)
    if version not in service.versions:
        raise Undispatched(
            "NoSuchVersion",
            f"The requested version ({clip(version)}) of service AmazonEC2 does not exist",
            400,
            service,
        )
    operation = service.operations.get(action)
    if operation is None:
        raise _invalid_action(service, action, version)
    return QueryCall(operation=operation, version=version, pairs=pairs)


_Protocol = Callable[[Request, Catalog, int], Call | None]
_PROTOCOLS: tuple[_Protocol, ...] = (awsjson.choose_json_call, _choose_query_call)


def early_failure(content_type: str | None, error: ApiError, request_id: str) -> Reply:
    """The answer to a request that could not be read, by what its Content-Type says that the caller speaks."""
    if awsjson.speaks_json(content_type):
        return awsjson.early_failure(error, request_id)
    return replies.failure(None, error, request_id=request_id)


def _invalid_action(service: Service, action: str, version: str) -> Undispatched:
    # An operation that AWS has and this cloud does not is answered as one that does not exist: no client can be misled.
    if service.speaks_ec2:
        message = f"The action {clip(action)} is not valid for this web service."
    else:
        message = f"Could not find operation {clip(action)} for version {version}"
    return Undispatched("InvalidAction", message, 400, service)


def _choose_service(request: Request, catalog: Catalog, action: str, version: str | None) -> Service:
    """The service meant by Action and Version: one that was published under the version and has the action; failing
    that, one with the version; failing that, one with the action. The scope breaks ties, the catalog's order the rest.
    """
    form_services = [s for s in catalog.services.values() if {"ec2", "query"} & set(s.protocols)]
    versioned = [s for s in form_services if version in s.versions]
    having = [s for s in versioned or form_services if action in s.operation_names]
    candidates = having or versioned or form_services
    if len(candidates) > 1:
        hint = sigv4.scope_hint(request)
        for service in candidates:
            if hint is not None and service.signing_name == hint.service:
                return service
    if not candidates:
        raise ApiError("UnsupportedProtocol", "No service here speaks this protocol.")
    return candidates[0]


def _likely(request: Request, catalog: Catalog) -> Service:
    """Whose envelope to use when the request could not be read: the scope's service, or the catalog's first."""
    hint = sigv4.scope_hint(request)
    named = catalog.signing_as(hint.service) if hint is not None else None
    return named or next(iter(catalog.services.values()))


def _only_one(pairs: Pairs, name: str) -> str | None:
    """The value of a parameter that may stand once; empty means absent."""
    values = [value for pair_name, value in pairs if pair_name == name]
    if len(values) > 1:
        raise ApiError("InvalidQueryParameter", f"The parameter {name} has been specified more than once")
    return values[0] or None if values else None


def _is_utf8(media_parameters: str) -> bool:
    for parameter in media_parameters.lower().split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            return False
    return True
