"""Who sent a request: AWS Signature Version 4, verified.

Owns the canonical form of a request, the signature, clock skew and expiry, and the error of each service for each
fault. Refuses older signatures and everything that would leave a part of the request unsigned. Pure: the time and the
credentials are passed in. Called by the front door (api/) once `dispatch` knows the service.

The credential scope's service and region, all part of the signature:
- A scope that names another service of this endpoint than the one that answers is refused. A name that is no service
  here is believed: a client that was given a bare address takes parts of it for service and region (boto 2 signs for
  service `127` in region `0`).
- A region that looks like one (`eu-west-1`) and is not the endpoint's is refused; one that does not look so is
  believed, as above. `us-east-1` is believed everywhere: it is what clients sign with that were told of no region or
  cannot be told of this one (STS and IAM as global services, Apache Libcloud with its list of AWS's own regions).
  Nothing is lost by it, for a key is known to one cloud alone.

A request may be sent again for as long as its signature is current, as on AWS: five minutes, or a presigned request's
own time. What must not happen twice has a client token. Unknown keys cost the same work as known ones, and digests and
signatures are compared in constant time.

Source: AWS General Reference, "Create a signed AWS API request"; the codes: EC2 API Reference, "Error codes", and the
"Common errors" of the other services' references.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar
from urllib.parse import quote, unquote_to_bytes

from minicloud.aws.models import Service
from minicloud.aws.request import Request
from minicloud.aws.text import clip
from minicloud.errors import ApiError

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_EXPIRES_SECONDS = 604_800  # a presigned request lives a week at most
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
GLOBAL_REGION = "us-east-1"

_TERMINATOR = "aws4_request"
_TIMESTAMP = re.compile(r"\d{8}T\d{6}Z\Z", re.ASCII)
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+\Z")
_PART = "([\x21-\x2e\x30-\x7e]{1,128})"  # printable and no slash
_SCOPE = re.compile(f"{_PART}/{_PART}/{_PART}/{_PART}/{_TERMINATOR}\\Z")
_REGION = re.compile(r"[a-z]+(-[a-z0-9]+)*-[0-9]+\Z")
_WHITE = " \t"  # of HTTP; text read as Latin-1 may have what Python also takes for white space
_NOBODYS_SECRET = "-" * 40  # what the signature of an unknown key is computed with
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

Principal = TypeVar("Principal")


@dataclass(frozen=True, slots=True)
class Credential(Generic[Principal]):
    """A key known to this cloud; `expires_at` is set for temporary ones."""

    access_key_id: str
    secret_access_key: str
    principal: Principal  # whatever the caller knows the owner by
    expires_at: datetime | None = None


# Finds a key by its id and the session token that came with it, None without one. Returns None for a key that is not
# known, a temporary key without its own token, or a lasting one with any.
FindKey = Callable[[str, str | None], Credential[Principal] | None]


class CredentialsRefusedError(ApiError):
    """The signature does not hold, or nobody has such a key: what a guess at credentials is answered with."""


@dataclass(frozen=True, slots=True)
class Verified(Generic[Principal]):
    """A request whose signature holds. Region and service are the scope's, as the client wrote them."""

    access_key_id: str
    principal: Principal
    region: str
    service: str
    presigned: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """AKID/YYYYMMDD/region/service/aws4_request, taken apart."""

    access_key_id: str
    date: str
    region: str
    service: str

    @property
    def path(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/{_TERMINATOR}"


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a request says about its signature, before any of it is believed."""

    scope: Scope
    signed_headers: tuple[str, ...]
    signature: str
    timestamp: str  # YYYYMMDDTHHMMSSZ
    signed_at: datetime
    expires_seconds: int | None  # None: signed in the header
    session_token: str | None


def verify(
    request: Request,
    *,
    service: Service,
    region: str,
    known_services: Container[str],
    find_key: FindKey[Principal],
    now: datetime,
    max_skew_seconds: int = 300,
    payload_sha256: str | None = None,
    allow_unsigned_payload: bool = False,
) -> Verified[Principal]:
    """Verify the request's signature, from its Authorization header or its query string.

    `service` is the one that answers: it decides which errors are raised. `region` is the endpoint's and
    `known_services` are the signing names of all its services. `find_key` may raise to end the matter before anything
    is computed. `payload_sha256` is the body's digest in hex when the caller computed it while reading; otherwise it is
    taken of `request.body`. `allow_unsigned_payload` lets a client sign UNSIGNED-PAYLOAD over a body that is not empty.

    Raises ApiError, each fault with the service's code; CredentialsRefusedError where the credentials are at fault.
    """
    errors = _errors_of(service)
    query = _split_query(request.query_string)
    claim = _read_claim(request, query, errors)
    _check_time(claim, now, max_skew_seconds, errors)
    _check_scope(claim.scope, service, region, known_services, errors)
    credential = find_key(claim.scope.access_key_id, claim.session_token)
    payload = _payload_hash(
        request,
        hashlib.sha256(request.body).hexdigest() if payload_sha256 is None else payload_sha256,
        allow_unsigned_payload,
        errors,
    )
    canonical = _canonical_request(request, query, claim, payload, errors)
    expected = _signature(credential.secret_access_key if credential else _NOBODYS_SECRET, claim, canonical)
    is_signed = hmac.compare_digest(expected, claim.signature)
    if credential is None:
        raise errors.unknown_key()
    if not is_signed:
        raise errors.bad_signature()
    if credential.expires_at is not None and credential.expires_at <= now:
        raise errors.token_expired()
    return Verified(
        access_key_id=credential.access_key_id,
        principal=credential.principal,
        region=claim.scope.region,
        service=claim.scope.service,
        presigned=claim.expires_seconds is not None,
    )


def too_many_failures(service: Service) -> ApiError:
    """How the service answers a client whose signatures failed too often."""
    return _errors_of(service).throttled()


def scope_hint(request: Request) -> Scope | None:
    """The credential scope a request claims, unverified, or None: only ever used to break ties in dispatch."""
    for header in request.headers.all("authorization"):
        match = re.search(r"Credential=([^\s,]+)", header)
        if match:
            return _parse_scope(match[1])
    for name, value in _split_query(request.query_string):
        if name == b"X-Amz-Credential":
            return _parse_scope(value.decode("latin-1"))
    return None


class _CommonErrors:
    """How STS, IAM, CloudWatch and Auto Scaling answer."""

    mismatch_code, mismatch_status = "SignatureDoesNotMatch", 403

    def missing(self) -> ApiError:
        return ApiError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)

    def incomplete(self, why: str) -> ApiError:
        return ApiError("IncompleteSignature", why, 400)

    def unknown_key(self) -> ApiError:
        return CredentialsRefusedError(
            "InvalidClientTokenId", "The security token included in the request is invalid.", 403
        )

    def bad_signature(self) -> ApiError:
        return self.not_matching(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        )

    def not_matching(self, why: str) -> ApiError:
        return CredentialsRefusedError(self.mismatch_code, why, self.mismatch_status)

    def wrong_scope(self, why: str) -> ApiError:
        return ApiError(self.mismatch_code, why, self.mismatch_status)

    def token_expired(self) -> ApiError:
        return ApiError("ExpiredToken", "The security token included in the request is expired", 403)

    def throttled(self) -> ApiError:
        return ApiError("Throttling", "Rate exceeded", 400)

    def expired(self, claim: _Claim, now: datetime, limit: datetime) -> ApiError:
        signed, bound, today = _basic(claim.signed_at), _basic(limit), _basic(now)
        minutes = abs(limit - now) // timedelta(minutes=1)
        if claim.signed_at > now:
            why = f"Signature not yet current: {signed} is still later than {bound} ({today} + {minutes} min.)"
        else:
            why = f"Signature expired: {signed} is now earlier than {bound} ({today} - {minutes} min.)"
        return ApiError(self.mismatch_code, why, self.mismatch_status)


class _JsonErrors(_CommonErrors):
    """How the services answer that speak AWS JSON only, such as Systems Manager."""

    mismatch_code, mismatch_status = "InvalidSignatureException", 400

    def missing(self) -> ApiError:
        return ApiError("MissingAuthenticationTokenException", "Missing Authentication Token", 400)

    def incomplete(self, why: str) -> ApiError:
        return ApiError("IncompleteSignatureException", why, 400)

    def unknown_key(self) -> ApiError:
        return CredentialsRefusedError(
            "UnrecognizedClientException", "The security token included in the request is invalid.", 400
        )

    def token_expired(self) -> ApiError:
        return ApiError("ExpiredTokenException", "The security token included in the request is expired", 400)

    def throttled(self) -> ApiError:
        return ApiError("ThrottlingException", "Rate exceeded", 400)


class _Ec2Errors(_CommonErrors):
    """How EC2 answers: it does not say which part of the credentials it could not validate."""

    def missing(self) -> ApiError:
        return ApiError("MissingParameter", "The request must contain the parameter AWSAccessKeyId", 400)

    def unknown_key(self) -> ApiError:
        return self.bad_signature()

    def bad_signature(self) -> ApiError:
        return CredentialsRefusedError(
            "AuthFailure", "AWS was not able to validate the provided access credentials", 401
        )

    def not_matching(self, why: str) -> ApiError:
        return self.bad_signature()

    def wrong_scope(self, why: str) -> ApiError:
        # The scope is no secret, and who has mistaken it would otherwise look for the mistake in the key.
        return ApiError("AuthFailure", f"AWS was not able to validate the provided access credentials. {why}", 401)

    def token_expired(self) -> ApiError:
        return ApiError("RequestExpired", "Request has expired.", 400)

    def throttled(self) -> ApiError:
        return ApiError("RequestLimitExceeded", "Request limit exceeded.", 503)

    def expired(self, claim: _Claim, now: datetime, limit: datetime) -> ApiError:
        stamp = claim.signed_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        return ApiError("RequestExpired", f"Request has expired. Timestamp date is {stamp}", 400)


def _errors_of(service: Service) -> _CommonErrors:
    if service.speaks_ec2:
        return _Ec2Errors()
    return _CommonErrors() if "query" in service.protocols else _JsonErrors()


def _read_claim(request: Request, query: list[tuple[bytes, bytes]], errors: _CommonErrors) -> _Claim:
    names = {name for name, _ in query}
    in_header = request.headers.all("authorization")
    in_query = bool(names & {b"X-Amz-Algorithm", b"X-Amz-Signature", b"X-Amz-Credential"})
    if in_header and in_query:
        raise errors.incomplete("The request is signed both in its Authorization header and in its query string.")
    if in_query:
        return _read_presigned(query, errors)
    if in_header:
        if len(in_header) > 1:
            raise errors.incomplete("The request has more than one Authorization header.")
        return _read_authorization(request, in_header[0].strip(_WHITE), errors)
    if names & {b"SignatureVersion", b"Signature"} or b"SignatureVersion=" in request.body:
        raise errors.incomplete(
            "Signature versions before 4 are not supported. Sign the request with AWS Signature Version 4 "
            f"({ALGORITHM})."
        )
    raise errors.missing()


def _read_authorization(request: Request, header: str, errors: _CommonErrors) -> _Claim:
    algorithm, _, rest = header.partition(" ")
    if algorithm != ALGORITHM:
        raise errors.incomplete(f"Unsupported AWS 'algorithm': '{clip(algorithm)}'. Use {ALGORITHM}.")
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, separator, value = part.strip(_WHITE).partition("=")
        if not separator or name in parts:
            raise errors.incomplete(
                "The Authorization header is malformed: it needs Credential, SignedHeaders and Signature, once each."
            )
        parts[name] = value.strip(_WHITE)
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not parts.get(name):
            raise errors.incomplete(f"Authorization header requires '{name}' parameter.")
    if parts.keys() - {"Credential", "SignedHeaders", "Signature"}:
        raise errors.incomplete("The Authorization header has parts that are not known.")
    timestamp = _header_timestamp(request, errors)
    return _make_claim(
        credential=parts["Credential"],
        signed_headers=parts["SignedHeaders"],
        signature=parts["Signature"],
        timestamp=timestamp,
        expires_seconds=None,
        session_token=_one_header(request, "x-amz-security-token", errors),
        errors=errors,
    )


def _read_presigned(query: list[tuple[bytes, bytes]], errors: _CommonErrors) -> _Claim:
    parts: dict[str, str] = {}
    for raw_name, raw_value in query:
        if raw_name.lower().startswith(b"x-amz-"):
            name = raw_name.decode("latin-1")
            if name in parts:
                raise errors.incomplete(f"The query string has {clip(name)} more than once.")
            parts[name] = raw_value.decode("latin-1")
    for name in (
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
    ):
        if not parts.get(name):
            raise errors.incomplete(f"AWS query-string parameters must include '{name}'.")
    if parts["X-Amz-Algorithm"] != ALGORITHM:
        raise errors.incomplete(f"Unsupported AWS 'algorithm': '{clip(parts['X-Amz-Algorithm'])}'. Use {ALGORITHM}.")
    expires = parts["X-Amz-Expires"]
    if not re.fullmatch(r"[0-9]{1,6}", expires) or not 1 <= int(expires) <= MAX_EXPIRES_SECONDS:
        raise errors.incomplete(f"X-Amz-Expires must be a number of seconds between 1 and {MAX_EXPIRES_SECONDS}.")
    return _make_claim(
        credential=parts["X-Amz-Credential"],
        signed_headers=parts["X-Amz-SignedHeaders"],
        signature=parts["X-Amz-Signature"],
        timestamp=parts["X-Amz-Date"],
        expires_seconds=int(expires),
        session_token=parts.get("X-Amz-Security-Token"),
        errors=errors,
    )


def _make_claim(
    *,
    credential: str,
    signed_headers: str,
    signature: str,
    timestamp: str,
    expires_seconds: int | None,
    session_token: str | None,
    errors: _CommonErrors,
) -> _Claim:
    scope = _parse_scope(credential)
    if scope is None:
        raise errors.incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/aws4_request, "
            f"got '{clip(credential)}'"
        )
    names = tuple(signed_headers.split(";"))
    if list(names) != sorted(set(names)) or not all(_HEADER_NAME.match(name) for name in names):
        raise errors.incomplete("SignedHeaders must be header names in lower case, in order, separated by semicolons.")
    if not _HEX_SHA256.match(signature):
        raise errors.not_matching("The signature is not 64 hexadecimal digits.")
    try:
        if not _TIMESTAMP.match(timestamp):
            raise ValueError
        signed_at = datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise errors.incomplete(
            f"Date must be in ISO-8601 'basic format'. Got '{clip(timestamp)}'. See http://en.wikipedia.org/wiki/ISO_8601"
        ) from None
    if scope.date != timestamp[:8]:
        raise errors.not_matching(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{clip(scope.date)}' != '{timestamp[:8]}', from '{timestamp}'."
        )
    return _Claim(scope, names, signature, timestamp, signed_at, expires_seconds, session_token)


def _parse_scope(credential: str) -> Scope | None:
    match = _SCOPE.match(credential)
    return Scope(*match.groups()) if match else None


def _one_header(request: Request, name: str, errors: _CommonErrors) -> str | None:
    values = request.headers.all(name)
    if len(values) > 1:
        raise errors.incomplete(f"The request has more than one {name} header.")
    return values[0].strip(_WHITE) if values else None


def _header_timestamp(request: Request, errors: _CommonErrors) -> str:
    stamp = _one_header(request, "x-amz-date", errors)
    if stamp is not None:
        return stamp
    date = _one_header(request, "date", errors)
    if date is None:
        raise errors.incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if _TIMESTAMP.match(date):
        return date
    try:
        parsed = parsedate_to_datetime(date)
        # "-0000" gives a time without a zone, which must not be read in this machine's zone.
        return _basic(parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC))
    except (ValueError, TypeError, IndexError, OverflowError):
        raise errors.incomplete("The Date header is not a date.") from None


def _check_time(claim: _Claim, now: datetime, max_skew_seconds: int, errors: _CommonErrors) -> None:
    skew = timedelta(seconds=max_skew_seconds)
    if claim.signed_at > now + skew:
        raise errors.expired(claim, now, now + skew)
    if claim.expires_seconds is None:
        if claim.signed_at < now - skew:
            raise errors.expired(claim, now, now - skew)
    elif now - claim.signed_at > timedelta(seconds=claim.expires_seconds):
        raise errors.expired(claim, now, now - timedelta(seconds=claim.expires_seconds))


def _check_scope(
    scope: Scope, service: Service, region: str, known_services: Container[str], errors: _CommonErrors
) -> None:
    """Refuse a scope that is plainly meant for somewhere else; see the module's docstring."""
    if scope.service != service.signing_name and scope.service in known_services:
        raise errors.wrong_scope(f"Credential should be scoped to correct service: '{service.signing_name}'.")
    if scope.region not in (region, GLOBAL_REGION) and _REGION.match(scope.region):
        raise errors.wrong_scope(
            f"Credential should be scoped to a valid region, not '{clip(scope.region)}': this endpoint's is '{region}'."
        )


def _payload_hash(request: Request, actual: str, allow_unsigned: bool, errors: _CommonErrors) -> str:
    """What stands for the body in the canonical request; it must be the body's own digest, or say that it is unsigned
    where nothing is lost by that."""
    stated = _one_header(request, "x-amz-content-sha256", errors)
    if stated is None:
        return actual
    if stated == UNSIGNED_PAYLOAD:
        if allow_unsigned or actual == _EMPTY_SHA256:
            return stated
        raise errors.not_matching("The request's body must be signed: x-amz-content-sha256 says UNSIGNED-PAYLOAD.")
    if not hmac.compare_digest(stated.encode("latin-1"), actual.encode()):
        raise errors.not_matching("The value of x-amz-content-sha256 is not the SHA-256 digest of the request's body.")
    return actual


def _canonical_request(
    request: Request, query: list[tuple[bytes, bytes]], claim: _Claim, payload: str, errors: _CommonErrors
) -> bytes:
    if "host" not in claim.signed_headers:
        raise errors.not_matching("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    values: dict[str, list[str]] = {}
    for name, value in request.headers:
        values.setdefault(name, []).append(value)
    # Which operation is meant must not be left to whoever carries the request.
    if "x-amz-target" in values and "x-amz-target" not in claim.signed_headers:
        raise errors.not_matching("'x-amz-target' must be a 'SignedHeader' in the AWS Authorization.")
    lines = []
    for name in claim.signed_headers:
        if name not in values:
            raise errors.not_matching(f"The header '{clip(name)}' is signed but was not sent.")
        lines.append(f"{name}:{','.join(_trim(value) for value in values[name])}\n")
    return b"\n".join(
        (
            request.method.encode("latin-1"),
            _canonical_path(request.path).encode(),
            _canonical_query(query).encode(),
            "".join(lines).encode("latin-1"),
            ";".join(claim.signed_headers).encode(),
            payload.encode(),
        )
    )


def _trim(value: str) -> str:
    # ASCII white space only: a byte such as 0xA0 read as Latin-1 is text, not white space.
    return re.sub(r"[ \t\r\n\f\v]+", " ", value).strip(" ")


def _canonical_path(path: str) -> str:
    """The path without dot segments and doubled slashes, its already encoded octets encoded once more."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    normal = "/" + "/".join(kept)
    if kept and path.endswith("/"):
        normal += "/"
    return quote(normal.encode("latin-1"), safe="/-_.~")


def _canonical_query(query: Iterable[tuple[bytes, bytes]]) -> str:
    encoded = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query if name != b"X-Amz-Signature"
    )
    return "&".join(f"{name}={value}" for name, value in encoded)


def _split_query(query_string: str) -> list[tuple[bytes, bytes]]:
    pairs = []
    for field in query_string.encode("latin-1").split(b"&"):
        if field:
            name, _, value = field.replace(b"+", b" ").partition(b"=")
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return pairs


def _signature(secret_access_key: str, claim: _Claim, canonical: bytes) -> str:
    to_sign = "\n".join((ALGORITHM, claim.timestamp, claim.scope.path, hashlib.sha256(canonical).hexdigest()))
    key = f"AWS4{secret_access_key}".encode()
    for part in (claim.scope.date, claim.scope.region, claim.scope.service, _TERMINATOR, to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _basic(when: datetime) -> str:
    return when.strftime("%Y%m%dT%H%M%SZ")
