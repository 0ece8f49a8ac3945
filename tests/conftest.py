"""Fixtures for all tests: the lab (real KVM hosts in namespaces) and a cloud in it.

Tests that use them need root and are marked `lab` by that alone. LAB_KEEP=1 leaves the labs up afterwards, and
MINICLOUD_TEST_LAB names them, so that a lab that is up is used again:

    LAB_KEEP=1 MINICLOUD_TEST_LAB=mine pytest tests/e2e
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[1]
LAB_FIXTURES = {"lab", "cloud"}


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
        self, machine: str, argv: list[str], *, check: bool = True, timeout: float = 60, input: str | None = None
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


def run_lab(*arguments: str, timeout: float = 600) -> str:
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


def lab_session(suffix: str, *up: str) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("the lab is made of namespaces, which only root may make")
    name = os.environ.get("MINICLOUD_TEST_LAB", f"test-{os.getpid()}") + suffix
    try:
        run_lab("up", "--name", name, *up)
        yield Lab(name, json.loads(run_lab("status", "--json", "--name", name)))
    finally:
        if os.environ.get("LAB_KEEP", "") in ("", "0"):
            run_lab("down", "--name", name)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two hosts and a controller's namespace, without a cloud."""
    yield from lab_session("", "2")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the lab, so that `-m "not lab"` is what needs neither root nor libvirt."""
    for item in items:
        if LAB_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.lab)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Repeat in the summary what scripts/test found before it called pytest."""
    if os.environ.get("MINICLOUD_CHECK_FAILED"):
        terminalreporter.section("scripts/check --static FAILED, see above", red=True)
