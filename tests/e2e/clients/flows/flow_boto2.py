"""The flow of boto 2.49, Python 2's library, which still imports under Python 3.

It carries a copy of `six` that Python 3.12 and newer can no longer import from, and looks for the module `imp`, which
they do not have: there it gets the present `six` and an empty `imp`, of which this flow uses nothing.
"""

import importlib
import os
import sys
import time
import types
import urllib.parse

import steps

if sys.version_info >= (3, 12):
    urllibs = (".moves.urllib", ".moves.urllib.error", ".moves.urllib.parse", ".moves.urllib.request")
    for name in ("", ".moves", ".moves.http_client", ".moves.queue", *urllibs):
        sys.modules[f"boto.vendored.six{name}"] = importlib.import_module(f"six{name}")
    sys.modules.setdefault("imp", types.ModuleType("imp"))

import boto
from boto.ec2.connection import EC2Connection
from boto.ec2.regioninfo import EC2RegionInfo
from boto.exception import EC2ResponseError
from boto.regioninfo import RegionInfo
from boto.sts import STSConnection

ENDPOINT = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
HERE = {"is_secure": ENDPOINT.scheme == "https", "port": ENDPOINT.port}
REGION = (None, os.environ["AWS_DEFAULT_REGION"], ENDPOINT.hostname)
KEYS = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
ec2 = EC2Connection(*KEYS, region=EC2RegionInfo(*REGION), **HERE)


def look(image):
    # The regions are asked for with the credentials of a session.
    sts = STSConnection(*KEYS, region=RegionInfo(*REGION), **HERE)
    session = sts.get_session_token(duration=900, force_new=True)
    passing = EC2Connection(
        session.access_key,
        session.secret_key,
        security_token=session.session_token,
        region=EC2RegionInfo(*REGION),
        **HERE,
    )
    return {
        "regions": [one.name for one in passing.get_all_regions()],
        "zones": [one.name for one in ec2.get_all_zones()],
        "images": {one.name: one.id for one in ec2.get_all_images(filters={"name": image})},
        "account": None,
    }


def refusal():
    try:
        ec2.get_only_instances(instance_ids=["i-00000000000000000"])
    except EC2ResponseError as error:
        return error.error_code


def launch(image, type, zone, name, key, user_data):
    private_key = ec2.create_key_pair(key).material
    reservation = ec2.run_instances(image, key_name=key, user_data=user_data, instance_type=type, placement=zone)
    instance = reservation.instances[0]
    instance.add_tag("Name", name)
    _wait(instance, "running")
    return {"id": instance.id, "address": instance.ip_address, "private_key": private_key}


def find(tag, value):
    return [one.id for one in ec2.get_only_instances(filters={f"tag:{tag}": value}, max_results=5)]


def tag(id, tag, value):
    ec2.create_tags([id], {tag: value})


def stop(id):
    ec2.stop_instances([id])
    _wait(_instance(id), "stopped")


def start(id):
    ec2.start_instances([id])
    instance = _instance(id)
    _wait(instance, "running")
    return instance.ip_address


def console(id):
    return ec2.get_console_output(id).output.decode("utf-8", "replace")


def terminate(id, key):
    ec2.terminate_instances([id])
    _wait(_instance(id), "terminated")
    ec2.delete_key_pair(key)


def _instance(id):
    return ec2.get_only_instances([id])[0]


def _wait(instance, state):
    for _ in range(600):
        if instance.update() == state:
            return
        time.sleep(1)
    raise SystemExit(f"{instance.id} is {instance.state}, not {state}")


if __name__ == "__main__":
    assert boto.Version == "2.49.0"
    steps.serve(globals())
