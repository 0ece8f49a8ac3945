"""What hosts are told of an instance: plans, domain, removal, metadata; rendered from rows."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from support import front as build
from support import rows as make

from minicloud.cloud import hosts, instances, keys, plans
from minicloud.cloud.block_devices import DeviceRequest
from minicloud.cloud.context import Cloud
from minicloud.cloud.instance_types import instance_store_bytes
from minicloud.cloud.metadata_options import MetadataRequest
from minicloud.model.plans import DomainSpec, InstancePlan, InstanceRemoval, MetadataPlan
from minicloud.model.resources import Instance
from minicloud.model.states import AttachmentState, VolumeState

POOL = "/var/lib/minicloud/pool"


@pytest.fixture
def small_cloud() -> Cloud:
    cloud = build.build_cloud(dns_servers=("9.9.9.9",))
    keys.create_key_pair(cloud, build.root_caller(), "my key", "ed25519", {})
    return cloud


def launch(cloud: Cloud, **changes: Any) -> Instance:
    request = {
        "image_id": build.IMAGE_ID,
        "min_count": 1,
        "max_count": 1,
        "instance_type": "t3.nano",
        "zone": "lab-1a",
    } | changes
    return instances.run(cloud, build.root_caller(), instances.RunRequest(**request)).instances[0].instance


def plan_of(cloud: Cloud, row: Instance) -> InstancePlan:
    return cloud.store.read(lambda tx: plans.instance_plan(tx, cloud.config, row))


def spec_of(cloud: Cloud, row: Instance) -> DomainSpec:
    return cloud.store.read(lambda tx: plans.domain_spec(tx, cloud.config, row))


def removal_of(cloud: Cloud, row: Instance, final: bool) -> InstanceRemoval:
    return cloud.store.read(lambda tx: plans.removal(tx, row, final))


def metadata_of(cloud: Cloud, row: Instance) -> MetadataPlan:
    return plan_of(cloud, row).ports[0].metadata


def volumes_of(cloud: Cloud, row: Instance) -> dict[str, str]:
    found = cloud.store.read(lambda tx: tx.attachments.where(instance_id=row.id))
    return {one.device_name: one.volume_id for one in found}


def with_disks(cloud: Cloud) -> Instance:
    return launch(
        cloud,
        instance_type="m5d.large",
        block_devices=(
            DeviceRequest("/dev/sdf", size_gib=5, iops=3000, throughput_mibps=200),
            DeviceRequest("/dev/sdg", size_gib=6, delete_on_termination=False),
        ),
    )


def test_disks_of_a_plan(small_cloud: Cloud) -> None:
    row = with_disks(small_cloud)
    volumes = volumes_of(small_cloud, row)
    root, data, kept, ephemeral = plan_of(small_cloud, row).disks
    assert root.path == f"{POOL}/volumes/{volumes['/dev/sda1']}.qcow2"
    assert root.base_path == f"{POOL}/bases/{build.SNAPSHOT_ID}.raw"
    assert (root.format, root.size_bytes, root.may_create) == ("qcow2", 2 * build.GIB, True)
    assert (data.path, data.base_path) == (f"{POOL}/volumes/{volumes['/dev/sdf']}.qcow2", None)
    assert (data.size_bytes, kept.size_bytes) == (5 * build.GIB, 6 * build.GIB)
    assert ephemeral.path == f"{POOL}/ephemeral/{row.id}-ephemeral0.raw"
    assert (ephemeral.format, ephemeral.size_bytes, ephemeral.may_create) == ("raw", instance_store_bytes(75), True)


def test_a_volume_in_use_is_never_made_anew(small_cloud: Cloud) -> None:
    row = launch(small_cloud)
    build.settle(small_cloud)
    assert [disk.may_create for disk in plan_of(small_cloud, row).disks] == [False]


def test_the_domain(small_cloud: Cloud) -> None:
    row = with_disks(small_cloud)
    volumes = volumes_of(small_cloud, row)
    spec = spec_of(small_cloud, row)
    assert (spec.name, spec.uuid, spec.vcpus, spec.memory_mib) == (row.id, row.domain_uuid, 2, 8192)
    assert spec.uuid.startswith("ec2")
    assert (spec.virt_type, spec.machine_type, spec.boot_mode) == ("qemu", "pc-q35-7.2", "legacy-bios")
    assert [(disk.target, disk.alias, disk.pci_slot, disk.boot_order) for disk in spec.disks] == [
        ("vda", volumes["/dev/sda1"], 1, 1),
        ("vdb", "ephemeral0", 2, None),
        ("vdc", volumes["/dev/sdf"], 3, None),
        ("vdd", volumes["/dev/sdg"], 4, None),
    ]
    # A virtio serial has 20 bytes.
    assert all(len(disk.serial) <= 20 for disk in spec.disks)
    assert spec.disks[0].serial == volumes["/dev/sda1"].replace("-", "")
    assert [disk.format for disk in spec.disks] == ["qcow2", "raw", "qcow2", "qcow2"]
    limits = [(disk.iops, disk.throughput_bytes_per_second) for disk in spec.disks]
    assert limits == [(None, None), (None, None), (3000, 200 * 2**20), (None, None)]
    (nic,) = spec.nics
    port = plan_of(small_cloud, row).ports[0]
    assert (nic.mac, nic.pci_slot, nic.tap, nic.bridge, nic.mtu) == (port.mac, 0, port.tap, port.subnet.bridge, 1450)
    assert spec.root_ports == 5 + plans.SPARE_ROOT_PORTS


def test_the_same_rows_give_the_same_plans(small_cloud: Cloud) -> None:
    row = with_disks(small_cloud)
    assert plan_of(small_cloud, row) == plan_of(small_cloud, row)
    assert spec_of(small_cloud, row) == spec_of(small_cloud, row)


def test_a_stop_and_a_start_change_nothing_but_the_public_address(small_cloud: Cloud) -> None:
    row = with_disks(small_cloud)
    build.settle(small_cloud)
    before, spec = plan_of(small_cloud, row), spec_of(small_cloud, row)
    instances.stop(small_cloud, build.root_caller(), [row.id], False, False)
    build.settle(small_cloud)
    stopped = plan_of(small_cloud, row)
    assert stopped.ports[0].public_ip is None
    assert "public-ipv4" not in stopped.ports[0].metadata.leaves
    launch(small_cloud)
    instances.start(small_cloud, build.root_caller(), [row.id])
    after = plan_of(small_cloud, row)
    assert spec_of(small_cloud, row) == spec
    assert after.ports[0].public_ip != before.ports[0].public_ip
    assert (after.ports[0].private_ip, after.ports[0].mac) == (before.ports[0].private_ip, before.ports[0].mac)
    assert after.disks == before.disks


def test_what_goes_at_a_stop_and_what_at_the_end(small_cloud: Cloud) -> None:
    row = with_disks(small_cloud)
    build.settle(small_cloud)
    volumes = volumes_of(small_cloud, row)
    ephemeral = f"{POOL}/ephemeral/{row.id}-ephemeral0.raw"
    stop, end = removal_of(small_cloud, row, False), removal_of(small_cloud, row, True)
    assert stop.disk_paths == (ephemeral,)
    assert stop.console_path is None
    assert stop.port_ids == end.port_ids == (plan_of(small_cloud, row).ports[0].id,)
    assert set(end.disk_paths) == {
        ephemeral,
        f"{POOL}/volumes/{volumes['/dev/sda1']}.qcow2",
        f"{POOL}/volumes/{volumes['/dev/sdf']}.qcow2",
    }
    assert end.console_path == f"/var/lib/minicloud/console/{row.id}.log"


def test_a_volume_that_never_came_to_be_goes_whatever_it_was_to_do(small_cloud: Cloud) -> None:
    row = with_disks(small_cloud)
    kept = volumes_of(small_cloud, row)["/dev/sdg"]
    assert f"{POOL}/volumes/{kept}.qcow2" in removal_of(small_cloud, row, True).disk_paths


def test_a_volume_that_was_detached_is_not_the_instance_s(small_cloud: Cloud) -> None:
    row = with_disks(small_cloud)
    build.settle(small_cloud)
    volume_id = volumes_of(small_cloud, row)["/dev/sdf"]

    def detach(tx: Any) -> None:
        (attachment,) = tx.attachments.where(volume_id=volume_id)
        tx.attachments.update(attachment.id, state=AttachmentState.DETACHED)
        tx.volumes.update(volume_id, state=VolumeState.AVAILABLE)

    small_cloud.store.write(detach)
    assert volume_id not in str(plan_of(small_cloud, row))
    assert volume_id not in str(removal_of(small_cloud, row, True))
    # The slots of the others stay, and so do the guest's names for what is before them.
    assert [disk.pci_slot for disk in spec_of(small_cloud, row).disks] == [1, 2, 4]


def test_the_port_and_its_router(small_cloud: Cloud) -> None:
    row = launch(small_cloud)
    (port,) = plan_of(small_cloud, row).ports
    assert port.hostname == "ip-" + port.private_ip.replace(".", "-")
    assert len(port.tap) <= 15
    assert (port.subnet.cidr, port.subnet.gateway_ip) == ("172.31.0.0/20", "172.31.0.1")
    router = port.router
    assert (router.cidr, router.mtu, router.domain_name) == ("172.31.0.0/16", 1450, "lab-1.compute.internal")
    assert (router.host_transit_ip, router.router_transit_ip) == ("100.127.0.0", "100.127.0.1")
    assert router.dns_servers == ("9.9.9.9",)
    (group,) = port.groups
    assert group.members == ()
    rules = {(rule.egress, rule.protocol, rule.from_port, rule.cidr, rule.group_id) for rule in group.rules}
    assert rules == {
        (False, "-1", None, None, group.id),
        (True, "-1", None, "0.0.0.0/0", None),
        (False, "tcp", 22, "0.0.0.0/0", None),
    }


def test_each_vpc_has_transit_addresses_of_its_own() -> None:
    cloud = build.build_cloud()
    row = launch(cloud)
    cloud.store.write(lambda tx: tx.vpcs.update(row.vpc_id, transit_index=300))
    router = plan_of(cloud, row).ports[0].router
    assert (router.host_transit_ip, router.router_transit_ip) == ("100.127.2.88", "100.127.2.89")


# Metadata

# What cloud-init's EC2 crawler and people's scripts read; each must be there and have a text.
LEAVES = [
    "ami-id",
    "ami-launch-index",
    "ami-manifest-path",
    "block-device-mapping/ami",
    "block-device-mapping/root",
    "hostname",
    "instance-action",
    "instance-id",
    "instance-life-cycle",
    "instance-type",
    "local-hostname",
    "local-ipv4",
    "mac",
    "placement/availability-zone",
    "placement/availability-zone-id",
    "placement/region",
    "profile",
    "public-hostname",
    "public-ipv4",
    "public-keys/0/openssh-key",
    "reservation-id",
    "security-groups",
    "services/domain",
    "services/partition",
]
INTERFACE_LEAVES = [
    "device-number",
    "interface-id",
    "local-hostname",
    "local-ipv4s",
    "mac",
    "owner-id",
    "public-hostname",
    "public-ipv4s",
    "security-group-ids",
    "security-groups",
    "subnet-id",
    "subnet-ipv4-cidr-block",
    "vpc-id",
    "vpc-ipv4-cidr-block",
    "vpc-ipv4-cidr-blocks",
]


def test_every_leaf_that_is_expected_and_no_other(small_cloud: Cloud) -> None:
    row = launch(small_cloud, key_name="my key")
    port = plan_of(small_cloud, row).ports[0]
    interface = f"network/interfaces/macs/{port.mac}"
    expected = {
        *LEAVES,
        *(f"{interface}/{leaf}" for leaf in INTERFACE_LEAVES),
        f"{interface}/ipv4-associations/{port.public_ip}",
    }
    leaves = port.metadata.leaves
    assert set(leaves) == expected
    assert leaves["instance-id"] == row.id
    assert leaves["hostname"] == leaves["local-hostname"] == f"{port.hostname}.lab-1.compute.internal"
    assert leaves["placement/region"] == "lab-1"
    assert leaves["public-keys/0/openssh-key"] == row.public_key
    assert leaves[f"{interface}/subnet-ipv4-cidr-block"] == "172.31.0.0/20"
    assert leaves[f"{interface}/ipv4-associations/{port.public_ip}"] == port.private_ip
    assert port.mac == port.mac.lower()
    assert port.metadata.listings == {"public-keys/": "0=my key"}


def test_no_path_is_both_a_leaf_and_a_folder(small_cloud: Cloud) -> None:
    row = launch(
        small_cloud,
        key_name="my key",
        tags={"instance": {"Name": "x", "role": ""}},
        metadata=MetadataRequest(instance_metadata_tags="enabled"),
    )
    leaves = metadata_of(small_cloud, row).leaves
    assert (leaves["tags/instance/Name"], leaves["tags/instance/role"]) == ("x", "")
    for path in leaves:
        parts = path.split("/")
        assert all(parts)
        assert not any("/".join(parts[:end]) in leaves for end in range(1, len(parts)))


def test_tags_are_shown_only_where_asked(small_cloud: Cloud) -> None:
    row = launch(small_cloud, tags={"instance": {"Name": "x"}})
    assert not any(path.startswith("tags") for path in metadata_of(small_cloud, row).leaves)


def test_without_a_key_there_is_no_key_folder(small_cloud: Cloud) -> None:
    plan = metadata_of(small_cloud, launch(small_cloud))
    assert plan.listings == {}
    assert not any(path.startswith("public-keys") for path in plan.leaves)


def test_disks_in_the_metadata(small_cloud: Cloud) -> None:
    leaves = metadata_of(small_cloud, with_disks(small_cloud)).leaves
    mapping = {path.split("/")[1]: text for path, text in leaves.items() if path.startswith("block-device-mapping/")}
    assert mapping == {
        "ami": "/dev/sda1",
        "root": "/dev/sda1",
        "ephemeral0": "sdb",
        "ebs1": "sdf",
        "ebs2": "sdg",
    }


def test_the_identity_document(small_cloud: Cloud) -> None:
    row = launch(small_cloud)
    port = plan_of(small_cloud, row).ports[0]
    document = json.loads(port.metadata.identity_document)
    assert document["instanceId"] == row.id
    assert document["accountId"] == build.root_caller().account_id
    assert (document["region"], document["availabilityZone"]) == ("lab-1", "lab-1a")
    assert document["privateIp"] == port.private_ip
    assert document["pendingTime"].endswith("Z")
    assert document["version"] == "2017-09-30"


def test_user_data_and_options_reach_the_host(small_cloud: Cloud) -> None:
    data = bytes(range(256))
    row = launch(
        small_cloud,
        user_data=data,
        metadata=MetadataRequest(http_endpoint="disabled", http_tokens="required", http_put_response_hop_limit=7),
    )
    plan = metadata_of(small_cloud, row)
    assert base64.b64decode(plan.user_data_base64 or "") == data
    assert (plan.http_endpoint, plan.http_tokens, plan.hop_limit) == ("disabled", "required", 7)
    assert metadata_of(small_cloud, launch(small_cloud)).user_data_base64 is None


def test_domain_uuids_differ_and_are_uuids(small_cloud: Cloud) -> None:
    import uuid

    uuids = {launch(small_cloud, min_count=2, max_count=2).domain_uuid for _ in range(3)}
    assert len(uuids) == 3
    for text in uuids:
        assert str(uuid.UUID(text)) == text
        assert uuid.UUID(text).version == 4


def test_a_host_that_moved_to_kvm_changes_the_domain_alone(small_cloud: Cloud) -> None:
    row = launch(small_cloud, zone="lab-1b")
    kvm = build.new_host("host2", "lab-1b", virt_type="kvm", machine_type="pc-q35-9.0")
    hosts.register_host(small_cloud, build.root_caller(), kvm)
    spec = spec_of(small_cloud, row)
    # What the guest's hardware is called was fixed at launch.
    assert (spec.virt_type, spec.machine_type) == ("kvm", "pc-q35-7.2")


def test_rows_that_must_exist_are_missed_loudly(small_cloud: Cloud) -> None:
    row = make.instance(7, host_id="h-0123456789abcdef0")
    with pytest.raises(LookupError, match="h-0123456789abcdef0"):
        plan_of(small_cloud, row)
