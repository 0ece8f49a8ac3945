"""How answers look: tables for people, JSON for programs. Owns no data; rich is imported only when a table is drawn."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

STATE_STYLES = {
    "running": "green",
    "available": "green",
    "up": "green",
    "completed": "green",
    "pending": "yellow",
    "stopping": "yellow",
    "shutting-down": "yellow",
    "stopped": "dim",
    "terminated": "dim",
    "failed": "red",
    "down": "red",
}


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(document: object) -> None:
    """Print a document as indented JSON."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print rows as a borderless table; `empty` says what to do when there are none."""
    if not rows:
        click.echo(empty, err=True)
        return
    if not sys.stdout.isatty():
        _print_plain(columns, rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(cell), style=STATE_STYLES.get(_text(cell), "")) for cell in row))
    Console().print(table)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Align columns without rich: piped output needs no colour, and scripts no start-up cost."""
    cells = [list(columns)] + [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_fields(title: str, fields: Sequence[tuple[str, object]]) -> None:
    """Print one thing as aligned names and values; absent values are left out."""
    shown = [(name, value) for name, value in fields if value not in (None, "", [])]
    width = max((len(name) for name, _ in shown), default=0)
    click.secho(title, bold=True)
    for name, value in shown:
        text = _text(value)
        click.echo(f"  {name.ljust(width)}  ", nl=False)
        click.secho(text, fg=_colour(text))


def _colour(text: str) -> str | None:
    style = STATE_STYLES.get(text)
    return style if style not in (None, "dim") else None


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "-"
    return str(value)


def age(timestamp: str | None) -> str:
    """Return how long ago an ISO 8601 time was, in one unit: 12s, 5m, 3h, 9d."""
    if not timestamp:
        return "-"
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(timestamp.replace("Z", "+00:00"))).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def gib(size_bytes: float) -> str:
    """Return bytes as GiB with one decimal."""
    return f"{size_bytes / 1024**3:.1f} GiB"


def name_of(resource: dict[str, Any]) -> str | None:
    """Return the Name tag of a described resource."""
    return next((tag["Value"] for tag in resource.get("Tags") or [] if tag["Key"] == "Name"), None)
