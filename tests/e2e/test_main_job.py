"""The main job, as its users see it: aws-cli and boto3 outside, a shell inside the guests.

Three instances in two zones live through the whole file, in its order: two small ones of one launch, and one with an
instance-store disk that demands metadata tokens and terminates when its guest powers off.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support import e2e
from support.e2e import Guest

USER_DATA = """\
#!/bin/sh
echo "ran as $(id -un) on $(hostname)" >>/root/user-data-ran
echo "user data speaks"
"""
ROOT_GIB = 3
STORE_TYPE = "c5d.large"
# The 50 GB of its type, up to a whole MiB.
STORE_BYTES = 47684 * 1024**2
STORE_DEVICE = "/dev/disk/by-id/virtio-ephemeral0"
# A lab that was kept remembers the tokens of earlier runs.
TOKEN = f"main-job-{uuid.uuid4()}"
IMDS = "http://169.254.169.254/latest"
QUICK = {"Delay": 1, "MaxAttempts": 180}


@dataclass
class Job:
    """What the file's tests share."""

    cloud: Any
    ec2: Any
    key_name: str
    key_file: Path
    one: str
    other: str
    store: str
    launch: list[str]

    @property
    def ids(self) -> list[str]:
        return [self.one, self.other, self.store]

    def describe(self, instance_id: str) -> dict[str, Any]:
        return e2e.describe(self.ec2, instance_id)

    def guest(self, instance_id: str) -> Guest:
        """Return the guest, which answers; started, if something left it stopped."""
        if self.describe(instance_id)["State"]["Name"] == "stopped":
            self.ec2.start_instances(InstanceIds=[instance_id])
        e2e.wait_state(self.cloud, [instance_id], "running")
        found = e2e.guest(self.cloud, instance_id, self.key_file)
        found.wait()
        return found


@pytest.fixture(scope="module")
def job(cloud: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    folder = tmp_path_factory.mktemp("main-job")
    ec2 = cloud.client()
    made = cloud.aws("ec2", "create-key-pair", "--key-name", "main-job", "--key-type", "ed25519")
    key_file = folder / "main-job.pem"
    key_file.touch(mode=0o600)
    key_file.write_text(made["KeyMaterial"])
    user_data = folder / "user-data"
    user_data.write_text(USER_DATA)
    (image,) = cloud.aws("ec2", "describe-images")["Images"]
    launch = ["ec2", "run-instances", "--image-id", image["ImageId"], "--instance-type", "t3.nano", "--count", "2"]
    launch += ["--key-name", "main-job", "--placement", "AvailabilityZone=lab-1a", "--client-token", TOKEN]
    launch += ["--user-data", f"file://{user_data}", "--tag-specifications"]
    launch += ["ResourceType=instance,Tags=[{Key=Name,Value=small},{Key=job,Value=main}]"]
    launch += ["ResourceType=volume,Tags=[{Key=job,Value=main}]", "--block-device-mappings"]
    launch += [f"DeviceName={image['RootDeviceName']},Ebs={{VolumeSize={ROOT_GIB}}}"]
    try:
        small = cloud.aws(*launch)["Instances"]
        large = ec2.run_instances(
            ImageId=image["ImageId"],
            InstanceType=STORE_TYPE,
            MinCount=1,
            MaxCount=1,
            KeyName="main-job",
            Placement={"AvailabilityZone": "lab-1b"},
            BlockDeviceMappings=[{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}],
            MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
            InstanceInitiatedShutdownBehavior="terminate",
        )["Instances"]
        assert [one["State"]["Name"] for one in [*small, *large]] == ["pending"] * 3
        ids = [one["InstanceId"] for one in [*small, *large]]
        yield Job(cloud, ec2, "main-job", key_file, *ids, launch)
    finally:
        e2e.terminate(cloud, [one["InstanceId"] for one in e2e.live_instances(cloud)])
        ec2.delete_key_pair(KeyName="main-job")
        ec2.close()


def test_waiters_see_the_instances_run(job: Job) -> None:
    job.ec2.get_waiter("instance_exists").wait(InstanceIds=job.ids, WaiterConfig=QUICK)
    job.ec2.get_waiter("instance_running").wait(InstanceIds=job.ids, WaiterConfig=QUICK)
    job.ec2.get_waiter("instance_status_ok").wait(InstanceIds=job.ids, WaiterConfig=QUICK)
    job.cloud.aws("ec2", "wait", "instance-running", "--instance-ids", *job.ids)
    job.cloud.aws("ec2", "wait", "instance-status-ok", "--instance-ids", *job.ids)
    image = job.describe(job.one)["ImageId"]
    job.cloud.aws("ec2", "wait", "image-available", "--image-ids", image)


def test_what_describe_instances_says(job: Job) -> None:
    described = job.cloud.aws("ec2", "describe-instances", "--instance-ids", *job.ids)
    reservations = {one["ReservationId"]: one for one in described["Reservations"]}
    found = {one["InstanceId"]: one for each in reservations.values() for one in each["Instances"]}
    assert set(found) == set(job.ids)
    assert sorted(len(each["Instances"]) for each in reservations.values()) == [1, 2]
    one, other, store = (found[id] for id in job.ids)
    assert {one["AmiLaunchIndex"], other["AmiLaunchIndex"]} == {0, 1} and store["AmiLaunchIndex"] == 0
    assert [each["Placement"]["AvailabilityZone"] for each in (one, other, store)] == ["lab-1a", "lab-1a", "lab-1b"]
    for each in (one, other, store):
        assert each["State"] == {"Code": 16, "Name": "running"}
        assert each["StateTransitionReason"] == "" and "StateReason" not in each
        assert each["KeyName"] == "main-job"
        assert each["RootDeviceType"] == "ebs" and each["RootDeviceName"] == "/dev/sda1"
        assert each["SecurityGroups"][0]["GroupName"] == "default"
        assert re.fullmatch(r"172\.31\.\d+\.\d+", each["PrivateIpAddress"])
        assert each["PublicIpAddress"].startswith(job.cloud.public_pool.rsplit(".", 1)[0])
        (interface,) = each["NetworkInterfaces"]
        assert interface["PrivateIpAddress"] == each["PrivateIpAddress"]
        assert interface["Association"]["PublicIp"] == each["PublicIpAddress"]
        assert interface["Attachment"]["Status"] == "attached"
        (root,) = each["BlockDeviceMappings"]
        assert root["DeviceName"] == "/dev/sda1"
        assert root["Ebs"]["Status"] == "attached" and root["Ebs"]["DeleteOnTermination"] is True
    addresses = [each[key] for each in found.values() for key in ("PrivateIpAddress", "PublicIpAddress")]
    assert len(set(addresses)) == 6
    assert one["ClientToken"] == TOKEN
    # boto3 makes one up where it is given none.
    assert uuid.UUID(store["ClientToken"])
    assert one["MetadataOptions"]["State"] == "applied" and one["MetadataOptions"]["HttpTokens"] == "optional"
    assert store["MetadataOptions"]["HttpTokens"] == "required"
    assert store["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert {"Key": "Name", "Value": "small"} in one["Tags"] and not store.get("Tags")
    tags = job.cloud.aws("ec2", "describe-tags")["Tags"]
    volumes = {tag["ResourceId"] for tag in tags if tag["ResourceType"] == "volume" and tag["Key"] == "job"}
    assert volumes == {each["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] for each in (one, other)}


def test_the_same_client_token_is_the_same_launch(job: Job) -> None:
    again = job.cloud.aws(*job.launch)
    assert [one["InstanceId"] for one in again["Instances"]] == [job.one, job.other]
    with pytest.raises(ClientError) as refused:
        job.ec2.run_instances(
            ImageId=job.describe(job.one)["ImageId"], InstanceType="t3.micro", MinCount=1, MaxCount=1, ClientToken=TOKEN
        )
    assert refused.value.response["Error"]["Code"] == "IdempotentParameterMismatch"
    assert {one["InstanceId"] for one in e2e.live_instances(job.cloud)} == set(job.ids)


def test_dry_run_starts_nothing(job: Job) -> None:
    image = job.describe(job.one)["ImageId"]
    with pytest.raises(ClientError) as refused:
        job.ec2.run_instances(ImageId=image, InstanceType="t3.nano", MinCount=1, MaxCount=1, DryRun=True)
    assert refused.value.response["Error"]["Code"] == "DryRunOperation"
    with pytest.raises(ClientError) as refused:
        job.ec2.terminate_instances(InstanceIds=[job.one], DryRun=True)
    assert refused.value.response["Error"]["Code"] == "DryRunOperation"
    assert {one["InstanceId"] for one in e2e.live_instances(job.cloud)} == set(job.ids)
    assert job.describe(job.one)["State"]["Name"] == "running"


def test_more_than_the_hosts_hold_is_refused_at_once(job: Job) -> None:
    hosts = json.loads(job.cloud.minicloud("host", "ls", "--json"))
    # m5.2xlarge has 32 GiB.
    too_many = sum(host["UsableMemoryMiB"] // 32768 for host in hosts) + 1
    before = e2e.task_rows(job.cloud).keys()
    # An error of the server's side, as in EC2, which aws-cli would otherwise try again.
    launch = ["env", "AWS_MAX_ATTEMPTS=1", "aws", "ec2", "run-instances"]
    launch += ["--image-id", job.describe(job.one)["ImageId"]]
    launch += ["--instance-type", "m5.2xlarge", "--count", str(too_many)]
    result = job.cloud.exec("controller", launch, check=False)
    assert result.returncode == 255
    assert "(InsufficientInstanceCapacity) when calling the RunInstances operation" in result.stderr
    # Nothing was begun; what ended long ago may be forgotten at any moment.
    assert e2e.task_rows(job.cloud).keys() <= before


@pytest.mark.parametrize("which", ["one", "other", "store"])
def test_inside_the_guest(job: Job, which: str) -> None:
    instance = job.describe(getattr(job, which))
    guest = job.guest(instance["InstanceId"])
    name = "ip-" + instance["PrivateIpAddress"].replace(".", "-")
    gib = 1 if which == "store" else ROOT_GIB
    # The file system grows into the volume; logging in is possible a moment before.
    guest.wait(f"df -k / | awk '/ .$/ {{ exit !($2 > {int(0.85 * gib * 1024**2)}) }}'")
    facts = guest.run(
        "hostname; cat /sys/block/vda/serial; echo; cat /sys/block/vda/size;"
        " ls /dev/disk/by-id; ip -4 addr show dev eth0 | grep inet; cat /sys/class/net/eth0/address"
    )
    serial = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].replace("-", "")
    lines = facts.split("\n")
    assert lines[0].split(".")[0] == name
    assert lines[1] == serial and f"virtio-{serial}" in facts
    assert int(lines[3 if not lines[2] else 2]) == gib * 2 * 1024**2
    assert f"inet {instance['PrivateIpAddress']}/" in facts
    assert instance["NetworkInterfaces"][0]["MacAddress"] in facts


def test_user_data_ran_once(job: Job) -> None:
    for instance_id in (job.one, job.other):
        guest = job.guest(instance_id)
        ran = guest.wait("grep . /root/user-data-ran")
        assert ran == f"ran as root on {guest.run('hostname').strip()}\n"
    assert job.guest(job.store).attempt("cat /root/user-data-ran").returncode == 1


def test_metadata_of_an_instance_that_allows_both_versions(job: Job) -> None:
    guest = job.guest(job.one)
    token = put_token(guest)
    assert guest.run(f"{get(token)}/meta-data/instance-id") == job.one
    assert guest.run(f"wget -q -O - {IMDS}/meta-data/instance-id") == job.one
    document = json.loads(guest.run(f"{get(token)}/dynamic/instance-identity/document"))
    instance = job.describe(job.one)
    assert document["instanceId"] == job.one and document["region"] == "lab-1"
    assert document["availabilityZone"] == "lab-1a" and document["instanceType"] == "t3.nano"
    assert document["privateIp"] == instance["PrivateIpAddress"] and document["imageId"] == instance["ImageId"]
    assert guest.run(f"{get(token)}/meta-data/public-ipv4") == instance["PublicIpAddress"]
    assert guest.run(f"{get(token)}/user-data") == USER_DATA
    # Another instance's token is worth nothing here.
    foreign = put_token(job.guest(job.other))
    assert "401" in guest.attempt(f"{get(foreign)}/meta-data/instance-id").stderr


def test_metadata_of_an_instance_that_demands_tokens(job: Job) -> None:
    guest = job.guest(job.store)
    refused = guest.attempt(f"wget -O - {IMDS}/meta-data/instance-id")
    assert refused.returncode != 0 and "401" in refused.stderr
    token = put_token(guest)
    assert guest.run(f"{get(token)}/meta-data/instance-id") == job.store
    assert guest.run(f"{get(token)}/meta-data/block-device-mapping/ephemeral0") == "sdb"


def put_token(guest: Guest) -> str:
    """Take a token: busybox's wget cannot PUT, its nc can, and wants its input held open."""
    request = r"PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-metadata-token-ttl-seconds: 3600\r\n\r\n"

    def ask() -> str | None:
        lines = guest.run(f"(printf '{request}'; sleep 1) | nc 169.254.169.254 80").splitlines()
        return lines[-1] if lines and " 200 " in lines[0] else None

    # A busy machine may answer when nobody listens any more.
    return e2e.until("a token", ask, e2e.GUEST_SECONDS)


def get(token: str) -> str:
    """Return the command that gets a path, to be appended to it."""
    return f"wget -O - --header 'X-aws-ec2-metadata-token: {token}' {IMDS}"


def test_the_instance_store_is_there_and_writable(job: Job) -> None:
    guest = job.guest(job.store)
    assert int(guest.run(f"blockdev --getsize64 {STORE_DEVICE}")) == STORE_BYTES
    # Its last sector, too.
    last = STORE_BYTES // 512 - 1
    guest.run(f"echo the end | dd of={STORE_DEVICE} bs=512 seek={last} conv=sync,fsync 2>/dev/null")
    assert guest.run(f"dd if={STORE_DEVICE} bs=512 skip={last} 2>/dev/null | head -1") == "the end\n"
    assert job.guest(job.one).attempt(f"ls {STORE_DEVICE}").returncode == 1


def test_the_way_out_leads_through_the_public_address(job: Job) -> None:
    address = job.cloud.address("controller")
    script = (
        "import socket; s = socket.create_server(('0.0.0.0', 9999)); print('ready', flush=True);"
        " s.settimeout(180); c, peer = s.accept(); print(peer[0], c.recv(100).decode(), flush=True)"
    )
    server = job.cloud.popen("controller", ["python3", "-c", script], stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == "ready\n"
        job.guest(job.one).run(f"(echo out; sleep 1) | nc -w 120 {address} 9999")
        assert server.communicate(timeout=180)[0].split() == [job.describe(job.one)["PublicIpAddress"], "out"]
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_the_default_group_lets_in_ssh_and_its_own_members_only(job: Job) -> None:
    (group,) = job.cloud.aws("ec2", "describe-security-groups")["SecurityGroups"]
    shown = {(rule["IpProtocol"], rule.get("FromPort")): rule for rule in group["IpPermissions"]}
    assert set(shown) == {("tcp", 22), ("-1", None)}
    assert [pair["GroupId"] for pair in shown[("-1", None)]["UserIdGroupPairs"]] == [group["GroupId"]]
    assert not shown[("-1", None)]["IpRanges"]
    one, other = job.guest(job.one), job.guest(job.other)
    other.run("(nc -ll -p 8080 -e echo hello >/dev/null 2>&1 </dev/null &)")
    inside = job.describe(job.other)["PrivateIpAddress"]
    assert e2e.until("the member's port", lambda: one.attempt(f"nc -w 3 {inside} 8080").stdout) == "hello\n"
    for port in (8080, 8081):
        with pytest.raises(TimeoutError), socket.create_connection((other.address, port), timeout=2):
            pass
    ping = subprocess.run(["ping", "-c", "1", "-W", "2", other.address], stdout=subprocess.DEVNULL, check=False)
    assert ping.returncode == 1
    one.wait(f"ping -c 1 -W 5 {inside}")


def test_console_output(job: Job) -> None:
    # Speaks after it has written, and not to us directly.
    e2e.until("the user data's output", lambda: "user data speaks" in e2e.console_text(job.cloud, job.one), every=0.2)
    answer = job.cloud.aws("ec2", "get-console-output", "--instance-id", job.one, "--latest")
    assert answer["InstanceId"] == job.one
    assert f"instance {job.one}" in answer["Output"]
    assert "user data speaks" in answer["Output"]
    assert "BEGIN SSH HOST KEY KEYS" in answer["Output"]


def test_a_reboot_keeps_every_disk(job: Job) -> None:
    guest = job.guest(job.store)
    before = guest.run(
        f"echo kept >/root/kept; mke2fs -F {STORE_DEVICE} 16384 >/dev/null 2>&1 && mkdir -p /mnt"
        f" && mount {STORE_DEVICE} /mnt && echo scratch >/mnt/scratch && umount /mnt && sync;"
        " cat /proc/sys/kernel/random/boot_id"
    )
    job.cloud.aws("ec2", "reboot-instances", "--instance-ids", job.store)
    # A guest that does not hear is reset after four minutes.
    again = f'test "$(cat /proc/sys/kernel/random/boot_id)" != {before.strip()}'
    after = guest.wait(f"{again} && cat /root/kept", timeout_seconds=600)
    assert after == "kept\n"
    # Linked a moment after logging in is possible.
    guest.wait(f"test -e {STORE_DEVICE}")
    assert guest.run(f"mount {STORE_DEVICE} /mnt && cat /mnt/scratch && umount /mnt") == "scratch\n"
    instance = job.describe(job.store)
    assert instance["State"]["Name"] == "running" and instance["PublicIpAddress"] == guest.address


def test_a_stop_keeps_the_volume_and_loses_the_instance_store(job: Job) -> None:
    before = job.describe(job.store)
    host, qemu = e2e.qemu_of(job.cloud, job.store)
    store_file = job.cloud.private(host, f"{e2e.STATE_FOLDER}/pool/ephemeral/{job.store}-ephemeral0.raw")
    assert store_file.exists()
    answer = job.cloud.aws("ec2", "stop-instances", "--instance-ids", job.store)
    (change,) = answer["StoppingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    job.ec2.get_waiter("instance_stopped").wait(InstanceIds=[job.store], WaiterConfig=QUICK)
    job.cloud.aws("ec2", "wait", "instance-stopped", "--instance-ids", job.store)
    stopped = job.describe(job.store)
    assert stopped["State"] == {"Code": 80, "Name": "stopped"}
    assert stopped["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert re.fullmatch(r"User initiated \(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d GMT\)", stopped["StateTransitionReason"])
    assert "PublicIpAddress" not in stopped and stopped["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert stopped["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] == before["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert not store_file.exists()
    # Dead it is; the machine's process 1 may still have to take note.
    e2e.until("the end of QEMU", lambda: not Path(f"/proc/{qemu}").exists())
    status = job.ec2.describe_instance_status(InstanceIds=[job.store], IncludeAllInstances=True)["InstanceStatuses"][0]
    assert status["InstanceState"]["Name"] == "stopped" and status["InstanceStatus"]["Status"] == "not-applicable"
    (change,) = job.cloud.aws("ec2", "start-instances", "--instance-ids", job.store)["StartingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    guest = job.guest(job.store)
    after = job.describe(job.store)
    assert "StateReason" not in after and after["StateTransitionReason"] == ""
    assert after["NetworkInterfaces"][0]["MacAddress"] == before["NetworkInterfaces"][0]["MacAddress"]
    assert guest.run("cat /root/kept") == "kept\n"
    assert int(guest.wait(f"blockdev --getsize64 {STORE_DEVICE}")) == STORE_BYTES
    # Nothing of the last tenant's.
    assert set(guest.run(f"dd if={STORE_DEVICE} bs=64k count=16 2>/dev/null | od -An -v -tx1").split()) == {"00"}


def test_a_guest_that_powers_off_is_stopped_at_once(job: Job) -> None:
    guest = job.guest(job.one)
    _, qemu = e2e.qemu_of(job.cloud, job.one)
    with e2e.told_by_event(job.cloud, job.one, "stopped"), e2e.watched_process(qemu) as wait_end:
        guest.attempt("poweroff")
        wait_end(180)
    instance = job.describe(job.one)
    assert instance["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert instance["StateTransitionReason"] == ""


def test_an_instance_whose_qemu_is_killed_is_stopped_at_once(job: Job) -> None:
    # What a guest has not written out is lost with its power, as anywhere.
    job.guest(job.other).run("sync")
    _, qemu = e2e.qemu_of(job.cloud, job.other)
    with e2e.told_by_event(job.cloud, job.other, "stopped"):
        os.kill(qemu, signal.SIGKILL)
    instance = job.describe(job.other)
    assert instance["StateReason"]["Code"] == "Server.InternalError"
    assert instance["StateTransitionReason"].startswith("Server.InternalError")
    # Its volume is whole, and it starts again.
    job.ec2.start_instances(InstanceIds=[job.other])
    assert job.guest(job.other).run("cat /root/user-data-ran").count("\n") == 1


def test_a_guest_that_powers_off_is_terminated_if_it_was_launched_so(job: Job) -> None:
    guest = job.guest(job.store)
    _, qemu = e2e.qemu_of(job.cloud, job.store)
    with e2e.told_by_event(job.cloud, job.store, "terminated"), e2e.watched_process(qemu) as wait_end:
        guest.attempt("poweroff")
        wait_end(180)
    assert job.describe(job.store)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_termination_leaves_nothing_but_a_memory(job: Job) -> None:
    # One runs, one is stopped, one is terminated already: all three are fine to terminate.
    changes = job.cloud.aws("ec2", "terminate-instances", "--instance-ids", *job.ids)["TerminatingInstances"]
    assert {one["InstanceId"]: one["CurrentState"]["Name"] for one in changes} == {
        job.one: "shutting-down",
        job.other: "shutting-down",
        job.store: "terminated",
    }
    job.ec2.get_waiter("instance_terminated").wait(InstanceIds=job.ids, WaiterConfig=QUICK)
    job.cloud.aws("ec2", "wait", "instance-terminated", "--instance-ids", *job.ids)
    e2e.assert_no_debris(job.cloud)
    for instance_id in job.ids:
        gone = job.describe(instance_id)
        assert gone["State"] == {"Code": 48, "Name": "terminated"}
        assert "PublicIpAddress" not in gone and gone["NetworkInterfaces"] == [] and not gone["BlockDeviceMappings"]
    one = job.describe(job.one)
    assert one["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert one["StateTransitionReason"].startswith("User initiated (")
    assert {"Key": "Name", "Value": "small"} in one["Tags"]
