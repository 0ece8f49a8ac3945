"""Text that XML 1.0 can carry. Used by the parsers, to refuse what no reply could show, and by the renderers."""

from __future__ import annotations

import re

# https://www.w3.org/TR/xml/#charsets, "Char": everything else cannot be written, not even as a reference.
_ILLEGAL = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
find_illegal = re.compile(f"[{_ILLEGAL}]").search
# A bare carriage return would come back as a line feed.
_needs_care = re.compile(f"[&<>\r{_ILLEGAL}]").search
_drop_illegal = re.compile(f"[{_ILLEGAL}]").sub


def escape_xml(text: str) -> str:
    """Text as the content of an element; characters that XML 1.0 cannot carry are dropped."""
    if _needs_care(text) is None:  # nearly always
        return text
    text = _drop_illegal("", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#xD;")


def clip(text: str, limit: int = 100) -> str:
    """A caller's own value, short enough to be repeated in a message to the caller."""
    return text if len(text) <= limit else text[:limit] + "..."
