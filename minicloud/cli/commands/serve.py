"""`minicloud serve`: the daemon in the foreground, as systemd and containers want it."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.pass_obj
def serve(settings: Any, log_level: str) -> None:
    """Run the daemon until SIGTERM or SIGINT; guests go on without it."""
    from minicloud.config import load_config
    from minicloud.daemon import serve as run_daemon

    run_daemon(load_config(settings.config_path), log_level)
