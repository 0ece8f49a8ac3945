"""Makes the machines of a lab: their private files, their namespaces, their first processes.

Owns the order in which a lab comes up: state is written before anything is made, so that `down` finds whatever
a killed `up` left. Called by main.py.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

from _lab import plan as plans
from _lab import state as states
from _lab.state import LabError, LabState, Process

READY_SECONDS = 180.0

CLEAN_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def choose_index(taken: set[int], routed: set[int]) -> int:
    """Return the first free network index; `routed` are those this machine has its own routes for."""
    for index in plans.NETWORK_INDEXES:
        if index not in taken and index not in routed:
            return index
    raise LabError("no free network is left for another lab: scripts/lab ls shows those that are up")


def read_routed_indexes() -> set[int]:
    """Return N of every 10.N.… that the machine's own routes name."""
    routes = subprocess.run(
        ["ip", "-json", "route", "show", "table", "all"], check=True, capture_output=True, text=True
    )
    found = set()
    for route in json.loads(routes.stdout or "[]"):
        octets = str(route.get("dst", "")).partition("/")[0].split(".")
        if len(octets) >= 2 and octets[0] == "10" and octets[1].isdigit():
            found.add(int(octets[1]))
    return found


def bring_up(folders: states.Folders, name: str, host_count: int, lock: int) -> LabState:
    """Make a lab and return it when every sshd and libvirtd listens. The caller holds `lock` and cleans up.

    The programs that make files and networks hold the lock, too: should `up` be killed, `down` waits for their end.
    """
    taken = {lab.plan.index for each in states.list_labs(folders) if (lab := states.load(folders, each))}
    index = choose_index(taken, read_routed_indexes())
    state = LabState(states.make_plan(folders, name, index, host_count))
    states.save(state)
    plan = state.plan
    make_mount_points(folders, plan)
    make_keys(plan, lock)
    for machine in plan.machines:
        make_private_files(plan, machine)
    make_network(folders, plan, lock)
    start(state)
    state.ready = True
    states.save(state)
    return state


def make_mount_points(folders: states.Folders, plan: plans.LabPlan) -> None:
    """Make the folders that machines will cover with private ones where this machine has none of that name."""
    known = set(states.read_shared(folders))
    for path in {*plans.HOST_FOLDERS, *plans.CONTROLLER_FOLDERS}:
        missing = [each for each in [Path(path), *Path(path).parents] if not each.exists()]
        for each in reversed(missing):
            if str(each) not in known:
                states.add_shared(folders, str(each))
            each.mkdir(mode=0o755, exist_ok=True)


def make_keys(plan: plans.LabPlan, lock: int) -> None:
    """Make the controller's SSH key and every host's host key; authorize the one, pin the others."""
    plan.data.mkdir(parents=True, exist_ok=True)
    plan.data.parent.chmod(0o711)
    targets = {}
    for machine in plan.machines:
        home = machine.private("/root")
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        (home / ".ssh").chmod(0o700)
        key = home / ".ssh" / "id_ed25519" if machine.is_controller else machine.folder / "ssh_host_ed25519_key"
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{plan.name}-{machine.name}", "-f", str(key)]
        targets[machine.name] = (key, subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=[lock]))
    for key, process in targets.values():
        if process.wait() != 0:
            raise LabError(f"ssh-keygen could not make {key}")
    public = Path(f"{targets[plans.CONTROLLER][0]}.pub").read_text()
    known = []
    for host in plan.hosts:
        (host.private("/root") / ".ssh" / "authorized_keys").write_text(public)
        kind, key_text = Path(f"{targets[host.name][0]}.pub").read_text().split()[:2]
        known.append(f"{host.address},{host.name} {kind} {key_text}\n")
    (plan.controller.private("/root") / ".ssh" / "known_hosts").write_text("".join(known))


def make_private_files(plan: plans.LabPlan, machine: plans.Machine) -> None:
    """Fill a machine's folder on disk with what it will see in place of this machine's own files."""
    machine_id = uuid.uuid4()
    for path in plans.CONTROLLER_FOLDERS if machine.is_controller else plans.HOST_FOLDERS:
        machine.private(path).mkdir(parents=True, exist_ok=True)
    machine.private("/etc/hosts").write_text(plans.render_hosts_file(plan, machine))
    machine.private("/etc/hostname").write_text(f"{machine.name}\n")
    machine.private("/etc/machine-id").write_text(f"{machine_id.hex}\n")
    if machine.is_controller:
        return
    shadow = machine.private("/etc/shadow")
    shadow.touch(mode=0o600)
    shadow.write_text(unlock_root(Path("/etc/shadow").read_text()))
    (machine.folder / "sshd_config").write_text(plans.render_sshd_config(machine))
    seed_libvirt(machine.private("/etc/libvirt"), str(machine_id))


def unlock_root(shadow: str) -> str:
    """Return /etc/shadow with root's password unusable but not locked: a locked account may not even use its keys."""
    lines = shadow.splitlines(keepends=True)
    return "".join(
        ":".join(["root", "*", *line.split(":")[2:]]) if line.startswith("root:") else line for line in lines
    )


def seed_libvirt(folder: Path, host_uuid: str) -> None:
    """Copy the packaged configuration of libvirt with the lab's settings after it.

    Not copied: qemu/, storage/ and secrets/, where the domains and networks of this machine are defined.
    """
    packaged = Path("/etc/libvirt")
    if not (packaged / "qemu.conf").is_file():
        raise LabError("libvirt is not installed here: run scripts/setup")
    for source in packaged.glob("*.conf"):
        shutil.copyfile(source, folder / source.name)
    added = {
        "libvirtd.conf": plans.render_libvirtd_settings(host_uuid),
        "qemu.conf": plans.QEMU_SETTINGS,
        "virtlogd.conf": plans.VIRTLOGD_SETTINGS,
    }
    for name, text in added.items():
        with (folder / name).open("a") as file:
            file.write(text)


def make_network(folders: states.Folders, plan: plans.LabPlan, lock: int) -> None:
    """Make the namespaces, the bridge in the controller's and the cables between them."""
    if not is_mount_point("/run/netns"):
        # The first `ip netns add` of a machine mounts /run/netns over itself; the last `down` undoes that.
        states.add_shared(folders, "/run/netns")
    for namespace, lines in plans.render_network(plan):
        inside = [] if namespace is None else ["-netns", namespace]
        result = subprocess.run(
            ["ip", *inside, "-batch", "-"],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            pass_fds=[lock],
        )
        if result.returncode != 0:
            raise LabError(f"ip failed in {namespace or 'the main namespace'}: {result.stderr.strip()}")


def is_mount_point(path: str) -> bool:
    """Say whether something is mounted at `path`, including a bind of the folder over itself."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return any(line.split()[4] == path for line in lines)


def start(state: LabState) -> None:
    """Start every machine at once; return when all said they are ready."""
    selector = selectors.DefaultSelector()
    script = str(Path(__file__).with_name("init.py"))
    for machine in state.plan.machines:
        reader, writer = os.pipe()
        spec = machine.folder / "init.json"
        spec.write_text(json.dumps(plans.render_init_spec(state.plan, machine), indent=1))
        argv = ["ip", "netns", "exec", machine.namespace]
        argv += ["unshare", "-m", "-p", "-u", "--fork", "--kill-child", "--mount-proc"]
        argv += [sys.executable, "-I", script, str(spec), str(writer)]
        with machine.log.open("ab") as log:
            process = subprocess.Popen(
                argv,
                env=CLEAN_ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
                start_new_session=True,
            )
        os.close(writer)
        state.processes[machine.name] = (Process.of(process.pid), None)
        states.save(state)
        selector.register(reader, selectors.EVENT_READ, machine)
    deadline = time.monotonic() + READY_SECONDS
    while selector.get_map():
        ready = selector.select(deadline - time.monotonic())
        if not ready:
            waiting = [key.data.name for key in selector.get_map().values()]
            raise LabError(f"not ready after {READY_SECONDS:.0f} s: {', '.join(waiting)}")
        for key, _events in ready:
            line = os.read(key.fd, 4096).decode(errors="replace").strip()
            selector.unregister(key.fd)
            os.close(key.fd)
            if line != "ready":
                log_tail = "\n".join(key.data.log.read_text(errors="replace").splitlines()[-15:])
                raise LabError(f"{key.data.name} did not come up: {line or 'it died'}\n{log_tail}")
            outer = state.processes[key.data.name][0]
            state.processes[key.data.name] = (outer, Process.of(find_child(outer.pid)))
            states.save(state)


def find_child(parent: int) -> int:
    """Return the only child of `parent`. LabError if it has none."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == parent:
                return int(entry.name)
    raise LabError(f"process {parent} has no child")


def render_entry(state: LabState, machine_name: str) -> list[str]:
    """Return the argv prefix that runs a command inside a machine.

    Its environment is a clean one in a host, as ssh would give it; in the controller it is the caller's, with
    minicloud's own commands in the PATH and the cloud's environment if there is one.
    """
    first = state.process_one(machine_name)
    entry = ["nsenter", "--target", str(first.pid), "--mount", "--uts", "--net", "--pid", "--"]
    path = CLEAN_ENVIRONMENT["PATH"]
    if machine_name != plans.CONTROLLER:
        kept = [f"{name}={os.environ[name]}" for name in ("TERM",) if name in os.environ]
        limits = ["prlimit", f"--nofile={plans.OPEN_FILES}:{plans.OPEN_FILES}"]
        return [*entry, *limits, "env", "-i", f"PATH={path}", "HOME=/root", "LANG=C.UTF-8", *kept]
    entry.append("env")
    # The caller's folder exists there too, unless it is one of those the controller has its own of.
    here = str(Path.cwd())
    if here == str(state.plan.project) or here.startswith(f"{state.plan.project}/"):
        entry.append(f"--chdir={here}")
    entry += [f"PATH={state.plan.project}/.venv/bin:{path}", "HOME=/root"]
    return entry + [f"{name}={value}" for name, value in state.cloud.get("environment", {}).items()]
