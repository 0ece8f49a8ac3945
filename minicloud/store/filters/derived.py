"""What no column holds, in SQL, so that rows are found by it: derived ids and private DNS names.

SQLite calls ids.derived_id itself, registered by sqlite.py; PostgreSQL has the digest.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from minicloud import ids
from minicloud.store.search import concat, dotted_as_dashed

_DIGITS = ids.DIGITS - 1


class DerivedId(FunctionElement[str]):
    """(prefix, column, column...): what ids.derived_id returns for them."""

    type = Text()
    inherit_cache = True


def derived_id(prefix: str, *parts: ColumnElement[Any]) -> DerivedId:
    """Return the expression of an id that follows from columns."""
    return DerivedId(literal(prefix, Text), *parts)


@compiles(DerivedId, "sqlite")
def _(element: DerivedId, compiler: Any, **kw: Any) -> str:
    return f"minicloud_derived_id({', '.join(compiler.process(one, **kw) for one in element.clauses)})"


@compiles(DerivedId, "postgresql")
def _(element: DerivedId, compiler: Any, **kw: Any) -> str:
    prefix, *parts = (compiler.process(one, **kw) for one in element.clauses)
    joined = " || '\\x00'::bytea || ".join(f"convert_to({part}, 'UTF8')" for part in parts)
    return f"({prefix} || '-0' || substr(encode(sha256({joined}), 'hex'), 1, {_DIGITS}))"


def private_dns_name(private_ip: ColumnElement[Any], region: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the expression of a private name as cloud/metadata.py writes it: ip-172-31-0-4.REGION.compute.internal."""
    return concat("ip-", dotted_as_dashed(private_ip), ".", region, ".compute.internal")
