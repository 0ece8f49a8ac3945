"""What a request says of itself before anything of it is believed, for the request log alone.

Refuses to decide anything: dispatch and authentication read the request for themselves, and by stricter rules.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from minicloud.aws.request import Request
from minicloud.aws.sigv4 import scope_hint

# Clients send the action first; whoever hides it behind this much is written down without one.
LOOK_BYTES = 8192
_find_action = re.compile(r"(?:^|&)Action=([^&]{1,300})").search


def claimed_action(request: Request) -> str | None:
    """Return the operation that a request of any protocol asks for."""
    target = next(iter(request.headers.all("x-amz-target")), None)
    if target:
        return target.rpartition(".")[2] or None
    for text in (request.query_string[:LOOK_BYTES], request.body[:LOOK_BYTES].decode("latin-1")):
        match = _find_action(text)
        if match:
            return unquote_plus(match[1])
    return None


def claimed_key_id(request: Request) -> str | None:
    """Return the access key id that a request is signed with, whether the signature holds or not."""
    scope = scope_hint(request)
    return scope.access_key_id if scope is not None else None
