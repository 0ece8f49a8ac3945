"""What the end-to-end tests share: waiting by events, looking into guests and into hosts, debris of real hosts.

Works on the `cloud` fixture of tests/conftest.py. Nothing here knows how minicloud does anything but the names it gives
to what it leaves on a host, which is what debris is searched by.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from minicloud.cli.client import DaemonUnreachableError, Door
from minicloud.controller.events import SURVEY_SECONDS

T = TypeVar("T")

SOCKET_PATH = "/run/minicloud/minicloud.sock"
STATE_FOLDER = "/var/lib/minicloud"
DATABASE = f"{STATE_FOLDER}/controller/minicloud.db"
# Safety nets, all of them: an emulated guest on a busy machine takes its time; a broken one never comes.
LOOK_SECONDS = 180.0
GUEST_SECONDS = 300.0
STATE_SECONDS = 300.0
DAEMON_SECONDS = 180.0
# A guest that has answered once answers again, however busy the machine is just now.
CONNECT_SECONDS = 60
COMMAND_SECONDS = 180.0
GLANCE_SECONDS = 0.02
SURVEY_WORDS = "not as their rows say"
# Of one daemon with one host: events, and a few for calls.
MAX_LIBVIRT_CONNECTIONS = 8


def until(
    what: str, look: Callable[[], T | None], timeout_seconds: float = LOOK_SECONDS, every: float = GLANCE_SECONDS
) -> T:
    """Return the first true answer of `look`: for what announces itself by no event. AssertionError in the end."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_seconds:.0f} s; at last {found!r}")
        time.sleep(every)


@contextlib.contextmanager
def watched_process(pid: int) -> Iterator[Callable[[float], float]]:
    """Give a function that waits for the end of a process and returns when (time.monotonic) that was seen."""
    descriptor = os.pidfd_open(pid)

    def wait_end(timeout_seconds: float) -> float:
        if not select.select([descriptor], [], [], timeout_seconds)[0]:
            raise AssertionError(f"process {pid} still lives after {timeout_seconds:.0f} s")
        return time.monotonic()

    try:
        yield wait_end
    finally:
        os.close(descriptor)


# --- the daemon ---------------------------------------------------------------------------------------------------


def door(cloud: Any, timeout_seconds: float = 60.0) -> Door:
    """Return the daemon's own door, which can tell of changes as they happen."""
    return Door(f"/proc/{cloud.pid('controller')}/root{SOCKET_PATH}", timeout_seconds)


def wait_for(
    cloud: Any, ids: list[str], is_done: Callable[[dict[str, Any]], bool], timeout_seconds: float = STATE_SECONDS
) -> dict[str, dict[str, Any]]:
    """Wait, by the daemon's own events, until `is_done` of every instance; return what was told of each at last."""
    deadline = time.monotonic() + timeout_seconds
    token = None
    seen: dict[str, dict[str, Any]] = {}
    while (left := deadline - time.monotonic()) > 0:
        patience = min(10.0, left)
        answer = door(cloud, patience + 30).minicloud("WaitForChange", Ids=ids, Since=token, TimeoutSeconds=patience)
        token = answer["Token"]
        seen = {one["Id"]: one for one in answer["Resources"]}
        if set(seen) == set(ids) and all(map(is_done, seen.values())):
            return seen
    raise AssertionError(f"not in the end after {timeout_seconds:.0f} s: {seen}")


def wait_state(cloud: Any, ids: list[str], state: str, timeout_seconds: float = STATE_SECONDS) -> float:
    """Wait until every instance is in a state; return when (time.monotonic) that was told."""
    wait_for(cloud, ids, lambda one: one["State"] == state, timeout_seconds)
    return time.monotonic()


@contextlib.contextmanager
def told_by_event(cloud: Any, instance_id: str, state: str) -> Iterator[None]:
    """Wait after the block until an instance is in a state, which an event of its host leads to; fail if a survey, the
    safety net for lost events, had to find out.

    The survey names in the daemon's log what it finds. It may also find it first just while the event is on its way:
    what was told as soon as a survey hardly ever comes is taken to be the event's.
    """
    offset = cloud.log.stat().st_size
    yield
    began = time.monotonic()
    took = wait_state(cloud, [instance_id], state) - began
    print(f"{instance_id}: {state} {took:.2f} s later")
    with cloud.log.open("rb") as log:
        log.seek(offset)
        found = [
            line
            for line in log.read().decode(errors="replace").splitlines()
            if SURVEY_WORDS in line and instance_id in line
        ]
    assert not found or took < SURVEY_SECONDS / 8, f"no event in {took:.0f} s: {found}"


def start_daemon_at_once(cloud: Any) -> None:
    """Start the daemon as the lab does, without the lab's looks at everything else; return when it answers.

    The process is the lab's: it lies in the controller's namespaces and ends with them.
    """
    with cloud.log.open("ab") as log:
        process = cloud.popen("controller", ["minicloud", "serve"], stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"minicloud serve ended with {process.returncode}; see {cloud.log}")
        try:
            door(cloud, 10).minicloud("DescribeHosts")
        except DaemonUnreachableError:
            return False
        return True

    until("the daemon answers", answers, DAEMON_SECONDS)
    # Its end is not ours to wait for; without this, Popen warns of a process that still runs.
    process.returncode = 0


def host_names(cloud: Any) -> dict[str, str]:
    """Return the lab's machine of every zone of a two-host lab."""
    return {one["Zone"]: one["Name"] for one in door(cloud).minicloud("DescribeHosts")["Hosts"]}


def wait_hosts_up(cloud: Any, timeout_seconds: float = LOOK_SECONDS) -> None:
    def up() -> bool:
        return all(one["State"] == "up" for one in door(cloud).minicloud("DescribeHosts")["Hosts"])

    until("every host is up", up, timeout_seconds)


def image_id(cloud: Any, name: str = "tiny") -> str:
    images = door(cloud).ec2("DescribeImages")["Images"]
    return str(next(one["ImageId"] for one in images if one["Name"] == name))


# --- instances and guests -----------------------------------------------------------------------------------------


def describe(client: Any, instance_id: str) -> dict[str, Any]:
    """Return what DescribeInstances says of one instance."""
    (reservation,) = client.describe_instances(InstanceIds=[instance_id])["Reservations"]
    return dict(reservation["Instances"][0])


def live_instances(cloud: Any) -> list[dict[str, Any]]:
    """Return every instance that is not terminated, from the daemon's door."""
    found = [one for each in door(cloud).ec2("DescribeInstances")["Reservations"] for one in each["Instances"]]
    return [one for one in found if one["State"]["Name"] != "terminated"]


def terminate(cloud: Any, ids: list[str], timeout_seconds: float = STATE_SECONDS) -> None:
    """Terminate instances and wait until they are."""
    if ids:
        door(cloud).ec2("TerminateInstances", InstanceIds=ids)
        wait_state(cloud, ids, "terminated", timeout_seconds)


@dataclass
class Guest:
    """An instance of the image `tiny` that one logs in to."""

    cloud: Any
    instance_id: str
    address: str
    key_file: Path
    user: str = "root"

    def run(self, command: str, check: bool = True, timeout: float = COMMAND_SECONDS) -> str:
        """Run a shell command in the guest; AssertionError with all of it if it fails and `check`."""
        result = self.attempt(command, timeout)
        if check and result.returncode != 0:
            raise AssertionError(
                f"{self.instance_id}: {command!r} ended with {result.returncode}\n{result.stdout}\n{result.stderr}"
            )
        return result.stdout

    def attempt(
        self, command: str, timeout: float = COMMAND_SECONDS, connect_seconds: int = CONNECT_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever becomes of it. 255 is ssh's own: the guest does not answer."""
        options = ["-F", "none", "-i", str(self.key_file), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        options += ["-o", f"ConnectTimeout={connect_seconds}", "-o", "UserKnownHostsFile=/dev/null"]
        options += ["-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]
        # A guest whose power went may not say good-bye.
        options += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=8"]
        return subprocess.run(
            ["ssh", *options, f"{self.user}@{self.address}", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def wait(self, command: str = "true", timeout_seconds: float = GUEST_SECONDS) -> str:
        """Wait until ssh answers and the command succeeds; return its output."""
        last: list[object] = []

        def answer() -> subprocess.CompletedProcess[str] | None:
            # Short at first, for nobody may be there yet; longer with every try, for it may only be slow.
            patience = min(CONNECT_SECONDS, 3 + len(last))
            try:
                result = self.attempt(command, connect_seconds=patience)
            except subprocess.TimeoutExpired as error:
                last.append(error)
                return None
            last.append(result)
            return result if result.returncode == 0 else None

        try:
            return until(f"ssh to {self.address}", answer, timeout_seconds, every=0.2).stdout
        except AssertionError as error:
            console = console_text(self.cloud, self.instance_id)
            raise AssertionError(f"{error}\n{last[-1:]}\nconsole of {self.instance_id}:\n{console[-4000:]}") from None


def guest(cloud: Any, instance_id: str, key_file: Path, user: str = "root") -> Guest:
    """Return the guest of an instance that has its public address now."""
    (found,) = [one for one in live_instances(cloud) if one["InstanceId"] == instance_id]
    return Guest(cloud, instance_id, found["PublicIpAddress"], key_file, user)


def console_text(cloud: Any, instance_id: str) -> str:
    import base64

    output = door(cloud).ec2("GetConsoleOutput", InstanceId=instance_id, Latest=True).get("Output") or ""
    return base64.b64decode(output).decode("utf-8", "replace")


# --- hosts ----------------------------------------------------------------------------------------------------------


def processes(cloud: Any, machine: str) -> dict[int, list[str]]:
    """Return the arguments of every process of a machine of the lab, by its number out here."""
    listed = subprocess.run(
        ["ip", "netns", "pids", cloud.namespace(machine)], check=True, capture_output=True, text=True
    )
    # Servers in a router's namespace are not in the host's: they are found as children of its process 1.
    pids = set(map(int, listed.stdout.split())) | _below(cloud.pid(machine))
    found = {}
    for pid in pids:
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argv != [""]:
            found[pid] = argv[:-1]
    return found


def _below(first: int) -> set[int]:
    """Return a process and everything that descends from it: in a PID namespace, all of it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, waiting = set(), [first]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found


def qemus(cloud: Any) -> list[tuple[str, str, int]]:
    """Return (host, instance id, process) of every QEMU of an instance in the lab."""
    found = []
    for host in cloud.hosts:
        for pid, argv in processes(cloud, host).items():
            if "qemu-system" in argv[0] and "-name" in argv:
                name = argv[argv.index("-name") + 1].split(",")[0].removeprefix("guest=")
                if name.startswith("i-"):
                    found.append((host, name, pid))
    return found


def qemu_of(cloud: Any, instance_id: str) -> tuple[str, int]:
    """Return the host and process of an instance's only QEMU."""
    (found,) = [(host, pid) for host, name, pid in qemus(cloud) if name == instance_id]
    return found


def assert_single(cloud: Any) -> None:
    """Fail if a machine lives twice, on one host or on two."""
    names = [name for _, name, _ in qemus(cloud)]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice, f"live more than once: {[one for one in qemus(cloud) if one[1] in twice]}"


def task_rows(cloud: Any) -> dict[str, dict[str, Any]]:
    """Return every durable task by id, from the database itself: the daemon may be dead."""
    return {row["id"]: row for row in _rows(cloud, "tasks")}


def _rows(cloud: Any, table: str) -> list[dict[str, Any]]:
    path = cloud.private("controller", DATABASE)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(f"SELECT * FROM {table}")]


# --- debris ---------------------------------------------------------------------------------------------------------


def assert_no_debris(cloud: Any, timeout_seconds: float = LOOK_SECONDS) -> None:
    """Fail unless every host is as bare as before its first instance, but for bases of images and ended fences.

    No instance may live. What ends by itself once its cause has gone, such as a killed daemon's ssh connections, is
    given a moment.
    """
    living = [f"{one['InstanceId']} is {one['State']['Name']}" for one in live_instances(cloud)]
    assert not living, living
    deadline = time.monotonic() + timeout_seconds
    while found := _debris(cloud):
        if time.monotonic() > deadline:
            raise AssertionError("debris:\n" + "\n".join(found))
        time.sleep(0.1)


def _debris(cloud: Any) -> list[str]:
    try:
        return [*(each for host in cloud.hosts for each in _host_debris(cloud, host)), *_controller_debris(cloud)]
    except FileNotFoundError as error:
        return [f"{error.filename} went while it was looked at"]


def _host_debris(cloud: Any, host: str) -> list[str]:
    found: list[str] = []

    def note(what: str, things: Any) -> None:
        found.extend(f"{host}: {what}: {one}" for one in things)

    note("domain", cloud.exec(host, ["virsh", "list", "--all", "--name"]).stdout.split())
    links = json.loads(cloud.exec(host, ["ip", "-json", "link"]).stdout)
    note("link", [one["ifname"] for one in links if one["ifname"] not in ("lo", "eth0")])
    note("namespace", cloud.exec(host, ["ip", "netns", "list"]).stdout.splitlines())
    note("rules", cloud.exec(host, ["nft", "list", "tables"]).stdout.splitlines())
    routes = json.loads(cloud.exec(host, ["ip", "-json", "route", "show", "table", "all"]).stdout)
    pool = cloud.public_pool.rsplit(".", 1)[0] + "."
    note("route", [one["dst"] for one in routes if str(one["dst"]).startswith(pool)])
    neighbours = cloud.exec(host, ["ip", "neigh", "show", "proxy"]).stdout
    note("proxied address", [line for line in neighbours.splitlines() if pool in line])
    rules = cloud.exec(host, ["ip", "rule"]).stdout.splitlines()
    note("routing rule", [line for line in rules if line.split()[-1] not in ("local", "main", "default")])
    note("qemu", [name for where, name, _ in qemus(cloud) if where == host])
    servers = [" ".join(argv)[:200] for argv in processes(cloud, host).values() if _is_server(argv)]
    note("process", servers)
    state = cloud.private(host, STATE_FOLDER)
    bases = {row["id"] for row in _rows(cloud, "snapshots")}
    for path in sorted(state.rglob("*")):
        inside = path.relative_to(state).parts
        if path.is_dir() or inside[0] in ("hostside", "pools.json") or inside[0].startswith("supervisor"):
            continue
        if inside[0] == "kvm-probe.json" or inside[-1] == ".minicloud-pool":
            continue
        if inside[:2] == ("pool", "bases") and path.suffix == ".raw" and path.stem in bases:
            continue
        if inside[0] == "fences" and path.read_text().split()[1:] == ["ended"]:
            continue
        note("file", [path.relative_to(state)])
    for folder in ("jobs", "ports", "routers", "console"):
        note(folder, sorted((state / folder).iterdir()) if (state / folder).exists() else [])
    for folder in ("/var/lib/libvirt/qemu", "/etc/libvirt/qemu"):
        kept = cloud.private(host, folder)
        note("libvirt's", [path for path in kept.rglob("*") if "i-" in path.name])
    note("libvirt's", [line for line in cloud.exec(host, ["ls", "/run/libvirt/qemu"]).stdout.split() if "i-" in line])
    return found


def is_session(argv: list[str]) -> bool:
    """Say whether a process is the controller's session on a host, rather than the shell that started it."""
    return Path(argv[0]).name.startswith("python") and "session" in argv and "--state-folder" in argv


def _is_server(argv: list[str]) -> bool:
    """Say whether a process serves instances (dnsmasq, metadata, a job) rather than the host."""
    return Path(argv[0]).name == "dnsmasq" or any(word in argv for word in ("metadata", "job"))


def _controller_debris(cloud: Any) -> list[str]:
    found = [f"task {row['id']} is in step {row['step']}" for row in _rows(cloud, "tasks") if row["step"] != "forget"]
    found += [f"task {row['id']} is leased" for row in _rows(cloud, "tasks") if row["lease_holder"] is not None]
    for table in ("network_interfaces", "volumes", "attachments"):
        found += [f"{table}: {row['id']}" for row in _rows(cloud, table)]
    gone = ("vol-", "eni-")
    found += [f"tag of {row['resource_id']}" for row in _rows(cloud, "tags") if row["resource_id"].startswith(gone)]
    state = cloud.private("controller", STATE_FOLDER)
    for folder in ("jobs", "controller/spool", "controller/objects/incoming", "controller/objects/tmp"):
        found += [str(path) for path in (state / folder).rglob("*")]
    return found


def assert_one_session_each(cloud: Any, timeout_seconds: float = LOOK_SECONDS) -> None:
    """Fail unless every host is left with the sessions and connections of one daemon, however many died before."""

    def extra() -> list[str]:
        found = []
        for host in cloud.hosts:
            argvs = list(processes(cloud, host).values())
            sessions = [argv for argv in argvs if is_session(argv)]
            helpers = [argv for argv in argvs if Path(argv[0]).name == "virt-ssh-helper"]
            if len(sessions) != 1 or len(helpers) > MAX_LIBVIRT_CONNECTIONS:
                found.append(f"{host}: {len(sessions)} sessions, {len(helpers)} connections to libvirt")
        return found

    until("every host has one session", lambda: not extra() or None, timeout_seconds, every=0.2)
