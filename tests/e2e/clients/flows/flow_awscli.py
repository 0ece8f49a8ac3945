"""The flow of aws-cli: the program named by AWS_PROGRAM, told where the cloud is as its version wants it."""

import json
import os
import re
import shlex
import subprocess
import time

import steps

# With --endpoint-url in it for 2.9, which does not read AWS_ENDPOINT_URL.
AWS = shlex.split(os.environ["AWS_PROGRAM"])


def aws(*arguments, check=True):
    result = subprocess.run([*AWS, "--output", "json", *arguments], capture_output=True, text=True)
    if not check:
        return result
    if result.returncode != 0:
        raise SystemExit(f"aws {' '.join(arguments)}: {result.stderr}")
    return json.loads(result.stdout) if result.stdout.strip() else None


def look(image):
    images = aws("ec2", "describe-images", "--filters", f"Name=name,Values={image}")["Images"]
    return {
        "regions": aws("ec2", "describe-regions", "--query", "Regions[].RegionName"),
        "zones": aws("ec2", "describe-availability-zones", "--query", "AvailabilityZones[].ZoneName"),
        "images": {one["Name"]: one["ImageId"] for one in images},
        "account": aws("sts", "get-caller-identity")["Account"],
    }


def refusal():
    refused = aws("ec2", "describe-instances", "--instance-ids", "i-00000000000000000", check=False)
    return re.search(r"An error occurred \((\S+)\)", refused.stderr)[1]


def launch(image, type, zone, name, key, user_data):
    made = aws("ec2", "create-key-pair", "--key-name", key, "--key-type", "ed25519")
    launched = aws(
        *("ec2", "run-instances", "--image-id", image, "--instance-type", type, "--key-name", key),
        *("--placement", f"AvailabilityZone={zone}", "--user-data", user_data),
        *("--tag-specifications", f"ResourceType=instance,Tags=[{{Key=Name,Value={name}}}]"),
    )
    id = launched["Instances"][0]["InstanceId"]
    _wait(id, "running")
    return {"id": id, "address": _told(id, "PublicIpAddress"), "private_key": made["KeyMaterial"]}


def find(tag, value):
    query = ["--query", "Reservations[].Instances[].InstanceId"]
    filters = json.dumps([{"Name": f"tag:{tag}", "Values": [value]}])
    return aws("ec2", "describe-instances", "--filters", filters, "--page-size", "5", *query)


def tag(id, tag, value):
    aws("ec2", "create-tags", "--resources", id, "--tags", json.dumps([{"Key": tag, "Value": value}]))


def stop(id):
    aws("ec2", "stop-instances", "--instance-ids", id)
    _wait(id, "stopped")


def start(id):
    aws("ec2", "start-instances", "--instance-ids", id)
    _wait(id, "running")
    return _told(id, "PublicIpAddress")


def console(id):
    return aws("ec2", "get-console-output", "--instance-id", id, "--latest")["Output"]


def terminate(id, key):
    aws("ec2", "terminate-instances", "--instance-ids", id)
    _wait(id, "terminated")
    aws("ec2", "delete-key-pair", "--key-name", key)


def _wait(id, state):
    # Its waiters look every 15 seconds, which cannot be changed: they are asked when they need not wait.
    for _ in range(120):
        if _told(id, "State.Name") == state:
            break
        time.sleep(0.3)
    aws("ec2", "wait", f"instance-{state}", "--instance-ids", id)


def _told(id, member):
    query = ["--query", f"Reservations[0].Instances[0].{member}"]
    return aws("ec2", "describe-instances", "--instance-ids", id, *query)


if __name__ == "__main__":
    steps.serve(globals())
