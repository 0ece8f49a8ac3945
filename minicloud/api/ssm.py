"""SSM operations: reading public parameters that name images. There is no parameter store: nothing can be put."""

from __future__ import annotations

from typing import Any

from minicloud.api.listing import Pages
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.clock import to_datetime
from minicloud.cloud import image_parameters
from minicloud.cloud.image_parameters import ImageParameter

TYPE = "String"
DATA_TYPE = "aws:ec2:image"
# The flag "is ignored for String and StringList parameter types" (SSM API reference, GetParameter).
WITH_DECRYPTION = {"WithDecryption": (False, True)}


def get_parameter(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetParameter."""
    found = image_parameters.get_parameter(context.cloud, context.caller, parameters["Name"])
    return {"Parameter": _render(context, found)}


def get_parameters(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetParameters."""
    found, absent = image_parameters.get_parameters(context.cloud, context.caller, parameters["Names"])
    return {"Parameters": [_render(context, one) for one in found], "InvalidParameters": absent}


def get_parameters_by_path(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetParametersByPath."""
    found = image_parameters.get_parameters_by_path(
        context.cloud, context.caller, parameters["Path"], parameters.get("Recursive", False), context.asked
    )
    return {"Parameters": [_render(context, one) for one in found.items], "NextToken": context.next_token(found)}


def _render(context: Context, one: ImageParameter) -> dict[str, Any]:
    return {
        "Name": one.name,
        "Type": TYPE,
        "Value": one.image.id,
        "Version": one.version,
        "Selector": one.selector or None,
        "LastModifiedDate": to_datetime(one.image.created_us),
        "ARN": image_parameters.render_arn(context.caller, one.name),
        "DataType": DATA_TYPE,
    }


ROWS: Rows = {
    "GetParameter": row(get_parameter, "Name", tolerates=WITH_DECRYPTION),
    "GetParameters": row(get_parameters, "Names", tolerates=WITH_DECRYPTION),
    "GetParametersByPath": row(
        get_parameters_by_path,
        "Path",
        "Recursive",
        tolerates=WITH_DECRYPTION,
        pages=Pages(1, image_parameters.MAX_PAGE),
    ),
}
