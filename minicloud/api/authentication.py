"""Who sent a request of the signed endpoint: the signature against the keys that the cloud knows.

Refuses to verify for who failed too often (throttle.py), and to say what a caller may do. Called by app.py between
dispatch and parsing.
"""

from __future__ import annotations

from minicloud.api.services import Services
from minicloud.aws import sigv4
from minicloud.aws.models import Service
from minicloud.aws.request import Request
from minicloud.clock import to_datetime
from minicloud.cloud.accounts import find_signing_key
from minicloud.cloud.context import Caller


def authenticate(services: Services, request: Request, service: Service, address: str) -> Caller:
    """Return who signed a request that came from an address. Raises ApiError, in the service's own codes."""
    throttle = services.failed_signatures
    tried: str | None = None

    def find_key(access_key_id: str, session_token: str | None) -> sigv4.Credential[Caller] | None:
        nonlocal tried
        if not throttle.admits(address, access_key_id):
            raise sigv4.too_many_failures(service)
        tried = access_key_id
        key = find_signing_key(services.cloud, access_key_id, session_token)
        if key is None:
            return None
        expires_at = None if key.expires_us is None else to_datetime(key.expires_us)
        return sigv4.Credential(key.access_key_id, key.secret_access_key, key.caller, expires_at)

    try:
        verified = sigv4.verify(
            request,
            service=service,
            region=services.cloud.config.region,
            known_services=[one.signing_name for one in services.catalog.services.values()],
            find_key=find_key,
            now=to_datetime(services.clock.now_us()),
        )
    except sigv4.CredentialsRefusedError:
        if tried is not None and not throttle.failed(address, tried):
            raise sigv4.too_many_failures(service) from None
        raise
    throttle.succeeded(address, verified.access_key_id)
    return verified.principal
