"""What the metadata service answers: versions, folders, leaves, tokens, and who is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.port_plans import port

from minicloud.hostside.metadata_answers import (
    MAX_TOKEN_SECONDS,
    TOKEN_HEADER,
    TTL_HEADER,
    Reply,
    Request,
    Tokens,
    answer,
    list_folder,
)

TOKENS = Tokens(b"s" * 32, "boot-1")
PLAN = port(10)
NOW = 1000.0


def get(target: str, plan: dict[str, Any] | None = PLAN, method: str = "GET", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(Request(method, target, named), plan, TOKENS, NOW)


def text(target: str, **metadata: Any) -> str:
    reply = get(target, port(10, **metadata))
    assert (reply.status, reply.content_type) == (200, "text/plain")
    return reply.body.decode()


def put_token(plan: dict[str, Any] = PLAN, **headers: str) -> Reply:
    return get("/latest/api/token", plan, "PUT", **headers)


def test_the_top_lists_versions_and_each_of_them_answers() -> None:
    versions = text("/").splitlines()
    assert {"1.0", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest"} <= set(versions)
    for version in versions:
        assert text(f"/{version}/meta-data/instance-id") == PLAN["instance_id"]
    assert get("/2021-03-22/meta-data/instance-id").status == 404


@pytest.mark.parametrize("slash", ["", "/"])
def test_folders_list_what_is_in_them_with_or_without_a_slash_at_the_end(slash: str) -> None:
    assert text("/latest" + slash) == "dynamic\nmeta-data"
    assert text("/latest" + slash, user_data_base64="") == "dynamic\nmeta-data\nuser-data"
    assert text("/latest/meta-data" + slash) == "instance-id\nlocal-ipv4\nplacement/\npublic-keys/"
    assert text("/latest/meta-data/placement" + slash) == "availability-zone\nregion"
    assert text("/latest/meta-data/public-keys" + slash) == "0=key"
    assert text("/latest/meta-data/public-keys/0" + slash) == "openssh-key"
    assert text("/latest/dynamic" + slash) == "instance-identity/"
    assert text("/latest/dynamic/instance-identity" + slash) == "document"


def test_every_listed_leaf_answers() -> None:
    leaves = {
        "a": "1",
        "b/c": "2",
        "b/d/e": "",
        "network/interfaces/macs/0a:00:00:00:01:0a/mac": "0a:00:00:00:01:0a",
        "tags/instance/Größe": "☃",
    }

    def crawl(path: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in text("/latest/meta-data/" + path, leaves=leaves, listings={}).splitlines():
            if name.endswith("/"):
                found.update(crawl(path + name))
            else:
                found[path + name] = text("/latest/meta-data/" + path + name, leaves=leaves, listings={})
        return found

    assert crawl("") == leaves


def test_paths_may_be_escaped_and_carry_a_query() -> None:
    leaves = {"macs/0a:00": "x"}
    assert text("/latest//meta-data/macs/0a%3A00?a=b", leaves=leaves) == "x"


@pytest.mark.parametrize(
    "target",
    [
        "/latest/meta-data/nothing",
        "/latest/nothing",
        "/nothing",
        "/latest/user-data",
        "/latest/dynamic/nothing",
        "/latest/dynamic/instance-identity/pkcs7",
        "/latest/meta-data/instance-id/more",
        "/latest/user-data/more",
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(target: str) -> None:
    reply = get(target)
    assert (reply.status, reply.content_type) == (404, "text/html")
    assert b"<title>404 - Not Found</title>" in reply.body


def test_user_data_comes_back_byte_for_byte() -> None:
    data = bytes(range(256)) * 64
    reply = get("/latest/user-data", port(10, user_data_base64=base64.b64encode(data).decode()))
    assert (reply.body, reply.content_type) == (data, "application/octet-stream")


def test_the_identity_document_is_the_plans() -> None:
    assert text("/latest/dynamic/instance-identity/document") == PLAN["metadata"]["identity_document"]


def test_a_stranger_learns_nothing() -> None:
    for target in ("/", "/latest/meta-data/instance-id", "/latest/api/token"):
        assert get(target, None).status == 404


def test_what_changes_is_refused() -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        reply = get("/latest/meta-data/instance-id", method=method)
        assert (reply.status, reply.headers) == (405, (("Allow", "GET, HEAD"),))
    assert get("/latest/api/token").status == 405
    assert get("/latest/meta-data/instance-id", method="HEAD").status == 200


def test_a_disabled_endpoint_refuses_everything() -> None:
    plan = port(10, http_endpoint="disabled")
    assert get("/latest/meta-data/instance-id", plan).status == 403
    assert put_token(plan, **{TTL_HEADER: "60"}).status == 403


def test_a_token_opens_what_requires_one_and_tells_how_long() -> None:
    plan = port(10, http_tokens="required", hop_limit=3)
    assert get("/latest/meta-data/instance-id", plan).status == 401
    issued = put_token(plan, **{TTL_HEADER: "60"})
    assert (issued.status, issued.content_type, issued.hop_limit) == (200, "text/plain", 3)
    assert issued.headers == (("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60"),)
    reply = get("/latest/meta-data/instance-id", plan, **{TOKEN_HEADER: issued.body.decode()})
    assert (reply.status, reply.body) == (200, plan["instance_id"].encode())
    assert reply.headers == (("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60"),)
    assert reply.hop_limit is None


@pytest.mark.parametrize("seconds", ["", "0", "21601", "-1", "1.5", "abc", "6 0", "٣", "1" * 40])
def test_a_token_needs_a_lifetime_within_bounds(seconds: str) -> None:
    assert put_token(**{TTL_HEADER: seconds}).status == 400


def test_a_token_needs_a_lifetime() -> None:
    assert put_token().status == 400
    assert put_token(**{TTL_HEADER: str(MAX_TOKEN_SECONDS)}).status == 200
    assert put_token(**{TTL_HEADER: "1"}).status == 200


def test_a_proxy_gets_no_token() -> None:
    assert put_token(**{TTL_HEADER: "60", "x-forwarded-for": ""}).status == 403


def test_a_token_is_good_for_one_instance_one_boot_and_its_time() -> None:
    token = TOKENS.issue("i-1", 60, NOW)
    assert TOKENS.remaining(token, "i-1", NOW + 59) == pytest.approx(1)
    assert TOKENS.remaining(token, "i-1", NOW + 60) is None
    assert TOKENS.remaining(token, "i-2", NOW) is None
    assert Tokens(b"s" * 32, "boot-2").remaining(token, "i-1", NOW) is None
    assert Tokens(b"t" * 32, "boot-1").remaining(token, "i-1", NOW) is None


@given(st.one_of(st.text(), st.binary(max_size=80).map(lambda data: base64.urlsafe_b64encode(data).decode())))
def test_nothing_else_is_a_token(token: str) -> None:
    assert get("/latest/meta-data/instance-id", **{TOKEN_HEADER: token}).status == 401


@given(st.integers(0, 40), st.integers(1, 255))
def test_a_token_with_another_byte_is_none(place: int, change: int) -> None:
    data = bytearray(base64.urlsafe_b64decode(TOKENS.issue("i-1", 60, NOW)))
    data[place] ^= change
    assert TOKENS.remaining(base64.urlsafe_b64encode(data).decode(), "i-1", NOW) is None


@given(st.text(), st.sampled_from(["GET", "PUT", "HEAD", "POST"]))
def test_any_target_gets_an_answer(target: str, method: str) -> None:
    assert get(target, method=method).status in (200, 400, 401, 403, 404, 405)


def test_list_folder_sorts_and_marks_folders() -> None:
    assert list_folder({"b": "", "a/x": "", "a/y/z": "", "c/": ""}, "") == ["a/", "b", "c/"]
    assert list_folder({"ab/c": ""}, "a") == []
