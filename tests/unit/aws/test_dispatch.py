from __future__ import annotations

import gzip
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicloud.aws.dispatch import QueryCall, Undispatched, choose_call
from minicloud.aws.models import Catalog
from minicloud.aws.request import Request

FORM = (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")
EC2 = b"Action=DescribeInstances&Version=2016-11-15"


def post(body: bytes, *headers: tuple[bytes, bytes], query: bytes = b"", method: str = "POST") -> Request:
    return Request.build(method, b"/", query, headers or [FORM], body)


def scoped(service: str) -> tuple[bytes, bytes]:
    credential = (
        f"AWS4-HMAC-SHA256 Credential=AK/20260101/lab-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
    return (b"Authorization", credential.encode())


@pytest.fixture
def choose(catalog: Catalog) -> Any:
    def chosen(request: Request) -> tuple[str, str, str]:
        call = choose_call(request, catalog)
        assert isinstance(call, QueryCall)
        return call.service.name, call.operation.name, call.version

    return chosen


@pytest.fixture
def refused(catalog: Catalog) -> Any:
    def answer(request: Request, **options: Any) -> tuple[str, int, str]:
        with pytest.raises(Undispatched) as caught:
            choose_call(request, catalog, **options)
        return caught.value.code, caught.value.status, caught.value.service.name

    return answer


def test_action_and_version_find_the_operation(choose: Any) -> None:
    ec2 = ("ec2", "DescribeInstances", "2016-11-15")
    assert choose(post(EC2)) == ec2
    assert choose(post(EC2, (b"x-other", b"no content type"))) == ec2
    assert choose(post(b"", query=EC2, method="GET")) == ec2
    assert choose(post(b"Version=2016-11-15", FORM, query=b"Action=DescribeInstances")) == ec2
    assert choose(post(gzip.compress(EC2), FORM, (b"content-encoding", b"gzip"))) == ec2
    assert choose(post(b"Action=GetCallerIdentity&Version=2011-06-15")) == ("sts", "GetCallerIdentity", "2011-06-15")
    assert choose(post(b"Action=SetAlarmState&Version=2010-08-01"))[0] == "cloudwatch"


@pytest.mark.parametrize("version", ["2006-06-26", "2010-08-31", "2013-10-15", "2014-10-01", "2015-10-01"])
def test_old_versions_of_ec2_are_accepted(choose: Any, version: str) -> None:
    assert choose(post(f"Action=DescribeInstances&Version={version}".encode())) == ("ec2", "DescribeInstances", version)


def test_the_scope_only_breaks_ties(choose: Any) -> None:
    both = b"Action=DescribeTags&Version=2011-01-01"  # a version of EC2 and of Auto Scaling, and an action of both
    assert choose(post(both))[0] == "ec2"
    assert choose(post(both, FORM, scoped("autoscaling")))[0] == "autoscaling"
    assert choose(post(both, FORM, scoped("127")))[0] == "ec2"
    presigned = b"&X-Amz-Credential=AK%2F20260101%2Flab-1%2Fautoscaling%2Faws4_request"
    assert choose(post(b"", query=both + presigned, method="GET"))[0] == "autoscaling"
    assert choose(post(b"Action=DescribeInstances&Version=2011-01-01", FORM, scoped("autoscaling")))[0] == "ec2"
    assert choose(post(EC2, FORM, scoped("sts")))[0] == "ec2"


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        (b"", ("MissingAction", 400, "ec2")),
        (b"Version=2016-11-15", ("MissingAction", 400, "ec2")),
        (b"Action=&Version=2016-11-15", ("MissingAction", 400, "ec2")),
        (b"Action=DescribeInstances", ("MissingParameter", 400, "ec2")),
        (b"Action=DescribeInstances&Version=2016-11-16", ("NoSuchVersion", 400, "ec2")),
        (b"Action=DescribeInstances&Version=latest", ("NoSuchVersion", 400, "ec2")),
        (b"Action=Frobnicate&Version=2016-11-15", ("InvalidAction", 400, "ec2")),
        (b"Action=CreateVpc&Version=2016-11-15", ("InvalidAction", 400, "ec2")),  # EC2 has it, this cloud does not
        (b"Action=GetCallerIdentity&Version=2011-06-16", ("InvalidAction", 400, "sts")),
        (b"Action=GetCallerIdentity", ("InvalidAction", 400, "sts")),
        (b"Action=GetSessionToken&Version=2011-06-15", ("InvalidAction", 400, "sts")),
        (b"Action=GetParameter&Version=2014-11-06", ("NoSuchVersion", 400, "ec2")),  # SSM has no query protocol
        (EC2 + b"&Action=DescribeInstances", ("InvalidQueryParameter", 400, "ec2")),
        (EC2 + b"&Version=2016-11-15", ("InvalidQueryParameter", 400, "ec2")),
        (b"Action=%ff", ("MalformedQueryString", 400, "ec2")),
    ],
)
def test_requests_for_nothing(refused: Any, form: bytes, answer: tuple[str, int, str]) -> None:
    assert refused(post(form)) == answer


def test_the_words_of_ec2_and_of_the_others(catalog: Catalog) -> None:
    for form, message in [
        (b"Action=Frob&Version=2016-11-15", "The action Frob is not valid for this web service."),
        (b"Action=CreateVpc&Version=2016-11-15", "The action CreateVpc is not valid for this web service."),
        (b"Action=Frob&Version=2011-06-15", "Could not find operation Frob for version 2011-06-15"),
        (b"Action=GetCallerIdentity", "Could not find operation GetCallerIdentity for version NO_VERSION_SPECIFIED"),
        (EC2[:-1] + b"6", "The requested version (2016-11-16) of service AmazonEC2 does not exist"),
    ]:
        with pytest.raises(Undispatched) as caught:
            choose_call(post(form), catalog)
        assert caught.value.message == message


def test_what_cannot_be_read_is_answered_in_the_scopes_envelope(refused: Any) -> None:
    assert refused(post(b"Action=%ff", FORM, scoped("sts"))) == ("MalformedQueryString", 400, "sts")
    assert refused(post(b"Action=%ff", FORM, scoped("monitoring"))) == ("MalformedQueryString", 400, "cloudwatch")
    assert refused(post(b"Action=%ff", FORM, scoped("nonsense"))) == ("MalformedQueryString", 400, "ec2")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (post(EC2, (b"content-type", b"application/json")), ("UnsupportedMediaType", 415, "ec2")),
        (post(EC2, (b"content-type", b"application/x-www-form-urlencoded; charset=utf-16")),
         ("UnsupportedMediaType", 415, "ec2")),
        (post(EC2, FORM, FORM), ("InvalidRequest", 400, "ec2")),
        (post(EC2, FORM, method="PUT"), ("InvalidMethod", 405, "ec2")),
        (post(gzip.compress(b"a" * 5000), FORM, (b"content-encoding", b"gzip")), ("RequestEntityTooLarge", 413, "ec2")),
        (post(b"{}", (b"x-amz-target", b"AmazonSSM.GetParameter")), ("UnsupportedMediaType", 415, "ssm")),
        (post(b"", (b"smithy-protocol", b"rpc-v2-cbor")), ("UnsupportedProtocol", 400, "ec2")),
    ],
)  # fmt: skip
def test_protocols_and_bodies_that_are_not_spoken(
    refused: Any, request_: Request, answer: tuple[str, int, str]
) -> None:
    assert refused(request_, max_body_bytes=1000) == answer


def test_a_call_parses_and_answers(catalog: Catalog) -> None:
    call = choose_call(post(EC2 + b"&InstanceId.1=i-1"), catalog)
    assert call.parse() == {"InstanceIds": ["i-1"]}
    assert b"<reservationSet/>" in call.reply({"Reservations": []}, "r").body


@settings(max_examples=300, deadline=None)
@given(
    body=st.binary(max_size=40) | st.binary(max_size=30).map(lambda tail: EC2 + b"&" + tail),
    query=st.binary(max_size=30),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"content-type", b"content-encoding", b"authorization", b"x-amz-target"]),
            st.sampled_from([FORM[1], b"gzip", b"", scoped("sts")[1], b"Credential=////"]) | st.binary(max_size=10),
        ),
        max_size=4,
    ),
    method=st.sampled_from(["GET", "POST", "", "PATCH"]),
)
def test_no_request_does_worse_than_be_refused(
    catalog: Catalog, body: bytes, query: bytes, headers: list[tuple[bytes, bytes]], method: str
) -> None:
    try:
        choose_call(Request.build(method, b"/", query, headers, body), catalog)
    except Undispatched as error:
        assert 400 <= error.status < 500
