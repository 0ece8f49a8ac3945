"""Ansible's collection amazon.aws on the controller's side: playbooks, most of whose tasks are done twice.

Its module for the inside of a guest, ec2_metadata_facts, is tried on the guest that has a Python: in test_debian.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import clients, e2e

PLAYBOOKS = Path(__file__).parent / "ansible"
ZONE = "lab-1b"
USER_DATA = '#!/bin/sh\necho "user data of $(hostname)" >/root/user-data-ran\n'


def test_playbooks_launch_change_and_end_an_instance(outside: Any, got: Callable[..., Any], tmp_path: Path) -> None:
    ansible = got(clients.ansible)
    cloud = outside.cloud
    answer = tmp_path / "answer.json"
    key_file = outside.new_key("ansible")
    variables = {
        "ansible_python_interpreter": str(ansible.python),
        "answer": str(answer),
        "image": outside.image_id,
        "public_key": key_file.with_suffix(".pub").read_text().strip(),
        "user_data": USER_DATA,
        "zone": ZONE,
    }

    def play(name: str, **more: str) -> None:
        words = [ansible.python, "-m", "ansible", "playbook", "--inventory", "localhost,", PLAYBOOKS / f"{name}.yml"]
        outside.run([*words, "--extra-vars", json.dumps({**variables, **more})], **ansible.variables)

    account = e2e.door(cloud).ec2("DescribeVpcs")["Vpcs"][0]["OwnerId"]
    play("launch")
    seen = json.loads(answer.read_text())
    id = seen["id"]
    described = outside.instance(id)
    assert seen["caller"]["account"] == account and seen["caller"]["arn"] == f"arn:aws:iam::{account}:root"
    (pair,) = e2e.door(cloud).ec2("DescribeKeyPairs")["KeyPairs"]
    assert seen["key"]["fingerprint"] == pair["KeyFingerprint"] and seen["key"]["id"] == pair["KeyPairId"]
    (found,) = seen["found"]
    assert found["instance_id"] == id and found["public_ip_address"] == described["PublicIpAddress"]
    assert found["tags"] == outside.tags(id) == {"Name": "ansible", "made-by": "ansible"}
    assert outside.host_of(id) == e2e.host_names(cloud)[ZONE]
    guest = e2e.guest(cloud, id, key_file)
    assert guest.wait("cat /root/user-data-ran") == f"user data of {described['PrivateDnsName']}\n"

    play("change", id=id)
    assert outside.tags(id) == {"Name": "ansible", "role": "changed"}
    assert outside.instance(id)["State"]["Name"] == "stopped" and outside.host_of(id) is None

    play("end", id=id)
    assert outside.instance(id)["State"]["Name"] == "terminated"
    assert e2e.door(cloud).ec2("DescribeKeyPairs")["KeyPairs"] == []
