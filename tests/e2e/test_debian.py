"""Real cloud-init: Debian's own, with nothing of minicloud's in the image, takes minicloud for EC2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import clients, e2e

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
BUILD_SECONDS = 1200
# systemd and cloud-init, emulated on a busy machine.
BOOT_SECONDS = 900
USER_DATA = """\
#cloud-config
write_files:
- path: /etc/written-by-user-data
  content: "written\\n"
runcmd:
- [sh, -c, "cloud-init query instance_id >/root/ran"]
"""


@pytest.fixture(scope="module")
def debian_file(cloud: Any) -> Iterator[str]:
    """The built image where the daemon may read it: its path inside the controller."""
    build = subprocess.run(
        [sys.executable, str(PROJECT / "images" / "build"), "debian"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    assert build.returncode == 0, build.stderr
    inside = f"/var/lib/minicloud/import/debian-{uuid.uuid4().hex[:8]}.qcow2"
    copy = cloud.private("controller", inside)
    shutil.copyfile(build.stdout.strip().splitlines()[-1], copy)
    yield inside
    copy.unlink()


@dataclass
class Debian:
    """The instance whose life the tests tell, in the order of this file."""

    ec2: Any
    guest: e2e.Guest
    instance: dict[str, Any]

    @property
    def instance_id(self) -> str:
        return self.guest.instance_id


@pytest.fixture(scope="module")
def debian(cloud: Any, debian_file: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """An instance of Debian, running, which answers to ssh; the cloud is bare when the tests are over."""
    key_file = tmp_path_factory.mktemp("debian") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key_file)], check=True)
    ec2 = cloud.client()
    name = Path(debian_file).stem
    ec2.import_key_pair(KeyName=name, PublicKeyMaterial=key_file.with_suffix(".pub").read_bytes())
    registered = ["image", "register", debian_file, "--name", name, "--ssh-user", "debian", "--json"]
    image = json.loads(cloud.minicloud(*registered, timeout=600))
    try:
        (launched,) = ec2.run_instances(
            ImageId=image["ImageId"],
            # One processor: QEMU before 8.2 dies now and then while an emulated guest of two brings its devices up.
            InstanceType="t2.micro",
            MinCount=1,
            MaxCount=1,
            KeyName=name,
            UserData=USER_DATA,
            MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
            BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 4}}],
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "role", "Value": "debian"}]}],
        )["Instances"]
        instance_id = launched["InstanceId"]
        e2e.wait_state(cloud, [instance_id], "running", BOOT_SECONDS)
        guest = e2e.guest(cloud, instance_id, key_file, user="debian")
        guest.wait(timeout_seconds=BOOT_SECONDS)
        yield Debian(ec2, guest, e2e.describe(ec2, instance_id))
    finally:
        e2e.terminate(cloud, [one["InstanceId"] for one in e2e.live_instances(cloud)])
        ec2.deregister_image(ImageId=image["ImageId"])
        ec2.delete_key_pair(KeyName=name)
        ec2.close()
    e2e.assert_no_debris(cloud)


def test_debian_boots_with_its_own_cloud_init(cloud: Any, debian: Debian) -> None:
    guest, instance = debian.guest, debian.instance
    status = guest.attempt("cloud-init status --wait", timeout=BOOT_SECONDS)
    assert status.stdout.strip(".\n") == "status: done", status.stdout + e2e.console_text(cloud, debian.instance_id)
    result = json.loads(guest.run("cat /run/cloud-init/result.json", timeout=300))["v1"]
    assert result == {"datasource": "DataSourceEc2Local", "errors": []}
    # Once for all: every login costs an emulated machine seconds.
    facts = guest.run(
        "cloud-init query instance_id; cloud-init query region; cloud-init query cloud_name; hostname; id -un;"
        " cat /etc/written-by-user-data; sudo cat /root/ran; df -k --output=size / | tail -1;"
        " test ! -e /etc/cloud/cloud.cfg.d/minicloud.cfg && echo unmodified; ls /dev/disk/by-id",
        timeout=300,
    ).split()
    address = instance["PrivateIpAddress"]
    assert facts[:4] == [debian.instance_id, "lab-1", "aws", "ip-" + address.replace(".", "-")]
    assert facts[4:7] == ["debian", "written", debian.instance_id]
    assert 3.5 * 1024**2 < int(facts[7]) < 4 * 1024**2
    assert facts[8] == "unmodified"
    volume = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert f"virtio-{volume.replace('-', '')}" in facts


def test_ansible_learns_of_the_guest_from_inside_it(cloud: Any, debian: Debian, tmp_path: Path) -> None:
    """ec2_metadata_facts runs where its play's tasks run, in the guest, and reads all of the metadata there."""
    try:
        ansible = clients.ansible()
    except clients.Unavailable as error:
        pytest.skip(str(error))
    guest, instance = debian.guest, debian.instance
    said: list[subprocess.CompletedProcess[str]] = []

    def ask() -> str | None:
        # It gives a request up after five seconds, which an emulated guest on a busy machine may take.
        said.append(ask_ansible(ansible, guest, tmp_path))
        return said[-1].stdout if said[-1].returncode == 0 else None

    try:
        answered = e2e.until("Ansible's facts", ask, BOOT_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{said[-1].stdout}{said[-1].stderr}") from None
    who, _, answer = answered.partition(" => ")
    assert who == f"{guest.address} | SUCCESS"
    facts = json.loads(answer)["ansible_facts"]
    expected = {
        "ami_id": instance["ImageId"],
        "hostname": instance["PrivateDnsName"],
        "instance_id": debian.instance_id,
        "instance_identity_document_accountid": instance["NetworkInterfaces"][0]["OwnerId"],
        "instance_tags": {"role": "debian"},
        "instance_type": "t2.micro",
        "local_ipv4": instance["PrivateIpAddress"],
        "mac": instance["NetworkInterfaces"][0]["MacAddress"],
        "placement_availability_zone": instance["Placement"]["AvailabilityZone"],
        "placement_region": "lab-1",
        "public_ipv4": guest.address,
        # The comment is the key's name, whatever it was when it was imported.
        "public_key": " ".join([*guest.key_file.with_suffix(".pub").read_text().split()[:2], instance["KeyName"]]),
        "security_groups": "default",
        "user_data": USER_DATA,
    }
    assert {name: facts.get(f"ansible_ec2_{name}") for name in expected} == expected


def ask_ansible(ansible: clients.Ansible, guest: e2e.Guest, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the module once in the guest, whatever becomes of it."""
    options = "-F none -o ControlMaster=no -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    return subprocess.run(
        [
            *(ansible.python, "-m", "ansible", "adhoc", "all", "--inventory", f"{guest.address},"),
            *("--user", guest.user, "--private-key", guest.key_file, "--timeout", "120"),
            *("--extra-vars", "ansible_python_interpreter=/usr/bin/python3"),
            # Its token lives for a minute unless told otherwise, and an emulated guest reads for longer than that.
            *("--module-name", "amazon.aws.ec2_metadata_facts", "--args", "metadata_token_ttl_seconds=21600"),
        ],
        env={
            **ansible.variables,
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_SSH_ARGS": options,
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOOT_SECONDS,
    )


def test_debian_hears_the_power_button(cloud: Any, debian: Debian) -> None:
    """Through systemd-logind."""
    debian.ec2.stop_instances(InstanceIds=[debian.instance_id])
    e2e.wait_state(cloud, [debian.instance_id], "stopped")
