"""The unix socket's door: the same operations as JSON, those that AWS does not have, uploads, and waiting."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import front as build

from minicloud.api.import_files import clear_spool
from minicloud.cloud import imports
from minicloud.model.states import InstanceState


class Door:
    """Calls the door in this process, as a peer of some user."""

    def __init__(self, front: Any, peer: str = "uid:0") -> None:
        self._app = build.door_of(front, peer)

    def send(self, method: str, path: str, content: Any = None) -> tuple[int, dict[str, Any]]:
        async def once() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://door") as client:
                return await client.request(method, path, content=content)

        response = asyncio.run(once())
        return response.status_code, response.json()

    def __call__(self, operation: str, **parameters: Any) -> dict[str, Any]:
        status, answer = self.send("POST", f"/v1/{operation}", json.dumps(parameters))
        assert status == 200, answer
        return answer

    def refused(self, code: str, operation: str, **parameters: Any) -> str:
        status, answer = self.send("POST", f"/v1/{operation}", json.dumps(parameters))
        assert status >= 400
        assert answer["Error"]["Code"] == code, answer
        assert answer["RequestId"].startswith("request-")
        return str(answer["Error"]["Message"])


@pytest.fixture
def door(front: Any) -> Door:
    return Door(front)


RUN = {"ImageId": build.IMAGE_ID, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano"}


def test_the_same_operations_as_json(door: Door) -> None:
    data = base64.b64encode(b"#!/bin/sh\n").decode()
    (instance,) = door("ec2/RunInstances", **RUN, UserData=data)["Instances"]
    assert instance["State"] == {"Code": 0, "Name": "pending"}
    assert instance["LaunchTime"].endswith("Z")
    (reservation,) = door("ec2/DescribeInstances")["Reservations"]
    assert reservation["Instances"] == [instance]
    assert door("ec2/CreateTags", Resources=[instance["InstanceId"]], Tags=[{"Key": "a", "Value": "b"}]) == {}
    assert door("sts/GetCallerIdentity")["Account"] == build.root_caller().account_id
    material = base64.b64encode(b"ssh-ed25519 nonsense").decode()
    door.refused("InvalidKey.Format", "ec2/ImportKeyPair", KeyName="k", PublicKeyMaterial=material)


def test_refusals_are_the_same_too(door: Door) -> None:
    door.refused("InvalidInstanceID.Malformed", "ec2/TerminateInstances", InstanceIds=["x"])
    door.refused("UnsupportedOperation", "ec2/RunInstances", **RUN, KernelId="aki-1")
    door.refused("DryRunOperation", "ec2/RunInstances", **RUN, DryRun=True)
    door.refused("UnknownParameter", "ec2/DescribeInstances", Rocket=1)
    door.refused("MissingParameter", "ec2/TerminateInstances")
    door.refused("InvalidAction", "ec2/CreateVpc")
    door.refused("InvalidAction", "s3/ListBuckets")
    door.refused("InvalidAction", "minicloud/LaunchRocket")


@pytest.mark.parametrize("content", ["{", "[]", "null", '"x"', '{"a": NaN}', "[" * 100_000, b"\xff"])
def test_what_is_not_a_json_object_is_refused(door: Door, content: Any) -> None:
    status, answer = door.send("POST", "/v1/ec2/DescribeRegions", content)
    assert (status, answer["Error"]["Code"]) == (400, "SerializationException")


def test_an_empty_body_is_an_empty_object(door: Door) -> None:
    assert door.send("POST", "/v1/ec2/DescribeRegions", b"")[0] == 200


def test_large_bodies_and_other_paths_are_refused(door: Door) -> None:
    status, answer = door.send("POST", "/v1/ec2/DescribeRegions", b" " * 2_000_000)
    assert (status, answer["Error"]["Code"]) == (413, "RequestEntityTooLarge")
    for method, path in (("GET", "/"), ("POST", "/v1/ec2"), ("DELETE", "/v1/ec2/DescribeRegions")):
        status, answer = door.send(method, path)
        assert status in (404, 405), (method, path)


@pytest.mark.parametrize("peer", ["uid:1000", "127.0.0.1", ""])
def test_other_users_are_turned_away(front: Any, peer: str) -> None:
    door = Door(front, peer)
    before = build.count_rows(front.cloud)
    door.refused("UnauthorizedOperation", "ec2/RunInstances", **RUN)
    door.refused("UnauthorizedOperation", "minicloud/DescribeHosts")
    status, answer = door.send("PUT", "/v1/minicloud/UploadImport", b"x")
    assert (status, answer["Error"]["Code"]) == (403, "UnauthorizedOperation")
    assert build.count_rows(front.cloud) == before


def test_bugs_are_told_to_nobody_here_either(door: Door, front: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(front.cloud.store, "read", away)
    assert "secret" not in door.refused("InternalError", "ec2/DescribeInstances")


# Zones and hosts


def test_zones_and_hosts(door: Door, front: Any) -> None:
    added = door("minicloud/AddHost", Name="third", Zone="lab-1c", Address="10.0.0.3", User="admin", Port=2222)["Host"]
    assert (added["Vcpus"], added["MemoryMiB"], added["VirtType"]) == (8, 16384, "qemu")
    assert added["VirtTypeReason"] == "/dev/kvm is absent"
    assert added["HostKeyFingerprint"].startswith("SHA256:")
    (probed,) = front.probed
    assert (probed.address, probed.ssh_user, probed.ssh_port) == ("10.0.0.3", "admin", 2222)
    assert probed.pool_path == "/var/lib/minicloud/pool"
    assert len(front.hosts_changed) == 1
    assert [one["ZoneName"] for one in door("ec2/DescribeAvailabilityZones")["AvailabilityZones"]][-1] == "lab-1c"
    (subnet,) = [one for one in door("ec2/DescribeSubnets")["Subnets"] if one["AvailabilityZone"] == "lab-1c"]
    assert subnet["CidrBlock"] == "172.31.32.0/20"
    # The same again takes over new facts and makes nothing new.
    again = door("minicloud/AddHost", Name="third", Zone="lab-1c", Address="10.0.0.3", Port=2222)["Host"]
    assert again["HostId"] == added["HostId"]
    door("ec2/RunInstances", **{**RUN, "Placement": {"AvailabilityZone": "lab-1c"}})
    host = next(one for one in door("minicloud/DescribeHosts")["Hosts"] if one["Name"] == "third")
    assert (host["Instances"], host["UsedVcpus"], host["UsableVcpus"]) == (1, 2, 32)
    assert (host["UsedMemoryMiB"], host["UsableMemoryMiB"]) == (512, 16384)
    assert host["Pools"][0]["CapacityBytes"] == 100 * build.GIB
    assert "DependencyViolation" in str(door.send("POST", "/v1/minicloud/RemoveHost", b'{"HostId": "third"}'))
    (reservation,) = door("ec2/DescribeInstances")["Reservations"]
    door("ec2/TerminateInstances", InstanceIds=[reservation["Instances"][0]["InstanceId"]])
    build.settle(front.cloud)
    assert door("minicloud/RemoveHost", HostId=added["HostId"])["Host"]["Name"] == "third"
    zones = {one["ZoneName"]: one for one in door("minicloud/DescribeZones")["Zones"]}
    assert (zones["lab-1c"]["Hosts"], zones["lab-1a"]["HostsUp"]) == (0, 1)
    states = {one["ZoneName"]: one["State"] for one in door("ec2/DescribeAvailabilityZones")["AvailabilityZones"]}
    assert states["lab-1c"] == "unavailable"


@pytest.mark.parametrize(
    ("code", "parameters"),
    [
        ("MissingParameter", {"Zone": "lab-1a"}),
        ("MissingParameter", {"Name": "x"}),
        ("InvalidParameterValue", {"Name": "x", "Zone": "us-east-1a"}),
        ("InvalidParameterValue", {"Name": "x", "Zone": "lab-1aa"}),
        ("InvalidParameterValue", {"Name": "../x", "Zone": "lab-1a"}),
        ("InvalidParameterValue", {"Name": "-oProxyCommand=x", "Zone": "lab-1a"}),
        ("InvalidParameterValue", {"Name": "x", "Zone": "lab-1a", "Port": "22"}),
        ("UnknownParameter", {"Name": "x", "Zone": "lab-1a", "Rocket": 1}),
        ("HostAlreadyExists", {"Name": "host1", "Zone": "lab-1a"}),
        ("HostAlreadyExists", {"Name": "new", "Zone": "lab-1a", "Address": "host1.test"}),
        ("HostNotUsable", {"Name": "new", "Zone": "lab-1a", "Address": "unreachable"}),
    ],
)
def test_hosts_that_cannot_be_added(door: Door, front: Any, code: str, parameters: dict[str, Any]) -> None:
    before = door("minicloud/DescribeHosts")
    door.refused(code, "minicloud/AddHost", **parameters)
    assert door("minicloud/DescribeHosts") == before
    assert front.hosts_changed == []


def test_draining(door: Door) -> None:
    assert door("minicloud/DrainHost", HostId="host1")["Host"]["State"] == "draining"
    (instance,) = door("ec2/RunInstances", **RUN)["Instances"]
    assert instance["Placement"]["AvailabilityZone"] == "lab-1b"
    assert door("minicloud/DrainHost", HostId="host1", Draining=False)["Host"]["State"] == "up"
    door.refused("InvalidHostID.NotFound", "minicloud/DrainHost", HostId="nobody")
    door.refused("InvalidHostID.NotFound", "minicloud/RemoveHost", HostId="nobody")


def test_more_zones_than_letters_of_address_space(door: Door) -> None:
    for letter in "cdefghijklmnop":
        door("minicloud/AddZone", Name=f"lab-1{letter}")
    door.refused("SubnetLimitExceeded", "minicloud/AddZone", Name="lab-1q")
    assert len(door("minicloud/DescribeZones")["Zones"]) == 16


def test_daemon_status(door: Door) -> None:
    door("ec2/RunInstances", **RUN)
    status = door("minicloud/DaemonStatus")
    assert status["Region"] == "lab-1"
    assert status["Tasks"] == [{"Kind": "instance", "Step": "prepare", "Count": 1}]
    assert status["TasksOverdue"] == 1


# Uploads


def spooled(front: Any) -> list[Path]:
    folder = Path(front.cloud.config.spool_folder)
    return list(folder.iterdir()) if folder.exists() else []


def test_an_upload_can_be_imported_and_is_private(door: Door, front: Any) -> None:
    content = bytes(range(256)) * 10_000
    status, answer = door.send("PUT", "/v1/minicloud/UploadImport", content)
    assert (status, answer["SizeBytes"]) == (200, len(content))
    (file,) = spooled(front)
    assert file.read_bytes() == content
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0
    task = door("ec2/ImportSnapshot", DiskContainer={"Format": "RAW", "Url": answer["Url"]})
    row = front.cloud.store.read(lambda tx: tx.import_tasks.get(task["ImportTaskId"]))
    assert (row.path, row.remove_source) == (str(file.resolve()), True)
    door.send("PUT", "/v1/minicloud/UploadImport", b"nobody wants this")
    assert clear_spool(front.cloud.config, imports.spool_paths_in_use(front.cloud)) == 1
    assert spooled(front) == [file]


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_that_is_too_large_leaves_nothing(catalog: Any, tmp_path: Path, declared: bool) -> None:
    front = build.build_front(catalog, tmp_path, max_import_bytes=3_000_000)

    async def chunks() -> Any:
        for _ in range(40):
            yield b"x" * 100_000

    content: Any = b"x" * 4_000_000 if declared else chunks()
    status, answer = Door(front).send("PUT", "/v1/minicloud/UploadImport", content)
    assert (status, answer["Error"]["Code"]) == (413, "RequestEntityTooLarge")
    assert spooled(front) == []


def test_an_upload_that_breaks_off_leaves_nothing(front: Any) -> None:
    messages = [{"type": "http.request", "body": b"x" * 2_000_000, "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []
    run_asgi(build.door_of(front), "PUT", "/v1/minicloud/UploadImport", messages, sent, {})
    assert spooled(front) == []


def test_an_upload_shorter_than_declared_leaves_nothing(front: Any) -> None:
    messages = [{"type": "http.request", "body": b"x" * 100, "more_body": False}]
    sent: list[Any] = []
    headers = {b"content-length": b"200"}
    run_asgi(build.door_of(front), "PUT", "/v1/minicloud/UploadImport", messages, sent, headers)
    assert spooled(front) == []


def test_a_full_disk_is_told(front: Any, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/var/lib/minicloud/spool")

    monkeypatch.setattr("minicloud.api.import_files._write", full)
    status, answer = door.send("PUT", "/v1/minicloud/UploadImport", b"x")
    assert (status, answer["Error"]["Code"]) == (507, "InsufficientStorage")
    assert "/var" not in str(answer)
    assert spooled(front) == []


def run_asgi(
    app: Callable[..., Awaitable[None]],
    method: str,
    path: str,
    messages: list[dict[str, Any]],
    sent: list[Any],
    headers: dict[bytes, bytes],
) -> None:
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "server": ("door", None),
        "headers": list(headers.items()),
    }  # fmt: skip
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 60))  # type: ignore[arg-type]


# Waiting


def launch(door: Door) -> str:
    return str(door("ec2/RunInstances", **RUN)["Instances"][0]["InstanceId"])


def test_waiting_without_a_token_answers_at_once(door: Door) -> None:
    id = launch(door)
    answer = door("minicloud/WaitForChange", Ids=[id], TimeoutSeconds=30)
    assert answer["Resources"] == [
        {"Id": id, "State": "pending", "Step": "prepare", "Attempt": 0, "Progress": None, "Reason": None}
    ]


def test_a_commit_wakes_who_waits(door: Door, front: Any) -> None:
    id = launch(door)
    token = door("minicloud/WaitForChange", Ids=[id])["Token"]
    store = front.cloud.store
    waiting = threading.Event()
    original = front.services.changes.wait

    async def announced(*arguments: Any) -> bool:
        waiting.set()
        return bool(await original(*arguments))

    front.services.changes.wait = announced

    def change() -> None:
        assert waiting.wait(60)
        # A change of something else wakes, too, but is no answer.
        store.write(lambda tx: tx.tags.set(build.IMAGE_ID, {"a": "b"}))
        store.write(lambda tx: tx.instances.update(id, state=InstanceState.RUNNING))

    thread = threading.Thread(target=change)
    thread.start()
    answer = door("minicloud/WaitForChange", Ids=[id], Since=token, TimeoutSeconds=60)
    thread.join(60)
    assert answer["Resources"][0]["State"] == "running"
    assert answer["Token"] != token


def test_waiting_ends_when_time_is_up(door: Door) -> None:
    id = launch(door)
    token = door("minicloud/WaitForChange", Ids=[id])["Token"]
    answer = door("minicloud/WaitForChange", Ids=[id], Since=token, TimeoutSeconds=0.05)
    assert answer["Token"] == token


def test_what_cannot_be_waited_for(door: Door) -> None:
    door.refused("InvalidInstanceID.NotFound", "minicloud/WaitForChange", Ids=["i-0123456789abcdef0"])
    door.refused("InvalidID", "minicloud/WaitForChange", Ids=["vpc-0123456789abcdef0"])
    door.refused("InvalidID", "minicloud/WaitForChange", Ids=["x"])
    door.refused("MissingParameter", "minicloud/WaitForChange")
    door.refused("InvalidParameterValue", "minicloud/WaitForChange", Ids=[])
    door.refused("InvalidParameterValue", "minicloud/WaitForChange", Ids=[1])
    door.refused("InvalidParameterValue", "minicloud/WaitForChange", Ids="i-0123456789abcdef0")


def test_images_and_imports_can_be_waited_for(door: Door, front: Any) -> None:
    url = door.send("PUT", "/v1/minicloud/UploadImport", b"x")[1]["Url"]
    task_id = door("ec2/ImportSnapshot", DiskContainer={"Format": "raw", "Url": url})["ImportTaskId"]
    image, task = door("minicloud/WaitForChange", Ids=[build.IMAGE_ID, task_id])["Resources"]
    assert (image["State"], image["Step"]) == ("available", None)
    assert (task["State"], task["Step"], task["Progress"]) == ("active", "start", 0)
