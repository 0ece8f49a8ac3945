"""The operation table: every AWS operation that minicloud answers, put together of the rows beside the handlers.

Both doors run rows by `perform`: unsupported parameters, then filters and pages, then DryRun, then the handler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minicloud.api import iam, ssm, sts
from minicloud.api.ec2 import (
    accounts,
    consoles,
    dhcp_options,
    images,
    imports,
    instance_attributes,
    instance_data,
    instance_type_offerings,
    instances,
    keys,
    launches,
    metadata_options,
    network_acls,
    network_interfaces,
    prefix_lists,
    regions,
    route_tables,
    security_groups,
    snapshots,
    subnets,
    tags,
    volumes,
    vpcs,
)
from minicloud.api.listing import parse_listing
from minicloud.api.parameters import DRY_RUN, refuse_unsupported
from minicloud.api.rows import Rows
from minicloud.api.services import Context
from minicloud.aws.models import Catalog, load_catalog
from minicloud.errors import ApiError

OPERATIONS: Mapping[str, Rows] = {
    "ec2": {
        **accounts.ROWS,
        **consoles.ROWS,
        **dhcp_options.ROWS,
        **images.ROWS,
        **imports.ROWS,
        **instance_attributes.ROWS,
        **instance_data.ROWS,
        **instance_type_offerings.ROWS,
        **instances.ROWS,
        **keys.ROWS,
        **launches.ROWS,
        **metadata_options.ROWS,
        **network_acls.ROWS,
        **network_interfaces.ROWS,
        **prefix_lists.ROWS,
        **regions.ROWS,
        **route_tables.ROWS,
        **security_groups.ROWS,
        **snapshots.ROWS,
        **subnets.ROWS,
        **tags.ROWS,
        **volumes.ROWS,
        **vpcs.ROWS,
    },
    "iam": iam.ROWS,
    "ssm": ssm.ROWS,
    "sts": sts.ROWS,
}


def load_served_catalog() -> Catalog:
    """Load AWS's models of exactly the operations in the table."""
    return load_catalog(OPERATIONS)


def perform(context: Context, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any] | None:
    """Run one operation with parsed parameters and return its result by botocore's names.

    Raises ApiError: what the operation refuses, UnsupportedOperation, or DryRunOperation for a dry run that would not
    have been refused by its parameters.
    """
    row = OPERATIONS[service][operation]
    refuse_unsupported(parameters, row.honours, row.tolerates)
    dry_run = parameters.pop(DRY_RUN, False)
    listing = parse_listing(context.cloud.seals, context.caller, operation, parameters, row.filters, row.pages)
    if dry_run:
        # The root account may do everything; whoever is refused something is refused before this.
        raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
    return row.handler(replace(context, listing=listing), parameters)
