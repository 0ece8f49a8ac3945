"""DescribeOperation and ListOperations: what there is to call and with what, for `minicloud api`.

The command line must not load AWS's models (they cost it a quarter of a second), so the daemon, which has them, tells.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from minicloud.api.coverage import Support, list_parameters, support_of
from minicloud.api.operations import OPERATIONS
from minicloud.api.operator_parameters import take
from minicloud.api.rows import Row
from minicloud.api.services import Context
from minicloud.aws.models import Catalog, Member, Operation, Shape
from minicloud.errors import ApiError

MAX_DEPTH = 12
MAX_SIMILAR = 5


def describe_operation(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeOperation: the input of an operation as a tree of shapes, each leaf with how it is supported.

    `Operation` may be written as AWS's command line does (describe-instances); `Service` may be left out when only one
    service has it. Raises ApiError: InvalidAction, InvalidParameterValue (more than one service has it).
    """
    given = take(parameters, {"Service": str, "Operation": str}, required=("Operation",))
    operation = _find(context.services.catalog, given.get("Service"), given["Operation"])
    row = OPERATIONS[operation.service.name][operation.name]
    described: dict[str, Any] = {
        "Service": operation.service.name,
        "Operation": operation.name,
        "Input": _describe_shape(operation.input, row, "", 0) if operation.input is not None else _NOTHING,
    }
    if row.filters is not None:
        described["FilterNames"] = sorted(row.filters.names) + (["tag:KEY"] if row.filters.has_tags else [])
    if row.pages is not None:
        described["MaxResults"] = {"Minimum": row.pages.minimum, "Maximum": row.pages.maximum}
    return described


def list_operations(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """ListOperations: every operation of the services that are served, or of one, and how far it is supported."""
    given = take(parameters, {"Service": str}, required=())
    services = context.services.catalog.services
    chosen = given.get("Service")
    if chosen is not None and chosen not in services:
        raise ApiError(
            "InvalidParameterValue", f"There is no service {chosen[:100]!r}; there are {', '.join(services)}."
        )
    return {
        "Services": [
            {
                "Service": service.name,
                "ApiVersion": service.api_version,
                "Operations": [
                    _summarise(service.operations.get(name), name, OPERATIONS[service.name])
                    for name in sorted(service.operation_names)
                ],
            }
            for service in services.values()
            if chosen in (None, service.name)
        ]
    }


_NOTHING: dict[str, Any] = {"Type": "structure", "Members": {}}


def _summarise(operation: Operation | None, name: str, rows: Mapping[str, Row]) -> dict[str, Any]:
    if operation is None:
        return {"Operation": name, "Served": False}
    supports = [one.support for one in list_parameters(operation, rows[name])]
    return {
        "Operation": name,
        "Served": True,
        **{kind.value.capitalize(): supports.count(kind) for kind in Support},
    }


def _find(catalog: Catalog, service: str | None, name: str) -> Operation:
    folded = fold(name)
    if service is not None and service not in catalog.services:
        raise ApiError("InvalidAction", f"There is no service {service[:100]!r}; see `minicloud api --list`.", 404)
    searched = [one for one in catalog.services.values() if service in (None, one.name)]
    found = [operation for one in searched for key, operation in one.operations.items() if fold(key) == folded]
    if len(found) > 1:
        names = " and ".join(one.service.name for one in found)
        raise ApiError("InvalidParameterValue", f"{found[0].name} is an action of {names}: name the service before it.")
    if found:
        return found[0]
    for one in searched:
        for known in one.operation_names:
            if fold(known) == folded:
                raise ApiError(
                    "InvalidAction", f"{one.name} has the action {known}, but minicloud does not serve it.", 404
                )
    served = {fold(key): key for one in searched for key in one.operations}
    similar = [served[one] for one in difflib.get_close_matches(folded, served, MAX_SIMILAR)]
    hint = f"Similar: {', '.join(similar)}." if similar else "See `minicloud api --list`."
    raise ApiError("InvalidAction", f"There is no action {name[:100]!r}. {hint}", 404)


def fold(name: str) -> str:
    """Return a name as it compares: `describe-instances` and `DescribeInstances` are one."""
    return name.replace("-", "").replace("_", "").casefold()


def _describe_shape(shape: Shape, row: Row, path: str, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        return {"Type": "json"}
    if shape.kind == "structure":
        members = {
            name: _describe_member(member, row, f"{path}.{name}" if path else name, name in shape.required, depth)
            for name, member in shape.members.items()
        }
        return {"Type": "structure", "Members": members}
    if shape.kind == "list":
        assert shape.element is not None
        return {"Type": "list", "Element": _describe_shape(shape.element.shape, row, path, depth + 1)}
    support, values = support_of(path, row)
    described: dict[str, Any] = {"Type": shape.kind, "Support": support.value}
    if values:
        described["Values"] = list(values)
    if shape.enum:
        described["Enum"] = list(shape.enum)
    if shape.kind == "map":
        assert shape.value is not None
        described["Value"] = _describe_shape(shape.value.shape, row, path, depth + 1)
    return described


def _describe_member(member: Member, row: Row, path: str, required: bool, depth: int) -> dict[str, Any]:
    described = _describe_shape(member.shape, row, path, depth + 1)
    return {**described, "Required": True} if required else described
