"""What coverage.py says of every parameter of every operation is what happens to a request that has it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import front as build

from minicloud.api.coverage import Parameter, Support, list_parameters
from minicloud.api.operations import OPERATIONS, load_served_catalog, perform
from minicloud.api.rows import Handler, Row
from minicloud.api.services import Context
from minicloud.aws.jsonwire import parse_json
from minicloud.aws.models import Operation, Shape
from minicloud.errors import ApiError

CATALOG = load_served_catalog()
SERVED = [(service, name) for service, rows in OPERATIONS.items() for name in rows]
every_operation = pytest.mark.parametrize(("service", "name"), SERVED, ids=[name for _, name in SERVED])

# What perform() itself reads before a handler is called.
LISTING = ("Filters", "MaxResults", "NextToken", "DryRun")
ATTEMPTS = 24
# What operations need beside what the model calls required.
NEEDED = ("ImageId", "DiskContainer.Url", "DiskContainer.Format", "DiskContainers.Url", "DiskContainers.Format")
# Values that get a request past the first checks, by the last name of a path; ids of a context are put in with it.
LIKELY: dict[str, tuple[Any, ...]] = {
    "ImageId": (build.IMAGE_ID,),
    "SourceImageId": (build.IMAGE_ID,),
    "SnapshotId": (build.SNAPSHOT_ID,),
    "InstanceType": ("t3.nano",),
    "MinCount": (1,),
    "MaxCount": (1,),
    "KeyName": ("mine",),
    "AvailabilityZone": ("lab-1a",),
    "AvailabilityZoneId": ("lab1-az1",),
    "SourceRegion": (build.REGION,),
    "ResourceType": ("instance", "image", "key-pair", "snapshot", "import-snapshot-task"),
    "DeviceName": ("/dev/sda1",),
    "Format": ("raw",),
    "UserData": ("aGVsbG8=",),
    "OperationType": ("add", "remove"),
    "UserIds": ("100000000001",),
    "Architecture": ("x86_64",),
}


def shape_at(shape: Shape, path: str) -> Shape:
    """The scalar (or map) that a path ends in."""
    for part in path.split("."):
        shape = shape.members[part].shape
        while shape.kind == "list":
            assert shape.element is not None
            shape = shape.element.shape
    return shape


def sample(shape: Shape, name: str, turn: int = 0) -> Any:
    """A value of a scalar's shape, as JSON has it."""
    if name in LIKELY:
        return LIKELY[name][turn % len(LIKELY[name])]
    if shape.kind == "boolean":
        return turn % 2 == 0
    if shape.kind in ("integer", "long", "float", "double"):
        return max(1, int(shape.minimum or 1))
    if shape.kind == "timestamp":
        return "2024-01-01T00:00:00Z"
    if shape.kind == "blob":
        return "AAAA"
    if shape.kind == "map":
        assert shape.value is not None
        return {"key": sample(shape.value.shape, "")}
    if shape.enum:
        return shape.enum[turn % len(shape.enum)]
    return "x" * max(1, int(shape.minimum or 1))


def put(shape: Shape, into: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path; structures on the way get what they require, after it."""
    first, _, rest = path.partition(".")
    member = shape.members[first].shape
    lists = 0
    while member.kind == "list":
        assert member.element is not None
        member, lists = member.element.shape, lists + 1
    if rest:
        target = into.get(first)
        while isinstance(target, list):
            target = target[0]
        if target is None:
            target = {}
        put(member, target, rest, value)
        for name in member.required:
            if name not in target:
                put(member, target, *next(filled(member, name)))
        value = target
    for _ in range(lists):
        value = [value]
    into[first] = value


def filled(shape: Shape, name: str, turn: int = 0) -> Iterator[tuple[str, Any]]:
    """One leaf of a member, with a value."""
    member = shape.members[name].shape
    path = name
    while member.kind in ("list", "structure"):
        if member.kind == "list":
            assert member.element is not None
            member = member.element.shape
        else:
            below = (*member.required, *member.members)[0]
            path, member = f"{path}.{below}", member.members[below].shape
    yield path, sample(member, path.rpartition(".")[2], turn)


def request_with(operation: Operation, path: str, value: Any) -> dict[str, Any]:
    """JSON parameters with a value at a path, which stands first, and all that the operation requires."""
    assert operation.input is not None
    parameters: dict[str, Any] = {}
    put(operation.input, parameters, path, value)
    for name in operation.input.required:
        if name not in parameters:
            put(operation.input, parameters, *next(filled(operation.input, name)))
    return parameters


def build_context(folder: Path) -> Context:
    """A cloud with an instance and a key pair, which may import a file that is there."""
    disk = folder / "disk.raw"
    disk.write_bytes(b"disk")
    LIKELY["Url"] = (disk.as_uri(),)
    front = build.build_front(CATALOG, image_import_folders=(str(folder),))
    context = Context(front.services, build.root_caller())
    perform(context, "ec2", "CreateKeyPair", {"KeyName": "mine", "KeyType": "ed25519"})
    launch = {"ImageId": build.IMAGE_ID, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano"}
    made = perform(context, "ec2", "RunInstances", launch)
    assert made is not None
    (instance,) = made["Instances"]
    LIKELY["InstanceId"] = LIKELY["InstanceIds"] = LIKELY["Resources"] = (instance["InstanceId"],)
    LIKELY["VpcId"] = (instance["VpcId"],)
    LIKELY["VolumeId"] = (instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"],)
    LIKELY["NetworkInterfaceId"] = (instance["NetworkInterfaces"][0]["NetworkInterfaceId"],)
    return context


def outcome(context: Context, service: str, name: str, parameters: Mapping[str, Any]) -> str:
    """Which parameter the request was refused for as not supported; empty if for none."""
    operation = CATALOG.operation(service, name)
    try:
        perform(context, service, name, parse_json(operation, parameters))
    except ApiError as error:
        if error.code == "UnsupportedOperation" and error.message.startswith("The parameter "):
            return error.message.split()[2]
    return ""


def parameters_of(service: str, name: str) -> list[Parameter]:
    return list_parameters(CATALOG.operation(service, name), OPERATIONS[service][name])


@every_operation
def test_what_is_refused_is_refused_and_nothing_else(service: str, name: str, tmp_path: Path) -> None:
    operation = CATALOG.operation(service, name)
    context = build_context(tmp_path)
    wrong = []
    for one in parameters_of(service, name):
        assert operation.input is not None
        shape = shape_at(operation.input, one.path)
        value = sample(shape, one.path.rpartition(".")[2])
        if one.support is Support.ACCEPTED:
            for accepted in one.values:
                if outcome(context, service, name, request_with(operation, one.path, accepted)) == one.path:
                    wrong.append(f"{one.path} is accepted as {accepted!r}, yet refused")
            if not one.values:
                for turn in range(2):
                    anything = sample(shape, "", turn)
                    if outcome(context, service, name, request_with(operation, one.path, anything)) == one.path:
                        wrong.append(f"{one.path} is accepted whatever it is, yet refused as {anything!r}")
                continue
            others = {"boolean": (True, False), "integer": (1, 2)}.get(shape.kind, shape.enum or ("x",))
            for other in others:
                if other in one.values:
                    continue
                if outcome(context, service, name, request_with(operation, one.path, other)) != one.path:
                    wrong.append(f"{one.path} is not refused as {other!r}")
            continue
        refused = outcome(context, service, name, request_with(operation, one.path, value))
        if one.support is Support.REFUSED and not (refused == one.path or refused.startswith(f"{one.path}.")):
            wrong.append(f"{one.path} is not refused, but {refused or 'nothing'} is")
        if one.support is Support.HONOURED and refused == one.path:
            wrong.append(f"{one.path} is honoured, yet refused")
    assert not wrong


@every_operation
def test_every_path_that_a_row_declares_is_in_the_model(service: str, name: str) -> None:
    row = OPERATIONS[service][name]
    leaves = [one.path for one in parameters_of(service, name)]
    unknown = [path for path in row.honours if not any(f"{leaf}.".startswith(f"{path}.") for leaf in leaves)]
    # A tolerated path is compared with a value, so it must be a leaf.
    assert not unknown + [path for path in row.tolerates if path not in leaves]
    if row.pages is not None:
        assert set(row.pages.not_with) <= set(leaves)


class Watched(dict[str, Any]):
    """Parameters that remember what was asked of them by name; to go through all of them is no reading."""

    def __init__(self, parameters: Mapping[str, Any], path: str, read: set[str]) -> None:
        super().__init__({name: _watch(value, f"{path}{name}", read) for name, value in parameters.items()})
        self._path = path
        self._read = read

    def __getitem__(self, name: str) -> Any:
        self._read.add(self._path + name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._read.add(f"{self._path}{name}")
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(self._path + name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self._read.add(self._path + name)
        return super().pop(name, *default)


def _watch(value: Any, path: str, read: set[str]) -> Any:
    if isinstance(value, dict):
        return Watched(value, f"{path}.", read)
    if isinstance(value, list):
        return [_watch(one, path, read) for one in value]
    return value


def watching(handler: Handler, read: set[str]) -> Handler:
    return lambda context, parameters: handler(context, Watched(parameters, "", read))


@every_operation
def test_what_is_honoured_is_read(service: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests with every honoured parameter, one of them, and some of them, until each has been asked for by name."""
    operation = CATALOG.operation(service, name)
    row: Row = OPERATIONS[service][name]
    read: set[str] = set()
    monkeypatch.setitem(OPERATIONS[service], name, replace(row, handler=watching(row.handler, read)))  # type: ignore[arg-type]
    honoured = [
        one.path
        for one in parameters_of(service, name)
        if one.support is Support.HONOURED and one.path.partition(".")[0] not in LISTING
    ]
    choose = random.Random(name)
    context = build_context(tmp_path)
    for attempt in range(ATTEMPTS):
        unread = [path for path in honoured if path not in read]
        if not unread:
            return
        if attempt:
            context = build_context(tmp_path)
        turn = attempt + attempt // 4
        # All, only those that nothing has read yet, one of these, and some of all.
        some = [path for path in honoured if choose.random() < 0.3]
        chosen = (honoured, unread, [choose.choice(unread)], some)[attempt % 4]
        chosen = [*chosen, *(path for path in honoured if path in NEEDED)]
        parameters: dict[str, Any] = {}
        assert operation.input is not None
        for path in chosen:
            shape = shape_at(operation.input, path)
            put(operation.input, parameters, path, sample(shape, path.rpartition(".")[2], turn))
        for needed in operation.input.required:
            if needed not in parameters:
                put(operation.input, parameters, *next(filled(operation.input, needed, turn)))
        outcome(context, service, name, parameters)
    pytest.fail(f"declared as honoured, and read by nothing: {', '.join(unread)}")
