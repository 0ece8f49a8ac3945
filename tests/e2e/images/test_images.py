"""The guest images under plain QEMU: what a guest does with the devices and the metadata it is given.

Every assertion is made from inside the guest, or on its console. No libvirt is involved: when one of these fails, the
image is at fault and not the cloud.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[3]
USER_DATA = b"#!/bin/sh\necho user data says hello\necho ran >>/root/user-data-runs\n"


@pytest.fixture(scope="session")
def tiny(image_builder: Callable[[str], Path]) -> Path:
    return image_builder("tiny")


@pytest.fixture(scope="session")
def debian(image_builder: Callable[[str], Path]) -> Path:
    return image_builder("debian")


def test_tiny_becomes_the_instance_that_the_metadata_describes(tiny: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(tiny, user_data=USER_DATA)
    guest.start()
    guest.wait_ssh()
    guest.wait_console("tiny: user data ended with status 0")

    assert guest.ssh("hostname") == "ip-169-254-10-15"
    assert guest.ssh("whoami", user="ec2-user") == "ec2-user"
    assert "inet 169.254.10.15/16" in guest.ssh("ip addr show eth0")
    assert guest.ssh("imds meta-data/instance-id") == "i-0123456789abcdef0"
    assert "user data says hello" in guest.console()
    assert guest.ssh("cat /var/log/user-data.log") == "user data says hello"
    # Version 2 of the metadata service only: the server refuses a request that carries no token.
    assert guest.metadata.requests[0] == "PUT /latest/api/token"

    console = guest.console()
    assert re.search(r"tiny: ready in \d+\.\d+ s", console)
    block = re.search(r"-----BEGIN SSH HOST KEY FINGERPRINTS-----\s+(.*?)\s+-----END", console, re.DOTALL)
    assert block
    scanned = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", "-p", str(guest.ssh_port), "127.0.0.1"], capture_output=True, check=True
    )
    shown = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=scanned.stdout, capture_output=True, check=True)
    assert shown.stdout.decode().split()[1] == block[1].split()[1]


def test_tiny_keeps_its_disk_and_runs_user_data_once(tiny: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(tiny, user_data=USER_DATA)
    guest.start()
    guest.wait_ssh()
    guest.wait_console("tiny: user data ended with status 0")
    host_key = guest.ssh("sha256sum /etc/dropbear/dropbear_ed25519_host_key")
    guest.ssh("echo precious >/root/kept; (sleep 0.2; reboot) >/dev/null 2>&1 &")
    guest.wait_console("tiny: boot 2 of this disk")
    guest.wait_ssh()
    assert guest.ssh("cat /root/kept") == "precious"

    # The power button, then a start from the same disk.
    assert guest.power_down() == 0
    assert "tiny: power button pressed" in guest.console()
    guest.start()
    guest.wait_ssh()
    # Counted a moment after logging in is possible.
    guest.wait_console("tiny: boot 3 of this disk")
    assert guest.ssh("cat /root/kept /root/user-data-runs /var/lib/tiny/boots").split() == ["precious", "ran", "3"]
    assert guest.ssh("sha256sum /etc/dropbear/dropbear_ed25519_host_key") == host_key

    # Another instance made from this disk has keys of its own and runs its own user data.
    guest.ssh("(sleep 0.2; poweroff) >/dev/null 2>&1 &")
    assert guest.wait_exit() == 0
    guest.metadata.tree["meta-data"]["instance-id"] = "i-0fedcba9876543210"
    guest.start()
    guest.wait_ssh()
    guest.wait_console("tiny: user data ended with status 0")
    assert guest.ssh("sha256sum /etc/dropbear/dropbear_ed25519_host_key") != host_key
    assert guest.ssh("cat /root/user-data-runs").split() == ["ran", "ran"]


def test_tiny_sees_disks_come_and_go(tiny: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(tiny)
    guest.start()
    guest.wait_ssh()
    guest.wait_console("tiny: ready in")
    # The root disk's serial is there from boot on.
    assert guest.ssh("readlink -f /dev/disk/by-id/virtio-vol00000000000000001") == "/dev/vda"
    link = "/dev/disk/by-id/virtio-vol0123456789abcdef0"

    guest.plug_disk("port3", "data", "vol0123456789abcdef0")
    guest.wait_console("tiny: disk vdb: add")
    guest.ssh(f"test -b {link} && mkfs.ext4 -q {link} && mount {link} /mnt && echo kept >/mnt/file && umount /mnt")
    assert "vol0123456789abcdef0" in guest.ssh("lsblk")
    assert 'TYPE="ext4"' in guest.ssh(f"blkid {link}")
    guest.unplug_disk("data")
    guest.wait_console("tiny: disk vdb: remove")
    assert guest.ssh(f"ls {link} 2>&1 || true").endswith("No such file or directory")

    guest.plug_disk("port3", "data", "vol0123456789abcdef0")
    guest.wait(lambda: guest.console().count("tiny: disk vdb: add") == 2, "disk again", 300)
    assert guest.ssh(f"mount {link} /mnt && cat /mnt/file") == "kept"


def test_tiny_fills_a_larger_volume(tiny: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(tiny, disk_gib=3)
    guest.start()
    guest.wait_ssh()
    guest.wait_console("tiny: ready in")
    mebibytes = int(guest.ssh("df -m / | tail -n 1").split()[1])
    assert 2900 < mebibytes < 3 * 1024


def test_tiny_starts_on_one_processor_and_ends_up_with_all(tiny: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(tiny)
    guest.start("-smp", "2")
    guest.wait_ssh()
    guest.wait_console("tiny: ready in")
    assert guest.ssh("nproc") == "2"
    assert "maxcpus=1" in guest.ssh("cat /proc/cmdline").split()
    guest.ssh("(sleep 0.2; reboot) >/dev/null 2>&1 &")
    guest.wait_console("tiny: boot 2 of this disk")
    assert guest.ssh("nproc") == "2"


def test_tiny_without_metadata_still_comes_up(tiny: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(tiny)
    guest.metadata.tree = {}
    guest.start()
    guest.wait_ssh()
    guest.wait_console("tiny: ready in")
    assert "instance unknown, host name tiny" in guest.console()


def test_tiny_waits_for_a_metadata_service_that_is_not_ready(tiny: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(tiny)
    guest.metadata.unready_answers = 3
    guest.start()
    guest.wait_ssh()
    guest.wait_console("tiny: ready in")
    assert guest.ssh("cat /etc/hostname") == "ip-169-254-10-15"


def test_tiny_reports_user_data_that_is_no_script(tiny: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(tiny, user_data=b"#cloud-config\n\x00\xff binary")
    guest.start()
    guest.wait_ssh()
    guest.wait_console("tiny: user data is no script")
    kept = guest.ssh("od -A n -t x1 /var/lib/tiny/instances/i-0123456789abcdef0/user-data")
    assert bytes.fromhex(kept.replace(" ", "").replace("\n", "")) == b"#cloud-config\n\x00\xff binary"


def test_tiny_boots_in_the_smallest_machine(tiny: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(tiny, memory_mib=128)
    guest.start()
    guest.wait_ssh()
    guest.wait_console("tiny: ready in")


def test_two_builds_of_tiny_are_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    again = subprocess.run(
        [sys.executable, str(REPOSITORY / "images" / "build"), "tiny", "--cache-dir", str(tmp_path / "cache")],
        stdout=subprocess.PIPE, check=True, timeout=600,
    )  # fmt: skip
    other = Path(again.stdout.decode().splitlines()[-1])
    assert other != tiny
    assert other.read_bytes() == tiny.read_bytes()


def test_debian_is_configured_by_its_own_cloud_init(debian: Path, make_guest: Callable[..., Any]) -> None:
    guest = make_guest(debian, user_data=USER_DATA, user="debian", memory_mib=1024, disk_gib=4)
    guest.start()
    guest.wait_ssh(timeout_seconds=900)
    status = guest.ssh("cloud-init status --wait --long", timeout_seconds=900)
    assert "status: done" in status
    assert "DataSourceEc2" in status
    assert guest.ssh("hostname") == "ip-169-254-10-15"
    assert guest.ssh("sudo cat /root/user-data-runs") == "ran"
    assert int(guest.ssh("df -m / | tail -n 1").split()[1]) > 3500
    assert guest.ssh("systemctl --failed --no-legend") == ""
    assert "-----BEGIN SSH HOST KEY FINGERPRINTS-----" in guest.console()
    guest.plug_disk("port3", "data", "vol0123456789abcdef0")
    link = "/dev/disk/by-id/virtio-vol0123456789abcdef0"
    guest.wait(lambda: "vdb" in guest.ssh(f"readlink {link} || true"), "hot-plugged disk", 300)
    guest.unplug_disk("data")
    assert guest.power_down() == 0
