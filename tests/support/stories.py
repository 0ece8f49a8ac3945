"""Stories: lives of instances and imports that between them run every step of every program, as a caller tells them.

Each is a function of a Script, which does one thing after another and lets the cloud come to rest in between; calls
that a fault made impossible are refused, as EC2 refuses them, and the story goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.debris import assert_no_debris
from support.world import World

from minicloud.cloud.block_devices import DeviceRequest
from minicloud.cloud.metadata_options import MetadataRequest
from minicloud.hosts.fake import Guest
from minicloud.model.states import InstanceState

STUBBORN = Guest(obeys_acpi=False, death_seconds=3.0)
SLOW = Guest(boot_seconds=0.5, shutdown_seconds=20.0, death_seconds=1.0)


class EnoughTold(BaseException):
    """What follows would show nothing more."""


class Script:
    """Tells one story. `chapter` counts how often the cloud came to rest in it."""

    def __init__(self, world: World, spool: Path) -> None:
        self.world = world
        self.spool = spool
        self.ids: list[str] = []
        self.chapter = 0
        # The chapter that need not be told any more: the rest is the story's end.
        self.enough: int | None = None
        # What was done so far: two stories with the same past are the same until they part.
        self.past: list[str] = []

    def launch(self, **changes: Any) -> str:
        self.past.append(f"launch {changes}")
        self.ids += self.world.launch(**changes)
        return self.ids[-1]

    def do(self, call: Callable[..., object], *arguments: Any, **keywords: Any) -> None:
        self.past.append(f"{call.__name__} {arguments} {keywords}")
        self.world.note(f"call {getattr(call, '__name__', call)} {arguments} {keywords}")
        refused = self.world.try_call(call, *arguments, **keywords)
        if refused:
            self.world.note(f"refused: {refused}")

    def befall(self, event: Callable[..., object], *arguments: Any) -> None:
        """Let something happen that nobody asked for."""
        self.past.append(f"{event.__name__} {arguments[:3]}")
        self.world.note(f"{event.__name__} {arguments[:3]}")
        event(*arguments)

    def rest(self) -> None:
        self.world.rest()
        assert_no_debris(self.world)
        self.chapter += 1
        if self.chapter == self.enough:
            raise EnoughTold

    def end(self) -> None:
        """Terminate what is left, wait until nobody remembers it, and find nothing."""
        self.enough = None
        for id in self.ids:
            self.do(self.world.terminate, id)
        self.rest()
        for id in self.ids:
            row = self.world.store.read(lambda tx, id=id: tx.instances.get(id))
            assert row is None or row.state is InstanceState.TERMINATED
        self.world.clock.advance(2 * self.world.config.deadlines.terminated_visible_seconds)
        self.world.run_until(lambda: self.world.store.read(lambda tx: tx.tasks.count()) == 0)
        assert self.world.store.read(lambda tx: (tx.tasks.count(), tx.instances.count())) == (0, 0), self.world.story()
        assert_no_debris(self.world)


def whole_life(script: Script) -> None:
    id = script.launch()
    script.rest()
    script.do(script.world.reboot, id)
    script.rest()
    script.do(script.world.stop, id)
    script.rest()
    script.do(script.world.start, id)
    script.rest()


def stubborn_guest(script: Script) -> None:
    id = script.launch()
    script.rest()
    script.do(script.world.reboot, id)
    script.rest()
    script.do(script.world.stop, id)
    script.rest()
    script.do(script.world.start, id)
    script.rest()


def forced_stop(script: Script) -> None:
    id = script.launch()
    script.rest()
    script.do(script.world.stop, id, force=True)
    script.rest()


def guest_powers_off(script: Script) -> None:
    id = script.launch()
    script.rest()
    script.befall(script.world.host_of(id).guest_powers_off, id)
    script.rest()
    script.do(script.world.start, id)
    script.rest()


def guest_ends_itself(script: Script) -> None:
    id = script.launch(shutdown_behavior="terminate")
    script.rest()
    script.befall(script.world.host_of(id).guest_powers_off, id)
    script.rest()


def qemu_crashes(script: Script) -> None:
    id = script.launch(shutdown_behavior="terminate")
    script.rest()
    script.befall(script.world.host_of(id).qemu_crashes, id)
    script.rest()


def host_restarts(script: Script) -> None:
    id = script.launch()
    script.rest()
    host = script.world.host_of(id)
    script.befall(host.power_cycle)
    script.befall(host.reconnect)
    script.rest()
    script.do(script.world.start, id)
    script.rest()


def many_disks(script: Script) -> None:
    """Instance store, a volume that stays when its instance ends, and one that goes."""
    id = script.launch(
        instance_type="m5d.large",
        block_devices=(
            DeviceRequest(device_name="/dev/sdf", size_gib=2, delete_on_termination=False),
            DeviceRequest(device_name="/dev/sdg", size_gib=3, delete_on_termination=True),
        ),
    )
    script.rest()
    script.do(script.world.stop, id)
    script.rest()


def changed_while_it_runs(script: Script) -> None:
    """What its guest is told of itself changes under it; then, stopped, it becomes a type with instance store."""
    id = script.launch(metadata=MetadataRequest(instance_metadata_tags="enabled"))
    script.do(script.world.tag, id, name="early")
    script.rest()
    script.do(script.world.change_options, id, http_tokens="required")
    script.do(script.world.tag, id, name="late", more="said")
    script.rest()
    script.do(script.world.untag, id, "more")
    script.do(script.world.stop, id)
    script.rest()
    script.do(script.world.change_attribute, id, instance_type="m5d.large")
    script.do(script.world.change_options, id, http_put_response_hop_limit=3)
    script.do(script.world.start, id)
    script.rest()


def terminated_at_once(script: Script) -> None:
    script.do(script.world.terminate, script.launch())
    script.rest()


def no_room(script: Script) -> None:
    script.befall(script.world.shrink_pools, 1)
    script.launch()
    script.rest()


def imported(script: Script) -> None:
    script.befall(script.world.import_disk, script.spool)
    script.rest()


def import_is_refused(script: Script) -> None:
    """The file is no image: a verdict that no retry changes."""
    script.befall(script.world.fail_jobs, "invalid-image")
    script.befall(script.world.import_disk, script.spool)
    script.rest()


def import_is_lost_and_tried_again(script: Script) -> None:
    script.befall(script.world.fail_jobs, "job-lost", "unavailable")
    script.befall(script.world.import_disk, script.spool)
    script.rest()


def import_never_works(script: Script) -> None:
    script.befall(script.world.fail_jobs, *["job-lost"] * 1000)
    script.befall(script.world.import_disk, script.spool)
    script.rest()


def copied_image(script: Script) -> None:
    script.befall(script.world.copy_image)
    script.rest()


def fill_is_lost_and_tried_again(script: Script) -> None:
    script.befall(script.world.fail_jobs, "job-lost", "corrupt-block")
    script.launch()
    script.rest()


def fill_never_works(script: Script) -> None:
    script.befall(script.world.fail_jobs, *["unavailable"] * 1000)
    script.launch()
    script.rest()


STORIES: dict[str, tuple[Callable[[Script], None], Guest]] = {
    "whole life": (whole_life, Guest()),
    "stubborn guest": (stubborn_guest, STUBBORN),
    "slow guest": (whole_life, SLOW),
    "forced stop": (forced_stop, Guest(death_seconds=2.0)),
    "guest powers off": (guest_powers_off, Guest()),
    "guest ends itself": (guest_ends_itself, Guest()),
    "qemu crashes": (qemu_crashes, Guest()),
    "host restarts": (host_restarts, Guest()),
    "many disks": (many_disks, Guest()),
    "changed while it runs": (changed_while_it_runs, Guest()),
    "terminated at once": (terminated_at_once, Guest()),
    "no room": (no_room, Guest()),
    "fill is lost": (fill_is_lost_and_tried_again, Guest()),
    "fill never works": (fill_never_works, Guest()),
    "copied image": (copied_image, Guest()),
    "imported": (imported, Guest()),
    "import is refused": (import_is_refused, Guest()),
    "import is lost": (import_is_lost_and_tried_again, Guest()),
    "import never works": (import_never_works, Guest()),
}
