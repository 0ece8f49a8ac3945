"""What the default network and storage show to others than their owner, and in another region: nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.bare_cloud import OTHER, ROOT, BareCloud

from minicloud.cloud import network_interfaces, security_groups, snapshots, vpc_parts, vpcs
from minicloud.cloud import volumes as volume_calls
from minicloud.cloud.context import Caller, Cloud
from minicloud.store.search import Found

ELSEWHERE = Caller(ROOT.account_id, "lab-2")
Describe = Callable[[Cloud, Caller, list[str]], Any]


def _snapshots(cloud: Cloud, caller: Caller, ids: list[str]) -> Any:
    return snapshots.describe_snapshots(cloud, caller, ids, [], [])


def _parts(kind: Any) -> Describe:
    return lambda cloud, caller, ids: vpc_parts.describe_parts(cloud, caller, kind, ids)


CALLS: dict[str, tuple[Describe, Callable[[Any], str], str]] = {
    "vpcs": (vpcs.describe_vpcs, lambda one: one.vpc.id, "InvalidVpcID.NotFound"),
    "rules": (
        security_groups.describe_security_group_rules,
        lambda one: one.rule.id,
        "InvalidSecurityGroupRuleId.NotFound",
    ),
    "interfaces": (
        network_interfaces.describe_network_interfaces,
        lambda one: one.port.id,
        "InvalidNetworkInterfaceID.NotFound",
    ),
    "volumes": (volume_calls.describe_volumes, lambda one: one.volume.id, "InvalidVolume.NotFound"),
    "statuses": (volume_calls.describe_volume_status, lambda one: one.view.volume.id, "InvalidVolume.NotFound"),
    "snapshots": (_snapshots, lambda one: one.snapshot.id, "InvalidSnapshot.NotFound"),
    "route tables": (_parts(vpc_parts.ROUTE_TABLES), lambda one: one.id, "InvalidRouteTableID.NotFound"),
    "network ACLs": (_parts(vpc_parts.NETWORK_ACLS), lambda one: one.id, "InvalidNetworkAclID.NotFound"),
    "gateways": (_parts(vpc_parts.INTERNET_GATEWAYS), lambda one: one.id, "InvalidInternetGatewayID.NotFound"),
}


def _items(answer: Any) -> list[Any]:
    return answer.items if isinstance(answer, Found) else answer


@pytest.mark.parametrize("name", CALLS)
def test_only_owners_see_their_things(bare: BareCloud, name: str) -> None:
    describe, id_of, not_found = CALLS[name]
    bare.run_one()
    own = [id_of(one) for one in _items(describe(bare.cloud, ROOT, []))]
    assert own
    assert [id_of(one) for one in _items(describe(bare.cloud, ROOT, own[:1]))] == own[:1]
    for other in (OTHER, ELSEWHERE):
        assert _items(describe(bare.cloud, other, [])) == []
    with bare.refuses(not_found):
        describe(bare.cloud, OTHER, own)


def test_everybody_has_dhcp_options_of_their_own(bare: BareCloud) -> None:
    ((mine,), (theirs,), (elsewhere,)) = (
        vpc_parts.describe_dhcp_options(bare.cloud, caller, []) for caller in (ROOT, OTHER, ELSEWHERE)
    )
    assert len({mine.id, theirs.id, elsewhere.id}) == 3
    assert vpc_parts.describe_dhcp_options(bare.cloud, ROOT, [mine.id]) == [mine]
    with bare.refuses("InvalidDhcpOptionID.NotFound", f"The dhcpOption ID '{mine.id}' does not exist"):
        vpc_parts.describe_dhcp_options(bare.cloud, OTHER, [mine.id])
