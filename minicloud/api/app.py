"""The signed endpoint: what AWS's tools speak to. One request's way, in order, is `_handle`.

Owns the chain and what a client is told when something goes wrong: its own mistakes in the service's words, and of our
bugs and broken databases nothing but the request id, by which the log has the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from minicloud.api.authentication import authenticate
from minicloud.api.bodies import BodyTooLargeError, read_body
from minicloud.api.claims import claimed_action, claimed_key_id
from minicloud.api.gate import Gate
from minicloud.api.operations import perform
from minicloud.api.request_log import Entry
from minicloud.api.services import Context, Services
from minicloud.aws import replies
from minicloud.aws.dispatch import Call, Undispatched, choose_call, early_failure
from minicloud.aws.replies import Reply
from minicloud.aws.request import MAX_BODY_BYTES, Request, body_too_large
from minicloud.errors import ApiError, StoreError

log = logging.getLogger(__name__)

THREADS = 16
MAX_REQUESTS = 128
ENDPOINT = "endpoint"
CLIENT_GONE = "ClientDisconnected"  # in the log only: nobody was answered
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


def create_endpoint(services: Services) -> Starlette:
    """Return the ASGI application of the signed endpoint. It owns its threads, not its sockets."""
    gate = Gate(THREADS, MAX_REQUESTS)

    async def endpoint(http: HttpRequest) -> Response:
        client = http.scope.get("client")
        entry = services.requests.begin(services.make_request_id(), ENDPOINT, client[0] if client else "")
        try:
            async with gate.admitted():
                request = await _read(http)
                services.requests.arrived(entry)
                reply = await gate.run(lambda: _handle(services, request, entry))
        except ApiError as error:
            entry.refused(error.code)
            reply = early_failure(http.headers.get("content-type"), error, entry.request_id)
        except ClientDisconnect:
            # Nobody is left to be answered.
            entry.refused(CLIENT_GONE)
            reply = Reply(400, (), b"")
        services.requests.end(entry, reply.status, len(reply.body))
        return Response(reply.body, reply.status, dict(reply.headers))

    return Starlette(routes=[Route("/{path:path}", endpoint, methods=METHODS)])


async def _read(http: HttpRequest) -> Request:
    try:
        body = await read_body(http, MAX_BODY_BYTES)
    except BodyTooLargeError:
        raise body_too_large(MAX_BODY_BYTES) from None
    path: bytes = http.scope.get("raw_path") or http.scope["path"].encode()
    return Request.build(http.method, path, http.scope["query_string"], http.scope["headers"], body)


def _handle(services: Services, request: Request, entry: Entry) -> Reply:
    """Dispatch, authenticate, parse, perform, render; `entry` learns on the way what the request log says."""
    request_id = entry.request_id
    call: Call | None = None
    try:
        entry.claims(claimed_key_id(request))
        call = choose_call(request, services.catalog)
        entry.asks(call.service.name, call.operation.name)
        caller = authenticate(services, request, call.service, entry.source)
        entry.account_id = caller.account_id
        parameters = call.parse()
        entry.names(parameters)
        output = perform(Context(services, caller), call.service.name, call.operation.name, parameters)
        reply = call.reply(output, request_id)
        entry.made_of(output)
        return reply
    except Undispatched as error:
        entry.claims(operation=claimed_action(request))
        entry.refused(error.code)
        return error.reply(request_id)
    except Exception as error:
        service = call.service if call is not None else None
        refusal = told(error, request_id, lambda: replies.internal_error(service))
        entry.refused(refusal.code)
        if call is not None:
            return call.error(refusal, request_id)
        return early_failure(next(iter(request.headers.all("content-type")), None), refusal, request_id)


def told(error: Exception, request_id: str, internal_error: Callable[[], ApiError]) -> ApiError:
    """Return what a client is told of an exception, and log whole what it is not told."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, StoreError):
        log.error("request %s: the store failed: %s", request_id, error, exc_info=error)
        return ApiError("Unavailable", "The server is overloaded and can't handle the request.", 503)
    log.error("request %s: a bug", request_id, exc_info=error)
    return internal_error()
