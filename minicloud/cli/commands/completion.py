"""`minicloud completion SHELL`: the shell's completion script, as click renders it."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script; for bash: eval "$(minicloud completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None  # the choice above lists only shells that click knows
    click.echo(kind(ctx.find_root().command, {}, "minicloud", "_MINICLOUD_COMPLETE").source())
