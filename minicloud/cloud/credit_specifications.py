"""CPU credits of burstable instances: nothing meters or throttles them, which EC2 calls `unlimited`.

Any other instance that is asked for by name is `standard`, as EC2 says of types without credits.
"""

from __future__ import annotations

from collections.abc import Iterable

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import INSTANCES, require
from minicloud.model.resources import Instance
from minicloud.store.filters.credit_specifications import CREDIT_SPECIFICATIONS
from minicloud.store.search import Asked, Found
from minicloud.store.store import Tx

STANDARD = "standard"
UNLIMITED = "unlimited"


def describe_credit_specifications(
    cloud: Cloud, caller: Caller, ids: Iterable[str], asked: Asked
) -> Found[tuple[Instance, str]]:
    """Return a page of the named instances with their credit option; of all burstable ones if none is named.

    Raises InvalidInstanceID.*.
    """
    wanted = list(ids)
    burstable = {name for name, type_ in cloud.types.items() if type_.burstable}

    def look(tx: Tx) -> Found[tuple[Instance, str]]:
        which: dict[str, object] = {"account_id": caller.account_id, "region": caller.region}
        if wanted:
            which["id"] = [row.id for row in require(tx, caller, INSTANCES, wanted)]
        else:
            which["instance_type"] = burstable
        found = tx.instances.search(CREDIT_SPECIFICATIONS, asked, **which)
        credited = [(row, UNLIMITED if row.instance_type in burstable else STANDARD) for row in found.items]
        return Found(credited, found.after)

    return cloud.store.read(look)
