"""From the words of `minicloud api ACTION --param value …` to the JSON that the daemon takes, by its shape.

Owns how values are written: text, numbers, true and false, JSON, shorthand, `@FILE`, `file://FILE`, `fileb://FILE`.
Refuses to check values: the daemon does, and says it in EC2's words. Raises click.UsageError for what cannot be read.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from minicloud.cli.shorthand import ShorthandError, parse_shorthand

Shape = dict[str, Any]

_NUMBERS: dict[str, Callable[[str], float]] = {"integer": int, "long": int, "float": float, "double": float}


@dataclass
class Option:
    """`--name value …`, as it was written."""

    name: str
    values: list[str] = field(default_factory=list)


def split_words(words: Sequence[str]) -> tuple[list[str], list[Option]]:
    """Return the words before the first option, and the options."""
    leading: list[str] = []
    options: list[Option] = []
    for word in words:
        if word == "-h":
            options.append(Option("help"))
        elif word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            options.append(Option(name, [value] if equals else []))
        elif options:
            options[-1].values.append(word)
        else:
            leading.append(word)
    return leading, options


def parse_options(options: Sequence[Option], shape: Shape) -> dict[str, Any]:
    """Return the parameters that options mean for an input of this shape."""
    parameters: dict[str, Any] = {}
    for option in options:
        name, negated = _find_option(option, shape["Members"])
        if name in parameters:
            raise click.UsageError(f"--{option.name} is given twice.")
        below = shape["Members"][name]
        if negated:
            _take_none(option)
            parameters[name] = False
        elif not option.values and below["Type"] == "boolean":
            parameters[name] = True
        else:
            parameters[name] = _parse_values(option, below)
    return parameters


def read_json_object(text: str, where: str) -> dict[str, Any]:
    """Return a JSON object from an option's text, a file (`@FILE`, `file://FILE`) or standard input (`-`)."""
    if text == "-":
        text = sys.stdin.read()
    document = _parse_json(_read_file(text, where), where)
    if not isinstance(document, dict):
        raise click.UsageError(f"{where}: must be a JSON object.")
    return document


def kebab(name: str) -> str:
    """Return a member's name as options are written: InstanceIds is instance-ids."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def _fold(name: str) -> str:
    return name.replace("-", "").replace("_", "").casefold()


def _find_option(option: Option, members: dict[str, Shape]) -> tuple[str, bool]:
    folded = {_fold(name): name for name in members}
    wanted = _fold(option.name)
    if wanted in folded:
        return folded[wanted], False
    negated = folded.get(wanted.removeprefix("no"))
    if option.name.startswith("no-") and negated is not None and members[negated]["Type"] == "boolean":
        return negated, True
    close = [f"--{kebab(folded[one])}" for one in difflib.get_close_matches(wanted, folded, 3)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise click.UsageError(f"There is no parameter --{option.name}.{hint}")


def _take_none(option: Option) -> None:
    if option.values:
        raise click.UsageError(f"--{option.name} takes no value.")


def _parse_values(option: Option, shape: Shape) -> Any:
    where = f"--{option.name}"
    if not option.values:
        raise click.UsageError(f"{where} needs a value.")
    if shape["Type"] == "list":
        if len(option.values) == 1:
            text = _read_file(option.values[0], where)
            if text.lstrip().startswith("["):
                return _parse_json(text, where)
        return [_parse_word(word, shape["Element"], where) for word in option.values]
    if len(option.values) > 1:
        raise click.UsageError(f"{where} takes one value, not {len(option.values)}.")
    return _parse_word(option.values[0], shape, where)


def _parse_word(word: str, shape: Shape, where: str) -> Any:
    text = _read_file(word, where)
    if shape["Type"] not in ("structure", "map", "list", "json"):
        return _convert(text, shape, where)
    if shape["Type"] == "json" or text.lstrip().startswith(("{", "[")):
        return _parse_json(text, where)
    try:
        return _convert(parse_shorthand(text), shape, where)
    except ShorthandError as error:
        raise click.UsageError(f"{where}: {error}; write NAME=VALUE,NAME=VALUE or JSON.") from None


def _convert(value: Any, shape: Shape, where: str) -> Any:
    """Make of shorthand's texts, lists and mappings what the shape wants."""
    kind = shape["Type"]
    if kind == "list":
        items = value if isinstance(value, list) else [value]
        return [_convert(one, shape["Element"], where) for one in items]
    if kind == "structure":
        if not isinstance(value, dict):
            raise click.UsageError(f"{where}: needs NAME=VALUE, not {value!r}.")
        return dict(_convert_member(name, one, shape["Members"], where) for name, one in value.items())
    if kind == "map":
        if not isinstance(value, dict):
            raise click.UsageError(f"{where}: needs KEY=VALUE, not {value!r}.")
        return {name: _convert(one, shape["Value"], f"{where} {name}") for name, one in value.items()}
    if kind == "json":
        return value
    if not isinstance(value, str):
        raise click.UsageError(f"{where}: takes one {kind}, not {value!r}.")
    return _convert_scalar(value, kind, where)


def _convert_member(name: str, value: Any, members: dict[str, Shape], where: str) -> tuple[str, Any]:
    found = next((known for known in members if _fold(known) == _fold(name)), None)
    if found is None:
        raise click.UsageError(f"{where}: has no {name}; it has {', '.join(members)}.")
    return found, _convert(value, members[found], f"{where} {found}")


def _convert_scalar(text: str, kind: str, where: str) -> Any:
    if kind == "boolean":
        if text.lower() not in ("true", "false"):
            raise click.UsageError(f"{where}: must be true or false, not {text!r}.")
        return text.lower() == "true"
    number = _NUMBERS.get(kind)
    if number is None:
        return text
    try:
        return number(text)
    except ValueError:
        raise click.UsageError(f"{where}: must be a number, not {text!r}.") from None


def _read_file(text: str, where: str) -> str:
    """Return what the text names, or the text. Bytes (`fileb://`) become base64, which is how JSON carries them."""
    for prefix in ("file://", "fileb://", "@"):
        if text.startswith(prefix):
            break
    else:
        return text
    try:
        content = Path(text.removeprefix(prefix)).expanduser().read_bytes()
        return base64.b64encode(content).decode() if prefix == "fileb://" else content.decode()
    except OSError as error:
        raise click.UsageError(f"{where}: {text}: {error.strerror}.") from None
    except ValueError:
        raise click.UsageError(f"{where}: {text} is not text; fileb:// sends bytes as base64.") from None


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{where}: is not JSON: {error}") from None
