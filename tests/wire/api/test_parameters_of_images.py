"""SSM's public parameters, `resolve:ssm:` and IAM's alias, through boto3."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from support import front as build
from support import rows as make

from minicloud.cloud.image_parameters import ALIASES
from minicloud.model.resources import Image
from minicloud.model.states import ImageState

TINY = "/minicloud/images/tiny"
DEBIAN = "/aws/service/debian/release/12/latest/amd64"
OTHER, THIRD, FOURTH, FIFTH = (f"10000000000{n}" for n in (2, 3, 4, 5))
SECOND_US = 1_000_000


@pytest.fixture
def ssm(front: build.Front, clients: Callable[..., Any]) -> Any:
    return clients("ssm")


@pytest.fixture
def add(front: build.Front) -> Callable[..., Image]:
    """Register image number N as the cloud's rows would show it; each was made a second after the one before."""
    accounts = {build.root_caller().account_id}

    def insert(n: int, name: str = "tiny", **changes: Any) -> Image:
        image = build.image(n, **{"name": name, "created_us": 1_700_000_000 * SECOND_US + n * SECOND_US, **changes})

        def write(tx: Any) -> None:
            if image.account_id not in accounts:
                accounts.add(image.account_id)
                tx.accounts.insert(make.account(id=image.account_id))
            tx.images.insert(image)

        front.cloud.store.write(write)
        return image

    return insert


def test_a_parameter_is_the_available_image_of_its_name(ssm: Any, ec2: Any, add: Any, refused: Any) -> None:
    refused("ParameterNotFound", ssm.get_parameter, Name=TINY)
    old = add(2)
    assert ssm.get_parameter(Name=TINY)["Parameter"]["Value"] == old.id
    ec2.deregister_image(ImageId=old.id)
    add(4, state=ImageState.PENDING)
    refused("ParameterNotFound", ssm.get_parameter, Name=TINY)
    new = add(5, "tiny2")
    refused("ParameterVersionNotFound", ssm.get_parameter, Name=f"/minicloud/images/tiny2:{old.created_us}")
    assert ssm.get_parameter(Name="/minicloud/images/tiny2")["Parameter"] == {
        "Name": "/minicloud/images/tiny2",
        "Type": "String",
        "Value": new.id,
        "Version": new.created_us,
        "LastModifiedDate": datetime(2023, 11, 14, 22, 13, 25, tzinfo=UTC),
        "ARN": "arn:aws:ssm:lab-1::parameter/minicloud/images/tiny2",
        "DataType": "aws:ec2:image",
    }


def test_one_s_own_image_comes_before_a_shared_and_a_public_one(ssm: Any, add: Any) -> None:
    add(20, account_id=THIRD, allowed_account_ids=())
    public = add(8, account_id=OTHER, allowed_account_ids=(), public=True)
    newer = add(9, account_id=FOURTH, allowed_account_ids=(), public=True)
    assert ssm.get_parameter(Name=TINY)["Parameter"]["Value"] == newer.id
    shared = add(7, account_id=FIFTH, allowed_account_ids=(build.root_caller().account_id,))
    assert ssm.get_parameter(Name=TINY)["Parameter"]["Value"] == shared.id
    own = add(2)
    assert ssm.get_parameter(Name=TINY)["Parameter"]["Value"] == own.id
    # A version names one image, whoever else has one of the name.
    pinned = ssm.get_parameter(Name=f"{TINY}:{public.created_us}", WithDecryption=True)["Parameter"]
    assert (pinned["Value"], pinned["Name"], pinned["Selector"]) == (public.id, TINY, f":{public.created_us}")


def test_names_are_read_as_ssm_reads_them(ssm: Any, add: Any, refused: Any) -> None:
    image = add(2)
    for name in (
        f"  {TINY} ",
        f"arn:aws:ssm:lab-1::parameter{TINY}",
        f"arn:aws:ssm:lab-1:{build.root_caller().account_id}:parameter{TINY}",
        f"arn:aws:ssm:lab-1::parameter{TINY}:{image.created_us}",
    ):
        assert ssm.get_parameter(Name=name)["Parameter"]["Value"] == image.id
    for name in (
        "/minicloud/images/ti ny",
        "tiny!",
        f"{TINY}:",
        f"{TINY}:a b",
        "arn:aws:ssm:mars-1::parameter/x",
        ":1",
    ):
        refused("ValidationException", ssm.get_parameter, Name=name)
    for name in ("tiny", "/minicloud/images/", "/minicloud/images/Tiny", "/minicloud/tiny", "x" * 2048, "/"):
        refused("ParameterNotFound", ssm.get_parameter, Name=name)
    for selector in ("1", "latest", str(image.created_us + 1)):
        refused("ParameterVersionNotFound", ssm.get_parameter, Name=f"{TINY}:{selector}")
    refused("ParameterNotFound", ssm.get_parameter, Name="/nothing:1")


def test_several_are_answered_by_name_and_unknown_ones_told_apart(ssm: Any, add: Any, refused: Any) -> None:
    b, a = add(2, "bbb"), add(3, "aaa")
    names = ["/minicloud/images/bbb", "/nothing", "/minicloud/images/aaa", f"{TINY}:7", "/minicloud/images/bbb"]
    answer = ssm.get_parameters(Names=names, WithDecryption=False)
    assert [one["Value"] for one in answer["Parameters"]] == [a.id, b.id]
    assert answer["InvalidParameters"] == ["/nothing", f"{TINY}:7"]
    refused("ValidationException", ssm.get_parameters, Names=["/a b"])


def test_bounds_are_those_of_the_model(front: Any, clients: Any, refused: Any) -> None:
    ssm = clients("ssm", validate=False)
    refused("ValidationException", ssm.get_parameters, Names=[])
    error = refused("ValidationException", ssm.get_parameters, Names=[f"/n{n}" for n in range(11)])
    assert "at 'names' failed to satisfy constraint: Member must have length less than or equal to 10" in str(error)
    refused("ValidationException", ssm.get_parameter)
    refused("ValidationException", ssm.get_parameter, Name="x" * 2049)
    refused("SerializationException", ssm.get_parameter, Name=5)


def test_public_names_stand_for_the_operator_s_images(ssm: Any, add: Any, refused: Any) -> None:
    refused("ParameterNotFound", ssm.get_parameter, Name=DEBIAN)
    add(9, ALIASES[DEBIAN], account_id=OTHER, public=True)
    refused("ParameterNotFound", ssm.get_parameter, Name=DEBIAN)
    image = add(2, ALIASES[DEBIAN])
    assert ssm.get_parameter(Name=DEBIAN)["Parameter"]["Value"] == image.id
    assert all(re.fullmatch(r"(/[a-zA-Z0-9_.\-]+)+", name) for name in ALIASES)


def test_the_operator_says_what_a_public_name_stands_for(catalog: Any, server: Any, clients: Any, refused: Any) -> None:
    own_name = "/aws/service/ami-amazon-linux-latest/al2023-ami-minimal"
    settings = {"image_parameters": {own_name: "golden", DEBIAN: "golden"}, "account_alias": "acme-lab"}
    front = build.build_front(catalog, **settings)
    server[0].app = build.endpoint_of(front)
    ssm = clients("ssm")
    refused("ParameterNotFound", ssm.get_parameter, Name=own_name)
    image = build.image(2, name="golden")
    front.cloud.store.write(lambda tx: tx.images.insert(image))
    for name in (own_name, DEBIAN):
        assert ssm.get_parameter(Name=name)["Parameter"]["Value"] == image.id
    assert clients("iam").list_account_aliases()["AccountAliases"] == ["acme-lab"]


def test_parameters_are_listed_by_path_and_page(ssm: Any, add: Any, refused: Any) -> None:
    for n in range(12):
        add(n + 2, f"image-{n:02}")
    add(20, "group/inner")
    add(21, "no parameter (name)")
    add(22, ALIASES[DEBIAN])

    def names(**parameters: Any) -> list[str]:
        pages = ssm.get_paginator("get_parameters_by_path").paginate(**parameters)
        return [one["Name"] for page in pages for one in page["Parameters"]]

    flat = [f"/minicloud/images/image-{n:02}" for n in range(12)]
    below = names(Path="/minicloud/images/")
    assert [one for one in below if "/image-" in one] == flat
    assert f"/minicloud/images/{ALIASES[DEBIAN]}" in below
    assert not [one for one in below if "group" in one or " " in one]
    assert "/minicloud/images/group/inner" in names(Path="/minicloud", Recursive=True)
    assert names(Path="/minicloud") == []
    assert names(Path="/aws/service", Recursive=True) == [DEBIAN]
    first = ssm.get_parameters_by_path(Path="/minicloud/images")
    assert len(first["Parameters"]) == 10 and first["NextToken"]
    assert names(Path="/minicloud/images", PaginationConfig={"PageSize": 3}) == below
    refused("ValidationException", ssm.get_parameters_by_path, Path="minicloud")
    refused("ValidationException", ssm.get_parameters_by_path, Path="/mini cloud")
    refused("InvalidNextToken", ssm.get_parameters_by_path, Path="/aws", NextToken=first["NextToken"])
    refused(
        "UnsupportedOperation",
        ssm.get_parameters_by_path,
        Path="/aws",
        ParameterFilters=[{"Key": "Type", "Values": ["String"]}],
    )


def test_instances_are_launched_of_a_parameter(run: Any, add: Any, refused: Any, ec2: Any) -> None:
    old, new = add(2, account_id=OTHER, public=True), add(3)
    assert run(ImageId=f"resolve:ssm:{TINY}")["Instances"][0]["ImageId"] == new.id
    assert run(ImageId=f"resolve:ssm:{TINY}:{old.created_us}")["Instances"][0]["ImageId"] == old.id
    arn = f"resolve:ssm:arn:aws:ssm:lab-1::parameter{TINY}"
    assert run(ImageId=arn)["Instances"][0]["ImageId"] == new.id
    for reference in ("/nothing", "", f"{TINY}:1", "a b", "/nothing" * 200):
        error = refused("SsmInvalidParameter", run, ImageId=f"resolve:ssm:{reference}")
        assert f"The following aliases are invalid: {reference[:255]}" in str(error)
    refused("InvalidAMIID.Malformed", ec2.describe_images, ImageIds=[f"resolve:ssm:{TINY}"])


def test_a_launch_repeated_by_its_token_keeps_the_image_it_had(run: Any, add: Any) -> None:
    add(2, account_id=OTHER, public=True)
    first = run(ImageId=f"resolve:ssm:{TINY}", ClientToken="once")
    add(3)
    again = run(ImageId=f"resolve:ssm:{TINY}", ClientToken="once")
    assert again["ReservationId"] == first["ReservationId"]


def test_who_has_no_key_is_told_so_in_json(front: Any, clients: Any, refused: Any) -> None:
    refused("InvalidSignatureException", clients("ssm", secret="x" * 40).get_parameter, Name=TINY)
    refused("UnrecognizedClientException", clients("ssm", key="AKIA0000000000000000").get_parameter, Name=TINY)


def test_an_account_without_alias(front: Any, clients: Any) -> None:
    iam = clients("iam")
    assert iam.list_account_aliases()["AccountAliases"] == []
    assert iam.list_account_aliases(MaxItems=1)["IsTruncated"] is False
