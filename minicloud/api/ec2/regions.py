"""Regions, availability zones, instance types."""

from __future__ import annotations

from collections import Counter
from typing import Any

from minicloud.api.listing import Pages
from minicloud.api.matching import ShownFilters
from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import instance_types, zones
from minicloud.cloud.block_devices import ATTACH_QUOTA
from minicloud.model.resources import InstanceType

OPT_IN = "opt-in-not-required"


# Source of the names: EC2 API reference, "Filter.N" of each page.
REGIONS = ShownFilters(
    "RegionName", {"endpoint": "Endpoint", "opt-in-status": "OptInStatus", "region-name": "RegionName"}
)
ZONES = ShownFilters(
    "ZoneName",
    {
        "group-long-name": None,
        "group-name": "GroupName",
        "message": "Messages.Message",
        "opt-in-status": "OptInStatus",
        "parent-zone-id": None,
        "parent-zone-name": None,
        "region-name": "RegionName",
        "state": "State",
        "zone-id": "ZoneId",
        "zone-name": "ZoneName",
        "zone-type": "ZoneType",
    },
)
TYPES = ShownFilters(
    "InstanceType",
    {
        "auto-recovery-supported": "AutoRecoverySupported",
        "bare-metal": "BareMetal",
        "burstable-performance-supported": "BurstablePerformanceSupported",
        "current-generation": "CurrentGeneration",
        "dedicated-hosts-supported": "DedicatedHostsSupported",
        "ebs-info.attachment-limit-type": "EbsInfo.AttachmentLimitType",
        "ebs-info.maximum-ebs-attachments": "EbsInfo.MaximumEbsAttachments",
        # Nothing is promised of an EBS volume's speed.
        "ebs-info.ebs-optimized-info.baseline-bandwidth-in-mbps": None,
        "ebs-info.ebs-optimized-info.baseline-iops": None,
        "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps": None,
        "ebs-info.ebs-optimized-info.maximum-bandwidth-in-mbps": None,
        "ebs-info.ebs-optimized-info.maximum-iops": None,
        "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps": None,
        "ebs-info.ebs-optimized-support": "EbsInfo.EbsOptimizedSupport",
        "ebs-info.encryption-support": "EbsInfo.EncryptionSupport",
        "ebs-info.nvme-support": "EbsInfo.NvmeSupport",
        "free-tier-eligible": "FreeTierEligible",
        "hibernation-supported": "HibernationSupported",
        "hypervisor": "Hypervisor",
        "instance-storage-info.disk.count": "InstanceStorageInfo.Disks.Count",
        "instance-storage-info.disk.size-in-gb": "InstanceStorageInfo.Disks.SizeInGB",
        "instance-storage-info.disk.type": "InstanceStorageInfo.Disks.Type",
        "instance-storage-info.encryption-support": "InstanceStorageInfo.EncryptionSupport",
        "instance-storage-info.nvme-support": "InstanceStorageInfo.NvmeSupport",
        "instance-storage-info.total-size-in-gb": "InstanceStorageInfo.TotalSizeInGB",
        "instance-storage-supported": "InstanceStorageSupported",
        "instance-type": "InstanceType",
        "memory-info.size-in-mib": "MemoryInfo.SizeInMiB",
        "network-info.bandwidth-weightings": "NetworkInfo.BandwidthWeightings",
        "network-info.efa-info.maximum-efa-interfaces": None,
        "network-info.efa-supported": "NetworkInfo.EfaSupported",
        "network-info.ena-support": "NetworkInfo.EnaSupport",
        "network-info.flexible-ena-queues-support": "NetworkInfo.FlexibleEnaQueuesSupport",
        "network-info.encryption-in-transit-supported": "NetworkInfo.EncryptionInTransitSupported",
        "network-info.ipv4-addresses-per-interface": "NetworkInfo.Ipv4AddressesPerInterface",
        "network-info.ipv6-addresses-per-interface": "NetworkInfo.Ipv6AddressesPerInterface",
        "network-info.ipv6-supported": "NetworkInfo.Ipv6Supported",
        "network-info.maximum-network-cards": "NetworkInfo.MaximumNetworkCards",
        "network-info.maximum-network-interfaces": "NetworkInfo.MaximumNetworkInterfaces",
        "network-info.network-performance": "NetworkInfo.NetworkPerformance",
        "nitro-enclaves-support": "NitroEnclavesSupport",
        "nitro-tpm-support": "NitroTpmSupport",
        "nitro-tpm-info.supported-versions": None,
        "processor-info.supported-architecture": "ProcessorInfo.SupportedArchitectures",
        "processor-info.sustained-clock-speed-in-ghz": "ProcessorInfo.SustainedClockSpeedInGhz",
        "processor-info.supported-features": None,
        "reboot-migration-support": "RebootMigrationSupport",
        "supported-boot-mode": "SupportedBootModes",
        "supported-root-device-type": "SupportedRootDeviceTypes",
        "supported-usage-class": "SupportedUsageClasses",
        "supported-virtualization-type": "SupportedVirtualizationTypes",
        "vcpu-info.default-cores": "VCpuInfo.DefaultCores",
        "vcpu-info.default-threads-per-core": "VCpuInfo.DefaultThreadsPerCore",
        "vcpu-info.default-vcpus": "VCpuInfo.DefaultVCpus",
        "vcpu-info.valid-cores": "VCpuInfo.ValidCores",
        "vcpu-info.valid-threads-per-core": "VCpuInfo.ValidThreadsPerCore",
    },
)


def describe_regions(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeRegions."""
    found = zones.describe_regions(context.cloud, context.caller, parameters.get("RegionNames", ()))
    shown = [{"RegionName": one.name, "Endpoint": one.endpoint, "OptInStatus": OPT_IN} for one in found]
    return {"Regions": REGIONS.page(shown, context.asked).items}


def describe_availability_zones(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeAvailabilityZones. A zone without a host that is up is `unavailable`."""
    found = zones.describe_zones(
        context.cloud, context.caller, parameters.get("ZoneNames", ()), parameters.get("ZoneIds", ())
    )
    shown: list[dict[str, Any]] = [
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
    return {"AvailabilityZones": ZONES.page(shown, context.asked).items}


def describe_instance_types(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeInstanceTypes."""
    found = instance_types.describe_instance_types(context.cloud, context.caller, parameters.get("InstanceTypes", ()))
    page = TYPES.page([_render_type(one) for one in found], context.asked)
    return {"InstanceTypes": page.items, "NextToken": context.next_token(page)}


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
            "ValidCores": [one.cores],
            "ValidThreadsPerCore": [one.threads_per_core],
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
            "BandwidthWeightings": ["default"],
            "FlexibleEnaQueuesSupport": "unsupported",
            "EncryptionInTransitSupported": False,
        },
        "PlacementGroupInfo": {"SupportedStrategies": []},
        "HibernationSupported": False,
        "BurstablePerformanceSupported": one.burstable,
        "DedicatedHostsSupported": False,
        "AutoRecoverySupported": False,
        "RebootMigrationSupport": "unsupported",
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
    "DescribeRegions": row(describe_regions, "RegionNames", tolerates={"AllRegions": ANYTHING}, filters=REGIONS),
    "DescribeAvailabilityZones": row(
        describe_availability_zones, "ZoneNames", "ZoneIds", tolerates={"AllAvailabilityZones": ANYTHING}, filters=ZONES
    ),
    "DescribeInstanceTypes": row(
        describe_instance_types,
        "InstanceTypes",
        tolerates={"IncludeUnsupportedInRegion": ANYTHING},
        filters=TYPES,
        pages=Pages(5, 100, not_with=("InstanceTypes",)),
    ),
}
