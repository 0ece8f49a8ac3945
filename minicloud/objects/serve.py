"""Answers the signed GETs of a folder store: what hosts fetch blocks from. An ASGI app that daemon.py mounts.

Owns nothing; admits only what FolderStore.sign_get signed and has not expired, and answers 403 to the rest without
saying why. A block is at most half a megabyte, so it is read whole, in Starlette's bounded thread pool.
"""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from minicloud.clock import MICROSECONDS, Clock
from minicloud.hostside.blocks import CorruptObject
from minicloud.objects.folder import FolderStore

log = logging.getLogger(__name__)


def objects_app(store: FolderStore, clock: Clock) -> Starlette:
    """Return the app that answers GET `/blocks/…` below folder.URL_PREFIX."""

    def get(request: Request) -> Response:
        key = request.path_params["key"]
        expires, signature = request.query_params.get("expires", ""), request.query_params.get("signature", "")
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return Response(status_code=403)
        if not store.admits(key, int(expires), signature, clock.now_us() / MICROSECONDS):
            return Response(status_code=403)
        try:
            data = store.stored_block(key)
        except KeyError:
            return Response(status_code=404)
        except (CorruptObject, OSError):
            log.exception("cannot read %s", key)
            return Response(status_code=503)
        return Response(data, media_type="application/octet-stream")

    return Starlette(routes=[Route("/{key:path}", get, methods=["GET"])])
