"""DHCP option sets: the default one, of what guests are told on every host (see cloud/vpc_parts.py)."""

from __future__ import annotations

from typing import Any

from minicloud.api.listing import Pages
from minicloud.api.matching import ShownFilters
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud.vpc_parts import DhcpOptionSet, describe_dhcp_options

_FILTERS = ShownFilters(
    "DhcpOptionsId",
    {
        "dhcp-options-id": "DhcpOptionsId",
        "key": "DhcpConfigurations.Key",
        "owner-id": "OwnerId",
        "value": "DhcpConfigurations.Values.Value",
    },
    has_tags=True,
)


def describe_dhcp_option_sets(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeDhcpOptions."""
    sets = describe_dhcp_options(context.cloud, context.caller, parameters.get("DhcpOptionsIds", ()))
    found = _FILTERS.page([_render(one) for one in sets], context.asked)
    return {"DhcpOptions": found.items, "NextToken": context.next_token(found)}


def _render(one: DhcpOptionSet) -> dict[str, Any]:
    return {
        "DhcpOptionsId": one.id,
        "OwnerId": one.account_id,
        "DhcpConfigurations": [
            {"Key": "domain-name", "Values": [{"Value": one.domain_name}]},
            {"Key": "domain-name-servers", "Values": [{"Value": server} for server in one.domain_name_servers]},
        ],
        "Tags": [],
    }


ROWS: Rows = {
    "DescribeDhcpOptions": row(describe_dhcp_option_sets, "DhcpOptionsIds", filters=_FILTERS, pages=Pages(5, 1000)),
}
