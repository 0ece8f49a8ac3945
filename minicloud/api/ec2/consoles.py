"""The serial console's output, which only its host has."""

from __future__ import annotations

import base64
import logging
from typing import Any

from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.clock import to_datetime
from minicloud.cloud import views
from minicloud.errors import ApiError, HostError
from minicloud.model.resources import Instance
from minicloud.model.states import InstanceState

log = logging.getLogger(__name__)


def get_console_output(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetConsoleOutput: the last 64 KB, always the latest. A terminated instance has none left."""
    instance = views.find_instance(context.cloud, context.caller, parameters["InstanceId"])
    output = b""
    if instance.state is not InstanceState.TERMINATED:
        output = _read(context, instance)
    return {
        "InstanceId": instance.id,
        "Timestamp": to_datetime(context.services.clock.now_us()),
        "Output": base64.b64encode(output).decode() if output else None,
    }


def _read(context: Context, instance: Instance) -> bytes:
    services = context.services
    if not services.host_reads.acquire(blocking=False):
        raise ApiError("RequestLimitExceeded", "Request limit exceeded.", 503)
    try:
        return services.read_console(instance)
    except HostError as error:
        log.warning("the console of %s could not be read: %s", instance.id, error.detail)
        raise ApiError(
            "Unavailable", "The console of the instance cannot be reached at the moment. Try again later.", 503
        ) from None
    finally:
        services.host_reads.release()


ROWS: Rows = {
    "GetConsoleOutput": row(get_console_output, "InstanceId", tolerates={"Latest": ANYTHING}),
}
