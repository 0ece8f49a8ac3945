"""Fetches Debian packages through the machine's own apt and reads files out of them. Installs nothing.

Called by the recipes. apt checks each package against the signed index, so what is read here is Debian's.
"""

import io
import tarfile
from pathlib import Path

from imagebuild.stage import BuildError, run


def parse_depends(control: str) -> list[str]:
    """Package names of a control file's Depends field, alternatives and versions dropped."""
    for line in control.splitlines():
        if line.startswith("Depends:"):
            wanted = line.removeprefix("Depends:").split(",")
            return [entry.split("|")[0].split("(")[0].strip() for entry in wanted]
    return []


class Package:
    """One downloaded .deb, its files readable by their absolute path in the package."""

    def __init__(self, deb: Path) -> None:
        self.deb = deb
        self._members: dict[str, bytes] | None = None

    def control(self) -> str:
        return run(["dpkg-deb", "--field", self.deb]).decode()

    def version(self) -> str:
        return run(["dpkg-deb", "--field", self.deb, "Version"]).decode().strip()

    def files(self) -> dict[str, bytes]:
        """Regular files by path ('/bin/x'); a symbolic link appears with its target's content."""
        if self._members is None:
            packed = run(["dpkg-deb", "--fsys-tarfile", self.deb])
            files: dict[str, bytes] = {}
            links: dict[str, str] = {}
            with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
                for member in tar:
                    path = "/" + member.name.removeprefix("./").strip("/")
                    if member.isfile():
                        stream = tar.extractfile(member)
                        assert stream is not None
                        files[path] = stream.read()
                    elif member.issym():
                        target = Path(path).parent / member.linkname
                        links[path] = str(target)
                    elif member.islnk():
                        links[path] = "/" + member.linkname.removeprefix("./").strip("/")
            for path, target_path in links.items():
                if target_path in files:
                    files[path] = files[target_path]
            self._members = files
        return self._members

    def file(self, *paths: str) -> bytes:
        """Content of the first of `paths` that the package has (Debian moved /bin to /usr/bin between releases)."""
        for path in paths:
            if path in self.files():
                return self.files()[path]
        raise BuildError(f"{self.deb.name} has none of: {', '.join(paths)}")


def download(names: list[str], folder: Path) -> dict[str, Package]:
    """Download the candidate version of each package into `folder`; keyed by the name asked for.

    A name may list alternatives ('libext2fs2t64|libext2fs2'): the first that apt knows is taken and is keyed by
    the whole text. Raises BuildError when apt knows none of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {name: _choose_candidate(name) for name in names}
    run(["apt-get", "download", "--quiet", *chosen.values()], cwd=folder, timeout_seconds=900)
    found: dict[str, Package] = {}
    for name, package in chosen.items():
        debs = sorted(folder.glob(f"{package}_*.deb"))
        if len(debs) != 1:
            raise BuildError(f"expected one .deb of {package} in {folder}, found {len(debs)}")
        found[name] = Package(debs[0])
    return found


def _choose_candidate(name: str) -> str:
    alternatives = name.split("|")
    for package in alternatives:
        policy = run(["apt-cache", "policy", package]).decode()
        if "Candidate:" in policy and "Candidate: (none)" not in policy:
            return package
    raise BuildError(f"apt knows no package {' or '.join(alternatives)}: run `apt-get update` first")
