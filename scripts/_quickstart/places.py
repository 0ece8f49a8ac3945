"""Where quickstart's cloud can live: a lab of one host, or this machine. Both are made and removed here.

A place runs minicloud's command line where the daemon is, and its instances' public addresses answer from this
machine. Called by main.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Protocol

from _lab import cloud as lab_cloud
from _lab import machines, teardown
from _lab import plan as plans
from _lab import state as states
from _lab.main import ensure_lab
from _lab.progress import Stages
from _lab.state import Folders, LabError

NAME = "quickstart"
UNIT = "minicloud-quickstart.service"
ZONE = "local-1a"
DAEMON_SECONDS = 60.0
COMMAND_SECONDS = 600.0
POLL_SECONDS = 0.05

CONFIG_FOLDER = Path("/etc/minicloud")
STATE_FOLDER = Path("/var/lib/minicloud")
SOCKET = "/run/minicloud/minicloud.sock"
CONFIG = f"""\
# Made by scripts/quickstart, removed by scripts/quickstart --down.
region: local-1
socket_path: {SOCKET}
"""


class Place(Protocol):
    """`command` is the argv prefix people type to reach this cloud's `minicloud`."""

    def up(self, stages: Stages) -> None:
        """Make everything up to a daemon with one host; LabError if that fails."""
        ...

    def down(self, stages: Stages) -> None:
        """Remove everything `up` made."""
        ...

    def argv(self, *arguments: str) -> list[str]:
        """Return the command that runs minicloud."""
        ...

    @property
    def command(self) -> str: ...


class LabPlace:
    """One host out of namespaces."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def up(self, stages: Stages) -> None:
        ensure_lab(self._folders, NAME, 1, with_cloud=True, stages=stages)

    def down(self, stages: Stages) -> None:
        with stages("taking the lab down"), states.locked(self._folders):
            teardown.take_down(self._folders, NAME)

    def argv(self, *arguments: str) -> list[str]:
        state = states.load(self._folders, NAME)
        if state is None:
            raise LabError("the lab is not up")
        return [*machines.render_entry(state, plans.CONTROLLER), "minicloud", *arguments]

    @property
    def command(self) -> str:
        return f"scripts/lab exec --name {NAME} controller -- minicloud"


class MachinePlace:
    """This machine's own libvirt, minicloud as a transient systemd unit, under the paths a lasting one would have.

    Refuses a machine that has a minicloud already.
    """

    def __init__(self, project: Path, host_name: str) -> None:
        self._project = project
        self._host_name = host_name

    def up(self, stages: Stages) -> None:
        if not self._is_ours():
            for folder in (CONFIG_FOLDER, STATE_FOLDER):
                if folder.exists():
                    raise LabError(f"{folder} is there: this machine has a minicloud already (`minicloud run`)")
            CONFIG_FOLDER.mkdir()
            (CONFIG_FOLDER / "minicloud.yaml").write_text(CONFIG)
        with stages("preparing the controller"):
            self._minicloud("init")
        with stages("starting the daemon"):
            self._start_daemon()
        with stages("adding this machine as a host"):
            if not any(host["Name"] == self._host_name for host in self._listed("host")):
                self._minicloud("host", "add", self._host_name, "--zone", ZONE)
        with stages("building the tiny image"):
            image = lab_cloud.finish_image_build(lab_cloud.start_image_build(self._project))
        with stages("registering the tiny image"):
            if not any(each.get("Name") == lab_cloud.IMAGE_NAME for each in self._listed("image")):
                names = ["--name", lab_cloud.IMAGE_NAME, "--ssh-user", lab_cloud.IMAGE_USER]
                self._minicloud("image", "register", str(image), *names)

    def down(self, stages: Stages) -> None:
        if not self._is_ours():
            return
        # Guests are libvirt's, not the daemon's children: only the daemon can take them away with all they hold.
        with stages("terminating instances"):
            self._start_daemon()
            instances = [each["InstanceId"] for each in self._listed("instance")]
            if instances:
                self._minicloud("instance", "terminate", *instances)
        with stages("removing this machine as a host"):
            for host in self._listed("host"):
                self._minicloud("host", "rm", host["HostId"])
        with stages("stopping the daemon"):
            run(["systemctl", "stop", UNIT])
            # KillMode=process leaves the host side's DHCP and metadata servers: they end here, with their unit.
            run(["systemctl", "kill", "--signal=SIGKILL", UNIT], may_fail=True)
            for folder in (CONFIG_FOLDER, STATE_FOLDER, Path(SOCKET).parent):
                shutil.rmtree(folder, ignore_errors=True)

    def argv(self, *arguments: str) -> list[str]:
        return [str(self._project / ".venv" / "bin" / "minicloud"), *arguments]

    @property
    def command(self) -> str:
        return ".venv/bin/minicloud"

    def _start_daemon(self) -> None:
        if lab_cloud.is_listening(SOCKET):
            return
        options = ["--property=KillMode=process", "--property=LimitNOFILE=65536", "--collect", "--quiet"]
        run(["systemd-run", f"--unit={UNIT}", *options, *self.argv("serve")])
        deadline = time.monotonic() + DAEMON_SECONDS
        while not lab_cloud.is_listening(SOCKET):
            if time.monotonic() > deadline:
                raise LabError(f"minicloud serve does not listen; see: journalctl -u {UNIT}")
            time.sleep(POLL_SECONDS)

    def _is_ours(self) -> bool:
        config = CONFIG_FOLDER / "minicloud.yaml"
        return config.is_file() and config.read_text() == CONFIG

    def _minicloud(self, *arguments: str) -> str:
        return run(self.argv(*arguments))

    def _listed(self, noun: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._minicloud(noun, "ls", "--json"))
        return found


def run(argv: list[str], *, may_fail: bool = False, timeout_seconds: float = COMMAND_SECONDS) -> str:
    """Return what a command printed; LabError with all it said if it fails or takes too long."""
    shown = " ".join([Path(argv[0]).name, *argv[1:]])
    try:
        result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{shown}` took more than {timeout_seconds:.0f} s") from error
    if result.returncode != 0 and not may_fail:
        raise LabError(f"`{shown}` failed:\n{(result.stdout + result.stderr).strip()}")
    return result.stdout
