"""Foreign clients of the API, each in an environment of its own: made once from pins, kept outside the checkout.

Pins are files in tests/e2e/clients; an environment is named by the hash of what it is made from, so a changed pin makes
a new one. A client that this machine cannot get is reported by `Unavailable`, which names it and says why: its test is
skipped by that name. Nothing here talks to a cloud. Called by the fixtures of tests/e2e/clients.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).resolve().parents[1] / "e2e" / "clients"
# Together with pip's and npm's own patience, below: a registry that hangs costs one client this long, once.
INSTALL_SECONDS = 240
SEARCH_SECONDS = 60
# To be changed when this module makes something else of the same pins.
WAY = b"1"
DEBIAN_AWS = Path("/usr/bin/aws")
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "--retries", "1", "--timeout", "20")


@dataclass(frozen=True)
class Ansible:
    """`python -m ansible playbook` and the like, with `variables` in the environment. Modules want that Python, too."""

    python: Path
    collections: Path

    @property
    def variables(self) -> dict[str, str]:
        quiet = {"ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_NOCOWS": "1", "ANSIBLE_FORCE_COLOR": "0"}
        return {"ANSIBLE_COLLECTIONS_PATH": str(self.collections), **quiet}


class Unavailable(Exception):
    """This machine cannot get a client; the text names it and says why."""


def cache_folder() -> Path:
    """Return ${XDG_CACHE_HOME:-~/.cache}/minicloud/clients; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "minicloud" / "clients"


def python_environment(name: str) -> Path:
    """Return the folder of a virtual environment with what `NAME.txt` pins. Raises Unavailable."""
    pins = PINS / f"{name}.txt"

    def make(folder: Path) -> None:
        _run(name, [sys.executable, "-m", "venv", "--without-pip", str(folder)])
        install = ["install", "--require-hashes", "--requirement", str(pins)]
        _run(name, [sys.executable, *PIP, "--python", str(folder / "bin" / "python"), *install])

    return _made(name, [pins.read_bytes(), sys.base_prefix.encode(), sys.version.encode()], make)


def ansible_collection(name: str, namespace: str, collection: str) -> Path:
    """Return a folder to be named in ANSIBLE_COLLECTIONS_PATH, with one collection of the pinned `ansible` package.

    The package carries a hundred collections in half a gigabyte: only the one is unpacked. Raises Unavailable.
    """
    pins = PINS / f"{name}.txt"
    inside = f"ansible_collections/{namespace}/{collection}/"

    def make(folder: Path) -> None:
        wheels = folder / "wheels"
        download = ["download", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(pins)]
        _run(name, [sys.executable, *PIP, *download, "--dest", str(wheels)])
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [one for one in archive.namelist() if one.startswith(inside)])
        shutil.rmtree(wheels)

    return _made(f"{name}-{namespace}-{collection}", [pins.read_bytes(), inside.encode()], make)


def ansible() -> Ansible:
    """Return Ansible with the collection amazon.aws and nothing else. Raises Unavailable."""
    environment = python_environment("ansible")
    collections = ansible_collection("ansible-collections", "amazon", "aws")
    return Ansible(environment / "bin" / "python", collections)


def node_environment(name: str) -> Path:
    """Return the folder with `node_modules` as the lock in the folder NAME says. Raises Unavailable."""
    pins = PINS / name
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Unavailable(f"{name}: node and npm are not installed")
    files = [pins / "package.json", pins / "package-lock.json"]

    def make(folder: Path) -> None:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=20000"]
        _run(name, [npm, "ci", *options], folder)

    return _made(name, [file.read_bytes() for file in files], make)


def debian_aws() -> Path:
    """Return the aws-cli of the distribution's package. Raises Unavailable."""
    if not DEBIAN_AWS.exists():
        raise Unavailable("Debian's aws-cli: the package awscli is not installed")
    return DEBIAN_AWS


def terraform() -> tuple[Path, Path]:
    """Return terraform and a file system mirror that holds the provider hashicorp/aws.

    The provider is found by its file name, as unpacked mirrors lay it out: HOST/hashicorp/aws/VERSION/PLATFORM/FILE.
    Raises Unavailable.
    """
    binary = shutil.which("terraform")
    if binary is None:
        raise Unavailable("terraform is not installed")
    # Its own folders first; then all of the root file system, which takes seconds.
    own = [Path.home() / ".terraform.d", Path("/usr/local/share/terraform"), Path("/usr/share/terraform"), Path("/opt")]
    for place in (*filter(Path.is_dir, own), Path("/")):
        search = ["find", str(place), "-xdev", "-path", "*/hashicorp/aws/*", "-name", "terraform-provider-aws*"]
        try:
            found = subprocess.run(
                [*search, "-type", "f", "-print", "-quit"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SEARCH_SECONDS,
            ).stdout.strip()
        except subprocess.TimeoutExpired:
            raise Unavailable(f"terraform: no provider hashicorp/aws found within {SEARCH_SECONDS} s") from None
        if found:
            return Path(binary), Path(found).parents[5]
    raise Unavailable("terraform: no unpacked mirror of the provider hashicorp/aws on this machine")


def _made(name: str, recipe: list[bytes], make: Callable[[Path], None]) -> Path:
    """Return the environment of a recipe; `make` fills its folder if no earlier run did. Raises Unavailable."""
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (WAY, *recipe))).hexdigest()[:16]
    folder = cache_folder() / f"{name}-{digest}"
    done = folder / ".complete"
    with _exclusive(cache_folder() / f".{name}.lock"):
        if not done.exists():
            # Scripts of a virtual environment name its folder: it is made in place, and counts when complete.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder)
            done.touch()
    return folder


@contextlib.contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _run(name: str, argv: list[str], folder: Path | None = None) -> None:
    try:
        result = subprocess.run(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name}: not installed within {INSTALL_SECONDS} s") from None
    if result.returncode != 0:
        last = (result.stdout.strip().splitlines() or ["nothing said"])[-1]
        raise Unavailable(f"{name}: cannot be installed here: {last}")
