"""Says what a build is doing and runs its commands. Owns the build's standard error; refuses shells.

Called by the recipes and by `images/build`.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


class BuildError(Exception):
    """The image cannot be built; the message is for the person who asked for it."""


class Progress:
    """Prints one line per stage with the time it took, on standard error."""

    def __init__(self, image_name: str) -> None:
        self._image_name = image_name
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        elapsed_seconds = time.monotonic() - self._started
        print(f"[{elapsed_seconds:6.1f} s] {self._image_name}: {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def stage(self, text: str) -> Iterator[None]:
        """Announce a stage, and how long it took once it is done."""
        self.say(f"{text} ...")
        began = time.monotonic()
        yield
        self.say(f"{text}: done in {time.monotonic() - began:.1f} s")


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 600,
) -> bytes:
    """Run a command to its end and return its standard output.

    `environment` is added to the caller's, with a C locale and UTC so that no tool's output depends on the builder's.
    Raises BuildError with the command and what it printed when it fails, is missing, or outlives its time.
    """
    words = [os.fspath(word) for word in argv]
    full_environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(environment or {})}
    try:
        done = subprocess.run(
            words, cwd=cwd, env=full_environment, input=b"", capture_output=True, timeout=timeout_seconds,
            check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise BuildError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{' '.join(words)} did not end within {timeout_seconds:.0f} s") from error
    if done.returncode != 0:
        printed = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise BuildError(f"{' '.join(words)} failed with status {done.returncode}:\n{printed[-4000:]}")
    return done.stdout
