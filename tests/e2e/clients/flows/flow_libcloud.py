"""The flow of Apache Libcloud's EC2 driver. It has waiters for `running` only: the others wait as its users do."""

import os
import time
import urllib.parse

import steps
from libcloud.common.exceptions import BaseHTTPError
from libcloud.compute.base import NodeSize
from libcloud.compute.constants.ec2_region_details_partial import REGION_DETAILS
from libcloud.compute.drivers.ec2 import EC2NodeDriver
from libcloud.compute.types import NodeState

REGION = os.environ["AWS_DEFAULT_REGION"]
ENDPOINT = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
# The driver takes regions that its table knows, and no others.
REGION_DETAILS[REGION] = {"api_name": REGION, "country": "-", "endpoint": ENDPOINT.hostname, "id": REGION}
driver = EC2NodeDriver(
    os.environ["AWS_ACCESS_KEY_ID"],
    os.environ["AWS_SECRET_ACCESS_KEY"],
    secure=ENDPOINT.scheme == "https",
    host=ENDPOINT.hostname,
    port=ENDPOINT.port,
    region=REGION,
    signature_version="4",
)


def look(image):
    return {
        "regions": None,
        "zones": [one.availability_zone.name for one in driver.list_locations()],
        "images": {one.name: one.id for one in driver.list_images(ex_filters={"name": image})},
        "account": None,
    }


def refusal():
    try:
        driver.list_nodes(ex_node_ids=["i-00000000000000000"])
    except BaseHTTPError as error:
        return error.message.partition(":")[0]


def launch(image, type, zone, name, key, user_data):
    made = driver.create_key_pair(key)
    (location,) = [one for one in driver.list_locations() if one.availability_zone.name == zone]
    size = NodeSize(id=type, name=type, ram=512, disk=0, bandwidth=None, price=0, driver=driver)
    node = driver.create_node(
        name=name,
        size=size,
        image=driver.get_image(image),
        location=location,
        ex_keyname=key,
        ex_userdata=user_data,
    )
    ((node, addresses),) = driver.wait_until_running([node], wait_period=1, timeout=600)
    return {"id": node.id, "address": addresses[0], "private_key": made.private_key}


def find(tag, value):
    return [node.id for node in driver.list_nodes(ex_filters={f"tag:{tag}": value})]


def tag(id, tag, value):
    driver.ex_create_tags(_node(id), {tag: value})


def stop(id):
    driver.stop_node(_node(id))
    _wait(id, NodeState.STOPPED)


def start(id):
    driver.start_node(_node(id))
    ((_, addresses),) = driver.wait_until_running([_node(id)], wait_period=1, timeout=600)
    return addresses[0]


def console(id):
    return driver.ex_get_console_output(_node(id))["output"]


def terminate(id, key):
    driver.destroy_node(_node(id))
    _wait(id, NodeState.TERMINATED)
    pair = driver.get_key_pair(key)
    driver.delete_key_pair(pair)


def _node(id):
    return driver.list_nodes(ex_node_ids=[id])[0]


def _wait(id, state):
    for _ in range(600):
        if _node(id).state == state:
            return
        time.sleep(1)
    raise SystemExit(f"{id} is {_node(id).state}, not {state}")


if __name__ == "__main__":
    steps.serve(globals())
