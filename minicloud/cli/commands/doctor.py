"""`minicloud doctor`: what this machine lacks as a KVM host and controller, and how to mend each."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import click

from minicloud.cli.output import json_option, print_json

MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


@click.command()
@json_option
@click.pass_obj
def doctor(settings: Any, as_json: bool) -> None:
    """Check this machine: KVM, libvirt, QEMU, network tools, disk space, init, clock. Exits with 1 if one fails."""
    from minicloud.config import load_config
    from minicloud.daemon import check_this_machine

    checks = check_this_machine(load_config(settings.config_path))
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        for check in checks:
            mark, colour = MARKS[check.status]
            click.secho(mark, fg=colour, nl=False)
            click.echo(f"  {check.name.ljust(13)} {check.found}")
            if check.mend:
                click.echo(f"      {'':13} → {check.mend}")
    if any(check.status == "fail" for check in checks):
        sys.exit(1)
