"""Shorthand as AWS's command line taught it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicloud.cli.shorthand import ShorthandError, parse_shorthand


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Name=a", {"Name": "a"}),
        ("Name=instance-state-name,Values=running", {"Name": "instance-state-name", "Values": "running"}),
        ("Name=x,Values=a,b,c", {"Name": "x", "Values": ["a", "b", "c"]}),
        ("Values=a,b,Name=x", {"Values": ["a", "b"], "Name": "x"}),
        ("Values=a,", {"Values": ["a"]}),
        ("Name=tag:env,Values=a=b", {"Name": "tag:env", "Values": "a=b"}),
        ("Name=", {"Name": ""}),
        ("Ebs={VolumeSize=8,VolumeType=gp3},DeviceName=/dev/sda1", {
            "Ebs": {"VolumeSize": "8", "VolumeType": "gp3"}, "DeviceName": "/dev/sda1",
        }),
        ("Tags=[{Key=a,Value=b},{Key=c,Value=d}]", {"Tags": [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d"}]}),
        ("Values=[a,b]", {"Values": ["a", "b"]}),
        ("Values=[]", {"Values": []}),
        ("A={}", {"A": {}}),
        ("A={B=[x,y],C={D=1}}", {"A": {"B": ["x", "y"], "C": {"D": "1"}}}),
        ("Value='a, b'", {"Value": "a, b"}),
        ('Value="a \\"b\\", {c}"', {"Value": 'a "b", {c}'}),
        ("Value=a\\,b", {"Value": "a,b"}),
        ("Name = a , Values = b , c", {"Name": "a", "Values": ["b", "c"]}),
        ("Value=\u00fc x", {"Value": "\u00fc x"}),
        ("A={V=1,},B=2", {"A": {"V": ["1"]}, "B": "2"}),
    ],
)  # fmt: skip
def test_what_is_meant(text: str, meant: dict[str, Any]) -> None:
    assert parse_shorthand(text) == meant


@pytest.mark.parametrize(
    "text",
    ["", "a", "=a", "a,b", "A=1,A=2", "A={B=1", "A=[1", "A='x", "A={B=1}x", "A=[1]2", "A={1}", "A={B=1}}", "{A=1}"],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ShorthandError):
        parse_shorthand(text)


def test_nesting_is_bounded() -> None:
    with pytest.raises(ShorthandError, match="deep"):
        parse_shorthand("A=" + "[" * 1000)


@given(st.text(alphabet="Ab=,[]{}'\"\\ 1", max_size=30))
def test_nothing_typed_is_a_bug(text: str) -> None:
    try:
        parse_shorthand(text)
    except ShorthandError as error:
        assert str(error)


WORDS = st.text(alphabet="abc-_./:", min_size=1, max_size=5)


@given(st.dictionaries(st.sampled_from(["A", "B", "C"]), st.one_of(WORDS, st.lists(WORDS, min_size=2, max_size=3))))
def test_what_is_written_comes_back(meant: dict[str, Any]) -> None:
    text = ",".join(f"{name}={','.join([one] if isinstance(one, str) else one)}" for name, one in meant.items())
    assert meant == (parse_shorthand(text) if text else {})
