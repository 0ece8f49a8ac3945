"""What filter patterns mean, word for word, and strategies that draw patterns and texts that meet each other."""

from __future__ import annotations

from hypothesis import strategies as st

# Whatever some database or some language of patterns treats specially, among characters that occur in values.
SPECIAL = "*?\\[]^!-%_'\"\n\r\t.$(){}|+:#, "
ALPHABET = "aaabAB0" + SPECIAL + "\u00e4\u0308\u00df\u0130\u2028\u4e2d\U0001f600\x7f\ufffd"


def naive_matches(pattern: str, text: str) -> bool:
    """Say whether a pattern matches a text, by the definition alone. Takes for ever where both are long."""
    if not pattern:
        return not text
    first, rest = pattern[0], pattern[1:]
    if first == "*":
        return any(naive_matches(rest, text[skipped:]) for skipped in range(len(text) + 1))
    if first == "?":
        return naive_matches(rest, text) or (bool(text) and naive_matches(rest, text[1:]))
    if first == "\\" and rest:
        first, rest = rest[0], rest[1:]
    return text[:1] == first and naive_matches(rest, text[1:])


def table_matches(pattern: str, text: str) -> bool:
    """The definition as a table, for what is too long for the recursive one."""
    parts: list[tuple[str, bool]] = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            parts.append((pattern[at + 1] if at + 1 < len(pattern) else "\\", False))
            at += 2
        else:
            parts.append((pattern[at], pattern[at] in "*?"))
            at += 1
    row = [True] + [False] * len(text)
    for part, wild in parts:
        before, row = row, [False] * (len(text) + 1)
        for end in range(len(text) + 1):
            if wild and part == "*":
                row[end] = before[end] or (end > 0 and row[end - 1])
            elif wild:
                row[end] = before[end] or (end > 0 and before[end - 1])
            else:
                row[end] = end > 0 and before[end - 1] and text[end - 1] == part
    return row[-1]


# NUL is in no text that the cloud holds (see minicloud/api/listing.py), and half of a surrogate pair is no text.
_ANY = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
_CHARACTERS = st.one_of(st.sampled_from(ALPHABET), st.sampled_from("ab"), _ANY)
TEXTS = st.text(_CHARACTERS, max_size=8)
PATTERNS = st.one_of(
    st.text(st.one_of(st.sampled_from("*?\\"), _CHARACTERS), max_size=8),
    st.lists(st.sampled_from(["*", "?", "a", "b", "\\", "\\*"]), max_size=9).map("".join),
)
