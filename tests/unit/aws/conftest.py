"""One catalog for the whole room's tests: loading the models takes longer than most of them."""

from __future__ import annotations

import pytest

from minicloud.aws.models import Catalog, load_catalog

OPERATIONS = {
    "ec2": [
        "CreateTags",
        "DeleteTags",
        "DeleteVolume",
        "DescribeInstanceTypes",
        "DescribeInstances",
        "DescribeTags",
        "ImportKeyPair",
        "ModifyInstanceAttribute",
        "RequestSpotInstances",
        "RunInstances",
    ],
    "autoscaling": ["DescribeTags"],
    "sts": ["AssumeRole", "GetCallerIdentity"],
    "cloudwatch": ["PutMetricData", "SetAlarmState"],
    "iam": ["GetAccountSummary", "ListAccountAliases", "TagRole"],
    "ssm": ["GetParameter"],
}


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog(OPERATIONS)
