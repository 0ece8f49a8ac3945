"""Who sent a request of the signed endpoint: the signature against the keys that the cloud knows.

Refuses to say what a caller may do. Called by app.py between dispatch and parsing.
"""

from __future__ import annotations

from minicloud.api.services import Services
from minicloud.aws import sigv4
from minicloud.aws.models import Service
from minicloud.aws.request import Request
from minicloud.clock import to_datetime
from minicloud.cloud.accounts import find_access_key
from minicloud.cloud.context import Caller


def authenticate(services: Services, request: Request, service: Service) -> Caller:
    """Return who signed a request. Raises ApiError, in the service's own codes."""

    def lookup(access_key_id: str) -> sigv4.Credential[str] | None:
        key = find_access_key(services.cloud, access_key_id)
        return None if key is None else sigv4.Credential(key.id, key.secret, key.account_id)

    verified = sigv4.verify(request, service=service, lookup_key=lookup, now=to_datetime(services.clock.now_us()))
    # The scope's region is what the client believes; this endpoint serves one region.
    return Caller(verified.principal, services.cloud.config.region)
