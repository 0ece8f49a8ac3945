"""`minicloud api …`: any operation of the daemon's table, by its AWS name, without keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from minicloud.cli.arguments import Option, kebab, parse_options, read_json_object, split_words
from minicloud.cli.output import print_json, print_table

TIMEOUT_SECONDS = 300.0
OPERATORS = "minicloud"
MAX_ENUM_WIDTH = 30
OWN_OPTIONS = ("all", "help", "json", "list", "unserved")


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
    options_metavar="",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SERVICE] ACTION [--PARAMETER VALUE…]…")
@click.pass_context
def api(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Call any action of the API and print its answer as JSON.

    \b
    minicloud api DescribeInstances --filters Name=instance-state-name,Values=running --max-results 5
    minicloud api TerminateInstances --instance-ids i-0123456789abcdef0 i-0fedcba9876543210
    minicloud api sts GetCallerIdentity

    Names are AWS's, or as AWS's command line writes them: --InstanceIds is --instance-ids. Values are text, JSON, or
    Name=VALUE,… for structures; @FILE and file://FILE read a file, fileb://FILE sends one as base64.

    \b
    --json JSON|@FILE|-           the whole input, or what of it no other option gives; - is standard input
    --all                         follow NextToken to the last page
    --list [SERVICE] [--unserved] list the actions and how far each is supported (or those that are not served)
    ACTION --help                 list an action's parameters: type, and whether honoured, accepted or refused
    """
    leading, options = split_words(words)
    own = {option.name: option for option in options if option.name in OWN_OPTIONS}
    given = [option for option in options if option.name not in OWN_OPTIONS]
    if "list" in own:
        _list(ctx.obj, [*leading, *own["list"].values], "unserved" in own, "json" in own)
        return
    if not leading and ("help" in own or not words):
        click.echo(ctx.get_help())
        return
    if not 1 <= len(leading) <= 2:
        raise click.UsageError("Name one action, or a service and its action.")
    service, action = leading if len(leading) == 2 else (None, leading[0])
    door = ctx.obj.door(TIMEOUT_SECONDS)
    if service == OPERATORS:
        if given:
            raise click.UsageError("The daemon's own operations take their parameters by --json.")
        print_json(door.call(OPERATORS, action, _whole_input(own)))
        return
    described = door.minicloud("DescribeOperation", Operation=action, Service=service)
    if "help" in own:
        _help(described)
        return
    parameters = {**_whole_input(own), **parse_options(given, described["Input"])}
    print_json(_call(door, described, parameters, "all" in own))


def _whole_input(own: dict[str, Option]) -> dict[str, Any]:
    for name in ("all", "unserved"):
        if name in own and own[name].values:
            raise click.UsageError(f"--{name} takes no value.")
    if "json" not in own:
        return {}
    if len(own["json"].values) != 1:
        raise click.UsageError("--json takes one value: a JSON object, @FILE, or - for standard input.")
    return read_json_object(own["json"].values[0], "--json")


def _call(door: Any, described: dict[str, Any], parameters: dict[str, Any], all_pages: bool) -> dict[str, Any]:
    answer: dict[str, Any] = door.call(described["Service"], described["Operation"], parameters)
    seen = set()
    while all_pages and (token := answer.get("NextToken")):
        if token in seen:
            raise click.ClickException("the daemon gave the same page twice.")
        seen.add(token)
        page = door.call(described["Service"], described["Operation"], {**parameters, "NextToken": token})
        for name, value in page.items():
            if isinstance(value, list):
                page[name] = [*answer.get(name, []), *value]
        answer = page
    return answer


def _list(settings: Any, words: list[str], unserved: bool, as_json: bool) -> None:
    if len(words) > 1:
        raise click.UsageError("--list takes one service at most.")
    services = settings.door().minicloud("ListOperations", Service=words[0] if words else None)["Services"]
    if as_json:
        print_json(services)
        return
    rows = [(one["Service"], operation) for one in services for operation in one["Operations"]]
    if unserved:
        for service, operation in rows:
            if not operation["Served"]:
                click.echo(f"{service} {operation['Operation']}")
        return
    served = [(service, operation) for service, operation in rows if operation["Served"]]
    print_table(
        ("SERVICE", "ACTION", "HONOURED", "ACCEPTED", "REFUSED"),
        [(service, one["Operation"], one["Honoured"], one["Accepted"], one["Refused"]) for service, one in served],
        "No actions.",
    )
    click.echo(f"{len(served)} of {len(rows)} actions are served; the rest: --list --unserved.", err=True)


def _help(described: dict[str, Any]) -> None:
    click.echo(f"{described['Service']} {described['Operation']}")
    rows = list(_help_rows(described["Input"]))
    print_table(("PARAMETER", "TYPE", "REQUIRED", "SUPPORT"), rows, "It has no parameters.")
    if "FilterNames" in described:
        names = click.wrap_text(", ".join(described["FilterNames"]), 110, "    ", "    ")
        click.echo(f"\nFilters:\n{names}")
    if "MaxResults" in described:
        bounds = described["MaxResults"]
        click.echo(f"\nPages: --max-results from {bounds['Minimum']} to {bounds['Maximum']}; --all follows them.")


def _help_rows(shape: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for name, member in shape["Members"].items():
        yield f"--{kebab(name)}", _type(member), "yes" if member.get("Required") else "", _support(_inner(member))
        yield from _below(_inner(member), "")


def _below(shape: dict[str, Any], path: str) -> Iterator[tuple[str, str, str, str]]:
    for name, member in shape.get("Members", {}).items():
        at = f"{path}.{name}" if path else name
        inner = _inner(member)
        if "Members" in inner:
            yield from _below(inner, at)
        else:
            yield f"    {at}", _type(member), "yes" if member.get("Required") else "", _support(inner)


def _inner(shape: dict[str, Any]) -> dict[str, Any]:
    while shape["Type"] == "list":
        shape = shape["Element"]
    return shape


def _type(shape: dict[str, Any]) -> str:
    inner = _inner(shape)
    values = "|".join(inner.get("Enum", []))
    kind = values if 0 < len(values) <= MAX_ENUM_WIDTH else inner["Type"]
    return f"list of {kind}" if shape["Type"] == "list" else str(kind)


def _support(shape: dict[str, Any]) -> str:
    values = shape.get("Values", [])
    shown = ", ".join(one if isinstance(one, str) else str(one).lower() for one in values)
    support = str(shape.get("Support", ""))
    return f"accepted: {shown or 'any'}" if support == "accepted" else support
