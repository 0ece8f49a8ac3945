"""Real cloud-init: Debian's own, with nothing of minicloud's in the image, takes minicloud for EC2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import e2e

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


def test_debian_boots_with_its_own_cloud_init(cloud: Any, debian_file: str, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key_file)], check=True)
    ec2 = cloud.client()
    name = Path(debian_file).stem
    ec2.import_key_pair(KeyName=name, PublicKeyMaterial=key_file.with_suffix(".pub").read_bytes())
    registered = ["image", "register", debian_file, "--name", name, "--ssh-user", "debian", "--json"]
    image = json.loads(cloud.minicloud(*registered, timeout=600))
    try:
        (launched,) = ec2.run_instances(
            ImageId=image["ImageId"],
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            KeyName=name,
            UserData=USER_DATA,
            MetadataOptions={"HttpTokens": "required"},
            BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 4}}],
        )["Instances"]
        instance_id = launched["InstanceId"]
        e2e.wait_state(cloud, [instance_id], "running", 180)
        guest = e2e.guest(cloud, instance_id, key_file, user="debian")
        guest.wait(timeout_seconds=BOOT_SECONDS)
        status = guest.attempt("cloud-init status --wait", timeout=BOOT_SECONDS)
        assert status.stdout.strip(".\n") == "status: done", status.stdout + e2e.console_text(cloud, instance_id)
        result = json.loads(guest.run("cat /run/cloud-init/result.json", timeout=120))["v1"]
        assert result == {"datasource": "DataSourceEc2Local", "errors": []}
        instance = e2e.describe(ec2, instance_id)
        # Once for all: every login costs an emulated machine seconds.
        facts = guest.run(
            "cloud-init query instance_id; cloud-init query region; cloud-init query cloud_name; hostname; id -un;"
            " cat /etc/written-by-user-data; sudo cat /root/ran; df -k --output=size / | tail -1;"
            " test ! -e /etc/cloud/cloud.cfg.d/minicloud.cfg && echo unmodified; ls /dev/disk/by-id",
            timeout=300,
        ).split()
        assert facts[:4] == [instance_id, "lab-1", "aws", "ip-" + instance["PrivateIpAddress"].replace(".", "-")]
        assert facts[4:7] == ["debian", "written", instance_id]
        assert 3.5 * 1024**2 < int(facts[7]) < 4 * 1024**2
        assert facts[8] == "unmodified"
        volume = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
        assert f"virtio-{volume.replace('-', '')}" in facts
        # systemd-logind hears the power button.
        ec2.stop_instances(InstanceIds=[instance_id])
        e2e.wait_state(cloud, [instance_id], "stopped", 180)
    finally:
        e2e.terminate(cloud, [one["InstanceId"] for one in e2e.live_instances(cloud)], 180)
        ec2.deregister_image(ImageId=image["ImageId"])
        ec2.delete_key_pair(KeyName=name)
        ec2.close()
    e2e.assert_no_debris(cloud)
