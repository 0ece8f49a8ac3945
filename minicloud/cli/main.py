"""`minicloud`: the command tree. Each noun's module is imported when it is used, so that a cold start stays fast."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_TIMEOUT = 4

COMMANDS = {
    "run": ("minicloud.cli.commands.instance:run", "Launch instances (short for `instance run`)."),
    "init": ("minicloud.cli.commands.init:init", "Prepare this machine's controller: database, account, network."),
    "serve": ("minicloud.cli.commands.serve:serve", "Run the daemon in the foreground."),
    "instance": ("minicloud.cli.commands.instance:instance", "Run, list, stop and reach instances."),
    "image": ("minicloud.cli.commands.image:image", "Build, register and list images (AMIs)."),
    "key": ("minicloud.cli.commands.key:key", "Make and import key pairs."),
    "host": ("minicloud.cli.commands.host:host", "Add and list KVM hosts."),
    "zone": ("minicloud.cli.commands.zone:zone", "List availability zones."),
    "api": ("minicloud.cli.commands.api:api", "Call any action of the API and print its answer."),
    "events": ("minicloud.cli.commands.events:events", "Show who asked what, and how it ended."),
    "doctor": ("minicloud.cli.commands.doctor:doctor", "Check this machine and say how to mend what is wrong."),
    "completion": ("minicloud.cli.commands.completion:completion", "Print the shell's completion script."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for; listing them imports nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        # Imported here, not at the top: `--help` and completion need neither.
        from minicloud.cli.client import DaemonUnreachableError, DoorError
        from minicloud.cli.hints import hint_for
        from minicloud.errors import ConfigError

        try:
            return super().invoke(ctx)
        except DoorError as error:
            click.echo(f"Error: {error.message} ({error.code})", err=True)
            hint = hint_for(error.code)
            if hint:
                click.echo(hint, err=True)
            sys.exit(EXIT_REFUSED)
        except DaemonUnreachableError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(EXIT_UNREACHABLE)
        except ConfigError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(EXIT_USAGE)


class Settings:
    """What every command is given: where the configuration is, and how to answer."""

    def __init__(self, config_path: str, socket_path: str | None) -> None:
        self.config_path = config_path
        self._socket_path = socket_path

    def door(self, timeout_seconds: float = 60.0) -> Any:
        """Return the daemon's door."""
        from minicloud.cli.client import Door

        return Door(self.socket_path, timeout_seconds)

    @property
    def socket_path(self) -> str:
        """Where the daemon listens: as told, else as the configuration says."""
        if self._socket_path is None:
            from minicloud.cli.settings import socket_path

            self._socket_path = socket_path(self.config_path)
        return self._socket_path


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    help="Configuration file (default: $MINICLOUD_CONFIG, else /etc/minicloud/minicloud.yaml).",
)
@click.option("--socket", "socket_path", metavar="PATH", help="The daemon's socket (default: as configured).")
@click.version_option(package_name="minicloud", prog_name="minicloud")
@click.pass_context
def cli(ctx: click.Context, config_path: str | None, socket_path: str | None) -> None:
    """A cloud of your own KVM hosts that the AWS tools already know how to drive.

    Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration, 3 no daemon answers, 4 timed out waiting.
    """
    path = config_path or os.environ.get("MINICLOUD_CONFIG") or "/etc/minicloud/minicloud.yaml"
    ctx.obj = Settings(path, socket_path)
