"""The shorthand that AWS's command line made a habit: `Name=instance-state-name,Values=running,stopped`.

Owns its syntax: keys and values separated by commas, a value that goes on after a comma is a list, `{…}` and `[…]`
nest, quotes and backslashes keep what would separate. Knows no shapes: a value is text, a list or a mapping.
"""

from __future__ import annotations

import re
from typing import Any

MAX_DEPTH = 16

_key = re.compile(r"\s*([A-Za-z0-9_.\-:/#]+)\s*=")


class ShorthandError(ValueError):
    """Not shorthand; the message says where it stopped to be."""


def parse_shorthand(text: str) -> dict[str, Any]:
    """Return the mapping that `text` means. Raises ShorthandError."""
    reader = _Reader(text)
    found = reader.pairs("", 0)
    if reader.at < len(text):
        raise reader.wrong("a comma or the end")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def wrong(self, expected: str) -> ShorthandError:
        return ShorthandError(f"expected {expected} at {self._text[self.at :][:20]!r} in {self._text[:60]!r}")

    def pairs(self, end: str, depth: int) -> dict[str, Any]:
        """key=value, …, up to (not with) the character `end`."""
        found: dict[str, Any] = {}
        while True:
            match = _key.match(self._text, self.at)
            if match is None:
                raise self.wrong("NAME=VALUE")
            if match[1] in found:
                raise ShorthandError(f"{match[1]} is given twice in {self._text[:60]!r}")
            self.at = match.end()
            values = [self._value(end, depth)]
            listed = False
            while self._peek() == ",":
                self.at += 1
                if self._text[self.at :].strip() == "" or self._peek() == end != "":
                    listed = True  # `Values=a,` is a list of one
                    break
                if _key.match(self._text, self.at):
                    self.at -= 1
                    break
                values.append(self._value(end, depth))
            found[match[1]] = values if listed or len(values) > 1 else values[0]
            if self._peek() != ",":
                return found
            self.at += 1

    def _value(self, end: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ShorthandError("nested too deep")
        self._skip_space()
        first = self._peek()
        if first == "{":
            self.at += 1
            nested = self.pairs("}", depth + 1) if self._peek() != "}" else {}
            self._expect("}")
            return nested
        if first == "[":
            self.at += 1
            items: list[Any] = []
            while self._peek() != "]":
                items.append(self._value("]", depth + 1))
                if self._peek() != ",":
                    break
                self.at += 1
            self._expect("]")
            return items
        if first in ("'", '"'):
            return self._quoted(first)
        return self._word(end)

    def _word(self, end: str) -> str:
        found = []
        while (character := self._peek()) not in ("", ",", end):
            if character == "\\" and self.at + 1 < len(self._text):
                self.at += 1
                character = self._text[self.at]
            found.append(character)
            self.at += 1
        return "".join(found).strip()

    def _quoted(self, quote: str) -> str:
        found = []
        self.at += 1
        while (character := self._peek()) != quote:
            if character == "":
                raise self.wrong(f"a closing {quote}")
            if character == "\\" and self._text[self.at + 1 : self.at + 2] in (quote, "\\"):
                self.at += 1
                character = self._text[self.at]
            found.append(character)
            self.at += 1
        self.at += 1
        self._skip_space()
        return "".join(found)

    def _expect(self, character: str) -> None:
        self._skip_space()
        if self._peek() != character:
            raise self.wrong(repr(character))
        self.at += 1
        self._skip_space()

    def _skip_space(self) -> None:
        while self._peek() == " ":
            self.at += 1

    def _peek(self) -> str:
        return self._text[self.at : self.at + 1]
