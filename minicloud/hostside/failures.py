"""The one exception by which the host side says that a verb did not happen.

Every module of minicloud/hostside raises it, only the session (which turns it into a reply) catches it. It refuses to
guess: whoever raises it states whether trying again can help. Anything else that is raised is a bug.
"""

from __future__ import annotations


class Failure(Exception):
    """A verb failed. `code` is for programs to branch on, `detail` for operators and logs only.

    `transient` True: the same call may succeed later, or its outcome is unknown. False: repeating it cannot help.
    """

    def __init__(self, code: str, detail: str, transient: bool) -> None:
        super().__init__("%s: %s" % (code, detail))
        self.code = code
        self.detail = detail
        self.transient = transient
