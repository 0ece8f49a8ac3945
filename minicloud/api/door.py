"""The unix socket of minicloud's own command: the same operations as plain JSON, and a few that AWS does not have.

`POST /v1/{service}/{Operation}` takes and gives JSON by botocore's member names. Who connects is known by the kernel
(peer credentials), so nothing is signed: trusted users act as the root account. Refuses everybody else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from minicloud.api import operators
from minicloud.api.app import CLIENT_GONE, MAX_REQUESTS, THREADS, told
from minicloud.api.bodies import BodyTooLargeError, read_body, stream_body
from minicloud.api.gate import Gate
from minicloud.api.import_files import receive_upload
from minicloud.api.operations import perform
from minicloud.api.request_log import Entry
from minicloud.api.services import Context, Services
from minicloud.aws.jsonwire import load_json, parse_json, render_json
from minicloud.aws.replies import internal_error
from minicloud.aws.request import MAX_BODY_BYTES, body_too_large
from minicloud.cloud.bootstrap import ROOT_ACCOUNT_ID
from minicloud.cloud.context import Caller
from minicloud.errors import ApiError

log = logging.getLogger(__name__)

UID_PREFIX = "uid:"
OPERATORS = "minicloud"
UPLOAD = "upload"
SOCKET = "socket"
Answer = Mapping[str, Any]
Work = Callable[[Context, Entry], Awaitable[Answer]]


def create_door(services: Services) -> Starlette:
    """Return the ASGI application behind the unix socket.

    The server must put `("uid:<uid>", pid)` of the peer into `scope["client"]`.
    """
    door = _Door(services)
    return Starlette(
        routes=[
            Route("/v1/minicloud/UploadImport", door.upload, methods=["PUT"]),
            Route("/v1/{service}/{operation}", door.call, methods=["POST"]),
            Route("/{path:path}", door.unknown, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
        ]
    )


class _Door:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._gate = Gate(THREADS, MAX_REQUESTS)

    async def call(self, http: HttpRequest) -> Response:
        """One operation."""

        async def work(context: Context, entry: Entry) -> Answer:
            body = await read_body(http, MAX_BODY_BYTES)
            self._services.requests.arrived(entry)
            return await self._answer(context, entry, service, operation, _parse_object(body))

        service, operation = http.path_params["service"], http.path_params["operation"]
        return await self._serve(http, service, operation, work)

    async def _serve(self, http: HttpRequest, service: str | None, operation: str | None, work: Work) -> Response:
        """Admit a peer, do its work, answer, and log it."""
        peer, pid = http.scope.get("client") or ("", 0)
        entry = self._services.requests.begin(self._services.make_request_id(), SOCKET, f"pid:{pid}")
        entry.claims(str(peer), service, operation)
        try:
            async with self._gate.admitted():
                context = self._admit(str(peer))
                entry.account_id = context.caller.account_id
                response = _json(200, await work(context, entry))
        except Exception as error:
            response = self._refusal(error, entry)
        self._services.requests.end(entry, response.status_code, len(response.body))
        return response

    async def _answer(
        self, context: Context, entry: Entry, service: str, name: str, parameters: dict[str, Any]
    ) -> Answer:
        if service != OPERATORS:
            return await self._gate.run(lambda: self._perform(context, entry, service, name, parameters))
        waiting = operators.WAITING_HANDLERS.get(name)
        handler = operators.HANDLERS.get(name)
        if waiting is None and handler is None:
            raise _unknown(f"{service}/{name}")
        entry.asks(service, name)
        entry.names(parameters)
        if waiting is not None:
            return await waiting(context, self._gate, parameters)
        assert handler is not None
        answer = await self._gate.run(lambda: handler(context, parameters))
        entry.made_of(answer)
        return answer

    def _perform(self, context: Context, entry: Entry, service: str, name: str, parameters: dict[str, Any]) -> Answer:
        served = self._services.catalog.services.get(service)
        operation = served.operations.get(name) if served else None
        if operation is None:
            raise _unknown(f"{service}/{name}")
        entry.asks(service, name)
        parsed = parse_json(operation, parameters)
        entry.names(parsed)
        output = perform(context, service, name, parsed)
        answer = render_json(operation, output)
        entry.made_of(output)
        return answer

    async def upload(self, http: HttpRequest) -> Response:
        """PUT of a disk image into the spool; the answer has the URL to import it by."""

        async def work(context: Context, entry: Entry) -> Answer:
            entry.asks(OPERATORS, "UploadImport")
            config = context.cloud.config
            name = context.cloud.make_id(UPLOAD)
            chunks = stream_body(http, config.max_import_bytes)
            source = await receive_upload(config, self._gate, name, chunks)
            return {"Url": source.url, "SizeBytes": source.size_bytes}

        return await self._serve(http, OPERATORS, "UploadImport", work)

    async def unknown(self, http: HttpRequest) -> Response:
        """Anything else."""

        async def work(context: Context, entry: Entry) -> Answer:
            raise _unknown(http.path_params["path"])

        return await self._serve(http, None, http.path_params["path"], work)

    def _admit(self, peer: str) -> Context:
        uid = peer.removeprefix(UID_PREFIX)
        if not peer.startswith(UID_PREFIX) or int(uid) not in self._services.trusted_uids:
            raise ApiError("UnauthorizedOperation", "You are not authorized to perform this operation.", 403)
        return Context(self._services, Caller(ROOT_ACCOUNT_ID, self._services.cloud.config.region))

    def _refusal(self, error: Exception, entry: Entry) -> Response:
        if isinstance(error, ClientDisconnect):
            entry.refused(CLIENT_GONE)
            return Response(b"", 400)
        if isinstance(error, BodyTooLargeError):
            error = body_too_large(MAX_BODY_BYTES)
        refusal = told(error, entry.request_id, lambda: internal_error(None))
        entry.refused(refusal.code)
        fault = {"Code": refusal.code, "Message": refusal.message}
        return _json(refusal.status, {"Error": fault, "RequestId": entry.request_id})


def _unknown(what: str) -> ApiError:
    return ApiError("InvalidAction", f"The action {what[:100]} is not valid for this web service.", 404)


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        document = load_json(body or b"{}", _refuse_constant)
    except (ValueError, RecursionError):
        raise ApiError("SerializationException", "The request's body is not JSON.") from None
    if not isinstance(document, dict):
        raise ApiError("SerializationException", "The request's body must be a JSON object.")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _json(status: int, document: Answer) -> Response:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, {"Content-Type": "application/json", "Cache-Control": "no-store"})
