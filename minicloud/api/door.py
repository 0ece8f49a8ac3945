"""The unix socket of minicloud's own command: the same operations as plain JSON, and a few that AWS does not have.

`POST /v1/{service}/{Operation}` takes and gives JSON by botocore's member names. Who connects is known by the kernel
(peer credentials), so nothing is signed: trusted users act as the root account. Refuses everybody else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from minicloud.api import operators
from minicloud.api.app import MAX_REQUESTS, THREADS, told
from minicloud.api.bodies import BodyTooLargeError, read_body, stream_body
from minicloud.api.gate import Gate
from minicloud.api.import_files import receive_upload
from minicloud.api.operations import perform
from minicloud.api.services import Context, Services
from minicloud.aws.jsonwire import parse_json, render_json
from minicloud.aws.replies import internal_error
from minicloud.aws.request import MAX_BODY_BYTES, body_too_large
from minicloud.cloud.bootstrap import ROOT_ACCOUNT_ID
from minicloud.cloud.context import Caller
from minicloud.errors import ApiError

log = logging.getLogger(__name__)

UID_PREFIX = "uid:"
OPERATORS = "minicloud"
UPLOAD = "upload"
Answer = Mapping[str, Any]


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
        request_id = self._services.make_request_id()
        try:
            async with self._gate.admitted():
                context = self._admit(http)
                body = await read_body(http, MAX_BODY_BYTES)
                service, operation = http.path_params["service"], http.path_params["operation"]
                answer = await self._answer(context, service, operation, _parse_object(body))
        except Exception as error:
            return self._refusal(error, request_id)
        return _json(200, answer)

    async def _answer(self, context: Context, service: str, name: str, parameters: dict[str, Any]) -> Answer:
        if service == OPERATORS:
            if name == "WaitForChange":
                return await operators.wait_for_change(context, self._gate, parameters)
            handler = operators.HANDLERS.get(name)
            if handler is None:
                raise _unknown(f"{service}/{name}")
            return await self._gate.run(lambda: handler(context, parameters))
        return await self._gate.run(lambda: self._perform(context, service, name, parameters))

    def _perform(self, context: Context, service: str, name: str, parameters: dict[str, Any]) -> Answer:
        served = self._services.catalog.services.get(service)
        operation = served.operations.get(name) if served else None
        if operation is None:
            raise _unknown(f"{service}/{name}")
        output = perform(context, service, name, parse_json(operation, parameters))
        return render_json(operation, output)

    async def upload(self, http: HttpRequest) -> Response:
        """PUT of a disk image into the spool; the answer has the URL to import it by."""
        request_id = self._services.make_request_id()
        try:
            async with self._gate.admitted():
                context = self._admit(http)
                config = context.cloud.config
                name = context.cloud.make_id(UPLOAD)
                chunks = stream_body(http, config.max_import_bytes)
                source = await receive_upload(config, self._gate, name, chunks)
        except Exception as error:
            return self._refusal(error, request_id)
        return _json(200, {"Url": source.url, "SizeBytes": source.size_bytes})

    async def unknown(self, http: HttpRequest) -> Response:
        """Anything else."""
        return self._refusal(_unknown(http.path_params["path"]), self._services.make_request_id())

    def _admit(self, http: HttpRequest) -> Context:
        peer = http.scope.get("client") or ("", 0)
        uid = str(peer[0]).removeprefix(UID_PREFIX)
        if not str(peer[0]).startswith(UID_PREFIX) or int(uid) not in self._services.trusted_uids:
            raise ApiError("UnauthorizedOperation", "You are not authorized to perform this operation.", 403)
        return Context(self._services, Caller(ROOT_ACCOUNT_ID, self._services.cloud.config.region))

    def _refusal(self, error: Exception, request_id: str) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(b"", 400)
        if isinstance(error, BodyTooLargeError):
            error = body_too_large(MAX_BODY_BYTES)
        refusal = told(error, request_id, lambda: internal_error(None))
        fault = {"Code": refusal.code, "Message": refusal.message}
        return _json(refusal.status, {"Error": fault, "RequestId": request_id})


def _unknown(what: str) -> ApiError:
    return ApiError("InvalidAction", f"The action {what[:100]} is not valid for this web service.", 404)


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body or b"{}", parse_constant=_refuse_constant)
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
