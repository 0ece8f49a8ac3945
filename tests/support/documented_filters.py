"""Which filters AWS documents for an operation, read from botocore's model, and where we differ on purpose."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from functools import lru_cache

from botocore.model import ServiceModel
from botocore.session import Session

TAG = "tag:"
_PIECE = re.compile(r"</?ul>|<li>\s*<p>\s*<code>\s*([^<]+?)\s*</code>")
_TAG_NAMES = ("tag", "tag:<key>", "tag:key")

# Filters that AWS's tools or older pages know though the operation's text does not list them.
EVERYWHERE = frozenset({"tag-key", "tag-value"})
ALIASES: Mapping[str, Mapping[str, str]] = {
    "DescribeAddresses": {"domain": "of EC2-Classic's days; tools still ask for domain=vpc"},
    "DescribeImportImageTasks": {"task-state": "documented in a sentence, not in a list"},
    "DescribeImportSnapshotTasks": {"task-state": "as for DescribeImportImageTasks: AWS documents none"},
    "DescribeSubnets": dict.fromkeys(
        ("availabilityZone", "availabilityZoneId", "cidr", "cidrBlock", "defaultForAz"),
        "documented in sentences: other names of a listed one",
    ),
    "DescribeVpcs": {"isDefault": "an older page's name of is-default, which Terraform uses"},
}
# Operations that know tag:KEY without their text saying so.
TAGS_ANYWAY: Mapping[str, str] = {
    "DescribeImportImageTasks": "the tasks carry tags",
    "DescribeImportSnapshotTasks": "the tasks carry tags",
    "DescribeInstanceStatus": "instances carry tags; boto 2 and older pages filter statuses by them",
}
# Documented filters that are not ours, with the reason.
MISSING: Mapping[str, Mapping[str, str]] = {}


@lru_cache(maxsize=1)
def _ec2() -> ServiceModel:
    return Session().get_service_model("ec2")


def has_filters(operation: str) -> bool:
    """Say whether AWS's operation takes filters at all."""
    shape = _ec2().operation_model(operation).input_shape
    return shape is not None and "Filters" in shape.members


def has_pages(operation: str) -> bool:
    """Say whether AWS's operation has pages."""
    model = _ec2().operation_model(operation)
    return {"MaxResults", "NextToken"} <= set(model.input_shape.members) and "NextToken" in model.output_shape.members


def documented_filters(operation: str) -> tuple[frozenset[str], bool]:
    """Return the names that the text of the parameter Filters lists, tag:KEY aside, and whether that is among them."""
    shape = _ec2().operation_model(operation).input_shape
    names, depth = set(), 0
    for piece in _PIECE.finditer(shape.members["Filters"].documentation):
        if piece[1] is None:
            depth += -1 if piece[0].startswith("</") else 1
        elif depth == 1:  # deeper lists are of values
            names.add(html.unescape(piece[1]))
    return frozenset(names.difference(_TAG_NAMES)), bool(names.intersection(_TAG_NAMES))
