"""Patterns of filter values: `*`, `?` and the backslash that takes their meaning away.

Source: EC2 user guide, "Filtering resources": `*` matches zero or more characters, `?` zero or one; values are
case-sensitive. Pure; the store asks databases with what is made here, and what is not in a database is matched here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

MANY = "*"
ONE = "?"
ESCAPE = "\\"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed filter value: each part is a literal text, or MANY or ONE as (text, True)."""

    source: str
    parts: tuple[tuple[str, bool], ...]

    @property
    def literal(self) -> str | None:
        """The one text that it matches, None if it has wildcards."""
        if any(wild for _, wild in self.parts):
            return None
        return "".join(text for text, _ in self.parts)

    @property
    def is_simple(self) -> bool:
        """Whether its only wildcards are at most two `*`: what a database matches fast whatever the texts are."""
        wild = [text for text, wild in self.parts if wild]
        return ONE not in wild and len(wild) <= 2

    def matches(self, text: str) -> bool:
        """Say whether a text matches. Takes a time proportional to both lengths: no pattern can make it explode."""
        literal = self.literal
        if literal is not None:
            return literal == text
        return _run(_compile(self.source), text)

    def as_glob(self) -> str:
        """Return it for SQLite's GLOB. Simple patterns only."""
        return "".join(text if wild else _escape_glob(text) for text, wild in self.parts)

    def as_like(self) -> str:
        """Return it for LIKE with the escape character backslash. Simple patterns only."""
        return "".join("%" if wild else _escape_each(text, "%_\\") for text, wild in self.parts)

    def as_regex(self) -> str:
        """Return it as a regular expression of PostgreSQL's, anchored at both ends."""
        body = "".join(
            (".*" if text == MANY else ".?") if wild else _escape_each(text, r".^$*+?()[]{}|\\")
            for text, wild in self.parts
        )
        return f"^(?:{body})$"


@lru_cache(maxsize=1024)
def parse_pattern(source: str) -> Pattern:
    """Return the pattern of a filter value. A backslash makes the next character plain; a last one is plain itself."""
    parts: list[tuple[str, bool]] = []
    plain: list[str] = []
    characters = iter(source)
    for character in characters:
        if character in (MANY, ONE):
            if plain:
                parts.append(("".join(plain), False))
                plain = []
            # "**" is "*".
            if not (character == MANY and parts and parts[-1] == (MANY, True)):
                parts.append((character, True))
        elif character == ESCAPE:
            plain.append(next(characters, ESCAPE))
        else:
            plain.append(character)
    if plain or not parts:
        parts.append(("".join(plain), False))
    return Pattern(source, tuple(parts))


def matches(source: str, text: str | None) -> bool:
    """Say whether a text matches the pattern `source`; None matches nothing."""
    return text is not None and parse_pattern(source).matches(text)


@dataclass(frozen=True, slots=True)
class _Automaton:
    """Bit i stands for position i of the pattern. `by_character` are positions that a character moves on from."""

    by_character: dict[str, int]
    stay: int
    skip: int
    accept: int


@lru_cache(maxsize=256)
def _compile(source: str) -> _Automaton:
    by_character: dict[str, int] = {}
    stay = skip = position = 0
    for text, wild in parse_pattern(source).parts:
        if not wild:
            for character in text:
                by_character[character] = by_character.get(character, 0) | 1 << position
                position += 1
            continue
        skip |= 1 << position
        if text == MANY:
            stay |= 1 << position
        position += 1
    return _Automaton(by_character, stay, skip, 1 << position)


def _run(automaton: _Automaton, text: str) -> bool:
    skip, stay = automaton.skip, automaton.stay
    # `?` moves on by any character, `*` stays with any; both may be skipped.
    one = skip & ~stay
    states = _skipped(1, skip)
    for character in text:
        moved = states & (automaton.by_character.get(character, 0) | one)
        states = _skipped(states & stay | moved << 1, skip)
        if not states:
            return False
    return bool(states & automaton.accept)


def _skipped(states: int, skip: int) -> int:
    """Return the states with all that they reach without a character."""
    while True:
        reached = states | (states & skip) << 1
        if reached == states:
            return states
        states = reached


def _escape_glob(text: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)


def _escape_each(text: str, special: str) -> str:
    return "".join(f"\\{character}" if character in special else character for character in text)
