"""The network of instances on a host: routers, bridges, rules, public addresses, made to match the ports' plans.

Owns, per VPC: the router's namespace, its rules and links, and `<state folder>/routers/<router>/` with what is derived
from the plans (DHCP, names, metadata links, `applied.json`). Owns, per host: nft's tables `bridge minicloud` and
`ip minicloud`. It refuses to touch any other table, link or route; taps are libvirt's. Called by verbs.py and
supervisor.py.

Level-triggered: every call compares all plans on the host with what was applied last and applies the difference;
whoever finds his own plan applied by somebody else meanwhile has nothing to do. What was applied is trusted only while
the kernel agrees: rules by their generation, links by being there. So a call that dies halfway, a reboot, or somebody
who flushed the rules is made good by the next call.

A router's rules come before its links, a tap's before libvirt makes the tap. A failed transaction leaves the old
rules; a router without rules has no links.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Optional, Set, Union

from minicloud.hostside import (
    connections,
    dhcp,
    files,
    firewall,
    libnftables,
    links,
    metadata,
    namespaces,
    netlink,
    nft,
    ports,
    supervision,
)
from minicloud.hostside.failures import Failure
from minicloud.hostside.ports import Plan
from minicloud.hostside.threads import together

Folder = Union[str, Path]
Record = Dict[str, Any]

ROUTER_PREFIX = "mcr-"

_cache = ports.Cache()


def ensure_ports(plans: List[Plan], state_folder: Folder) -> None:
    """Have these ports, and all they stand on, as their plans say. Raises Failure.

    Permanent: a plan that is no plan. Transient, `address-in-use`: another port of this host has the address still.
    """
    folder = Path(state_folder)
    files.ensure_folder(folder)
    files.ensure_folder(ports.folder(folder), 0o700)
    for plan in plans:
        ports.check(plan)
    _refuse_conflicts(plans, _cache.read(folder))
    written = [path for path in (ports.write(plan, folder) for plan in plans) if path is not None]
    routers = sorted({plan["router"]["netns"] for plan in plans})
    # The disk is slower than the kernel: it works meanwhile.
    together([lambda: _ensure_routers(folder, routers), lambda: ports.sync(written)])


def ensure_no_ports(port_ids: Iterable[str], state_folder: Folder) -> None:
    """Take ports away; with the last of a subnet its bridge, with the last of a VPC its router. Raises Failure."""
    folder = Path(state_folder)
    leaving = [path for path in (ports.begin_removal(folder, port_id) for port_id in port_ids) if path is not None]
    plans = [plan for plan in map(ports.read, leaving) if plan is not None]
    _ensure_routers(folder, sorted({plan["router"]["netns"] for plan in plans}))
    ports.end_removal(leaving)


def list_ports(state_folder: Folder) -> List[str]:
    """Return the ids of the ports that this host holds."""
    return sorted(plan["id"] for plan in _cache.read(Path(state_folder)))


def list_routers() -> List[str]:
    """Return the routers (namespaces) of this host."""
    return namespaces.names(ROUTER_PREFIX)


def restore(state_folder: Folder) -> None:
    """Have every router of the pushed plans, with its servers, and no other. Raises the first Failure, after all."""
    folder = Path(state_folder)
    leaving = ports.leaving(folder)
    names = {plan["router"]["netns"] for plan in _cache.read(folder)}
    try:
        names |= set(os.listdir(folder / "routers"))
    except FileNotFoundError:
        pass
    failures = []
    for name in sorted(names):
        try:
            _ensure_routers(folder, [name])
        except Failure as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
    ports.end_removal(leaving)
    for below in (folder, ports.folder(folder), *(folder / "routers" / name for name in names)):
        files.remove_debris(below)


def dnsmasq_config(folder: Path) -> Optional[Path]:
    """Return the configuration that a router's dnsmasq should run on; None where there is none yet."""
    found = sorted(folder.glob("dnsmasq.*.conf"), key=lambda path: path.stat().st_mtime_ns)
    return found[-1] if found else None


def _ensure_routers(folder: Path, names: List[str]) -> None:
    for name in names:
        with files.locked(files.ensure_folder(folder / "locks", 0o700) / name) as lock:
            _Router(folder, name, lock).apply()


def _refuse_conflicts(wanted: List[Plan], held: List[Plan]) -> None:
    ids = {plan["id"] for plan in wanted}
    owners: Dict[Any, str] = {}
    for plan in [other for other in held if other["id"] not in ids] + wanted:
        claims: List[Any] = [("address", plan["router"]["netns"], plan["private_ip"]), ("tap", plan["tap"])]
        if plan["public_ip"] is not None:
            claims.append(("public address", plan["public_ip"]))
        for claim in claims:
            owner = owners.setdefault(claim, plan["id"])
            if owner != plan["id"]:
                detail = f"{plan['id']} wants the {claim[0]} {claim[-1]}, which {owner} has"
                raise Failure("address-in-use", detail, transient=True)


class _Router:
    """One router, while its lock is held."""

    def __init__(self, state_folder: Path, name: str, lock: int) -> None:
        self._state_folder = state_folder
        self._name = name
        self._lock = lock
        self._folder = metadata.router_folder(state_folder, name)
        self._record_path = self._folder / "applied.json"
        record = files.read_json(self._record_path)
        self._record: Record = record if isinstance(record, dict) else {}

    def apply(self) -> None:
        """Make the router match the plans; without any, there is none.

        The newest plan, which is the first, speaks for what all ports of a router share.
        """
        plans = [plan for plan in _cache.read(self._state_folder) if plan["router"]["netns"] == self._name]
        if not plans:
            self._remove()
            return
        self._write_files(plans)
        if namespaces.ensure_namespace(self._name, self._lock):
            # Links to a namespace that somebody deleted are dying: gone for sure before new ones take their names.
            links.apply(self._record.get("links", links.NOTHING), links.NOTHING, trusted=False, lock=self._lock)
            self._record = {}
        # Servers need the namespace and their files only: they start while the links come up.
        together(
            [
                lambda: self._apply_kernel(plans),
                lambda: supervision.ensure_router(self._state_folder, self._name),
            ]
        )

    def _apply_kernel(self, plans: List[Plan]) -> None:
        before = dict(self._record)
        router = nft.router(plans)
        generation = namespaces.inside(self._name, lambda: self._apply_rules(router))
        # The host's rules are for taps, which come after this call: links need not wait for them.
        goal = links.goal(plans, links.default_uplink())
        together([lambda: self._apply_links(goal), lambda: _apply_host_rules(self._state_folder)])
        self._end_connections(router, plans)
        # Only now: a call that dies before this finds the old table again, and ends what it left to be ended.
        self._record.update(generation=generation, table=nft.to_json(router.table))
        if self._record != before:
            self._write_record()

    def _write_files(self, plans: List[Plan]) -> None:
        files.ensure_folder(self._folder.parent)
        files.ensure_folder(self._folder)
        files.write_if_changed(self._folder / "hosts", dhcp.render_hosts(plans), 0o644)
        files.write_if_changed(self._folder / "names", dhcp.render_names(plans), 0o644)
        user, upstream = dhcp.unprivileged_user(), dhcp.upstream_file()
        config = dhcp.render_config(plans, self._folder, user, upstream)
        path = self._folder / dhcp.config_name(config)
        files.write_if_changed(path, config, 0o644)
        for other in self._folder.glob("dnsmasq.*.conf"):
            if other != path:
                files.remove_file(other)
        metadata.link_plans(self._folder, {plan["private_ip"]: plan["id"] for plan in plans})

    def _apply_rules(self, router: nft.Router) -> int:
        generation = netlink.nft_generation()
        known = self._record.get("table") if self._record.get("generation") == generation else None
        change = nft.render_change(nft.from_json(known) if known else None, router.table)
        return _transact(change, generation)

    def _apply_links(self, goal: links.Goal) -> None:
        old = self._record.get("links", links.NOTHING)
        trusted = self._record.get("linked", False) and links.exist(old)
        if trusted and old == goal:
            return
        # Told before it is done: whatever a killed call leaves is in the record, to be completed or removed.
        self._record.update(links=links.union(old, goal), linked=False)
        self._write_record()
        steps: List[Callable[[], None]] = [lambda: links.apply(old, goal, trusted, self._lock)]
        if not trusted or old["transit"] != goal["transit"]:
            steps.append(lambda: _open_passage(self._state_folder))
        together(steps)
        self._record.update(links=goal, linked=True)

    def _end_connections(self, router: nft.Router, plans: List[Plan]) -> None:
        if "table" not in self._record:
            return
        old = nft.from_json(self._record["table"])
        if any(connections.changed_addresses(old, router.table)):
            own = frozenset([nft.METADATA_IP, *(plan["subnet"]["gateway_ip"] for plan in plans)])
            namespaces.inside(self._name, lambda: _end_forbidden(old, router, own))
        _end_concerning(_public_addresses(old) - _public_addresses(router.table))

    def _write_record(self) -> None:
        files.atomic_write(self._record_path, _dump(self._record), durable=False)

    def _remove(self) -> None:
        supervision.ensure_no_router(self._state_folder, self._name)
        old = self._record.get("links", links.NOTHING)
        links.apply(old, links.NOTHING, trusted=False, lock=self._lock)
        namespaces.ensure_no_namespace(self._name, self._lock)
        # Once more: somebody may have asked for its servers until just now. From here on there is no namespace.
        supervision.ensure_no_router(self._state_folder, self._name)
        _apply_host_rules(self._state_folder)
        _end_concerning(set(old["public"]))
        shutil.rmtree(self._folder, ignore_errors=True)


def _apply_host_rules(state_folder: Path) -> None:
    path = state_folder / "host-rules.json"
    with files.locked(_host_lock(state_folder)) as lock:
        plans = _cache.read(state_folder)
        record = files.read_json(path) or {}
        generation = netlink.nft_generation()
        stamp = [metadata.boot_id(), netlink.namespace_cookie(), generation]
        known = [nft.from_json(value) for value in record["tables"]] if record.get("stamp") == stamp else []
        if not plans:
            if record:
                _transact(nft.render_removal(), generation)
                firewall.ensure_no_passage(lock)
                files.remove_file(path)
            return
        tables = nft.host(plans)
        if known == tables:
            return
        if not record:
            # Told before it is done: whoever removes the last port knows by it that there may be tables.
            files.atomic_write(path, _dump({"stamp": [], "tables": []}), durable=False)
        old = {table.family: table for table in known}
        stamp[2] = _transact("".join(nft.render_change(old.get(new.family), new) for new in tables), generation)
        record = {"stamp": stamp, "tables": [nft.to_json(table) for table in tables]}
        files.atomic_write(path, _dump(record), durable=False)


def _open_passage(state_folder: Path) -> None:
    with files.locked(_host_lock(state_folder)) as lock:
        firewall.ensure_passage(lock)


def _host_lock(state_folder: Path) -> Path:
    return state_folder / "locks" / "host"


def _transact(change: str, generation: int) -> int:
    """Apply a transaction to the rules of the calling thread's namespace; return the generation it made.

    Where somebody else changed them at the same moment it returns 0, which no rules have: all is applied again then.
    """
    if not change:
        return generation
    libnftables.transact(change)
    after = netlink.nft_generation()
    return after if after == generation + 1 else 0


def _end_forbidden(old: nft.Table, router: nft.Router, own_addresses: FrozenSet[str]) -> None:
    doomed = connections.choose_forbidden(netlink.connections(), old, router, own_addresses)
    netlink.delete_connections(doomed)


def _end_concerning(addresses: Set[str]) -> None:
    if addresses:
        netlink.delete_connections(connections.choose_concerning(netlink.connections(), addresses))


def _public_addresses(table: nft.Table) -> Set[str]:
    return set(table.sets["public_to_private"].elements)


def _dump(record: Record) -> str:
    return json.dumps(record, separators=(",", ":"))
