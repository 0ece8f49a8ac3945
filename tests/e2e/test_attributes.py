"""Attributes and metadata options of one real guest: what changes under it while it runs, and what it finds when it
starts again as another type. Assertions are made from inside the guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support import e2e
from support.e2e import Guest

IMDS = "http://169.254.169.254/latest"
SMALL, LARGE = "t2.nano", "c5d.large"
# What the two types have.
VCPUS = {SMALL: 1, LARGE: 2}
MEMORY_KIB = {SMALL: 512 * 1024, LARGE: 4096 * 1024}
STORE_DEVICE = "/dev/disk/by-id/virtio-ephemeral0"


@dataclass
class Subject:
    """The guest, and whom to ask about it."""

    cloud: Any
    ec2: Any
    instance_id: str
    key_file: Path

    def guest(self) -> Guest:
        e2e.wait_state(self.cloud, [self.instance_id], "running")
        found = e2e.guest(self.cloud, self.instance_id, self.key_file)
        found.wait()
        return found

    def options(self) -> dict[str, Any]:
        return dict(e2e.describe(self.ec2, self.instance_id)["MetadataOptions"])

    def change_options(self, **options: Any) -> None:
        """Change metadata options and return when the host answers by them, as DescribeInstances says."""
        self.ec2.modify_instance_metadata_options(InstanceId=self.instance_id, **options)
        e2e.until("the options are applied", lambda: self.options()["State"] == "applied")

    def change(self, **attribute: Any) -> None:
        self.ec2.modify_instance_attribute(InstanceId=self.instance_id, **attribute)

    def refuses(self, code: str, **attribute: Any) -> None:
        with pytest.raises(ClientError) as caught:
            self.change(**attribute)
        assert caught.value.response["Error"]["Code"] == code


@pytest.fixture(scope="module")
def subject(cloud: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    ec2 = cloud.client()
    key_file = tmp_path_factory.mktemp("attributes") / "key.pem"
    key_file.touch(mode=0o600)
    key_file.write_text(ec2.create_key_pair(KeyName="attributes", KeyType="ed25519")["KeyMaterial"])
    try:
        (launched,) = ec2.run_instances(
            ImageId=e2e.image_id(cloud),
            InstanceType=SMALL,
            MinCount=1,
            MaxCount=1,
            KeyName="attributes",
            UserData="first",
            MetadataOptions={"InstanceMetadataTags": "enabled"},
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "one"}]}],
        )["Instances"]
        yield Subject(cloud, ec2, launched["InstanceId"], key_file)
    finally:
        e2e.terminate(cloud, [one["InstanceId"] for one in e2e.live_instances(cloud)])
        ec2.delete_key_pair(KeyName="attributes")
        ec2.close()


def read(guest: Guest, path: str) -> str:
    """Read metadata as IMDSv1 does."""
    return guest.run(f"wget -q -O - {IMDS}/{path}")


def put_token(guest: Guest) -> str:
    """Take a token: busybox's wget cannot PUT, its nc can, and wants its input held open."""
    request = r"PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-metadata-token-ttl-seconds: 600\r\n\r\n"

    def ask() -> str | None:
        lines = guest.run(f"(printf '{request}'; sleep 1) | nc 169.254.169.254 80").splitlines()
        return lines[-1] if lines and " 200 " in lines[0] else None

    # A busy machine may answer when nobody listens any more.
    return e2e.until("a token", ask, e2e.GUEST_SECONDS)


def read_by_token(guest: Guest, token: str, path: str) -> str:
    return guest.run(f"wget -q -O - --header 'X-aws-ec2-metadata-token: {token}' {IMDS}/{path}")


def size_of(guest: Guest) -> tuple[int, int]:
    """Return how many processors the guest has, and how much memory in KiB."""
    processors = guest.run("ls -d /sys/devices/system/cpu/cpu[0-9]*").split()
    return len(processors), int(guest.run("grep MemTotal /proc/meminfo").split()[1])


def test_tags_change_in_the_metadata_of_a_running_guest(subject: Subject) -> None:
    guest, resources = subject.guest(), [subject.instance_id]
    assert read(guest, "meta-data/tags/instance/Name") == "one"
    tags = [{"Key": "Name", "Value": "two"}, {"Key": "more", "Value": "said"}]
    subject.ec2.create_tags(Resources=resources, Tags=tags)
    e2e.until("the guest sees the new tag", lambda: read(guest, "meta-data/tags/instance/Name") == "two", every=0.2)
    assert read(guest, "meta-data/tags/instance").split() == ["Name", "more"]
    subject.ec2.delete_tags(Resources=resources, Tags=[{"Key": "more"}])
    e2e.until("the tag is gone", lambda: read(guest, "meta-data/tags/instance") == "Name", every=0.2)


def test_tokens_are_demanded_of_a_running_guest_from_one_moment_on(subject: Subject) -> None:
    guest = subject.guest()
    boot = guest.run("cat /proc/sys/kernel/random/boot_id")
    assert read(guest, "meta-data/instance-id") == subject.instance_id
    subject.change_options(HttpTokens="required")
    refused = guest.attempt(f"wget -O - {IMDS}/meta-data/instance-id")
    assert refused.returncode != 0 and "401" in refused.stderr
    token = put_token(guest)
    assert read_by_token(guest, token, "meta-data/instance-id") == subject.instance_id
    subject.change_options(HttpEndpoint="disabled")
    refused = guest.attempt(f"wget -O - --header 'X-aws-ec2-metadata-token: {token}' {IMDS}/meta-data/instance-id")
    assert refused.returncode != 0 and "403" in refused.stderr
    subject.change_options(HttpEndpoint="enabled", InstanceMetadataTags="disabled")
    assert "tags/" not in read_by_token(guest, token, "meta-data").split()
    # The guest was not restarted for any of it.
    assert guest.run("cat /proc/sys/kernel/random/boot_id") == boot


def test_a_stopped_instance_becomes_another_type(subject: Subject) -> None:
    guest = subject.guest()
    processors, memory_kib = size_of(guest)
    assert processors == VCPUS[SMALL] and 0.7 * MEMORY_KIB[SMALL] < memory_kib < MEMORY_KIB[SMALL]
    guest.run("echo kept >/root/kept; sync")
    subject.refuses("IncorrectInstanceState", InstanceType={"Value": LARGE})
    subject.refuses("IncorrectInstanceState", UserData={"Value": b"second"})
    subject.change(DisableApiStop={"Value": True})
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        subject.ec2.stop_instances(InstanceIds=[subject.instance_id])
    subject.change(DisableApiStop={"Value": False})
    subject.ec2.stop_instances(InstanceIds=[subject.instance_id])
    e2e.wait_state(subject.cloud, [subject.instance_id], "stopped")
    subject.change(InstanceType={"Value": LARGE})
    subject.change(UserData={"Value": b"second"})
    subject.ec2.start_instances(InstanceIds=[subject.instance_id])

    guest = subject.guest()
    processors, memory_kib = size_of(guest)
    assert processors == VCPUS[LARGE] and 0.9 * MEMORY_KIB[LARGE] < memory_kib < MEMORY_KIB[LARGE]
    assert guest.run("cat /root/kept") == "kept\n"
    # Linked a moment after logging in is possible.
    assert int(guest.wait(f"blockdev --getsize64 {STORE_DEVICE}")) >= 50 * 1000**3
    token = put_token(guest)
    assert read_by_token(guest, token, "meta-data/instance-type") == LARGE
    assert read_by_token(guest, token, "user-data") == "second"
    assert read_by_token(guest, token, "meta-data/block-device-mapping/ephemeral0") == "sdb"


def test_the_shutdown_behaviour_that_holds_when_the_guest_powers_off(subject: Subject) -> None:
    guest = subject.guest()
    subject.change(InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    guest.attempt("poweroff")
    e2e.wait_state(subject.cloud, [subject.instance_id], "terminated")
    e2e.assert_no_debris(subject.cloud)
