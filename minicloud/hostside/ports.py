"""The port plans that a host holds: checked, kept as one file each, read back cheaply.

Owns `<state folder>/ports/<ENI id>.json`: the PortPlan of model/plans.py as it was pushed. These files are the truth
from which rules, DHCP, metadata and links are derived, again after a reboot. A port that is being removed is
`.<ENI id>.leaving`: no port any more, but whoever has to finish its removal learns which router it was on. It refuses
plans whose words could mean something to nft, dnsmasq or a path. Called by network.py, metadata.py and supervisor.py.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import threading
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Pattern, Tuple

from minicloud.hostside import codes, files
from minicloud.hostside.failures import Failure

Plan = Dict[str, Any]

USER_DATA_BYTES = 64 * 1024
MAX_RULES = 1000

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TAP = re.compile(r"mct[A-Za-z0-9]{1,12}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_PROTOCOL = re.compile(r"-1|tcp|udp|icmp|icmpv6|[0-9]{1,3}")


def folder(state_folder: Path) -> Path:
    """Return the folder of the plans."""
    return state_folder / "ports"


def path_of(state_folder: Path, port_id: str) -> Path:
    """Return the file of a plan. Raises Failure (permanent) for what is no id."""
    _match(port_id, _ID, "port id")
    return folder(state_folder) / f"{port_id}.json"


def write(plan: Plan, state_folder: Path) -> Optional[Path]:
    """Check and keep a plan; return its file if that changed, which is on disk only after `sync`."""
    check(plan)
    data = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    path = path_of(state_folder, plan["id"])
    return path if files.write_if_changed(path, data) else None


def sync(paths: List[Path]) -> None:
    """Make written plans outlive a power cut."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # removed again by a later call
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for parent in {path.parent for path in paths}:
        files.sync_folder(parent)


def begin_removal(state_folder: Path, port_id: str) -> Optional[Path]:
    """Make a port's plan count no more; return what is left of it, None if there is nothing."""
    path = path_of(state_folder, port_id)
    left = path.with_name(f".{port_id}.leaving")
    try:
        path.replace(left)
    except FileNotFoundError:
        return left if left.exists() else None
    return left


def end_removal(left: List[Path]) -> None:
    """Forget ports whose removal is complete."""
    for path in left:
        files.remove_file(path)
    for parent in {path.parent for path in left}:
        files.sync_folder(parent)


def leaving(state_folder: Path) -> List[Path]:
    """Return what is left of ports whose removal began."""
    return sorted(folder(state_folder).glob(".*.leaving"))


def read(path: Path) -> Optional[Plan]:
    """Return the plan in a file; None where there is none that is whole."""
    return _usable(files.read_json(path))


class Cache:
    """Plans by file, read again only when a file changed: hundreds of them cost a stat each. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._plans: Dict[str, Tuple[Tuple[int, int, int], Optional[Plan]]] = {}

    def read(self, state_folder: Path) -> List[Plan]:
        """Return all plans, the newest first. A file that a power cut left incomplete counts as absent."""
        with self._guard:
            seen = set()
            try:
                entries = list(os.scandir(folder(state_folder)))
            except FileNotFoundError:
                entries = []
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    seen.add(entry.path)
                    self._refresh(entry.path)
            prefix = os.path.join(str(folder(state_folder)), "")
            for gone in [path for path in self._plans if path.startswith(prefix) and path not in seen]:
                del self._plans[gone]
            entries_seen = [self._plans[path] for path in sorted(seen) if path in self._plans]
        entries_seen.sort(key=lambda entry: entry[0][1], reverse=True)
        return [plan for _, plan in entries_seen if plan is not None]

    def get(self, path: str) -> Optional[Plan]:
        """Return the plan in one file (or behind one link); None where there is none."""
        with self._guard:
            self._refresh(path)
            entry = self._plans.get(path)
            return entry[1] if entry else None

    def _refresh(self, path: str) -> None:
        try:
            status = os.stat(path)
        except OSError:
            self._plans.pop(path, None)
            return
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        entry = self._plans.get(path)
        if entry is None or entry[0] != stamp:
            self._plans[path] = (stamp, read(Path(path)))


def _usable(value: Any) -> Optional[Plan]:
    try:
        check(value)
    except Failure:
        return None
    return dict(value)


def check(plan: Any) -> None:
    """Raise Failure (permanent) unless `plan` is a PortPlan whose every word is safe to use."""
    try:
        _check(plan)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refusal(f"not a port plan: {error!r}") from error


def _check(plan: Plan) -> None:
    for key in ("id", "instance_id"):
        _match(plan[key], _ID, key)
    _match(plan["tap"], _TAP, "tap")
    _match(plan["mac"], _MAC, "mac")
    _match(plan["hostname"], _NAME, "hostname")
    _address(plan["private_ip"])
    if plan["public_ip"] is not None:
        _address(plan["public_ip"])
    _check_router(plan["router"])
    _check_subnet(plan["subnet"])
    if IPv4Address(plan["private_ip"]) not in _network(plan["subnet"]["cidr"]):
        raise _refusal(f"{plan['private_ip']} is not an address of its subnet")
    for group in plan["groups"]:
        _match(group["id"], _ID, "group id")
        _each(group["members"], _address)
        if len(group["rules"]) > MAX_RULES:
            raise _refusal(f"more than {MAX_RULES} rules")
        for rule in group["rules"]:
            _check_rule(rule)
    _check_metadata(plan["metadata"])


def _check_router(router: Plan) -> None:
    _match(router["vpc_id"], _ID, "vpc_id")
    _match(router["netns"], _ID, "netns")
    _network(router["cidr"])
    for key in ("transit_veth", "router_transit_veth"):
        _match(router[key], _INTERFACE, key)
    for key in ("host_transit_ip", "router_transit_ip"):
        _address(router[key])
    if router["uplink"] is not None:
        _match(router["uplink"], _INTERFACE, "uplink")
    _number(router["mtu"], 576, 65535, "mtu")
    _match(router["domain_name"], _NAME, "domain_name")
    _each(router["dns_servers"], _address)


def _check_subnet(subnet: Plan) -> None:
    _match(subnet["id"], _ID, "subnet id")
    for key in ("bridge", "bridge_veth", "router_veth"):
        _match(subnet[key], _INTERFACE, key)
    _address(subnet["gateway_ip"])
    if IPv4Address(subnet["gateway_ip"]) not in _network(subnet["cidr"]):
        raise _refusal(f"{subnet['gateway_ip']} is not an address of its subnet")


def _check_rule(rule: Plan) -> None:
    if not isinstance(rule["egress"], bool):
        raise _refusal("egress is not a boolean")
    _match(rule["protocol"], _PROTOCOL, "protocol")
    for key in ("from_port", "to_port"):
        if rule[key] is not None:
            _number(rule[key], -1, 65535, key)
    if rule["group_id"] is not None:
        _match(rule["group_id"], _ID, "group id")
    elif not isinstance(rule["cidr"], str):
        raise _refusal("a rule names neither a CIDR nor a group")
    else:
        ip_network(rule["cidr"], strict=False)


def _check_metadata(metadata: Plan) -> None:
    if metadata["http_endpoint"] not in ("enabled", "disabled") or metadata["http_tokens"] not in (
        "optional",
        "required",
    ):
        raise _refusal("unknown metadata options")
    _number(metadata["hop_limit"], 1, 64, "hop_limit")
    for texts in (metadata["leaves"], metadata["listings"], {"": metadata["identity_document"]}):
        for name, text in texts.items():
            if not isinstance(name, str) or not isinstance(text, str):
                raise _refusal("metadata is not text")
    if metadata["user_data_base64"] is not None:
        try:
            size = len(base64.b64decode(metadata["user_data_base64"], validate=True))
        except binascii.Error as error:
            raise _refusal("user data is not base64") from error
        if size > USER_DATA_BYTES:
            raise _refusal(f"user data of more than {USER_DATA_BYTES} bytes")


def _match(value: Any, pattern: Pattern[str], what: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _refusal(f"not a {what}: {value!r:.80}")


def _address(value: Any) -> None:
    # str() of what was parsed: only one spelling of an address may ever become a key.
    if not isinstance(value, str) or str(IPv4Address(value)) != value:
        raise _refusal(f"not an address: {value!r:.80}")


def _network(value: Any) -> IPv4Network:
    if not isinstance(value, str) or str(IPv4Network(value)) != value:
        raise _refusal(f"not a network: {value!r:.80}")
    return IPv4Network(value)


def _each(values: Any, check_one: Callable[[Any], None]) -> None:
    for value in values:
        check_one(value)


def _number(value: Any, low: int, high: int, what: str) -> None:
    if type(value) is not int or not low <= value <= high:
        raise _refusal(f"not a {what}: {value!r:.80}")


def _refusal(detail: str) -> Failure:
    return Failure(codes.INTERNAL, f"refused plan: {detail}", transient=False)
