"""The error tree every room shares; it knows no protocol and no host.

    MinicloudError
    ├─ ApiError(code, message, status)   the caller's fault, with EC2's own code
    ├─ HostError(detail)                 raised only in hosts/
    │   ├─ TransientError                nap and retry
    │   └─ PermanentError(code, detail)  the resource fails; becomes its StateReason
    ├─ StoreError                        raised only in store/: the database; nothing of the transaction happened
    │   ├─ StoreBusyError                others hold it longer than the bound: try again
    │   ├─ StoreFullError                its disk is full: works again once there is room
    │   ├─ StoreUnavailableError         missing, unreadable, unreachable: works again once it is back
    │   ├─ StoreVersionError             made by a newer minicloud, or never initialised
    │   ├─ StoreLockedError              another daemon owns it
    │   └─ StoreConflictError            a unique or foreign key refused a row: a decision that was not made
    └─ ConfigError                       the operator's configuration

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


class RefusedError(TransientError):
    """The host looked at what it was asked and could not do it now; unlike silence, that speaks of the request."""


class PermanentError(HostError):
    """Repeating the call cannot help; `code` becomes the resource's StateReason code (such as Server.InternalError)."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class ConfigError(MinicloudError):
    """The configuration cannot be used; the message names the file, the key and what would be valid."""


class StoreError(MinicloudError):
    """The database refused or failed, and nothing of the transaction happened (but see StoreUnavailableError).

    The message is for operators, never for API clients.
    """


class StoreBusyError(StoreError):
    """The database stayed locked, or transactions kept conflicting, for longer than the bound: try again."""


class StoreFullError(StoreError):
    """The disk under the database is full. Writing works again once there is room; reading never stops."""


class StoreUnavailableError(StoreError):
    """The database is missing, unreadable, read-only or unreachable. It is used again as soon as it is back.

    A connection lost during a commit leaves it unknown whether the transaction happened: look again.
    """


class StoreVersionError(StoreError):
    """The database was made by a newer minicloud, or was never initialised."""


class StoreLockedError(StoreError):
    """Another daemon owns this database."""


class StoreConflictError(StoreError):
    """A row breaks a unique or foreign key. Callers decide first, in the same transaction; so this is a bug."""
