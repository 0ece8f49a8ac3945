"""What the metadata service answers: one request and the plan of the instance that asked in, one reply out. Pure.

Follows EC2's "Instance metadata and user data" guide: IMDSv1 and v2, versions, listings, dynamic data. The server
(metadata.py) finds the plan by the address that asked and nothing else; headers never tell who is asking.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from http import HTTPStatus
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import unquote

Plan = Dict[str, Any]

VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-07-09",
    "2022-09-24",
    "latest",
)
MIN_TOKEN_SECONDS, MAX_TOKEN_SECONDS = 1, 21600
TOKEN_HEADER = "x-aws-ec2-metadata-token"
TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"

_TOKEN = struct.Struct("!BQ")
_TOKEN_VERSION = 1
_ERROR_PAGE = """<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
\t"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>{0} - {1}</title>
 </head>
 <body>
  <h1>{0} - {1}</h1>
 </body>
</html>
"""


class Request(NamedTuple):
    """An HTTP request; header names are in lower case."""

    method: str
    target: str
    headers: Dict[str, str]


class Reply(NamedTuple):
    """An HTTP reply. `hop_limit` is set where the packets that carry it may travel only so far."""

    status: int
    body: bytes
    content_type: str = "text/plain"
    headers: Tuple[Tuple[str, str], ...] = ()
    hop_limit: Optional[int] = None


class Tokens:
    """IMDSv2 session tokens: signed, so that nothing is kept; bound to an instance; they end with this boot.

    `clock` counts seconds since boot, which no change of the wall clock touches.
    """

    def __init__(self, secret: bytes, boot_id: str) -> None:
        self._key = hmac.new(secret, boot_id.encode(), hashlib.sha256).digest()

    def issue(self, instance_id: str, seconds: int, now: float) -> str:
        """Return a token good for `seconds` from `now`."""
        body = _TOKEN.pack(_TOKEN_VERSION, int((now + seconds) * 1000))
        return base64.urlsafe_b64encode(body + self._signature(body, instance_id)).decode()

    def remaining(self, token: str, instance_id: str, now: float) -> Optional[float]:
        """Return for how many seconds a token of this instance is still good; None if it is not."""
        try:
            data = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeError, ValueError):
            return None
        body, signature = data[: _TOKEN.size], data[_TOKEN.size :]
        if len(body) != _TOKEN.size or not hmac.compare_digest(signature, self._signature(body, instance_id)):
            return None
        left = _TOKEN.unpack(body)[1] / 1000 - now
        return left if left > 0 else None

    def _signature(self, body: bytes, instance_id: str) -> bytes:
        return hmac.new(self._key, body + instance_id.encode(), hashlib.sha256).digest()


def error(status: int) -> Reply:
    """Return an error as EC2's service words it."""
    page = _ERROR_PAGE.format(status, HTTPStatus(status).phrase)
    return Reply(status, page.encode(), "text/html")


def answer(request: Request, plan: Optional[Plan], tokens: Tokens, now: float) -> Reply:
    """Answer one request of the instance of `plan`; None: whoever asks has no plan on this router."""
    if plan is None:
        return error(404)
    options = plan["metadata"]
    if options["http_endpoint"] != "enabled":
        return error(403)
    parts = [part for part in unquote(request.target.split("?", 1)[0]).split("/") if part]
    if parts == ["latest", "api", "token"]:
        return _token(request, plan, tokens, now)
    headers: Tuple[Tuple[str, str], ...] = ()
    token = request.headers.get(TOKEN_HEADER)
    if token is not None:
        left = tokens.remaining(token, plan["instance_id"], now)
        if left is None:
            return error(401)
        headers = (("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", str(int(left))),)
    elif options["http_tokens"] == "required":
        return error(401)
    if request.method not in ("GET", "HEAD"):
        return error(405)._replace(headers=(("Allow", "GET, HEAD"),))
    reply = _read(parts, plan)
    return reply._replace(headers=reply.headers + headers)


def _token(request: Request, plan: Plan, tokens: Tokens, now: float) -> Reply:
    if request.method != "PUT":
        return error(405)._replace(headers=(("Allow", "PUT"),))
    # A proxy forwards it: so whoever is behind it would get the token of the instance the proxy runs on.
    if "x-forwarded-for" in request.headers:
        return error(403)
    wanted = request.headers.get(TTL_HEADER, "")
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) <= 5):
        return error(400)
    seconds = int(wanted)
    if not MIN_TOKEN_SECONDS <= seconds <= MAX_TOKEN_SECONDS:
        return error(400)
    token = tokens.issue(plan["instance_id"], seconds, now)
    headers = (("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", str(seconds)),)
    return Reply(200, token.encode(), headers=headers, hop_limit=plan["metadata"]["hop_limit"])


def _read(parts: List[str], plan: Plan) -> Reply:
    if not parts:
        return _text("\n".join(VERSIONS))
    if parts[0] not in VERSIONS:
        return error(404)
    options, below = plan["metadata"], parts[1:]
    if not below:
        user_data = ["user-data"] if options["user_data_base64"] is not None else []
        return _text("\n".join(["dynamic", "meta-data", *user_data]))
    if below[0] == "meta-data":
        return _metadata("/".join(below[1:]), options)
    if below == ["user-data"] and options["user_data_base64"] is not None:
        return Reply(200, base64.b64decode(options["user_data_base64"]), "application/octet-stream")
    if below[0] == "dynamic":
        return _dynamic(below[1:], options)
    return error(404)


def _metadata(path: str, options: Plan) -> Reply:
    text = options["leaves"].get(path)
    if text is not None:
        return _text(text)
    for name, listing in options["listings"].items():
        if name.strip("/") == path:
            return _text(listing)
    listing = list_folder(options["leaves"], path)
    return _text("\n".join(listing)) if listing else error(404)


def list_folder(leaves: Dict[str, str], path: str) -> List[str]:
    """Return what is directly below `path` ("" is the top), folders with a slash at their end, sorted."""
    prefix = f"{path}/" if path else ""
    found = set()
    for leaf in leaves:
        if leaf.startswith(prefix):
            name, slash, _ = leaf[len(prefix) :].partition("/")
            found.add(name + slash)
    return sorted(found)


def _dynamic(below: List[str], options: Plan) -> Reply:
    if not below:
        return _text("instance-identity/")
    if below == ["instance-identity"]:
        return _text("document")
    if below == ["instance-identity", "document"]:
        return _text(options["identity_document"])
    return error(404)


def _text(text: str) -> Reply:
    return Reply(200, text.encode())
