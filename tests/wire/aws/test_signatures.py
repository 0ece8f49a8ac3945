"""SigV4 against botocore's own signers: what they sign is believed, and no part of it can be changed afterwards."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from minicloud.aws.models import Catalog, Service, load_catalog
from minicloud.aws.request import Headers, Request
from minicloud.aws.sigv4 import Credential, Verified, verify
from minicloud.errors import ApiError

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
FORM = "application/x-www-form-urlencoded; charset=utf-8"
BODY = b"Action=DescribeInstances&Version=2016-11-15"


@cache
def catalog() -> Catalog:
    return load_catalog({"ec2": ["DescribeInstances"], "sts": ["GetCallerIdentity"]})


@dataclass(frozen=True)
class Owner:
    account: str


def lookup(access_key_id: str) -> Credential[Owner] | None:
    if access_key_id == KEY:
        return Credential(KEY, SECRET, Owner("123456789012"))
    if access_key_id == "ASIATEMPORARY":
        return Credential("ASIATEMPORARY", SECRET, Owner("123456789012"), session_token="token/+=1")
    return None


def at_time(monkeypatch: pytest.MonkeyPatch, when: datetime) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: when.replace(tzinfo=None))


@pytest.fixture(autouse=True)
def signing_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at_time(monkeypatch, NOW)


def received(request: AWSRequest) -> Request:
    """What a server sees of a request that botocore prepared."""
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    headers = [(name, value) for name, value in prepared.headers.items()]
    if not any(name.lower() == "host" for name, _ in headers):
        headers.append(("Host", parts.netloc))
    body = prepared.body or b""
    return Request.build(
        prepared.method,
        parts.path.encode("latin-1"),
        parts.query.encode("latin-1"),
        [(n.encode(), v if isinstance(v, bytes) else str(v).encode()) for n, v in headers],
        body if isinstance(body, bytes) else body.encode(),
    )


def header_signed(
    *,
    method: str = "POST",
    url: str = "http://127.0.0.1:8443/",
    body: bytes | dict[str, str] = BODY,
    headers: dict[str, str] | None = None,
    key: str = KEY,
    secret: str = SECRET,
    token: str | None = None,
    region: str = "lab-1",
    service: str = "ec2",
    params: dict[str, str] | None = None,
) -> Request:
    request = AWSRequest(
        method=method, url=url, data=body, headers={"Content-Type": FORM, **(headers or {})}, params=params or {}
    )
    SigV4Auth(Credentials(key, secret, token), service, region).add_auth(request)
    return received(request)


def presigned(
    *,
    url: str = "http://127.0.0.1:8443/?Action=DescribeInstances&Version=2016-11-15",
    expires: int = 600,
    key: str = KEY,
    secret: str = SECRET,
    token: str | None = None,
) -> Request:
    request = AWSRequest(method="GET", url=url, headers={})
    SigV4QueryAuth(Credentials(key, secret, token), "ec2", "lab-1", expires=expires).add_auth(request)
    return received(request)


def check(request: Request, service: str = "ec2", now: datetime = NOW, **options: object) -> Verified[Owner]:
    answering: Service = catalog().services[service]
    return verify(request, service=answering, lookup_key=lookup, now=now, **options)  # type: ignore[arg-type]


def refused(request: Request, service: str = "ec2", now: datetime = NOW, **options: object) -> tuple[str, int]:
    with pytest.raises(ApiError) as caught:
        check(request, service, now, **options)
    return caught.value.code, caught.value.status


AUTH_FAILURE = ("AuthFailure", 401)
NOT_MATCHING = ("SignatureDoesNotMatch", 403)


def test_a_header_signature_names_its_owner() -> None:
    verified = check(header_signed())
    assert verified == Verified(KEY, Owner("123456789012"), "lab-1", "ec2", None, presigned=False)


def test_a_presigned_request_names_its_owner() -> None:
    assert check(presigned()) == Verified(KEY, Owner("123456789012"), "lab-1", "ec2", None, presigned=True)


def test_the_scope_may_name_any_region_and_service() -> None:
    verified = check(header_signed(region="0", service="127"))
    assert (verified.region, verified.service) == ("0", "127")


@pytest.mark.parametrize("sign", [header_signed, presigned])
def test_a_temporary_key_must_carry_its_token(sign: Callable[..., Request]) -> None:
    assert check(sign(key="ASIATEMPORARY", token="token/+=1")).session_token == "token/+=1"
    assert refused(sign(key="ASIATEMPORARY", token="another")) == AUTH_FAILURE
    assert refused(sign(key="ASIATEMPORARY")) == AUTH_FAILURE
    assert refused(sign(token="token of nobody")) == AUTH_FAILURE
    assert refused(sign(token="token of nobody"), "sts") == ("InvalidClientTokenId", 403)


@pytest.mark.parametrize("sign", [header_signed, presigned])
def test_unknown_key_and_wrong_secret(sign: Callable[..., Request]) -> None:
    assert refused(sign(key="AKIANOBODY")) == AUTH_FAILURE
    assert refused(sign(key="AKIANOBODY"), "sts") == ("InvalidClientTokenId", 403)
    assert refused(sign(secret="wrong")) == AUTH_FAILURE
    assert refused(sign(secret="wrong"), "sts") == NOT_MATCHING


def test_no_signature_at_all() -> None:
    request = Request.build("POST", b"/", b"", [(b"host", b"h")], BODY)
    assert refused(request) == ("MissingParameter", 400)
    assert refused(request, "sts") == ("MissingAuthenticationToken", 403)


def test_the_old_signature_version_is_refused_by_name() -> None:
    body = BODY + b"&SignatureVersion=2&SignatureMethod=HmacSHA256&AWSAccessKeyId=AK&Signature=abc"
    for request in (
        Request.build("POST", b"/", b"", [(b"host", b"h")], body),
        Request.build("GET", b"/", body, [(b"host", b"h")], b""),
    ):
        with pytest.raises(ApiError, match="Signature versions before 4 are not supported") as caught:
            check(request)
        assert (caught.value.code, caught.value.status) == ("IncompleteSignature", 400)


@settings(max_examples=60, deadline=None)
@given(
    path=st.lists(st.sampled_from(["a", "b c", "é", ".", "..", "", "%", "~", "a=b", "+", "-_."]), max_size=5),
    query=st.dictionaries(
        st.text("aZ é/=&+%~.-_'()*", min_size=1, max_size=5), st.text("aZ é/=&+%~", max_size=5), max_size=4
    ),
    header=st.text('abc,;= \téà"', max_size=12),
)
def test_whatever_botocore_canonicalises_is_believed(path: list[str], query: dict[str, str], header: str) -> None:
    url = "http://127.0.0.1:8443/" + quote("/".join(path)).lstrip("/")
    with pytest.MonkeyPatch.context() as patch:
        at_time(patch, NOW)
        request = header_signed(url=url, params=query, headers={"x-amz-meta-note": "x" + header})
    check(request)


def test_repeated_headers_are_signed_in_their_order() -> None:
    request = AWSRequest(method="POST", url="http://h/", data=BODY, headers={"Content-Type": FORM})
    for value in ("b  2", "a"):
        request.headers.add_header("X-Amz-Thing", value)
    SigV4Auth(Credentials(KEY, SECRET), "ec2", "r").add_auth(request)
    # botocore's prepared request drops repetitions; what it signed are the ones it was given.
    fields = [(name.encode(), value.encode()) for name, value in request.headers.items()]
    sent = Request.build("POST", b"/", b"", [*fields, (b"Host", b"h")], BODY)
    check(sent)
    swapped = [(n, v) for n, v in sent.headers if n != "x-amz-thing"] + [("x-amz-thing", "a"), ("x-amz-thing", "b 2")]
    assert refused(replace(sent, headers=Headers(swapped))) == AUTH_FAILURE


def with_header(request: Request, name: str, value: str | None) -> Request:
    kept = [(n, v) for n, v in request.headers if n != name.lower()]
    return replace(request, headers=Headers(kept + ([(name, value)] if value is not None else [])))


def authorization(request: Request, old: str, new: str) -> Request:
    header = request.headers.one("authorization")
    assert header is not None and old in header
    return with_header(request, "authorization", header.replace(old, new))


TAMPERED: list[tuple[str, Callable[[Request], Request]]] = [
    ("method", lambda r: replace(r, method="PUT")),
    ("path", lambda r: replace(r, path="/other")),
    ("query", lambda r: replace(r, query_string="DryRun=true")),
    ("body", lambda r: replace(r, body=r.body + b"&DryRun=true")),
    ("host", lambda r: with_header(r, "host", "elsewhere")),
    ("date", lambda r: with_header(r, "x-amz-date", "20260304T050608Z")),
    ("signed header gone", lambda r: with_header(r, "content-type", None)),
    ("signature", lambda r: authorization(r, "Signature=", "Signature=0")),
    ("signature digit", lambda r: with_header(r, "authorization", (r.headers.one("authorization") or "")[:-1] + "g")),
    ("region", lambda r: authorization(r, "/lab-1/", "/lab-2/")),
    ("service", lambda r: authorization(r, "/ec2/", "/sts/")),
    ("scope date", lambda r: authorization(r, "/20260304/", "/20260303/")),
    ("signed headers", lambda r: authorization(r, "content-type;host", "host")),
    ("host unsigned", lambda r: authorization(r, "content-type;host;x-amz-date", "content-type;x-amz-date")),
    ("key", lambda r: authorization(r, KEY, "AKIANOBODY")),
    ("target added", lambda r: with_header(r, "x-amz-target", "Service.Operation")),
    ("digest", lambda r: with_header(r, "x-amz-content-sha256", "0" * 64)),
    ("token added", lambda r: with_header(r, "x-amz-security-token", "stolen")),
    ("unsigned payload", lambda r: with_header(r, "x-amz-content-sha256", "UNSIGNED-PAYLOAD")),
    ("streaming payload", lambda r: with_header(r, "x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")),
]


@pytest.mark.parametrize(("what", "tamper"), TAMPERED, ids=[what for what, _ in TAMPERED])
def test_every_part_of_a_request_is_protected(what: str, tamper: Callable[[Request], Request]) -> None:
    request = tamper(header_signed())
    assert refused(request) == AUTH_FAILURE
    code, status = refused(request, "sts")
    assert (code, status) in (NOT_MATCHING, ("InvalidClientTokenId", 403))


class WithoutHost(SigV4Auth):  # type: ignore[misc]
    def headers_to_sign(self, request: AWSRequest) -> object:
        headers = super().headers_to_sign(request)
        del headers["host"]
        return headers


def test_a_signature_that_holds_but_leaves_the_host_out_is_refused() -> None:
    request = AWSRequest(method="POST", url="http://h/", data=BODY, headers={"Content-Type": FORM})
    WithoutHost(Credentials(KEY, SECRET), "ec2", "lab-1").add_auth(request)
    assert refused(received(request)) == AUTH_FAILURE
    with pytest.raises(ApiError, match="'Host' must be a 'SignedHeader'"):
        check(received(request), "sts")


MALFORMED: list[tuple[str, Callable[[Request], Request]]] = [
    ("algorithm", lambda r: authorization(r, "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")),
    ("no credential", lambda r: authorization(r, "Credential=", "Credentials=")),
    ("no signature", lambda r: authorization(r, "Signature=", "Sign=")),
    ("empty signed headers", lambda r: authorization(r, "content-type;host;x-amz-date", "")),
    ("terminator", lambda r: authorization(r, "aws4_request", "aws5_request")),
    ("short scope", lambda r: authorization(r, "/ec2/", "/")),
    ("unordered", lambda r: authorization(r, "content-type;host;x-amz-date", "x-amz-date;host")),
    ("repeated", lambda r: authorization(r, "content-type;host", "host;host")),
    ("upper case", lambda r: authorization(r, "content-type;host", "Content-Type;host")),
    ("twice", lambda r: authorization(r, "Signature=", "Signature=1, Signature=")),
    ("extra part", lambda r: authorization(r, "Signature=", "Colour=red, Signature=")),
    ("basic", lambda r: with_header(r, "authorization", "Basic dXNlcjpwYXNz")),
    ("empty", lambda r: with_header(r, "authorization", "")),
    ("two headers", lambda r: replace(r, headers=Headers([*r.headers, ("authorization", "x")]))),
    ("two dates", lambda r: replace(r, headers=Headers([*r.headers, ("x-amz-date", "x")]))),
    ("no date", lambda r: with_header(r, "x-amz-date", None)),
    ("bad date", lambda r: with_header(r, "x-amz-date", "yesterday")),
    ("impossible date", lambda r: with_header(r, "x-amz-date", "20261399T999999Z")),
    ("also in query", lambda r: replace(r, query_string="X-Amz-Algorithm=AWS4-HMAC-SHA256")),
]


@pytest.mark.parametrize(("what", "spoil"), MALFORMED, ids=[what for what, _ in MALFORMED])
@pytest.mark.parametrize("service", ["ec2", "sts"])
def test_malformed_signatures_are_incomplete(what: str, spoil: Callable[[Request], Request], service: str) -> None:
    assert refused(spoil(header_signed()), service) == ("IncompleteSignature", 400)


def respelled(request: Request, old: str, new: str) -> Request:
    assert old in request.query_string
    return replace(request, query_string=request.query_string.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        ("Action=DescribeInstances", "Action=TerminateInstances", AUTH_FAILURE),
        ("X-Amz-Expires=600", "X-Amz-Expires=900", AUTH_FAILURE),
        ("lab-1", "lab-2", AUTH_FAILURE),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=date", AUTH_FAILURE),
        ("X-Amz-Signature=", "X-Amz-Signature=0", AUTH_FAILURE),
        ("X-Amz-Expires=600", "X-Amz-Expires=0", ("IncompleteSignature", 400)),
        ("X-Amz-Expires=600", "X-Amz-Expires=604801", ("IncompleteSignature", 400)),
        ("X-Amz-Expires=600", "X-Amz-Expires=soon", ("IncompleteSignature", 400)),
        ("X-Amz-Expires=600&", "", ("IncompleteSignature", 400)),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS4-HMAC-SHA1", ("IncompleteSignature", 400)),
        ("X-Amz-Expires=600", "X-Amz-Expires=600&X-Amz-Expires=600", ("IncompleteSignature", 400)),
    ],
)
def test_every_part_of_a_presigned_request_is_protected(old: str, new: str, answer: tuple[str, int]) -> None:
    assert refused(respelled(presigned(), old, new)) == answer


@pytest.mark.parametrize("seconds", [-300, 300])
def test_clocks_may_differ_by_five_minutes(seconds: int) -> None:
    request = header_signed()
    check(request, now=NOW + timedelta(seconds=seconds))
    beyond = NOW + timedelta(seconds=seconds + (1 if seconds > 0 else -1))
    assert refused(request, now=beyond) == ("RequestExpired", 400)
    assert refused(request, "sts", now=beyond) == NOT_MATCHING
    check(request, now=beyond, max_skew_seconds=301)


def test_ec2_says_when_an_expired_request_was_signed() -> None:
    with pytest.raises(ApiError, match=r"Request has expired\. Timestamp date is 2026-03-04T05:06:07Z"):
        check(header_signed(), now=NOW + timedelta(hours=1))


def test_a_presigned_request_lives_as_long_as_it_says() -> None:
    request = presigned(expires=600)
    check(request, now=NOW + timedelta(seconds=600))
    assert refused(request, now=NOW + timedelta(seconds=601)) == ("RequestExpired", 400)
    assert refused(request, now=NOW - timedelta(seconds=301)) == ("RequestExpired", 400)
    check(presigned(expires=604800), now=NOW + timedelta(days=7))


def test_the_date_header_stands_in_for_the_amz_one() -> None:
    request = header_signed(headers={"Date": "now"})
    assert request.headers.one("x-amz-date") is None
    check(request)
    assert refused(with_header(request, "date", "Wed, 04 Mar 2026 05:06:08 GMT")) == AUTH_FAILURE
    assert refused(with_header(request, "date", "some day")) == ("IncompleteSignature", 400)


def test_a_date_without_a_zone_is_not_in_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    request = header_signed(headers={"Date": "now"})
    assert (request.headers.one("date") or "").endswith("-0000")
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    try:
        check(request)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_sts_says_what_does_not_match() -> None:
    for tampered, message in [
        (authorization(header_signed(), "/20260304/", "/20260303/"), "Date in Credential scope does not match"),
        (with_header(header_signed(), "content-type", None), "signed but was not sent"),
        (header_signed(headers={"X-Amz-Content-SHA256": "ab" * 32}), "is not the SHA-256 digest"),
    ]:
        with pytest.raises(ApiError, match=message):
            check(tampered, "sts")


def test_a_request_is_signed_in_one_place_only() -> None:
    both = replace(header_signed(), query_string=presigned().query_string)
    with pytest.raises(ApiError, match="both in its Authorization header and in its query string"):
        check(both)


def test_the_body_may_have_been_digested_while_it_was_read() -> None:
    request = header_signed()
    bodyless = replace(request, body=b"")
    check(bodyless, payload_sha256=hashlib.sha256(BODY).hexdigest())
    assert refused(bodyless) == AUTH_FAILURE


def test_an_unsigned_body_only_where_the_caller_allows_it() -> None:
    request = header_signed(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert refused(request) == AUTH_FAILURE
    check(request, allow_unsigned_payload=True)
    check(header_signed(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}, method="GET", body=b""))


def test_a_stated_digest_is_compared_with_the_body() -> None:
    check(header_signed(headers={"X-Amz-Content-SHA256": hashlib.sha256(BODY).hexdigest()}))
    assert refused(header_signed(headers={"X-Amz-Content-SHA256": "ab" * 32})) == AUTH_FAILURE


@settings(max_examples=200, deadline=None)
@given(
    header=st.none()
    | st.binary(max_size=80)
    | st.binary(max_size=60).map(lambda b: b"AWS4-HMAC-SHA256 Credential=" + b),
    query=st.binary(max_size=80)
    | st.binary(max_size=40).map(lambda b: b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=" + b),
    date=st.binary(max_size=20),
    method=st.text(max_size=5),
)
@pytest.mark.parametrize("service", ["ec2", "sts"])
def test_no_garbage_does_worse_than_be_refused(
    service: str, header: bytes | None, query: bytes, date: bytes, method: str
) -> None:
    headers = [(b"Host", b"h"), (b"Date", date)] + ([(b"Authorization", header)] if header is not None else [])
    request = Request.build("GET", b"/" + date, query, headers, b"")
    with pytest.raises(ApiError):
        check(request, service)
