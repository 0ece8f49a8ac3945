"""Images and imports through boto3."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support import front as build
from support import rows as make

from minicloud.model.states import ImageState, ImportTaskState, SnapshotState

OTHER = "200000000002"
ROOT = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": build.SNAPSHOT_ID}}


@pytest.fixture
def disk(tmp_path: Path, front: Any) -> Path:
    """A file that may be imported."""
    file = tmp_path / "images" / "disk.qcow2"
    file.write_bytes(b"QFI\xfb" + bytes(508))
    return file


def only(ec2: Any, image_id: str) -> dict[str, Any]:
    (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    return dict(image)


def register(ec2: Any, **changes: Any) -> str:
    parameters = {"Name": "new", "RootDeviceName": "/dev/sda1", "BlockDeviceMappings": [ROOT], **changes}
    answer = ec2.register_image(**{name: value for name, value in parameters.items() if value is not None})
    return str(answer["ImageId"])


def complete(front: Any, task_id: str) -> None:
    """Do what the controller does at the end of an import."""

    def writes(tx: Any) -> None:
        task = tx.import_tasks.update(task_id, state=ImportTaskState.COMPLETED, progress_percent=100)
        tx.snapshots.update(
            task.snapshot_id, state=SnapshotState.COMPLETED, size_gib=3, virtual_size_bytes=3 * build.GIB
        )
        if task.image_id:
            tx.images.update(task.image_id, state=ImageState.AVAILABLE)

    front.cloud.store.write(writes)


def test_register_and_describe(ec2: Any) -> None:
    image_id = register(
        ec2,
        Description="a test",
        Architecture="x86_64",
        VirtualizationType="hvm",
        BootMode="uefi",
        EnaSupport=True,
        ImdsSupport="v2.0",
        BlockDeviceMappings=[
            ROOT,
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/sdc", "Ebs": {"VolumeSize": 7, "VolumeType": "gp2", "DeleteOnTermination": False}},
        ],
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "ssh-user", "Value": "admin"}]}],
    )
    image = only(ec2, image_id)
    assert image["State"] == "available"
    assert (image["Name"], image["Description"]) == ("new", "a test")
    assert image["ImageLocation"] == f"{image['OwnerId']}/new"
    assert (image["BootMode"], image["ImdsSupport"], image["EnaSupport"]) == ("uefi", "v2.0", True)
    assert (image["Public"], image["RootDeviceType"], image["VirtualizationType"]) == (False, "ebs", "hvm")
    assert image["Tags"] == [{"Key": "ssh-user", "Value": "admin"}]
    root, ephemeral, data = image["BlockDeviceMappings"]
    assert root["Ebs"] == {
        "SnapshotId": build.SNAPSHOT_ID,
        "VolumeSize": 2,
        "VolumeType": "gp3",
        "DeleteOnTermination": True,
        "Encrypted": False,
    }
    assert ephemeral == {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}
    assert (data["Ebs"]["VolumeSize"], data["Ebs"]["VolumeType"]) == (7, "gp2")
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 0, "MaxAttempts": 1})


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        # The model bounds the length, before anybody knows that it is an AMI's name.
        ("InvalidParameterValue", {"Name": "no"}),
        ("InvalidParameterValue", {"Name": "x" * 129}),
        ("InvalidAMIName.Malformed", {"Name": "a;b|c"}),
        ("InvalidAMIName.Duplicate", {"Name": "image1"}),
        ("MissingParameter", {"RootDeviceName": None}),
        ("InvalidBlockDeviceMapping", {"BlockDeviceMappings": None}),
        ("InvalidBlockDeviceMapping", {"RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [ROOT]}),
        ("InvalidBlockDeviceMapping", {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 1}}]}),
        ("InvalidBlockDeviceMapping", {"BlockDeviceMappings": [ROOT, {"DeviceName": "/dev/sdb", "VirtualName": "x"}]}),
        (
            "InvalidBlockDeviceMapping",
            {
                "BlockDeviceMappings": [
                    {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": build.SNAPSHOT_ID, "VolumeSize": 1}}
                ]
            },
        ),
        (
            "InvalidSnapshot.NotFound",
            {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}]},
        ),
        ("InvalidParameterValue", {"RootDeviceName": "C:"}),
        ("UnsupportedOperation", {"Architecture": "arm64"}),
        ("UnsupportedOperation", {"VirtualizationType": "paravirtual"}),
        ("UnsupportedOperation", {"KernelId": "aki-01234567"}),
        ("UnsupportedOperation", {"ImageLocation": "bucket/x"}),
        ("InvalidParameterValue", {"Description": "x" * 256}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_registrations_are_refused(
    front: Any, clients: Any, refused: Any, code: str, changes: dict[str, Any]
) -> None:
    before = build.count_rows(front.cloud)
    refused(code, register, clients("ec2", validate=False), **changes)
    assert build.count_rows(front.cloud) == before


def test_a_snapshot_must_be_complete(front: Any, ec2: Any, refused: Any) -> None:
    front.cloud.store.write(lambda tx: tx.snapshots.update(build.SNAPSHOT_ID, state=SnapshotState.PENDING))
    refused("IncorrectState", register, ec2)


def test_who_sees_which_image(front: Any, ec2: Any, refused: Any) -> None:
    def writes(tx: Any) -> None:
        tx.images.insert(build.image(2, account_id=OTHER, allowed_account_ids=()))
        tx.images.insert(build.image(3, account_id=OTHER, public=True, allowed_account_ids=()))
        tx.images.insert(build.image(4, account_id=OTHER, allowed_account_ids=(build.root_caller().account_id,)))

    front.cloud.store.write(writes)
    ids = {n: make.number("ami", n) for n in range(1, 5)}

    def seen(**parameters: Any) -> set[str]:
        return {one["ImageId"] for one in ec2.describe_images(**parameters)["Images"]}

    assert seen() == {ids[1], ids[3], ids[4]}
    assert seen(Owners=["self"]) == {ids[1]}
    assert seen(Owners=[OTHER]) == {ids[3], ids[4]}
    assert seen(Owners=["self", OTHER]) == {ids[1], ids[3], ids[4]}
    assert seen(Owners=["amazon"]) == set()
    assert seen(ExecutableUsers=["all"]) == {ids[3]}
    assert seen(ExecutableUsers=["self"]) == {ids[4]}
    assert seen(ImageIds=[ids[3]], Owners=["self"]) == set()
    refused("InvalidAMIID.NotFound", ec2.describe_images, ImageIds=[ids[1], ids[2]])
    # What may be launched may not be changed.
    for call in (ec2.deregister_image, ec2.reset_image_attribute, ec2.describe_image_attribute):
        extra = {} if call == ec2.deregister_image else {"Attribute": "launchPermission"}
        refused("AuthFailure", call, ImageId=ids[3], **extra)


def test_sharing_in_both_forms(ec2: Any) -> None:
    image_id = register(ec2)

    def permissions() -> list[dict[str, str]]:
        answer = ec2.describe_image_attribute(ImageId=image_id, Attribute="launchPermission")
        return list(answer["LaunchPermissions"])

    assert permissions() == []
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [{"UserId": OTHER}, {"Group": "all"}]})
    assert permissions() == [{"Group": "all"}, {"UserId": OTHER}]
    assert only(ec2, image_id)["Public"] is True
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Remove": [{"Group": "all"}]})
    assert permissions() == [{"UserId": OTHER}]
    ec2.modify_image_attribute(
        ImageId=image_id, Attribute="launchPermission", OperationType="remove", UserIds=[OTHER], UserGroups=["all"]
    )
    assert permissions() == []
    ec2.modify_image_attribute(
        ImageId=image_id, Attribute="launchPermission", OperationType="add", UserIds=["300000000003"]
    )
    assert permissions() == [{"UserId": "300000000003"}]
    ec2.reset_image_attribute(ImageId=image_id, Attribute="launchPermission")
    assert permissions() == []


def test_attributes(ec2: Any, refused: Any) -> None:
    image_id = register(ec2, Description="first")
    ec2.modify_image_attribute(ImageId=image_id, Description={"Value": "second"})
    shown = ec2.describe_image_attribute(ImageId=image_id, Attribute="description")
    assert (shown["ImageId"], shown["Description"]) == (image_id, {"Value": "second"})
    ec2.modify_image_attribute(ImageId=image_id, Attribute="description", Value="third")
    assert only(ec2, image_id)["Description"] == "third"
    mapping = ec2.describe_image_attribute(ImageId=image_id, Attribute="blockDeviceMapping")["BlockDeviceMappings"]
    assert mapping[0]["Ebs"]["SnapshotId"] == build.SNAPSHOT_ID
    boot_mode = ec2.describe_image_attribute(ImageId=image_id, Attribute="bootMode")
    assert boot_mode["BootMode"] == {"Value": "legacy-bios"}
    refused("UnsupportedOperation", ec2.describe_image_attribute, ImageId=image_id, Attribute="uefiData")


@pytest.mark.parametrize(
    ("code", "parameters"),
    [
        ("MissingParameter", {}),
        (
            "InvalidParameterCombination",
            {"Description": {"Value": "x"}, "LaunchPermission": {"Add": [{"Group": "all"}]}},
        ),
        ("InvalidAMIAttributeItemValue", {"LaunchPermission": {"Add": [{"UserId": "12"}]}}),
        ("InvalidParameterValue", {"LaunchPermission": {"Add": [{"Group": "some"}]}}),
        ("MissingParameter", {"Attribute": "launchPermission", "UserIds": [OTHER]}),
        ("InvalidAMIAttributeItemValue", {"UserGroups": ["some"], "OperationType": "add"}),
        ("UnsupportedOperation", {"Attribute": "productCodes", "ProductCodes": ["x"]}),
        ("UnsupportedOperation", {"LaunchPermission": {"Add": [{"OrganizationArn": "arn"}]}}),
        ("UnsupportedOperation", {"ImdsSupport": {"Value": "v2.0"}}),
        ("InvalidParameterValue", {"Description": {"Value": "x" * 256}}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_attributes_are_refused(
    front: Any, clients: Any, refused: Any, code: str, parameters: dict[str, Any]
) -> None:
    client = clients("ec2", validate=False)
    refused(code, client.modify_image_attribute, ImageId=build.IMAGE_ID, **parameters)


def test_a_copy_is_an_image_of_its_own(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    parameters = {"SourceImageId": build.IMAGE_ID, "SourceRegion": build.REGION, "Name": "second"}
    ec2.create_tags(Resources=[build.IMAGE_ID], Tags=[{"Key": "ssh-user", "Value": "ec2-user"}])
    copy_id = ec2.copy_image(**parameters, ClientToken="once", CopyImageTags=True)["ImageId"]
    assert ec2.copy_image(**parameters, ClientToken="once", CopyImageTags=True)["ImageId"] == copy_id
    copy = only(ec2, copy_id)
    assert (copy["Name"], copy["SourceImageId"], copy["SourceImageRegion"]) == ("second", build.IMAGE_ID, "lab-1")
    assert copy["Tags"] == [{"Key": "ssh-user", "Value": "ec2-user"}]
    ebs = copy["BlockDeviceMappings"][0]["Ebs"]
    assert ebs["SnapshotId"] != build.SNAPSHOT_ID
    snapshots = {row.id: row for row in front.cloud.store.read(lambda tx: tx.snapshots.where())}
    assert snapshots[ebs["SnapshotId"]].manifest_digest == snapshots[build.SNAPSHOT_ID].manifest_digest
    refused("InvalidAMIID.Unavailable", ec2.run_instances, ImageId=copy_id, MinCount=1, MaxCount=1)
    ec2.deregister_image(ImageId=build.IMAGE_ID)
    front.cloud.store.write(lambda tx: tx.images.update(copy_id, state=ImageState.AVAILABLE))
    front.cloud.store.write(lambda tx: tx.snapshots.update(ebs["SnapshotId"], state=SnapshotState.COMPLETED))
    run(ImageId=copy_id)
    refused("InvalidAMIName.Duplicate", ec2.copy_image, **{**parameters, "SourceImageId": copy_id})
    refused("InvalidAMIID.Unavailable", ec2.copy_image, **{**parameters, "Name": "third"})
    wrong = {"SourceImageId": copy_id, "SourceRegion": "us-east-1", "Name": "third"}
    refused("InvalidParameterValue", ec2.copy_image, **wrong)
    refused("UnsupportedOperation", ec2.copy_image, **{**parameters, "Encrypted": True})


def test_deregistering_frees_the_name_and_keeps_instances(front: Any, ec2: Any, run: Any, refused: Any) -> None:
    run()
    assert ec2.deregister_image(ImageId=build.IMAGE_ID)["Return"] is True
    assert ec2.describe_images()["Images"] == []
    refused("InvalidAMIID.NotFound", ec2.describe_images, ImageIds=[build.IMAGE_ID])
    refused("InvalidAMIID.Unavailable", run)
    refused("InvalidAMIID.Unavailable", ec2.deregister_image, ImageId=build.IMAGE_ID)
    assert len(ec2.describe_instances()["Reservations"]) == 1
    register(ec2, Name="image1")
    refused("UnsupportedOperation", ec2.deregister_image, ImageId=build.IMAGE_ID, DeleteAssociatedSnapshots=True)


# Imports


def test_import_snapshot_then_register(front: Any, ec2: Any, run: Any, disk: Path) -> None:
    container = {"Format": "QCOW2", "Url": disk.as_uri(), "Description": "from the container"}
    made = ec2.import_snapshot(
        DiskContainer=container,
        TagSpecifications=[{"ResourceType": "import-snapshot-task", "Tags": [{"Key": "a", "Value": "b"}]}],
    )
    task_id = made["ImportTaskId"]
    assert task_id.startswith("import-snap-")
    detail = made["SnapshotTaskDetail"]
    assert (detail["Status"], detail["Progress"], detail["StatusMessage"]) == ("active", "0", "pending")
    assert (detail["Format"], detail["Url"], detail["DiskImageSize"]) == ("QCOW2", disk.as_uri(), 512.0)
    assert "SnapshotId" not in detail
    task = front.cloud.store.read(lambda tx: tx.import_tasks.get(task_id))
    assert (task.path, task.format, task.remove_source) == (os.path.realpath(disk), "qcow2", False)
    (due,) = front.cloud.store.read(lambda tx: tx.tasks.where())
    assert (due.id, due.kind, due.step) == (task_id, "import", "start")
    complete(front, task_id)
    (shown,) = ec2.describe_import_snapshot_tasks(ImportTaskIds=[task_id])["ImportSnapshotTasks"]
    assert shown["SnapshotTaskDetail"]["Status"] == "completed"
    assert shown["Tags"] == [{"Key": "a", "Value": "b"}]
    snapshot_id = shown["SnapshotTaskDetail"]["SnapshotId"]
    ec2.get_waiter("snapshot_imported").wait(ImportTaskIds=[task_id], WaiterConfig={"Delay": 0, "MaxAttempts": 1})
    image_id = register(ec2, BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}])
    assert only(ec2, image_id)["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 3
    run(ImageId=image_id)


def test_import_image(front: Any, ec2: Any, run: Any, disk: Path, refused: Any) -> None:
    parameters = {
        "Architecture": "x86_64",
        "BootMode": "uefi",
        "Description": "imported",
        "Platform": "Linux",
        "LicenseType": "BYOL",
        "RoleName": "vmimport",
        "DiskContainers": [{"Format": "raw", "Url": disk.as_uri()}],
        "ClientToken": "once",
    }
    made = ec2.import_image(**parameters)
    assert (made["Status"], made["Progress"], made["Architecture"]) == ("active", "0", "x86_64")
    assert "ImageId" not in made
    assert ec2.import_image(**parameters)["ImportTaskId"] == made["ImportTaskId"]
    refused("IdempotentParameterMismatch", ec2.import_image, **{**parameters, "Description": "other"})
    (image,) = [one for one in ec2.describe_images()["Images"] if one["ImageId"] != build.IMAGE_ID]
    assert (image["State"], image["Name"], image["BootMode"]) == ("pending", made["ImportTaskId"], "uefi")
    assert "VolumeSize" not in image["BlockDeviceMappings"][0]["Ebs"]
    refused("InvalidAMIID.Unavailable", run, ImageId=image["ImageId"])
    refused("IncorrectState", ec2.deregister_image, ImageId=image["ImageId"])
    complete(front, made["ImportTaskId"])
    (task,) = ec2.describe_import_image_tasks()["ImportImageTasks"]
    assert (task["ImageId"], task["Status"]) == (image["ImageId"], "completed")
    assert only(ec2, image["ImageId"])["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 3
    assert front.cloud.store.read(lambda tx: tx.instances.count()) == 0
    run(ImageId=image["ImageId"])
    assert front.cloud.store.read(lambda tx: tx.instances.where())[0].boot_mode == "uefi"


def test_the_tasks_of_one_kind_are_not_those_of_the_other(ec2: Any, disk: Path, refused: Any) -> None:
    snapshot_task = ec2.import_snapshot(DiskContainer={"Format": "raw", "Url": disk.as_uri()})["ImportTaskId"]
    assert ec2.describe_import_image_tasks()["ImportImageTasks"] == []
    refused("InvalidConversionTaskId.Malformed", ec2.describe_import_image_tasks, ImportTaskIds=[snapshot_task])


@pytest.mark.parametrize("scheme", ["https://example.org/x", "s3://bucket/x", "ftp://x/y", "/etc/passwd", "file:", ""])
def test_only_local_urls_are_imported(front: Any, ec2: Any, refused: Any, scheme: str) -> None:
    code = "MissingParameter" if not scheme else "InvalidParameterValue"
    error = refused(code, ec2.import_snapshot, DiskContainer={"Format": "raw", "Url": scheme})
    assert "passwd" not in str(error)


def test_paths_cannot_leave_the_folders_that_are_allowed(
    front: Any, ec2: Any, tmp_path: Path, disk: Path, refused: Any
) -> None:
    outside = tmp_path / "secret.raw"
    outside.write_bytes(b"x")
    images = tmp_path / "images"
    (images / "link.raw").symlink_to(outside)
    (images / "folder").symlink_to(tmp_path)
    (images / "loop").symlink_to(images / "loop")
    (images / "empty.raw").touch()
    os.mkfifo(images / "pipe")
    sibling = tmp_path / "images-too"
    sibling.mkdir()
    (sibling / "x.raw").write_bytes(b"x")
    before = build.count_rows(front.cloud)
    urls = [
        outside.as_uri(),
        (images / "link.raw").as_uri(),
        (images / "folder" / "secret.raw").as_uri(),
        (images / "loop").as_uri(),
        f"file://{images}/../secret.raw",
        f"file://{images}/%2e%2e/secret.raw",
        f"file://{images}/..%2fsecret.raw",
        f"file://{images}/disk.qcow2%00.raw",
        f"file://elsewhere{disk}",
        f"file://{disk}?x=y",
        f"file://{disk}#x",
        (sibling / "x.raw").as_uri(),
        images.as_uri(),
        (images / "absent.raw").as_uri(),
        (images / "pipe").as_uri(),
        (images / "empty.raw").as_uri(),
        "file:///proc/self/environ",
        "file://" + "/x" * 3000,
        "file://[::1/x",
    ]
    messages = {
        str(refused("InvalidParameterValue", ec2.import_snapshot, DiskContainer={"Format": "raw", "Url": url}))
        for url in urls
    }
    assert not any("secret" in message or str(tmp_path) in message for message in messages)
    assert build.count_rows(front.cloud) == before


def test_a_link_within_the_allowed_folder_is_fine(ec2: Any, front: Any, disk: Path) -> None:
    link = disk.with_name("latest.qcow2")
    link.symlink_to(disk.name)
    url = f"file://localhost{link}"
    task_id = ec2.import_snapshot(DiskContainer={"Format": "qcow2", "Url": url})["ImportTaskId"]
    assert front.cloud.store.read(lambda tx: tx.import_tasks.get(task_id)).path == os.path.realpath(disk)


def test_a_file_may_be_too_large(catalog: Any, server: Any, boto_ec2: Any, tmp_path: Path, refused: Any) -> None:
    (tmp_path / "big.raw").write_bytes(b"x" * 101)
    front = build.build_front(catalog, tmp_path, image_import_folders=(str(tmp_path),), max_import_bytes=100)
    server[0].app = build.endpoint_of(front)
    container = {"Format": "raw", "Url": (tmp_path / "big.raw").as_uri()}
    refused("InvalidParameterValue", boto_ec2.import_snapshot, DiskContainer=container)


@pytest.mark.parametrize("format", ["VMDK", "vhd", "ova", "qcow", "luks", "../raw"])
def test_other_formats_are_refused(ec2: Any, front: Any, disk: Path, refused: Any, format: str) -> None:
    container = {"Format": format, "Url": disk.as_uri()}
    refused("InvalidParameterValue", ec2.import_snapshot, DiskContainer=container)
    refused("InvalidParameterValue", ec2.import_image, DiskContainers=[container])


def test_what_imports_need(ec2: Any, front: Any, disk: Path, refused: Any) -> None:
    container = {"Format": "raw", "Url": disk.as_uri()}
    refused("MissingParameter", ec2.import_snapshot)
    refused("MissingParameter", ec2.import_snapshot, DiskContainer={"Url": disk.as_uri()})
    refused("InvalidParameterValue", ec2.import_image)
    refused("InvalidParameterValue", ec2.import_image, DiskContainers=[container, container])
    refused("UnsupportedOperation", ec2.import_snapshot, DiskContainer={"UserBucket": {"S3Bucket": "b", "S3Key": "k"}})
    refused("UnsupportedOperation", ec2.import_snapshot, DiskContainer=container, Encrypted=True)
    refused("UnsupportedOperation", ec2.import_image, DiskContainers=[container], Platform="Windows")
    refused("UnsupportedOperation", ec2.import_image, DiskContainers=[container], Architecture="arm64")
