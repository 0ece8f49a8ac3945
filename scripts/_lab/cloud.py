"""The cloud in a lab: minicloud's daemon in the controller's namespaces, the lab's hosts in it, the tiny image.

Uses nothing but minicloud's own command line, as a person would. Every step looks first, so that it can be run again
after a failure. Called by main.py (`up --cloud`).
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _lab import machines
from _lab import plan as plans
from _lab import state as states
from _lab.progress import Stages, count
from _lab.state import LabError, LabState

REGION = "lab-1"
PORT = 8010
CONFIG_PATH = "/etc/minicloud/minicloud.yaml"
SOCKET_PATH = "/run/minicloud/minicloud.sock"
STATE_FOLDER = "/var/lib/minicloud/controller"
IMPORT_FOLDER = "/var/lib/minicloud/import"
IMAGE_NAME = "tiny"
IMAGE_USER = "ec2-user"

MAX_ZONES = 3
DAEMON_SECONDS = 180.0
COMMAND_SECONDS = 600.0
IMAGE_SECONDS = 1200.0
POLL_SECONDS = 0.02


def choose_zone(host_number: int, host_count: int) -> str:
    """Return the zone of a host (from 0): hosts go round-robin into as many zones as there are hosts, 3 at most."""
    return f"{REGION}{'abc'[host_number % min(host_count, MAX_ZONES)]}"


def render_config(plan: plans.LabPlan) -> str:
    """Return minicloud.yaml for a lab: everything not named here is as minicloud has it by itself."""
    return f"""\
region: {REGION}
# Test guests are tiny and idle: many may share the few cores of a machine that runs tests.
vcpu_overcommit_ratio: 16
listen_address: 0.0.0.0
listen_port: {PORT}
advertise_url: http://{plan.controller.address}:{PORT}
public_address_pools: [{plan.public_pool}]
image_import_folders: [{IMPORT_FOLDER}]
"""


def render_environment(account: dict[str, str]) -> dict[str, str]:
    """Return the environment AWS clients and `minicloud` need, from what `minicloud init --json` printed."""
    return {
        "AWS_ENDPOINT_URL": account["EndpointUrl"],
        "AWS_ACCESS_KEY_ID": account["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": account["SecretAccessKey"],
        "AWS_DEFAULT_REGION": account["Region"],
        # What the SDKs for JavaScript, Go and Java read instead.
        "AWS_REGION": account["Region"],
        "MINICLOUD_CONFIG": CONFIG_PATH,
    }


def bring_up(state: LabState, stages: Stages) -> None:
    """Start the cloud of a lab that is up; LabError with what minicloud said if it cannot be."""
    program = state.plan.project / ".venv" / "bin" / "minicloud"
    if not program.exists():
        raise LabError(f"there is no {program}: run scripts/setup")
    # Built outside of the namespaces: it needs no root there, and its cache is the person's own.
    build = start_image_build(state.plan.project)
    try:
        with stages("preparing the controller"):
            prepare(state)
        with stages("starting the daemon"):
            start_daemon(state)
        with stages(f"adding {count(len(state.plan.hosts), 'host')}"):
            add_hosts(state)
        with stages("building the tiny image"):
            image = finish_image_build(build)
        with stages("registering the tiny image"):
            register_image(state, image)
    finally:
        if build.poll() is None:
            build.terminate()
            build.wait()
    state.cloud["ready"] = True
    states.save(state)


def start_image_build(project: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(project / "images" / "build"), IMAGE_NAME],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_image_build(build: subprocess.Popen[str]) -> Path:
    """Return the file the build printed last."""
    try:
        output, errors = build.communicate(timeout=IMAGE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"images/build {IMAGE_NAME} took more than {IMAGE_SECONDS:.0f} s") from error
    if build.returncode != 0:
        raise LabError(f"images/build {IMAGE_NAME} failed:\n{errors.strip()}")
    return Path(output.strip().splitlines()[-1])


def prepare(state: LabState) -> None:
    """Write the configuration, give the daemon the key the hosts know, make the account."""
    controller = state.plan.controller
    controller.private("/etc/minicloud").joinpath("minicloud.yaml").write_text(render_config(state.plan))
    folder = controller.private("/var/lib/minicloud")
    (folder / "import").mkdir(exist_ok=True)
    ssh = folder / "controller" / "ssh"
    ssh.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (ssh / "id_ed25519").exists():
        shutil.copy(controller.private("/root") / ".ssh" / "id_ed25519", ssh / "id_ed25519")
    # Known from here on: `minicloud` is told of its configuration by the environment.
    state.cloud.setdefault("environment", {"MINICLOUD_CONFIG": CONFIG_PATH})
    state.cloud["environment"] = render_environment(json.loads(minicloud(state, "init", "--json")))
    state.cloud["log"] = str(state.plan.runtime / "minicloud.log")
    states.save(state)


def start_daemon(state: LabState) -> None:
    """Start `minicloud serve` unless it listens, and wait until it does."""
    path = outer_socket_path(state)
    if is_listening(path):
        return
    log_path = Path(state.cloud["log"])
    argv = [*machines.render_entry(state, plans.CONTROLLER), "minicloud", "serve"]
    with log_path.open("ab") as log:
        daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + DAEMON_SECONDS
    while not is_listening(path):
        if daemon.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-25:])
            reason = "ended" if daemon.poll() is not None else f"does not listen after {DAEMON_SECONDS:.0f} s"
            raise LabError(f"minicloud serve {reason}:\n{tail}")
        time.sleep(POLL_SECONDS)


def outer_socket_path(state: LabState) -> str:
    """Return the daemon's socket as it is seen from outside of the controller, whose /run is its own."""
    first = state.processes[plans.CONTROLLER][1]
    return f"/proc/{first.pid if first else 0}/root{SOCKET_PATH}"


def is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def add_hosts(state: LabState) -> None:
    """Add every host of the lab that is not in the cloud yet, all at once, with its host key pinned."""
    present = {host["Name"] for host in json.loads(minicloud(state, "host", "ls", "--json"))}
    known = state.plan.controller.private("/root") / ".ssh" / "known_hosts"
    keys = {line.split()[0].split(",")[0]: " ".join(line.split()[1:3]) for line in known.read_text().splitlines()}
    adding = {}
    for number, host in enumerate(state.plan.hosts):
        if host.name not in present:
            zone = choose_zone(number, state.plan.host_count)
            arguments = ["host", "add", host.name, "--zone", zone, "--address", host.address]
            adding[host.name] = start_minicloud(state, *arguments, "--host-key", keys[host.address])
    for name, process in adding.items():
        finish_minicloud(process, f"host add {name}")


def register_image(state: LabState, image: Path) -> None:
    if any(each.get("Name") == IMAGE_NAME for each in json.loads(minicloud(state, "image", "ls", "--json"))):
        return
    # The controller may see another folder where the image lies: it gets a copy of its own.
    target = state.plan.controller.private("/var/lib/minicloud") / "import" / f"{IMAGE_NAME}.qcow2"
    shutil.copyfile(image, target)
    inside = f"{IMPORT_FOLDER}/{target.name}"
    minicloud(state, "image", "register", inside, "--name", IMAGE_NAME, "--ssh-user", IMAGE_USER)


def start_minicloud(state: LabState, *arguments: str) -> subprocess.Popen[str]:
    argv = [*machines.render_entry(state, plans.CONTROLLER), "minicloud", *arguments]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_minicloud(process: subprocess.Popen[str], what: str) -> str:
    """Return what the command printed; LabError with all it said if it failed or took too long."""
    try:
        output, errors = process.communicate(timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise LabError(f"minicloud {what} took more than {COMMAND_SECONDS:.0f} s") from error
    if process.returncode != 0:
        raise LabError(f"minicloud {what} failed:\n{(output + errors).strip()}")
    return output


def minicloud(state: LabState, *arguments: str) -> str:
    return finish_minicloud(start_minicloud(state, *arguments), " ".join(arguments))


def describe(state: LabState) -> dict[str, Any]:
    """Return what `status` tells of the cloud: plain data, empty if there is none."""
    if not state.cloud:
        return {}
    facts = {"socket": outer_socket_path(state), "region": REGION, "image": IMAGE_NAME, "user": IMAGE_USER}
    return {**state.cloud, **facts, "listening": is_listening(facts["socket"])}
