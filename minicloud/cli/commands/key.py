"""`minicloud key …`: key pairs, and the private keys that are kept for `minicloud instance ssh`."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import click

from minicloud.cli.output import age, json_option, print_json, print_table


@click.group()
def key() -> None:
    """Make and import key pairs."""


@key.command("create")
@click.argument("name")
@click.option("--type", "key_type", type=click.Choice(["ed25519", "rsa"]), default="ed25519", show_default=True)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Where to keep the private key.")
@json_option
@click.pass_obj
def create(settings: Any, name: str, key_type: str, output: Path | None, as_json: bool) -> None:
    """Make a key pair and keep its private key for `minicloud instance ssh`."""
    from minicloud.cli.client import keys_folder

    path = output or keys_folder() / f"{name}.pem"
    if path.exists():
        raise click.ClickException(f"{path} exists and is not overwritten. Give another --output.")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Opened first: a key whose private half cannot be written must not come to be.
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        answer = settings.door().ec2("CreateKeyPair", KeyName=name, KeyType=key_type)
        os.write(descriptor, answer["KeyMaterial"].encode())
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
    if as_json:
        print_json({"KeyName": name, "KeyPairId": answer["KeyPairId"], "PrivateKeyFile": str(path)})
        return
    click.echo(f"{answer['KeyPairId']}  {name}  private key in {path}")


@key.command("import")
@click.argument("name")
@click.argument("public_key_file", type=click.File("rb"))
@json_option
@click.pass_obj
def import_key(settings: Any, name: str, public_key_file: Any, as_json: bool) -> None:
    """Import a public key such as ~/.ssh/id_ed25519.pub."""
    material = base64.b64encode(public_key_file.read(64 * 1024)).decode()
    answer = settings.door().ec2("ImportKeyPair", KeyName=name, PublicKeyMaterial=material)
    if as_json:
        print_json(answer)
        return
    click.echo(f"{answer['KeyPairId']}  {name}  {answer['KeyFingerprint']}")


@key.command("ls")
@json_option
@click.pass_obj
def ls(settings: Any, as_json: bool) -> None:
    """List key pairs."""
    rows = settings.door().ec2("DescribeKeyPairs").get("KeyPairs") or []
    if as_json:
        print_json(rows)
        return
    print_table(
        ("NAME", "ID", "TYPE", "FINGERPRINT", "AGE"),
        [
            (one["KeyName"], one["KeyPairId"], one["KeyType"], one["KeyFingerprint"], age(one.get("CreateTime")))
            for one in rows
        ],
        "No key pairs. Make one: `minicloud key create default`.",
    )


@key.command("rm")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Any, names: tuple[str, ...]) -> None:
    """Delete key pairs (instances keep the keys they were born with)."""
    door = settings.door()
    known = {pair["KeyName"] for pair in door.ec2("DescribeKeyPairs").get("KeyPairs") or []}
    for name in names:
        if name not in known:
            raise click.ClickException(f"there is no key pair named {name!r}. See `minicloud key ls`.")
        door.ec2("DeleteKeyPair", KeyName=name)
        click.echo(f"{name}  deleted")
