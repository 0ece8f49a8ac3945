"""Tables as collections of frozen dataclasses: the few statements everyone needs, built once and run with parameters.

Used inside a transaction through Tx (transaction.py). What equality cannot say is a named query in queries.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import sqlalchemy
from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from minicloud.store import schema
from minicloud.store.codec import Codec
from minicloud.store.search import EVERYTHING, Asked, Condition, FilterSet, Found, read_page

Row = TypeVar("Row")
# Values of one IN; SQLite holds 32,766 parameters and PostgreSQL 65,535.
IN_CHUNK = 1000
# Rows of one executemany.
INSERT_CHUNK = 1000


class Definition(Generic[Row]):
    """What a table is, for the life of the process: its columns, its codec and its statements."""

    def __init__(self, table: sqlalchemy.Table, kind: type[Row]) -> None:
        self.table = table
        self.codec = Codec(kind)
        if set(self.codec.columns) != set(table.columns.keys()):
            raise AssertionError(f"{table.name} and {kind.__name__} disagree")
        self.columns = [table.columns[name] for name in self.codec.columns]
        self.order = [table.columns[name] for name in ("created_us", "id") if name in table.columns]
        if not self.order:
            self.order = list(table.primary_key.columns)
        self.order_indexes = [self.codec.columns.index(column.name) for column in self.order]
        self.insert = insert(table)
        # Keyed by the shape of the condition; shapes come from call sites, never from users, so this stays small.
        self.statements: dict[object, sqlalchemy.Executable] = {}

    def conditions(self, shape: Iterable[tuple[str, str]]) -> list[sqlalchemy.ColumnElement[bool]]:
        """Return the conditions of a shape: pairs of column and "null", "in" or "equals"."""
        found: list[sqlalchemy.ColumnElement[bool]] = []
        for name, how in shape:
            column = self.table.columns[name]
            if how == "null":
                found.append(column.is_(None))
            elif how == "in":
                found.append(column.in_(bindparam(f"w_{name}", expanding=True)))
            else:
                found.append(column == bindparam(f"w_{name}"))
        return found


class Rows(Generic[Row]):
    """A table without an id of its own, inside one transaction."""

    def __init__(self, connection: Connection, definition: Definition[Row], writable: bool) -> None:
        self._connection = connection
        self._definition = definition
        self._writable = writable

    def insert(self, row: Row) -> None:
        """Add a row. A key that is taken raises StoreConflictError from Store.write."""
        self.insert_many([row])

    def insert_many(self, rows: Iterable[Row]) -> None:
        """Add rows, in one round trip per thousand."""
        self._must_write()
        values = [self._definition.codec.encode(row) for row in rows]
        for start in range(0, len(values), INSERT_CHUNK):
            self._connection.execute(self._definition.insert, values[start : start + INSERT_CHUNK])

    def where(self, **equals: object) -> list[Row]:
        """Return the rows whose columns equal the values; a collection means any of its values.

        Ordered by created_us and id where the table has them, else by its key.
        """
        codec = self._definition.codec
        found: list[Sequence[Any]] = []
        batches = 0
        for shape, parameters in self._batches(equals):
            batches += 1
            found.extend(self._connection.execute(self._select(shape), parameters))
        if batches > 1:
            indexes = self._definition.order_indexes
            found.sort(key=lambda values: [values[index] for index in indexes])
        return [codec.decode(values) for values in found]

    def search(
        self, filters: FilterSet, asked: Asked = EVERYTHING, *conditions: Condition, **equals: object
    ) -> Found[Row]:
        """Return a page of the rows that `where` would return and that pass the filters, in the same order.

        At most IN_CHUNK values may stand in a collection. Raises KeyError for a filter that the set does not know.
        """
        definition = self._definition
        batches = self._batches(equals)
        if not batches:
            return Found([])
        ((shape, parameters),) = batches
        statement = select(*definition.columns).where(
            *definition.conditions(shape), *filters.conditions(asked.filters), *conditions
        )
        found = read_page(self._connection, statement, definition.order, asked, parameters)
        return Found([definition.codec.decode(values) for values in found.items], found.after)

    def count(self, **equals: object) -> int:
        """Return how many rows `where` would return."""
        total = 0
        for shape, parameters in self._batches(equals):
            key = ("count", shape)
            statement = self._definition.statements.get(key)
            if statement is None:
                counted = select(func.count()).select_from(self._definition.table)
                statement = counted.where(*self._definition.conditions(shape))
                self._definition.statements[key] = statement
            total += self._connection.execute(statement, parameters).scalar_one()
        return total

    def delete_where(self, **equals: object) -> int:
        """Delete the rows that `where` would return, and return how many. At least one condition must be given."""
        self._must_write()
        if not equals:
            raise TypeError("delete_where needs a condition")
        total = 0
        for shape, parameters in self._batches(equals):
            key = ("delete", shape)
            statement = self._definition.statements.get(key)
            if statement is None:
                statement = delete(self._definition.table).where(*self._definition.conditions(shape))
                self._definition.statements[key] = statement
            total += self._connection.execute(statement, parameters).rowcount
        return total

    def _select(self, shape: tuple[tuple[str, str], ...]) -> sqlalchemy.Executable:
        statement = self._definition.statements.get(shape)
        if statement is None:
            statement = select(*self._definition.columns).where(*self._definition.conditions(shape))
            statement = statement.order_by(*self._definition.order)
            self._definition.statements[shape] = statement
        return statement

    def _batches(self, equals: Mapping[str, object]) -> list[tuple[tuple[tuple[str, str], ...], dict[str, object]]]:
        """Return (shape, parameters) pairs; more than one where a collection is longer than one IN may be."""
        codec = self._definition.codec
        refused = set(equals).difference(codec.comparable)
        if refused:
            raise TypeError(f"{self._definition.table.name} cannot be asked for {', '.join(sorted(refused))}")
        shape: list[tuple[str, str]] = []
        parameters: dict[str, object] = {}
        longest: tuple[str, list[object]] | None = None
        for name in sorted(equals):
            value = equals[name]
            if value is None:
                shape.append((name, "null"))
            elif isinstance(value, list | tuple | set | frozenset):
                values = _distinct(codec.encode_value(name, one) for one in value)
                if not values:
                    return []
                shape.append((name, "in"))
                parameters[f"w_{name}"] = values
                if len(values) > IN_CHUNK:
                    if longest is not None:
                        raise ValueError("only one condition may be longer than a chunk")
                    longest = (f"w_{name}", values)
            else:
                shape.append((name, "equals"))
                parameters[f"w_{name}"] = codec.encode_value(name, value)
        if longest is None:
            return [(tuple(shape), parameters)]
        name, values = longest
        return [
            (tuple(shape), {**parameters, name: values[start : start + IN_CHUNK]})
            for start in range(0, len(values), IN_CHUNK)
        ]

    def _must_write(self) -> None:
        if not self._writable:
            raise RuntimeError("this is a read transaction; use Store.write")


class Table(Rows[Row]):
    """A table whose rows have an `id`, inside one transaction."""

    def get(self, id: str) -> Row | None:
        """Return the row of an id."""
        values = self._connection.execute(self._select((("id", "equals"),)), {"w_id": id}).first()
        return None if values is None else self._definition.codec.decode(values)

    def update(self, id: str, **changes: object) -> Row:
        """Change fields of a row and return the new row. Raises KeyError if there is no such id."""
        self._must_write()
        if not changes:
            raise TypeError("update needs a change")
        values = self._definition.codec.encode_some(changes)
        key = ("update", frozenset(values))
        statement = self._definition.statements.get(key)
        if statement is None:
            table = self._definition.table
            statement = (
                update(table)
                .where(table.c.id == bindparam("w_id"))
                .values({name: bindparam(f"v_{name}") for name in sorted(values)})
                .returning(*self._definition.columns)
            )
            self._definition.statements[key] = statement
        parameters = {f"v_{name}": value for name, value in values.items()}
        row = self._connection.execute(statement, {**parameters, "w_id": id}).first()
        if row is None:
            raise KeyError(id)
        return self._definition.codec.decode(row)

    def delete(self, id: str) -> None:
        """Delete a row; an absent one is fine."""
        self.delete_where(id=id)


class TagTable:
    """Tags of any resource, inside one transaction."""

    def __init__(self, connection: Connection, writable: bool) -> None:
        self._connection = connection
        self._writable = writable

    def set(self, resource_id: str, tags: Mapping[str, str]) -> None:
        """Add tags to a resource, or give those it has new values."""
        self.set_many({resource_id: tags})

    def set_many(self, tags: Mapping[str, Mapping[str, str]]) -> None:
        """Set tags of many resources, by resource id."""
        self._must_write()
        values = [
            {"resource_id": resource_id, "key": key, "value": value}
            for resource_id, pairs in tags.items()
            for key, value in pairs.items()
        ]
        upsert = _UPSERT_TAG[self._connection.dialect.name]
        for start in range(0, len(values), INSERT_CHUNK):
            self._connection.execute(upsert, values[start : start + INSERT_CHUNK])

    def delete(self, resource_id: str, keys: Collection[str] | None = None) -> None:
        """Remove tags by key, or all of them; absent ones are fine."""
        self._must_write()
        statement = delete(schema.tags).where(schema.tags.c.resource_id == resource_id)
        if keys is not None:
            statement = statement.where(schema.tags.c.key.in_(list(keys)))
        self._connection.execute(statement)

    def of(self, ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return the tags of resources, by id and key; a resource without tags is absent."""
        wanted = list(_distinct(ids))
        found: dict[str, dict[str, str]] = {}
        for start in range(0, len(wanted), IN_CHUNK):
            self._collect(_TAGS_OF, {"ids": wanted[start : start + IN_CHUNK]}, found)
        return found

    def all(self) -> dict[str, dict[str, str]]:
        """Return every tag, by resource id and key."""
        found: dict[str, dict[str, str]] = {}
        self._collect(_ALL_TAGS, {}, found)
        return found

    def _collect(
        self, statement: sqlalchemy.Executable, parameters: dict[str, object], found: dict[str, dict[str, str]]
    ) -> None:
        for resource_id, key, value in self._connection.execute(statement, parameters):
            found.setdefault(resource_id, {})[key] = value

    def _must_write(self) -> None:
        if not self._writable:
            raise RuntimeError("this is a read transaction; use Store.write")


_tags = schema.tags.c
_ALL_TAGS = select(_tags.resource_id, _tags.key, _tags.value).order_by(_tags.resource_id, _tags.key)
_TAGS_OF = _ALL_TAGS.where(_tags.resource_id.in_(bindparam("ids", expanding=True)))
_sqlite_insert = sqlite.insert(schema.tags)
_postgresql_insert = postgresql.insert(schema.tags)
_UPSERT_TAG: dict[str, sqlalchemy.Executable] = {
    "sqlite": _sqlite_insert.on_conflict_do_update(
        index_elements=["resource_id", "key"], set_={"value": _sqlite_insert.excluded.value}
    ),
    "postgresql": _postgresql_insert.on_conflict_do_update(
        index_elements=["resource_id", "key"], set_={"value": _postgresql_insert.excluded.value}
    ),
}


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
