"""The host side as one archive, built in memory from the installed package: what sessions push to hosts.

Owns its form and name. The same sources give the same bytes on every machine (sorted names, one date, nothing
compressed), so that its sha256 is its version. Called by hosts/session.py's transports.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib import resources

_DATE = (1980, 1, 1, 0, 0, 0)
_MAIN = "import sys\nfrom minicloud.hostside.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"


@dataclass(frozen=True)
class Bundle:
    """The archive, its sha256, and the text of the program that installs and starts it on a host."""

    data: bytes
    digest: str
    bootstrap: str


@cache
def build_bundle() -> Bundle:
    """Build the archive of minicloud/hostside; built once in a process."""
    package = resources.files("minicloud")
    sources = {"__main__.py": _MAIN, "minicloud/__init__.py": package.joinpath("__init__.py").read_text("utf-8")}
    for entry in package.joinpath("hostside").iterdir():
        if entry.name.endswith(".py"):
            sources[f"minicloud/hostside/{entry.name}"] = entry.read_text("utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(sources):
            entry_info = zipfile.ZipInfo(name, _DATE)
            entry_info.external_attr = 0o644 << 16
            archive.writestr(entry_info, sources[name])
    data = buffer.getvalue()
    bootstrap = package.joinpath("hostside", "bootstrap.py").read_text("utf-8")
    return Bundle(data, hashlib.sha256(data).hexdigest(), bootstrap)
