"""Terraform's provider hashicorp/aws: data sources, apply, a plan with no changes, a change in place, destroy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import clients, e2e

CONFIGURATION = Path(__file__).parent / "terraform" / "main.tf"
# Each command starts the provider, which takes seconds, and some wait for a guest's shutdown.
COMMAND_SECONDS = 900


def test_terraform_plans_applies_changes_and_destroys(outside: Any, got: Callable[..., Any], tmp_path: Path) -> None:
    terraform, mirror = got(clients.terraform)
    cloud = outside.cloud
    folder = tmp_path / "configuration"
    folder.mkdir()
    shutil.copyfile(CONFIGURATION, folder / CONFIGURATION.name)
    settings = tmp_path / "terraform.rc"
    installation = f"provider_installation {{\n  filesystem_mirror {{ path = {json.dumps(str(mirror))} }}\n}}\n"
    settings.write_text("disable_checkpoint = true\n" + installation)
    key_file = outside.new_key("terraform")
    variables = {
        "TF_CLI_CONFIG_FILE": str(settings),
        "TF_IN_AUTOMATION": "1",
        "TF_INPUT": "0",
        "TF_VAR_endpoint": outside.environment["AWS_ENDPOINT_URL"],
        "TF_VAR_image": cloud.image,
        "TF_VAR_public_key": key_file.with_suffix(".pub").read_text().strip(),
    }

    def run(command: str, *arguments: str, type: str = "t3.nano", role: str = "first") -> str:
        chosen = {"TF_VAR_instance_type": type, "TF_VAR_role": role}
        words = [terraform, command, "-no-color", *arguments]
        answer: str = outside.run(words, folder, COMMAND_SECONDS, **variables, **chosen)
        return answer

    def outputs() -> dict[str, Any]:
        return {name: one["value"] for name, one in json.loads(run("output", "-json")).items()}

    hosts = e2e.host_names(cloud)
    zone = max(hosts)
    run("init")
    run("apply", "-auto-approve")
    made = outputs()
    id = made["id"]
    described = outside.instance(id)
    subnets = {one["SubnetId"]: one for one in e2e.door(cloud).ec2("DescribeSubnets")["Subnets"]}
    assert made["account"] == subnets[made["subnet"]]["OwnerId"]
    assert made["zones"] == sorted(hosts) and made["image"] == outside.image_id and made["vcpus"] == 2
    assert sorted(made["subnets"]) == sorted(subnets)
    assert subnets[made["subnet"]]["AvailabilityZone"] == zone
    assert described["SubnetId"] == made["subnet"] and described["InstanceType"] == "t3.nano"
    assert described["PublicIpAddress"] == made["address"] and described["PrivateDnsName"] == made["private_dns"]
    assert outside.tags(id) == {"Name": "terraform", "role": "first"}
    assert outside.host_of(id) == hosts[zone]
    guest = e2e.guest(cloud, id, key_file)
    assert guest.wait("cat /root/user-data-ran") == f"user data of {described['PrivateDnsName']}\n"

    # With -detailed-exitcode, a plan that finds anything to change ends with 2.
    assert "No changes." in run("plan", "-detailed-exitcode")

    run("apply", "-auto-approve", type="t3.micro", role="second")
    described = outside.instance(id)
    assert described["State"]["Name"] == "running" and described["InstanceType"] == "t3.micro"
    assert outside.tags(id) == {"Name": "terraform", "role": "second"}
    assert outside.host_of(id) == hosts[zone]
    # The same disk, in a machine of the other type's memory.
    guest = e2e.guest(cloud, id, key_file)
    guest.wait("test -s /root/user-data-ran")
    assert 512 * 1024 < int(guest.run("sed -n 's/^MemTotal: *//p' /proc/meminfo").split()[0]) <= 1024 * 1024

    run("destroy", "-auto-approve", type="t3.micro", role="second")
    assert outside.instance(id)["State"]["Name"] == "terminated" and outside.host_of(id) is None
    assert e2e.door(cloud).ec2("DescribeKeyPairs")["KeyPairs"] == []
