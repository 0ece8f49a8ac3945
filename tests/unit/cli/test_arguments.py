"""From words to JSON by an operation's shape."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from minicloud.cli.arguments import kebab, parse_options, read_json_object, split_words

STRING = {"Type": "string"}
INTEGER = {"Type": "integer"}
BOOLEAN = {"Type": "boolean"}
TAG = {"Type": "structure", "Members": {"Key": STRING, "Value": STRING}}
FILTER = {"Type": "structure", "Members": {"Name": STRING, "Values": {"Type": "list", "Element": STRING}}}
SHAPE = {
    "Type": "structure",
    "Members": {
        "InstanceIds": {"Type": "list", "Element": STRING},
        "Ports": {"Type": "list", "Element": INTEGER},
        "MaxResults": INTEGER,
        "Ratio": {"Type": "double"},
        "Force": BOOLEAN,
        "Notify": BOOLEAN,
        "ImageId": STRING,
        "Filters": {"Type": "list", "Element": FILTER},
        "Tags": {"Type": "list", "Element": TAG},
        "Placement": {"Type": "structure", "Members": {"Tenancy": STRING, "PartitionNumber": INTEGER}},
        "Labels": {"Type": "map", "Value": INTEGER},
        "Deep": {"Type": "json"},
    },
}


def parse(*words: str) -> dict[str, Any]:
    leading, options = split_words(words)
    assert leading == []
    return parse_options(options, SHAPE)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--image-id", "ami-1"], {"ImageId": "ami-1"}),
        (["--ImageId", "ami-1"], {"ImageId": "ami-1"}),
        (["--imageid=ami-1"], {"ImageId": "ami-1"}),
        (["--image-id=--strange"], {"ImageId": "--strange"}),
        (["--image-id", "-1"], {"ImageId": "-1"}),
        (["--image-id", ""], {"ImageId": ""}),
        (["--instance-ids", "i-1", "i-2"], {"InstanceIds": ["i-1", "i-2"]}),
        (["--instance-ids", '["i-1", "i-2"]'], {"InstanceIds": ["i-1", "i-2"]}),
        (["--ports", "22", "-1"], {"Ports": [22, -1]}),
        (["--max-results", "5"], {"MaxResults": 5}),
        (["--ratio", "0.5"], {"Ratio": 0.5}),
        (["--force"], {"Force": True}),
        (["--force", "false"], {"Force": False}),
        (["--no-force"], {"Force": False}),
        (["--notify"], {"Notify": True}),
        (
            ["--filters", "Name=a,Values=b,c", "name=d,values=e"],
            {"Filters": [{"Name": "a", "Values": ["b", "c"]}, {"Name": "d", "Values": ["e"]}]},
        ),
        (["--filters", '{"Name": "a", "Values": ["b"]}'], {"Filters": [{"Name": "a", "Values": ["b"]}]}),
        (["--tags", "Key=Name,Value='a, b'"], {"Tags": [{"Key": "Name", "Value": "a, b"}]}),
        (["--placement", "Tenancy=default,PartitionNumber=3"], {"Placement": {"Tenancy": "default", "PartitionNumber": 3}}),  # noqa: E501
        (["--labels", "a=1,b=2"], {"Labels": {"a": 1, "b": 2}}),
        (["--deep", '{"a": [1]}'], {"Deep": {"a": [1]}}),
    ],
)  # fmt: skip
def test_what_is_meant(words: list[str], meant: dict[str, Any]) -> None:
    assert parse(*words) == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--instance-id", "i-1"], "Did you mean --instance-ids"),
        (["--colour", "red"], "no parameter --colour"),
        (["--no-image-id"], "no parameter --no-image-id"),
        (["--image-id"], "needs a value"),
        (["--image-id", "a", "b"], "takes one value, not 2"),
        (["--image-id", "a", "--ImageId", "b"], "given twice"),
        (["--no-force", "true"], "takes no value"),
        (["--force", "perhaps"], "true or false"),
        (["--max-results", "many"], "must be a number"),
        (["--placement", "default"], "NAME=VALUE"),
        (["--placement", "Color=red"], "it has Tenancy, PartitionNumber"),
        (["--placement", "Tenancy=[a,b]"], "takes one string"),
        (["--placement", "{"], "not JSON"),
        (["--labels", "x"], "NAME=VALUE"),
        (["--image-id", "@/nonexistent"], "No such file"),
        (["--image-id", "file:///nonexistent"], "No such file"),
    ],
)
def test_what_cannot_be_read_is_told(words: list[str], said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        parse(*words)
    assert said in caught.value.message


def test_files(tmp_path: Path) -> None:
    text, data = tmp_path / "text", tmp_path / "data"
    text.write_text('[{"Key": "a"}]')
    data.write_bytes(b"\xff\x00")
    assert parse("--tags", f"@{text}") == {"Tags": [{"Key": "a"}]}
    assert parse("--image-id", f"file://{text}") == {"ImageId": '[{"Key": "a"}]'}
    assert parse("--image-id", f"fileb://{data}") == {"ImageId": "/wA="}
    with pytest.raises(click.UsageError, match="fileb://"):
        parse("--image-id", f"@{data}")


def test_the_whole_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"A": 1}')
    assert read_json_object('{"A": 1}', "--json") == {"A": 1} == read_json_object(f"@{file}", "--json")
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"A": 2}'))
    assert read_json_object("-", "--json") == {"A": 2}
    for wrong in ("[]", "{", '"a"'):
        with pytest.raises(click.UsageError):
            read_json_object(wrong, "--json")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("InstanceIds", "instance-ids"),
        ("Ipv6AddressCount", "ipv6-address-count"),
        ("EnableResourceNameDnsAAAARecord", "enable-resource-name-dns-aaaa-record"),
        ("DryRun", "dry-run"),
        ("Id", "id"),
    ],
)
def test_names_are_written_as_options(name: str, written: str) -> None:
    assert kebab(name) == written
