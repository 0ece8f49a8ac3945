"""`minicloud zone …`: availability zones come to be with their first host; here they are listed."""

from __future__ import annotations

from typing import Any

import click

from minicloud.cli.output import json_option, print_json, print_table


@click.group()
def zone() -> None:
    """List availability zones."""


@zone.command("ls")
@json_option
@click.pass_obj
def ls(settings: Any, as_json: bool) -> None:
    """List availability zones."""
    rows = settings.door().ec2("DescribeAvailabilityZones").get("AvailabilityZones") or []
    if as_json:
        print_json(rows)
        return
    print_table(
        ("ZONE", "ID", "REGION", "STATE"),
        [(one["ZoneName"], one["ZoneId"], one["RegionName"], one["State"]) for one in rows],
        "No zones. The first host of a zone makes it: `minicloud host add NAME --zone local-1a`.",
    )
