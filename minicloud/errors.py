"""The error tree every room shares; it knows no protocol and no host.

    MinicloudError
    ├─ ApiError(code, message, status)   the caller's fault, with EC2's own code
    └─ HostError(detail)                 raised only in hosts/
        ├─ TransientError                nap and retry
        └─ PermanentError(code, detail)  the resource fails; becomes its StateReason

Anything else that is raised is a bug: log it whole, answer InternalError with the request id and nothing more.
Callers branch on the type or on `code`, never on the text of a message.
"""

from __future__ import annotations


class MinicloudError(Exception):
    """Root of every error that minicloud raises on purpose."""


class ApiError(MinicloudError):
    """A caller's fault: `code` is EC2's (see the EC2 API guide, "Error codes"), `message` may be shown to anyone."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


class HostError(MinicloudError):
    """Something went wrong on a host; `detail` is for operators and logs, never for API clients."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TransientError(HostError):
    """The call may succeed later, or its outcome is unknown: look at the world again, then retry."""


class PermanentError(HostError):
    """Repeating the call cannot help; `code` becomes the resource's StateReason code (such as Server.InternalError)."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class ConfigError(MinicloudError):
    """The configuration cannot be used; the message names the file, the key and what would be valid."""
