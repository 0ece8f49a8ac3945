"""Refusing what would be ignored, and waking who waits; without a server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from minicloud.api.changes import ChangeHub
from minicloud.api.parameters import refuse_unsupported
from minicloud.errors import ApiError

HONOURS = frozenset({"Name", "Placement.Zone", "Disks.Ebs"})
TOLERATES = {"Placement.Tenancy": ("default",), "Disks.Index": (0,), "Flag": (False,)}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"Name": "x", "DryRun": True},
        {"Placement": {"Zone": "a", "Tenancy": "default"}},
        {"Disks": [{"Ebs": {"Size": 1, "Deep": {"er": 2}}, "Index": 0}, {"Ebs": {}}]},
        {"Flag": False},
        {"Unknown": []},
    ],
)
def test_what_is_honoured_or_asks_for_what_happens_anyway(parameters: dict[str, Any]) -> None:
    refuse_unsupported(parameters, HONOURS, TOLERATES)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"Other": "x"}, "Other"),
        ({"Placement": {"Zone": "a", "Tenancy": "dedicated"}}, "Placement.Tenancy"),
        ({"Placement": {"Zone": "a", "Group": "g"}}, "Placement.Group"),
        ({"Disks": [{"Ebs": {"Size": 1}}, {"Index": 1}]}, "Disks.Index"),
        ({"Flag": True}, "Flag"),
        ({"Names": ["x"]}, "Names"),
        ({"Name": "x", "NameX": "y"}, "NameX"),
    ],
)
def test_what_would_be_ignored_is_refused_by_name(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ApiError) as caught:
        refuse_unsupported(parameters, HONOURS, TOLERATES)
    assert caught.value.code == "UnsupportedOperation"
    assert f" {named} " in caught.value.message


def test_a_change_before_the_wait_is_not_lost() -> None:
    async def scenario() -> None:
        hub = ChangeHub()
        seen = hub.count
        hub.notify()
        assert await hub.wait(seen, 60)
        assert not await hub.wait(hub.count, 0.01)

    asyncio.run(scenario())


def test_a_change_from_another_thread_wakes_every_waiter() -> None:
    async def scenario() -> None:
        hub = ChangeHub()
        waiters = [asyncio.create_task(hub.wait(0, 60)) for _ in range(3)]
        await asyncio.sleep(0)
        thread = threading.Thread(target=hub.notify)
        thread.start()
        assert await asyncio.gather(*waiters) == [True, True, True]
        thread.join()
        assert not hub._waiters

    asyncio.run(scenario())


def test_a_waiter_whose_loop_is_gone_harms_nobody() -> None:
    hub = ChangeHub()
    loop = asyncio.new_event_loop()
    hub._waiters.add((loop, asyncio.Event()))
    loop.close()
    hub.notify()
    assert hub.count == 1
