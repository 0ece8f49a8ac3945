"""The throttle of failed signatures: who is sent away, and who must not be."""

from __future__ import annotations

from collections.abc import Iterable

from minicloud.api.throttle import (
    ADDRESS_BURST,
    ADDRESS_PER_SECOND,
    PAIR_BURST,
    PAIR_PER_SECOND,
    FailureThrottle,
)
from minicloud.clock import ManualClock

HERE, THERE = "192.0.2.1", "198.51.100.7"
OWNED, OTHER = "AKIAOWNED", "AKIAOTHER"


def guess(throttle: FailureThrottle, address: str, keys: Iterable[str]) -> int:
    """Try keys with wrong secrets, for ever or until one is not verified; return how many were."""
    verified = 0
    for key in keys:
        if not throttle.admits(address, key):
            return verified
        throttle.failed(address, key)
        verified += 1
    return verified


def repeat(key: str, times: int = 1000) -> list[str]:
    return [key] * times


def test_a_key_is_guessed_at_so_often_and_then_as_time_allows() -> None:
    clock = ManualClock()
    throttle = FailureThrottle(clock)
    assert guess(throttle, HERE, repeat(OWNED)) == PAIR_BURST
    assert not throttle.admits(HERE, OWNED)
    clock.advance(3 / PAIR_PER_SECOND)
    assert guess(throttle, HERE, repeat(OWNED)) == 3
    clock.jump_wall(3600)
    assert not throttle.admits(HERE, OWNED)
    clock.advance(3600)
    assert guess(throttle, HERE, repeat(OWNED)) == PAIR_BURST


def test_trying_many_keys_is_no_way_around() -> None:
    clock = ManualClock()
    throttle = FailureThrottle(clock)
    assert guess(throttle, HERE, (f"AKIA{n}" for n in range(1000))) == ADDRESS_BURST
    clock.advance(2 / ADDRESS_PER_SECOND)
    assert guess(throttle, HERE, (f"AKIB{n}" for n in range(1000))) == 2


def test_an_owner_is_not_locked_out_from_elsewhere() -> None:
    throttle = FailureThrottle(ManualClock())
    guess(throttle, HERE, repeat(OWNED))
    assert throttle.admits(THERE, OWNED)


def test_an_owner_is_not_locked_out_by_a_neighbour_who_guesses_at_the_same_key() -> None:
    throttle = FailureThrottle(ManualClock())
    throttle.succeeded(HERE, OWNED)
    for _ in range(1000):
        throttle.failed(HERE, OWNED)
    assert throttle.admits(HERE, OWNED)
    # The guesses themselves are answered as throttled.
    assert not throttle.failed(HERE, OWNED)


def test_an_owner_who_comes_to_an_address_of_guessers_is_verified() -> None:
    throttle = FailureThrottle(ManualClock())
    throttle.succeeded(THERE, OWNED)
    guess(throttle, HERE, (f"AKIA{n}" for n in range(1000)))
    assert not throttle.admits(HERE, OTHER)
    assert throttle.admits(HERE, OWNED)


def test_failures_say_when_they_are_too_many() -> None:
    throttle = FailureThrottle(ManualClock())
    throttle.succeeded(HERE, OWNED)
    answers = [throttle.failed(HERE, OWNED) for _ in range(int(PAIR_BURST) + 1)]
    assert answers == [True] * int(PAIR_BURST) + [False]


def test_a_network_of_addresses_is_one_address() -> None:
    throttle = FailureThrottle(ManualClock())
    for n in range(int(PAIR_BURST)):
        assert throttle.failed(f"2001:db8:1:2::{n:x}", OWNED)
    assert not throttle.admits("2001:db8:1:2:ffff::1", OWNED)
    assert throttle.admits("2001:db8:1:3::1", OWNED)
    guess(throttle, HERE, repeat(OWNED))
    assert not throttle.admits(f"::ffff:{HERE}", OWNED)
    assert throttle.admits("::ffff:198.51.100.8", OWNED)


def test_what_is_remembered_is_bounded() -> None:
    throttle = FailureThrottle(ManualClock(), max_remembered=3)
    for n in range(50):
        throttle.failed(f"192.0.2.{n}", f"AKIA{n}")
        throttle.succeeded(f"192.0.2.{n}", f"AKIA{n}")
    sizes = [
        len(throttle._pairs._buckets), len(throttle._addresses._buckets),
        len(throttle._good_pairs._keys), len(throttle._good_keys._keys),
    ]  # fmt: skip
    assert sizes == [3, 3, 3, 3]


def test_who_is_still_guessing_is_forgotten_last() -> None:
    throttle = FailureThrottle(ManualClock(), max_remembered=3)
    guess(throttle, HERE, repeat(OWNED))
    for n in range(50):
        throttle.failed(f"192.0.2.{n + 2}", OTHER)
        throttle.failed(HERE, OWNED)
    assert not throttle.admits(HERE, OWNED)


def test_an_address_may_be_no_address() -> None:
    throttle = FailureThrottle(ManualClock())
    assert guess(throttle, "", repeat(OWNED)) == PAIR_BURST
