"""The default network through boto3: VPC, subnets, groups, interfaces, and the parts that follow from the VPC."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event
from support import front as build
from support import rows as make

from minicloud.cloud.addresses import subnet_addresses
from minicloud.cloud.metadata import private_dns_domain
from minicloud.cloud.plans import instance_plan
from minicloud.store.filters.subnets import RESERVED
from minicloud.store.store import Tx


def values(name: str, *wanted: str) -> list[dict[str, Any]]:
    """One filter."""
    return [{"Name": name, "Values": list(wanted)}]


@pytest.fixture
def statements(front: Any) -> Callable[[], list[str]]:
    """The SQL that the cloud's database was sent so far."""
    seen: list[str] = []
    engine = front.cloud.store._backend._engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    return lambda: seen


def vpc_of(ec2: Any) -> dict[str, Any]:
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    return dict(vpc)


def test_the_vpc(ec2: Any) -> None:
    vpc = vpc_of(ec2)
    assert (vpc["CidrBlock"], vpc["IsDefault"], vpc["State"]) == ("172.31.0.0/16", True, "available")
    (association,) = vpc["CidrBlockAssociationSet"]
    for name, value in (
        ("vpc-id", vpc["VpcId"]),
        ("isDefault", "true"),
        ("cidr", "172.31.*"),
        ("dhcp-options-id", vpc["DhcpOptionsId"]),
        ("cidr-block-association.association-id", association["AssociationId"]),
    ):
        assert ec2.describe_vpcs(Filters=values(name, "nothing", value))["Vpcs"] == [vpc], name
        assert ec2.describe_vpcs(Filters=values(name, "nothing"))["Vpcs"] == [], name
    assert ec2.describe_vpcs(VpcIds=[vpc["VpcId"]], MaxResults=5)["Vpcs"] == [vpc]


def test_attributes_of_the_vpc(ec2: Any, refused: Any) -> None:
    vpc_id = vpc_of(ec2)["VpcId"]

    def shown(attribute: str) -> dict[str, Any]:
        answer = ec2.describe_vpc_attribute(VpcId=vpc_id, Attribute=attribute)
        del answer["ResponseMetadata"]
        return dict(answer)

    # Guests resolve names, but no public name leads to them.
    assert shown("enableDnsSupport") == {"VpcId": vpc_id, "EnableDnsSupport": {"Value": True}}
    assert shown("enableDnsHostnames") == {"VpcId": vpc_id, "EnableDnsHostnames": {"Value": False}}
    assert shown("enableNetworkAddressUsageMetrics") == {
        "VpcId": vpc_id,
        "EnableNetworkAddressUsageMetrics": {"Value": False},
    }
    refused("InvalidParameterValue", ec2.describe_vpc_attribute, VpcId=vpc_id, Attribute="color")
    other = {"VpcId": make.number("vpc", 0xABC), "Attribute": "enableDnsSupport"}
    refused("InvalidVpcID.NotFound", ec2.describe_vpc_attribute, **other)


def test_subnets_and_their_free_addresses(front: Any, ec2: Any, run: Any) -> None:
    run(MinCount=3, MaxCount=3, Placement={"AvailabilityZone": "lab-1a"})
    shown = {one["AvailabilityZone"]: one for one in ec2.describe_subnets()["Subnets"]}
    assert {zone: one["AvailableIpAddressCount"] for zone, one in shown.items()} == {"lab-1a": 4088, "lab-1b": 4091}

    def found(name: str, value: str) -> list[str]:
        return [one["AvailabilityZone"] for one in ec2.describe_subnets(Filters=values(name, value))["Subnets"]]

    assert found("available-ip-address-count", "4088") == ["lab-1a"]
    assert found("availabilityZoneId", "lab1-az2") == ["lab-1b"]
    assert found("cidrBlock", shown["lab-1b"]["CidrBlock"]) == ["lab-1b"]
    assert found("defaultForAz", "true") == ["lab-1a", "lab-1b"]
    assert found("subnet-arn", shown["lab-1a"]["SubnetArn"]) == ["lab-1a"]


def test_many_subnets_cost_no_more_queries_than_one(front: Any, ec2: Any, statements: Callable[[], list[str]]) -> None:
    (vpc_id,) = front.cloud.store.read(lambda tx: [row.id for row in tx.vpcs.where()])

    def add(tx: Tx) -> None:
        tx.subnets.insert_many(
            make.subnet(n, account_id=build.root_caller().account_id, vpc_id=vpc_id, cidr=f"172.31.240.{16 * n}/28",
                        is_default=False)
            for n in range(8)
        )  # fmt: skip

    def cost() -> int:
        before = len(statements())
        ec2.describe_subnets()
        return len(statements()) - before

    few = cost()
    front.cloud.store.write(add)
    assert cost() == few
    assert len(ec2.describe_subnets()["Subnets"]) == 10


def test_network_interfaces(front: Any, ec2: Any, run: Any) -> None:
    (launched,) = run(Placement={"AvailabilityZone": "lab-1b"})["Instances"]
    (port,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
    (of_instance,) = launched["NetworkInterfaces"]
    for member in ("NetworkInterfaceId", "MacAddress", "PrivateIpAddress", "PrivateDnsName", "Association", "Groups"):
        assert port[member] == of_instance[member], member
    assert port["Attachment"]["InstanceId"] == launched["InstanceId"]
    assert port["Attachment"]["Status"] == "attaching"
    assert (port["AvailabilityZone"], port["AvailabilityZoneId"]) == ("lab-1b", "lab1-az2")
    assert (port["Status"], port["SourceDestCheck"], port["RequesterManaged"]) == ("in-use", True, False)
    build.settle(front.cloud)
    (port,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert port["Attachment"]["Status"] == "attached"
    for name, value in (
        ("attachment.instance-id", launched["InstanceId"]),
        ("attachment.status", "attached"),
        ("group-id", port["Groups"][0]["GroupId"]),
        ("private-dns-name", port["PrivateDnsName"]),
        ("association.public-ip", port["Association"]["PublicIp"]),
    ):
        found = ec2.describe_network_interfaces(Filters=values(name, value))["NetworkInterfaces"]
        assert found == [port], name
        assert ec2.describe_network_interfaces(Filters=values(name, "x"))["NetworkInterfaces"] == [], name


def test_attributes_of_a_network_interface(ec2: Any, run: Any, refused: Any) -> None:
    (instance,) = run()["Instances"]
    (port,) = ec2.describe_network_interfaces()["NetworkInterfaces"]

    def shown(attribute: str) -> Any:
        answer = ec2.describe_network_interface_attribute(
            NetworkInterfaceId=port["NetworkInterfaceId"], Attribute=attribute
        )
        (member,) = set(answer) - {"ResponseMetadata", "NetworkInterfaceId"}
        return answer[member]

    assert shown("description") == {"Value": ""}
    assert shown("groupSet") == instance["SecurityGroups"]
    assert shown("sourceDestCheck") == {"Value": True}
    assert shown("attachment") == port["Attachment"]
    assert shown("associatePublicIpAddress") is True
    named = {"NetworkInterfaceId": port["NetworkInterfaceId"]}
    refused("MissingParameter", ec2.describe_network_interface_attribute, **named)
    named["NetworkInterfaceId"] = make.number("eni", 0xABC)
    refused(
        "InvalidNetworkInterfaceID.NotFound", ec2.describe_network_interface_attribute, **named, Attribute="attachment"
    )


def test_security_groups_and_rules(ec2: Any) -> None:
    (group,) = ec2.describe_security_groups(Filters=values("ip-permission.from-port", "22"))["SecurityGroups"]
    assert ec2.describe_security_groups(GroupIds=[group["GroupId"]], GroupNames=["default"])["SecurityGroups"] == [
        group
    ]
    assert ec2.describe_security_groups(Filters=values("egress.ip-permission.from-port", "22"))["SecurityGroups"] == []
    rules = ec2.describe_security_group_rules(Filters=values("group-id", group["GroupId"]))["SecurityGroupRules"]
    by_kind = {(one["IsEgress"], one["IpProtocol"]): one for one in rules}
    assert len(rules) == len(by_kind) == 3
    ssh, own, out = by_kind[False, "tcp"], by_kind[False, "-1"], by_kind[True, "-1"]
    assert (ssh["FromPort"], ssh["ToPort"], ssh["CidrIpv4"]) == (22, 22, "0.0.0.0/0")
    assert "ReferencedGroupInfo" not in ssh
    # EC2 shows -1 for all ports here.
    assert (out["FromPort"], out["ToPort"], out["CidrIpv4"]) == (-1, -1, "0.0.0.0/0")
    assert own["ReferencedGroupInfo"] == {"GroupId": group["GroupId"], "UserId": group["OwnerId"]}
    assert "CidrIpv4" not in own
    assert own["SecurityGroupRuleArn"].endswith(f":security-group-rule/{own['SecurityGroupRuleId']}")
    ec2.create_tags(Resources=[ssh["SecurityGroupRuleId"]], Tags=[{"Key": "for", "Value": "us"}])
    (tagged,) = ec2.describe_security_group_rules(Filters=values("tag:for", "u?"))["SecurityGroupRules"]
    assert tagged == {**ssh, "Tags": [{"Key": "for", "Value": "us"}]}
    named = ec2.describe_security_group_rules(SecurityGroupRuleIds=[own["SecurityGroupRuleId"]])
    assert named["SecurityGroupRules"] == [own]


def test_no_group_is_stale_or_referred_to_from_afar(ec2: Any, refused: Any) -> None:
    (group,) = ec2.describe_security_groups()["SecurityGroups"]
    references = ec2.describe_security_group_references(GroupId=[group["GroupId"]])
    assert references["SecurityGroupReferenceSet"] == []
    assert ec2.describe_stale_security_groups(VpcId=group["VpcId"], MaxResults=5)["StaleSecurityGroupSet"] == []
    other = make.number("sg", 0xABC)
    refused("InvalidGroup.NotFound", ec2.describe_security_group_references, GroupId=[other])
    other = make.number("vpc", 0xABC)
    refused("InvalidVpcID.NotFound", ec2.describe_stale_security_groups, VpcId=other)


def test_the_main_route_table_leads_into_the_vpc_and_out(ec2: Any) -> None:
    vpc = vpc_of(ec2)
    (table,) = ec2.describe_route_tables()["RouteTables"]
    (gateway,) = ec2.describe_internet_gateways()["InternetGateways"]
    assert table["VpcId"] == vpc["VpcId"]
    assert {(one["DestinationCidrBlock"], one["GatewayId"], one["State"]) for one in table["Routes"]} == {
        (vpc["CidrBlock"], "local", "active"),
        ("0.0.0.0/0", gateway["InternetGatewayId"], "active"),
    }
    (association,) = table["Associations"]
    assert association["Main"] is True
    assert "SubnetId" not in association
    assert gateway["Attachments"] == [{"State": "available", "VpcId": vpc["VpcId"]}]
    for name, value in (
        ("vpc-id", vpc["VpcId"]),
        ("association.main", "true"),
        ("association.route-table-association-id", association["RouteTableAssociationId"]),
        ("route.gateway-id", "igw-*"),
        ("route.origin", "CreateRoute"),
    ):
        assert ec2.describe_route_tables(Filters=values(name, value))["RouteTables"] == [table], name
        assert ec2.describe_route_tables(Filters=values(name, "x"))["RouteTables"] == [], name
    # Data sources of Terraform look for a subnet's own table first, and then for the main one.
    subnet_id = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    assert ec2.describe_route_tables(Filters=values("association.subnet-id", subnet_id))["RouteTables"] == []
    assert ec2.describe_route_tables(RouteTableIds=[table["RouteTableId"]])["RouteTables"] == [table]
    found = ec2.describe_internet_gateways(Filters=values("attachment.vpc-id", vpc["VpcId"]))
    assert found["InternetGateways"] == [gateway]


def test_the_default_network_acl_lets_all_pass(ec2: Any) -> None:
    (acl,) = ec2.describe_network_acls(Filters=values("default", "true"))["NetworkAcls"]
    rules = {(one["Egress"], one["RuleNumber"], one["RuleAction"], one["Protocol"]) for one in acl["Entries"]}
    assert rules == {
        (egress, *rule) for egress in (True, False) for rule in ((100, "allow", "-1"), (32767, "deny", "-1"))
    }
    assert {one["CidrBlock"] for one in acl["Entries"]} == {"0.0.0.0/0"}
    subnets = {one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]}
    assert {one["SubnetId"] for one in acl["Associations"]} == subnets
    assert len({one["NetworkAclAssociationId"] for one in acl["Associations"]}) == len(subnets) == 2
    for name, value in (
        ("association.subnet-id", min(subnets)),
        ("entry.rule-number", "32767"),
        ("entry.egress", "true"),
    ):
        assert ec2.describe_network_acls(Filters=values(name, value))["NetworkAcls"] == [acl], name
    assert ec2.describe_network_acls(Filters=values("entry.port-range.from", "*"))["NetworkAcls"] == []
    assert ec2.describe_network_acls(NetworkAclIds=[acl["NetworkAclId"]])["NetworkAcls"] == [acl]


def told(ec2: Any) -> dict[str, list[str]]:
    (options,) = ec2.describe_dhcp_options(DhcpOptionsIds=[vpc_of(ec2)["DhcpOptionsId"]])["DhcpOptions"]
    return {one["Key"]: [value["Value"] for value in one["Values"]] for one in options["DhcpConfigurations"]}


def test_dhcp_options_are_what_guests_are_told(front: Any, ec2: Any, run: Any) -> None:
    run()
    (instance,) = front.cloud.store.read(lambda tx: tx.instances.where())
    plan = front.cloud.store.read(lambda tx: instance_plan(tx, front.cloud.config, instance))
    router = plan.ports[0].router
    # Without servers of the operator's, dnsmasq hands out its own address: EC2's name for the VPC's own resolver.
    assert router.dns_servers == ()
    assert told(ec2) == {"domain-name": [router.domain_name], "domain-name-servers": ["AmazonProvidedDNS"]}
    assert router.domain_name == private_dns_domain("lab-1")
    for name, value in (("key", "domain-name"), ("value", router.domain_name), ("owner-id", instance.account_id)):
        assert len(ec2.describe_dhcp_options(Filters=values(name, value))["DhcpOptions"]) == 1, name
        assert ec2.describe_dhcp_options(Filters=values(name, "x"))["DhcpOptions"] == [], name


def test_dhcp_options_with_the_operator_s_name_servers(catalog: Any, server: Any, boto_ec2: Any) -> None:
    front = build.build_front(catalog, dns_servers=("192.0.2.1", "192.0.2.2"))
    server[0].app = build.endpoint_of(front)
    assert told(boto_ec2)["domain-name-servers"] == ["192.0.2.1", "192.0.2.2"]


def test_there_are_no_prefix_lists(ec2: Any, refused: Any) -> None:
    for describe in (ec2.describe_prefix_lists, ec2.describe_managed_prefix_lists):
        assert describe(Filters=values("prefix-list-name", "*"))["PrefixLists"] == []
        refused("InvalidPrefixListID.NotFound", describe, PrefixListIds=[make.number("pl", 1)])
        refused("InvalidPrefixListId.Malformed", describe, PrefixListIds=["s3"])


def test_ids_of_derived_parts_do_not_change(ec2: Any) -> None:
    def ids() -> list[str]:
        return [
            ec2.describe_route_tables()["RouteTables"][0]["RouteTableId"],
            ec2.describe_internet_gateways()["InternetGateways"][0]["InternetGatewayId"],
            ec2.describe_network_acls()["NetworkAcls"][0]["NetworkAclId"],
            ec2.describe_dhcp_options()["DhcpOptions"][0]["DhcpOptionsId"],
        ]

    first = ids()
    assert [one.split("-")[0] for one in first] == ["rtb", "igw", "acl", "dopt"]
    ec2.create_tags(Resources=[vpc_of(ec2)["VpcId"]], Tags=[{"Key": "a", "Value": "b"}])
    assert ids() == first


DESCRIBES = [
    ("describe_vpcs", "VpcIds", "vpc", "InvalidVpcID.NotFound", "InvalidVpcID.NotFound"),
    ("describe_subnets", "SubnetIds", "subnet", "InvalidSubnetID.NotFound", "InvalidSubnetID.NotFound"),
    ("describe_security_groups", "GroupIds", "sg", "InvalidGroup.NotFound", "InvalidGroupId.Malformed"),
    (
        "describe_security_group_rules",
        "SecurityGroupRuleIds",
        "sgr",
        "InvalidSecurityGroupRuleId.NotFound",
        "InvalidSecurityGroupRuleId.Malformed",
    ),
    (
        "describe_network_interfaces",
        "NetworkInterfaceIds",
        "eni",
        "InvalidNetworkInterfaceID.NotFound",
        "InvalidNetworkInterfaceId.Malformed",
    ),
    ("describe_route_tables", "RouteTableIds", "rtb", "InvalidRouteTableID.NotFound", "InvalidRouteTableId.Malformed"),
    ("describe_network_acls", "NetworkAclIds", "acl", "InvalidNetworkAclID.NotFound", "InvalidNetworkAclId.Malformed"),
    (
        "describe_internet_gateways",
        "InternetGatewayIds",
        "igw",
        "InvalidInternetGatewayID.NotFound",
        "InvalidInternetGatewayId.Malformed",
    ),
    (
        "describe_dhcp_options",
        "DhcpOptionsIds",
        "dopt",
        "InvalidDhcpOptionID.NotFound",
        "InvalidDhcpOptionsId.Malformed",
    ),
]


@pytest.mark.parametrize(("call", "parameter", "prefix", "not_found", "malformed"), DESCRIBES)
def test_ids_that_lead_nowhere(
    ec2: Any, clients: Any, refused: Any, call: str, parameter: str, prefix: str, not_found: str, malformed: str
) -> None:
    describe = getattr(ec2, call)
    error = refused(not_found, describe, **{parameter: [make.number(prefix, 0xABC)]})
    assert make.number(prefix, 0xABC) in str(error)
    refused(malformed, describe, **{parameter: ["nonsense"]})
    refused("InvalidParameterValue", describe, Filters=values("color", "red"))
    refused("InvalidParameterValue", getattr(clients("ec2", validate=False), call), MaxResults=4)
    refused("InvalidNextToken", describe, NextToken="x")


def test_pages_of_network_interfaces(ec2: Any, run: Any, refused: Any) -> None:
    run(MinCount=12, MaxCount=12)
    every = [one["NetworkInterfaceId"] for one in ec2.describe_network_interfaces()["NetworkInterfaces"]]
    pages = list(ec2.get_paginator("describe_network_interfaces").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(page["NetworkInterfaces"]) for page in pages] == [5, 5, 2]
    assert [one["NetworkInterfaceId"] for page in pages for one in page["NetworkInterfaces"]] == every
    assert "NextToken" not in pages[-1]
    refused("InvalidParameterCombination", ec2.describe_network_interfaces, NetworkInterfaceIds=every[:1], MaxResults=5)


def test_free_addresses_are_those_that_a_network_has() -> None:
    """What the SQL subtracts is what addresses.py reserves."""
    for cidr in ("172.31.0.0/20", "10.0.0.0/28"):
        assert len(subnet_addresses(cidr)) == ipaddress.IPv4Network(cidr).num_addresses - RESERVED
