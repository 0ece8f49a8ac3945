"""Results of the ec2 and query protocols: from a dict keyed by botocore's member names to XML.

Owns the writing of values and the two success envelopes. Refuses, with TypeError, what the output shape does not have:
that is a bug of the handler, and a client must never be sent half an answer. Called by `replies`.

Each operation's output shape is compiled once into nested functions that append text, because describing a thousand
instances writes a hundred thousand elements.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from minicloud.aws.models import Member, Operation, Shape
from minicloud.aws.text import escape_xml

XML_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

_Append = Callable[[str], None]
_Writer = Callable[[Any, _Append], None]  # writes a member of a structure, its tags included
_Content = Callable[[Any], str]  # text of a scalar, already escaped


def render_xml(operation: Operation, output: Mapping[str, Any] | None, *, request_id: str, version: str) -> bytes:
    """The whole success document. `version` is the API version the caller named; None members are left out.

    Raises TypeError for members the shape does not have and values of the wrong type.
    """
    service, name = operation.service, operation.name
    parts: list[str] = [f'{XML_DECLARATION}<{name}Response xmlns="{escape_xml(service.namespace(version))}">']
    if service.speaks_ec2:
        parts.append(f"<requestId>{escape_xml(request_id)}</requestId>")
        if operation.output is None:
            # Libcloud and boto 2 read this as "it worked".
            parts.append("<return>true</return>")
        _write_output(operation, output, parts.append)
    else:
        if operation.result_wrapper is not None:
            parts.append(f"<{operation.result_wrapper}>")
        _write_output(operation, output, parts.append)
        if operation.result_wrapper is not None:
            parts.append(f"</{operation.result_wrapper}>")
        parts.append(f"<ResponseMetadata><RequestId>{escape_xml(request_id)}</RequestId></ResponseMetadata>")
    parts.append(f"</{name}Response>")
    return "".join(parts).encode()


def render_timestamp(when: datetime) -> str:
    """EC2's spelling of a time: 2009-01-01T00:00:00.000Z. Raises TypeError without a zone."""
    if when.tzinfo is None:
        raise TypeError("a time needs a zone")
    when = when.astimezone(UTC)
    return (
        f"{when.year:04}-{when.month:02}-{when.day:02}T{when.hour:02}:{when.minute:02}:{when.second:02}"
        f".{when.microsecond // 1000:03}Z"
    )


def _write_output(operation: Operation, output: Mapping[str, Any] | None, append: _Append) -> None:
    if operation.output is None:
        if output:
            raise TypeError(f"{operation.name} has no output, got {sorted(output)}")
        return
    writer = _compiled.get(operation)
    if writer is None:
        writer = _compiled[operation] = _Compiler().members(operation.output)
    writer(output or {}, append)


_compiled: WeakKeyDictionary[Operation, _Writer] = WeakKeyDictionary()


class _Compiler:
    """Makes writers from shapes, each structure once, so that shapes which contain themselves end."""

    def __init__(self) -> None:
        self._structures: dict[Shape, _Writer] = {}

    def members(self, shape: Shape) -> _Writer:
        """A writer of a structure's members, without a tag around them."""
        if shape in self._structures:
            return self._structures[shape]
        writers: dict[str, _Writer] = {}

        def write(value: Any, append: _Append) -> None:
            for name, item in value.items():
                if item is None:
                    continue
                writer = writers.get(name)
                if writer is None:
                    raise TypeError(f"{shape.name} has no member {name!r}")
                writer(item, append)

        self._structures[shape] = write
        for name, member in shape.members.items():
            writers[name] = self.tagged(member, member.reply_name)
        return write

    def tagged(self, member: Member, tag: str) -> _Writer:
        """A writer of one member with its tag."""
        shape = member.shape
        if shape.kind == "structure":
            return _around(tag, self.members(shape))
        if shape.kind == "list":
            assert shape.element is not None
            return _around_many(tag, self.tagged(shape.element, shape.element.reply_name))
        if shape.kind == "map":
            return self._map(member, tag)
        return _scalar(shape, tag)

    def _map(self, member: Member, tag: str) -> _Writer:
        key, value = member.shape.key, member.shape.value
        assert key is not None and value is not None
        write_key, write_value = self.tagged(key, key.reply_name), self.tagged(value, value.reply_name)

        def write(entries: Any, append: _Append) -> None:
            for name, item in entries.items():
                append("<entry>")
                write_key(name, append)
                write_value(item, append)
                append("</entry>")

        return _around(tag, write)


def _around(tag: str, inner: _Writer) -> _Writer:
    opening, closing = f"<{tag}>", f"</{tag}>"

    def write(value: Any, append: _Append) -> None:
        append(opening)
        inner(value, append)
        append(closing)

    return write


def _around_many(tag: str, inner: _Writer) -> _Writer:
    empty, opening, closing = f"<{tag}/>", f"<{tag}>", f"</{tag}>"

    def write(values: Any, append: _Append) -> None:
        _refuse_text(values)
        if not values:
            append(empty)
            return
        append(opening)
        for value in values:
            inner(value, append)
        append(closing)

    return write


def _refuse_text(values: Any) -> None:
    if isinstance(values, str | bytes):  # iterable, and so almost a list of letters
        raise TypeError("a list is needed, not text")


def _scalar(shape: Shape, tag: str) -> _Writer:
    content = _CONTENTS[shape.kind]
    opening, closing, empty = f"<{tag}>", f"</{tag}>", f"<{tag}/>"

    def write(value: Any, append: _Append) -> None:
        try:
            text = content(value)
        except TypeError as error:
            raise TypeError(f"{shape.name} in <{tag}>: {error}") from None
        append(f"{opening}{text}{closing}" if text else empty)

    return write


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text is needed, not {type(value).__name__}")
    return escape_xml(value)


def _integer(value: Any) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"an integer is needed, not {type(value).__name__}")
    return str(value)


def _float(value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"a number is needed, not {type(value).__name__}")
    if not math.isfinite(value):
        raise TypeError("a finite number is needed")  # clients' parsers disagree about all others
    return repr(float(value))


def _boolean(value: Any) -> str:
    if not isinstance(value, bool):
        raise TypeError(f"true or false is needed, not {type(value).__name__}")
    return "true" if value else "false"


def _timestamp(value: Any) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"a time is needed, not {type(value).__name__}")
    return render_timestamp(value)


def _blob(value: Any) -> str:
    if not isinstance(value, bytes | bytearray):
        raise TypeError(f"bytes are needed, not {type(value).__name__}")
    return base64.b64encode(value).decode()


_CONTENTS: dict[str, _Content] = {
    "string": _string,
    "integer": _integer,
    "long": _integer,
    "float": _float,
    "double": _float,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "blob": _blob,
}
