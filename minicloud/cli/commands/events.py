"""`minicloud events`: the request log, who asked what of which resources and how it ended."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from minicloud.cli.output import json_option, print_json, print_table

LONG_POLL_SECONDS = 20.0
PAGE = 1000
MAX_SHOWN_IDS = 3
COLUMNS = ("TIME", "WHO", "FROM", "ACTION", "MS", "STATUS", "CODE", "RESOURCES")
# While following, nobody knows how wide what comes will be.
WIDTHS = (24, 20, 15, 32, 9, 6, 24, 0)
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on and show requests as they are answered.")
@click.option("--since", metavar="AGE|TIME", help="Not older than this: 30s, 10m, 2h, 1d, or 2026-01-31T12:00:00Z.")
@click.option("--limit", "-n", type=click.IntRange(1, 100_000), help="How many at most, the newest (default: 50).")
@click.option("--errors", is_flag=True, help="Only what was refused or failed.")
@click.option("--slow", is_flag=True, help="Only what took longer than the configured slow_request_seconds.")
@click.option("--operation", metavar="ACTION", help="Only this action, such as RunInstances.")
@click.option("--resource", metavar="ID", help="Only what named or made this resource.")
@json_option
@click.pass_obj
def events(
    settings: Any,
    follow: bool,
    since: str | None,
    limit: int | None,
    errors: bool,
    slow: bool,
    operation: str | None,
    resource: str | None,
    as_json: bool,
) -> None:
    """Show the requests of both doors, the newest last.

    WHO is an access key id, with ? where its signature did not hold, or the user at the daemon's socket. RESOURCES are
    those that a request made or named; of very many only the first are kept. With --follow, --json prints one document
    a line.
    """
    wanted = {
        "StartTime": _parse_since(since, datetime.now(UTC)) if since else None,
        "ErrorsOnly": errors or None,
        "SlowOnly": slow or None,
        "Operation": operation.rpartition(":")[2] if operation else None,
        "ResourceId": resource,
    }
    found, last = _newest(settings.door(), wanted, limit or (10 if follow else 50))
    if not follow:
        if as_json:
            print_json(found)
        else:
            print_table(COLUMNS, [_row(one) for one in found], "No requests.")
        return
    if not as_json:
        _echo(COLUMNS)
    try:
        while True:
            for one in found:
                if as_json:
                    click.echo(json.dumps(one))
                else:
                    _echo(_row(one))
            answer = settings.door(LONG_POLL_SECONDS + 30).minicloud(
                "WaitForEvents", **wanted, After=last, TimeoutSeconds=LONG_POLL_SECONDS, MaxResults=PAGE
            )
            found, last = answer["Events"], answer["LastSequence"]
    except KeyboardInterrupt:
        return


def _newest(door: Any, wanted: dict[str, Any], limit: int) -> tuple[list[dict[str, Any]], int]:
    """Return the newest events, the oldest of them first, and the number to follow from."""
    found: list[dict[str, Any]] = []
    last = token = None
    while len(found) < limit:
        answer = door.minicloud("DescribeEvents", **wanted, MaxResults=min(PAGE, limit - len(found)), NextToken=token)
        found += answer["Events"]
        last = answer["LastSequence"] if last is None else last
        token = answer.get("NextToken")
        if token is None:
            break
    return found[::-1], last or 0


def _parse_since(text: str, now: datetime) -> str:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    try:
        if match:
            return (now - timedelta(**{UNITS[match[2]]: int(match[1])})).isoformat()
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, OverflowError):
        raise click.UsageError("--since: write an age such as 10m, or a time such as 2026-01-31T12:00:00Z.") from None
    return time.astimezone().isoformat()  # a time without a zone is the reader's own


def _row(event: dict[str, Any]) -> tuple[str, ...]:
    proven = event["AccountId"] is not None
    ids = event["ResourceIds"][:MAX_SHOWN_IDS]
    more = event["ResourceCount"] - len(ids)
    action = f"{event['Service'] or '-'}:{event['Operation'] or '-'}"
    return (
        event["Time"],
        (event["Principal"] or "-") + ("" if proven else "?"),
        event["SourceAddress"],
        action,
        f"{event['LatencyMs']:.1f}" + ("!" if event["Slow"] else ""),
        str(event["Status"]),
        event["Code"] or "-",
        " ".join(ids) + (f" +{more}" if more > 0 else ""),
    )


def _echo(cells: Sequence[str]) -> None:
    click.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip())
