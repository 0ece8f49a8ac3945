"""All that a host is told of one typical instance, as text kept beside this test.

MINICLOUD_REGENERATE=1 writes the text anew; read the difference before keeping it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from support.bare_cloud import ROOT, BareCloud

from minicloud.cloud import plans
from minicloud.cloud.block_devices import DeviceRequest
from minicloud.cloud.metadata_options import MetadataRequest
from minicloud.hostside import ports
from minicloud.model.plans import to_json
from minicloud.model.resources import KeyPair
from minicloud.model.states import InstanceState
from minicloud.store.store import Tx

GOLDEN = Path(__file__).with_name("typical_plan.json")
KEY = KeyPair(
    "key-00000000000000001", ROOT.account_id, ROOT.region, "my key", "ed25519", "print", "ssh-ed25519 AAAA my key", 0
)


def launch(bare: BareCloud) -> str:
    bare.store.write(lambda tx: tx.key_pairs.insert(KEY))
    view = bare.run_one(
        zone="lab-1a",
        instance_type="m5d.large",
        key_name="my key",
        user_data=b"#!/bin/sh\necho hello\n",
        tags={"instance": {"Name": "web"}},
        metadata=MetadataRequest(http_tokens="required", instance_metadata_tags="enabled"),
        block_devices=(
            DeviceRequest("/dev/sdf", size_gib=5, iops=3000, throughput_mibps=200),
            DeviceRequest("/dev/sdg", size_gib=6, delete_on_termination=False),
        ),
    )
    return view.instance.id


def render(bare: BareCloud, instance_id: str) -> dict[str, object]:
    row = bare.instance(instance_id)

    def look(tx: Tx) -> dict[str, object]:
        return {
            "plan": to_json(plans.instance_plan(tx, bare.config, row)),
            "domain": to_json(plans.domain_spec(tx, bare.config, row)),
            "removal at a stop": to_json(plans.removal(tx, row, final=False)),
            "removal at the end": to_json(plans.removal(tx, row, final=True)),
        }

    with bare.unchanged():
        found = bare.store.read(look)
    return json.loads(json.dumps(found))


def test_a_typical_instance(bare: BareCloud) -> None:
    instance_id = launch(bare)
    bare.rest(instance_id, InstanceState.RUNNING)
    rendered = render(bare, instance_id)
    if os.environ.get("MINICLOUD_REGENERATE"):
        GOLDEN.write_text(json.dumps(rendered, indent=1, sort_keys=True) + "\n")
    assert rendered == json.loads(GOLDEN.read_text())


def test_the_host_side_takes_the_port(bare: BareCloud) -> None:
    plan = render(bare, launch(bare))["plan"]
    for port in plan["ports"]:  # type: ignore[index]
        ports.check(port)
