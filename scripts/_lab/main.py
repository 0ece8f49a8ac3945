"""The command line of scripts/lab."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from typing import Any

from _lab import cloud, machines, teardown
from _lab import plan as plans
from _lab import state as states
from _lab.progress import Stages, count
from _lab.state import Folders, LabError, LabState

DESCRIPTION = """\
Several real KVM hosts on one machine, each in namespaces of its own (network, mounts, processes, host name), with its
own libvirtd, virtlogd and sshd, joined by a bridge in the namespace of a controller. Needs root; touches nothing of
the machine but these namespaces, and `down` leaves nothing behind."""

EXAMPLES = """\
examples:
  scripts/lab up 2                              two hosts: host1 at 10.99.0.11, host2 at 10.99.0.12
  scripts/lab exec controller -- virsh -c qemu+ssh://root@10.99.0.11/system list
  scripts/lab exec host1 -- ip link
  scripts/lab up 2 --cloud                      and a cloud: scripts/lab exec controller -- minicloud run tiny
  scripts/lab down"""

DEFAULT_HOSTS = 2


def make_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="lab", help="which lab (several can be up at once); default: %(default)s")
    parser = argparse.ArgumentParser(
        prog="scripts/lab",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", parents=[common], help="make the lab; does nothing if it is up")
    up.add_argument("hosts", metavar="N", nargs="?", type=int, help=f"how many hosts (default: {DEFAULT_HOSTS})")
    up.add_argument("--cloud", action="store_true", help="and in it minicloud, its hosts and the image `tiny`")
    up.add_argument("--quiet", action="store_true", help="say only what fails")
    down = commands.add_parser("down", parents=[common], help="end the lab and remove everything of it")
    down.add_argument("--quiet", action="store_true", help="say only what fails")
    status = commands.add_parser("status", parents=[common], help="hosts, addresses, processes, domains")
    status.add_argument("--json", action="store_true", help="for programs; `enter` is an argv prefix")
    commands.add_parser("ls", parents=[common], help="names of the labs that are up")
    commands.add_parser("env", parents=[common], help="print export lines that hold inside `exec controller`")
    execute = commands.add_parser("exec", parents=[common], help="run a command inside a host or the controller")
    execute.add_argument("machine", help="host1, host2, … or controller")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD…", help="the command and its arguments")
    return parser


def main(arguments: list[str]) -> int:
    options = make_parser().parse_args(arguments)
    try:
        plans.check_name(options.name)
        if os.geteuid() != 0:
            raise LabError("the lab is made of namespaces, which only root may make: run it as root")
        # `su` without a dash leaves root without the folders ip and nsenter live in.
        os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
        return COMMANDS[options.command](Folders.default(), options)
    except (LabError, ValueError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def up(folders: Folders, options: argparse.Namespace) -> int:
    began = time.monotonic()
    state = ensure_lab(folders, options.name, options.hosts, options.cloud, Stages(options.quiet))
    if not options.quiet:
        addresses = ", ".join(f"{host.name} {host.address}" for host in state.plan.hosts)
        print(f"lab {options.name}: {addresses}, controller {state.plan.controller.address}")
        print(f"up in {time.monotonic() - began:.1f} s")
    return 0


def ensure_lab(folders: Folders, name: str, hosts: int | None, with_cloud: bool, stages: Stages) -> LabState:
    """Return a lab that is up, made if it was not; LabError if it is up with another number of hosts (None: any)."""
    host_count = DEFAULT_HOSTS if hosts is None else hosts
    if not 1 <= host_count <= plans.MAX_HOSTS:
        raise LabError(f"a lab has 1 to {plans.MAX_HOSTS} hosts")
    with states.locked(folders) as lock:
        state = states.load(folders, name)
        if state and state.is_whole():
            if hosts not in (None, state.plan.host_count):
                raise LabError(f"lab {name} is up with {count(state.plan.host_count, 'host')}; take it down first")
        else:
            with stages(f"making {count(host_count, 'host')} out of namespaces"):
                teardown.take_down(folders, name)
                try:
                    state = machines.bring_up(folders, name, host_count, lock)
                except BaseException:
                    teardown.take_down(folders, name)
                    raise
    if with_cloud:
        try:
            cloud.bring_up(state, stages)
        except LabError as error:
            raise LabError(f"{error}\nThe hosts are up: run it again to go on, or take the lab down.") from error
    return state


def down(folders: Folders, options: argparse.Namespace) -> int:
    with states.locked(folders):
        existed = teardown.take_down(folders, options.name)
    if not options.quiet:
        print(f"lab {options.name} is down" if existed else f"there is no lab {options.name}")
    return 0


def load(folders: Folders, name: str) -> LabState:
    state = states.load(folders, name)
    if state is None:
        others = ", ".join(states.list_labs(folders))
        raise LabError(f"there is no lab {name}: scripts/lab up" + (f" (up: {others})" if others else ""))
    return state


def status(folders: Folders, options: argparse.Namespace) -> int:
    state = load(folders, options.name)
    shown = describe(state)
    if options.json:
        print(json.dumps(shown, indent=1))
        return 0 if state.is_whole() else 1
    print(f"lab {options.name}: network {shown['network']}, public pool {shown['public_pool']}")
    if shown["cloud"]:
        listening = "listens" if shown["cloud"]["listening"] else "is not running"
        print(f"  minicloud {listening} at {shown['cloud']['environment'].get('AWS_ENDPOINT_URL')}")
    for machine in shown["machines"]:
        alive = f"pid {machine['pid']}" if machine["pid"] else "DEAD"
        domains = machine["domains"]
        text = "" if domains is None else count(len(domains), "domain") + (": " if domains else "") + ", ".join(domains)
        print(f"  {machine['name']:<11} {machine['address']:<14} {alive:<12} {text}".rstrip())
    return 0 if state.is_whole() else 1


def describe(state: LabState) -> dict[str, Any]:
    """Return what `status` shows: plain data."""
    asked = {}
    for machine in state.plan.hosts:
        first = state.processes.get(machine.name, (None, None))[1]
        if first and first.is_alive():
            argv = [*machines.render_entry(state, machine.name), "virsh", "-q"]
            argv += ["-c", "qemu:///system", "list", "--all", "--name"]
            asked[machine.name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
    domains: dict[str, list[str] | None] = {}
    for name, process in asked.items():
        try:
            output, _nothing = process.communicate(timeout=120)
            domains[name] = output.split() if process.returncode == 0 else None
        except subprocess.TimeoutExpired:
            process.kill()
            domains[name] = None
    shown = []
    for machine in state.plan.machines:
        first = state.processes.get(machine.name, (None, None))[1]
        alive = first is not None and first.is_alive()
        shown.append(
            {
                "name": machine.name,
                "address": machine.address,
                "namespace": machine.namespace,
                "folder": str(machine.folder),
                "log": str(machine.log),
                "pid": first.pid if first and alive else None,
                "enter": machines.render_entry(state, machine.name) if alive else None,
                "domains": domains.get(machine.name),
            }
        )
    return {
        "name": state.plan.name,
        "network": state.plan.network,
        "public_pool": state.plan.public_pool,
        "leg": state.plan.leg_address,
        "ssh_key": str(state.plan.controller.private("/root") / ".ssh" / "id_ed25519"),
        "known_hosts": str(state.plan.controller.private("/root") / ".ssh" / "known_hosts"),
        "cloud": cloud.describe(state),
        "machines": shown,
    }


def list_names(folders: Folders, options: argparse.Namespace) -> int:
    for name in states.list_labs(folders):
        print(name)
    return 0


def env(folders: Folders, options: argparse.Namespace) -> int:
    state = load(folders, options.name)
    if not state.cloud.get("ready"):
        raise LabError(f"lab {options.name} has no cloud in it: scripts/lab up --cloud")
    for name, value in state.cloud["environment"].items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def execute(folders: Folders, options: argparse.Namespace) -> int:
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        raise LabError("exec what? scripts/lab exec host1 -- ip link")
    state = load(folders, options.name)
    entry = machines.render_entry(state, options.machine)
    os.execvp(entry[0], [*entry, *argv])


COMMANDS = {"up": up, "down": down, "status": status, "ls": list_names, "env": env, "exec": execute}
