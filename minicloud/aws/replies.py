"""Answers, ready to be sent: status, headers and body, in the caller's protocol.

Owns the error envelopes and the headers every answer carries. Refuses to tell a client anything about a bug but the
request id. Called by `dispatch.Call` and by the front door.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minicloud.aws.models import Operation, Service
from minicloud.aws.render import XML_DECLARATION, render_xml
from minicloud.aws.text import escape_xml
from minicloud.errors import ApiError


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. Header names are as AWS writes them."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def success(operation: Operation, output: Mapping[str, Any] | None, *, request_id: str, version: str) -> Reply:
    """200 with the operation's result. Raises TypeError when `output` is not of the model's shape (a bug)."""
    return _xml(200, render_xml(operation, output, request_id=request_id, version=version), request_id)


def failure(service: Service | None, error: ApiError, *, request_id: str) -> Reply:
    """The service's error envelope; EC2's when no service is known yet."""
    code, message, identifier = escape_xml(error.code), escape_xml(error.message), escape_xml(request_id)
    if service is None or service.speaks_ec2:
        body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{identifier}</RequestID></Response>"
        )
    else:
        blame = "Receiver" if error.status >= 500 else "Sender"
        body = (
            f'<ErrorResponse xmlns="{escape_xml(service.xml_namespace)}"><Error><Type>{blame}</Type>'
            f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>{identifier}</RequestId></ErrorResponse>"
        )
    return _xml(error.status, (XML_DECLARATION + body).encode(), request_id)


def internal_error(service: Service | None) -> ApiError:
    """What a client is told about a bug, whatever the bug was; the log has the rest, by request id."""
    if service is None or service.speaks_ec2:
        return ApiError("InternalError", "An internal error has occurred", 500)
    return ApiError(
        "InternalFailure", "The request processing has failed because of an unknown error, exception or failure.", 500
    )


def _xml(status: int, body: bytes, request_id: str) -> Reply:
    headers = (
        ("Content-Type", "text/xml;charset=UTF-8"),
        ("x-amzn-RequestId", request_id),
        ("Cache-Control", "no-cache, no-store"),  # a reply may hold a private key
    )
    return Reply(status, headers, body)
