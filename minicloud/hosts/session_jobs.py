"""Detached jobs over a session: the one translation of the job verbs. LibvirtHost is one of these, and daemon.py makes
one for imports on the controller's own machine.
"""

from __future__ import annotations

from typing import Any, Protocol

from minicloud.model.plans import JobStatus

JOB_CALL_SECONDS = 20.0


class Session(Protocol):
    """What is needed of session.HostSession."""

    def call(self, verb: str, arguments: dict[str, Any], timeout_seconds: float = ...) -> Any:
        """Run a verb on the host. Raises TransientError or PermanentError."""

    def close(self) -> None:
        """End the session."""


class SessionJobs:
    """Jobs of one host; each call raises TransientError or PermanentError."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def start_job(self, name: str, kind: str, arguments: dict[str, object], epoch: int) -> JobStatus:
        """Start a job unless one of that name exists; return its status either way."""
        asked = {"name": name, "kind": kind, "arguments": arguments, "epoch": epoch}
        return JobStatus(**self._session.call("start_job", asked, JOB_CALL_SECONDS))

    def job_status(self, name: str) -> JobStatus:
        """Return the status of a job."""
        return JobStatus(**self._session.call("job_status", {"name": name}, JOB_CALL_SECONDS))

    def clean_job(self, name: str, epoch: int) -> None:
        """End a job if it runs; forget it and its partial files."""
        self._session.call("clean_job", {"name": name, "epoch": epoch}, JOB_CALL_SECONDS)
