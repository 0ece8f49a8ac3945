"""The operation table: every AWS operation that minicloud answers, what it honours, and the function that does it.

One row per operation; both doors run rows by `perform`. Filters and pagination are one step that belongs between a
handler's result and its rendering: until it is there, `Filters`, `MaxResults` and `NextToken` are honoured by nobody,
and so refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minicloud.api import sts
from minicloud.api.ec2 import consoles, images, imports, instances, keys, launches, networks, regions, tags
from minicloud.api.parameters import DRY_RUN, refuse_unsupported
from minicloud.api.services import Context
from minicloud.aws.models import Catalog, load_catalog
from minicloud.errors import ApiError

Handler = Callable[[Context, dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One operation. `honours` and `tolerates` are explained in parameters.py."""

    handler: Handler
    honours: frozenset[str] = frozenset()
    tolerates: Mapping[str, tuple[object, ...]] = field(default_factory=dict)


def _row(handler: Handler, *honours: str, tolerates: Mapping[str, tuple[object, ...]] | None = None) -> Row:
    return Row(handler, frozenset(honours), tolerates or {})


_EC2 = {
    # Regions and types. There is one region and nothing in it is opted out of or managed by others, so parameters
    # that ask for more of such things ask for what is shown anyway.
    "DescribeRegions": _row(regions.describe_regions, "RegionNames", "AllRegions"),
    "DescribeAvailabilityZones": _row(
        regions.describe_availability_zones, "ZoneNames", "ZoneIds", "AllAvailabilityZones"
    ),
    "DescribeInstanceTypes": _row(regions.describe_instance_types, "InstanceTypes", "IncludeUnsupportedInRegion"),
    # Key pairs
    "CreateKeyPair": _row(
        keys.create_key_pair, "KeyName", "KeyType", "TagSpecifications", tolerates={"KeyFormat": ("pem",)}
    ),
    "ImportKeyPair": _row(keys.import_key_pair, "KeyName", "PublicKeyMaterial", "TagSpecifications"),
    "DescribeKeyPairs": _row(keys.describe_key_pairs, "KeyNames", "KeyPairIds", "IncludePublicKey"),
    "DeleteKeyPair": _row(keys.delete_key_pair, "KeyName", "KeyPairId"),
    # Images
    "RegisterImage": _row(images.register_image, *images.REGISTER_HONOURS, tolerates=images.REGISTER_TOLERATES),
    "CopyImage": _row(images.copy_image, *images.COPY_HONOURS, tolerates={"Encrypted": (False,)}),
    "DescribeImages": _row(
        images.describe_images, "ImageIds", "Owners", "ExecutableUsers", "IncludeDeprecated", "IncludeDisabled"
    ),
    "DeregisterImage": _row(images.deregister_image, "ImageId", tolerates={"DeleteAssociatedSnapshots": (False,)}),
    "DescribeImageAttribute": _row(images.describe_image_attribute, "ImageId", "Attribute"),
    "ModifyImageAttribute": _row(images.modify_image_attribute, *images.MODIFY_HONOURS),
    "ResetImageAttribute": _row(images.reset_image_attribute, "ImageId", "Attribute"),
    # Imports
    "ImportSnapshot": _row(imports.import_snapshot, *imports.SNAPSHOT_HONOURS, tolerates=imports.SNAPSHOT_TOLERATES),
    "ImportImage": _row(imports.import_image, *imports.IMAGE_HONOURS, tolerates=imports.IMAGE_TOLERATES),
    "DescribeImportSnapshotTasks": _row(imports.describe_import_snapshot_tasks, "ImportTaskIds"),
    "DescribeImportImageTasks": _row(imports.describe_import_image_tasks, "ImportTaskIds"),
    # Instances
    "RunInstances": _row(launches.run_instances, *launches.HONOURS, tolerates=launches.TOLERATES),
    "DescribeInstances": _row(instances.describe_instances, "InstanceIds", "IncludeManagedResources"),
    "DescribeInstanceStatus": _row(
        instances.describe_instance_status, "InstanceIds", "IncludeAllInstances", "IncludeManagedResources"
    ),
    "StartInstances": _row(instances.start_instances, "InstanceIds"),
    "StopInstances": _row(instances.stop_instances, "InstanceIds", "Force", "Hibernate", "SkipOsShutdown"),
    "RebootInstances": _row(instances.reboot_instances, "InstanceIds"),
    # Termination never waits for the guest, so Force and SkipOsShutdown ask for what happens anyway.
    "TerminateInstances": _row(instances.terminate_instances, "InstanceIds", "Force", "SkipOsShutdown"),
    "GetConsoleOutput": _row(consoles.get_console_output, "InstanceId", "Latest"),
    # Tags
    "CreateTags": _row(tags.create_tags, "Resources", "Tags"),
    "DeleteTags": _row(tags.delete_tags, "Resources", "Tags"),
    "DescribeTags": _row(tags.describe_tags),
    # Networks
    "DescribeVpcs": _row(networks.describe_vpcs, "VpcIds"),
    "DescribeSubnets": _row(networks.describe_subnets, "SubnetIds"),
    "DescribeSecurityGroups": _row(networks.describe_security_groups, "GroupIds", "GroupNames"),
}
_STS = {"GetCallerIdentity": _row(sts.get_caller_identity)}

OPERATIONS: Mapping[str, Mapping[str, Row]] = {"ec2": _EC2, "sts": _STS}


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
    if parameters.pop(DRY_RUN, False):
        # The root account may do everything; whoever is refused something is refused before this.
        raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
    return row.handler(context, parameters)
