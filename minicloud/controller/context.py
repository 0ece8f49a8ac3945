"""What a step may use: rows, hosts, time and settings, all passed in. Owns no logic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from minicloud.clock import Clock
from minicloud.config import Config
from minicloud.hosts.protocol import HostDirectory
from minicloud.model.plans import JobStatus
from minicloud.model.resources import Snapshot, Task
from minicloud.store.store import Store, Tx

T = TypeVar("T")


class JobRunner(Protocol):
    """Detached jobs on the controller's own machine (image imports); the same verbs that hosts have."""

    def start_job(self, name: str, kind: str, arguments: dict[str, object], epoch: int) -> JobStatus:
        """Start a job unless one of that name exists; return its status either way."""

    def job_status(self, name: str) -> JobStatus:
        """Return the status of a job."""

    def clean_job(self, name: str, epoch: int) -> None:
        """End a job if it runs and forget it."""


class Signals(Protocol):
    """Hints from host events that only matter while this controller lives, such as `rebooted`."""

    def take(self, resource_id: str, signal: str) -> bool:
        """Say whether the signal arrived since it was last taken."""


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a step of a program may touch. `incarnation` names this run of the controller.

    `fill_arguments(snapshot, path)` is what the host job `fill_base` needs to bring a snapshot's content to a path.
    `copy_snapshot(source id, new id)` gives content a second name in the object store; it may be repeated.
    """

    store: Store
    hosts: HostDirectory
    jobs: JobRunner
    signals: Signals
    config: Config
    clock: Clock
    incarnation: str
    fill_arguments: Callable[[Snapshot, str], dict[str, object]]
    copy_snapshot: Callable[[str, str], None]

    def read(self, fn: Callable[[Tx], T]) -> T:
        """Read rows in one transaction, which is closed before any host is called."""
        return self.store.read(fn)


class Program(Protocol):
    """The life of one kind of resource as steps, each level-triggered: it looks, compares, acts, and may run twice."""

    @property
    def kind(self) -> str:
        """The kind of task it runs."""

    @property
    def steps(self) -> tuple[str, ...]:
        """Every step it has, in the order they usually run; tests/crash enumerates them."""

    def run(self, context: Context, task: Task) -> object:
        """Run the task's step and return a Verdict."""

    def fail(self, context: Context, task: Task, code: str, detail: str) -> object:
        """Return the Verdict for a step that cannot succeed."""
