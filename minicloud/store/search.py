"""Listings: EC2's filters as conditions of SQL, and pages by key.

A FilterSet says which filters a kind of row has; each is a Field, made of the constructors below. filters/ declares
them. A page begins after the key of the last row of the page before it, so rows that come or go in between neither
repeat others nor hide them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy
from sqlalchemy import BigInteger, Column, ColumnElement, Text, and_, cast, false, func, literal, or_, select, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from minicloud.model.patterns import Pattern, parse_pattern
from minicloud.store import schema

Row = TypeVar("Row")
Condition = ColumnElement[bool]
# What a row is ordered by: created_us and id where the table has them.
Key = tuple[int | str, ...]
# One filter of a kind of row: from the values asked for (any may match) to the condition.
Field = Callable[[Sequence[Pattern]], Condition]

TAG_PREFIX = "tag:"
# A statement with more values than this is compiled each time. Kept compiled, it would take up to half a megabyte, and
# clients make ever new ones.
MAX_REMEMBERED_VALUES = 8
_MAX_INTEGER = 2**31 - 1
_MAX_BIG = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a request: rows for which any of the values matches."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a listing is asked for: rows that pass all filters, at most `limit`, after the key `after`."""

    filters: tuple[Filter, ...] = ()
    limit: int | None = None
    after: Key | None = None


EVERYTHING = Asked()


@dataclass(frozen=True, slots=True)
class Found(Generic[Row]):
    """A page of rows; `after` is where the next one begins, None if this was the last."""

    items: list[Row]
    after: Key | None = None


class FilterSet:
    """The filters of one kind of row. `tagged` is the column of the id that tags hang on: with it come tag:KEY and
    tag-key, and the old tag-value. `tag_field` makes tag:KEY of rows that are tags themselves.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        tagged: Column[str] | None = None,
        tag_field: Callable[[str], Field] | None = None,
    ) -> None:
        self._fields = dict(fields)
        self._tag_field = tag_field
        if tagged is not None:
            self._fields.setdefault("tag-key", tag_keys(tagged))
            self._fields.setdefault("tag-value", tag_values(tagged))
            self._tag_field = lambda key: tag(tagged, key)

    @property
    def names(self) -> frozenset[str]:
        """The filters' names; tag:KEY, of which there is no end, is not among them."""
        return frozenset(self._fields)

    @property
    def has_tags(self) -> bool:
        """Whether it knows tag:KEY."""
        return self._tag_field is not None

    def knows(self, name: str) -> bool:
        """Say whether a filter exists. Names are case-sensitive."""
        return name in self._fields or (self.has_tags and name.startswith(TAG_PREFIX))

    def conditions(self, filters: Sequence[Filter]) -> list[Condition]:
        """Return one condition per filter; all must hold. Raises KeyError for a filter that does not exist."""
        return [self._field(one.name)([parse_pattern(value) for value in one.values]) for one in filters]

    def _field(self, name: str) -> Field:
        field = self._fields.get(name)
        if field is not None:
            return field
        if self._tag_field is None or not name.startswith(TAG_PREFIX):
            raise KeyError(name)
        return self._tag_field(name.removeprefix(TAG_PREFIX))


# Fields


def text(expression: ColumnElement[Any]) -> Field:
    """A text; NULL matches nothing."""

    def condition(patterns: Sequence[Pattern]) -> Condition:
        literals = [one.literal for one in patterns if one.literal is not None]
        wild = [one for one in patterns if one.literal is None]
        found: list[Condition] = []
        if len(literals) == 1:
            found.append(expression == literals[0])
        elif literals:
            found.append(expression.in_(literals))
        return or_(false(), *found, *(_matches(expression, one) for one in wild))

    return condition


def number(column: ColumnElement[Any]) -> Field:
    """A whole number, written in decimal."""

    def condition(patterns: Sequence[Pattern]) -> Condition:
        numbers = [int(value) for value in (one.literal for one in patterns) if value is not None and _is_number(value)]
        # PostgreSQL refuses to compare a column with a number that it cannot hold.
        limit = _MAX_BIG if isinstance(column.type, BigInteger) else _MAX_INTEGER
        wanted = [one for one in numbers if abs(one) <= limit]
        wild = [one for one in patterns if one.literal is None]
        found: list[Condition] = [column.in_(wanted)] if wanted else []
        return or_(false(), *found, *(_matches(cast(column, Text), one) for one in wild))

    return condition


def _is_number(value: str) -> bool:
    digits = value.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < 20 and str(int(value)) == value


def boolean(column: ColumnElement[Any]) -> Field:
    """`true` or `false`."""

    def condition(patterns: Sequence[Pattern]) -> Condition:
        wanted = [value for value in (True, False) if any(one.matches(str(value).lower()) for one in patterns)]
        return or_(false(), *(column.is_(value) for value in wanted))

    return condition


def time(column: ColumnElement[Any]) -> Field:
    """A time in microseconds, written as EC2 writes times: 2024-01-01T00:00:00.000Z."""
    return text(IsoTime(column))


def constant(value: str | None) -> Field:
    """What is the same for every row; None is what no row has."""

    def condition(patterns: Sequence[Pattern]) -> Condition:
        return true() if value is not None and any(one.matches(value) for one in patterns) else false()

    return condition


ABSENT = constant(None)


def when(holds: Condition, field: Field) -> Field:
    """A field of the rows for which a condition holds; the others have it not."""
    return lambda patterns: and_(holds, field(patterns))


def any_of(*fields: Field) -> Field:
    """A field that has several values: any may match."""
    return lambda patterns: or_(*(field(patterns) for field in fields))


def through(here: ColumnElement[Any], there: Column[Any], field: Field, *where: Condition) -> Field:
    """A field of other rows: those whose column `there` is this row's column `here`."""
    return lambda patterns: here.in_(select(there).where(field(patterns), *where))


def json_text(column: ColumnElement[Any], member: str) -> Field:
    """A member of a JSON object, as text."""
    return text(JsonMember(column, literal(member)))


def listed(column: Column[Any], field: Callable[[ColumnElement[Any]], Field] = text) -> Field:
    """The elements of a JSON list of texts."""

    def condition(patterns: Sequence[Pattern]) -> Condition:
        elements = JsonElements(column).table_valued("value")
        return select(literal(1)).select_from(elements).where(field(elements.c.value)(patterns)).exists()

    return condition


def listed_objects(column: Column[Any], field: Callable[[ColumnElement[Any]], Field]) -> Field:
    """The elements of a JSON list of objects; `field` is given one."""

    def condition(patterns: Sequence[Pattern]) -> Condition:
        elements = JsonObjects(column).table_valued("value")
        return select(literal(1)).select_from(elements).where(field(elements.c.value)(patterns)).exists()

    return condition


_tags = schema.tags.c


def tag(tagged: ColumnElement[Any], key: str) -> Field:
    """The value of one tag."""
    return lambda patterns: tagged.in_(select(_tags.resource_id).where(_tags.key == key, text(_tags.value)(patterns)))


def tag_keys(tagged: ColumnElement[Any]) -> Field:
    """The keys of the tags."""
    return lambda patterns: tagged.in_(select(_tags.resource_id).where(text(_tags.key)(patterns)))


def tag_values(tagged: ColumnElement[Any]) -> Field:
    """The values of the tags, whatever their keys."""
    return lambda patterns: tagged.in_(select(_tags.resource_id).where(text(_tags.value)(patterns)))


def read_page(
    connection: sqlalchemy.Connection,
    statement: sqlalchemy.Select[Any],
    order: Sequence[Column[Any]],
    asked: Asked,
    parameters: Mapping[str, object] | None = None,
) -> Found[Sequence[Any]]:
    """Run a statement for the page that is asked for; it must select the columns of the order."""
    if asked.after is not None:
        statement = statement.where(_after(order, asked.after))
    statement = statement.order_by(*order)
    if asked.limit is not None:
        # One more than asked for tells whether there is a next page.
        statement = statement.limit(asked.limit + 1)
    found = connection.execute(statement, parameters, execution_options=_execution_options(asked)).all()
    if asked.limit is None or len(found) <= asked.limit:
        return Found(list(found))
    page = found[: asked.limit]
    return Found(list(page), tuple(page[-1]._mapping[column] for column in order))


def _execution_options(asked: Asked) -> dict[str, Any]:
    values = sum(len(one.values) for one in asked.filters)
    return {"compiled_cache": None} if values > MAX_REMEMBERED_VALUES else {}


def _after(order: Sequence[Column[Any]], after: Key) -> Condition:
    """The rows behind a key in an order."""
    return sqlalchemy.tuple_(*order) > sqlalchemy.tuple_(
        *(literal(value, column.type) for column, value in zip(order, after, strict=True))
    )


# What SQLite and PostgreSQL say differently


def _matches(expression: ColumnElement[Any], pattern: Pattern) -> Condition:
    if pattern.is_simple:
        return SimpleMatch(expression, literal(pattern.as_glob(), Text), literal(pattern.as_like(), Text))
    return WildMatch(expression, literal(pattern.source, Text), literal(pattern.as_regex(), Text))


class SimpleMatch(FunctionElement[bool]):
    """(text, glob, like): a pattern of at most two `*`."""

    type = sqlalchemy.Boolean()
    inherit_cache = True


class WildMatch(FunctionElement[bool]):
    """(text, pattern, regular expression): any pattern. SQLite calls patterns.matches, registered by sqlite.py."""

    type = sqlalchemy.Boolean()
    inherit_cache = True


class IsoTime(FunctionElement[str]):
    """(microseconds): the time as EC2 writes it."""

    type = Text()
    inherit_cache = True


class JsonMember(FunctionElement[str]):
    """(JSON object, member): its value as text; a JSON null is NULL. Booleans are true and false."""

    type = Text()
    inherit_cache = True


class JsonElements(FunctionElement[str]):
    """(JSON list of texts): its elements."""

    inherit_cache = True


class JsonObjects(FunctionElement[str]):
    """(JSON list of objects): its elements."""

    inherit_cache = True


def _arguments(element: FunctionElement[Any], compiler: Any, kw: Any) -> list[str]:
    return [compiler.process(one, **kw) for one in element.clauses]


@compiles(SimpleMatch, "sqlite")
def _(element: SimpleMatch, compiler: Any, **kw: Any) -> str:
    value, glob, _like = element.clauses
    return f"({compiler.process(value, **kw)} GLOB {compiler.process(glob, **kw)})"


@compiles(SimpleMatch, "postgresql")
def _(element: SimpleMatch, compiler: Any, **kw: Any) -> str:
    value, _glob, like = element.clauses
    return f"({compiler.process(value, **kw)} LIKE {compiler.process(like, **kw)} ESCAPE '\\')"


@compiles(WildMatch, "sqlite")
def _(element: WildMatch, compiler: Any, **kw: Any) -> str:
    value, pattern, _regex = element.clauses
    return f"minicloud_matches({compiler.process(pattern, **kw)}, {compiler.process(value, **kw)})"


@compiles(WildMatch, "postgresql")
def _(element: WildMatch, compiler: Any, **kw: Any) -> str:
    value, _pattern, regex = element.clauses
    return f"({compiler.process(value, **kw)} ~ {compiler.process(regex, **kw)})"


@compiles(IsoTime, "sqlite")
def _(element: IsoTime, compiler: Any, **kw: Any) -> str:
    (value,) = _arguments(element, compiler, kw)
    seconds = f"strftime('%Y-%m-%dT%H:%M:%S', ({value}) / 1000000, 'unixepoch')"
    return f"({seconds} || printf('.%03dZ', ({value}) / 1000 % 1000))"


@compiles(IsoTime, "postgresql")
def _(element: IsoTime, compiler: Any, **kw: Any) -> str:
    (value,) = _arguments(element, compiler, kw)
    seconds = f"to_char(to_timestamp(({value}) / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')"
    return f"({seconds} || '.' || lpad((({value}) / 1000 %% 1000)::text, 3, '0') || 'Z')"


@compiles(JsonMember, "sqlite")
def _(element: JsonMember, compiler: Any, **kw: Any) -> str:
    value, member = _arguments(element, compiler, kw)
    path = f"('$.' || {member})"
    return (
        f"(CASE json_type({value}, {path}) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' "
        f"ELSE CAST(json_extract({value}, {path}) AS TEXT) END)"
    )


@compiles(JsonMember, "postgresql")
def _(element: JsonMember, compiler: Any, **kw: Any) -> str:
    value, member = _arguments(element, compiler, kw)
    return f"(CAST({value} AS jsonb) ->> CAST({member} AS text))"


@compiles(JsonElements, "sqlite")
@compiles(JsonObjects, "sqlite")
def _(element: FunctionElement[Any], compiler: Any, **kw: Any) -> str:
    (value,) = _arguments(element, compiler, kw)
    return f"json_each({value})"


@compiles(JsonElements, "postgresql")
def _(element: JsonElements, compiler: Any, **kw: Any) -> str:
    (value,) = _arguments(element, compiler, kw)
    return f"jsonb_array_elements_text(CAST({value} AS jsonb))"


@compiles(JsonObjects, "postgresql")
def _(element: JsonObjects, compiler: Any, **kw: Any) -> str:
    (value,) = _arguments(element, compiler, kw)
    return f"jsonb_array_elements(CAST({value} AS jsonb))"


def concat(*parts: str | ColumnElement[Any]) -> ColumnElement[Any]:
    """Join texts and columns."""
    joined: ColumnElement[Any] = literal("", Text)
    for part in parts:
        joined = joined.op("||")(literal(part, Text) if isinstance(part, str) else part)
    return joined


def dotted_as_dashed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """An address as DNS names have it: 10-0-0-1."""
    return func.replace(column, ".", "-")
