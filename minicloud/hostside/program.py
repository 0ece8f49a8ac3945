"""How the host side starts another program of its own: the argv that runs what this process runs from.

Called by jobs.py and whatever else keeps a process on the host (metadata, supervisor). Pure but for `__file__`.
"""

from __future__ import annotations

import os
import sys
from typing import List

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_FROM_FOLDER = (
    "import sys; sys.path.insert(0, {!r}); from minicloud.hostside.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


def program_argv(program: str, *arguments: str) -> List[str]:
    """Return the argv of `program` (see __main__.py): from the archive on a host, from the folder in development.

    Isolated (`-I -S`): neither the environment nor what else is installed on the host can change what runs.
    """
    start = [sys.executable, "-I", "-S"]
    if os.path.isdir(_ROOT):
        return [*start, "-c", _FROM_FOLDER.format(_ROOT), program, *arguments]
    return [*start, _ROOT, program, *arguments]
