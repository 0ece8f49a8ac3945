"""What a lab consists of: names, addresses, folders, and what each machine's first process is told to do. Pure.

Owns every name the lab gives to anything, so that `down` can find it all again from the lab's name alone.
Refuses names that would not fit an interface or a namespace. Called by all other modules of the lab.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NETWORK_INDEXES = range(99, 63, -1)
"""Second octets the labs of one machine may take: 10.99.0.0/16 first, then 10.98.0.0/16 and so on."""

MAX_HOSTS = 16
CONTROLLER = "controller"
BRIDGE = "lab0"
LEG = "leg"

# sshd and libvirtd close every possible descriptor when they fork; a limit of a million costs them seconds.
OPEN_FILES = 4096

HOST_FOLDERS = (
    "/root",
    "/etc/libvirt",
    "/etc/minicloud",
    "/var/lib/libvirt",
    "/var/lib/minicloud",
    "/var/log/libvirt",
    "/var/cache/libvirt",
)
CONTROLLER_FOLDERS = ("/root", "/etc/minicloud", "/var/lib/minicloud")
HOST_FILES = ("/etc/hosts", "/etc/hostname", "/etc/machine-id", "/etc/shadow")
CONTROLLER_FILES = ("/etc/hosts", "/etc/hostname", "/etc/machine-id")


@dataclass(frozen=True)
class Machine:
    """One host, or the controller. `folder` holds its private files on disk, `log` what its daemons print."""

    name: str
    namespace: str
    address: str
    folder: Path
    log: Path

    @property
    def is_controller(self) -> bool:
        return self.name == CONTROLLER

    def private(self, path: str) -> Path:
        """Return where a private file or folder of the machine lives outside of it: `/etc/libvirt` at `etc-libvirt`."""
        return self.folder / path.strip("/").replace("/", "-")


@dataclass(frozen=True)
class LabPlan:
    """A lab: `index` is the second octet of its /16, `runtime` and `data` its folders, `project` the checkout."""

    name: str
    index: int
    host_count: int
    runtime: Path
    data: Path
    project: Path

    @property
    def controller(self) -> Machine:
        return self._machine(CONTROLLER, self.address(1))

    @property
    def hosts(self) -> list[Machine]:
        return [self._machine(f"host{n}", self.address(10 + n)) for n in range(1, self.host_count + 1)]

    @property
    def machines(self) -> list[Machine]:
        return [self.controller, *self.hosts]

    @property
    def network(self) -> str:
        return f"10.{self.index}.0.0/16"

    @property
    def public_pool(self) -> str:
        """Return the part of the lab's network that is left to public addresses: on-link for every machine."""
        return f"10.{self.index}.1.0/24"

    @property
    def leg_address(self) -> str:
        """Return the address of the lab's leg in the machine's own namespace: how tests reach the lab directly."""
        return self.address(254)

    @property
    def leg(self) -> str:
        return f"mclab{self.index}"

    def address(self, last_octet: int) -> str:
        return f"10.{self.index}.0.{last_octet}"

    def _machine(self, name: str, address: str) -> Machine:
        return Machine(name, namespace(self.name, name), address, self.data / name, self.runtime / f"{name}.log")


def namespace(lab_name: str, machine_name: str) -> str:
    """Return the network namespace of a machine. Everything called so belongs to the lab and goes with it."""
    return f"mclab-{lab_name}-{machine_name}"


def check_name(name: str) -> str:
    """Return `name` if a lab may be called so; raise ValueError otherwise."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name):
        raise ValueError(f"{name!r} cannot name a lab: small letters, digits and dashes, 32 at most")
    return name


def render_network(plan: LabPlan) -> list[tuple[str | None, list[str]]]:
    """Return `ip -batch` scripts as (namespace or None for the machine's own, lines), in order."""
    controller = plan.controller
    own = [f"netns add {machine.namespace}" for machine in plan.machines]
    own += [
        f"link add {plan.leg} type veth peer name {LEG} netns {controller.namespace}",
        f"address add {plan.leg_address}/16 dev {plan.leg}",
    ]
    middle = [
        "link set lo up",
        f"link add {BRIDGE} type bridge forward_delay 0",
        f"address add {controller.address}/16 dev {BRIDGE}",
        f"link set {LEG} master {BRIDGE} up",
    ]
    for host in plan.hosts:
        middle += [
            f"link add {host.name} type veth peer name eth0 netns {host.namespace}",
            f"link set {host.name} master {BRIDGE} up",
        ]
    middle.append(f"link set {BRIDGE} up")
    scripts: list[tuple[str | None, list[str]]] = [(None, own), (controller.namespace, middle)]
    for host in plan.hosts:
        lines = [
            "link set lo up",
            f"address add {host.address}/16 dev eth0",
            "link set eth0 up",
            f"route add default via {controller.address}",
        ]
        scripts.append((host.namespace, lines))
    scripts.append((None, [f"link set {plan.leg} up"]))
    return scripts


def render_sshd_config(host: Machine) -> str:
    """Return the configuration of a host's sshd: keys only, on its own address only, its own host key."""
    return f"""\
ListenAddress {host.address}
HostKey {host.folder}/ssh_host_ed25519_key
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""


def render_libvirtd_settings(host_uuid: str) -> str:
    """Return what is appended to the packaged libvirtd.conf: only root of this host may come in.

    `host_uuid` because all hosts of a lab would otherwise report the machine's own.
    """
    return f"""
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
"""


QEMU_SETTINGS = """
security_driver = "none"
cgroup_controllers = []
"""
"""Appended to the packaged qemu.conf. The user QEMU runs as, ownership and mount namespaces stay as packaged."""

VIRTLOGD_SETTINGS = """
max_size = 262144
max_backups = 3
"""
"""Appended to the packaged virtlogd.conf: consoles rotate early enough for a test to see it."""


def render_hosts_file(plan: LabPlan, machine: Machine) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{each.address} {each.name}" for each in plan.machines]
    if machine not in plan.machines:
        raise ValueError(f"{machine.name} is not of this lab")
    return "\n".join(lines) + "\n"


def render_init_spec(plan: LabPlan, machine: Machine) -> dict[str, Any]:
    """Return what _lab/init.py, process 1 of the machine, is to do; JSON."""
    folders = CONTROLLER_FOLDERS if machine.is_controller else HOST_FOLDERS
    files = CONTROLLER_FILES if machine.is_controller else HOST_FILES
    spec: dict[str, Any] = {
        "hostname": machine.name,
        "folders": [[str(machine.private(path)), path] for path in folders],
        "files": [[str(machine.private(path)), path] for path in files],
        "resolvers": f"nameserver {plan.controller.address}\n",
        # The checkout stays visible even where it lies below a folder that is now private, such as /root.
        "keep": [str(plan.project), str(plan.data)],
        "run_folders": ["/run/lock", "/run/sshd", "/run/dbus"],
        "sysctl": {"net/ipv4/ip_forward": "1" if machine.is_controller else "0"},
        "open_files": OPEN_FILES,
        "daemons": [],
        "then": [],
    }
    if not machine.is_controller:
        spec["daemons"] = [
            ["/usr/sbin/sshd", "-f", str(machine.folder / "sshd_config"), "-E", str(machine.folder / "sshd.log")],
            ["/usr/sbin/virtlogd", "-d"],
            ["/usr/sbin/libvirtd", "-d"],
        ]
        # libvirt learns what QEMU can do when first asked; asked now, no test and no launch pays for it.
        spec["then"] = [["/usr/bin/virsh", "-q", "-c", "qemu:///system", "domcapabilities", "--virttype", "qemu"]]
    return spec
