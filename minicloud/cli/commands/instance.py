"""`minicloud instance …` and `minicloud run`: people's way to instances."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Any

import click

from minicloud.cli.output import age, json_option, name_of, print_fields, print_json, print_table

DEFAULT_TYPE = "t3.micro"
FINISHED = ("terminated",)


@click.group()
def instance() -> None:
    """Run, list, stop and reach instances. INSTANCE is an id or a Name tag."""


@click.command()
@click.argument("image", required=False)
@click.option("--type", "instance_type", default=DEFAULT_TYPE, show_default=True, help="Instance type.")
@click.option("--key", "key_name", metavar="NAME", help="Key pair (default: `default`, if there is one).")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@click.option("--zone", metavar="ZONE", help="Availability zone (default: any with room).")
@click.option("--name", metavar="NAME", help="Name tag.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Tag; may be repeated.")
@click.option("--user-data", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="User data file.")
@click.option("--root-size", "root_gib", type=click.IntRange(1, 16384), metavar="GIB", help="Root volume size.")
@click.option("--imdsv2", is_flag=True, help="Require metadata session tokens (HttpTokens=required).")
@click.option("--on-shutdown", type=click.Choice(["stop", "terminate"]), help="When the guest powers off.")
@click.option("--client-token", metavar="TOKEN", help="Makes a repeated call give the same instances.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until running, with progress.")
@click.option("--timeout", "timeout_seconds", default=900, show_default=True, metavar="SECONDS", help="For --wait.")
@json_option
@click.pass_obj
def run(
    settings: Any,
    image: str | None,
    instance_type: str,
    key_name: str | None,
    count: int,
    zone: str | None,
    name: str | None,
    tags: tuple[str, ...],
    user_data: Path | None,
    root_gib: int | None,
    imdsv2: bool,
    on_shutdown: str | None,
    client_token: str | None,
    wait: bool,
    timeout_seconds: int,
    as_json: bool,
) -> None:
    """Launch instances of IMAGE (an AMI id or name; may be left out when only one is registered)."""
    from minicloud.cli.lookups import choose_image

    door = settings.door()
    chosen = choose_image(door, image)
    pairs = [_tag(text) for text in tags] + ([{"Key": "Name", "Value": name}] if name else [])
    parameters: dict[str, Any] = {
        "ImageId": chosen["ImageId"],
        "InstanceType": instance_type,
        "MinCount": count,
        "MaxCount": count,
        "KeyName": key_name or _default_key(door),
        "ClientToken": client_token,
        "InstanceInitiatedShutdownBehavior": on_shutdown,
    }
    if zone:
        parameters["Placement"] = {"AvailabilityZone": zone}
    if pairs:
        parameters["TagSpecifications"] = [{"ResourceType": "instance", "Tags": pairs}]
    if user_data is not None:
        parameters["UserData"] = base64.b64encode(user_data.read_bytes()).decode()
    if imdsv2:
        parameters["MetadataOptions"] = {"HttpTokens": "required"}
    if root_gib:
        parameters["BlockDeviceMappings"] = [
            {"DeviceName": chosen.get("RootDeviceName", "/dev/sda1"), "Ebs": {"VolumeSize": root_gib}}
        ]
    launched = door.ec2("RunInstances", **parameters)["Instances"]
    ids = [one["InstanceId"] for one in launched]
    _finish(settings, ids, "running", wait, timeout_seconds, as_json)


instance.add_command(run)


@instance.command("ls")
@click.option("--all", "show_all", is_flag=True, help="Terminated ones, too.")
@json_option
@click.pass_obj
def ls(settings: Any, show_all: bool, as_json: bool) -> None:
    """List instances."""
    from minicloud.cli.lookups import all_instances

    rows = [one for one in all_instances(settings.door()) if show_all or one["State"]["Name"] not in FINISHED]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("ID", "NAME", "STATE", "TYPE", "ZONE", "PUBLIC IP", "PRIVATE IP", "AGE"),
        [
            (
                one["InstanceId"],
                name_of(one),
                one["State"]["Name"],
                one["InstanceType"],
                one["Placement"]["AvailabilityZone"],
                one.get("PublicIpAddress"),
                one.get("PrivateIpAddress"),
                age(one["LaunchTime"]),
            )
            for one in rows
        ],
        "No instances. Launch one: `minicloud run`.",
    )


@instance.command("show")
@click.argument("instance_ref", metavar="INSTANCE")
@json_option
@click.pass_obj
def show(settings: Any, instance_ref: str, as_json: bool) -> None:
    """Show everything about an instance."""
    from minicloud.cli.lookups import find_instance

    one = find_instance(settings.door(), instance_ref)
    if as_json:
        print_json(one)
        return
    print_instance(one)


def print_instance(one: dict[str, Any]) -> None:
    """Print one described instance as fields."""
    disks = [
        f"{disk['DeviceName']} {disk['Ebs']['VolumeId']} ({disk['Ebs']['Status']})"
        for disk in one.get("BlockDeviceMappings") or []
        if "Ebs" in disk
    ]
    reason = one.get("StateReason") or {}
    print_fields(
        one["InstanceId"],
        [
            ("name", name_of(one)),
            ("state", one["State"]["Name"]),
            ("reason", reason.get("Message")),
            ("type", one["InstanceType"]),
            ("image", one["ImageId"]),
            ("zone", one["Placement"]["AvailabilityZone"]),
            ("public ip", one.get("PublicIpAddress")),
            ("private ip", one.get("PrivateIpAddress")),
            ("key", one.get("KeyName")),
            ("disks", disks),
            ("groups", [group["GroupName"] for group in one.get("SecurityGroups") or []]),
            ("launched", one["LaunchTime"]),
            ("tags", [f"{tag['Key']}={tag['Value']}" for tag in one.get("Tags") or [] if tag["Key"] != "Name"]),
        ],
    )


def _changes(
    name: str, operation: str, wanted: str | None, text: str, extra: list[tuple[str, str, str]] | None = None
) -> None:
    """Add a command that changes instances by one EC2 operation and waits for a state."""

    def callback(
        settings: Any, /, refs: tuple[str, ...], wait: bool, timeout_seconds: int, as_json: bool, **flags: bool
    ) -> None:
        from minicloud.cli.lookups import find_instance

        door = settings.door()
        ids = [find_instance(door, ref)["InstanceId"] for ref in refs]
        parameters = {parameter: True for _, parameter, _ in extra or [] if flags.get(parameter.lower())}
        door.ec2(operation, InstanceIds=ids, **parameters)
        _finish(settings, ids, wanted, wait and wanted is not None, timeout_seconds, as_json)

    callback.__doc__ = text
    command = click.pass_obj(callback)
    command = json_option(command)
    command = click.option("--timeout", "timeout_seconds", default=300, show_default=True, metavar="SECONDS")(command)
    if wanted is None:
        command = click.option("--wait", is_flag=True, hidden=True)(command)
    else:
        command = click.option("--wait/--no-wait", default=True, show_default=True, help=f"Wait until {wanted}.")(
            command
        )
    for option, parameter, help_text in extra or []:
        command = click.option(option, parameter.lower(), is_flag=True, help=help_text)(command)
    command = click.argument("refs", metavar="INSTANCE...", nargs=-1, required=True)(command)
    instance.command(name)(command)


_changes("start", "StartInstances", "running", "Start stopped instances.")
_changes(
    "stop",
    "StopInstances",
    "stopped",
    "Stop instances: a press of the power button, and force only at a deadline.",
    [("--force", "Force", "Cut the power at once.")],
)
_changes("reboot", "RebootInstances", None, "Reboot instances; a guest that ignores it is reset.")
_changes("terminate", "TerminateInstances", "terminated", "Terminate instances and delete their root volumes.")


@instance.command("console")
@click.argument("instance_ref", metavar="INSTANCE")
@click.option("--follow", "-f", is_flag=True, help="Go on printing as it grows.")
@click.option("--lines", "-n", type=click.IntRange(1), help="Only the last lines.")
@json_option
@click.pass_obj
def console(settings: Any, instance_ref: str, follow: bool, lines: int | None, as_json: bool) -> None:
    """Print an instance's serial console (its last 64 KB)."""
    from minicloud.cli.lookups import find_instance

    door = settings.door()
    instance_id = find_instance(door, instance_ref)["InstanceId"]
    text = console_text(door, instance_id)
    if as_json:
        print_json({"InstanceId": instance_id, "Output": text})
        return
    click.echo("\n".join(text.splitlines()[-lines:]) if lines else text)
    while follow:
        time.sleep(0.5)
        newer = console_text(door, instance_id)
        overlap = newer.rfind(text[-512:]) if text else -1
        grown = newer[overlap + len(text[-512:]) :] if overlap >= 0 else newer
        if grown:
            click.echo(grown, nl=False)
            text = newer


def console_text(door: Any, instance_id: str) -> str:
    """Return an instance's console as text."""
    output = door.ec2("GetConsoleOutput", InstanceId=instance_id, Latest=True).get("Output") or ""
    return base64.b64decode(output).decode("utf-8", "replace").replace("\r\n", "\n")


@instance.command("ssh", context_settings={"ignore_unknown_options": True})
@click.argument("instance_ref", metavar="INSTANCE")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--user", "-l", help="Login (default: the image's tag `ssh-user`, else ec2-user).")
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False), help="Private key (default: as made here).")
@click.option("--print", "print_only", is_flag=True, help="Print the ssh line instead of running it.")
@click.pass_obj
def ssh(
    settings: Any,
    instance_ref: str,
    command: tuple[str, ...],
    user: str | None,
    key_file: str | None,
    print_only: bool,
) -> None:
    """Log in to an instance, or run COMMAND there."""
    import shlex

    from minicloud.cli.lookups import find_instance

    door = settings.door()
    argv = ssh_line(door, find_instance(door, instance_ref), user, key_file) + list(command)
    if print_only:
        click.echo(shlex.join(argv))
        return
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError as error:
        raise click.ClickException("the `ssh` program is not installed (Debian: openssh-client)") from error


def ssh_line(door: Any, one: dict[str, Any], user: str | None, key_file: str | None) -> list[str]:
    """Return the ssh command line that reaches an instance."""
    from minicloud.cli.client import keys_folder

    address = one.get("PublicIpAddress") or one.get("PrivateIpAddress")
    if not address:
        raise click.ClickException(f"{one['InstanceId']} has no address while it is {one['State']['Name']}")
    if user is None:
        images = door.ec2("DescribeImages", ImageIds=[one["ImageId"]]).get("Images") or [{}]
        tags = {tag["Key"]: tag["Value"] for tag in images[0].get("Tags") or []}
        user = tags.get("ssh-user", "ec2-user")
    known_hosts = keys_folder().parent / "known_hosts" / one["InstanceId"]
    known_hosts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    argv = ["ssh", "-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=accept-new"]
    path = key_file or str(keys_folder() / f"{one.get('KeyName')}.pem")
    if Path(path).exists():
        argv += ["-i", path, "-o", "IdentitiesOnly=yes"]
    return [*argv, f"{user}@{address}"]


def _finish(settings: Any, ids: list[str], wanted: str | None, wait: bool, timeout_seconds: int, as_json: bool) -> None:
    from minicloud.cli.lookups import all_instances
    from minicloud.cli.waiting import wait_for_state

    if wait and wanted is not None:
        wait_for_state(settings, ids, wanted, timeout_seconds, quiet=as_json)
    found = {one["InstanceId"]: one for one in all_instances(settings.door(), ids)}
    if as_json:
        print_json([found[id] for id in ids])
        return
    for id in ids:
        one = found[id]
        address = one.get("PublicIpAddress") or one.get("PrivateIpAddress") or ""
        click.echo(f"{id}  {one['State']['Name']}  {address}".rstrip())


def _tag(text: str) -> dict[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{text!r} must look like KEY=VALUE", param_hint="--tag")
    return {"Key": key, "Value": value}


def _default_key(door: Any) -> str | None:
    pairs = door.ec2("DescribeKeyPairs").get("KeyPairs") or []
    return next((pair["KeyName"] for pair in pairs if pair["KeyName"] == "default"), None)
