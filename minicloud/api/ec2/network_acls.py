"""Network ACLs: each VPC's default one, which lets everything pass; security groups decide (see cloud/vpc_parts.py)."""

from __future__ import annotations

from typing import Any

from minicloud.api.listing import Pages
from minicloud.api.matching import ShownFilters
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud.vpc_parts import ANYWHERE, NETWORK_ACLS, Part, describe_parts, network_acl_association_id

ALL_PROTOCOLS = "-1"
# The rules of a default network ACL (VPC user guide): allow all by number 100, deny what no other rule took.
RULES = ((100, "allow"), (32767, "deny"))

_FILTERS = ShownFilters(
    "NetworkAclId",
    {
        "association.association-id": "Associations.NetworkAclAssociationId",
        "association.network-acl-id": "Associations.NetworkAclId",
        "association.subnet-id": "Associations.SubnetId",
        "default": "IsDefault",
        "entry.cidr": "Entries.CidrBlock",
        "entry.egress": "Entries.Egress",
        "entry.icmp.code": "Entries.IcmpTypeCode.Code",
        "entry.icmp.type": "Entries.IcmpTypeCode.Type",
        "entry.ipv6-cidr": "Entries.Ipv6CidrBlock",
        "entry.port-range.from": "Entries.PortRange.From",
        "entry.port-range.to": "Entries.PortRange.To",
        "entry.protocol": "Entries.Protocol",
        "entry.rule-action": "Entries.RuleAction",
        "entry.rule-number": "Entries.RuleNumber",
        "network-acl-id": "NetworkAclId",
        "owner-id": "OwnerId",
        "vpc-id": "VpcId",
    },
    has_tags=True,
)


def describe_network_acls(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeNetworkAcls."""
    parts = describe_parts(context.cloud, context.caller, NETWORK_ACLS, parameters.get("NetworkAclIds", ()))
    found = _FILTERS.page([_render(one) for one in parts], context.asked)
    return {"NetworkAcls": found.items, "NextToken": context.next_token(found)}


def _render(one: Part) -> dict[str, Any]:
    return {
        "NetworkAclId": one.id,
        "VpcId": one.vpc.id,
        "OwnerId": one.vpc.account_id,
        "IsDefault": True,
        "Associations": [
            {
                "NetworkAclAssociationId": network_acl_association_id(one.vpc.id, subnet_id),
                "NetworkAclId": one.id,
                "SubnetId": subnet_id,
            }
            for subnet_id in one.subnet_ids
        ],
        "Entries": [
            {
                "CidrBlock": ANYWHERE,
                "Egress": egress,
                "Protocol": ALL_PROTOCOLS,
                "RuleAction": action,
                "RuleNumber": number,
            }
            for egress in (True, False)
            for number, action in RULES
        ],
        "Tags": [],
    }


ROWS: Rows = {
    "DescribeNetworkAcls": row(describe_network_acls, "NetworkAclIds", filters=_FILTERS, pages=Pages(5, 1000)),
}
