"""`minicloud image …`: build guest images, bring disk files in as AMIs, list and remove them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from minicloud.cli.output import age, json_option, print_fields, print_json, print_table

QCOW2_MAGIC = b"QFI\xfb"


@click.group()
def image() -> None:
    """Build, register and list images (AMIs). IMAGE is an id or a name."""


@image.command("build")
@click.argument("name", type=click.Choice(["tiny", "debian"]))
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Copy the result here.")
def build(name: str, output: str | None) -> None:
    """Build a guest image from Debian's packages; prints its file. Cached by its recipe."""
    recipes = Path(__file__).parents[3] / "images" / "build"
    if not recipes.exists():
        raise click.ClickException("the image recipes are part of the source tree; run this from a checkout")
    argv = [sys.executable, str(recipes), name] + (["--output", output] if output else [])
    sys.exit(subprocess.run(argv, check=False).returncode)


@image.command("register")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="The AMI's name.")
@click.option(
    "--format", "disk_format", type=click.Choice(["qcow2", "raw"]), help="Default: by the file's first bytes."
)
@click.option("--description", help="The AMI's description.")
@click.option("--boot-mode", type=click.Choice(["legacy-bios", "uefi"]), default="legacy-bios", show_default=True)
@click.option("--ssh-user", help="Login for `minicloud instance ssh`, kept as the AMI's tag `ssh-user`.")
@click.option("--timeout", "timeout_seconds", default=3600, show_default=True, metavar="SECONDS")
@json_option
@click.pass_obj
def register(
    settings: Any,
    file: Path,
    name: str,
    disk_format: str | None,
    description: str | None,
    boot_mode: str,
    ssh_user: str | None,
    timeout_seconds: int,
    as_json: bool,
) -> None:
    """Register a qcow2 or raw disk FILE as an AMI: uploaded, inspected, stored as a snapshot."""
    from minicloud.cli.waiting import wait_for

    door = settings.door(timeout_seconds)
    url = _upload(door, file, quiet=as_json)
    container: dict[str, Any] = {"Format": (disk_format or _guess_format(file)).upper(), "Url": url}
    task_id = door.ec2("ImportSnapshot", DiskContainer=container, Description=description or name)["ImportTaskId"]
    wait_for(
        settings,
        [task_id],
        lambda one: one["State"] == "completed",
        lambda one: one["State"] == "deleted",
        timeout_seconds,
        quiet=as_json,
    )
    tasks = door.ec2("DescribeImportSnapshotTasks", ImportTaskIds=[task_id])["ImportSnapshotTasks"]
    snapshot_id = tasks[0]["SnapshotTaskDetail"]["SnapshotId"]
    parameters: dict[str, Any] = {
        "Name": name,
        "Description": description,
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "BootMode": boot_mode,
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}],
    }
    if ssh_user:
        parameters["TagSpecifications"] = [{"ResourceType": "image", "Tags": [{"Key": "ssh-user", "Value": ssh_user}]}]
    image_id = door.ec2("RegisterImage", **parameters)["ImageId"]
    if as_json:
        print_json({"ImageId": image_id, "SnapshotId": snapshot_id, "Name": name})
        return
    click.echo(f"{image_id}  {name}  from {snapshot_id}")


def _upload(door: Any, file: Path, quiet: bool) -> str:
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        if quiet or not sys.stderr.isatty():
            return str(door.upload(stream, size_bytes, lambda _sent: None))
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("upload", total=size_bytes)
            return str(door.upload(stream, size_bytes, lambda sent: progress.update(bar, completed=sent)))


def _guess_format(file: Path) -> str:
    """Say which of the two accepted formats a file claims; the daemon's inspection decides whether it is one."""
    with file.open("rb") as stream:
        return "qcow2" if stream.read(len(QCOW2_MAGIC)) == QCOW2_MAGIC else "raw"


@image.command("ls")
@json_option
@click.pass_obj
def ls(settings: Any, as_json: bool) -> None:
    """List images."""
    rows = settings.door().ec2("DescribeImages").get("Images") or []
    if as_json:
        print_json(rows)
        return
    print_table(
        ("ID", "NAME", "STATE", "ARCH", "SIZE", "PUBLIC", "AGE"),
        [
            (
                one["ImageId"],
                one.get("Name"),
                one["State"],
                one["Architecture"],
                _size(one),
                one["Public"],
                age(one.get("CreationDate")),
            )
            for one in rows
        ],
        "No images. Register one: `minicloud image register FILE --name NAME`.",
    )


def _size(one: dict[str, Any]) -> str | None:
    sizes = [
        disk["Ebs"]["VolumeSize"]
        for disk in one.get("BlockDeviceMappings") or []
        if disk.get("Ebs", {}).get("VolumeSize")
    ]
    return f"{sum(sizes)} GiB" if sizes else None


@image.command("show")
@click.argument("image_ref", metavar="IMAGE")
@json_option
@click.pass_obj
def show(settings: Any, image_ref: str, as_json: bool) -> None:
    """Show everything about an image."""
    from minicloud.cli.lookups import choose_image

    one = choose_image(settings.door(), image_ref)
    if as_json:
        print_json(one)
        return
    print_fields(
        one["ImageId"],
        [
            ("name", one.get("Name")),
            ("description", one.get("Description")),
            ("state", one["State"]),
            ("architecture", one["Architecture"]),
            ("boot mode", one.get("BootMode")),
            ("public", one["Public"]),
            ("owner", one["OwnerId"]),
            ("root device", one.get("RootDeviceName")),
            (
                "snapshots",
                [disk["Ebs"]["SnapshotId"] for disk in one.get("BlockDeviceMappings") or [] if "Ebs" in disk],
            ),
            ("created", one.get("CreationDate")),
            ("tags", [f"{tag['Key']}={tag['Value']}" for tag in one.get("Tags") or []]),
        ],
    )


@image.command("rm")
@click.argument("image_refs", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Any, image_refs: tuple[str, ...]) -> None:
    """Deregister images; their snapshots stay, as in EC2."""
    from minicloud.cli.lookups import choose_image

    door = settings.door()
    for ref in image_refs:
        image_id = choose_image(door, ref)["ImageId"]
        door.ec2("DeregisterImage", ImageId=image_id)
        click.echo(f"{image_id}  deregistered")
