"""Operations that AWS does not have: zones, hosts, waiting with progress, the daemon itself. Only at the unix socket.

Each takes and gives plain JSON objects; what it takes is declared by `take`, and anything else is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from typing import Any

from minicloud.api import catalogue, events
from minicloud.api.gate import Gate
from minicloud.api.operator_parameters import take
from minicloud.api.services import Context, HostAddress
from minicloud.cloud import hosts, progress, zones
from minicloud.cloud.placement import HostUsage
from minicloud.errors import ApiError, HostError
from minicloud.model.names import DEFAULT_POOL_FOLDER
from minicloud.model.resources import Host

MAX_WAIT_SECONDS = 60.0
MAX_WATCHED = 1000
LOCAL = "local"
# A commit of another daemon on the same database wakes nobody here.
LOOK_AGAIN_SECONDS = 5.0


def add_zone(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """AddZone: make a zone, or find it."""
    given = take(parameters, {"Name": str}, required=("Name",))
    zone = zones.add_zone(context.cloud, context.caller, given["Name"])
    return {"Zone": {"ZoneName": zone.id, "ZoneId": zone.zone_id, "RegionName": zone.region}}


def add_host(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """AddHost: reach a host, measure it, register it; its zone is made when it is new."""
    shape: dict[str, type] = {
        "Name": str,
        "Zone": str,
        "Address": str,
        "User": str,
        "Port": int,
        "HostKey": str,
        "PoolPath": str,
        "Uplink": str,
    }
    given = take(parameters, shape, required=("Name", "Zone"))
    address = HostAddress(
        name=given["Name"],
        address=given.get("Address", LOCAL),
        ssh_user=given.get("User", "root"),
        ssh_port=given.get("Port", 22),
        host_key=given.get("HostKey"),
        pool_path=given.get("PoolPath", DEFAULT_POOL_FOLDER),
    )
    zones.check_zone_name(context.caller, given["Zone"])
    try:
        probe = context.services.probe_host(address)
    except HostError as error:
        # Whoever adds a host is its operator: the detail is for them.
        raise ApiError("HostNotUsable", error.detail) from None
    # Only now: nobody could take a zone away again that was made for a host which cannot be one.
    zone = zones.add_zone(context.cloud, context.caller, given["Zone"])
    host = hosts.register_host(
        context.cloud,
        context.caller,
        hosts.NewHost(
            name=address.name,
            zone=zone.id,
            address=address.address,
            ssh_user=address.ssh_user,
            ssh_port=address.ssh_port,
            host_key=probe.host_key,
            uplink=given.get("Uplink"),
            facts=probe.facts,
            pool_capacity_bytes=probe.pool_capacity_bytes,
            pool_path=address.pool_path,
        ),
    )
    context.services.hosts_changed()
    return {"Host": _render_host(host)}


def remove_host(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """RemoveHost, by name or id."""
    given = take(parameters, {"HostId": str}, required=("HostId",))
    host = hosts.remove_host(context.cloud, context.caller, given["HostId"])
    context.services.hosts_changed()
    return {"Host": _render_host(host)}


def drain_host(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DrainHost: keep new instances off a host, or (`Draining` false) let them on again."""
    given = take(parameters, {"HostId": str, "Draining": bool}, required=("HostId",))
    host = hosts.set_host_draining(context.cloud, context.caller, given["HostId"], given.get("Draining", True))
    return {"Host": _render_host(host)}


def describe_hosts(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeHosts: every host and what of it is used."""
    take(parameters, {}, required=())
    found = hosts.describe_hosts(context.cloud, context.caller)
    return {"Hosts": [{**_render_host(one.host), **_render_usage(one)} for one in found]}


def describe_zones(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeZones: every zone and how many hosts it has."""
    take(parameters, {}, required=())
    found = zones.describe_zones(context.cloud, context.caller, (), ())
    return {
        "Zones": [
            {
                "ZoneName": one.zone.id,
                "ZoneId": one.zone.zone_id,
                "RegionName": one.zone.region,
                "Hosts": one.hosts,
                "HostsUp": one.hosts_up,
            }
            for one in found
        ]
    }


def daemon_status(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DaemonStatus: which daemon this is, how its work stands, and its counters since it started."""
    take(parameters, {}, required=())
    config = context.cloud.config
    work = progress.describe_work(context.cloud)
    return {
        "Version": metadata.version("minicloud"),
        "ConfigPath": config.path,
        "Region": config.region,
        "EndpointUrl": config.endpoint_url,
        "Tasks": [{"Kind": kind, "Step": step, "Count": count} for (kind, step), count in sorted(work.by_step.items())],
        "TasksLeased": work.leased,
        "TasksOverdue": work.overdue,
        "TasksFailing": [
            {"Id": task.id, "Kind": task.kind, "Step": task.step, "Attempt": task.attempt, "Error": task.last_error}
            for task in work.failing
        ],
        "Metrics": [
            {"Name": one.name, "Labels": one.labels, "Value": one.value} for one in context.services.requests.samples()
        ],
    }


Handler = Callable[[Context, dict[str, Any]], dict[str, Any]]
WaitingHandler = Callable[[Context, Gate, dict[str, Any]], Awaitable[dict[str, Any]]]

HANDLERS: Mapping[str, Handler] = {
    "AddZone": add_zone,
    "AddHost": add_host,
    "RemoveHost": remove_host,
    "DrainHost": drain_host,
    "DescribeHosts": describe_hosts,
    "DescribeZones": describe_zones,
    "DaemonStatus": daemon_status,
    "DescribeEvents": events.describe_events,
    "DescribeOperation": catalogue.describe_operation,
    "ListOperations": catalogue.list_operations,
}


async def wait_for_change(context: Context, gate: Gate, parameters: dict[str, Any]) -> dict[str, Any]:
    """WaitForChange: answer as soon as the progress of `Ids` differs from that of token `Since`, or time is up.

    Without `Since` it answers at once. Waiting takes no thread.
    """
    shape: dict[str, type] = {"Ids": list, "Since": str, "TimeoutSeconds": float}
    given = take(parameters, shape, required=("Ids",))
    ids = given["Ids"]
    if not 1 <= len(ids) <= MAX_WATCHED or not all(isinstance(one, str) for one in ids):
        raise ApiError("InvalidParameterValue", f"Ids must be 1 to {MAX_WATCHED} texts")
    deadline = time.monotonic() + min(max(given.get("TimeoutSeconds", MAX_WAIT_SECONDS), 0.0), MAX_WAIT_SECONDS)
    changes = context.services.changes
    while True:
        seen = changes.count
        resources = [
            {
                "Id": one.id,
                "State": one.state,
                "Step": one.step,
                "Attempt": one.attempt,
                "Progress": one.progress_percent,
                "Reason": one.reason,
            }
            for one in await gate.run(lambda: progress.describe_progress(context.cloud, context.caller, ids))
        ]
        token = hashlib.sha256(json.dumps(resources).encode()).hexdigest()[:32]
        left = deadline - time.monotonic()
        if token != given.get("Since") or left <= 0:
            return {"Token": token, "Resources": resources}
        await changes.wait(seen, min(left, LOOK_AGAIN_SECONDS))


# These wait, and take no thread meanwhile.
WAITING_HANDLERS: Mapping[str, WaitingHandler] = {
    "WaitForChange": wait_for_change,
    "WaitForEvents": events.wait_for_events,
}


def _render_host(host: Host) -> dict[str, Any]:
    return {
        "HostId": host.id,
        "Name": host.name,
        "Zone": host.zone,
        "Address": host.address,
        "User": host.ssh_user,
        "Port": host.ssh_port,
        "HostKeyFingerprint": _fingerprint(host.host_key),
        "State": host.state.value,
        "StateReason": host.state_reason,
        "Vcpus": host.vcpus,
        "MemoryMiB": host.memory_mib,
        "VirtType": host.virt_type,
        "VirtTypeReason": host.facts.get("virt_type_reason"),
        "MachineType": host.machine_type,
        "Uplink": host.uplink,
        "Facts": host.facts,
    }


def _fingerprint(host_key: str | None) -> str | None:
    """Return a host key's fingerprint as ssh shows it; `host_key` is "ssh-ed25519 AAAA…"."""
    if host_key is None:
        return None
    try:
        blob = base64.b64decode(host_key.split()[1])
    except (IndexError, binascii.Error):
        return None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _render_usage(usage: HostUsage) -> dict[str, Any]:
    return {
        "Instances": usage.instances,
        "UsedVcpus": usage.used.vcpus,
        "UsableVcpus": usage.total.vcpus,
        "UsedMemoryMiB": usage.used.memory_mib,
        "UsableMemoryMiB": usage.total.memory_mib,
        "UsedDiskBytes": usage.used.disk_bytes,
        "UsableDiskBytes": usage.total.disk_bytes,
        "Pools": [
            {
                "PoolId": usage.pool.id,
                "Name": usage.pool.name,
                "Backend": usage.pool.backend,
                "Path": usage.pool.path,
                "CapacityBytes": usage.pool.capacity_bytes,
            }
        ],
    }
