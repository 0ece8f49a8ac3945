"""Every operation with parameters that fit its shape and make no sense: refused or answered, but never a bug."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import front as build
from support import rows as make

from minicloud.api.operations import OPERATIONS, load_served_catalog, perform
from minicloud.api.services import Context
from minicloud.aws.jsonwire import parse_json, render_json
from minicloud.aws.models import Shape
from minicloud.errors import ApiError

CATALOG = load_served_catalog()
SERVED = [(service, name) for service, rows in OPERATIONS.items() for name in rows]

TEXTS = st.one_of(
    st.sampled_from(
        [
            build.IMAGE_ID, build.SNAPSHOT_ID, make.number("i", 1), make.number("vol", 1), "lab-1a", "lab-1", "default",
            "t3.nano", "m5d.large", "/dev/sda1", "/dev/sdb", "ephemeral0", "gp3", "io1", "all", "self", "x86_64", "raw",
            "file:///etc/passwd", "description", "launchPermission", "add", "100000000001", "172.31.0.9", "", " ", "-",
            "..", "i-", "ami-0", "%00", "a" * 300, "\u00e4\U0001f600", "'; DROP TABLE instances; --", "${jndi:x}", "\n",
        ]
    ),
    st.text(max_size=20),
)  # fmt: skip
NUMBERS = st.sampled_from([-(2**31), -1, 0, 1, 2, 5, 64, 1000, 16385, 2**31 - 1])


def values(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of a shape, as JSON has them."""
    if shape.kind == "structure":
        members = {name: values(member.shape, depth + 1) for name, member in shape.members.items()}
        required = {name: members.pop(name) for name in shape.required} if depth else {}
        chosen = st.lists(st.sampled_from(sorted(members)), max_size=6, unique=True) if members else st.just([])
        return chosen.flatmap(
            lambda names: st.fixed_dictionaries({**required, **{name: members[name] for name in names}})
        )
    if shape.kind == "list":
        assert shape.element is not None
        return st.lists(values(shape.element.shape, depth + 1), max_size=3)
    if shape.kind == "boolean":
        return st.booleans()
    if shape.kind in ("integer", "long", "float", "double"):
        return NUMBERS
    if shape.kind == "blob":
        return st.sampled_from(["", "c3NoLXJzYSBBQUFB", "LS0tLS1CRUdJTg==", "AAAA", "%"])
    if shape.kind == "timestamp":
        return st.sampled_from(["2024-01-01T00:00:00Z", "yesterday", "0"])
    return st.one_of(st.sampled_from(shape.enum), TEXTS) if shape.enum else TEXTS


@pytest.mark.parametrize(("service", "name"), SERVED, ids=[name for _, name in SERVED])
def test_no_parameters_are_a_bug(service: str, name: str) -> None:
    operation = CATALOG.operation(service, name)
    front = build.build_front(CATALOG)
    context = Context(front.services, build.root_caller())
    shape = operation.input
    assert shape is not None
    required = {member: values(shape.members[member].shape, 1) for member in shape.required}

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(values(shape), st.fixed_dictionaries(required))
    def attempt(given_: dict[str, Any], needed: dict[str, Any]) -> None:
        try:
            output = perform(context, service, name, parse_json(operation, {**needed, **given_}))
        except ApiError as error:
            assert error.code and error.message
            assert 400 <= error.status < 600
            # Nothing of this machine is told.
            assert "/nonexistent" not in error.message and "Traceback" not in error.message
            return
        render_json(operation, output)

    attempt()
