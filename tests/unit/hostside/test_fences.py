"""Fences: one holder at a time, and no epoch older than the newest one seen."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minicloud.hostside import codes, fences
from minicloud.hostside.failures import Failure
from minicloud.hostside.fences import fenced

INSTANCE = "i-0123456789abcdef0"


def test_older_epoch_is_refused_and_equal_or_newer_admitted(tmp_path: Path) -> None:
    for epoch in (3, 3, 7):
        with fenced(str(tmp_path), INSTANCE, epoch):
            pass
    with pytest.raises(Failure) as caught, fenced(str(tmp_path), INSTANCE, 6):
        pass
    assert (caught.value.code, caught.value.transient) == (codes.STALE_EPOCH, True)


def test_epoch_is_remembered_although_the_verb_failed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), fenced(str(tmp_path), INSTANCE, 5):
        raise RuntimeError("the verb")
    with pytest.raises(Failure), fenced(str(tmp_path), INSTANCE, 4):
        pass


def test_resources_do_not_share_fences(tmp_path: Path) -> None:
    with fenced(str(tmp_path), INSTANCE, 9), fenced(str(tmp_path), "i-00000001", 1):
        pass


def test_one_thread_at_a_time(tmp_path: Path) -> None:
    inside = threading.Semaphore(1)
    entered: list[int] = []

    def work(epoch: int) -> None:
        with fenced(str(tmp_path), INSTANCE, 1, lock_seconds=600.0):
            assert inside.acquire(blocking=False), "two holders at once"
            entered.append(epoch)
            inside.release()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entered) == 16
    assert not fences._mutexes._entries


def test_busy_when_the_holder_stays(tmp_path: Path) -> None:
    with fenced(str(tmp_path), INSTANCE, 1):
        results: list[Failure] = []

        def late() -> None:
            try:
                with fenced(str(tmp_path), INSTANCE, 2, lock_seconds=0.05):
                    pass
            except Failure as failure:
                results.append(failure)

        thread = threading.Thread(target=late)
        thread.start()
        thread.join()
    assert [(f.code, f.transient) for f in results] == [(codes.BUSY, True)]
    with fenced(str(tmp_path), INSTANCE, 1):
        pass  # The late caller's epoch was never admitted.


def test_nothing_waits_beyond_a_deadline_that_has_passed(tmp_path: Path) -> None:
    for late in (-1.0, -0.5):
        with fenced(str(tmp_path), INSTANCE, 1, lock_seconds=late):
            pass  # Free: admitted; the session has checked the deadline itself.
        with fenced(str(tmp_path), INSTANCE, 1):
            thread = threading.Thread(target=_expect_busy, args=(str(tmp_path), late))
            thread.start()
            thread.join(60)
            assert not thread.is_alive()


def _expect_busy(state: str, lock_seconds: float) -> None:
    with pytest.raises(Failure), fenced(state, INSTANCE, 1, lock_seconds):
        pass


def test_a_session_killed_inside_releases_the_fence(tmp_path: Path) -> None:
    script = (
        "import sys; from minicloud.hostside.fences import fenced\n"
        "with fenced(sys.argv[1], sys.argv[2], 4): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), INSTANCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == b"in\n"
        with pytest.raises(Failure) as caught, fenced(str(tmp_path), INSTANCE, 5, lock_seconds=0.05):
            pass
        assert caught.value.code == codes.BUSY
        holder.kill()
        holder.wait()
    with pytest.raises(Failure) as caught, fenced(str(tmp_path), INSTANCE, 3):
        pass
    assert caught.value.code == codes.STALE_EPOCH
    with fenced(str(tmp_path), INSTANCE, 4):
        pass


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "x" * 129, "i\n"])
def test_names_that_are_not_ids_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure) as caught, fenced(str(tmp_path), name, 1):
        pass
    assert not caught.value.transient


@pytest.mark.parametrize("epoch", [-1, 2**63, "1", 1.0, None, True])
def test_epochs_that_are_not_counters_are_refused(tmp_path: Path, epoch: object) -> None:
    with pytest.raises(Failure), fenced(str(tmp_path), INSTANCE, epoch):  # type: ignore[arg-type]
        pass


def test_ended_fences_still_refuse_until_they_are_forgotten(tmp_path: Path) -> None:
    state = str(tmp_path)
    with fenced(state, INSTANCE, 8) as fence:
        fence.end()
    with fenced(state, "i-00000001", 1):
        pass
    with pytest.raises(Failure), fenced(state, INSTANCE, 7):
        pass
    ended_at = (tmp_path / "fences" / INSTANCE).stat().st_mtime
    assert fences.forget_ended(state, ended_at + fences.KEPT_SECONDS - 1) == 0
    assert fences.forget_ended(state, ended_at + fences.KEPT_SECONDS + 60) == 1
    assert [found.name for found in (tmp_path / "fences").iterdir()] == ["i-00000001"], "what lives is never forgotten"


def test_a_resource_that_is_used_again_lives_again(tmp_path: Path) -> None:
    state = str(tmp_path)
    with fenced(state, "fill-x", 1) as fence:
        fence.end()
    with fenced(state, "fill-x", 1):
        pass
    assert fences.forget_ended(state, (tmp_path / "fences" / "fill-x").stat().st_mtime + fences.KEPT_SECONDS + 60) == 0


def test_a_fence_that_is_held_is_not_forgotten(tmp_path: Path) -> None:
    state = str(tmp_path)
    with fenced(state, INSTANCE, 1) as fence:
        fence.end()
        assert fences.forget_ended(state, 1e12) == 0
    assert fences.forget_ended(state, 1e12) == 1


def test_forgetting_where_there_are_none(tmp_path: Path) -> None:
    assert fences.forget_ended(str(tmp_path), 1e12) == 0


def test_whoever_waited_on_a_forgotten_fence_takes_the_new_one(tmp_path: Path) -> None:
    """The file may be removed between open and lock: two holders of two files of one name would be no fence."""
    state = str(tmp_path)
    with fenced(state, INSTANCE, 1) as fence:
        fence.end()
    stop = threading.Event()
    problems: list[str] = []
    inside = threading.Lock()

    def forget() -> None:
        while not stop.is_set():
            fences.forget_ended(state, 1e12)

    def use() -> None:
        for _ in range(200):
            with fenced(state, INSTANCE, 1, lock_seconds=600.0) as held:
                if not inside.acquire(blocking=False):
                    problems.append("two holders at once")
                    return
                held.end()
                inside.release()

    forgetter = threading.Thread(target=forget)
    users = [threading.Thread(target=use) for _ in range(2)]
    for thread in [forgetter, *users]:
        thread.start()
    for thread in users:
        thread.join()
    stop.set()
    forgetter.join()
    assert not problems
