"""Requests that make sense, nearly do, or do not, sent through the whole front door in this process; and what is right
with any answer to them.

`Wire` sends: botocore's serializer and signer in front, its parser and validator behind. `inputs` draws parameters of
botocore's shapes, `manglings` spoils a request before or after it is signed. `Wire.ask` and `Wire.send` raise
AssertionError with the log's traceback for whatever no client may ever be told.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import ipaddress
import json
import logging
import re
import sqlite3
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from unittest.mock import patch
from urllib.parse import quote_from_bytes

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.session import Session
from botocore.validate import ParamValidator
from hypothesis import strategies as st
from support import front as build
from support.random_cloud import fill_cloud

from minicloud.api.gate import Gate
from minicloud.api.operations import OPERATIONS, load_served_catalog
from minicloud.aws.models import OPEN_ENUMS
from minicloud.cloud.context import Cloud
from minicloud.store.backend import Isolation

ACCESS_KEY = "AKIA" + base64.b32encode(build.fixed_bytes(10)).decode()
SECRET_KEY = base64.b64encode(build.fixed_bytes(30)).decode()
CATALOG = load_served_catalog()
SERVED = [(service, name) for service, rows in OPERATIONS.items() for name in rows]
BUGS = frozenset({"InternalError", "InternalFailure", "InternalServerError"})
# EC2 answers these as its own faults. A store or a handler that failed is told apart by what it logs.
SERVER_CODES = frozenset({"InsufficientInstanceCapacity", "Unavailable"})
# Members whose texts are not all in the enumeration that the model gives them.
OPEN_MEMBERS = {
    # "For an internet gateway, the state is available when attached to a VPC" (InternetGatewayAttachment).
    "DescribeInternetGateways.InternetGateways.Attachments.State": ("available",),
}
_ID = re.compile(r"\b[a-z]+(?:-[a-z]+)*-[0-9a-f]{17}\b")
_session = Session()
_validator = ParamValidator()


@lru_cache(maxsize=10)
def service_model(service: str) -> ServiceModel:
    return _session.get_service_model(service)


@lru_cache(maxsize=200)
def operation_model(service: str, name: str) -> OperationModel:
    return service_model(service).operation_model(name)


@dataclass(frozen=True)
class Pick:
    """Some id that the cloud has, chosen when the request is sent."""

    prefix: str
    number: int


# Parameters


_PREFIXES = {
    "instanceid": "i", "imageid": "ami", "snapshotid": "snap", "volumeid": "vol", "subnetid": "subnet", "vpcid": "vpc",
    "groupid": "sg", "securitygroupid": "sg", "keypairid": "key", "networkinterfaceid": "eni", "resource": "",
    "resourceid": "", "sourceimageid": "ami", "importtaskid": "import", "securitygroup": "sg",
}  # fmt: skip
_TEXTS = [
    build.IMAGE_ID, build.SNAPSHOT_ID, "lab-1a", "lab-1b", "lab-1", "default", "t3.nano", "m5d.large", "/dev/sda1",
    "/dev/sdb", "ephemeral0", "gp3", "io1", "all", "self", "x86_64", "raw", "file:///etc/passwd", "description",
    "launchPermission", "add", "100000000001", "172.31.0.9", "", " ", "-", "..", "i-", "ami-0", "%00", "a" * 300, "*",
    "\u00e4\U0001f600", "'; DROP TABLE instances; --", "${jndi:x}", "\n", "x\0y", "\x01", "\ufffe", "tag:Name", "Name",
    "instance-state-name", "running", "aws:reserved", "key", "token", "/minicloud/images/image1", "i-00000000000000001",
    "arn:aws:iam::000000000000:role/x", "i-0123456789ABCDEF0", "true", "2024-01-01T00:00:00Z",
]  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(_TEXTS), st.text(max_size=12).map(lambda text: text.encode("utf-8", "replace").decode())
)
NUMBERS = st.sampled_from([-(2**31), -1, 0, 1, 2, 5, 6, 8, 64, 1000, 1001, 16385, 2**31 - 1, 2**31, 2**63, 10**30])
PICKS = st.sampled_from(["i", "ami", "snap", "vol", "subnet", "vpc", "sg", "key", "eni", "import", "r", "rtb", "acl"])


def inputs(service: str, name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw the parameters of an operation: members that it honours more often than others."""
    shape = operation_model(service, name).input_shape
    return _inputs(service, name) if shape is not None and shape.members else st.just({})


@lru_cache(maxsize=200)
def _inputs(service: str, name: str) -> st.SearchStrategy[dict[str, Any]]:
    shape = operation_model(service, name).input_shape
    row = OPERATIONS[service][name]
    honoured = {one.partition(".")[0] for one in row.honours} & set(shape.members)
    return _structure(shape, sorted(honoured), 0, 5)


def _structure(shape: Shape, preferred: list[str], depth: int, most: int) -> st.SearchStrategy[dict[str, Any]]:
    members = {name: _values(name, member, depth + 1) for name, member in shape.members.items()}
    required = {name: members[name] for name in shape.required_members}
    names = [*sorted(members), *(preferred * 6)]
    if not names:
        return st.just({})
    return st.lists(st.sampled_from(names), max_size=most, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({**required, **{name: members[name] for name in chosen}})
    )


def _values(name: str, shape: Shape, depth: int) -> st.SearchStrategy[Any]:
    kind = shape.type_name
    if kind == "structure":
        return st.deferred(lambda: _structure(shape, [], depth, 4)) if depth < 6 else st.just({})
    if kind == "list":
        return st.lists(_values(name.removesuffix("s"), shape.member, depth), max_size=3)
    if kind == "map":
        return st.dictionaries(TEXTS, _values("", shape.value, depth), max_size=2)
    if kind == "boolean":
        return st.booleans()
    if kind in ("integer", "long", "float", "double"):
        return NUMBERS
    if kind == "blob":
        return st.sampled_from([b"", b"ssh-rsa AAAA", b"\xff\x00", b"-----BEGIN", b"x" * 20000])
    if kind == "timestamp":
        return st.sampled_from(
            [datetime(2024, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31)]
        )
    texts = [TEXTS]
    if shape.enum:
        texts = [st.sampled_from(shape.enum[:60])] * 3 + [TEXTS]
    elif name.lower() in _PREFIXES:
        prefix = _PREFIXES[name.lower()]
        picks = st.builds(Pick, st.just(prefix) if prefix else PICKS, st.integers(0, 40))
        texts = [picks] * 6 + [st.builds(Pick, PICKS, st.integers(0, 5)), TEXTS]
    if name == "Name" and depth > 1:
        texts.append(st.sampled_from(FILTER_NAMES))
    return st.one_of(texts)


FILTER_NAMES = sorted(
    {name for rows in OPERATIONS.values() for row in rows.values() if row.filters for name in row.filters.names}
)


# Requests


@dataclass(frozen=True)
class Raw:
    """A request before it is signed. `form` are pairs of a query; `body` is anything else."""

    service: str
    operation: str
    method: str = "POST"
    path: str = "/"
    form: tuple[tuple[bytes, bytes], ...] | None = None
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Signed:
    """A request as it goes over the wire."""

    raw: Raw
    query: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    method: str


@dataclass(frozen=True)
class Mangling:
    """How a request is spoilt, by name: before it is signed or after."""

    name: str
    number: int
    text: bytes = b""


_BAD_VALUES = [
    b"", b"99999999999999999999999999", b"-1", b"1e400", b"NaN", b"Infinity", b"\xff\xfe", b"a\x00b", b"\xed\xa0\x80",
    b"x" * 5000, b"true", b"0", b"\xf0\x9f\x98\x80" * 50, b"%", b"[]", b"{}", b"i-zzzzzzzzzzzzzzzzz", b"\r\nX: y",
    "\u0661".encode(),
    b"2024-13-45T99:99:99Z", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"=", b"1_000", b"+5",
]  # fmt: skip
_BEFORE = [
    "repeat",
    "drop",
    "renumber",
    "revalue",
    "deepen",
    "rename",
    "unknown",
    "version",
    "action",
    "get",
    "both",
    "cut",
]
_AFTER = ["unsigned", "tampered", "twice", "media", "gzip", "date", "digest", "method", "junk", "scope", "flood"]
manglings = st.builds(
    Mangling,
    st.sampled_from(_BEFORE * 3 + _AFTER),
    st.integers(0, 1000),
    st.one_of(st.sampled_from(_BAD_VALUES), st.binary(max_size=6)),
)


def _mangle_form(raw: Raw, how: Mangling) -> Raw:
    pairs = list(raw.form or ())
    at = how.number % len(pairs)
    name, value = pairs[at]
    # The two that lead to the operation stand first, and are left alone mostly.
    if how.name == "repeat":
        pairs.append((name, how.text if how.number % 2 else value))
    elif how.name == "drop":
        del pairs[at]
    elif how.name == "renumber":
        to = [b"0", b"7", b"99999999999", b"-1", b"01", b"", b"N", b"1.1"][how.number % 8]
        pairs = [(re.sub(rb"(?<=\.)1(?=\.|$)", to, name), value) for name, value in pairs]
    elif how.name == "revalue":
        pairs[at] = (name, how.text) if name not in (b"Action", b"Version") else (name, value)
    elif how.name == "deepen":
        pairs.append((name + b".1" * (1 + how.number % 40), how.text))
    elif how.name == "rename":
        pairs[at] = (name.swapcase() if how.number % 2 else name + how.text, value)
    elif how.name == "unknown":
        pairs.append((how.text or b"Nothing.1.Known", b"x"))
    elif how.name == "version":
        pairs = [
            (n, [b"2014-10-01", b"2099-01-01", b"", b"2011-06-15"][how.number % 4] if n == b"Version" else v)
            for n, v in pairs
        ]
    elif how.name == "action":
        pairs = [(n, how.text if n == b"Action" else v) for n, v in pairs]
    elif how.name in ("get", "both"):
        return replace(raw, method="GET" if how.name == "get" else "PUT")
    return replace(raw, form=tuple(pairs))


def _mangle_json(raw: Raw, how: Mangling) -> Raw:
    body, at = raw.body, how.number % max(len(raw.body), 1)
    if how.name == "cut":
        body = body[:at]
    elif how.name == "deepen":
        body = b'{"Filters":' + b"[" * (how.number * 20) + b"]" * (how.number * 20) + b"}"
    elif how.name == "repeat":
        body = body[:-1] + b"," + body[1:] if len(body) > 2 else b'{"a":1,"a":2}'
    elif how.name == "revalue":
        bad = [b"1e999", b"NaN", b"null", b'"\\ud800"', b'"\\u0000"', b"[]", b"{}", b"123", b"9" * 5000, b"true"]
        body = re.sub(
            rb'(?<=:)\s*("[^"]*"|\d+|true|false)', lambda _: bad[how.number % len(bad)], body, count=1 + how.number % 3
        )
    else:
        body = body[:at] + how.text + body[at:]
    return replace(raw, body=body)


def _encode(pairs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"&".join(f"{quote_from_bytes(n, '')}={quote_from_bytes(v, '')}".encode() for n, v in pairs)


class _Errors(logging.Handler):
    """Holds what was logged as an error: bugs are logged whole, and clients are told nothing of them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(logging.Formatter().format(record))


@lru_cache(maxsize=4)
def _filled(seed: int | None) -> Cloud:
    """Return a cloud whose rows others begin with."""
    cloud = build.build_cloud()
    if seed is not None:
        fill_cloud(cloud, seed, most=6)
    return cloud


@lru_cache(maxsize=4)
def _first_ids(seed: int | None) -> list[str]:
    return sorted(set(_ids_of(_filled(seed))))


async def _at_once(gate: Gate, work: Callable[[], Any]) -> Any:
    """Threads would be made anew for every request of an event loop's, and prove nothing here."""
    return work()


@contextmanager
def _database(cloud: Cloud) -> Iterator[sqlite3.Connection]:
    with cloud.store._backend.connect(Isolation.READ) as connection:
        driver: Any = connection.connection.driver_connection
        yield driver


@dataclass
class Wire:
    """A front door over a cloud, and a client of it that believes nothing. `seed` None: a cloud without resources."""

    seed: int | None = 2
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.front = build.build_front(CATALOG)
        self._gate = patch.object(Gate, "run", _at_once)
        self._gate.start()
        self._app = build.endpoint_of(self.front)
        self._door = build.door_of(self.front)
        self._runner = asyncio.Runner()
        self._errors = _Errors()
        self._logger = logging.getLogger("minicloud")
        self._logger.addHandler(self._errors)
        self.ids: list[str] = []
        self.reset()

    def close(self) -> None:
        self._logger.removeHandler(self._errors)
        self._runner.close()
        self._gate.stop()
        self.front.cloud.store.close()

    def reset(self) -> None:
        """Have the cloud as it was in the beginning."""
        with _database(_filled(self.seed)) as source, _database(self.front.cloud) as target:
            source.backup(target)
        self.ids = _first_ids(self.seed)

    # Asking

    def ask(
        self, service: str, operation: str, parameters: Mapping[str, Any], *how: Mangling, door: bool = False
    ) -> Any:
        """Send a request and return the parsed reply, None if the request was refused."""
        parameters = self._resolved(parameters)
        if door:
            return self._ask_door(service, operation, parameters, *how)
        raw = self._serialised(service, operation, parameters)
        for one in how:
            if one.name in _BEFORE:
                raw = _mangle_form(raw, one) if raw.form else _mangle_json(raw, one)
        signed = self._signed(raw)
        for one in how:
            if one.name in _AFTER:
                signed = _mangle_signed(signed, one)
        return self._judged(service, operation, signed, *self._send(self._app, signed), spoilt=bool(how))

    def ask_json(self, service: str, operation: str, body: bytes, door: bool) -> None:
        """Send a body of JSON as it is."""
        if door:
            self._ask_door(service, operation, {}, body=body)
            return
        raw = replace(self._serialised(service, operation, {}), body=body)
        signed = self._signed(raw)
        self._judged(service, operation, signed, *self._send(self._app, signed), spoilt=True)

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Pick):
            some = [one for one in self.ids if one.startswith(f"{value.prefix}-")] or ["i-0123456789abcdef0"]
            return some[value.number % len(some)]
        if isinstance(value, Mapping):
            return {name: self._resolved(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._resolved(one) for one in value]
        return value

    def _serialised(self, service: str, operation: str, parameters: Mapping[str, Any]) -> Raw:
        model = service_model(service)
        serializer = create_serializer(model.metadata["protocol"], include_validation=False)
        made = serializer.serialize_to_request(dict(parameters), operation_model(service, operation))
        headers = tuple(made["headers"].items())
        if isinstance(made["body"], dict):
            pairs = tuple((str(name).encode(), _text(value)) for name, value in made["body"].items())
            return Raw(service, operation, form=pairs, headers=headers)
        return Raw(service, operation, body=made["body"], headers=headers)

    def _signed(self, raw: Raw) -> Signed:
        query, body = b"", raw.body
        headers = [*raw.headers, ("Host", "localhost")]
        if raw.form is not None:
            encoded = _encode(raw.form)
            query, body = (encoded, b"") if raw.method == "GET" else (b"", encoded)
            headers = [one for one in headers if one[0].lower() != "content-type"]
            if raw.method != "GET":
                headers.append(("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"))
        url = "http://localhost/" + (f"?{query.decode()}" if query else "")
        request = AWSRequest(raw.method, url, dict(headers), body)
        signing_name = service_model(raw.service).signing_name
        SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), signing_name, build.REGION).add_auth(request)
        wire = tuple((name.lower().encode(), str(value).encode("latin-1")) for name, value in request.headers.items())
        return Signed(raw, query, body, wire, raw.method)

    def _ask_door(
        self, service: str, operation: str, parameters: Mapping[str, Any], *how: Mangling, body: bytes = b""
    ) -> Any:
        body = body or json.dumps(parameters, default=_json).encode()
        raw = Raw(service, operation, path=f"/v1/{service}/{operation}", body=body)
        for one in how:
            raw = _mangle_json(raw, one)
        signed = Signed(raw, b"", raw.body, ((b"content-type", b"application/json"),), "POST")
        status, _, body = self._send(self._door, signed)
        answer = json.loads(body)
        self.counts[str(answer["Error"]["Code"]) if status != 200 else "ok"] += 1
        self._refuse_bugs(signed, status, body)
        assert isinstance(answer, dict)
        return answer if status == 200 else None

    def _send(self, app: Any, signed: Signed) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": signed.method,
            "scheme": "http", "path": signed.raw.path, "raw_path": signed.raw.path.encode(), "root_path": "",
            "query_string": signed.query,
            "headers": [*signed.headers, (b"content-length", str(len(signed.body)).encode())],
            # An address of its own each: who fails to sign too often is not heard any more.
            "client": (str(ipaddress.IPv4Address(sum(self.counts.values()))), 1), "server": ("localhost", 80),
        }  # fmt: skip
        status, headers, chunks = 0, [], []
        waiting = [{"type": "http.request", "body": signed.body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], message["headers"]
            else:
                chunks.append(message.get("body", b""))

        self._errors.seen.clear()
        self._runner.run(app(scope, receive, send))
        return status, headers, b"".join(chunks)

    # Judging

    def _refuse_bugs(self, signed: Signed, status: int, body: bytes) -> None:
        shown = f"{signed.method} {signed.raw.path}?{signed.query!r} {signed.body[:3000]!r}\n{status} {body[:2000]!r}"
        assert not self._errors.seen, f"{shown}\n" + "\n".join(self._errors.seen)
        assert status < 500 or any(code.encode() in body for code in SERVER_CODES), shown
        assert b"Traceback" not in body and b"/nonexistent" not in body, shown

    def _judged(
        self, service: str, operation: str, signed: Signed, status: int, headers: Any, body: bytes, spoilt: bool
    ) -> Any:
        self._refuse_bugs(signed, status, body)
        shown = f"{signed.method} {signed.query!r} {signed.body[:3000]!r}\n{status} {body[:2000]!r}"
        found = {name.decode().lower(): value.decode("latin-1") for name, value in headers}
        assert found.get("x-amzn-requestid"), shown
        model = service_model(service)
        output = operation_model(service, operation).output_shape
        if spoilt and status != 200:
            # Whichever service was meant in the end, its envelope is one that some parser reads.
            code = _code_of(body)
            assert code and code not in BUGS, shown
            self.counts[code] += 1
            return None
        protocol = model.metadata["protocol"]
        parsed = create_parser(protocol).parse({"status_code": status, "headers": found, "body": body}, output)
        if status != 200:
            error = parsed["Error"]
            assert error["Code"] and error["Message"] and error["Code"] not in BUGS, shown
            assert 400 <= status < 500 or error["Code"] in SERVER_CODES, shown
            self.counts[error["Code"]] += 1
            return None
        self.counts["ok"] += 1
        parsed.pop("ResponseMetadata", None)
        if output is not None:
            report = _validator.validate(parsed, output)
            assert not report.has_errors(), f"{report.generate_report()}\n{shown}"
            for problem in _wrong_enums(parsed, output, operation):
                raise AssertionError(f"{problem}\n{shown}")
        if protocol in ("ec2", "query"):
            _refuse_unknown_elements(body, output, protocol, shown)
        self.ids = sorted({*self.ids, *_ID.findall(body.decode())})
        return parsed


def _mangle_signed(signed: Signed, how: Mangling) -> Signed:
    headers = list(signed.headers)

    def changed(name: bytes, value: Callable[[bytes], bytes]) -> Signed:
        return replace(signed, headers=tuple((n, value(v) if n == name else v) for n, v in headers))

    if how.name == "unsigned":
        return replace(signed, headers=tuple(one for one in headers if one[0] != b"authorization"))
    if how.name == "tampered":
        return changed(b"authorization", lambda value: value[: -1 - how.number % 80] + how.text.replace(b"\n", b""))
    if how.name == "twice":
        return replace(signed, headers=(*headers, headers[how.number % len(headers)]))
    if how.name == "media":
        return changed(
            b"content-type",
            lambda _: [b"application/json", b"text/xml", b"", b"\xff", b"a/b; charset=x"][how.number % 5],
        )
    if how.name == "gzip":
        body = gzip.compress(signed.body) if how.number % 3 == 0 else signed.body + how.text
        return replace(
            signed, body=body, headers=(*headers, (b"content-encoding", [b"gzip", b"br", b"\xff"][how.number % 3]))
        )
    if how.name == "date":
        return changed(
            b"x-amz-date", lambda _: [b"20010101T000000Z", b"x", b"", b"99999999T999999Z", b"\xff"][how.number % 5]
        )
    if how.name == "digest":
        return replace(
            signed,
            headers=(*headers, (b"x-amz-content-sha256", [b"UNSIGNED-PAYLOAD", b"0" * 64, b"x"][how.number % 3])),
        )
    if how.name == "method":
        return replace(signed, method=["GET", "PUT", "DELETE", "PATCH", "OPTIONS"][how.number % 5])
    if how.name == "scope":
        return changed(
            b"authorization",
            lambda value: value.replace(b"/lab-1/", [b"/us-east-1/", b"//", b"/\xff/"][how.number % 3]),
        )
    if how.name == "flood":
        return replace(signed, headers=(*headers, *((b"x-%d" % n, b"y" * 700) for n in range(how.number % 120))))
    return replace(signed, query=signed.query + b"&" + how.text.replace(b"\n", b"").replace(b" ", b""))


def _text(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "replace")


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat()


def _ids_of(cloud: Any) -> Iterator[str]:
    def look(tx: Any) -> list[str]:
        names = (
            "instances", "images", "snapshots", "volumes", "vpcs", "subnets", "security_groups", "security_group_rules",
            "network_interfaces", "key_pairs", "import_tasks",
        )  # fmt: skip
        return [row.id for name in names for row in getattr(tx, name).where()]

    yield from cloud.store.read(look)


def _code_of(body: bytes) -> str | None:
    """Return the error code of whichever envelope this is."""
    if body[:1] == b"{":
        return str(json.loads(body).get("__type"))
    root = ElementTree.fromstring(body)
    return next((one.text for one in root.iter() if one.tag.rpartition("}")[2] == "Code"), None)


def _wrong_enums(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        for name, below in value.items():
            yield from _wrong_enums(below, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for below in value:
            yield from _wrong_enums(below, shape.member, path)
    elif (
        getattr(shape, "enum", None)
        and shape.name not in OPEN_ENUMS
        and value not in (*shape.enum, *OPEN_MEMBERS.get(path, ()))
    ):
        yield f"{path}: {value!r} is none of {shape.enum}"


def _refuse_unknown_elements(body: bytes, output: Shape | None, protocol: str, shown: str) -> None:
    """botocore's parser passes over elements that it does not know; other clients' need not."""
    root = ElementTree.fromstring(body)
    elements = list(root)
    if protocol == "query":
        elements = [below for one in root if _tag(one).endswith("Result") for below in one]
    _walk(
        [one for one in elements if _tag(one) not in ("requestId", "ResponseMetadata")],
        output,
        protocol,
        shown,
    )


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _walk(elements: list[ElementTree.Element], shape: Shape | None, protocol: str, shown: str) -> None:
    if shape is None:
        # EC2 answers <return>true</return> where the model knows no output.
        assert [_tag(one) for one in elements] in ([], ["return"]), shown
        return
    if shape.type_name == "structure":
        members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        tags = [_tag(one) for one in elements]
        assert len(tags) == len(set(tags)), f"{shape.name}: an element comes twice\n{shown}"
        for one in elements:
            assert _tag(one) in members, f"{shape.name} has no {_tag(one)}\n{shown}"
            _walk(list(one), members[_tag(one)], protocol, shown)
    elif shape.type_name == "list":
        name = shape.member.serialization.get("name", "item" if protocol == "ec2" else "member")
        for one in elements:
            assert _tag(one) == name, f"{shape.name} has no {_tag(one)}\n{shown}"
            _walk(list(one), shape.member, protocol, shown)
    else:
        assert not elements, f"{shape.name} is a text\n{shown}"
