"""The parts of a VPC that follow from it and have no rows: what every router does is said in EC2's terms.

A router on a host (hostside/links.py, nft.py) takes packets of its VPC to where they belong and all others to the
host's network: the main route table's `local` route and its route to an internet gateway. It judges packets by
security groups alone: a network ACL that allows everything. Guests get the name servers and the domain of plans.py by
DHCP: the default options. Ids follow from the VPC's (or the account's), so they never change.

Changing any of this comes with the network API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from minicloud import ids
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import Kind, check_ids, missing, require
from minicloud.cloud.metadata import private_dns_domain
from minicloud.model.resources import Vpc
from minicloud.store.store import Tx

# EC2's name for the VPC's own resolver: here it is the router, at the first address of each subnet.
OWN_RESOLVER = "AmazonProvidedDNS"
ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a VPC: its id, its VPC, and the VPC's subnets in the order they were made."""

    id: str
    vpc: Vpc
    subnet_ids: tuple[str, ...]

    @property
    def account_id(self) -> str:
        """The owner."""
        return self.vpc.account_id

    @property
    def region(self) -> str:
        """Where it is."""
        return self.vpc.region


@dataclass(frozen=True, slots=True)
class DhcpOptionSet:
    """What DHCP tells guests besides their addresses: one set for all VPCs of an account in a region."""

    id: str
    account_id: str
    region: str
    domain_name: str
    domain_name_servers: tuple[str, ...]


def _parts(prefix: str) -> Callable[[Tx, list[str]], list[Part]]:
    def find(tx: Tx, wanted: list[str]) -> list[Part]:
        return [one for one in _all_parts(tx, prefix, tx.vpcs.where()) if one.id in wanted]

    return find


ROUTE_TABLES: Kind[Part] = Kind(
    ids.ROUTE_TABLE,
    "route-table",
    _parts(ids.ROUTE_TABLE),
    "InvalidRouteTableId.Malformed",
    "InvalidRouteTableID.NotFound",
    "The routeTable ID '{ids}' does not exist",
    "The routeTable IDs '{ids}' do not exist",
)
NETWORK_ACLS: Kind[Part] = Kind(
    ids.NETWORK_ACL,
    "network-acl",
    _parts(ids.NETWORK_ACL),
    "InvalidNetworkAclId.Malformed",
    "InvalidNetworkAclID.NotFound",
    "The networkAcl ID '{ids}' does not exist",
    "The networkAcl IDs '{ids}' do not exist",
)
INTERNET_GATEWAYS: Kind[Part] = Kind(
    ids.INTERNET_GATEWAY,
    "internet-gateway",
    _parts(ids.INTERNET_GATEWAY),
    "InvalidInternetGatewayId.Malformed",
    "InvalidInternetGatewayID.NotFound",
    "The internetGateway ID '{ids}' does not exist",
    "The internetGateway IDs '{ids}' do not exist",
)
_PREFIX_LISTS: Kind[Part] = Kind(
    ids.PREFIX_LIST,
    "prefix-list",
    lambda tx, wanted: [],
    "InvalidPrefixListId.Malformed",
    "InvalidPrefixListID.NotFound",
    "The prefix list ID '{ids}' does not exist",
    "The prefix list IDs '{ids}' do not exist",
)


def describe_parts(cloud: Cloud, caller: Caller, kind: Kind[Part], wanted: Iterable[str]) -> list[Part]:
    """Return the named parts of a kind, one of every VPC of the caller if none is named. Raises the kind's errors."""
    named = list(wanted)

    def look(tx: Tx) -> list[Part]:
        if named:
            return require(tx, caller, kind, named)
        return _all_parts(tx, kind.prefix, tx.vpcs.where(account_id=caller.account_id, region=caller.region))

    return cloud.store.read(look)


def describe_dhcp_options(cloud: Cloud, caller: Caller, wanted: Iterable[str]) -> list[DhcpOptionSet]:
    """Return the caller's one set of options. Raises InvalidDhcpOptionsId.Malformed, InvalidDhcpOptionID.NotFound."""
    mine = DhcpOptionSet(
        dhcp_options_id(caller.account_id, caller.region),
        caller.account_id,
        caller.region,
        private_dns_domain(caller.region),
        cloud.config.dns_servers or (OWN_RESOLVER,),
    )
    kind: Kind[DhcpOptionSet] = Kind(
        ids.DHCP_OPTIONS,
        "dhcp-options",
        lambda tx, named: [mine],
        "InvalidDhcpOptionsId.Malformed",
        "InvalidDhcpOptionID.NotFound",
        "The dhcpOption ID '{ids}' does not exist",
        "The dhcpOption IDs '{ids}' do not exist",
    )
    cloud.store.read(lambda tx: require(tx, caller, kind, wanted))
    return [mine]


def require_no_prefix_lists(wanted: Iterable[str]) -> None:
    """Refuse named prefix lists: a cloud of one's own has no services whose addresses it would list.

    Raises InvalidPrefixListId.Malformed, InvalidPrefixListID.NotFound.
    """
    absent = check_ids(_PREFIX_LISTS, wanted)
    if absent:
        raise missing(_PREFIX_LISTS, absent)


def dhcp_options_id(account_id: str, region: str) -> str:
    """Return the id of an account's set of options in a region."""
    return ids.derived_id(ids.DHCP_OPTIONS, account_id, region)


def main_association_id(vpc_id: str) -> str:
    """Return the id of what makes a VPC's route table the main one, which subnets use without being told to."""
    return ids.derived_id(ids.ROUTE_TABLE_ASSOCIATION, vpc_id)


def internet_gateway_id(vpc_id: str) -> str:
    """Return the id of a VPC's internet gateway."""
    return ids.derived_id(ids.INTERNET_GATEWAY, vpc_id)


def network_acl_association_id(vpc_id: str, subnet_id: str) -> str:
    """Return the id of what puts a subnet under its VPC's network ACL."""
    return ids.derived_id(ids.NETWORK_ACL_ASSOCIATION, vpc_id, subnet_id)


def _all_parts(tx: Tx, prefix: str, vpcs: list[Vpc]) -> list[Part]:
    subnets: dict[str, list[str]] = {}
    for row in tx.subnets.where(vpc_id=[vpc.id for vpc in vpcs]):
        subnets.setdefault(row.vpc_id, []).append(row.id)
    return [Part(ids.derived_id(prefix, vpc.id), vpc, tuple(subnets.get(vpc.id, ()))) for vpc in vpcs]
