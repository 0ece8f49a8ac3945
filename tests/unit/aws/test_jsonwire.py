from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicloud.aws.jsonwire import decode_json, parse_json, render_json
from minicloud.aws.models import Catalog, Member, Operation, Shape
from minicloud.errors import ApiError

LEAST = {"MinCount": 1, "MaxCount": 1}


@pytest.fixture
def parse(catalog: Catalog) -> Any:
    def parsed(operation: str, parameters: Any, service: str = "ec2") -> dict[str, Any]:
        return parse_json(catalog.operation(service, operation), parameters)

    return parsed


@pytest.fixture
def refused(parse: Any) -> Any:
    def code(operation: str, parameters: Any, service: str = "ec2") -> str:
        with pytest.raises(ApiError) as caught:
            parse(operation, parameters, service)
        found: str = caught.value.code
        return found

    return code


def test_parameters_get_pythons_types(parse: Any) -> None:
    assert parse("RunInstances", {**LEAST, "SecurityGroupIds": ["sg-1"], "EbsOptimized": False, "KeyName": None}) == {
        **LEAST,
        "SecurityGroupIds": ["sg-1"],
        "EbsOptimized": False,
    }
    assert parse("ImportKeyPair", {"KeyName": "k", "PublicKeyMaterial": "AP8="})["PublicKeyMaterial"] == b"\x00\xff"
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse("RequestSpotInstances", {"ValidFrom": "2026-01-02T03:04:05Z"})["ValidFrom"] == when
    assert parse("RequestSpotInstances", {"ValidFrom": 1767323045})["ValidFrom"] == when
    metric = {"Namespace": "n", "MetricData": [{"MetricName": "m", "Value": 1, "Values": [2.5]}]}
    assert parse("PutMetricData", metric, "cloudwatch") == metric


def test_empty_text_means_what_it_means_over_the_query_protocol(parse: Any) -> None:
    assert (
        parse("RunInstances", {**LEAST, "SubnetId": "", "Placement": {"AvailabilityZone": ""}, "KeyName": ""}) == LEAST
    )
    assert parse("CreateTags", {"Resources": ["i"], "Tags": [{"Key": "k", "Value": ""}]})["Tags"][0]["Value"] == ""
    assert parse("DescribeInstances", {"Filters": [{"Name": "n", "Values": [""]}], "InstanceIds": []}) == {
        "Filters": [{"Name": "n", "Values": [""]}]
    }
    assert parse("TagRole", {"RoleName": "r", "Tags": []}, "iam")["Tags"] == []


@pytest.mark.parametrize(
    ("operation", "parameters", "code"),
    [
        ("RunInstances", {"MinCount": 1}, "MissingParameter"),
        ("RunInstances", {"MinCount": 1, "MaxCount": None}, "MissingParameter"),
        ("DescribeInstances", {"Colour": 1}, "UnknownParameter"),
        ("DescribeInstances", {"Filters": [{"Nome": 1}]}, "UnknownParameter"),
        ("DescribeInstances", {"InstanceIds": "i-1"}, "InvalidParameterValue"),
        ("DescribeInstances", {"InstanceIds": [1]}, "InvalidParameterValue"),
        ("DescribeInstances", {"Filters": [[]]}, "InvalidParameterValue"),
        ("DescribeInstances", {"Filters": {"Name": "a"}}, "InvalidParameterValue"),
        ("DescribeInstances", {"MaxResults": "5"}, "InvalidParameterValue"),
        ("DescribeInstances", {"MaxResults": True}, "InvalidParameterValue"),
        ("DescribeInstances", {"MaxResults": 5.0}, "InvalidParameterValue"),
        ("DescribeInstances", {"MaxResults": 10**400}, "InvalidParameterValue"),
        ("DescribeInstanceTypes", {"MaxResults": 1}, "InvalidParameterValue"),
        ("DescribeInstances", {"DryRun": "true"}, "InvalidParameterValue"),
        ("DescribeInstances", {"NextToken": "\x00"}, "InvalidParameterValue"),
        ("RunInstances", {**LEAST, "InstanceInitiatedShutdownBehavior": "sleep"}, "InvalidParameterValue"),
        ("RunInstances", {**LEAST, "InstanceType": ["t3.nano"]}, "InvalidParameterValue"),
        ("ImportKeyPair", {"KeyName": "k", "PublicKeyMaterial": "!"}, "InvalidParameterValue"),
        ("ModifyInstanceAttribute", {"InstanceId": "i", "UserData": {"Value": "!"}}, "InvalidUserData.Malformed"),
        ("RequestSpotInstances", {"ValidFrom": 10**400}, "InvalidParameterValue"),
        ("RequestSpotInstances", {"ValidFrom": 1e30}, "InvalidParameterValue"),
        ("RequestSpotInstances", {"ValidFrom": float("nan")}, "InvalidParameterValue"),
        ("RequestSpotInstances", {"ValidFrom": True}, "InvalidParameterValue"),
    ],
)
def test_the_same_codes_as_the_query_protocol(refused: Any, operation: str, parameters: Any, code: str) -> None:
    assert refused(operation, parameters) == code


def test_other_services_use_their_own_codes(refused: Any) -> None:
    assert refused("AssumeRole", {"RoleArn": "short", "RoleSessionName": "ab"}, "sts") == "ValidationError"
    value = {"Namespace": "n", "MetricData": [{"MetricName": "m", "Value": float("inf")}]}
    assert refused("PutMetricData", value, "cloudwatch") == "ValidationError"
    assert refused("GetAccountSummary", {"A": 1}, "iam") == "UnknownParameter"
    attributes = {"Namespace": "n", "EntityMetricData": [{"Entity": {"KeyAttributes": {"a": None, "b": "c"}}}]}
    assert refused("PutMetricData", attributes, "cloudwatch") == "ValidationError"
    attributes["EntityMetricData"] = [{"Entity": {"KeyAttributes": {"a": "b"}}}]  # the model wants two at least
    assert refused("PutMetricData", attributes, "cloudwatch") == "ValidationError"


def test_shapes_that_contain_themselves_end(catalog: Catalog) -> None:
    node = Shape("Node", "structure")
    node.members["Next"] = Member("Next", node, "Next", "next", sensitive=False)
    node.members["Text"] = Member("Text", Shape("Text", "string"), "Text", "text", sensitive=False)
    operation = Operation("Do", catalog.services["ec2"], node, None, None)
    assert parse_json(operation, {"Next": {"Next": {"Text": "a"}}}) == {"Next": {"Next": {"Text": "a"}}}
    deep: dict[str, Any] = {"Text": "a"}
    for _ in range(900):
        deep = {"Next": deep}
    with pytest.raises(ApiError, match="is not recognized"):
        parse_json(operation, deep)


@pytest.mark.parametrize("body", [b"{", b"[]", b"1", b"\xff", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 9999])
def test_bodies_that_are_not_json_objects(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        decode_json(body)
    assert caught.value.code == "SerializationException"


def test_an_empty_body_is_an_empty_object() -> None:
    assert decode_json(b"") == {}


def test_results_are_what_json_takes(catalog: Catalog) -> None:
    output = {
        "Reservations": [
            {"Instances": [{"LaunchTime": datetime(2009, 1, 1, tzinfo=UTC), "KeyName": None, "AmiLaunchIndex": 0}]}
        ]
    }
    rendered = render_json(catalog.operation("ec2", "DescribeInstances"), output)
    assert json.loads(json.dumps(rendered)) == {
        "Reservations": [{"Instances": [{"LaunchTime": "2009-01-01T00:00:00.000Z", "AmiLaunchIndex": 0}]}]
    }
    assert render_json(catalog.operation("ec2", "DeleteVolume"), None) == {}
    assert render_json(catalog.operation("iam", "GetAccountSummary"), {"SummaryMap": {"Users": 1}}) == {
        "SummaryMap": {"Users": 1}
    }


@pytest.mark.parametrize(
    "output",
    [
        {"Colour": 1},
        {"Reservations": [{"ReservationId": 1}]},
        {"Reservations": [{"Instances": [{"AmiLaunchIndex": True}]}]},
        {"Reservations": [{"Instances": [{"LaunchTime": datetime(2020, 1, 1)}]}]},
    ],
)
def test_what_the_model_does_not_have_is_a_bug(catalog: Catalog, output: Any) -> None:
    with pytest.raises(TypeError):
        render_json(catalog.operation("ec2", "DescribeInstances"), output)


def test_numbers_are_finite(catalog: Catalog) -> None:
    member = Member("Thing", Shape("Thing", "double"), "Thing", "thing", sensitive=False)
    output = Shape("Out", "structure", members={"Thing": member})
    operation = Operation("Do", catalog.services["ec2"], None, output, None)
    assert render_json(operation, {"Thing": 0.5}) == {"Thing": 0.5}
    with pytest.raises(TypeError, match="finite"):
        render_json(operation, {"Thing": float("nan")})


def test_output_of_an_operation_without_one_is_a_bug(catalog: Catalog) -> None:
    with pytest.raises(TypeError, match="has no output"):
        render_json(catalog.operation("ec2", "DeleteVolume"), {"Return": True})


KEYS = st.sampled_from(
    ["InstanceIds", "Filters", "Name", "Values", "MinCount", "MaxCount", "UserData", "Placement", "Tags", "Key",
     "Value", "BlockDeviceMappings", "Ebs", "ValidFrom", "MetricData", "Entity", "KeyAttributes", "Resources",
     "NetworkInterfaces"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(parameters=st.dictionaries(KEYS | st.text(max_size=3), JSON, max_size=5), data=st.data())
def test_no_parameters_do_worse_than_be_refused(
    catalog: Catalog, parameters: dict[str, Any], data: st.DataObject
) -> None:
    operations = [operation for service in catalog.services.values() for operation in service.operations.values()]
    try:
        parse_json(data.draw(st.sampled_from(operations)), parameters)
    except ApiError as error:
        assert error.status == 400
