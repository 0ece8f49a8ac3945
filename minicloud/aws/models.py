"""Service models: the shapes of AWS's operations, read from the JSON that botocore ships.

Owns the loading and the naming rules (how a member is called in a request and in a reply). Keeps only what is reachable
from the operations asked for: EC2's whole model would cost the daemon tens of megabytes for operations nobody serves.
Refuses to hold documentation, examples or botocore's own classes. Called by the daemon at start; everything else in
`aws/` reads the objects made here.

Naming rules (they are AWS's "ec2" and "query" protocols as botocore's serializers speak them):
- ec2 request: queryName, or else locationName or the member's name with its first letter capitalised; lists are flat.
- query request: locationName or the member's name; a list adds `.member` (or its element's locationName).
- replies: locationName or the member's name; list elements are `item` (ec2) or `member` (query) unless named.
- AWS JSON: locationName or the member's name, in requests and in replies.
"""

from __future__ import annotations

import gc
import gzip
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    "structure", "list", "map", "string", "integer", "long", "float", "double", "boolean", "timestamp", "blob"
]

# What an instance type is called is the operator's business (config/instance-types.yaml); the model's list of 1,400
# names would refuse the operator's own and cost memory.
OPEN_ENUMS = frozenset({"AccountAttributeName", "InstanceType"})

# Every version the EC2 API was published under. Clients pin one and expect its name back in the reply's namespace;
# the parameters of old versions are a subset of the current model's.
EC2_VERSIONS = frozenset(
    """
    2006-06-26 2006-10-01 2007-01-03 2007-01-19 2007-03-01 2007-08-29 2008-02-01 2008-05-05 2008-08-08 2008-12-01
    2009-03-01 2009-04-04 2009-07-15 2009-08-15 2009-10-31 2009-11-30 2010-06-15 2010-08-31 2010-11-15 2011-01-01
    2011-02-28 2011-05-15 2011-07-15 2011-11-01 2011-12-01 2011-12-15 2012-03-01 2012-04-01 2012-05-01 2012-06-01
    2012-06-15 2012-07-20 2012-08-15 2012-10-01 2012-12-01 2013-02-01 2013-06-15 2013-07-15 2013-08-15 2013-10-01
    2013-10-15 2014-02-01 2014-05-01 2014-06-15 2014-09-01 2014-10-01 2015-03-01 2015-04-15 2015-10-01 2016-04-01
    2016-09-15 2016-11-15
    """.split()  # noqa: SIM905
)

_VERSION_FOLDER = re.compile(r"\d{4}-\d{2}-\d{2}\Z")


@dataclass(slots=True, eq=False)
class Shape:
    """One type of the model. Compared by identity; may refer to itself through its members."""

    name: str
    kind: Kind
    members: dict[str, Member] = field(default_factory=dict)  # structure: by botocore's member name
    by_request_name: dict[str, Member] = field(default_factory=dict)  # structure: by the name used in requests
    required: tuple[str, ...] = ()  # structure
    element: Member | None = None  # list
    key: Member | None = None  # map
    value: Member | None = None  # map
    enum: tuple[str, ...] = ()
    minimum: float | None = None  # value, length in characters, or number of elements, by kind
    maximum: float | None = None


@dataclass(slots=True, eq=False)
class Member:
    """A place where a shape is used: in a structure, a list or a map, with that place's own names."""

    name: str
    shape: Shape
    request_name: str
    reply_name: str
    sensitive: bool  # its value is never repeated in an error message
    timestamp_format: str | None = None  # where the model insists: iso8601, rfc822 or unixTimestamp


@dataclass(slots=True, eq=False, weakref_slot=True)
class Operation:
    """One operation; `input` and `output` are structures, None where the model has none."""

    name: str
    service: Service
    input: Shape | None
    output: Shape | None
    result_wrapper: str | None


@dataclass(slots=True, eq=False)
class Service:
    """One AWS service, pruned to the operations this cloud serves."""

    name: str  # botocore's folder name: ec2, sts, cloudwatch
    signing_name: str  # as it stands in a credential scope: ec2, sts, monitoring
    api_version: str
    versions: frozenset[str]  # every version a request may name
    protocols: tuple[str, ...]
    xml_namespace: str
    operations: dict[str, Operation]
    operation_names: frozenset[str]  # all that the model knows, served or not
    target_prefix: str | None = None  # AWS JSON: what stands before the operation's name in X-Amz-Target
    json_version: str | None = None  # AWS JSON: 1.0 or 1.1
    query_compatible: bool = False  # moved from the query protocol to others, and remembers its error codes
    # Names of error shapes by their codes in the query protocol, where the two differ.
    error_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def speaks_ec2(self) -> bool:
        """Whether requests and replies follow the ec2 protocol rather than query."""
        return "ec2" in self.protocols

    def namespace(self, version: str) -> str:
        """XML namespace of a reply. EC2's echoes the version asked for, with a slash, or Libcloud sees empty lists."""
        return f"http://ec2.amazonaws.com/doc/{version}/" if self.speaks_ec2 else self.xml_namespace


class Catalog:
    """The services this endpoint serves, found by name or by what credential scopes call them."""

    def __init__(self, services: Iterable[Service]) -> None:
        self.services: dict[str, Service] = {service.name: service for service in services}

    def operation(self, service: str, name: str) -> Operation:
        """The operation of a service; KeyError when it is not served (a bug in the caller, not a client's fault)."""
        return self.services[service].operations[name]

    def signing_as(self, signing_name: str) -> Service | None:
        """The service whose credential scope is named so."""
        return next((s for s in self.services.values() if s.signing_name == signing_name), None)


def load_catalog(operations: Mapping[str, Iterable[str]]) -> Catalog:
    """Load services by botocore's names, each with the operations to keep: {"ec2": ["RunInstances", ...]}."""
    catalog = Catalog([load_service(name, names) for name, names in operations.items()])
    gc.collect()  # a builder and its shapes refer to each other: let go of the unpruned models now, not some day
    return catalog


def load_service(name: str, operations: Iterable[str], *, data: Path | None = None) -> Service:
    """Load one service from `data` (botocore's folder by default) and keep the named operations.

    Raises ValueError when the model has no such operation and FileNotFoundError when there is no such service.
    """
    folder = (data or botocore_data()) / name
    versions = sorted(entry.name for entry in folder.iterdir() if _VERSION_FOLDER.match(entry.name))
    model = _read_model(folder / versions[-1])
    metadata = model["metadata"]
    service = Service(
        name=name,
        signing_name=metadata.get("signingName", metadata["endpointPrefix"]),
        api_version=metadata["apiVersion"],
        versions=frozenset(versions) | (EC2_VERSIONS if name == "ec2" else frozenset()),
        protocols=tuple(metadata.get("protocols", [metadata["protocol"]])),
        xml_namespace=metadata.get("xmlNamespace", ""),
        operations={},
        operation_names=frozenset(model["operations"]),
        target_prefix=metadata.get("targetPrefix"),
        json_version=metadata.get("jsonVersion"),
        query_compatible="awsQueryCompatible" in metadata,
        error_names=_error_names(model["shapes"]) if "awsQueryCompatible" in metadata else {},
    )
    builder = _Builder(model["shapes"], ec2=service.speaks_ec2)
    for wanted in operations:
        if wanted not in model["operations"]:
            raise ValueError(f"botocore's model of {name} has no operation {wanted}")
        raw = model["operations"][wanted]
        service.operations[wanted] = Operation(
            name=wanted,
            service=service,
            input=builder.shape(raw["input"]["shape"]) if "input" in raw else None,
            output=builder.shape(raw["output"]["shape"]) if "output" in raw else None,
            result_wrapper=raw.get("output", {}).get("resultWrapper"),
        )
    return service


def _error_names(raw_shapes: Mapping[str, Any]) -> dict[str, str]:
    codes = {name: raw.get("error", {}).get("code", name) for name, raw in raw_shapes.items() if raw.get("exception")}
    return {code: name for name, code in codes.items() if code not in (name, *codes)}


def botocore_data() -> Path:
    """botocore's data folder, found without importing botocore. Raises FileNotFoundError when it is not installed."""
    spec = importlib.util.find_spec("botocore")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("botocore is not installed: its service models are what the endpoint is made from")
    return Path(spec.origin).parent / "data"


def _read_model(folder: Path) -> dict[str, Any]:
    packed = folder / "service-2.json.gz"
    raw = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / "service-2.json").read_bytes()
    model: dict[str, Any] = json.loads(raw)
    return model


class _Builder:
    """Turns the JSON of one service into Shape objects, each once, following references only from what is asked for."""

    def __init__(self, raw_shapes: dict[str, Any], *, ec2: bool) -> None:
        self._raw = raw_shapes
        self._ec2 = ec2
        self._made: dict[str, Shape] = {}

    def shape(self, name: str) -> Shape:
        if name in self._made:
            return self._made[name]
        raw = self._raw[name]
        kind: Kind = "string" if raw["type"] == "character" else raw["type"]
        shape = self._made[name] = Shape(
            name=name,
            kind=kind,
            required=tuple(raw.get("required", ())),
            enum=() if name in OPEN_ENUMS else tuple(raw.get("enum", ())),
            minimum=raw.get("min"),
            maximum=raw.get("max"),
        )
        if kind == "structure":
            for member_name, reference in raw["members"].items():
                member = self._member(member_name, reference)
                shape.members[member_name] = member
                shape.by_request_name[member.request_name] = member
        elif kind == "list":
            shape.element = self._member("item" if self._ec2 else "member", raw["member"])
        elif kind == "map":
            shape.key = self._member("key", raw["key"])
            shape.value = self._member("value", raw["value"])
        return shape

    def _member(self, name: str, reference: dict[str, Any]) -> Member:
        raw = self._raw[reference["shape"]]
        traits = {**raw, **reference}  # what a place says about itself overrides what the type says
        if traits.get("flattened"):
            # None of the services served has any, and their naming is where serializers disagree.
            raise ValueError(f"{reference['shape']} is a flattened list or map, which is not spoken here")
        own_name = traits.get("locationName") or name
        request_name = own_name
        if self._ec2:
            request_name = traits.get("queryName") or own_name[0].upper() + own_name[1:]
        return Member(
            name=name,
            shape=self.shape(reference["shape"]),
            request_name=request_name,
            reply_name=own_name,
            sensitive=bool(traits.get("sensitive")),
            timestamp_format=traits.get("timestampFormat"),
        )
