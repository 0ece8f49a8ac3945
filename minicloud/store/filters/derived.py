"""ids.derived_id in SQL, so that rows are found by ids that no column holds.

SQLite calls ids.derived_id itself, registered by sqlite.py; PostgreSQL has the digest.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from minicloud import ids

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
