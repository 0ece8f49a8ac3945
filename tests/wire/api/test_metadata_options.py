"""Metadata options of an instance and the account's defaults, through boto3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support import front as build

Refused = Callable[..., ClientError]
Run = Callable[..., dict[str, Any]]

AS_LAUNCHED = {
    "State": "applied",
    "HttpTokens": "optional",
    "HttpPutResponseHopLimit": 1,
    "HttpEndpoint": "enabled",
    "HttpProtocolIpv6": "disabled",
    "InstanceMetadataTags": "disabled",
}


def options(ec2: Any, instance_id: str) -> dict[str, Any]:
    (one,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"]
    return dict(one["MetadataOptions"])


@pytest.fixture
def running(front: build.Front, run: Run) -> str:
    instance_id: str = run()["Instances"][0]["InstanceId"]
    build.settle(front.cloud)
    return instance_id


def test_a_change_is_pending_until_the_host_was_told(front: build.Front, ec2: Any, running: str) -> None:
    assert options(ec2, running) == AS_LAUNCHED
    reply = ec2.modify_instance_metadata_options(
        InstanceId=running, HttpTokens="required", HttpPutResponseHopLimit=64, HttpProtocolIpv6="disabled"
    )
    wanted = {**AS_LAUNCHED, "State": "pending", "HttpTokens": "required", "HttpPutResponseHopLimit": 64}
    assert (reply["InstanceId"], reply["InstanceMetadataOptions"]) == (running, wanted)
    assert options(ec2, running) == wanted
    # What is not named stays.
    ec2.modify_instance_metadata_options(InstanceId=running, HttpEndpoint="disabled", InstanceMetadataTags="enabled")
    wanted |= {"HttpEndpoint": "disabled", "InstanceMetadataTags": "enabled"}
    assert options(ec2, running) == wanted

    def tell(tx: Any) -> None:
        told = replace(tx.instances.get(running).metadata_options, state="applied")
        tx.instances.update(running, metadata_options=told)

    front.cloud.store.write(tell)
    assert options(ec2, running) == {**wanted, "State": "applied"}


def test_no_change_changes_nothing(ec2: Any, running: str) -> None:
    for same in ({}, {"HttpTokens": "optional"}, {"HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1}):
        reply = ec2.modify_instance_metadata_options(InstanceId=running, **same)
        assert reply["InstanceMetadataOptions"] == AS_LAUNCHED


def test_a_stopped_instance_has_its_options_at_once(front: build.Front, ec2: Any, running: str) -> None:
    ec2.stop_instances(InstanceIds=[running])
    build.settle(front.cloud)
    reply = ec2.modify_instance_metadata_options(InstanceId=running, HttpTokens="required")
    assert reply["InstanceMetadataOptions"] == {**AS_LAUNCHED, "HttpTokens": "required"}


def test_options_that_cannot_be(front: build.Front, ec2: Any, running: str, refused: Refused) -> None:
    call = ec2.modify_instance_metadata_options
    refused("InvalidParameterValue", call, InstanceId=running, HttpPutResponseHopLimit=0)
    refused("InvalidParameterValue", call, InstanceId=running, HttpPutResponseHopLimit=65)
    refused("InvalidParameterValue", call, InstanceId=running, HttpTokens="perhaps")
    refused("UnsupportedOperation", call, InstanceId=running, HttpProtocolIpv6="enabled")
    ec2.create_tags(Resources=[running], Tags=[{"Key": "with a space", "Value": ""}])
    refused("InvalidParameterValue", call, InstanceId=running, InstanceMetadataTags="enabled")
    assert options(ec2, running) == AS_LAUNCHED
    ec2.terminate_instances(InstanceIds=[running])
    refused("IncorrectInstanceState", call, InstanceId=running, HttpTokens="required")


def test_there_are_no_defaults_at_first(ec2: Any, front: build.Front) -> None:
    assert ec2.get_instance_metadata_defaults()["AccountLevel"] == {"ManagedBy": "account"}


def test_defaults_are_kept_and_taken_back(ec2: Any, front: build.Front, refused: Refused) -> None:
    def defaults() -> dict[str, Any]:
        return dict(ec2.get_instance_metadata_defaults()["AccountLevel"])

    assert ec2.modify_instance_metadata_defaults(HttpTokens="required", HttpPutResponseHopLimit=2)["Return"] is True
    assert defaults() == {"ManagedBy": "account", "HttpTokens": "required", "HttpPutResponseHopLimit": 2}
    ec2.modify_instance_metadata_defaults(
        HttpEndpoint="disabled", InstanceMetadataTags="enabled", HttpTokensEnforced="enabled"
    )
    assert defaults() == {
        "ManagedBy": "account",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 2,
        "HttpEndpoint": "disabled",
        "InstanceMetadataTags": "enabled",
        "HttpTokensEnforced": "enabled",
    }
    for limit in (0, 65, -2):
        refused("InvalidParameterValue", ec2.modify_instance_metadata_defaults, HttpPutResponseHopLimit=limit)
    ec2.modify_instance_metadata_defaults(
        HttpTokens="no-preference",
        HttpPutResponseHopLimit=-1,
        HttpEndpoint="no-preference",
        InstanceMetadataTags="no-preference",
        HttpTokensEnforced="no-preference",
    )
    assert defaults() == {"ManagedBy": "account"}


def test_a_launch_takes_what_is_given_then_the_account_s_then_the_image_s(
    front: build.Front, ec2: Any, run: Run
) -> None:
    ec2.modify_instance_metadata_defaults(
        HttpTokens="optional", HttpPutResponseHopLimit=5, InstanceMetadataTags="enabled"
    )
    front.cloud.store.write(lambda tx: tx.images.update(build.IMAGE_ID, imds_support="v2.0"))
    (plain,) = run()["Instances"]
    assert plain["MetadataOptions"] == {
        **AS_LAUNCHED,
        "State": "pending",
        "HttpPutResponseHopLimit": 5,
        "InstanceMetadataTags": "enabled",
    }
    (given,) = run(MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "disabled"})["Instances"]
    assert given["MetadataOptions"] == {
        **AS_LAUNCHED,
        "State": "pending",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 5,
    }
    ec2.modify_instance_metadata_defaults(HttpTokens="no-preference", HttpPutResponseHopLimit=-1)
    (of_image,) = run()["Instances"]
    assert (of_image["MetadataOptions"]["HttpTokens"], of_image["MetadataOptions"]["HttpPutResponseHopLimit"]) == (
        "required",
        2,
    )


def test_tags_that_the_account_s_default_would_show(front: build.Front, ec2: Any, run: Run, refused: Refused) -> None:
    ec2.modify_instance_metadata_defaults(InstanceMetadataTags="enabled")
    before = build.count_rows(front.cloud)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "a/b", "Value": ""}]}]
    refused("InvalidParameterValue", run, TagSpecifications=tags)
    assert build.count_rows(front.cloud) == before


def test_enforced_tokens(front: build.Front, ec2: Any, run: Run, running: str, refused: Refused) -> None:
    ec2.modify_instance_metadata_defaults(HttpTokensEnforced="enabled")
    before = build.count_rows(front.cloud)
    refused("UnsupportedOperation", run)
    refused("UnsupportedOperation", run, MetadataOptions={"HttpTokens": "optional"})
    assert build.count_rows(front.cloud) == before
    (one,) = run(MetadataOptions={"HttpTokens": "required"})["Instances"]
    refused(
        "UnsupportedOperation",
        ec2.modify_instance_metadata_options,
        InstanceId=one["InstanceId"],
        HttpTokens="optional",
    )
    # An instance that was there before keeps its options, and may change others.
    ec2.modify_instance_metadata_options(InstanceId=running, HttpPutResponseHopLimit=2)
    ec2.modify_instance_metadata_defaults(HttpTokensEnforced="disabled")
    run()
