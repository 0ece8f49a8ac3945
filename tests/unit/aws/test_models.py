from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from minicloud.aws.models import Catalog, Shape, load_service


def reachable(*shapes: Shape | None) -> set[Shape]:
    seen: set[Shape] = set()
    waiting = [shape for shape in shapes if shape is not None]
    while waiting:
        shape = waiting.pop()
        if shape not in seen:
            seen.add(shape)
            parts = [*shape.members.values(), shape.element, shape.key, shape.value]
            waiting += [member.shape for member in parts if member is not None]
    return seen


def test_only_what_was_asked_for_is_kept(catalog: Catalog) -> None:
    ec2 = catalog.services["ec2"]
    names = {s.name for op in ec2.operations.values() for s in reachable(op.input, op.output)}
    assert "RunInstancesRequest" in names
    assert "CreateVpcRequest" not in names


def test_every_operation_name_is_known_though_not_kept(catalog: Catalog) -> None:
    ec2 = catalog.services["ec2"]
    assert "CreateVpc" in ec2.operation_names and "CreateVpc" not in ec2.operations
    assert len(ec2.operation_names) > 700


def test_request_and_reply_names_follow_the_ec2_protocol(catalog: Catalog) -> None:
    run = catalog.operation("ec2", "RunInstances")
    assert run.input is not None and run.output is not None
    assert run.input.by_request_name["SecurityGroupId"].name == "SecurityGroupIds"
    assert run.input.by_request_name["NetworkInterface"].name == "NetworkInterfaces"
    interface = run.input.members["NetworkInterfaces"].shape.element
    assert interface is not None
    assert interface.shape.members["PrivateIpAddresses"].request_name == "PrivateIpAddresses"  # queryName
    assert interface.shape.members["Groups"].request_name == "SecurityGroupId"
    assert run.output.members["Instances"].reply_name == "instancesSet"


def test_an_instance_type_may_be_the_operators_own(catalog: Catalog) -> None:
    shape = catalog.operation("ec2", "RunInstances").input
    assert shape is not None
    assert shape.members["InstanceType"].shape.enum == ()
    assert "terminate" in shape.members["InstanceInitiatedShutdownBehavior"].shape.enum


def test_ec2_was_published_under_many_versions(catalog: Catalog) -> None:
    versions = catalog.services["ec2"].versions
    assert {"2016-11-15", "2014-10-01", "2013-10-15", "2010-08-31", "2006-06-26"} <= versions
    assert "2016-11-16" not in versions
    assert catalog.services["sts"].versions == {"2011-06-15"}


def test_reply_namespaces(catalog: Catalog) -> None:
    assert catalog.services["ec2"].namespace("2013-10-15") == "http://ec2.amazonaws.com/doc/2013-10-15/"
    assert catalog.services["sts"].namespace("2011-06-15") == "https://sts.amazonaws.com/doc/2011-06-15/"


def test_services_are_found_by_their_signing_name(catalog: Catalog) -> None:
    found = catalog.signing_as("monitoring")
    assert found is not None and found.name == "cloudwatch"
    assert catalog.signing_as("127") is None


def test_an_operation_that_does_not_exist_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no operation Frobnicate"):
        load_service("sts", ["Frobnicate"])


def made_model(tmp_path: Path, shapes: dict[str, object]) -> Path:
    folder = tmp_path / "toy" / "2020-01-01"
    folder.mkdir(parents=True)
    model = {
        "metadata": {"apiVersion": "2020-01-01", "endpointPrefix": "toy", "protocol": "query"},
        "operations": {"Do": {"input": {"shape": "In"}}},
        "shapes": shapes,
    }
    (folder / "service-2.json.gz").write_bytes(gzip.compress(json.dumps(model).encode()))
    return tmp_path


def test_shapes_may_contain_themselves(tmp_path: Path) -> None:
    data = made_model(
        tmp_path,
        {
            "In": {"type": "structure", "members": {"Next": {"shape": "In"}, "Deep": {"shape": "List"}}},
            "List": {"type": "list", "member": {"shape": "List"}},
        },
    )
    shape = load_service("toy", ["Do"], data=data).operations["Do"].input
    assert shape is not None and shape.members["Next"].shape is shape


def test_a_place_overrides_what_its_type_says(tmp_path: Path) -> None:
    data = made_model(
        tmp_path,
        {
            "In": {
                "type": "structure",
                "members": {"A": {"shape": "List", "locationName": "here"}, "B": {"shape": "List"}},
            },
            "List": {"type": "list", "member": {"shape": "In"}, "locationName": "there"},
        },
    )
    shape = load_service("toy", ["Do"], data=data).operations["Do"].input
    assert shape is not None and set(shape.by_request_name) == {"here", "there"}


def test_flattened_lists_are_refused_at_load(tmp_path: Path) -> None:
    data = made_model(
        tmp_path,
        {
            "In": {"type": "structure", "members": {"Flat": {"shape": "List"}}},
            "List": {"type": "list", "member": {"shape": "Text"}, "flattened": True},
            "Text": {"type": "string"},
        },
    )
    with pytest.raises(ValueError, match="flattened"):
        load_service("toy", ["Do"], data=data)


def test_the_newest_version_on_disk_is_loaded(tmp_path: Path) -> None:
    data = made_model(tmp_path, {"In": {"type": "structure", "members": {}}})
    (data / "toy" / "2019-01-01").mkdir()
    service = load_service("toy", ["Do"], data=data)
    assert service.api_version == "2020-01-01"
    assert service.versions == {"2019-01-01", "2020-01-01"}


def test_loading_costs_little_memory_and_no_botocore() -> None:
    """The daemon's main process has 150 MB; what the wire keeps of EC2's model must be a small part of it."""
    code = """
import sys, tracemalloc
from minicloud.aws import dispatch
from minicloud.aws.models import load_catalog
tracemalloc.start()
catalog = load_catalog({"ec2": ["RunInstances", "DescribeInstances", "DescribeImages", "DescribeVolumes"]})
print(tracemalloc.get_traced_memory()[0], any(name.startswith("botocore") for name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=180)
    kept, imported = done.stdout.split()
    assert int(kept) < 2_000_000
    assert imported == "False"
