"""Regions, types, keys, tags, networks and identity through boto3."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from support import front as build


def test_caller_identity(front: Any, clients: Any) -> None:
    answer = clients("sts").get_caller_identity()
    account = build.root_caller().account_id
    assert (answer["Account"], answer["Arn"]) == (account, f"arn:aws:iam::{account}:root")


def test_regions(ec2: Any, refused: Any) -> None:
    (region,) = ec2.describe_regions()["Regions"]
    assert (region["RegionName"], region["OptInStatus"]) == ("lab-1", "opt-in-not-required")
    assert ec2.describe_regions(RegionNames=["lab-1"], AllRegions=True)["Regions"] == [region]
    refused("InvalidParameterValue", ec2.describe_regions, RegionNames=["mars-1"])


def test_zones(front: Any, ec2: Any, refused: Any) -> None:
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert [(one["ZoneName"], one["ZoneId"], one["State"]) for one in zones] == [
        ("lab-1a", "lab1-az1", "available"),
        ("lab-1b", "lab1-az2", "available"),
    ]
    assert ec2.describe_availability_zones(ZoneIds=["lab1-az2"])["AvailabilityZones"] == [zones[1]]
    assert ec2.describe_availability_zones(ZoneNames=["lab-1a"])["AvailabilityZones"] == [zones[0]]
    refused("InvalidParameterValue", ec2.describe_availability_zones, ZoneNames=["lab-1c"])
    refused("InvalidParameterValue", ec2.describe_availability_zones, ZoneIds=["az"])


def test_instance_types(ec2: Any, front: Any, refused: Any) -> None:
    types = {one["InstanceType"]: one for one in ec2.describe_instance_types()["InstanceTypes"]}
    assert {"t3.nano", "m5.2xlarge", "m5d.large", "c5d.2xlarge", "m1.small"} <= types.keys()
    nano = types["t3.nano"]
    assert (nano["VCpuInfo"]["DefaultVCpus"], nano["MemoryInfo"]["SizeInMiB"]) == (2, 512)
    assert nano["BurstablePerformanceSupported"] is True
    assert "InstanceStorageInfo" not in nano
    assert types["m5d.large"]["InstanceStorageInfo"]["Disks"] == [{"SizeInGB": 75, "Count": 1, "Type": "ssd"}]
    (one,) = ec2.describe_instance_types(InstanceTypes=["t3.nano"])["InstanceTypes"]
    assert one == nano
    refused("InvalidInstanceType", ec2.describe_instance_types, InstanceTypes=["t9.nano"])


# Key pairs


def test_a_created_rsa_key_and_its_fingerprint(ec2: Any) -> None:
    made = ec2.create_key_pair(KeyName="k")
    assert made["KeyMaterial"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    key = load_pem_private_key(made["KeyMaterial"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert made["KeyFingerprint"] == hashlib.sha1(der).digest().hex(":")
    (shown,) = ec2.describe_key_pairs(KeyNames=["k"], IncludePublicKey=True)["KeyPairs"]
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert shown["PublicKey"] == f"{public} k"
    assert (shown["KeyType"], shown["KeyPairId"]) == ("rsa", made["KeyPairId"])
    assert "KeyMaterial" not in shown
    assert "PublicKey" not in ec2.describe_key_pairs()["KeyPairs"][0]


def test_a_created_ed25519_key_has_ssh_keygen_s_fingerprint(ec2: Any, tmp_path: Path) -> None:
    made = ec2.create_key_pair(KeyName="k", KeyType="ed25519")
    assert made["KeyMaterial"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert isinstance(load_ssh_private_key(made["KeyMaterial"].encode(), None), ed25519.Ed25519PrivateKey)
    file = tmp_path / "key"
    file.write_text(made["KeyMaterial"])
    file.chmod(0o600)
    listed = subprocess.run(["ssh-keygen", "-l", "-f", str(file)], check=True, capture_output=True, text=True).stdout
    assert listed.split()[1] == "SHA256:" + made["KeyFingerprint"].rstrip("=")


def openssh(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_DER = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rfc4716(line: bytes) -> bytes:
    blob = line.split()[1].decode()
    lines = [blob[start : start + 70] for start in range(0, len(blob), 70)]
    text = ["---- BEGIN SSH2 PUBLIC KEY ----", 'Comment: "a \\', 'b"', *lines, "---- END SSH2 PUBLIC KEY ----"]
    return "\n".join(text).encode()


@pytest.mark.parametrize(
    "material",
    [
        openssh(RSA_KEY) + b" somebody@somewhere\n",
        rfc4716(openssh(RSA_KEY)),
        RSA_DER,
        base64.b64encode(RSA_DER),
        base64.b64encode(openssh(RSA_KEY)),
        RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["openssh", "rfc4716", "der", "base64 der", "base64 twice", "pem"],
)
def test_an_rsa_key_is_imported_in_every_form(ec2: Any, material: bytes) -> None:
    made = ec2.import_key_pair(KeyName="k", PublicKeyMaterial=material)
    assert made["KeyFingerprint"] == hashlib.md5(RSA_DER).digest().hex(":")
    (shown,) = ec2.describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    assert shown["PublicKey"] == openssh(RSA_KEY).decode() + " k"


def test_an_ed25519_key_is_imported(ec2: Any) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    made = ec2.import_key_pair(KeyName="k", PublicKeyMaterial=openssh(key))
    blob = base64.b64decode(openssh(key).split()[1])
    assert made["KeyFingerprint"] == base64.b64encode(hashlib.sha256(blob).digest()).decode()


@pytest.mark.parametrize(
    "material",
    [
        b"nonsense",
        b"ssh-rsa AAAA",
        b"ssh-rsa !!!!",
        b"-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----",
        b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----",
        b"\x30\x03abc",
        b"x" * 40000,
        openssh(ec.generate_private_key(ec.SECP256R1())),
        openssh(rsa.generate_private_key(public_exponent=65537, key_size=1536)),
        dsa.generate_private_key(1024).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=lambda material: str(material[:20]),
)
def test_what_is_no_key_is_not_imported(ec2: Any, refused: Any, material: bytes) -> None:
    refused("InvalidKey.Format", ec2.import_key_pair, KeyName="k", PublicKeyMaterial=material)
    assert ec2.describe_key_pairs()["KeyPairs"] == []


def test_key_pairs_are_found_and_deleted(ec2: Any, refused: Any) -> None:
    for name in ("b", "a"):
        ec2.create_key_pair(
            KeyName=name,
            KeyType="ed25519",
            TagSpecifications=[{"ResourceType": "key-pair", "Tags": [{"Key": "x", "Value": name}]}],
        )
    a, b = ec2.describe_key_pairs()["KeyPairs"]
    assert (a["KeyName"], b["KeyName"], a["Tags"]) == ("a", "b", [{"Key": "x", "Value": "a"}])
    assert ec2.describe_key_pairs(KeyPairIds=[b["KeyPairId"]])["KeyPairs"] == [b]
    refused("InvalidKeyPair.Duplicate", ec2.create_key_pair, KeyName="a")
    refused("InvalidKeyPair.NotFound", ec2.describe_key_pairs, KeyNames=["a", "c"])
    refused("InvalidKeyPair.NotFound", ec2.describe_key_pairs, KeyPairIds=["key-0123456789abcdef0"])
    assert ec2.delete_key_pair(KeyName="a")["KeyPairId"] == a["KeyPairId"]
    # Deleting what is not there is fine, as in EC2.
    assert ec2.delete_key_pair(KeyName="a")["Return"] is True
    ec2.delete_key_pair(KeyPairId=b["KeyPairId"])
    assert ec2.describe_key_pairs()["KeyPairs"] == []
    assert ec2.describe_tags()["Tags"] == []
    refused("MissingParameter", ec2.delete_key_pair)
    refused("InvalidParameterCombination", ec2.delete_key_pair, KeyName="a", KeyPairId=b["KeyPairId"])


@pytest.mark.parametrize("name", ["x" * 256, " leading", "ümlaut", "two\nlines"])
def test_key_names_have_rules(ec2: Any, refused: Any, name: str) -> None:
    refused("InvalidParameterValue", ec2.create_key_pair, KeyName=name, KeyType="ed25519")


def test_what_key_pairs_cannot_do_is_refused(ec2: Any, clients: Any, refused: Any) -> None:
    refused("UnsupportedOperation", ec2.create_key_pair, KeyName="k", KeyFormat="ppk")
    refused("InvalidParameterValue", clients("ec2", validate=False).create_key_pair, KeyName="k", KeyType="dsa")
    refused(
        "InvalidParameterValue",
        ec2.create_key_pair,
        KeyName="k",
        KeyType="ed25519",
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "x", "Value": "y"}]}],
    )


def test_instances_keep_the_key_they_were_born_with(front: Any, ec2: Any, run: Any) -> None:
    ec2.create_key_pair(KeyName="k", KeyType="ed25519")
    public = ec2.describe_key_pairs(IncludePublicKey=True)["KeyPairs"][0]["PublicKey"]
    (instance,) = run(KeyName="k")["Instances"]
    ec2.delete_key_pair(KeyName="k")
    assert instance["KeyName"] == "k"
    assert front.cloud.store.read(lambda tx: tx.instances.get(instance["InstanceId"])).public_key == public


# Tags


def test_tags_are_set_changed_and_removed(ec2: Any, run: Any) -> None:
    (one, two) = [one["InstanceId"] for one in run(MaxCount=2)["Instances"]]
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    ec2.create_tags(Resources=[one, two, vpc], Tags=[{"Key": "Name", "Value": "x"}, {"Key": "empty", "Value": ""}])
    ec2.create_tags(Resources=[two], Tags=[{"Key": "Name", "Value": "y"}])
    tags = ec2.describe_tags()["Tags"]
    assert {(tag["ResourceId"], tag["ResourceType"], tag["Key"], tag["Value"]) for tag in tags} == {
        (one, "instance", "Name", "x"),
        (one, "instance", "empty", ""),
        (two, "instance", "Name", "y"),
        (two, "instance", "empty", ""),
        (vpc, "vpc", "Name", "x"),
        (vpc, "vpc", "empty", ""),
    }
    # With a value, only a tag of that value goes.
    ec2.delete_tags(Resources=[one, two], Tags=[{"Key": "Name", "Value": "x"}])
    assert {tag["ResourceId"] for tag in ec2.describe_tags()["Tags"] if tag["Key"] == "Name"} == {two, vpc}
    ec2.delete_tags(Resources=[two], Tags=[{"Key": "Name"}, {"Key": "never there"}])
    ec2.delete_tags(Resources=[vpc, one])
    assert [(tag["ResourceId"], tag["Key"]) for tag in ec2.describe_tags()["Tags"]] == [(two, "empty")]


@pytest.mark.parametrize(
    ("code", "resources", "tags"),
    [
        ("InvalidInstanceID.NotFound", ["i-0123456789abcdef0"], [{"Key": "a", "Value": "b"}]),
        ("InvalidInstanceID.Malformed", ["i-xyz"], [{"Key": "a", "Value": "b"}]),
        ("InvalidVolume.NotFound", ["vol-0123456789abcdef0"], [{"Key": "a", "Value": "b"}]),
        ("InvalidAMIID.NotFound", ["ami-0123456789abcdef0"], [{"Key": "a", "Value": "b"}]),
        ("InvalidID", ["nonsense"], [{"Key": "a", "Value": "b"}]),
        ("InvalidID", ["rocket-0123456789abcdef0"], [{"Key": "a", "Value": "b"}]),
        ("InvalidParameterValue", [build.IMAGE_ID], [{"Key": "aws:x", "Value": "b"}]),
        ("InvalidParameterValue", [build.IMAGE_ID], [{"Key": "AWS:x", "Value": "b"}]),
        ("InvalidParameterValue", [build.IMAGE_ID], [{"Key": "k" * 129, "Value": "b"}]),
        ("InvalidParameterValue", [build.IMAGE_ID], [{"Key": "k", "Value": "v" * 257}]),
        ("InvalidParameterValue", [build.IMAGE_ID], [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]),
        ("InvalidParameterValue", [build.IMAGE_ID], [{"Value": "b"}]),
        ("TagLimitExceeded", [build.IMAGE_ID], [{"Key": f"k{n}", "Value": ""} for n in range(51)]),
        ("MissingParameter", [build.IMAGE_ID], []),
        ("MissingParameter", [], [{"Key": "a", "Value": "b"}]),
    ],
)
def test_bad_tags_are_refused(
    front: Any, ec2: Any, refused: Any, code: str, resources: list[str], tags: list[dict[str, str]]
) -> None:
    refused(code, ec2.create_tags, Resources=resources, Tags=tags)
    assert ec2.describe_tags()["Tags"] == []


def test_the_51st_tag_is_refused_however_it_comes(ec2: Any, refused: Any) -> None:
    ec2.create_tags(Resources=[build.IMAGE_ID], Tags=[{"Key": f"k{n}", "Value": "v" * 256} for n in range(50)])
    ec2.create_tags(Resources=[build.IMAGE_ID], Tags=[{"Key": "k0", "Value": "again"}])
    refused("TagLimitExceeded", ec2.create_tags, Resources=[build.IMAGE_ID], Tags=[{"Key": "more", "Value": ""}])


def test_all_or_no_resources_are_tagged(ec2: Any, refused: Any) -> None:
    refused(
        "InvalidInstanceID.NotFound",
        ec2.create_tags,
        Resources=[build.IMAGE_ID, "i-0123456789abcdef0"],
        Tags=[{"Key": "a", "Value": "b"}],
    )
    assert ec2.describe_tags()["Tags"] == []


def test_tags_of_instances_that_show_them_must_be_paths(ec2: Any, run: Any, refused: Any) -> None:
    (one,) = run(MetadataOptions={"InstanceMetadataTags": "enabled"})["Instances"]
    tags = [{"Key": "a b", "Value": "c"}]
    refused("InvalidParameterValue", ec2.create_tags, Resources=[one["InstanceId"]], Tags=tags)


# Networks


def test_the_default_network_is_what_ec2_s_is(ec2: Any) -> None:
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    assert (vpc["CidrBlock"], vpc["IsDefault"], vpc["State"]) == ("172.31.0.0/16", True, "available")
    assert vpc["CidrBlockAssociationSet"][0]["CidrBlockState"] == {"State": "associated"}
    subnets = ec2.describe_subnets()["Subnets"]
    assert [(one["CidrBlock"], one["AvailabilityZone"], one["DefaultForAz"]) for one in subnets] == [
        ("172.31.0.0/20", "lab-1a", True),
        ("172.31.16.0/20", "lab-1b", True),
    ]
    assert all(one["MapPublicIpOnLaunch"] and one["AvailableIpAddressCount"] == 4091 for one in subnets)


def test_the_default_group_shows_its_ssh_rule(ec2: Any) -> None:
    (group,) = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    shown = sorted(group["IpPermissions"], key=lambda one: one["IpProtocol"])
    assert shown == [
        {
            "IpProtocol": "-1",
            "IpRanges": [],
            "Ipv6Ranges": [],
            "PrefixListIds": [],
            "UserIdGroupPairs": [{"GroupId": group["GroupId"], "UserId": group["OwnerId"]}],
        },
        {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
            "Ipv6Ranges": [],
            "PrefixListIds": [],
            "UserIdGroupPairs": [],
        },
    ]
    (egress,) = group["IpPermissionsEgress"]
    assert (egress["IpProtocol"], egress["IpRanges"]) == ("-1", [{"CidrIp": "0.0.0.0/0"}])
    assert "FromPort" not in egress


@pytest.mark.parametrize(
    ("call", "code", "parameters"),
    [
        ("describe_vpcs", "InvalidVpcID.NotFound", {"VpcIds": ["vpc-0123456789abcdef0"]}),
        ("describe_subnets", "InvalidSubnetID.NotFound", {"SubnetIds": ["subnet-0123456789abcdef0"]}),
        ("describe_security_groups", "InvalidGroup.NotFound", {"GroupIds": ["sg-0123456789abcdef0"]}),
        ("describe_security_groups", "InvalidGroupId.Malformed", {"GroupIds": ["sg"]}),
        ("describe_security_groups", "InvalidGroup.NotFound", {"GroupNames": ["nobody"]}),
        ("describe_images", "InvalidAMIID.NotFound", {"ImageIds": ["ami-0123456789abcdef0"]}),
        ("describe_images", "InvalidAMIID.Malformed", {"ImageIds": ["tiny"]}),
        ("describe_import_snapshot_tasks", "InvalidConversionTaskId.Malformed", {"ImportTaskIds": ["x"]}),
        (
            "describe_import_image_tasks",
            "InvalidConversionTaskId",
            {"ImportTaskIds": ["import-ami-0123456789abcdef0"]},
        ),
    ],
)
def test_describing_what_is_not_there(ec2: Any, refused: Any, call: str, code: str, parameters: dict[str, Any]) -> None:
    refused(code, getattr(ec2, call), **parameters)


# Filters


@pytest.mark.parametrize(
    "call",
    [
        "describe_instances",
        "describe_images",
        "describe_key_pairs",
        "describe_tags",
        "describe_regions",
        "describe_availability_zones",
        "describe_instance_types",
        "describe_vpcs",
        "describe_subnets",
        "describe_security_groups",
        "describe_instance_status",
        "describe_import_image_tasks",
    ],
)
def test_filters_that_do_not_exist_are_refused(ec2: Any, refused: Any, call: str) -> None:
    refused("InvalidParameterValue", getattr(ec2, call), Filters=[{"Name": "x", "Values": ["y"]}])


@pytest.mark.parametrize("call", ["create_volume", "create_vpc", "allocate_address"])
def test_what_is_not_served_is_invalid_action(ec2: Any, front: Any, clients: Any, refused: Any, call: str) -> None:
    refused("InvalidAction", getattr(clients("ec2", validate=False), call))
