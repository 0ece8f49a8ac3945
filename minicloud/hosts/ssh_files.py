"""The controller's SSH identity and the files by which libvirt's own ssh pins a host's key like our sessions do.

Owns `<state folder>/ssh/`: `id_ed25519` (the controller's key pair), and per host `<host id>.known_hosts` and
`<host id>.sh`, the program that `qemu+ssh://` runs. Called by directory.py and, for the public key, by `host add`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

KEY_NAME = "id_ed25519"
COMMENT = "minicloud-controller"
CONNECT_SECONDS = 10
ALIVE_INTERVAL_SECONDS = 5
ALIVE_COUNT = 3

# An RSA key signs under names of its own; ssh-rsa itself means SHA-1.
_SIGNATURES = {"ssh-rsa": "rsa-sha2-512,rsa-sha2-256"}


@dataclass(frozen=True, slots=True)
class KeyPairFiles:
    """The controller's key: its private file, and its public key as authorized_keys takes it."""

    key_path: str
    public_key: str


def ensure_key_pair(state_folder: str) -> KeyPairFiles:
    """Return the controller's key pair; make it (ed25519, no passphrase, mode 0600) if there is none."""
    folder = Path(state_folder) / "ssh"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_file = folder / KEY_NAME
    if not key_file.exists():
        private = Ed25519PrivateKey.generate()
        text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        _write(key_file, text, 0o600)
    return KeyPairFiles(str(key_file), read_public_key(str(key_file)))


def read_public_key(key_path: str) -> str:
    """Return the public half of an OpenSSH private key file, and write it beside it as `.pub` for people."""
    # Derived from the private file every time: a .pub that a crash or a person left different would mislead.
    private = load_ssh_private_key(Path(key_path).read_bytes(), None)
    text = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + f" {COMMENT}"
    public_file = Path(f"{key_path}.pub")
    if not public_file.exists() or public_file.read_text() != f"{text}\n":
        _write(public_file, f"{text}\n".encode(), 0o644)
    return text


def write_ssh_program(state_folder: str, host_id: str, host_key: str, key_path: str) -> str:
    """Write the files by which libvirt reaches a host, and return the path of the program to name in the URI."""
    folder = Path(state_folder) / "ssh"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    known_hosts = folder / f"{host_id}.known_hosts"
    program = folder / f"{host_id}.sh"
    _write(known_hosts, render_known_hosts(host_id, host_key).encode(), 0o600)
    _write(program, render_ssh_program(host_id, host_key, key_path, str(known_hosts)).encode(), 0o700)
    return str(program)


def remove_ssh_program(state_folder: str, host_id: str) -> None:
    """Remove what `write_ssh_program` made; absent files are fine."""
    for suffix in (".known_hosts", ".sh"):
        (Path(state_folder) / "ssh" / f"{host_id}{suffix}").unlink(missing_ok=True)


def render_known_hosts(host_id: str, host_key: str) -> str:
    """Return the one line that pins a host's key, under the host's id so that address and port do not matter. Pure."""
    kind, blob = host_key.split()[:2]
    return f"{host_id} {kind} {blob}\n"


def render_ssh_program(host_id: str, host_key: str, key_path: str, known_hosts_path: str) -> str:
    """Return a script that runs ssh with exactly one key to offer and one host key to accept. Pure.

    A script because libvirt takes one path for the ssh program and no options of ours.
    """
    kind = host_key.split()[0]
    options = {
        "IdentityFile": key_path,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": known_hosts_path,
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": host_id,
        "HostKeyAlgorithms": _SIGNATURES.get(kind, kind),
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "BatchMode": "yes",
        "PreferredAuthentications": "publickey",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "ServerAliveInterval": str(ALIVE_INTERVAL_SECONDS),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        "TCPKeepAlive": "yes",
        "LogLevel": "ERROR",
    }
    argv = ["ssh", "-F", "/dev/null"]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    return f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n'


def render_fingerprint(host_key: str) -> str:
    """Return a key's fingerprint as ssh shows it, such as `SHA256:8w3…`, for an operator to compare. Pure."""
    digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def render_remote_uri(user: str, address: str, port: int, program: str) -> str:
    """Return libvirt's URI of a remote host whose ssh is `program`. Pure."""
    host = f"[{address}]" if ":" in address else address
    return f"qemu+ssh://{quote(user)}@{host}:{port}/system?command={quote(program, safe='')}&no_tty=1"


def _write(file: Path, data: bytes, mode: int) -> None:
    """Put `data` at `file` whole: whoever reads it, or runs it, meanwhile sees the old or the new one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    temporary.replace(file)
