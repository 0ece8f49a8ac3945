"""scripts/quickstart after setup: one cloud, one image, one instance, and an ssh line that works.

Called by scripts/quickstart as `python -m _quickstart.main --up|--down SETUP_MICROSECONDS`. Keeps the instance's key in
.lab/quickstart of the checkout. Every step looks first, so that running it again goes on where it failed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from _lab.cloud import IMAGE_NAME, IMAGE_USER
from _lab.progress import Stages
from _lab.state import Folders, LabError

from _quickstart import decide
from _quickstart.places import LabPlace, MachinePlace, Place, run

INSTANCE = "quickstart"
KEY = "quickstart"
SSH_SECONDS = 300.0
SSH_POLL_SECONDS = 0.25
PROBE_SECONDS = 60.0
NEXT_STEP = "Run it again to go on from here, or scripts/quickstart --down to remove all it made."
CONSOLE_LINES = 12


def main(arguments: list[str]) -> int:
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    folders = Folders.default()
    places: dict[str, Place] = {
        "lab": LabPlace(folders),
        "machine": MachinePlace(folders.project, socket.gethostname().partition(".")[0]),
    }
    keep = folders.project / ".lab" / "quickstart"
    stages = Stages()
    try:
        if arguments[0] == "--down":
            take_down(places, keep, stages)
        else:
            stages.times.append(("installing what is missing (scripts/setup)", int(arguments[1]) / 1e6))
            bring_up(places, keep, stages)
    except LabError as error:
        print(f"quickstart: {error}\n{NEXT_STEP}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"quickstart: interrupted\n{NEXT_STEP}", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        print(f"quickstart: this is a bug\n{NEXT_STEP}", file=sys.stderr)
        return 1
    return 0


def take_down(places: dict[str, Place], keep: Path, stages: Stages) -> None:
    # Either may be there: what runs here may have changed since.
    for place in places.values():
        place.down(stages)
    shutil.rmtree(keep, ignore_errors=True)
    if keep.parent.is_dir() and not any(keep.parent.iterdir()):
        keep.parent.rmdir()
    print("everything quickstart made is gone")


def bring_up(places: dict[str, Place], keep: Path, stages: Stages) -> None:
    choice = decide.choose_place(decide.read_facts())
    print(choice.reason, file=sys.stderr)
    place = places[choice.place]
    place.up(stages)
    keep.mkdir(parents=True, exist_ok=True)
    key_file = keep / "key.pem"
    with stages("making a key pair"):
        is_new = ensure_key(place, key_file)
    with stages("running an instance"):
        instance = launch(place) if is_new else find_running(place) or launch(place)
    ssh = render_ssh(instance["PublicIpAddress"], key_file, keep / "known_hosts")
    with stages("waiting for ssh"):
        greeting = wait_for_ssh(ssh)
    console = run(place.argv("instance", "console", instance["InstanceId"], "--lines", str(CONSOLE_LINES)))
    print(render_report(place.command, instance, ssh, greeting, console, stages.times))


def ensure_key(place: Place, key_file: Path) -> bool:
    """Make the key pair, unless the cloud and this checkout both have it; say whether it is new."""
    known = any(pair["KeyName"] == KEY for pair in json.loads(run(place.argv("key", "ls", "--json"))))
    if known and key_file.exists():
        return False
    # One half without the other is of no use.
    if known:
        run(place.argv("key", "rm", KEY))
    key_file.unlink(missing_ok=True)
    run(place.argv("key", "create", KEY, "--output", str(key_file)))
    return True


def find_running(place: Place) -> dict[str, Any] | None:
    """Return the instance of an earlier run, if it still runs."""
    found: list[dict[str, Any]] = json.loads(run(place.argv("instance", "ls", "--json")))
    for each in found:
        named = {"Key": "Name", "Value": INSTANCE} in each.get("Tags", [])
        if named and each["State"]["Name"] == "running" and each.get("PublicIpAddress"):
            return each
    return None


def launch(place: Place) -> dict[str, Any]:
    """Run an instance and return it when it is `running`."""
    argv = place.argv("run", IMAGE_NAME, "--name", INSTANCE, "--key", KEY, "--json")
    launched: list[dict[str, Any]] = json.loads(run(argv))
    return launched[0]


def render_ssh(address: str, key_file: Path, known_hosts: Path) -> list[str]:
    options = ["-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known_hosts}"]
    options += ["-o", "StrictHostKeyChecking=accept-new"]
    return ["ssh", "-i", str(key_file), *options, f"{IMAGE_USER}@{address}"]


def wait_for_ssh(ssh: list[str]) -> str:
    """Return what the guest says when it first lets us in."""
    # A machine of an earlier quickstart may have had this address: its host key is not asked for.
    known_hosts = next(option for option in ssh if option.startswith("UserKnownHostsFile=")).partition("=")[2]
    Path(known_hosts).unlink(missing_ok=True)
    deadline = time.monotonic() + SSH_SECONDS
    probe = [ssh[0], "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *ssh[1:], "uname -srn"]
    while True:
        try:
            answer = subprocess.run(
                probe, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_SECONDS
            )
            if answer.returncode == 0:
                return answer.stdout.strip()
            trouble = answer.stderr.strip()
        except subprocess.TimeoutExpired:
            trouble = f"it took a connection, and said nothing for {PROBE_SECONDS:.0f} s"
        if time.monotonic() > deadline:
            raise LabError(f"the guest does not answer ssh after {SSH_SECONDS:.0f} s: {trouble}")
        time.sleep(SSH_POLL_SECONDS)


def render_report(
    command: str,
    instance: dict[str, Any],
    ssh: list[str],
    greeting: str,
    console: str,
    times: list[tuple[str, float]],
) -> str:
    """Return what quickstart ends with."""
    lines = ["", f"console of {instance['InstanceId']}, its last lines:"]
    lines += [f"  | {line}" for line in console.strip().splitlines()]
    lines += ["", "what took how long:"]
    lines += [f"  {seconds:7.1f} s  {text}" for text, seconds in times]
    lines += [f"  {sum(seconds for _text, seconds in times):7.1f} s  altogether", ""]
    lines += [
        f"instance   {instance['InstanceId']} at {instance['PublicIpAddress']} ({greeting})",
        f"log in     {shlex.join(ssh)}",
        f"more       {command} instance ls",
        "the end    scripts/quickstart --down",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
