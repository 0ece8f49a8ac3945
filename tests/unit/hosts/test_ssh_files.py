from __future__ import annotations

import shlex
import stat
import subprocess
from pathlib import Path

import paramiko
import pytest

from minicloud.hosts import ssh_files

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"


def test_the_key_pair_is_made_once_and_is_private(tmp_path: Path) -> None:
    made = ssh_files.ensure_key_pair(str(tmp_path))
    assert ssh_files.ensure_key_pair(str(tmp_path)) == made
    assert stat.S_IMODE(Path(made.key_path).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ssh").stat().st_mode) == 0o700
    key = paramiko.PKey.from_path(made.key_path)
    assert made.public_key.split()[:2] == [key.get_name(), key.get_base64()]
    assert Path(f"{made.key_path}.pub").read_text() == f"{made.public_key}\n"


def test_a_public_key_file_that_is_not_of_the_pair_is_mended(tmp_path: Path) -> None:
    made = ssh_files.ensure_key_pair(str(tmp_path))
    Path(f"{made.key_path}.pub").write_text("ssh-ed25519 AAAA somebody\n")
    ssh_files.ensure_key_pair(str(tmp_path))
    assert Path(f"{made.key_path}.pub").read_text() == f"{made.public_key}\n"


def test_the_ssh_program_offers_one_key_and_accepts_one() -> None:
    text = ssh_files.render_ssh_program("h-1", HOST_KEY, "/keys/id; rm -rf '/'", "/pins/h-1")
    shebang, command = text.splitlines()
    assert shebang == "#!/bin/sh"
    argv = shlex.split(command)
    assert argv[:4] == ["exec", "ssh", "-F", "/dev/null"]
    assert argv[-1] == "$@"
    options = dict(each.split("=", 1) for each in argv[5:-1:2])
    assert options["IdentityFile"] == "/keys/id; rm -rf '/'"
    assert options["UserKnownHostsFile"] == "/pins/h-1"
    assert options["GlobalKnownHostsFile"] == "/dev/null"
    assert options["StrictHostKeyChecking"] == "yes"
    assert options["HostKeyAlgorithms"] == "ssh-ed25519"
    assert options["HostKeyAlias"] == "h-1"
    assert options["BatchMode"] == "yes"


def test_rsa_host_keys_are_asked_to_sign_with_sha2() -> None:
    text = ssh_files.render_ssh_program("h-1", "ssh-rsa AAAA", "/key", "/pins")
    assert "HostKeyAlgorithms=rsa-sha2-512,rsa-sha2-256" in text


def test_ssh_itself_understands_the_program(tmp_path: Path) -> None:
    program = ssh_files.write_ssh_program(str(tmp_path), "h-1", HOST_KEY, "/keys/id")
    assert stat.S_IMODE(Path(program).stat().st_mode) == 0o700
    # -G prints the configuration that would be used, and connects to nothing.
    shown = subprocess.run([program, "-G", "-p", "2222", "example"], capture_output=True, text=True, check=True).stdout
    assert "hostkeyalias h-1" in shown
    assert "stricthostkeychecking true" in shown
    assert f"userknownhostsfile {tmp_path}/ssh/h-1.known_hosts" in shown


def test_the_pinned_key_is_found_under_the_alias(tmp_path: Path) -> None:
    ssh_files.write_ssh_program(str(tmp_path), "h-1", f"{HOST_KEY} somebody@somewhere", "/keys/id")
    keys = paramiko.HostKeys(str(tmp_path / "ssh" / "h-1.known_hosts"))
    assert keys["h-1"]["ssh-ed25519"].get_base64() == HOST_KEY.split()[1]
    ssh_files.remove_ssh_program(str(tmp_path), "h-1")
    ssh_files.remove_ssh_program(str(tmp_path), "h-1")
    assert list((tmp_path / "ssh").iterdir()) == []


def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    file.write_text(HOST_KEY + "\n")
    shown = subprocess.run(["ssh-keygen", "-lf", str(file)], capture_output=True, text=True, check=True).stdout
    assert ssh_files.render_fingerprint(HOST_KEY) == shown.split()[1]


@pytest.mark.parametrize(
    ("arguments", "uri"),
    [
        (("root", "10.0.0.1", 22, "/s/h.sh"), "qemu+ssh://root@10.0.0.1:22/system?command=%2Fs%2Fh.sh&no_tty=1"),
        (("u&x", "fd00::1", 2222, "/a b"), "qemu+ssh://u%26x@[fd00::1]:2222/system?command=%2Fa%20b&no_tty=1"),
    ],
)
def test_uris(arguments: tuple[str, str, int, str], uri: str) -> None:
    assert ssh_files.render_remote_uri(*arguments) == uri
