"""Port plans for tests of the host side, as it gets them: JSON of model/plans.py, with the names of model/names.py."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from minicloud.model import names, plans

ANYWHERE = "0.0.0.0/0"
EGRESS = plans.RulePlan(egress=True, protocol="-1", from_port=None, to_port=None, cidr=ANYWHERE, group_id=None)


def allow(
    protocol: str,
    first: int | None = None,
    last: int | None = None,
    *,
    cidr: str | None = None,
    group: str | None = None,
    egress: bool = False,
) -> plans.RulePlan:
    """Return a rule; `last` is `first` unless given, the peer is anywhere unless given."""
    if cidr is None and group is None:
        cidr = ANYWHERE
    return plans.RulePlan(egress, protocol, first, first if last is None else last, cidr, group)


def group(number: int = 1, *rules: plans.RulePlan, members: Iterable[str] = ()) -> plans.GroupPlan:
    """Return a group; without rules it lets everything out and ssh in."""
    return plans.GroupPlan(group_id(number), rules or (EGRESS, allow("tcp", 22)), tuple(members))


def group_id(number: int) -> str:
    return f"sg-{number:017x}"


def port(
    number: int,
    *groups: plans.GroupPlan,
    subnet: int = 1,
    vpc: int = 0,
    public_ip: str | None = None,
    cidr: str = "10.0.0.0/16",
    uplink: str | None = None,
    dns_servers: tuple[str, ...] = (),
    **metadata: Any,
) -> dict[str, Any]:
    """Return the plan of port `number` (2..254) of a subnet of a VPC; its address ends in `number`.

    `metadata` replaces fields of its MetadataPlan.
    """
    prefix = cidr.split(".")[0]
    private_ip = f"{prefix}.0.{subnet}.{number}"
    vpc_id, subnet_id = f"vpc-{vpc + 0xABC00:017x}", f"subnet-{vpc * 256 + subnet:017x}"
    serial = (vpc * 256 + subnet) * 256 + number
    eni, instance = f"eni-{serial:017x}", f"i-{serial:017x}"
    fields: dict[str, Any] = {
        "http_endpoint": "enabled",
        "http_tokens": "optional",
        "hop_limit": 1,
        "leaves": {
            "instance-id": instance,
            "local-ipv4": private_ip,
            "placement/region": "lab-1",
            "placement/availability-zone": "lab-1a",
            "public-keys/0/openssh-key": "ssh-ed25519 AAAA key",
        },
        "listings": {"public-keys/": "0=key"},
        "identity_document": json.dumps({"instanceId": instance}),
        "user_data_base64": None,
        **metadata,
    }
    plan = plans.PortPlan(
        id=eni,
        instance_id=instance,
        tap=names.tap(eni),
        mac=f"0a:00:00:{vpc:02x}:{subnet:02x}:{number:02x}",
        private_ip=private_ip,
        public_ip=public_ip,
        hostname="ip-" + private_ip.replace(".", "-"),
        router=plans.RouterPlan(
            vpc_id=vpc_id,
            cidr=cidr,
            netns=names.router(vpc_id),
            transit_veth=names.transit_veth(vpc_id),
            router_transit_veth=names.router_transit_veth(vpc_id),
            host_transit_ip=f"100.127.0.{2 * vpc}",
            router_transit_ip=f"100.127.0.{2 * vpc + 1}",
            uplink=uplink,
            mtu=1450,
            domain_name="lab-1.compute.internal",
            dns_servers=dns_servers,
        ),
        subnet=plans.SubnetPlan(
            id=subnet_id,
            cidr=f"{prefix}.0.{subnet}.0/24",
            gateway_ip=f"{prefix}.0.{subnet}.1",
            bridge=names.bridge(subnet_id),
            bridge_veth=names.bridge_veth(subnet_id),
            router_veth=names.router_veth(subnet_id),
        ),
        groups=groups or (group(),),
        metadata=plans.MetadataPlan(**fields),
    )
    return dict(json.loads(json.dumps(plans.to_json(plan))))
