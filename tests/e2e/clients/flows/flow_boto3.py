"""The flow of boto3: clients, waiters and paginators."""

import boto3
import steps
from botocore.exceptions import ClientError

QUICK = {"Delay": 1, "MaxAttempts": 600}
ec2 = boto3.client("ec2")


def look(image):
    pages = ec2.get_paginator("describe_images").paginate(Filters=[{"Name": "name", "Values": [image]}], MaxResults=5)
    return {
        "regions": [one["RegionName"] for one in ec2.describe_regions()["Regions"]],
        "zones": [one["ZoneName"] for one in ec2.describe_availability_zones()["AvailabilityZones"]],
        "images": {one["Name"]: one["ImageId"] for page in pages for one in page["Images"]},
        "account": boto3.client("sts").get_caller_identity()["Account"],
    }


def refusal():
    try:
        ec2.describe_instances(InstanceIds=["i-00000000000000000"])
    except ClientError as error:
        return error.response["Error"]["Code"]


def launch(image, type, zone, name, key, user_data):
    private_key = ec2.create_key_pair(KeyName=key, KeyType="ed25519")["KeyMaterial"]
    resource = boto3.resource("ec2")
    (instance,) = resource.create_instances(
        ImageId=image,
        InstanceType=type,
        MinCount=1,
        MaxCount=1,
        KeyName=key,
        UserData=user_data,
        Placement={"AvailabilityZone": zone},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
    )
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance.id], WaiterConfig=QUICK)
    instance.reload()
    return {"id": instance.id, "address": instance.public_ip_address, "private_key": private_key}


def find(tag, value):
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": f"tag:{tag}", "Values": [value]}], PaginationConfig={"PageSize": 5}
    )
    return [one["InstanceId"] for page in pages for each in page["Reservations"] for one in each["Instances"]]


def tag(id, tag, value):
    boto3.resource("ec2").Instance(id).create_tags(Tags=[{"Key": tag, "Value": value}])


def stop(id):
    ec2.stop_instances(InstanceIds=[id])
    ec2.get_waiter("instance_stopped").wait(InstanceIds=[id], WaiterConfig=QUICK)


def start(id):
    ec2.start_instances(InstanceIds=[id])
    ec2.get_waiter("instance_running").wait(InstanceIds=[id], WaiterConfig=QUICK)
    return boto3.resource("ec2").Instance(id).public_ip_address


def console(id):
    return ec2.get_console_output(InstanceId=id, Latest=True)["Output"]


def terminate(id, key):
    ec2.terminate_instances(InstanceIds=[id])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[id], WaiterConfig=QUICK)
    ec2.delete_key_pair(KeyName=key)


if __name__ == "__main__":
    steps.serve(globals())
