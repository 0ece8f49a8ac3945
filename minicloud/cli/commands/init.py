"""`minicloud init`: the controller's first state, made without a daemon; safe to run again."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from minicloud.cli.output import json_option, print_json


@click.command()
@click.option("--aws-profile", is_flag=True, help="Write profile `minicloud` into the AWS configuration files.")
@json_option
@click.pass_obj
def init(settings: Any, aws_profile: bool, as_json: bool) -> None:
    """Prepare the controller: database, root account with its access key, default network and its tcp/22 rule."""
    from minicloud.config import load_config
    from minicloud.daemon import initialise
    from minicloud.tls import load_tls

    config = load_config(settings.config_path)
    tls = load_tls(config)
    result = initialise(config)
    if aws_profile:
        # Nobody else vouches for such a certificate; one that a known authority signed needs no help.
        ca_bundle = config.tls_certificate if tls is not None and tls.is_self_signed else None
        write_profile(config.endpoint_url, config.region, result.access_key_id, result.secret_access_key, ca_bundle)
    if as_json:
        print_json(
            {
                "AccountId": result.account_id,
                "AccessKeyId": result.access_key_id,
                "SecretAccessKey": result.secret_access_key,
                "EndpointUrl": config.endpoint_url,
                "Region": config.region,
            }
        )
        return
    click.echo(f"account            {result.account_id}")
    click.echo(f"access key id      {result.access_key_id}")
    click.echo(f"secret access key  {result.secret_access_key}")
    click.echo(f"endpoint           {config.endpoint_url}  (region {config.region})")
    click.echo("default security group of the default VPC lets tcp/22 in from everywhere", err=True)
    if aws_profile:
        click.echo("wrote the AWS profile `minicloud`: aws --profile minicloud ec2 describe-regions", err=True)
    else:
        click.echo("`minicloud init --aws-profile` writes an AWS profile for this endpoint", err=True)


def write_profile(
    endpoint_url: str, region: str, access_key_id: str, secret_access_key: str, ca_bundle: str | None = None
) -> None:
    """Write profile `minicloud` where aws-cli and the SDKs look; other profiles are kept as they are.

    `ca_bundle` is the file of the certificates that the endpoint's is verified with, None for the machine's own.
    """
    home = Path.home() / ".aws"
    config_file = Path(os.environ.get("AWS_CONFIG_FILE") or home / "config")
    credentials_file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials")
    profile = {"region": region, "endpoint_url": endpoint_url}
    if ca_bundle is not None:
        profile["ca_bundle"] = ca_bundle
    _set(config_file, "profile minicloud", profile)
    _set(
        credentials_file,
        "minicloud",
        {"aws_access_key_id": access_key_id, "aws_secret_access_key": secret_access_key},
    )


def _set(file: Path, section: str, values: dict[str, str]) -> None:
    """Replace or append one section as text: a parser would lose the comments of the others."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    block = f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
    pattern = re.compile(rf"^\[{re.escape(section)}\][^\n]*\n(?:(?!\[).*\n?)*", re.MULTILINE)
    if pattern.search(text):
        text = pattern.sub(lambda _match: block, text, count=1)
    else:
        text = f"{text.rstrip()}\n\n{block}" if text.strip() else block
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(file.name + ".minicloud")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    temporary.replace(file)
