from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicloud.aws.models import Catalog, Member, Operation, Service, Shape
from minicloud.aws.render import render_timestamp, render_xml
from minicloud.aws.text import escape_xml


class State(StrEnum):
    RUNNING = "running"


@pytest.fixture
def render(catalog: Catalog) -> Any:
    def rendered(operation: str, output: Any, service: str = "ec2", version: str = "2016-11-15") -> str:
        return render_xml(catalog.operation(service, operation), output, request_id="r-1", version=version).decode()

    return rendered


def test_an_ec2_reply(render: Any) -> None:
    output = {
        "Reservations": [
            {
                "ReservationId": "r-1",
                "Groups": [],
                "Instances": [
                    {
                        "InstanceId": "i-1",
                        "AmiLaunchIndex": 0,
                        "EbsOptimized": False,
                        "LaunchTime": datetime(2009, 1, 1, tzinfo=UTC),
                        "State": {"Code": 16, "Name": State.RUNNING},
                        "KeyName": None,
                        "StateTransitionReason": "",
                        "Tags": [{"Key": "a<b", "Value": "c&d"}],
                    }
                ],
            }
        ]
    }
    assert render("DescribeInstances", output, version="2014-10-01") == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2014-10-01/"><requestId>r-1</requestId>'
        "<reservationSet><item><reservationId>r-1</reservationId><groupSet/><instancesSet><item>"
        "<instanceId>i-1</instanceId><amiLaunchIndex>0</amiLaunchIndex><ebsOptimized>false</ebsOptimized>"
        "<launchTime>2009-01-01T00:00:00.000Z</launchTime>"
        "<instanceState><code>16</code><name>running</name></instanceState><reason/>"
        "<tagSet><item><key>a&lt;b</key><value>c&amp;d</value></item></tagSet>"
        "</item></instancesSet></item></reservationSet></DescribeInstancesResponse>"
    )


def test_an_ec2_reply_without_output_says_that_it_worked(render: Any) -> None:
    assert render("DeleteVolume", None).endswith(
        "<requestId>r-1</requestId><return>true</return></DeleteVolumeResponse>"
    )


def test_a_query_reply(render: Any) -> None:
    assert render("GetCallerIdentity", {"Account": "1", "Arn": "a"}, "sts", "2011-06-15") == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        "<GetCallerIdentityResult><Account>1</Account><Arn>a</Arn></GetCallerIdentityResult>"
        "<ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )
    assert "<AccountAliases><member>a</member></AccountAliases>" in render(
        "ListAccountAliases", {"AccountAliases": ["a"], "IsTruncated": False}, "iam"
    )
    assert "<SummaryMap><entry><key>Users</key><value>3</value></entry></SummaryMap>" in render(
        "GetAccountSummary", {"SummaryMap": {"Users": 3}}, "iam"
    )
    assert "Result" not in render("SetAlarmState", None, "cloudwatch")


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ({"Colour": "red"}, "no member 'Colour'"),
        ({"Reservations": [{"Instances": [{"Colour": "red"}]}]}, "no member 'Colour'"),
        ({"Reservations": "text"}, "not text"),
        ({"Reservations": [{"ReservationId": 5}]}, "text is needed, not int"),
        ({"Reservations": [{"Instances": [{"AmiLaunchIndex": "0"}]}]}, "integer is needed, not str"),
        ({"Reservations": [{"Instances": [{"AmiLaunchIndex": True}]}]}, "integer is needed, not bool"),
        ({"Reservations": [{"Instances": [{"EbsOptimized": 1}]}]}, "true or false is needed, not int"),
        ({"Reservations": [{"Instances": [{"LaunchTime": "now"}]}]}, "time is needed, not str"),
        ({"Reservations": [{"Instances": [{"LaunchTime": datetime(2020, 1, 1)}]}]}, "needs a zone"),
    ],
)
def test_what_the_model_does_not_have_is_a_bug(render: Any, output: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        render("DescribeInstances", output)


def test_output_of_an_operation_without_one_is_a_bug(render: Any) -> None:
    with pytest.raises(TypeError, match="has no output"):
        render("DeleteVolume", {"Return": True})


def one_member_operation(service: Service, kind: Any) -> Operation:
    shape = Shape("Thing", kind)
    output = Shape("Out", "structure", members={"Thing": Member("Thing", shape, "Thing", "thing", sensitive=False)})
    return Operation("Do", service, None, output, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", True])
def test_numbers_are_finite(catalog: Catalog, value: object) -> None:
    operation = one_member_operation(catalog.services["ec2"], "double")
    with pytest.raises(TypeError):
        render_xml(operation, {"Thing": value}, request_id="", version="")


def test_blobs_are_bytes(catalog: Catalog) -> None:
    operation = one_member_operation(catalog.services["ec2"], "blob")
    assert b"<thing>AP8=</thing>" in render_xml(operation, {"Thing": b"\x00\xff"}, request_id="", version="")
    with pytest.raises(TypeError, match="bytes are needed"):
        render_xml(operation, {"Thing": "text"}, request_id="", version="")


def test_shapes_that_contain_themselves(catalog: Catalog) -> None:
    node = Shape("Node", "structure")
    node.members["Next"] = Member("Next", node, "Next", "next", sensitive=False)
    operation = Operation("Do", catalog.services["ec2"], None, node, None)
    assert b"<next><next></next></next>" in render_xml(operation, {"Next": {"Next": {}}}, request_id="", version="")


def test_times_are_in_utc_to_the_millisecond() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 678999, tzinfo=timezone(timedelta(hours=1)))
    assert render_timestamp(when) == "2026-01-02T02:04:05.678Z"


@given(st.text())
def test_text_survives_xml_as_far_as_xml_can_carry_it(text: str) -> None:
    element = ElementTree.fromstring(f"<a>{escape_xml(text)}</a>".encode())
    kept = [
        c for c in text if c in "\t\n\r" or (c >= " " and not 0xD800 <= ord(c) <= 0xDFFF and c not in "\ufffe\uffff")
    ]
    assert (element.text or "") == "".join(kept)


def test_illegal_characters_are_dropped() -> None:
    assert escape_xml("a\x00b\ud800c\uffffd") == "abcd"
    assert escape_xml("\x1b[31m<red> & \r\n") == "[31m&lt;red&gt; &amp; &#xD;\n"


def thousand_instances() -> dict[str, Any]:
    launched = datetime(2026, 1, 1, tzinfo=UTC)
    return {
        "Reservations": [
            {
                "ReservationId": f"r-{i:017x}",
                "OwnerId": "123456789012",
                "Instances": [
                    {
                        "InstanceId": f"i-{i:017x}",
                        "ImageId": "ami-0123456789abcdef0",
                        "InstanceType": "t3.micro",
                        "LaunchTime": launched,
                        "State": {"Code": 16, "Name": "running"},
                        "Placement": {"AvailabilityZone": "lab-1a", "Tenancy": "default"},
                        "BlockDeviceMappings": [
                            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": "vol-1", "AttachTime": launched}}
                        ],
                        "Tags": [{"Key": "Name", "Value": f"web-{i}"}],
                    }
                ],
            }
            for i in range(1000)
        ]
    }


def test_a_thousand_instances_are_whole(render: Any) -> None:
    root = ElementTree.fromstring(render("DescribeInstances", thousand_instances()))
    space = "{http://ec2.amazonaws.com/doc/2016-11-15/}"
    found = [element.text for element in root.iter(f"{space}instanceId")]
    assert found == [f"i-{i:017x}" for i in range(1000)]
