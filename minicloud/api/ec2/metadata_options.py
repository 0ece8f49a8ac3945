"""Instance metadata options: of one instance, and the account's defaults."""

from __future__ import annotations

from typing import Any

from minicloud.api.ec2.instances import render_metadata_options
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import metadata_options
from minicloud.cloud.metadata_options import DefaultsRequest, MetadataRequest


def modify_instance_metadata_options(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """ModifyInstanceMetadataOptions."""
    request = MetadataRequest(
        http_endpoint=parameters.get("HttpEndpoint"),
        http_tokens=parameters.get("HttpTokens"),
        http_put_response_hop_limit=parameters.get("HttpPutResponseHopLimit"),
        instance_metadata_tags=parameters.get("InstanceMetadataTags"),
    )
    instance = metadata_options.modify_metadata_options(
        context.cloud, context.caller, parameters["InstanceId"], request
    )
    return {"InstanceId": instance.id, "InstanceMetadataOptions": render_metadata_options(instance)}


def get_instance_metadata_defaults(context: Context, _parameters: dict[str, Any]) -> dict[str, Any]:
    """GetInstanceMetadataDefaults. What the account has no preference for is left out."""
    found = metadata_options.get_metadata_defaults(context.cloud, context.caller)
    return {
        "AccountLevel": {
            "HttpTokens": found.http_tokens,
            "HttpPutResponseHopLimit": found.http_put_response_hop_limit,
            "HttpEndpoint": found.http_endpoint,
            "InstanceMetadataTags": found.instance_metadata_tags,
            "ManagedBy": "account",
            "HttpTokensEnforced": found.http_tokens_enforced,
        }
    }


def modify_instance_metadata_defaults(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """ModifyInstanceMetadataDefaults."""
    request = DefaultsRequest(
        http_endpoint=parameters.get("HttpEndpoint"),
        http_tokens=parameters.get("HttpTokens"),
        http_put_response_hop_limit=parameters.get("HttpPutResponseHopLimit"),
        instance_metadata_tags=parameters.get("InstanceMetadataTags"),
        http_tokens_enforced=parameters.get("HttpTokensEnforced"),
    )
    metadata_options.modify_metadata_defaults(context.cloud, context.caller, request)
    return {"Return": True}


_OPTIONS = ("HttpEndpoint", "HttpTokens", "HttpPutResponseHopLimit", "InstanceMetadataTags")

ROWS: Rows = {
    "ModifyInstanceMetadataOptions": row(
        modify_instance_metadata_options, "InstanceId", *_OPTIONS, tolerates={"HttpProtocolIpv6": ("disabled",)}
    ),
    "GetInstanceMetadataDefaults": row(get_instance_metadata_defaults),
    "ModifyInstanceMetadataDefaults": row(modify_instance_metadata_defaults, *_OPTIONS, "HttpTokensEnforced"),
}
