"""What EC2 says of an account: its platform, its default VPC, its limits.

Only numbers that this cloud keeps to are told. Source of the names: EC2 API reference, DescribeAccountAttributes.
"""

from __future__ import annotations

from collections.abc import Iterable

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.launch import MAX_GROUPS
from minicloud.errors import ApiError
from minicloud.store.store import Tx

# Addresses come with instances; none can be allocated.
MAX_ELASTIC_IPS = 0


def describe_account_attributes(cloud: Cloud, caller: Caller, names: Iterable[str]) -> dict[str, str]:
    """Return the named attributes, all if none is named. Raises InvalidParameterValue for an unknown name."""
    wanted = list(dict.fromkeys(names))

    def look(tx: Tx) -> str:
        found = tx.vpcs.where(account_id=caller.account_id, region=caller.region, is_default=True)
        return found[0].id if found else "none"

    known = {
        "supported-platforms": "VPC",
        "default-vpc": cloud.store.read(look),
        "max-instances": str(cloud.config.max_instances_per_account),
        "vpc-max-security-groups-per-interface": str(MAX_GROUPS),
        "max-elastic-ips": str(MAX_ELASTIC_IPS),
        "vpc-max-elastic-ips": str(MAX_ELASTIC_IPS),
    }
    unknown = [name[:100] for name in wanted if name not in known]
    if unknown:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({', '.join(unknown)}) for parameter attributeName is invalid. Expecting {', '.join(known)}.",
        )
    return {name: known[name] for name in wanted or known}
