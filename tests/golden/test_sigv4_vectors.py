"""AWS's Signature Version 4 test suite, from botocore's source distribution, read from the server's side.

Each vector is a request as it is on the wire and what must be computed of it on the way to its signature. Paths of the
suite are as a client has them before it encodes them for the wire; what botocore sends is in tests/wire/aws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.botocore_sdist import botocore_sdist

from minicloud.aws import sigv4
from minicloud.aws.models import Service, load_service
from minicloud.aws.request import Request
from minicloud.errors import ApiError

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
LEAST_VECTORS = 30
# The signature that stands there is get-vanilla's, of a request without a token.
SIGNED_OTHERWISE = {"get-vanilla-with-session-token"}


def suite() -> list[Path]:
    """Return the vectors: the path of each without its last suffix."""
    folder = botocore_sdist() / "tests/unit/auth/aws4_testsuite"
    return sorted(path.with_suffix("") for path in folder.rglob("*.authz"))


def read(vector: Path, suffix: str) -> bytes:
    return vector.with_suffix(suffix).read_bytes().replace(b"\r\n", b"\n")


def request_of(vector: Path) -> Request:
    head, _, body = read(vector, ".sreq").partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, rest = first.partition(b" ")
    path, _, query = rest.removesuffix(b" HTTP/1.1").partition(b"?")
    headers: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line[:1] == b" ":  # a folded line: HTTP servers join such, or refuse them
            headers[-1] = (headers[-1][0], headers[-1][1] + line)
        else:
            name, _, value = line.partition(b":")
            headers.append((name, value.lstrip(b" ") if name == b"Authorization" else value))
    return Request.build(method.decode(), path, query, headers, body)


@cache
def answering() -> Service:
    return replace(load_service("sts", []), signing_name="service")


def verify(request: Request, *, secret: str = SECRET) -> Any:
    tokens = [*request.headers.all("x-amz-security-token"), None]

    def find_key(access_key_id: str, session_token: str | None) -> sigv4.Credential[str] | None:
        assert (access_key_id, session_token) == (KEY, tokens[0])
        return sigv4.Credential(KEY, secret, "owner")

    return sigv4.verify(
        request, service=answering(), region="us-east-1", known_services=("service",), find_key=find_key, now=NOW
    )


def test_every_vector_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    compute: Callable[..., str] = sigv4._signature

    def record(secret: str, claim: Any, canonical: bytes) -> str:
        hashed.append(canonical)
        return compute(secret, claim, canonical)

    monkeypatch.setattr(sigv4, "_signature", record)
    vectors = suite()
    assert len(vectors) >= LEAST_VECTORS
    for vector in vectors:
        if vector.name in SIGNED_OTHERWISE:
            with pytest.raises(ApiError):
                verify(request_of(vector))
        else:
            verified = verify(request_of(vector))
            assert (verified.region, verified.service) == ("us-east-1", "service"), vector.name
        canonical = hashed.pop()
        assert canonical == read(vector, ".creq"), vector.name
        to_sign = read(vector, ".sts").decode().split("\n")
        assert to_sign[3] == hashlib.sha256(canonical).hexdigest(), vector.name


def test_no_vector_is_believed_with_another_secret() -> None:
    for vector in suite():
        with pytest.raises(ApiError) as caught:
            verify(request_of(vector), secret="another")
        assert caught.value.code == "SignatureDoesNotMatch", vector.name


def test_no_vector_is_believed_after_a_change() -> None:
    for vector in suite():
        request = request_of(vector)
        for changed in (
            replace(request, method="PUT"),
            replace(request, path=request.path + "x"),
            replace(request, query_string=request.query_string + "&x=y"),
            replace(request, body=request.body + b"x"),
        ):
            with pytest.raises(ApiError) as caught:
                verify(changed)
            assert caught.value.code == "SignatureDoesNotMatch", vector.name
