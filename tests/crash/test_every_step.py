"""Every step of every program, hit by everything that can happen to it: the cloud comes to rest, nothing is left over,
nothing is missing, and no illegal state was ever written.

A story (tests/support/stories.py) is told once undisturbed to learn its points: each step it runs, each call it makes
to a host. Then it is told again and again, disturbed at one point each time. What happens
many times between two rests (a poll) is hit the first and the last time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.stories import STORIES, EnoughTold, Script
from support.world import PROGRAMS, World

from minicloud.config import Deadlines
from minicloud.errors import StoreBusyError
from minicloud.hosts.fake_faults import ControllerCrash, Fault, Faults
from minicloud.model.resources import Task

SHORT = Deadlines(guest_shutdown_seconds=15, guest_reboot_seconds=20, launch_seconds=60)
# A call that only looks has done nothing when it fails, however it does; and most others have no half.
LOOKS = frozenset({"domain_status", "domain_statuses", "job_status", "inventory", "facts", "pool_usage"})
HALVES = frozenset({"ensure_instance", "ensure_no_instance", "ensure_domain", "ensure_no_domain"})
OF_LOOKS = frozenset({Fault.CRASH_BEFORE, Fault.TRANSIENT, Fault.HANG, Fault.PERMANENT})
OF_HALVES = frozenset({Fault.HALFWAY, Fault.CRASH_HALFWAY})
# What a caller may do at any moment.
INTENTS = ("stop", "force", "start", "reboot", "terminate")
AT_STEPS = ("crash before step", "crash before commit", "crash after commit", "store fails at commit")


@dataclass(frozen=True)
class Point:
    """The `number`-th step or call of a story; `what` and `chapter` say where that is."""

    number: int
    chapter: int
    what: str
    past: str = field(compare=False, repr=False)


class Told:
    """One telling of a story, with something that happens at one point of it."""

    def __init__(self, name: str, spool: Path) -> None:
        self.steps: list[Point] = []
        self.calls: list[Point] = []
        self.at_step: Callable[[Task], None] = lambda _task: None
        self.at_call: Callable[[], Fault | None] = lambda: None
        self.hit_step = self.hit_call = -1
        story, guest = STORIES[name]
        self._guest = guest
        self.world = World(
            faults=_Hook(self), guest_of=lambda _id: guest, spool_folder=spool / "spool", deadlines=SHORT
        )
        self.world.before_step = self._before_step
        self.script = Script(self.world, self.world_spool(spool))
        self._story = story

    @staticmethod
    def world_spool(spool: Path) -> Path:
        return spool / "spool"

    def tell(self) -> None:
        try:
            with contextlib.suppress(EnoughTold):
                self._story(self.script)
            self.script.end()
        finally:
            self.world.close()

    def _before_step(self, task: Task) -> None:
        self.steps.append(self._point(self.steps, f"{task.kind} {task.step}"))
        if len(self.steps) - 1 == self.hit_step:
            self._disturbed()
            self.at_step(task)

    def call(self, verb: str) -> Fault | None:
        step = self.steps[-1].what if self.steps else "start"
        self.calls.append(self._point(self.calls, f"{step} {verb}"))
        if len(self.calls) - 1 != self.hit_call:
            return None
        self._disturbed()
        return self.at_call()

    def _disturbed(self) -> None:
        """One more thing must work after what went wrong; then the story may end."""
        self.script.enough = self.script.chapter + 2

    def _point(self, points: list[Point], what: str) -> Point:
        past = f"{self._guest} {self.script.past} {[point.what for point in points]}"
        return Point(len(points), self.script.chapter, what, past)

    def change_intent(self, intent: str) -> None:
        """Do what a caller may do, to every instance there is. Raises NothingChanged if that changed nothing."""
        world = self.world
        before = world.store.read(lambda tx: tx.instances.where())
        for id in [row.id for row in before]:
            if intent == "force":
                self.script.do(world.stop, id, force=True)
            else:
                self.script.do(getattr(world, intent), id)
        if world.store.read(lambda tx: tx.instances.where()) == before:
            raise NothingChanged


class NothingChanged(BaseException):
    """The rest of the story would be the undisturbed one, which has been told."""


class _Hook(Faults):
    def __init__(self, told: Told) -> None:
        self._told = told

    def choose(self, host_id: str, verb: str, resource_id: str) -> Fault | None:
        return self._told.call(verb)


def distinct(points: list[Point]) -> list[Point]:
    """Return the points worth hitting: of equal ones in a chapter, the first and the last."""
    ends: dict[tuple[int, str], list[Point]] = {}
    for point in points:
        ends.setdefault((point.chapter, point.what), []).append(point)
    kept = {point.number: point for alike in ends.values() for point in (alike[0], alike[-1])}
    return [kept[number] for number in sorted(kept)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    told = {name: Told(name, tmp_path_factory.mktemp("story")) for name in STORIES}
    pasts: set[tuple[str, str]] = set()
    for each in told.values():
        each.tell()
        each.steps, each.calls = _unseen(each.steps, pasts), _unseen(each.calls, pasts)
    return told


def _unseen(points: list[Point], pasts: set[tuple[str, str]]) -> list[Point]:
    """Return the distinct points that no other story has come to in the same way."""
    kept = [point for point in distinct(points) if (point.what, point.past) not in pasts]
    pasts.update((point.what, point.past) for point in kept)
    return kept


def disturb(points: list[Point], tell: Callable[[Point], None]) -> None:
    """Tell a story once for each point; fail with every point that went wrong, and the whole of the first."""
    failures: list[tuple[Point, BaseException]] = []
    for point in points:
        try:
            tell(point)
        except NothingChanged:
            continue
        except (AssertionError, Exception) as error:
            failures.append((point, error))
    if failures:
        wrong = "\n".join(
            f"{point}: {str(error).splitlines()[0] if str(error) else error!r}" for point, error in failures
        )
        raise AssertionError(f"{len(failures)} of {len(points)} points:\n{wrong}\n\n{failures[0][1]}") from failures[0][
            1
        ]


def test_the_stories_run_every_step_of_every_program(undisturbed: dict[str, Told]) -> None:
    """A new step is unfinished until a story runs it, and so everything below befalls it."""
    ran = {f"{kind} {step}" for told in undisturbed.values() for kind, step in told.world.trace}
    wanted = {f"{program().kind} {step}" for program in PROGRAMS for step in program().steps}
    assert wanted == ran


def test_the_worlds_of_the_tests_run_every_program_there_is() -> None:
    import minicloud.controller.programs as package

    modules = {path.stem for path in Path(package.__path__[0]).glob("*.py")} - {"__init__"}
    assert {program.__module__.rpartition(".")[2] for program in PROGRAMS} <= modules
    kinds = [
        line
        for path in Path(package.__path__[0]).glob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith('kind = "')
    ]
    assert len(kinds) == len(PROGRAMS)


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
@pytest.mark.parametrize("name", STORIES)
def test_a_fault_at_every_call(name: str, fault: Fault, undisturbed: dict[str, Told], tmp_path: Path) -> None:
    def tell(point: Point) -> None:
        told = Told(name, tmp_path)
        told.hit_call = point.number
        told.at_call = lambda: fault
        told.tell()

    disturb([point for point in undisturbed[name].calls if is_different(fault, point.what.split()[-1])], tell)


@pytest.mark.parametrize("fault", [Fault.CRASH_AFTER, Fault.LOST_REPLY, Fault.HANG], ids=lambda fault: fault.value)
@pytest.mark.parametrize("name", ["whole life", "many disks", "stubborn guest"])
def test_a_call_that_was_done_unseen_and_then_the_end(
    name: str, fault: Fault, undisturbed: dict[str, Told], tmp_path: Path
) -> None:
    """What the controller does not know it did is still taken into account when the owner gives up at that moment."""

    def tell(point: Point) -> None:
        told = Told(name, tmp_path)

        def at_call() -> Fault:
            told.hit_step, told.at_step = len(told.steps), lambda _task: told.change_intent("terminate")
            return fault

        told.hit_call, told.at_call = point.number, at_call
        told.tell()

    changing = [point for point in undisturbed[name].calls if point.what.split()[-1] not in LOOKS]
    disturb(changing, tell)


def is_different(fault: Fault, verb: str) -> bool:
    """Say whether the fault does anything to this verb that no other does."""
    if verb in LOOKS:
        return fault in OF_LOOKS
    return verb in HALVES or fault not in OF_HALVES


@pytest.mark.parametrize("what", AT_STEPS)
@pytest.mark.parametrize("name", STORIES)
def test_a_failure_at_every_step(name: str, what: str, undisturbed: dict[str, Told], tmp_path: Path) -> None:
    def tell(point: Point) -> None:
        told = Told(name, tmp_path)
        told.hit_step = point.number
        told.at_step = lambda _task: _fail(told.world, what)
        told.tell()

    disturb(undisturbed[name].steps, tell)


def _fail(world: World, what: str) -> None:
    if what == "crash before step":
        raise ControllerCrash(what)

    def once(error: BaseException) -> Callable[[], None]:
        def act() -> None:
            world.store.before_write = world.store.after_write = lambda: None
            raise error

        return act

    if what == "crash before commit":
        world.store.before_write = once(ControllerCrash(what))
    elif what == "crash after commit":
        world.store.after_write = once(ControllerCrash(what))
    else:
        world.store.before_write = once(StoreBusyError(what))


@pytest.mark.parametrize("intent", INTENTS)
@pytest.mark.parametrize("name", STORIES)
def test_a_change_of_mind_before_every_step(
    name: str, intent: str, undisturbed: dict[str, Told], tmp_path: Path
) -> None:
    def tell(point: Point) -> None:
        told = Told(name, tmp_path)
        told.hit_step = point.number
        told.at_step = lambda _task: told.change_intent(intent)
        told.tell()

    disturb(undisturbed[name].steps, tell)


@pytest.mark.parametrize("intent", INTENTS)
@pytest.mark.parametrize("name", STORIES)
def test_a_change_of_mind_during_every_call(
    name: str, intent: str, undisturbed: dict[str, Told], tmp_path: Path
) -> None:
    def tell(point: Point) -> None:
        told = Told(name, tmp_path)
        told.hit_call = point.number
        told.at_call = lambda: told.change_intent(intent)  # type: ignore[func-returns-value]
        told.tell()

    disturb(undisturbed[name].calls, tell)
