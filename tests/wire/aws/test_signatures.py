"""SigV4 against botocore's own signers: what they sign is believed, and no part of it can be changed afterwards."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from urllib.parse import quote, unquote_plus, urlsplit

import botocore.auth
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from minicloud.aws import sigv4
from minicloud.aws.models import Catalog, Service, load_catalog
from minicloud.aws.request import Headers, Request
from minicloud.aws.sigv4 import Credential, Verified, verify
from minicloud.errors import ApiError

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
FORM = "application/x-www-form-urlencoded; charset=utf-8"
SIGNING_NAMES = ("ec2", "sts", "ssm")
BODY = b"Action=DescribeInstances&Version=2016-11-15"


@cache
def catalog() -> Catalog:
    return load_catalog({"ec2": ["DescribeInstances"], "sts": ["GetCallerIdentity"], "ssm": ["GetParameter"]})


@dataclass(frozen=True)
class Owner:
    account: str


def find_key(access_key_id: str, session_token: str | None) -> Credential[Owner] | None:
    if access_key_id == KEY and session_token is None:
        return Credential(KEY, SECRET, Owner("123456789012"))
    if access_key_id == "ASIATEMPORARY" and session_token == "token/+=1":
        return Credential("ASIATEMPORARY", SECRET, Owner("123456789012"), expires_at=NOW + timedelta(seconds=60))
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
    region: str = "lab-1",
    service: str = "ec2",
) -> Request:
    request = AWSRequest(method="GET", url=url, headers={})
    SigV4QueryAuth(Credentials(key, secret, token), service, region, expires=expires).add_auth(request)
    return received(request)


def check(request: Request, service: str = "ec2", now: datetime = NOW, **options: object) -> Verified[Owner]:
    answering: Service = catalog().services[service]
    asked = {"region": "lab-1", "known_services": SIGNING_NAMES, "find_key": find_key, "now": now, **options}
    return verify(request, service=answering, **asked)  # type: ignore[arg-type]


def refused(request: Request, service: str = "ec2", now: datetime = NOW, **options: object) -> tuple[str, int]:
    with pytest.raises(ApiError) as caught:
        check(request, service, now, **options)
    return caught.value.code, caught.value.status


AUTH_FAILURE = ("AuthFailure", 401)
NOT_MATCHING = ("SignatureDoesNotMatch", 403)


def test_a_header_signature_names_its_owner() -> None:
    verified = check(header_signed())
    assert verified == Verified(KEY, Owner("123456789012"), "lab-1", "ec2", presigned=False)


def test_a_presigned_request_names_its_owner() -> None:
    assert check(presigned()) == Verified(KEY, Owner("123456789012"), "lab-1", "ec2", presigned=True)


@pytest.mark.parametrize("sign", [header_signed, presigned])
@pytest.mark.parametrize(
    ("region", "service"),
    [
        ("0", "127"),  # boto 2, given 127.0.0.1
        ("minicloud", "api"),  # boto 2, given api.minicloud.example.org
        ("us-east-1", "ec2"),  # Apache Libcloud, and whoever was told of no region
        ("aws-global", "ec2"),
    ],
)
def test_scopes_of_clients_that_cannot_know_better_are_believed(
    sign: Callable[..., Request], region: str, service: str
) -> None:
    verified = check(sign(region=region, service=service))
    assert (verified.region, verified.service) == (region, service)


@pytest.mark.parametrize("sign", [header_signed, presigned])
def test_a_scope_for_another_region_is_refused(sign: Callable[..., Request]) -> None:
    for region in ("lab-2", "eu-west-1", "us-gov-east-1"):
        assert refused(sign(region=region)) == AUTH_FAILURE
        assert refused(sign(region=region, service="sts"), "sts") == NOT_MATCHING
        assert refused(sign(region=region, service="ssm"), "ssm") == ("InvalidSignatureException", 400)
    with pytest.raises(ApiError, match="scoped to a valid region, not 'lab-2': this endpoint's is 'lab-1'"):
        check(sign(region="lab-2"))


@pytest.mark.parametrize("sign", [header_signed, presigned])
def test_a_scope_for_another_service_of_this_endpoint_is_refused(sign: Callable[..., Request]) -> None:
    assert refused(sign(service="sts")) == AUTH_FAILURE
    assert refused(sign(service="ec2"), "sts") == NOT_MATCHING
    assert refused(sign(service="ec2"), "ssm") == ("InvalidSignatureException", 400)
    for service, wrong in (("ec2", "sts"), ("sts", "ec2"), ("ssm", "ec2")):
        with pytest.raises(ApiError, match=f"Credential should be scoped to correct service: '{service}'"):
            check(sign(service=wrong), service)


@pytest.mark.parametrize("sign", [header_signed, presigned])
def test_a_temporary_key_must_carry_its_token(sign: Callable[..., Request]) -> None:
    assert check(sign(key="ASIATEMPORARY", token="token/+=1")).principal == Owner("123456789012")
    assert refused(sign(key="ASIATEMPORARY", token="another")) == AUTH_FAILURE
    assert refused(sign(key="ASIATEMPORARY")) == AUTH_FAILURE
    assert refused(sign(token="token of nobody")) == AUTH_FAILURE
    assert refused(sign(token="token of nobody", service="sts"), "sts") == ("InvalidClientTokenId", 403)
    assert refused(sign(token="token of nobody", service="ssm"), "ssm") == ("UnrecognizedClientException", 400)


@pytest.mark.parametrize("sign", [header_signed, presigned])
def test_a_temporary_key_ends_when_its_time_has_passed(sign: Callable[..., Request]) -> None:
    def signed(service: str, secret: str = SECRET) -> Request:
        return sign(key="ASIATEMPORARY", token="token/+=1", service=service, secret=secret)

    check(signed("ec2"), now=NOW + timedelta(seconds=59))
    late = NOW + timedelta(seconds=60)
    assert refused(signed("ec2"), now=late) == ("RequestExpired", 400)
    assert refused(signed("sts"), "sts", now=late) == ("ExpiredToken", 403)
    assert refused(signed("ssm"), "ssm", now=late) == ("ExpiredTokenException", 400)
    # Nobody but the key's owner is told how long it lasted.
    assert refused(signed("sts", secret="wrong"), "sts", now=late) == NOT_MATCHING


@pytest.mark.parametrize("sign", [header_signed, presigned])
def test_unknown_key_and_wrong_secret(sign: Callable[..., Request]) -> None:
    assert refused(sign(key="AKIANOBODY")) == AUTH_FAILURE
    assert refused(sign(key="AKIANOBODY", service="sts"), "sts") == ("InvalidClientTokenId", 403)
    assert refused(sign(key="AKIANOBODY", service="ssm"), "ssm") == ("UnrecognizedClientException", 400)
    assert refused(sign(secret="wrong")) == AUTH_FAILURE
    assert refused(sign(secret="wrong", service="sts"), "sts") == NOT_MATCHING
    assert refused(sign(secret="wrong", service="ssm"), "ssm") == ("InvalidSignatureException", 400)


def test_an_unknown_key_costs_the_work_of_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    compute = sigv4._signature
    monkeypatch.setattr(sigv4, "_signature", lambda *parts: computed.append(parts[0]) or compute(*parts))
    refused(header_signed(key="AKIANOBODY"))
    refused(header_signed(secret="wrong"))
    assert len(computed) == 2
    assert len(computed[0]) == len(computed[1])


def test_only_guesses_at_credentials_count_as_such() -> None:
    for request, is_guess in [
        (header_signed(secret="wrong"), True),
        (header_signed(key="AKIANOBODY"), True),
        (header_signed(region="lab-2"), False),
        (Request.build("POST", b"/", b"", [(b"host", b"h")], BODY), False),
    ]:
        with pytest.raises(ApiError) as caught:
            check(request)
        assert isinstance(caught.value, sigv4.CredentialsRefusedError) == is_guess
    with pytest.raises(ApiError) as caught:
        check(header_signed(), now=NOW + timedelta(hours=1))
    assert not isinstance(caught.value, sigv4.CredentialsRefusedError)


def test_a_request_may_come_again_only_while_it_is_current() -> None:
    request = header_signed()
    check(request)
    check(request, now=NOW + timedelta(seconds=300))
    assert refused(request, now=NOW + timedelta(seconds=301)) == ("RequestExpired", 400)
    link = presigned(expires=900)
    check(link)
    check(link, now=NOW + timedelta(seconds=900))
    assert refused(link, now=NOW + timedelta(seconds=901)) == ("RequestExpired", 400)


def test_who_may_not_try_again_is_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(access_key_id: str, session_token: str | None) -> None:
        raise sigv4.too_many_failures(catalog().services[service])

    monkeypatch.setattr(sigv4, "_signature", None)
    for service, answer in [
        ("ec2", ("RequestLimitExceeded", 503)),
        ("sts", ("Throttling", 400)),
        ("ssm", ("ThrottlingException", 400)),
    ]:
        assert refused(header_signed(service=service), service, find_key=find_nothing) == answer


def test_no_signature_at_all() -> None:
    request = Request.build("POST", b"/", b"", [(b"host", b"h")], BODY)
    assert refused(request) == ("MissingParameter", 400)
    assert refused(request, "sts") == ("MissingAuthenticationToken", 403)
    assert refused(request, "ssm") == ("MissingAuthenticationTokenException", 400)


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
    ("service", lambda r: authorization(r, "/aws4_request", "x/aws4_request")),
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
    assert refused(tamper(header_signed())) == AUTH_FAILURE
    code, status = refused(tamper(header_signed(service="amz")), "sts")
    assert (code, status) in (NOT_MATCHING, ("InvalidClientTokenId", 403))


class WithoutHost(SigV4Auth):  # type: ignore[misc]
    def headers_to_sign(self, request: AWSRequest) -> object:
        headers = super().headers_to_sign(request)
        del headers["host"]
        return headers


def test_a_signature_that_holds_but_leaves_the_host_out_is_refused() -> None:
    request = AWSRequest(method="POST", url="http://h/", data=BODY, headers={"Content-Type": FORM})
    WithoutHost(Credentials(KEY, SECRET), "127", "lab-1").add_auth(request)
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
@pytest.mark.parametrize("service", ["ec2", "sts", "ssm"])
def test_malformed_signatures_are_incomplete(what: str, spoil: Callable[[Request], Request], service: str) -> None:
    code = "IncompleteSignatureException" if service == "ssm" else "IncompleteSignature"
    assert refused(spoil(header_signed()), service) == (code, 400)


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
    assert refused(header_signed(service="sts"), "sts", now=beyond) == NOT_MATCHING
    check(request, now=beyond, max_skew_seconds=301)


def test_sts_says_by_how_much_a_clock_is_wrong() -> None:
    request = header_signed(service="sts")
    late = r"Signature expired: 20260304T050607Z is now earlier than 20260304T060107Z \(20260304T060607Z - 5 min\.\)"
    with pytest.raises(ApiError, match=late):
        check(request, "sts", now=NOW + timedelta(hours=1))
    early = (
        r"Signature not yet current: 20260304T050607Z is still later than 20260304T041107Z "
        r"\(20260304T040607Z \+ 5 min\.\)"
    )
    with pytest.raises(ApiError, match=early):
        check(request, "sts", now=NOW - timedelta(hours=1))


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
        (authorization(header_signed(service="sts"), "/20260304/", "/20260303/"), "Date in Credential scope does not"),
        (with_header(header_signed(service="sts"), "content-type", None), "signed but was not sent"),
        (header_signed(service="sts", headers={"X-Amz-Content-SHA256": "ab" * 32}), "is not the SHA-256 digest"),
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


SPOILT = st.sampled_from(
    [b"", b" ", b",", b"=", b"/", b"%", b"&", b";", b"\0", b"\xff", b"Signature=", b"Credential=", b"X-Amz-Date=", b"+"]
) | st.binary(max_size=6)


@settings(max_examples=400, deadline=None)
@given(
    data=st.data(),
    service=st.sampled_from(["ec2", "sts", "ssm"]),
    sign=st.sampled_from([header_signed, presigned]),
    where=st.sampled_from(["authorization", "x-amz-date", "host", "x-amz-security-token", "query", "path"]),
    splice=SPOILT,
    cut=st.integers(0, 3),
)
def test_no_spoilt_signature_does_worse_than_be_refused(
    data: st.DataObject, service: str, sign: Callable[..., Request], where: str, splice: bytes, cut: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_time(patch, NOW)
        request = sign(key="ASIATEMPORARY", token="token/+=1", service=service)
    whole = {"query": request.query_string, "path": request.path}.get(where, "".join(request.headers.all(where)))
    at = data.draw(st.integers(0, len(whole)))
    text = whole[:at] + splice.decode("latin-1") + whole[at + cut :]
    match where:
        case "query":
            spoilt = replace(request, query_string=text)
        case "path":
            spoilt = replace(request, path=text)
        case _:
            spoilt = with_header(request, where, text)
    try:
        check(spoilt, service)
    except ApiError as error:
        assert error.status in (400, 401, 403)
    else:
        # Only what means the same: white space at the ends, an empty field, a slash or dot too many, another spelling.
        # What a presigned request says in headers that are not signed is nobody's.
        signs = str.maketrans("", "", " \t\r\n\f\v&/.")
        unsigned = sign is presigned and where in ("authorization", "x-amz-date", "x-amz-security-token")
        assert unsigned or unquote_plus(text).translate(signs) == unquote_plus(whole).translate(signs)
