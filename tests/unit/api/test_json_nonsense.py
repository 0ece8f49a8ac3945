"""Every operation of the services that speak AWS JSON, from the bytes of a body to the bytes of the answer: whatever is
sent, what comes back is an answer or a refusal in these services' words, and never a bug."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import front as build

from minicloud.api.operations import OPERATIONS, load_served_catalog, perform
from minicloud.api.services import Context
from minicloud.aws.dispatch import choose_call
from minicloud.aws.request import Request
from minicloud.cloud.image_parameters import ALIASES
from minicloud.errors import ApiError

CATALOG = load_served_catalog()
SERVED = [
    (service.target_prefix, name)
    for service in CATALOG.services.values()
    if service.target_prefix
    for name in OPERATIONS[service.name]
]
REFERENCES = [
    "/minicloud/images/image1",
    "/minicloud/images/image1:1700000000000000",
    "/minicloud/images/image1:x",
    "arn:aws:ssm:lab-1::parameter/minicloud/images/image1",
    "arn:aws:ssm:lab-1::parameter",
    "arn:",
    *ALIASES,
]
NONSENSE = ["", " / ", "/", "//", ":", ":1:2", "\x00", "\ud800", "a" * 3000, "/" * 2000, "%s{}", "/\u00e9"]
TEXTS = st.sampled_from([*REFERENCES, *NONSENSE]) | st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(("prefix", "name"), SERVED)
def test_no_body_is_a_bug(prefix: str, name: str) -> None:
    context = Context(build.build_front(CATALOG).services, build.root_caller())
    headers = [
        (b"x-amz-target", f"{prefix}.{name}".encode()),
        (b"content-type", b"application/x-amz-json-1.1"),
        (b"x-amzn-query-mode", b"true"),
    ]
    members = sorted(CATALOG.operation("ssm", name).input.members)  # type: ignore[union-attr]
    likely = st.fixed_dictionaries({}, optional={member: TEXTS | st.lists(TEXTS, max_size=3) for member in members})

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(likely | st.dictionaries(st.sampled_from(members) | TEXTS, VALUES, max_size=4) | VALUES)
    def attempt(document: object) -> None:
        call = choose_call(Request.build("POST", b"/", b"", headers, json.dumps(document).encode()), CATALOG)
        try:
            reply = call.reply(perform(context, call.service.name, name, call.parse()), "request-1")
            assert reply.status == 200
        except ApiError as error:
            reply = call.error(error, "request-1")
            assert 400 <= reply.status < 500
            assert json.loads(reply.body)["__type"] and json.loads(reply.body)["message"]
        assert isinstance(json.loads(reply.body), dict)

    attempt()
