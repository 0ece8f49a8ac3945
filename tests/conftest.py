"""Fixtures for all tests: the lab (real KVM hosts in namespaces) and a cloud in it.

Tests that use them need root and are marked `lab` by that alone. LAB_KEEP=1 leaves the labs up afterwards, and
MINICLOUD_TEST_LAB names them, so that a lab that is up is used again:

    LAB_KEEP=1 MINICLOUD_TEST_LAB=mine pytest tests/e2e

And how hypothesis draws: the same examples in every run, so that a run tells of a change and not of luck, and without
a clock, which would measure the machine. Others are drawn, from another seed each, by

    pytest --hypothesis-profile=explore --hypothesis-seed=7
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

PROJECT = Path(__file__).resolve().parents[1]
LAB_FIXTURES = {"lab", "cloud"}
LOG_OFFSET = pytest.StashKey[int]()
LOG_TAIL_BYTES = 64 * 1024

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("repeatable", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeatable")


class Lab:
    """A lab that is up. `hosts` are names ("host1", …); the controller is called "controller".

    The machine the tests run on has a leg in the lab's network: `address(name)` answers from here, too.
    """

    def __init__(self, name: str, description: dict[str, Any]) -> None:
        self.name = name
        self.network: str = description["network"]
        self.public_pool: str = description["public_pool"]
        self.leg: str = description["leg"]
        self.ssh_key = Path(description["ssh_key"])
        self.known_hosts = Path(description["known_hosts"])
        self.cloud: dict[str, Any] = description["cloud"]
        self._machines: dict[str, dict[str, Any]] = {each["name"]: each for each in description["machines"]}

    @property
    def hosts(self) -> list[str]:
        return [name for name in self._machines if name != "controller"]

    def address(self, machine: str) -> str:
        return str(self._machines[machine]["address"])

    def pid(self, machine: str) -> int:
        """Return the machine's process 1, as numbered on the machine that runs the tests."""
        return int(self._machines[machine]["pid"])

    def namespace(self, machine: str) -> str:
        return str(self._machines[machine]["namespace"])

    def private(self, machine: str, path: str) -> Path:
        """Return where a private folder of a machine is to be found from outside: `/var/lib/minicloud`, for one."""
        for folder in ("/root", "/etc/libvirt", "/etc/minicloud", "/var/lib/libvirt", "/var/lib/minicloud"):
            if path == folder or path.startswith(f"{folder}/"):
                name = folder.strip("/").replace("/", "-")
                return Path(self._machines[machine]["folder"]) / name / path[len(folder) :].lstrip("/")
        raise ValueError(f"{path} is below no private folder")

    def libvirt_uri(self, host: str) -> str:
        """Return the URI of a host's libvirt as the controller uses it."""
        return f"qemu+ssh://root@{self.address(host)}/system"

    def argv(self, machine: str, argv: list[str]) -> list[str]:
        """Return the command that runs `argv` inside a machine."""
        return [*self._machines[machine]["enter"], *argv]

    def exec(
        self, machine: str, argv: list[str], *, check: bool = True, timeout: float = 180, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside a machine and return what it printed; AssertionError with all of it if it fails."""
        result = subprocess.run(
            self.argv(machine, argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{machine}: {argv} ended with {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def popen(self, machine: str, argv: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command inside a machine. What is killed by killing it is only the way in: see `inner_pid`."""
        options = {"stdin": subprocess.DEVNULL, "text": True, **options}
        return subprocess.Popen(self.argv(machine, argv), **options)

    def libvirtd_pid(self, host: str) -> int:
        """Return a host's libvirtd as numbered inside: only its own file tells it from what it has just forked."""
        return int(self.exec(host, ["cat", "/run/libvirtd.pid"]).stdout)

    def kill_libvirtd(self, host: str) -> None:
        """SIGKILL a host's libvirtd and return when it is gone: as long as it is not, no other can start."""
        pid = self.libvirtd_pid(host)
        end = f"kill -9 {pid} && while kill -0 {pid} 2>/dev/null; do sleep 0.01; done"
        self.exec(host, ["sh", "-c", end])

    @staticmethod
    def inner_pid(process: subprocess.Popen[str]) -> int | None:
        """Return the process inside the machine that `popen` started, as numbered out here; None if it has ended."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if int(fields[1]) == process.pid and fields[0] not in "ZX":
                    return int(entry.name)
        return None


class Cloud(Lab):
    """A lab with minicloud in it: hosts in zones lab-1a, lab-1b, … and the image `tiny`.

    The endpoint answers from here, too, and so do the instances' public addresses.
    """

    region = "lab-1"
    image = "tiny"
    user = "ec2-user"

    @property
    def environment(self) -> dict[str, str]:
        """What `scripts/lab env` prints: for aws-cli and any SDK."""
        return dict(self.cloud["environment"])

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return Path(self.cloud["log"])

    def client(self, service: str = "ec2", **options: Any) -> Any:
        """Return a boto3 client of the root account."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
            **options,
        )

    def minicloud(self, *arguments: str, timeout: float = 300) -> str:
        """Run minicloud's command in the controller and return what it printed."""
        return self.exec("controller", ["minicloud", *arguments], timeout=timeout).stdout

    def aws(self, *arguments: str, timeout: float = 300) -> Any:
        """Run aws-cli in the controller and return its JSON, None if it printed none."""
        result = self.exec("controller", ["aws", "--output", "json", *arguments], timeout=timeout)
        return json.loads(result.stdout) if result.stdout.strip() else None

    def ssh(self, address: str, key_file: Path, command: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a command in a guest over ssh, from here; the caller judges the outcome (255: it does not answer)."""
        options = ["-F", "none", "-i", str(key_file), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        options += ["-o", "ConnectTimeout=15", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        options += ["-o", "LogLevel=ERROR"]
        return subprocess.run(
            ["ssh", *options, f"{self.user}@{address}", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def daemon_pid(self) -> int | None:
        """Return the daemon's main process, as numbered out here; None if it does not run."""
        pids = subprocess.run(
            ["ip", "netns", "pids", self.namespace("controller")], check=True, capture_output=True, text=True
        )
        for pid in sorted(map(int, pids.stdout.split())):
            try:
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            # Below nsenter and env, which wait in front of it with the same words in their arguments.
            if b"serve" in argv[1:4] and any(word.endswith(b"/minicloud") for word in argv[:3]):
                return pid
        return None

    def kill_daemon(self) -> None:
        """SIGKILL the daemon, and return when it is gone."""
        pid = self.daemon_pid()
        if pid is None:
            return
        watched = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            if not select.select([watched], [], [], 120)[0]:
                raise AssertionError(f"the daemon, process {pid}, does not die")
        finally:
            os.close(watched)

    def start_daemon(self) -> None:
        """Start the daemon if it does not run, and return when it listens."""
        run_lab("up", "--cloud", "--quiet", "--name", self.name)


def run_lab(*arguments: str, timeout: float = 1800) -> str:
    """Run scripts/lab and return its output; fail the test with all of it if it fails."""
    result = subprocess.run(
        [str(PROJECT / "scripts" / "lab"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if result.returncode != 0:
        pytest.fail(f"scripts/lab {' '.join(arguments)}:\n{result.stdout}\n{result.stderr}", pytrace=False)
    return result.stdout


def lab_session(kind: type[Lab], suffix: str, *up: str) -> Iterator[Any]:
    if os.geteuid() != 0:
        pytest.skip("the lab is made of namespaces, which only root may make")
    name = os.environ.get("MINICLOUD_TEST_LAB", f"test-{os.getpid()}") + suffix
    try:
        run_lab("up", "--name", name, *up)
        yield kind(name, json.loads(run_lab("status", "--json", "--name", name)))
    finally:
        if os.environ.get("LAB_KEEP", "") in ("", "0"):
            run_lab("down", "--name", name)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two hosts and a controller's namespace, without a cloud."""
    yield from lab_session(Lab, "", "2")


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """A lab of its own, two hosts in two zones, with minicloud running in it."""
    yield from lab_session(Cloud, "-cloud", "2", "--cloud")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the lab, so that `-m "not lab"` is what needs neither root nor libvirt."""
    for item in items:
        if LAB_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.lab)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show with a failure what the daemon logged during the test: the lab, and its log, are gone when one reads it."""
    report = yield
    in_use = getattr(item, "funcargs", {}).get("cloud")
    if isinstance(in_use, Cloud):
        size = in_use.log.stat().st_size if in_use.log.exists() else 0
        began = item.stash.setdefault(LOG_OFFSET, size)
        if report.failed and size > began:
            with in_use.log.open("rb") as log:
                log.seek(max(began, size - LOG_TAIL_BYTES))
                report.sections.append(("minicloud's log", log.read(LOG_TAIL_BYTES).decode(errors="replace")))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Repeat in the summary what scripts/test found before it called pytest."""
    if os.environ.get("MINICLOUD_CHECK_FAILED"):
        terminalreporter.section("scripts/check --static FAILED, see above", red=True)
