"""Key pairs."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from minicloud.api.ec2.common import parse_tag_specifications, render_tags
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.clock import to_datetime
from minicloud.cloud import keys
from minicloud.store.filters.key_pairs import KEY_PAIRS as KEY_PAIR_FILTERS


def create_key_pair(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """CreateKeyPair."""
    made = keys.create_key_pair(
        context.cloud,
        context.caller,
        parameters["KeyName"],
        parameters.get("KeyType", "rsa"),
        parse_tag_specifications(parameters.get("TagSpecifications", ())),
    )
    return {**_render(made), "KeyMaterial": made.private_key}


def import_key_pair(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """ImportKeyPair. Some tools encode the material a second time; EC2 takes that, too."""
    material: bytes = parameters["PublicKeyMaterial"]
    made = keys.import_key_pair(
        context.cloud,
        context.caller,
        parameters["KeyName"],
        _decoded_again(material),
        parse_tag_specifications(parameters.get("TagSpecifications", ())),
    )
    return _render(made)


def _decoded_again(material: bytes) -> bytes:
    try:
        inner = base64.b64decode(material.strip(), validate=True)
    except (binascii.Error, ValueError):
        return material
    return inner if inner.startswith((b"ssh-", b"---")) else material


def describe_key_pairs(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeKeyPairs."""
    found = keys.describe_key_pairs(
        context.cloud, context.caller, parameters.get("KeyNames", ()), parameters.get("KeyPairIds", ()), context.asked
    )
    with_key = parameters.get("IncludePublicKey", False)
    return {
        "KeyPairs": [
            {
                **_render(one),
                "KeyType": one.key_pair.key_type,
                "CreateTime": to_datetime(one.key_pair.created_us),
                "PublicKey": one.key_pair.public_key if with_key else None,
            }
            for one in found
        ]
    }


def delete_key_pair(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DeleteKeyPair."""
    deleted = keys.delete_key_pair(
        context.cloud, context.caller, parameters.get("KeyName"), parameters.get("KeyPairId")
    )
    return {"Return": True, "KeyPairId": deleted}


def _render(view: keys.KeyPairView) -> dict[str, Any]:
    return {
        "KeyPairId": view.key_pair.id,
        "KeyName": view.key_pair.name,
        "KeyFingerprint": view.key_pair.fingerprint,
        "Tags": render_tags(view.tags),
    }


ROWS: Rows = {
    "CreateKeyPair": row(create_key_pair, "KeyName", "KeyType", "TagSpecifications", tolerates={"KeyFormat": ("pem",)}),
    "ImportKeyPair": row(import_key_pair, "KeyName", "PublicKeyMaterial", "TagSpecifications"),
    "DescribeKeyPairs": row(describe_key_pairs, "KeyNames", "KeyPairIds", "IncludePublicKey", filters=KEY_PAIR_FILTERS),
    "DeleteKeyPair": row(delete_key_pair, "KeyName", "KeyPairId"),
}
