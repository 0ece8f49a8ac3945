"""Plans become plain JSON for the host side, whole."""

from __future__ import annotations

import json

import pytest

from minicloud.model.plans import DiskPlan, InstancePlan, InstanceRemoval, JobStatus, to_json


def test_a_plan_becomes_plain_json_with_everything_in_it() -> None:
    disk = DiskPlan("vol-1", "/pool/volumes/vol-1.qcow2", "qcow2", 5, "/pool/bases/snap-1.raw", may_create=False)
    plan = InstancePlan("i-1", (disk,), (), "/console/i-1.log")
    assert json.loads(json.dumps(to_json(plan))) == {
        "instance_id": "i-1",
        "disks": [
            {
                "id": "vol-1", "path": "/pool/volumes/vol-1.qcow2", "format": "qcow2", "size_bytes": 5,
                "base_path": "/pool/bases/snap-1.raw", "may_create": False,
            }
        ],
        "ports": [],
        "console_path": "/console/i-1.log",
    }  # fmt: skip
    removal = InstanceRemoval("i-1", ("eni-1",), ("/a",), None)
    assert json.loads(json.dumps(to_json(removal)))["console_path"] is None


@pytest.mark.parametrize("wrong", [{"a": 1}, None, JobStatus, "plan"])
def test_what_is_no_plan_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError):
        to_json(wrong)


def test_two_job_statuses_share_no_result() -> None:
    JobStatus("running").result["x"] = 1
    assert JobStatus("running").result == {}
