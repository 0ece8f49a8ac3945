"""Filter patterns against a matcher that is nothing but their definition, and what hostile ones cost."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.patterns import PATTERNS, SPECIAL, TEXTS, naive_matches, table_matches

from minicloud.model import patterns
from minicloud.model.patterns import matches, parse_pattern

pytestmark = pytest.mark.usefixtures("no_memory_of_patterns")


@pytest.fixture
def no_memory_of_patterns() -> None:
    """What a test before this one parsed must not answer for it."""
    patterns._compile.cache_clear()
    parse_pattern.cache_clear()


@pytest.mark.parametrize(
    ("pattern", "text", "matched"),
    [
        ("", "", True),
        ("", "a", False),
        ("a", "a", True),
        ("a", "A", False),
        ("a", "aa", False),
        ("*", "", True),
        ("*", "anything\nat all", True),
        ("?", "", True),
        ("?", "a", True),
        ("?", "ab", False),
        ("??", "a", True),
        ("a?c", "ac", True),
        ("a?c", "abc", True),
        ("a?c", "abbc", False),
        ("a*c", "ac", True),
        ("a*c", "abcabc", True),
        ("a*c", "abca", False),
        ("*a*", "banana", True),
        ("*?*", "", True),
        ("?*a", "a", True),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("\\?", "?", True),
        ("\\?", "", False),
        ("\\\\", "\\", True),
        ("\\", "\\", True),
        ("a\\", "a\\", True),
        ("\\a", "a", True),
        ("\\\\*", "\\anything", True),
        ("\\**", "*anything", True),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a.c", "abc", False),
        ("%", "abc", False),
        ("_", "a", False),
        ("?", "\U0001f600", True),
        ("\u00e4", "a\u0308", False),
    ],
)
def test_what_patterns_mean(pattern: str, text: str, matched: bool) -> None:
    assert parse_pattern(pattern).matches(text) is matched
    assert matches(pattern, text) is matched
    assert naive_matches(pattern, text) is matched


def test_nothing_is_matched_by_no_pattern() -> None:
    assert not matches("*", None)
    assert not matches("", None)


@settings(max_examples=1000, deadline=None)
@given(PATTERNS, TEXTS)
def test_patterns_match_as_they_are_defined(pattern: str, text: str) -> None:
    assert parse_pattern(pattern).matches(text) is naive_matches(pattern, text)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.data())
def test_a_text_with_parts_left_out_is_matched(text: str, data: st.DataObject) -> None:
    """What people do to a value that they saw."""
    pattern = escape(text)
    first, second = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    assert matches(pattern, text)
    assert matches(f"{escape(text[:first])}*{escape(text[second:])}", text)
    one = "?" * (second - first)
    assert matches(f"{escape(text[:first])}{one}{escape(text[second:])}", text)
    assert matches(f"{pattern}?", text)
    assert not matches(pattern, text + "x")


@settings(max_examples=500, deadline=None)
@given(PATTERNS, TEXTS)
def test_each_language_says_the_same(pattern: str, text: str) -> None:
    """GLOB as fnmatch has it, LIKE by its definition, the regular expression as Python has it."""
    parsed = parse_pattern(pattern)
    expected = naive_matches(pattern, text)
    assert (re.match(f"{parsed.as_regex()[:-1]}\\Z", text, re.DOTALL) is not None) is expected
    if parsed.is_simple:
        assert fnmatchcase(text, parsed.as_glob()) is expected
        assert like(parsed.as_like(), text) is expected
    if parsed.literal is not None:
        assert (parsed.literal == text) is expected


def test_simple_is_what_no_database_takes_long_for() -> None:
    assert [parse_pattern(one).is_simple for one in ("", "a", "a*", "*a*", "a**b", "\\?*")] == [True] * 6
    assert not any(parse_pattern(one).is_simple for one in ("?", "a?", "*a*b*", "*?"))


HOSTILE = [
    "*a" * 127,
    "*a" * 127 + "b",
    "?" * 255,
    "?" * 254 + "b",
    "a?" * 127,
    "*?" * 127,
    "?*" * 127 + "b",
    "?a*" * 85,
    "*" * 254 + "b",
    "\\*" * 127 + "*",
]


@pytest.mark.parametrize("pattern", HOSTILE, ids=lambda one: one[:6])
def test_a_hostile_pattern_costs_as_much_as_the_text_is_long(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: for each character at most a few looks at the states, whatever came before."""
    looks = 0
    look = patterns._skipped

    class Skip(int):
        """Counts the rounds of the loop that follows skips."""

        def __rand__(self, other: int) -> int:
            nonlocal looks
            looks += 1
            return int(self) & other

    monkeypatch.setattr(patterns, "_skipped", lambda states, skip: look(states, Skip(skip)))
    costs = []
    for length in (200, 400, 800):
        looks = 0
        parse_pattern(pattern).matches("a" * length)
        costs.append(looks)
    # The first closure may walk the whole pattern; after it the cost is linear in the text.
    assert costs[0] <= len(pattern) + 1 + 200 * 130
    assert costs[2] <= 4.1 * max(costs[0], 1)
    # A pattern twice as long costs at most four times as much.
    looks = 0
    parse_pattern(pattern[: len(pattern) // 2]).matches("a" * 400)
    assert costs[1] <= 4.5 * looks + 600


@pytest.mark.parametrize("pattern", HOSTILE, ids=lambda one: one[:6])
def test_a_hostile_pattern_still_means_what_it_says(pattern: str) -> None:
    for text in ("", "a" * 10, "a" * 255, "a" * 254 + "b", "b" * 300, "*" * 127):
        assert parse_pattern(pattern).matches(text) is table_matches(pattern, text)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, TEXTS)
def test_the_two_models_agree(pattern: str, text: str) -> None:
    assert table_matches(pattern, text) is naive_matches(pattern, text)


def escape(text: str) -> str:
    """Return the pattern that matches exactly a text."""
    return "".join(f"\\{character}" if character in "*?\\" else character for character in text)


def like(pattern: str, text: str) -> bool:
    """SQL's LIKE with the escape character backslash, by its definition."""

    @cache
    def rest(at: int, begin: int) -> bool:
        if at == len(pattern):
            return begin == len(text)
        if pattern[at] == "%":
            return any(rest(at + 1, end) for end in range(begin, len(text) + 1))
        if pattern[at] == "_":
            return begin < len(text) and rest(at + 1, begin + 1)
        step = 2 if pattern[at] == "\\" else 1
        return begin < len(text) and pattern[at + step - 1] == text[begin] and rest(at + step, begin + 1)

    return rest(0, 0)


def test_the_alphabet_holds_what_databases_treat_specially() -> None:
    assert set("*?\\[]%_'\"\n") <= set(SPECIAL)
