"""Random requests for every operation, through the whole front door: nothing is answered by a bug, by a traceback, or
by a reply that botocore's parser and validator refuse.

MINICLOUD_FUZZ_REQUESTS: how many requests in all, about (3,500 otherwise, always the same ones).
MINICLOUD_FUZZ_SEED: draws others than those of the last run; printed at the end of a run that set either.
A failure prints the request as it went over the wire, and hypothesis the lines that repeat it.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from support import front as build
from support.fuzz_runs import RUN, examples
from support.wire_fuzz import SERVED, Mangling, Pick, Wire, inputs, manglings

# Half of all requests are drawn operation by operation, half in stories.
PER_OPERATION = max(RUN.requests // 2 // len(SERVED), 6)
PER_EXAMPLE = 3
STEPS = 40
STORIES = max(RUN.requests // 2 // STEPS, 4)
# None: as it was drawn.
SPOILT = st.one_of(st.just(()), st.tuples(manglings), st.tuples(manglings, manglings))


@pytest.mark.parametrize(("service", "name"), SERVED, ids=[name for _, name in SERVED])
def test_any_request_is_answered_in_order(service: str, name: str) -> None:
    wire = Wire(seed=2, counts=RUN.counts)

    @seed(RUN.seed)
    @examples(PER_OPERATION // PER_EXAMPLE)
    @given(
        st.lists(
            st.tuples(inputs(service, name), SPOILT, st.integers(0, 7)), min_size=PER_EXAMPLE, max_size=PER_EXAMPLE
        )
    )
    def attempt(requests: list[tuple[dict[str, Any], tuple[Mangling, ...], int]]) -> None:
        wire.reset()
        for parameters, how, where in requests:
            wire.ask(service, name, parameters, *how, door=where == 0)

    try:
        attempt()
    finally:
        wire.close()


class Story(RuleBasedStateMachine):
    """A customer who does what customers do, in any order, while the controller keeps up or does not."""

    @initialize(kind=st.sampled_from([None, 2]))
    def begin(self, kind: int | None) -> None:
        self.wire = Wire(seed=kind, counts=RUN.counts)

    def teardown(self) -> None:
        if hasattr(self, "wire"):
            self.wire.close()

    def ec2(self, name: str, **parameters: Any) -> Any:
        return self.wire.ask("ec2", name, parameters)

    @rule(
        count=st.integers(1, 3),
        kind=st.sampled_from(["t3.nano", "t3.micro", "m5d.large"]),
        token=st.sampled_from([None, "one", "two"]),
        size=st.sampled_from([None, 1, 2, 9]),
        more=st.sampled_from(
            [{}, {"KeyName": "mine"}, {"UserData": "IyEvYmluL3No"}, {"DisableApiTermination": True}, {"DryRun": True}]
        ),
    )
    def launch(self, count: int, kind: str, token: str | None, size: int | None, more: dict[str, Any]) -> None:
        parameters = {"ImageId": build.IMAGE_ID, "MinCount": 1, "MaxCount": count, "InstanceType": kind, **more}
        if token is not None:
            parameters["ClientToken"] = token
        if size is not None:
            parameters["BlockDeviceMappings"] = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": size}}]
        self.ec2("RunInstances", **parameters)

    @rule(
        name=st.sampled_from(["StartInstances", "StopInstances", "RebootInstances", "TerminateInstances"]),
        numbers=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    )
    def change_state(self, name: str, numbers: list[int]) -> None:
        self.ec2(name, InstanceIds=[Pick("i", one) for one in numbers])

    @rule()
    def settle(self) -> None:
        build.settle(self.wire.front.cloud)

    @rule(
        name=st.sampled_from(["CreateTags", "DeleteTags"]),
        prefix=st.sampled_from(["i", "vol", "ami", "snap", "sg", "vpc", "subnet", "eni", "key"]),
        number=st.integers(0, 9),
        tags=st.dictionaries(
            st.sampled_from(["Name", "env", "a*b", "\u00e4"]), st.sampled_from(["", "x", "\u00fc"]), min_size=1
        ),
    )
    def tag(self, name: str, prefix: str, number: int, tags: dict[str, str]) -> None:
        self.ec2(name, Resources=[Pick(prefix, number)], Tags=[{"Key": key, "Value": tags[key]} for key in tags])

    @rule(name=st.sampled_from(["mine", "yours"]), what=st.sampled_from(["CreateKeyPair", "DeleteKeyPair"]))
    def key_pair(self, name: str, what: str) -> None:
        # RSA keys take a second to make.
        self.ec2(what, KeyName=name, **({"KeyType": "ed25519"} if what == "CreateKeyPair" else {}))

    @rule(number=st.integers(0, 9), change=st.sampled_from(
        [
            {"InstanceType": {"Value": "t3.micro"}}, {"DisableApiTermination": {"Value": False}},
            {"DisableApiStop": {"Value": True}}, {"InstanceInitiatedShutdownBehavior": {"Value": "terminate"}},
            {"UserData": {"Value": b"hello"}}, {"EbsOptimized": {"Value": True}},
            {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": False}}]},
        ]
    ))  # fmt: skip
    def modify(self, number: int, change: dict[str, Any]) -> None:
        self.ec2("ModifyInstanceAttribute", InstanceId=Pick("i", number), **change)

    @rule(
        number=st.integers(0, 9),
        name=st.sampled_from(
            ["userData", "instanceType", "disableApiStop", "disableApiTermination", "blockDeviceMapping", "groupSet"]
        ),
    )
    def attribute(self, number: int, name: str) -> None:
        self.ec2("DescribeInstanceAttribute", InstanceId=Pick("i", number), Attribute=name)

    @rule(name=st.sampled_from([name for service, name in SERVED if service == "ec2" and name.startswith("Describe")]))
    def describe(self, name: str) -> None:
        self.ec2(name)

    @rule(operation=st.sampled_from(SERVED), data=st.data(), how=SPOILT, door=st.booleans())
    def anything(self, operation: tuple[str, str], data: st.DataObject, how: tuple[Mangling, ...], door: bool) -> None:
        self.wire.ask(*operation, data.draw(inputs(*operation)), *how, door=door)


def test_any_story_is_answered_in_order() -> None:
    @seed(RUN.seed)
    class Seeded(Story):
        pass

    run_state_machine_as_test(Seeded, settings=examples(STORIES, stateful_step_count=STEPS))


@pytest.mark.parametrize("half", [b"\\ud800", b"\xed\xa0\x80", b"\\udc00\\ud800"])
@pytest.mark.parametrize(
    ("service", "name", "body", "door"),
    [
        ("ec2", "CreateTags", b'{"Resources":["%s"],"Tags":[{"Key":"k","Value":"HALF"}]}', True),
        ("ec2", "DescribeInstances", b'{"HALF":1}', True),
        ("ec2", "DescribeKeyPairs", b'{"KeyNames":["HALF"]}', True),
        ("ssm", "GetParameter", b'{"Name":"HALF"}', False),
        ("ssm", "GetParameter", b'{"HALF":"x"}', False),
    ],
)
def test_half_a_character_is_no_text(service: str, name: str, body: bytes, door: bool, half: bytes) -> None:
    """JSON can write half of a surrogate pair, which no database and no reply can hold."""
    wire = Wire()
    try:
        body = body.replace(b"%s", build.IMAGE_ID.encode()).replace(b"HALF", half)
        wire.ask_json(service, name, body, door=door)
        assert wire.counts == {"SerializationException": 1}
    finally:
        wire.close()
