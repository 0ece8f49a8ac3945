"""What the host side can be started as, from its archive: `session`, `job`, `supervisor` or `metadata`.

Owns the choice of program and nothing else. `session` is started by hosts/session.py through bootstrap.py, the others
by the host side itself with `program_argv`.
"""

from __future__ import annotations

import sys
from typing import List


def main(argv: List[str]) -> int:
    """Run the program that `argv[0]` names; returns its exit status. Imports only what that program needs."""
    program, arguments = (argv[0], argv[1:]) if argv else ("", [])
    if program == "session":
        from minicloud.hostside import session

        return session.main(arguments)
    if program == "job":
        from minicloud.hostside import jobs

        return jobs.main(arguments)
    if program == "supervisor":
        from minicloud.hostside import supervisor

        return supervisor.main(arguments)
    if program == "metadata":
        from minicloud.hostside import metadata

        return metadata.main(arguments)
    sys.stderr.write(f"minicloud.hostside: no such program: {program!r}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
