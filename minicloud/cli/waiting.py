"""Waiting with live progress: one line per resource, its stage and how long it took. Owns the display, not the facts:
the daemon's WaitForChange answers when something changes, so nothing here polls.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import click

LONG_POLL_SECONDS = 20.0

STAGES = {
    "prepare": "preparing disks and network",
    "fill": "bringing the image to the host",
    "boot": "starting the domain",
    "watch": "running",
    "press": "pressing the power button",
    "await_off": "waiting for the guest to power off",
    "unplug": "taking network and ephemeral disks away",
    "rest": "stopped",
    "destroy": "ending the domain",
    "clean": "deleting disks and network",
    "forget": "terminated",
    "start": "inspecting the image",
    "await_job": "storing blocks",
    "cleanup": "done",
}
DEAD_ENDS = {"running": ("terminated", "stopped"), "stopped": ("terminated",), "completed": ("deleted",)}


class _Lines:
    """Shows the stage of each resource: redrawn on a terminal, one line a change elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._started = time.monotonic()
        self._last: dict[str, str] = {}
        self._live = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=8)
            self._live.start()

    def show(self, resources: list[dict[str, Any]]) -> None:
        texts = {one["Id"]: _describe(one) for one in resources}
        if self._live is not None:
            from rich.text import Text

            elapsed = f"{time.monotonic() - self._started:5.1f}s"
            self._live.update(Text("\n".join(f"{elapsed}  {id}  {text}" for id, text in texts.items())))
        elif not self._quiet:
            for id, text in texts.items():
                if self._last.get(id) != text:
                    click.echo(f"{time.monotonic() - self._started:6.2f}s  {id}  {text}", err=True)
        self._last = texts

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def _describe(one: dict[str, Any]) -> str:
    stage = STAGES.get(str(one.get("Step")), str(one.get("Step") or ""))
    text = str(one["State"]) if stage in ("", one["State"]) else f"{one['State']}: {stage}"
    if one.get("Progress") is not None and one["State"] not in ("completed", "available"):
        text += f" {one['Progress']}%"
    if one.get("Attempt"):
        text += f" (attempt {int(one['Attempt']) + 1})"
    return text


def wait_for(
    settings: Any,
    ids: list[str],
    is_done: Callable[[dict[str, Any]], bool],
    is_dead_end: Callable[[dict[str, Any]], bool],
    timeout_seconds: float,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Wait until every resource is done, showing stages. Exits with 4 at the timeout, 1 at a dead end."""
    from minicloud.cli.main import EXIT_REFUSED, EXIT_TIMEOUT

    deadline = time.monotonic() + timeout_seconds
    lines = _Lines(quiet)
    token = None
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                click.echo(f"Error: still waiting after {timeout_seconds:.0f} s; it goes on without us.", err=True)
                sys.exit(EXIT_TIMEOUT)
            patience = min(LONG_POLL_SECONDS, left)
            answer = settings.door(patience + 30).minicloud(
                "WaitForChange", Ids=ids, Since=token, TimeoutSeconds=patience
            )
            token = answer["Token"]
            resources = answer["Resources"]
            lines.show(resources)
            for one in resources:
                if is_dead_end(one):
                    lines.close()
                    click.echo(
                        f"Error: {one['Id']} is {one['State']}: {one.get('Reason') or 'no reason given'}", err=True
                    )
                    sys.exit(EXIT_REFUSED)
            if all(is_done(one) for one in resources):
                return list(resources)
    finally:
        lines.close()


def wait_for_state(settings: Any, ids: list[str], wanted: str, timeout_seconds: float, quiet: bool) -> None:
    """Wait until every instance is in the wanted state."""
    wait_for(
        settings,
        ids,
        lambda one: one["State"] == wanted,
        lambda one: one["State"] in DEAD_ENDS.get(wanted, ()),
        timeout_seconds,
        quiet,
    )
