"""What filters mean, as a model that knows nothing but the reply that a client sees and AWS's texts about the filters.

A filter's name leads to a member of the reply by its own words where it can (`metadata-options.http-tokens`); where it
cannot, or leads astray, WHERE says what AWS's text means. No product code but the spelling of times is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.model import Shape
from botocore.session import Session
from support.patterns import table_matches

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Beside:
    """What filters compare that is shown elsewhere: tags by resource id, names by the id of a security group."""

    tags: Mapping[str, Mapping[str, str]]
    group_names: Mapping[str, str]


Shown = Callable[[Item, Beside], Iterable[str]]
# Where a filter's values are in an item: a path through the reply, or a function.
Where = str | Shown

ITEMS: Mapping[str, str] = {
    "DescribeAccountAttributes": "AccountAttributes",
    "DescribeAddresses": "Addresses",
    "DescribeAddressesAttribute": "Addresses",
    "DescribeAvailabilityZones": "AvailabilityZones",
    "DescribeDhcpOptions": "DhcpOptions",
    "DescribeImages": "Images",
    "DescribeImportImageTasks": "ImportImageTasks",
    "DescribeImportSnapshotTasks": "ImportSnapshotTasks",
    "DescribeInstanceCreditSpecifications": "InstanceCreditSpecifications",
    "DescribeInstanceStatus": "InstanceStatuses",
    "DescribeInstanceTypeOfferings": "InstanceTypeOfferings",
    "DescribeInstanceTypes": "InstanceTypes",
    "DescribeInstances": "Reservations.Instances",
    "DescribeInternetGateways": "InternetGateways",
    "DescribeKeyPairs": "KeyPairs",
    "DescribeManagedPrefixLists": "PrefixLists",
    "DescribeNetworkAcls": "NetworkAcls",
    "DescribeNetworkInterfaces": "NetworkInterfaces",
    "DescribePrefixLists": "PrefixLists",
    "DescribeRegions": "Regions",
    "DescribeRouteTables": "RouteTables",
    "DescribeSecurityGroupRules": "SecurityGroupRules",
    "DescribeSecurityGroups": "SecurityGroups",
    "DescribeSnapshots": "Snapshots",
    "DescribeStaleSecurityGroups": "StaleSecurityGroupSet",
    "DescribeSubnets": "Subnets",
    "DescribeTags": "Tags",
    "DescribeVolumeStatus": "VolumeStatuses",
    "DescribeVolumes": "Volumes",
    "DescribeVolumesModifications": "VolumesModifications",
    "DescribeVpcs": "Vpcs",
}
_session = Session()


def items_of(operation: str, reply: Mapping[str, Any]) -> list[Item]:
    """Return what a reply lists. An instance also has what its reservation says of it."""
    if operation == "DescribeInstances":
        return [
            {**one, "ReservationId": of["ReservationId"], "OwnerId": of["OwnerId"]}
            for of in reply["Reservations"]
            for one in of["Instances"]
        ]
    return list(reply[ITEMS[operation]])


def identity(operation: str, item: Item) -> str:
    """Return what tells an item from every other."""
    own = {
        "DescribeImportImageTasks": "ImportTaskId",
        "DescribeImportSnapshotTasks": "ImportTaskId",
        "DescribeInstanceCreditSpecifications": "InstanceId",
        "DescribeInstanceStatus": "InstanceId",
        "DescribeInstanceTypeOfferings": "InstanceType",
        "DescribeInstances": "InstanceId",
        "DescribeAvailabilityZones": "ZoneName",
        "DescribeDhcpOptions": "DhcpOptionsId",
        "DescribeSecurityGroups": "GroupId",
        "DescribeStaleSecurityGroups": "GroupId",
        "DescribeKeyPairs": "KeyPairId",
        "DescribeAddresses": "AllocationId",
        "DescribeAddressesAttribute": "AllocationId",
        "DescribeInstanceTypes": "InstanceType",
        "DescribeAccountAttributes": "AttributeName",
        "DescribeRegions": "RegionName",
        "DescribeVolumeStatus": "VolumeId",
        "DescribeVolumesModifications": "VolumeId",
    }.get(operation)
    if operation == "DescribeTags":
        return f"{item['ResourceId']} {item['Key']}"
    return str(item[own or f"{ITEMS[operation].removesuffix('s')}Id"])


def values_at(value: Any, path: str) -> Iterator[str]:
    """Yield the texts at a path of members, through every list on the way, written as replies write them."""
    if value is None:
        return
    if isinstance(value, list | tuple):
        for one in value:
            yield from values_at(one, path)
    elif path:
        first, _, rest = path.partition(".")
        yield from values_at(value.get(first), rest)
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, datetime):
        yield f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z"
    elif isinstance(value, float) and value == int(value):
        yield str(int(value))
    else:
        yield str(value)


@dataclass(frozen=True)
class Model:
    """The filters of one operation over what it shows."""

    operation: str

    def shown(self, name: str, item: Item, beside: Beside) -> list[str]:
        """Return the texts of an item that a filter compares."""
        if name.startswith("tag:") or name in ("tag-key", "tag-value"):
            return list(self._tags(name, item, beside))
        where = WHERE.get(self.operation, {}).get(name)
        if where is None:
            where = self.derived(name)
        if isinstance(where, str):
            return list(values_at(item, where))
        return list(where(item, beside))

    def passes(self, name: str, values: Iterable[str], item: Item, beside: Beside) -> bool:
        """Say whether an item passes a filter: any value of the filter matches any text of the item."""
        shown = self.shown(name, item, beside)
        return any(table_matches(value, text) for value in values for text in shown)

    def derived(self, name: str) -> str:
        """Return the path that a filter's own words lead to. Raises LookupError."""
        shape = _element(_session.get_service_model("ec2").operation_model(self.operation).output_shape)
        for member in ITEMS[self.operation].split("."):
            shape = _element(shape.members[member])
        path = []
        for word in name.split("."):
            if shape.type_name != "structure":
                raise LookupError(f"{self.operation}: what does the filter {name} mean? Say so in WHERE.")
            members = {member.lower(): member for member in shape.members}
            plain = word.replace("-", "").lower()
            found = next(
                (members[one] for one in (plain, plain + "s", plain + "es", plain + "set") if one in members), None
            )
            if found is None:
                raise LookupError(f"{self.operation}: what does the filter {name} mean? Say so in WHERE.")
            path.append(found)
            shape = _element(shape.members[found])
        if shape.type_name == "structure":
            raise LookupError(f"{self.operation}: what does the filter {name} mean? Say so in WHERE.")
        return ".".join(path)

    def _tags(self, name: str, item: Item, beside: Beside) -> Iterator[str]:
        if self.operation == "DescribeTags":
            pairs = {item["Key"]: item["Value"]}
        elif shown := [member for member in ("Tags", "TagSet") if member in item]:
            pairs = {tag["Key"]: tag["Value"] for tag in item[shown[0]] or ()}
        else:  # a status shows no tags, and has its resource's
            pairs = dict(beside.tags.get(identity(self.operation, item), {}))
        for key, value in pairs.items():
            if name == "tag-key":
                yield key
            elif name == "tag-value" or key == name.removeprefix("tag:"):
                yield value


def _element(shape: Shape) -> Shape:
    while shape.type_name == "list":
        shape = shape.member
    return shape


def _nothing(item: Item, beside: Beside) -> Iterable[str]:
    """No resource of this cloud can have it."""
    return ()


def _always(value: str) -> Shown:
    """Every resource has it, though replies do not show it."""
    return lambda item, beside: (value,)


def _with_interface(value: str) -> Shown:
    """What holds for every instance that has an interface; a path if it begins with a capital."""

    def shown(item: Item, beside: Beside) -> Iterable[str]:
        if not item["NetworkInterfaces"]:
            return ()
        return values_at(item, value) if value[:1].isupper() else (value,)

    return shown


def _interface_tags(which: int) -> Shown:
    def shown(item: Item, beside: Beside) -> Iterable[str]:
        for one in item["NetworkInterfaces"]:
            for pair in beside.tags.get(one["NetworkInterfaceId"], {}).items():
                yield pair[which]

    return shown


def _group_names(member: str) -> Shown:
    def shown(item: Item, beside: Beside) -> Iterable[str]:
        return [beside.group_names[one] for one in values_at(item, f"{member}.UserIdGroupPairs.GroupId")]

    return shown


def _not_empty(path: str) -> Shown:
    """Replies show an empty text for what a resource has not."""
    return lambda item, beside: [one for one in values_at(item, path) if one]


def _permissions(member: str, prefix: str = "") -> dict[str, Where]:
    return {
        f"{prefix}ip-permission.cidr": f"{member}.IpRanges.CidrIp",
        f"{prefix}ip-permission.from-port": f"{member}.FromPort",
        f"{prefix}ip-permission.group-id": f"{member}.UserIdGroupPairs.GroupId",
        f"{prefix}ip-permission.group-name": _group_names(member),
        f"{prefix}ip-permission.ipv6-cidr": f"{member}.Ipv6Ranges.CidrIpv6",
        f"{prefix}ip-permission.prefix-list-id": f"{member}.PrefixListIds.PrefixListId",
        f"{prefix}ip-permission.protocol": f"{member}.IpProtocol",
        f"{prefix}ip-permission.to-port": f"{member}.ToPort",
        f"{prefix}ip-permission.user-id": f"{member}.UserIdGroupPairs.UserId",
    }


_BLOCK_DEVICES: dict[str, Where] = {
    f"block-device-mapping.{word}": f"BlockDeviceMappings.Ebs.{member}"
    for word, member in {
        "attach-time": "AttachTime",
        "delete-on-termination": "DeleteOnTermination",
        "encrypted": "Encrypted",
        "snapshot-id": "SnapshotId",
        "status": "Status",
        "volume-id": "VolumeId",
        "volume-size": "VolumeSize",
        "volume-type": "VolumeType",
    }.items()
}
_STATE_REASON: dict[str, Where] = {
    "state-reason-code": "StateReason.Code",
    "state-reason-message": "StateReason.Message",
}
_PRODUCT_CODES: dict[str, Where] = {
    "product-code": "ProductCodes.ProductCodeId",
    "product-code.type": "ProductCodes.ProductCodeType",
}
_CIDR_STATES: dict[str, Where] = {
    "cidr-block-association.state": "CidrBlockAssociationSet.CidrBlockState.State",
    "ipv6-cidr-block-association.state": "Ipv6CidrBlockAssociationSet.Ipv6CidrBlockState.State",
}
_ADDRESSES = "NetworkInterfaces.PrivateIpAddresses"

WHERE: Mapping[str, Mapping[str, Where]] = {
    "DescribeAvailabilityZones": {"message": "Messages.Message"},
    "DescribeDhcpOptions": {"key": "DhcpConfigurations.Key", "value": "DhcpConfigurations.Values.Value"},
    "DescribeImages": {
        **_BLOCK_DEVICES,
        **_STATE_REASON,
        **_PRODUCT_CODES,
        "instance-type-specification.supported-instance-type": _nothing,
        "instance-type-specification.unsupported-instance-type": _nothing,
        "is-public": "Public",
        "manifest-location": "ImageLocation",
        "owner-alias": "ImageOwnerAlias",
    },
    "DescribeImportImageTasks": {"task-state": "Status"},
    "DescribeImportSnapshotTasks": {"task-state": "SnapshotTaskDetail.Status"},
    "DescribeInstanceStatus": {
        "instance-state-code": "InstanceState.Code",
        "instance-state-name": "InstanceState.Name",
        "instance-status.reachability": "InstanceStatus.Details.Status",
        "system-status.reachability": "SystemStatus.Details.Status",
    },
    "DescribeInstances": {
        **_BLOCK_DEVICES,
        **_STATE_REASON,
        **_PRODUCT_CODES,
        "affinity": "Placement.Affinity",
        "availability-zone": "Placement.AvailabilityZone",
        "availability-zone-id": "Placement.AvailabilityZoneId",
        "dns-name": "PublicDnsName",
        "host-id": "Placement.HostId",
        "instance-state-code": "State.Code",
        "instance-state-name": "State.Name",
        "instance.group-id": "SecurityGroups.GroupId",
        "instance.group-name": "SecurityGroups.GroupName",
        "ip-address": "PublicIpAddress",
        "launch-index": "AmiLaunchIndex",
        # "Indicates whether the IPv4 endpoint is enabled": there is no other endpoint.
        "metadata-options.http-protocol-ipv4": "MetadataOptions.HttpEndpoint",
        "monitoring-state": "Monitoring.State",
        "network-interface.addresses.association.allocation-id": _nothing,
        "network-interface.addresses.association.association-id": _nothing,
        "network-interface.addresses.association.carrier-ip": f"{_ADDRESSES}.Association.CarrierIp",
        "network-interface.addresses.association.customer-owned-ip": f"{_ADDRESSES}.Association.CustomerOwnedIp",
        "network-interface.addresses.association.ip-owner-id": f"{_ADDRESSES}.Association.IpOwnerId",
        "network-interface.addresses.association.public-dns-name": f"{_ADDRESSES}.Association.PublicDnsName",
        "network-interface.addresses.association.public-ip": f"{_ADDRESSES}.Association.PublicIp",
        "network-interface.addresses.primary": f"{_ADDRESSES}.Primary",
        "network-interface.addresses.private-dns-name": f"{_ADDRESSES}.PrivateDnsName",
        "network-interface.addresses.private-ip-address": f"{_ADDRESSES}.PrivateIpAddress",
        "network-interface.association.allocation-id": _nothing,
        "network-interface.association.association-id": _nothing,
        "network-interface.attachment.instance-id": _with_interface("InstanceId"),
        "network-interface.attachment.instance-owner-id": _with_interface("OwnerId"),
        "network-interface.availability-zone": _with_interface("Placement.AvailabilityZone"),
        "network-interface.deny-all-igw-traffic": _nothing,
        "network-interface.group-id": "NetworkInterfaces.Groups.GroupId",
        "network-interface.group-name": "NetworkInterfaces.Groups.GroupName",
        "network-interface.ipv6-address": "NetworkInterfaces.Ipv6Addresses.Ipv6Address",
        "network-interface.ipv6-native": _nothing,
        "network-interface.outpost-arn": _nothing,
        "network-interface.public-dns-name": "NetworkInterfaces.Association.PublicDnsName",
        "network-interface.requester-id": _nothing,
        "network-interface.requester-managed": _with_interface("false"),
        "network-interface.tag-key": _interface_tags(0),
        "network-interface.tag-value": _interface_tags(1),
        "owner-id": "OwnerId",
        "placement-group-name": _not_empty("Placement.GroupName"),
        "placement-partition-number": "Placement.PartitionNumber",
        "reason": "StateTransitionReason",
        "requester-id": _nothing,
        "reservation-id": "ReservationId",
        "tenancy": "Placement.Tenancy",
    },
    "DescribeKeyPairs": {"fingerprint": "KeyFingerprint"},
    "DescribeNetworkAcls": {
        "association.association-id": "Associations.NetworkAclAssociationId",
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
    },
    "DescribeNetworkInterfaces": {
        "addresses.association.owner-id": "PrivateIpAddresses.Association.IpOwnerId",
        "addresses.association.public-ip": "PrivateIpAddresses.Association.PublicIp",
        "addresses.primary": "PrivateIpAddresses.Primary",
        "addresses.private-ip-address": "PrivateIpAddresses.PrivateIpAddress",
        "group-id": "Groups.GroupId",
        "group-name": "Groups.GroupName",
    },
    "DescribeSecurityGroups": {**_permissions("IpPermissions"), **_permissions("IpPermissionsEgress", "egress.")},
    "DescribeSnapshots": {"status": "State"},
    "DescribeSubnets": {**_CIDR_STATES, "cidr": "CidrBlock", "cidrBlock": "CidrBlock"},
    "DescribeVolumeStatus": {
        "action.code": "Actions.Code",
        "action.description": "Actions.Description",
        "action.event-id": "Actions.EventId",
        "attachment-status.instance-id": "AttachmentStatuses.InstanceId",
        "attachment-status.io-performance": "AttachmentStatuses.IoPerformance",
        "volume-status.details-name": "VolumeStatus.Details.Name",
        "volume-status.details-status": "VolumeStatus.Details.Status",
    },
    "DescribeVolumes": {
        "attachment.status": "Attachments.State",
        "snapshot-id": _not_empty("SnapshotId"),
        "status": "State",
    },
    "DescribeVpcs": {**_CIDR_STATES, "cidr": "CidrBlock"},
}
