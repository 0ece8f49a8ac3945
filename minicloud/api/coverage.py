"""How far each parameter of each operation is supported: AWS's model against the rows of the operation table.

Owns the three words (honoured, accepted, refused) and the table in COVERAGE.md, which is made from nothing else.
Refuses to decide: parameters.py refuses requests, and tests hold this module to what really happens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from minicloud.api.parameters import DRY_RUN, is_covered
from minicloud.api.rows import Row, Rows
from minicloud.aws.models import Operation, Service, Shape


class Support(Enum):
    """What becomes of a parameter."""

    HONOURED = "honoured"  # it is read
    ACCEPTED = "accepted"  # with the values that ask for what happens anyway
    REFUSED = "refused"  # UnsupportedOperation


@dataclass(frozen=True, slots=True)
class Parameter:
    """A leaf of an operation's input: a dotted path without list numbers.

    `values` are those that are accepted; ANYTHING, which has no members, stands for all.
    """

    path: str
    kind: str
    required: bool
    support: Support
    values: tuple[object, ...] = ()


def support_of(path: str, row: Row) -> tuple[Support, tuple[object, ...]]:
    """Return how a path is supported, and the values that are accepted if only some are."""
    if path == DRY_RUN or is_covered(path, row.honours):
        return Support.HONOURED, ()
    values = row.tolerates.get(path)
    return (Support.REFUSED, ()) if values is None else (Support.ACCEPTED, values)


def list_parameters(operation: Operation, row: Row) -> list[Parameter]:
    """Return every leaf of an operation's input, in the model's order."""
    if operation.input is None:
        return []
    return [
        Parameter(path, kind, required, *support_of(path, row))
        for path, kind, required in _leaves(operation.input, "", ())
    ]


def _leaves(shape: Shape, path: str, above: tuple[Shape, ...]) -> Iterator[tuple[str, str, bool]]:
    for name, member in shape.members.items():
        at = f"{path}.{name}" if path else name
        below, kind = member.shape, member.shape.kind
        while below.kind == "list":
            assert below.element is not None
            below = below.element.shape
        if below.kind == "structure" and below not in above:
            yield from _leaves(below, at, (*above, below))
        else:
            yield at, f"list of {below.kind}" if kind == "list" else kind, not path and name in shape.required


def render_table(services: Iterable[tuple[Service, Rows]]) -> str:
    """Return COVERAGE.md. A service comes with its whole list of operation names, and rows for those it serves."""
    pairs = list(services)
    parts = [_HEAD, *_summary(pairs)]
    for service, rows in pairs:
        parts += _render_service(service, rows)
    return "\n".join(parts) + "\n"


# Of other services minicloud serves a few actions that scripts need beside these; the rest of them is no concern of it.
WHOLE = ("ec2", "sts", "cloudwatch")

_HEAD = """# Coverage

Made from AWS's service models and minicloud's operation table, and held true by a test: do not edit.
`MINICLOUD_REGENERATE=1 .venv/bin/python -m pytest tests/golden/test_coverage.py` makes it anew.

An action that is not served answers InvalidAction. Of one that is served, every parameter is listed down to its leaves,
without list numbers:

- **honoured**: it is read, and does what EC2's documentation says of it.
- **accepted**: it may be given with one of the values shown, which ask for what happens anyway; any other is refused.
  Where it says `any`, every value does.
- **refused**: a request that has it is answered UnsupportedOperation with the parameter's name, and nothing happens.

A parameter in bold is required.
"""


def _summary(pairs: list[tuple[Service, Rows]]) -> list[str]:
    lines = ["| service | API version | actions | served |", "| --- | --- | --- | --- |"]
    for service, rows in pairs:
        lines.append(f"| {service.name} | {service.api_version} | {len(service.operation_names)} | {len(rows)} |")
    return [*lines, ""]


def _render_service(service: Service, rows: Rows) -> list[str]:
    lines = [f"## {service.name}", ""]
    for name in sorted(rows):
        lines += _render_operation(service.operations[name], rows[name])
    others = sorted(service.operation_names - set(rows))
    if others and service.name in WHOLE:
        lines += [f"### Not served of {service.name}", "", *(f"- {name}" for name in others), ""]
    return lines


def _render_operation(operation: Operation, row: Row) -> list[str]:
    lines = [f"### {operation.name}", ""]
    parameters = list_parameters(operation, row)
    if not parameters:
        return [*lines, "It has no parameters.", ""]
    lines += ["| parameter | type | support |", "| --- | --- | --- |"]
    for one in parameters:
        support = one.support.value
        if one.support is Support.ACCEPTED:
            support += ": " + (", ".join(f"`{_shown(value)}`" for value in one.values) or "any")
        lines.append(f"| {f'**{one.path}**' if one.required else one.path} | {one.kind} | {support} |")
    lines.append("")
    return [*lines, *_render_listing(row)]


def _render_listing(row: Row) -> list[str]:
    lines = []
    if row.filters is not None:
        names = [*sorted(row.filters.names), *(["tag:KEY"] if row.filters.has_tags else [])]
        lines += [f"Filters: {', '.join(f'`{name}`' for name in names)}.", ""]
    if row.pages is not None:
        lines += [f"Pages: MaxResults from {row.pages.minimum} to {row.pages.maximum}.", ""]
    return lines


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
