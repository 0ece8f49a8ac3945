"""The life of an instance as each SDK and command line lives it, with what each step did to the hosts and the guest."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from support import e2e

CLIENTS = ["aws-cli 1", "Debian's aws-cli", "boto3", "Apache Libcloud", "boto 2", "AWS SDK for JavaScript v3"]
ZONE = "lab-1b"
USER_DATA = '#!/bin/sh\necho "user data of $(hostname)" >/root/user-data-ran\n'


@pytest.mark.parametrize("flow", CLIENTS, indirect=True)
def test_life_of_an_instance(flow: Any, outside: Any) -> None:
    cloud = outside.cloud
    # Of this run only: instances that earlier ones terminated are still shown.
    role = f"<é> & {uuid.uuid4()}"
    seen = flow.step("look", image=cloud.image)
    hosts = e2e.host_names(cloud)
    account = e2e.door(cloud).ec2("DescribeVpcs")["Vpcs"][0]["OwnerId"]
    assert seen["regions"] in ([cloud.region], None)
    assert sorted(seen["zones"]) == sorted(hosts)
    assert seen["images"] == {cloud.image: outside.image_id}
    assert seen["account"] in (account, None)
    assert flow.step("refusal") == "InvalidInstanceID.NotFound"

    launched = flow.step(
        "launch",
        image=outside.image_id,
        type="t3.nano",
        zone=ZONE,
        name="flow",
        key="flow-key",
        user_data=USER_DATA,
    )
    id = launched["id"]
    described = outside.instance(id)
    assert described["State"]["Name"] == "running" and described["InstanceType"] == "t3.nano"
    assert described["PublicIpAddress"] == launched["address"] and described["KeyName"] == "flow-key"
    assert outside.host_of(id) == hosts[ZONE]
    guest = e2e.guest(cloud, id, outside.key_file("flow-key", launched["private_key"]))
    hostname = described["PrivateDnsName"]
    assert guest.wait("cat /root/user-data-ran") == f"user data of {hostname}\n"
    assert "tiny: ready" in flow.step("console", id=id)

    flow.step("tag", id=id, tag="role", value=role)
    assert outside.tags(id) == {"Name": "flow", "role": role}
    assert flow.step("find", tag="role", value=role) == [id]
    assert flow.step("find", tag="role", value="another") == []

    flow.step("stop", id=id)
    assert outside.instance(id)["State"]["Name"] == "stopped" and outside.host_of(id) is None
    address = flow.step("start", id=id)
    described = outside.instance(id)
    assert described["State"]["Name"] == "running" and described["PublicIpAddress"] == address
    assert outside.host_of(id) == hosts[ZONE]

    flow.step("terminate", id=id, key="flow-key")
    assert outside.instance(id)["State"]["Name"] == "terminated" and outside.host_of(id) is None
    assert e2e.door(cloud).ec2("DescribeKeyPairs")["KeyPairs"] == []
