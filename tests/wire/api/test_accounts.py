"""What boto3 is told of the account: attributes, elastic addresses (none); and where instance types are offered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError
from support import front as build
from support import rows as make

Refused = Callable[..., ClientError]
ALLOCATION = make.number("eipalloc", 1)


def attributes(ec2: Any, *names: str) -> dict[str, str]:
    found = ec2.describe_account_attributes(**({"AttributeNames": list(names)} if names else {}))
    return {
        one["AttributeName"]: value["AttributeValue"]
        for one in found["AccountAttributes"]
        for value in one["AttributeValues"]
    }


def test_account_attributes(front: build.Front, ec2: Any, refused: Refused) -> None:
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    assert attributes(ec2) == {
        "supported-platforms": "VPC",
        "default-vpc": vpc["VpcId"],
        "max-instances": str(front.cloud.config.max_instances_per_account),
        "vpc-max-security-groups-per-interface": "5",
        "max-elastic-ips": "0",
        "vpc-max-elastic-ips": "0",
    }
    assert attributes(ec2, "default-vpc", "max-instances").keys() == {"default-vpc", "max-instances"}
    refused("InvalidParameterValue", ec2.describe_account_attributes, AttributeNames=["colour"])


def test_an_account_without_a_default_vpc(front: build.Front, ec2: Any) -> None:
    front.cloud.store.write(lambda tx: [tx.vpcs.update(row.id, is_default=False) for row in tx.vpcs.where()])
    assert attributes(ec2, "default-vpc") == {"default-vpc": "none"}


def test_there_are_no_elastic_addresses(front: build.Front, ec2: Any, refused: Refused) -> None:
    assert ec2.describe_addresses()["Addresses"] == []
    assert ec2.describe_addresses(Filters=[{"Name": "public-ip", "Values": ["*"]}])["Addresses"] == []
    assert ec2.describe_addresses(Filters=[{"Name": "tag:Name", "Values": ["*"]}])["Addresses"] == []
    assert ec2.describe_addresses_attribute()["Addresses"] == []
    assert ec2.describe_addresses_attribute(Attribute="domain-name", MaxResults=5)["Addresses"] == []
    refused("InvalidAllocationID.NotFound", ec2.describe_addresses, AllocationIds=[ALLOCATION])
    refused("InvalidAllocationID.NotFound", ec2.describe_addresses_attribute, AllocationIds=[ALLOCATION])
    refused("InvalidAddress.NotFound", ec2.describe_addresses, PublicIps=["10.200.0.1"])
    refused("InvalidParameterValue", ec2.describe_addresses, PublicIps=["here"])
    refused("InvalidParameterValue", ec2.describe_addresses, Filters=[{"Name": "colour", "Values": ["red"]}])
    refused("InvalidParameterValue", ec2.describe_addresses_attribute, MaxResults=1001)
    refused("InvalidNextToken", ec2.describe_addresses_attribute, NextToken="forged")


def offerings(ec2: Any, **asked: Any) -> list[tuple[str, str, str]]:
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(**asked)
    return [
        (one["LocationType"], one["Location"], one["InstanceType"])
        for page in pages
        for one in page["InstanceTypeOfferings"]
    ]


def test_every_type_is_offered_everywhere(front: build.Front, ec2: Any, refused: Refused) -> None:
    types = sorted(front.cloud.types)
    assert offerings(ec2) == [("region", build.REGION, name) for name in types]
    assert offerings(ec2, LocationType="availability-zone") == [
        ("availability-zone", zone, name) for zone in ("lab-1a", "lab-1b") for name in types
    ]
    ids = [one["ZoneId"] for one in ec2.describe_availability_zones()["AvailabilityZones"]]
    assert {location for _, location, _ in offerings(ec2, LocationType="availability-zone-id")} == set(ids)
    assert offerings(ec2, LocationType="outpost") == []
    refused("InvalidParameterValue", ec2.describe_instance_type_offerings, LocationType="moon")


def test_offerings_are_filtered_and_paged(
    front: build.Front, ec2: Any, refused: Refused, clients: Callable[..., Any]
) -> None:
    asked = {
        "LocationType": "availability-zone",
        "Filters": [
            {"Name": "instance-type", "Values": ["t3.*", "m5.large"]},
            {"Name": "location", "Values": ["lab-1b"]},
        ],
    }
    wanted = sorted(name for name in front.cloud.types if name.startswith("t3.") or name == "m5.large")
    everything = [("availability-zone", "lab-1b", name) for name in wanted]
    assert offerings(ec2, **asked) == everything
    first = ec2.describe_instance_type_offerings(**asked, MaxResults=5)
    assert len(first["InstanceTypeOfferings"]) == 5
    assert offerings(ec2, **asked, PaginationConfig={"PageSize": 5}) == everything
    unchecked = clients("ec2", validate=False).describe_instance_type_offerings
    refused("InvalidParameterValue", unchecked, MaxResults=4)
    refused("InvalidParameterValue", unchecked, MaxResults=1001)
    refused("InvalidParameterValue", ec2.describe_instance_type_offerings, Filters=[{"Name": "x", "Values": ["y"]}])
