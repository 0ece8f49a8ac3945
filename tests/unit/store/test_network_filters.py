"""Filters of networks, volumes and snapshots, in both databases: what each finds, and that every one can be asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import rows as make

from minicloud import ids
from minicloud.model.states import AttachmentState, HostState, InstanceState, Intent, SnapshotState, VolumeState
from minicloud.store import queries
from minicloud.store.filters.network_interfaces import NETWORK_INTERFACES, network_interfaces_of
from minicloud.store.filters.security_groups import (
    SECURITY_GROUP_RULES,
    SECURITY_GROUPS,
    security_group_rules_of,
    security_groups_of,
)
from minicloud.store.filters.snapshots import SNAPSHOTS
from minicloud.store.filters.subnets import SUBNETS, subnets_of
from minicloud.store.filters.volumes import VOLUME_STATUSES, VOLUMES
from minicloud.store.filters.vpcs import VPCS
from minicloud.store.search import Asked, Condition, Filter, FilterSet
from minicloud.store.store import Store, Tx

OTHER = "200000000002"
VPC = make.vpc(1)
TABLES: dict[str, tuple[str, FilterSet]] = {
    "vpc": ("vpcs", VPCS),
    "subnet": ("subnets", SUBNETS),
    "group": ("security_groups", SECURITY_GROUPS),
    "rule": ("security_group_rules", SECURITY_GROUP_RULES),
    "port": ("network_interfaces", NETWORK_INTERFACES),
    "volume": ("volumes", VOLUMES),
    "status": ("volumes", VOLUME_STATUSES),
    "snapshot": ("snapshots", SNAPSHOTS),
}


@pytest.fixture
def filled(store: Store) -> Iterator[Store]:
    """Two of everything in the account's VPC, the second unlike the first; and a VPC of another account's."""

    def fill(tx: Tx) -> None:
        tx.zones.insert_many([make.zone(1), make.zone(2)])
        tx.hosts.insert_many([make.host(1), make.host(2, state=HostState.DOWN)])
        tx.pools.insert_many([make.pool(1), make.pool(2)])
        tx.vpcs.insert_many([VPC, make.vpc(2, account_id=OTHER, cidr="10.0.0.0/24")])
        tx.subnets.insert_many(
            [
                make.subnet(1),
                make.subnet(2, zone="lab-1b", map_public_ip_on_launch=False),
                make.subnet(3, account_id=OTHER, vpc_id=make.number("vpc", 2), cidr="10.0.0.0/28"),
            ]
        )
        tx.security_groups.insert_many(
            [
                make.security_group(1, name="default"),
                make.security_group(2, name="web", description="for *"),
                make.security_group(3, account_id=OTHER, vpc_id=make.number("vpc", 2)),
            ]
        )
        sources = {"cidr": None, "source_group_id": make.number("sg", 2)}
        everything = {"protocol": "-1", "from_port": None, "to_port": None}
        tx.security_group_rules.insert_many(
            [
                make.security_group_rule(1),
                make.security_group_rule(2, from_port=80, to_port=90, **sources),
                make.security_group_rule(3, group_id=make.number("sg", 2), egress=True, **everything),
                make.security_group_rule(4, group_id=make.number("sg", 2), egress=True, protocol="udp", **sources),
                make.security_group_rule(5, group_id=make.number("sg", 3), account_id=OTHER),
            ]
        )
        running = {"state": InstanceState.RUNNING}
        tx.instances.insert_many([make.instance(1), make.instance(2, **running), make.instance(3, **running)])
        tx.network_interfaces.insert_many(
            [
                make.network_interface(1),
                make.network_interface(
                    2,
                    public_ip=None,
                    zone="lab-1b",
                    subnet_id=make.number("subnet", 2),
                    private_ip="172.31.32.4",
                    group_ids=(make.number("sg", 1), make.number("sg", 2)),
                    delete_on_termination=False,
                    attached_us=make.BORN_US + 1_500_000,
                ),
                make.network_interface(
                    3, account_id=OTHER, vpc_id=make.number("vpc", 2), subnet_id=make.number("subnet", 3),
                    private_ip="10.0.0.4",
                ),
            ]
        )  # fmt: skip
        tx.volumes.insert_many(
            [
                make.volume(1, state=VolumeState.IN_USE),
                make.volume(
                    2,
                    state=VolumeState.AVAILABLE,
                    zone="lab-1b",
                    pool_id=make.number("pool", 2),
                    size_gib=20,
                    volume_type="gp2",
                    snapshot_id=None,
                    created_us=make.BORN_US + 2_000_000,
                ),
                make.volume(3),
            ]
        )
        tx.attachments.insert_many(
            [
                make.attachment(1, state=AttachmentState.ATTACHED),
                # History, which no filter finds.
                make.attachment(2, instance_id=make.number("i", 1), state=AttachmentState.DETACHED),
                make.attachment(3, device_name="/dev/sdf", delete_on_termination=False),
            ]
        )
        tx.snapshots.insert_many(
            [
                make.snapshot(1, volume_id=make.number("vol", 1), description="first"),
                make.snapshot(
                    2,
                    size_gib=8,
                    state=SnapshotState.PENDING,
                    progress_percent=7,
                    created_us=make.BORN_US + 60_000_000,
                ),
            ]
        )
        for prefix in ("vpc", "subnet", "sg", "sgr", "eni", "vol", "snap"):
            tx.tags.set(make.number(prefix, 1), {"Name": "one", "a:b": "c"})

    store.write(fill)
    yield store


def found(store: Store, kind: str, *filters: Filter) -> list[int]:
    """Return the numbers of the rows that pass, sorted."""
    table, known = TABLES[kind]
    page = store.read(lambda tx: getattr(tx, table).search(known, Asked(filters)))
    return sorted(int(row.id.rpartition("-")[2], 16) for row in page.items)


FINDS = [
    ("vpc", "cidr", "172.31.0.0/16", [1]),
    ("vpc", "cidr", "10.*", [2]),
    ("vpc", "cidr-block-association.cidr-block", "172.31.0.0/16", [1]),
    (
        "vpc",
        "cidr-block-association.association-id",
        ids.derived_id(ids.VPC_CIDR_ASSOCIATION, VPC.id, VPC.cidr),
        [1],
    ),
    ("vpc", "cidr-block-association.association-id", "vpc-cidr-assoc-0*", [1, 2]),
    ("vpc", "cidr-block-association.state", "associated", [1, 2]),
    ("vpc", "dhcp-options-id", ids.derived_id(ids.DHCP_OPTIONS, OTHER, "lab-1"), [2]),
    ("vpc", "ipv6-cidr-block-association.ipv6-cidr-block", "*", []),
    ("vpc", "is-default", "true", [1]),
    ("vpc", "isDefault", "false", [2]),
    ("vpc", "owner-id", OTHER, [2]),
    ("vpc", "state", "available", [1, 2]),
    ("vpc", "state", "pending", []),
    ("vpc", "tag:Name", "o*", [1]),
    ("vpc", "tag:a:b", "c", [1]),
    ("vpc", "tag-key", "Name", [1]),
    ("subnet", "availabilityZone", "lab-1b", [2]),
    ("subnet", "availability-zone-id", "lab1-az1", [1, 3]),
    ("subnet", "available-ip-address-count", "4090", [1, 2]),
    ("subnet", "available-ip-address-count", "10", [3]),
    ("subnet", "available-ip-address-count", "409?", [1, 2]),
    ("subnet", "available-ip-address-count", "4091", []),
    ("subnet", "cidrBlock", "172.31.16.0/20", [1]),
    ("subnet", "default-for-az", "true", [1]),
    ("subnet", "map-public-ip-on-launch", "false", [2]),
    ("subnet", "outpost-arn", "*", []),
    ("subnet", "private-dns-name-options-on-launch.hostname-type", "ip-name", [1, 2, 3]),
    ("subnet", "subnet-arn", f"arn:aws:ec2:lab-1:{OTHER}:subnet/{make.number('subnet', 3)}", [3]),
    ("subnet", "vpc-id", VPC.id, [1, 2]),
    ("group", "description", "for \\*", [2]),
    ("group", "group-name", "web", [2]),
    ("group", "ip-permission.cidr", "0.0.0.0/0", [1, 3]),
    ("group", "ip-permission.from-port", "80", [1]),
    ("group", "ip-permission.to-port", "9?", [1]),
    ("group", "ip-permission.group-id", make.number("sg", 2), [1]),
    ("group", "ip-permission.group-name", "web", [1]),
    ("group", "ip-permission.protocol", "-1", []),
    ("group", "ip-permission.user-id", make.ACCOUNT, [1]),
    # Its rule allows a network, not a group.
    ("group", "ip-permission.user-id", OTHER, []),
    ("group", "ip-permission.ipv6-cidr", "*", []),
    ("group", "egress.ip-permission.protocol", "-1", [2]),
    ("group", "egress.ip-permission.cidr", "0.0.0.0/0", [2]),
    ("group", "egress.ip-permission.group-name", "w?b", [2]),
    ("rule", "group-id", make.number("sg", 1), [1, 2]),
    ("rule", "security-group-rule-id", make.number("sgr", 3), [3]),
    ("rule", "tag:Name", "one", [1]),
    ("port", "addresses.association.owner-id", "amazon", [1, 3]),
    ("port", "addresses.association.public-ip", "10.200.0.1", [1]),
    ("port", "association.public-dns-name", "", [1, 3]),
    ("port", "attachment.attach-time", "2023-11-14T22:13:21.500Z", [2]),
    ("port", "attachment.attach-time", "2023-11-14T22:13:20*", [1, 3]),
    ("port", "attachment.delete-on-termination", "false", [2]),
    ("port", "attachment.device-index", "0", [1, 2, 3]),
    ("port", "attachment.instance-id", make.number("i", 2), [2]),
    ("port", "attachment.status", "attaching", [1]),
    ("port", "attachment.status", "attached", [2, 3]),
    ("port", "availability-zone-id", "lab1-az2", [2]),
    ("port", "description", "", [1, 2, 3]),
    ("port", "group-id", make.number("sg", 2), [2]),
    ("port", "mac-address", "02:00:00:00:00:01", [1]),
    ("port", "private-dns-name", "ip-172-31-32-4.lab-1.compute.internal", [2]),
    ("port", "private-ip-address", "172.31.16.4", [1]),
    ("port", "requester-id", "*", []),
    ("port", "source-dest-check", "true", [1, 2, 3]),
    ("port", "status", "available", []),
    ("port", "subnet-id", make.number("subnet", 1), [1]),
    ("volume", "attachment.attach-time", "2023-11-14T22:13:20.000Z", [1, 3]),
    ("volume", "attachment.delete-on-termination", "true", [1]),
    ("volume", "attachment.device", "/dev/sd*", [3]),
    ("volume", "attachment.instance-id", make.number("i", 1), [1]),
    ("volume", "attachment.status", "attached", [1]),
    ("volume", "attachment.status", "detached", []),
    ("volume", "availability-zone-id", "lab1-az2", [2]),
    ("volume", "create-time", "2023-11-14T22:13:22.000Z", [2]),
    ("volume", "encrypted", "false", [1, 2, 3]),
    ("volume", "multi-attach-enabled", "true", []),
    ("volume", "size", "20", [2]),
    ("volume", "snapshot-id", make.number("snap", 1), [1, 3]),
    ("volume", "status", "in-use", [1]),
    ("volume", "volume-type", "gp2", [2]),
    ("status", "volume-status.status", "ok", [1]),
    ("status", "volume-status.status", "insufficient-data", [2, 3]),
    ("status", "volume-status.details-name", "io-performance", [1, 2, 3]),
    ("status", "volume-status.details-status", "not-applicable", [1]),
    ("status", "attachment-status.instance-id", make.number("i", 3), [3]),
    ("status", "attachment-status.io-performance", "not-applicable", [1, 3]),
    ("snapshot", "progress", "7%", [2]),
    ("snapshot", "progress", "100\\%", [1]),
    ("snapshot", "start-time", "2023-11-14T22:14:*", [2]),
    ("snapshot", "status", "completed", [1]),
    ("snapshot", "storage-tier", "standard", [1, 2]),
    ("snapshot", "volume-id", "vol-ffffffff", [2]),
    ("snapshot", "volume-size", "8", [2]),
    ("snapshot", "owner-alias", "*", []),
]


def test_what_filters_find(filled: Store) -> None:
    wrong = [
        (kind, name, value, expected, seen)
        for kind, name, value, expected in FINDS
        if (seen := found(filled, kind, Filter(name, (value,)))) != expected
    ]
    assert not wrong


@pytest.mark.parametrize("kind", TABLES)
def test_every_filter_can_be_asked(filled: Store, kind: str) -> None:
    _, known = TABLES[kind]
    for name in sorted(known.names):
        for values in (("x",), ("a", "b"), ("*",), ("a?c*", "1"), ("",)):
            found(filled, kind, Filter(name, values))


def test_attachments_are_shown_as_their_instance_is(filled: Store) -> None:
    """Whatever an instance's state and its owner's intent, the filter says what model/states.py shows."""
    for state in InstanceState:
        for intent in Intent:
            row = filled.write(
                lambda tx, s=state, i=intent: tx.instances.update(make.number("i", 1), state=s, intent=i)
            )
            expected = "attaching" if row.shown_state is InstanceState.PENDING else "attached"
            instance = Filter("attachment.instance-id", (row.id,))
            assert found(filled, "port", instance, Filter("attachment.status", (expected,))) == [1], (state, intent)


def test_what_is_whose(filled: Store) -> None:
    owned: list[tuple[str, FilterSet, Condition, list[int]]] = [
        ("subnets", SUBNETS, subnets_of(make.ACCOUNT, "lab-1"), [1, 2]),
        ("subnets", SUBNETS, subnets_of(OTHER, "lab-1"), [3]),
        ("subnets", SUBNETS, subnets_of(make.ACCOUNT, "lab-2"), []),
        ("security_groups", SECURITY_GROUPS, security_groups_of(OTHER, "lab-1"), [3]),
        ("security_group_rules", SECURITY_GROUP_RULES, security_group_rules_of(make.ACCOUNT, "lab-1"), [1, 2, 3, 4]),
        ("network_interfaces", NETWORK_INTERFACES, network_interfaces_of(make.ACCOUNT, "lab-1"), [1, 2]),
    ]
    for table, known, condition, expected in owned:
        page = filled.read(lambda tx, t=table, k=known, c=condition: getattr(tx, t).search(k, Asked(), c))
        assert [int(row.id.rpartition("-")[2], 16) for row in page.items] == expected


def test_used_addresses_are_counted_by_subnet(filled: Store) -> None:
    wanted = [make.number("subnet", n) for n in (1, 2, 9)]
    assert filled.read(lambda tx: queries.count_private_ips(tx, wanted)) == dict.fromkeys(wanted[:2], 1)
    assert filled.read(lambda tx: queries.count_private_ips(tx, [])) == {}


def test_derived_ids_are_what_ids_derives(filled: Store) -> None:
    """Of texts that any database might read its own way, and with several parts or one."""
    for n, cidr in enumerate(("ä\\x00'%", "", "10.0.0.0/24"), start=3):
        row = make.vpc(n, cidr=cidr)
        filled.write(lambda tx, r=row: tx.vpcs.insert(r))
        wanted = ids.derived_id(ids.VPC_CIDR_ASSOCIATION, row.id, cidr)
        assert found(filled, "vpc", Filter("cidr-block-association.association-id", (wanted,))) == [n]
