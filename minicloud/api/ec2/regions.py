"""Regions, availability zones, instance types."""

from __future__ import annotations

from collections import Counter
from typing import Any

from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import instance_types, zones
from minicloud.cloud.block_devices import ATTACH_QUOTA
from minicloud.model.resources import InstanceType

OPT_IN = "opt-in-not-required"


def describe_regions(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeRegions."""
    found = zones.describe_regions(context.cloud, context.caller, parameters.get("RegionNames", ()))
    return {"Regions": [{"RegionName": one.name, "Endpoint": one.endpoint, "OptInStatus": OPT_IN} for one in found]}


def describe_availability_zones(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeAvailabilityZones. A zone without a host that is up is `unavailable`."""
    found = zones.describe_zones(
        context.cloud, context.caller, parameters.get("ZoneNames", ()), parameters.get("ZoneIds", ())
    )
    return {
        "AvailabilityZones": [
            {
                "State": "available" if one.hosts_up else "unavailable",
                "OptInStatus": OPT_IN,
                "Messages": [],
                "RegionName": one.zone.region,
                "ZoneName": one.zone.id,
                "ZoneId": one.zone.zone_id,
                "GroupName": one.zone.region,
                "NetworkBorderGroup": one.zone.region,
                "ZoneType": "availability-zone",
            }
            for one in found
        ]
    }


def describe_instance_types(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeInstanceTypes."""
    found = instance_types.describe_instance_types(context.cloud, context.caller, parameters.get("InstanceTypes", ()))
    return {"InstanceTypes": [_render_type(one) for one in found]}


def _render_type(one: InstanceType) -> dict[str, Any]:
    return {
        "InstanceType": one.name,
        "CurrentGeneration": one.current_generation,
        "FreeTierEligible": one.free_tier,
        "SupportedUsageClasses": ["on-demand"],
        "SupportedRootDeviceTypes": ["ebs"],
        "SupportedVirtualizationTypes": ["hvm"],
        "BareMetal": False,
        "Hypervisor": "nitro",
        "ProcessorInfo": {
            "SupportedArchitectures": ["x86_64"],
            "SustainedClockSpeedInGhz": one.clock_ghz,
        },
        "VCpuInfo": {
            "DefaultVCpus": one.vcpus,
            "DefaultCores": one.cores,
            "DefaultThreadsPerCore": one.threads_per_core,
        },
        "MemoryInfo": {"SizeInMiB": one.memory_mib},
        "InstanceStorageSupported": bool(one.instance_store_gb),
        "InstanceStorageInfo": _render_storage(one) if one.instance_store_gb else None,
        "EbsInfo": {
            "EbsOptimizedSupport": "default" if one.current_generation else "unsupported",
            "EncryptionSupport": "unsupported",
            "NvmeSupport": "unsupported",
            "MaximumEbsAttachments": ATTACH_QUOTA + 1,
            "AttachmentLimitType": "dedicated",
        },
        "NetworkInfo": {
            "NetworkPerformance": one.network_performance,
            "MaximumNetworkInterfaces": 1,
            "MaximumNetworkCards": 1,
            "DefaultNetworkCardIndex": 0,
            "NetworkCards": [
                {
                    "NetworkCardIndex": 0,
                    "NetworkPerformance": one.network_performance,
                    "MaximumNetworkInterfaces": 1,
                }
            ],
            "Ipv4AddressesPerInterface": 1,
            "Ipv6AddressesPerInterface": 0,
            "Ipv6Supported": False,
            "EnaSupport": "unsupported",
            "EfaSupported": False,
            "EncryptionInTransitSupported": False,
        },
        "PlacementGroupInfo": {"SupportedStrategies": []},
        "HibernationSupported": False,
        "BurstablePerformanceSupported": one.burstable,
        "DedicatedHostsSupported": False,
        "AutoRecoverySupported": False,
        "SupportedBootModes": ["legacy-bios", "uefi"],
        "NitroEnclavesSupport": "unsupported",
        "NitroTpmSupport": "unsupported",
    }


def _render_storage(one: InstanceType) -> dict[str, Any]:
    return {
        "TotalSizeInGB": sum(one.instance_store_gb),
        "Disks": [
            {"SizeInGB": size, "Count": count, "Type": "ssd"} for size, count in Counter(one.instance_store_gb).items()
        ],
        "NvmeSupport": "unsupported",
        "EncryptionSupport": "unsupported",
    }


ROWS: Rows = {
    # Regions and types. There is one region and nothing in it is opted out of or managed by others, so parameters
    # that ask for more of such things ask for what is shown anyway.
    "DescribeRegions": row(describe_regions, "RegionNames", "AllRegions"),
    "DescribeAvailabilityZones": row(describe_availability_zones, "ZoneNames", "ZoneIds", "AllAvailabilityZones"),
    "DescribeInstanceTypes": row(describe_instance_types, "InstanceTypes", "IncludeUnsupportedInRegion"),
}
