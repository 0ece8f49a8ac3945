from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicloud.aws.models import Catalog, Member, Operation, Shape
from minicloud.aws.query import MAX_PARAMETERS, decode_form, parse_query
from minicloud.errors import ApiError

LEAST = "MinCount=1&MaxCount=1&"


@pytest.fixture
def parse(catalog: Catalog) -> Any:
    def parse_form(operation: str, form: str, service: str = "ec2") -> dict[str, Any]:
        return parse_query(catalog.operation(service, operation), decode_form(form.encode()))

    return parse_form


@pytest.fixture
def refused(parse: Any) -> Any:
    def code_and_message(operation: str, form: str, service: str = "ec2") -> tuple[str, str]:
        with pytest.raises(ApiError) as caught:
            parse(operation, form, service)
        assert caught.value.status == 400
        return caught.value.code, caught.value.message

    return code_and_message


def test_forms_are_decoded() -> None:
    assert decode_form(b"a=1+2%2B&b&=c&&d=%C3%A9=") == [("a", "1 2+"), ("b", ""), ("", "c"), ("d", "é=")]


@pytest.mark.parametrize("form", [b"a=%ff", b"%c3=1", b"a=\xff", b"&" * MAX_PARAMETERS])
def test_forms_that_cannot_be_decoded(form: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        decode_form(form)
    assert caught.value.code == "MalformedQueryString"


def test_parameters_get_botocores_names_and_pythons_types(parse: Any) -> None:
    form = (
        "Action=RunInstances&Version=2016-11-15&ImageId=ami-1&MinCount=1&MaxCount=+2&EbsOptimized=TRUE"
        "&SecurityGroupId.1=sg-1&Placement.AvailabilityZone=lab-1a&BlockDeviceMapping.1.DeviceName=/dev/sda1"
        "&BlockDeviceMapping.1.Ebs.VolumeSize=8&BlockDeviceMapping.1.Ebs.DeleteOnTermination=False"
        "&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value=a"
    )
    with pytest.raises(ApiError):  # "+2" is a space and a 2
        parse("RunInstances", form)
    assert parse("RunInstances", form.replace("=+2", "=%2B2")) == {
        "ImageId": "ami-1",
        "MinCount": 1,
        "MaxCount": 2,
        "EbsOptimized": True,
        "SecurityGroupIds": ["sg-1"],
        "Placement": {"AvailabilityZone": "lab-1a"},
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8, "DeleteOnTermination": False}},
        ],
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "a"}]}],
    }


@pytest.mark.parametrize(
    "form",
    [
        "InstanceId.1=i-a&InstanceId.2=i-b&InstanceId.3=i-c",
        "InstanceId.0=i-a&InstanceId.1=i-b&InstanceId.2=i-c",
        "InstanceId.7=i-b&InstanceId.100=i-c&InstanceId.2=i-a",
        "InstanceId.10=i-c&InstanceId.9=i-b&InstanceId.08=i-a",
    ],
)
def test_lists_are_in_the_order_of_their_numbers(parse: Any, form: str) -> None:
    assert parse("DescribeInstances", form) == {"InstanceIds": ["i-a", "i-b", "i-c"]}


def test_the_number_of_a_list_of_one_may_be_missing(parse: Any) -> None:
    assert parse("DescribeInstances", "InstanceId=i-1&Filter.1.Name=n&Filter.1.Value=v") == {
        "InstanceIds": ["i-1"],
        "Filters": [{"Name": "n", "Values": ["v"]}],
    }


def test_empty_parameters_are_absent_ones(parse: Any) -> None:
    form = (
        LEAST + "SubnetId=&UserData=&Placement.AvailabilityZone=&IamInstanceProfile.Name=&EbsOptimized="
        "&RamdiskId=&Monitoring.Enabled="
    )
    assert parse("RunInstances", form) == {"MinCount": 1, "MaxCount": 1}


def test_empty_parameters_that_mean_something(parse: Any) -> None:
    assert parse("CreateTags", "ResourceId.1=i-1&Tag.1.Key=k&Tag.1.Value=") == {
        "Resources": ["i-1"],
        "Tags": [{"Key": "k", "Value": ""}],
    }
    assert parse("DescribeInstances", "Filter.1.Name=tag:k&Filter.1.Value.1=") == {
        "Filters": [{"Name": "tag:k", "Values": [""]}]
    }
    assert parse("RunInstances", LEAST + "BlockDeviceMapping.1.DeviceName=b&BlockDeviceMapping.1.NoDevice=")[
        "BlockDeviceMappings"
    ] == [{"DeviceName": "b", "NoDevice": ""}]
    assert parse("ModifyInstanceAttribute", "InstanceId=i-1&UserData.Value=") == {
        "InstanceId": "i-1",
        "UserData": {"Value": b""},
    }


def test_a_single_value_may_be_numbered_in_ec2(parse: Any, refused: Any) -> None:
    assert parse("RunInstances", LEAST + "ImageId.1=ami-1") == parse("RunInstances", LEAST + "ImageId=ami-1")
    assert refused("RunInstances", LEAST + "ImageId.1=ami-1&ImageId.2=ami-2")[0] == "UnknownParameter"
    assert refused("RunInstances", LEAST + "ImageId=ami-1&ImageId.1=ami-2")[0] == "UnknownParameter"
    assert refused("RunInstances", LEAST + "ImageId.1.1=ami-1")[0] == "UnknownParameter"
    assert refused("DescribeInstances", "InstanceId.1.1=i-1")[0] == "UnknownParameter"
    assert refused("AssumeRole", "RoleArn.1=arn&RoleSessionName=one", service="sts")[0] == "UnknownParameter"


def test_the_query_protocol_says_empty_lists_and_texts(parse: Any) -> None:
    form = "AlarmName=a&StateValue=OK&StateReason="
    assert parse("SetAlarmState", form, "cloudwatch")["StateReason"] == ""
    assert parse("TagRole", "RoleName=r&Tags=", "iam") == {"RoleName": "r", "Tags": []}


def test_the_query_protocol_numbers_members(parse: Any) -> None:
    form = (
        "Namespace=N&MetricData.member.1.MetricName=m&MetricData.member.1.Values.member.1=1.5"
        "&MetricData.member.1.Values.member.2=-2e3&MetricData.member.1.Timestamp=2026-01-02T03:04:05Z"
        "&EntityMetricData.member.1.Entity.KeyAttributes.entry.1.key=a"
        "&EntityMetricData.member.1.Entity.KeyAttributes.entry.1.value=b"
        "&EntityMetricData.member.1.Entity.KeyAttributes.entry.2.key=c"
        "&EntityMetricData.member.1.Entity.KeyAttributes.entry.2.value=d"
    )
    assert parse("PutMetricData", form, "cloudwatch") == {
        "Namespace": "N",
        "MetricData": [
            {
                "MetricName": "m",
                "Values": [1.5, -2000.0],
                "Timestamp": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            }
        ],
        "EntityMetricData": [{"Entity": {"KeyAttributes": {"a": "b", "c": "d"}}}],
    }


def test_blobs_are_bytes(parse: Any) -> None:
    assert parse("ImportKeyPair", "KeyName=k&PublicKeyMaterial=AP8%3D")["PublicKeyMaterial"] == b"\x00\xff"
    assert parse("ImportKeyPair", "KeyName=k&PublicKeyMaterial=AP%0A8%3D%0A")["PublicKeyMaterial"] == b"\x00\xff"


def test_parameters_of_the_protocol_are_not_the_operations(parse: Any) -> None:
    form = (
        "Action=X&Version=Y&AWSAccessKeyId=1&Signature=1&SignatureMethod=1&SignatureVersion=2&Timestamp=1&Expires=1"
        "&SecurityToken=1&X-Amz-Date=1&X-Amz-Signature=1&x-amz-credential=1"
    )
    assert parse("DescribeInstances", form) == {}


@pytest.mark.parametrize(
    ("operation", "form", "code", "message"),
    [
        ("RunInstances", "MaxCount=1", "MissingParameter", "The request must contain the parameter MinCount"),
        ("RunInstances", "MaxCount=1&MinCount=", "MissingParameter", "The request must contain the parameter MinCount"),
        ("CreateTags", "Tag.1.Key=a", "MissingParameter", "The request must contain the parameter ResourceId"),
        ("DescribeInstances", "Colour=red", "UnknownParameter", "The parameter Colour is not recognized"),
        ("DescribeInstances", "Colour.1.Hue=red", "UnknownParameter", "The parameter Colour.1.Hue is not recognized"),
        ("DescribeInstances", "Filter.1.Nome=a", "UnknownParameter", "The parameter Filter.1.Nome is not recognized"),
        ("DescribeInstances", "Filters.1.Name=a", "UnknownParameter", "The parameter Filters.1.Name is not recognized"),
        ("DescribeInstances", "InstanceId=a&InstanceId.1=b", "UnknownParameter", None),
        ("DescribeInstances", "Filter=a", "UnknownParameter", "The parameter Filter is not recognized"),
        ("DescribeInstances", "InstanceId.x=i-1", "UnknownParameter", "The parameter InstanceId.x is not recognized"),
        ("DescribeInstances", "InstanceId.-1=i-1", "UnknownParameter", "The parameter InstanceId.-1 is not recognized"),
        (
            "DescribeInstances",
            "InstanceId.1.Id=i",
            "UnknownParameter",
            "The parameter InstanceId.1.Id is not recognized",
        ),
        ("DescribeInstances", "Filter.1=a", "UnknownParameter", "The parameter Filter.1 is not recognized"),
        ("DescribeInstances", f"InstanceId.{'1' * 5000}=i-1", "UnknownParameter", None),
        ("DescribeInstances", "DryRun.x=a", "UnknownParameter", "The parameter DryRun.x is not recognized"),
        ("DescribeInstances", "=a", "UnknownParameter", "The parameter  is not recognized"),
        ("DescribeInstances", "NextToken=a&NextToken=a", "InvalidQueryParameter", None),
        ("DescribeInstances", "InstanceId.1=a&InstanceId.01=b", "InvalidQueryParameter", None),
        ("DescribeInstances", "DryRun=yes", "InvalidParameterValue", None),
        ("DescribeInstances", "MaxResults=many", "InvalidParameterValue", None),
        ("DescribeInstances", "MaxResults=1.5", "InvalidParameterValue", None),
        ("DescribeInstances", "MaxResults=99999999999", "InvalidParameterValue", None),
        ("DescribeInstances", "MaxResults=9999999999999999999999999", "InvalidParameterValue", None),
        ("DescribeInstanceTypes", "MaxResults=1", "InvalidParameterValue", None),
        ("DescribeInstances", "NextToken=%00", "InvalidParameterValue", None),
        ("DescribeInstances", "NextToken=%EF%BF%BF", "InvalidParameterValue", None),
        ("RunInstances", LEAST + "InstanceInitiatedShutdownBehavior=sleep", "InvalidParameterValue", None),
        ("ImportKeyPair", "KeyName=k&PublicKeyMaterial=!", "InvalidParameterValue", None),
        ("ImportKeyPair", "KeyName=k&PublicKeyMaterial=AP8", "InvalidParameterValue", None),
        (
            "ModifyInstanceAttribute",
            "InstanceId=i&UserData.Value=!",
            "InvalidUserData.Malformed",
            "Invalid BASE64 encoding of user data.",
        ),
        ("RequestSpotInstances", "ValidFrom=tomorrow", "InvalidParameterValue", None),
        ("DescribeInstances", ".".join(["Filter"] * 100) + "=1", "UnknownParameter", None),
    ],
)
def test_ec2_names_what_is_wrong(refused: Any, operation: str, form: str, code: str, message: str | None) -> None:
    answer = refused(operation, form)
    assert answer[0] == code
    if message is not None:
        assert answer[1] == message


def test_ec2_repeats_the_value_and_the_parameter(refused: Any) -> None:
    form = LEAST + "InstanceInitiatedShutdownBehavior=sleep"
    assert refused("RunInstances", form)[1] == (
        "Value (sleep) for parameter InstanceInitiatedShutdownBehavior is invalid. Expecting one of: stop, terminate"
    )
    assert refused("DescribeInstanceTypes", "MaxResults=1")[1] == (
        "Value (1) for parameter MaxResults is invalid. Expecting a value greater than or equal to 5."
    )
    assert len(refused("DescribeInstances", f"MaxResults={'9' * 20}a{'b' * 5000}")[1]) < 300


@pytest.mark.parametrize(
    ("operation", "service", "form", "code", "ending"),
    [
        ("AssumeRole", "sts", "RoleSessionName=ab", "ValidationError", "Value null at 'RoleArn' failed to satisfy "
         "constraint: Member must not be null"),
        ("AssumeRole", "sts", "RoleArn=short&RoleSessionName=ab", "ValidationError", "Value 'short' at 'RoleArn' "
         "failed to satisfy constraint: Member must have length greater than or equal to 20"),
        ("SetAlarmState", "cloudwatch", "AlarmName=a&StateReason=r&StateValue=GOOD", "ValidationError",
         "Value 'GOOD' at 'StateValue' failed to satisfy constraint: Member must satisfy enum value set: "
         "[OK, ALARM, INSUFFICIENT_DATA]"),
        ("TagRole", "iam", "RoleName=r" + "".join(f"&Tags.member.{i}.Key=k&Tags.member.{i}.Value=v" for i in range(51)),
         "ValidationError", "Value at 'Tags.member' failed to satisfy constraint: Member must have length less than or "
         "equal to 50"),
        ("AssumeRole", "sts", "Colour=red", "UnknownParameter", "The parameter Colour is not recognized"),
        ("TagRole", "iam", "RoleName=r&Tags.1.Key=k", "UnknownParameter", "The parameter Tags.1.Key is not recognized"),
        ("TagRole", "iam", "RoleName=r&Tags.member=k", "UnknownParameter",
         "The parameter Tags.member is not recognized"),
        ("TagRole", "iam", "RoleName=r&Tags.member.1.Key=k", "ValidationError", "Value null at 'Tags.member.1.Value' "
         "failed to satisfy constraint: Member must not be null"),
        ("PutMetricData", "cloudwatch", "Namespace=n&MetricData.member.1.MetricName=m&MetricData.member.1.Value=NaN",
         "ValidationError", "Expecting a number"),
        ("PutMetricData", "cloudwatch", "Namespace=n&MetricData.member.1.MetricName=m&MetricData.member.1.Value=1e999",
         "ValidationError", "Expecting a finite number"),
        ("GetAccountSummary", "iam", "A.b=1", "UnknownParameter", "The parameter A.b is not recognized"),
    ],
)  # fmt: skip
def test_other_services_use_their_own_words(
    refused: Any, operation: str, service: str, form: str, code: str, ending: str
) -> None:
    answer = refused(operation, form, service)
    assert answer[0] == code
    assert answer[1].endswith(ending)


def made_operation(catalog: Catalog, **shapes: Shape) -> Operation:
    members = {name: Member(name, shape, name, name, sensitive=name == "Secret") for name, shape in shapes.items()}
    taken = Shape("In", "structure", members=members, by_request_name=members)
    if "Next" in members:
        members["Next"].shape = taken
    return Operation("Do", catalog.services["ec2"], taken, None, None)


def test_the_value_of_a_sensitive_member_is_never_repeated(catalog: Catalog) -> None:
    operation = made_operation(catalog, Secret=Shape("S", "string", maximum=3), Plain=Shape("S", "string", maximum=3))
    with pytest.raises(ApiError, match="hunter2"):
        parse_query(operation, [("Plain", "hunter2")])
    with pytest.raises(ApiError) as caught:
        parse_query(operation, [("Secret", "hunter2")])
    assert "hunter2" not in caught.value.message


def test_shapes_that_contain_themselves_end(catalog: Catalog) -> None:
    operation = made_operation(catalog, Next=Shape("", "structure"), Text=Shape("Text", "string"))
    assert parse_query(operation, [("Next.Next.Text", "a")]) == {"Next": {"Next": {"Text": "a"}}}
    with pytest.raises(ApiError, match="is not recognized"):
        parse_query(operation, [("Next." * 5000 + "Text", "a")])


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ("entry.1.key=a", "ValidationError"),
        ("entry.1.value=a", "ValidationError"),
        ("entry.1.key=a&{}entry.1.value=b&{}entry.2.key=a&{}entry.2.value=c", "InvalidQueryParameter"),
        ("entry.1.key=a&{}entry.1.value=b&{}entry.1.other=c", "UnknownParameter"),
        ("1.key=a&{}1.value=b", "UnknownParameter"),
        ("entry.1=a", "UnknownParameter"),
        ("entry.1.key=a&{}entry.1.value=b", "ValidationError"),  # the model wants two at least
    ],
)
def test_maps_that_are_wrong(refused: Any, entries: str, code: str) -> None:
    prefix = "EntityMetricData.member.1.Entity.KeyAttributes."
    form = "Namespace=N&" + prefix + entries.replace("{}", prefix)
    assert refused("PutMetricData", form, "cloudwatch")[0] == code


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678Z", datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456789z", datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02 03:04", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02T03:04:05%2B02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05-0130", datetime(2026, 1, 2, 4, 34, 5, tzinfo=UTC)),
        ("1767323045", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("1767323045.5", datetime(2026, 1, 2, 3, 4, 5, 500000, tzinfo=UTC)),
    ],
)
def test_times(parse: Any, text: str, when: datetime) -> None:
    assert parse("RequestSpotInstances", "ValidFrom=" + text)["ValidFrom"] == when


@pytest.mark.parametrize(
    "text",
    ["2026-13-01T00:00:00Z", "2026-02-30", "0000-01-01", "2026-01-02T03:04:05%2B25:00", "1e30", "-1e18", "now",
     "0001-01-01T00:00:00%2B02:00", "9999-12-31T23:59:59-02:00", "2026-01-02T24:00:01Z"],
)  # fmt: skip
def test_times_that_are_not(refused: Any, text: str) -> None:
    assert refused("RequestSpotInstances", "ValidFrom=" + text)[0] == "InvalidParameterValue"


NAME_PARTS = st.sampled_from(
    ["InstanceId", "Filter", "Name", "Value", "Tag", "Key", "MinCount", "UserData", "NetworkInterface", "Ebs", "DryRun",
     "BlockDeviceMapping", "1", "0", "2", "00", "member", "entry", "key", "MetricData", "Timestamp", "Values", "", "é",
     "ValidFrom", "LaunchSpecification", "PublicKeyMaterial", "EntityMetricData", "Entity", "KeyAttributes", "Tags"]
)  # fmt: skip
NAMES = st.lists(NAME_PARTS, min_size=1, max_size=6).map(".".join) | st.text(max_size=10)
TEXTS = st.sampled_from(["", "1", "-1", "true", "a", "é", "\x00", "2026-01-01", "1e400", "AP8=", "9" * 30]) | st.text(
    max_size=9
)


@settings(max_examples=300, deadline=None)
@given(pairs=st.lists(st.tuples(NAMES, TEXTS), max_size=8), data=st.data())
def test_no_parameters_do_worse_than_be_refused(
    catalog: Catalog, pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    operations = [operation for service in catalog.services.values() for operation in service.operations.values()]
    operation = data.draw(st.sampled_from(operations))
    try:
        parse_query(operation, pairs)
    except ApiError as error:
        assert error.status == 400


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_no_form_does_worse_than_be_refused(form: bytes) -> None:
    try:
        decode_form(form)
    except ApiError as error:
        assert error.code == "MalformedQueryString"
