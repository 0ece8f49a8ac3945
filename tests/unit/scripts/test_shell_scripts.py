"""scripts/setup, check and test, run whole in a copy of the checkout where every program they call is a stand-in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"

# Writes its own name and arguments to $CALLS, then does what a test put next to it, if anything.
STAND_IN = """#!/bin/bash
echo "$(basename "$0") $*" >>"$CALLS"
[[ -f "$0.does" ]] && . "$0.does"
exit 0
"""


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.calls_file = folder / "calls"
        (folder / "scripts").mkdir(parents=True)
        for name in ("setup", "check", "test"):
            shutil.copy(SCRIPTS / name, folder / "scripts" / name)
        for name in ("requirements.lock", "pyproject.toml"):
            (folder / name).write_text(f"# {name}\n")
        self.programs.mkdir()

    def stand_in(self, path: str, does: str = "") -> None:
        program = self.folder / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(STAND_IN)
        program.chmod(0o755)
        Path(f"{program}.does").write_text(does)

    def run(self, *argv: str, before: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.programs}:{os.environ['PATH']}"
        return subprocess.run(
            [*before, str(self.folder / argv[0]), *argv[1:]],
            env={**os.environ, "PATH": path, "CALLS": str(self.calls_file), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def start(self, *argv: str) -> subprocess.Popen[str]:
        path = f"{self.programs}:{os.environ['PATH']}"
        return subprocess.Popen(
            [str(self.folder / argv[0]), *argv[1:]],
            env={**os.environ, "PATH": path, "CALLS": str(self.calls_file)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


def make_check_tools(checkout: Checkout) -> None:
    for name in ("python", "ruff", "mypy", "lint-imports"):
        checkout.stand_in(f".venv/bin/{name}")
    for suite in ("unit", "golden", "e2e"):
        (checkout.folder / "tests" / suite).mkdir(parents=True)


def test_check_runs_every_stage_and_says_how_long_each_took(checkout: Checkout) -> None:
    make_check_tools(checkout)
    result = checkout.run("scripts/check")
    assert result.returncode == 0, result.stdout + result.stderr
    tools = [call.split()[0] for call in checkout.calls()]
    assert tools == ["ruff", "ruff", "mypy", "mypy", "lint-imports", "python"]
    assert result.stdout.count(": passed in ") == 6
    pytest_call = checkout.calls()[-1]
    assert "-m not lab and not slow" in pytest_call
    assert pytest_call.endswith("tests/unit tests/golden"), "suites that exist and need no root"


def test_check_goes_on_after_a_failure_and_ends_with_it(checkout: Checkout) -> None:
    make_check_tools(checkout)
    checkout.stand_in(".venv/bin/ruff", "[[ $1 == format ]] && exit 1")
    checkout.stand_in(".venv/bin/lint-imports", "exit 3")
    result = checkout.run("scripts/check")
    assert result.returncode == 1
    assert checkout.calls()[-1].startswith("python -m pytest")
    assert result.stderr.strip() == "check: FAILED: ruff format, import contracts"


def test_check_static_runs_no_tests(checkout: Checkout) -> None:
    make_check_tools(checkout)
    assert checkout.run("scripts/check", "--static").returncode == 0
    assert not any("pytest" in call for call in checkout.calls())


def test_check_without_a_venv_says_what_to_run(checkout: Checkout) -> None:
    result = checkout.run("scripts/check")
    assert result.returncode == 1
    assert "scripts/setup" in result.stderr


# `ls` names a lab of another run, of one whose number begins the same, of this run (twice), and one that is nobody's.
LAB = """
import os, sys
open(os.environ["CALLS"], "a").write(f"lab {' '.join(sys.argv[1:])}\\n")
if sys.argv[1] == "ls":
    run = os.environ["MINICLOUD_TEST_LAB"]
    print(f"test-1-cloud {run}0 {run} {run}-cloud lab".replace(" ", "\\n"))
"""


def make_test_tools(checkout: Checkout) -> None:
    for name in ("setup", "check"):
        checkout.stand_in(f"scripts/{name}")
    # scripts/test calls the lab by the system's python3.
    (checkout.folder / "scripts" / "lab").write_text(LAB)
    checkout.stand_in(".venv/bin/python", "echo '1 passed in 0.1s'")


def test_test_installs_checks_tests_and_cleans_up(checkout: Checkout) -> None:
    make_test_tools(checkout)
    checkout.stand_in(".venv/bin/python", 'echo "1 passed in $MINICLOUD_TEST_LAB"')
    result = checkout.run("scripts/test", "-k", "some thing")
    assert result.returncode == 0, result.stderr
    lab = result.stdout.splitlines()[-1].removeprefix("1 passed in ")
    ends_labs = ["lab ls", f"lab down --name {lab} --quiet", f"lab down --name {lab}-cloud --quiet"]
    assert checkout.calls() == [
        "setup --test",
        "check --static",
        "python -m pytest --ignore=tests/bench -k some thing",
        *(ends_labs if os.geteuid() == 0 else []),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_lets_pytest_clean_up_before_it_ends_labs(checkout: Checkout, number: int) -> None:
    make_test_tools(checkout)
    says = "trap 'kill $!; echo cleaned >>$CALLS; exit 2' INT; sleep 60 >/dev/null 2>&1 & echo ready; wait"
    checkout.stand_in(".venv/bin/python", says)
    # Only the script gets the signal, as from a service manager.
    run = checkout.start("scripts/test")
    assert run.stdout is not None
    while run.stdout.readline() != "ready\n":
        assert run.poll() is None
    run.send_signal(number)
    run.communicate(timeout=120)
    assert run.returncode == 2
    calls = checkout.calls()
    after = calls[calls.index("cleaned") + 1 :]
    assert len(after) == (3 if os.geteuid() == 0 else 0)


def test_benchmarks_run_when_named(checkout: Checkout) -> None:
    make_test_tools(checkout)
    checkout.run("scripts/test", "tests/bench/launch.py")
    assert "python -m pytest tests/bench/launch.py" in checkout.calls()


def test_a_failed_check_fails_the_run_after_all_tests_ran(checkout: Checkout) -> None:
    make_test_tools(checkout)
    checkout.stand_in("scripts/check", "exit 1")
    checkout.stand_in(".venv/bin/python", 'echo "check failed: $MINICLOUD_CHECK_FAILED"')
    result = checkout.run("scripts/test")
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "check failed: 1"


@pytest.mark.parametrize("status", [1, 2, 5])
def test_the_status_is_pytests(checkout: Checkout, status: int) -> None:
    make_test_tools(checkout)
    checkout.stand_in(".venv/bin/python", f"exit {status}")
    assert checkout.run("scripts/test").returncode == status


def test_a_run_over_its_budget_is_interrupted_not_killed(checkout: Checkout) -> None:
    make_test_tools(checkout)
    checkout.stand_in(".venv/bin/python", "sleep 60 >/dev/null 2>&1 & trap 'kill $!; echo summary; exit 2' INT; wait")
    result = checkout.run("scripts/test", TEST_BUDGET_SECONDS="5")
    assert result.returncode == 124
    assert result.stdout.splitlines()[-1] == "summary"


def test_nothing_is_tested_when_setup_fails(checkout: Checkout) -> None:
    make_test_tools(checkout)
    checkout.stand_in("scripts/setup", "exit 1")
    assert checkout.run("scripts/test").returncode == 1
    assert checkout.calls() == ["setup --test"]


# dpkg-query -W -f FORMAT NAME…: all are installed but those in $ABSENT, of which dpkg never heard.
DPKG_QUERY = """
trap 'exit ${#ABSENT}' EXIT
for name in "${@:4}"; do
    [[ " $ABSENT " == *" $name "* ]] || echo "installed $name"
done
"""


def debian_only() -> None:
    if "\nID=debian\n" not in "\n" + Path("/etc/os-release").read_text():
        pytest.skip("scripts/setup installs packages on Debian only")


def test_setup_does_nothing_when_nothing_is_missing(checkout: Checkout) -> None:
    debian_only()
    checkout.stand_in("programs/dpkg-query", DPKG_QUERY)
    checkout.stand_in("programs/apt-get")
    assert checkout.run("scripts/setup", "--host-only", ABSENT="").returncode == 0
    assert [call.split()[0] for call in checkout.calls()] == ["dpkg-query"]
    assert not (checkout.folder / ".venv").exists(), "a host gets nothing of minicloud"


def test_setup_names_exactly_the_missing_packages(checkout: Checkout) -> None:
    debian_only()
    checkout.stand_in("programs/dpkg-query", DPKG_QUERY)
    checkout.stand_in("programs/apt-get")
    result = checkout.run("scripts/setup", "--host-only", ABSENT="nftables lvm2 mmdebstrap")
    assert result.returncode == 1
    assert "nftables lvm2" in result.stderr and "mmdebstrap" not in result.stderr
    apt = [call for call in checkout.calls() if call.startswith("apt-get")]
    if os.geteuid() == 0:
        assert apt[0].endswith(" update")
        assert apt[1].endswith("install --no-install-recommends nftables lvm2")
        assert "still missing: nftables lvm2" in result.stderr
    else:
        assert apt == []
        assert "sudo apt-get install --no-install-recommends nftables lvm2" in result.stderr


def test_setup_takes_what_apt_installed(checkout: Checkout) -> None:
    debian_only()
    if os.geteuid() != 0:
        pytest.skip("only root may install packages")
    installed = checkout.folder / "installed"
    checkout.stand_in("programs/dpkg-query", f"[[ -f {installed} ]] && ABSENT=\n{DPKG_QUERY}")
    checkout.stand_in("programs/apt-get", f"[[ $* == *install* ]] && touch {installed}; exit 0")
    result = checkout.run("scripts/setup", "--host-only", ABSENT="nftables")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_tests_need_more_than_the_cloud_does(checkout: Checkout) -> None:
    debian_only()
    checkout.stand_in("programs/dpkg-query", DPKG_QUERY)
    checkout.stand_in("programs/apt-get")
    checkout.stand_in(".venv/bin/python", PIP)
    absent = "postgresql virtinst"
    assert checkout.run("scripts/setup", "--host-only", ABSENT=absent).returncode == 0
    assert checkout.run("scripts/setup", ABSENT=absent).returncode == 0
    assert not any(call.startswith("apt-get") for call in checkout.calls())
    result = checkout.run("scripts/setup", "--test", ABSENT="virtinst")
    assert result.returncode == 1
    assert "virtinst" in result.stderr
    refused = checkout.run("scripts/setup", "--host-only", "--test")
    assert refused.returncode == 1 and "exclude each other" in refused.stderr


def test_installing_postgresql_makes_no_database_of_the_machine(checkout: Checkout) -> None:
    debian_only()
    if os.geteuid() != 0 or not Path("/etc/postgresql-common").is_dir():
        pytest.skip("needs root, and /etc/postgresql-common to cover with an empty folder")
    etc = checkout.folder / "etc"
    etc.mkdir()
    inside = Path("/etc/postgresql-common/createcluster.d/minicloud-setup.conf")
    checkout.stand_in("programs/dpkg-query", DPKG_QUERY)
    checkout.stand_in("programs/apt-get", f"[[ $* != *install* ]] || cp {inside} {checkout.folder}/seen; exit 0")
    cover = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/postgresql-common && exec "$@"', str(etc)]
    checkout.run("scripts/setup", "--test", before=cover, ABSENT="postgresql")
    assert (checkout.folder / "seen").read_text() == "create_main_cluster = false\n"
    assert list(etc.iterdir()) == [], "what told the packages so is gone when setup ends"


def test_setup_refuses_options_it_does_not_know(checkout: Checkout) -> None:
    result = checkout.run("scripts/setup", "--hots-only")
    assert result.returncode == 1
    assert "--hots-only" in result.stderr


PIP = """
case "$*" in
    "-c import pip") exit 0 ;;
    *"pip install"*) [[ -z ${PIP_FAILS-} ]] || exit 1 ;;
esac
"""


def test_setup_installs_anew_only_when_the_lock_changed(checkout: Checkout) -> None:
    checkout.stand_in(".venv/bin/python", PIP)

    def installs() -> int:
        checkout.calls_file.write_text("")
        result = checkout.run("scripts/setup", "--no-apt")
        assert result.returncode == 0, result.stderr
        return sum("pip install" in call for call in checkout.calls())

    assert installs() == 2, "the locked dependencies and minicloud itself"
    assert installs() == 0
    (checkout.folder / "requirements.lock").write_text("# another\n")
    assert installs() == 2
    assert installs() == 0


def test_a_failed_installation_is_tried_again(checkout: Checkout) -> None:
    checkout.stand_in(".venv/bin/python", PIP)
    assert checkout.run("scripts/setup", "--no-apt", PIP_FAILS="1").returncode == 1
    assert checkout.run("scripts/setup", "--no-apt").returncode == 0
    assert sum("pip install" in call for call in checkout.calls()) == 3
