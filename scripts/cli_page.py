"""The reference of the command line, made from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

import typer.main

from vectide import cli

PROGRAM: Final = "vectide"

#: How typer names a type -> how the page does.
_KINDS: Final = {"bool": "", "float": "NUMBER", "int": "INTEGER", "path": "PATH", "str": "TEXT"}
_TYPER_KIND: Final = re.compile(r"<(?:list\[)?(\w+)[^>]*>")


def cli_page(notice: str) -> str:
    """Every command with its arguments and options."""
    root: Any = typer.main.get_command(cli.app)
    found = list(commands(root, PROGRAM))
    lines = [notice, "# Command line", "", _text(root.help), "", _text(root.epilog), ""]
    lines += ["| command | what it does |", "| --- | --- |"]
    lines += [f"| [`{path}`](#{path.replace(' ', '-')}) | {_summary(command)} |" for path, command in found]
    for path, command in found:
        lines += ["", f"## {path}", "", *_described(path, command)]
    return "\n".join(lines) + "\n"


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command below a group, with how it is called."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _described(path: str, command: Any) -> Iterator[str]:
    context = typer.Context(command)
    shown = [parameter for parameter in command.params if not parameter.hidden]
    records = [parameter.get_help_record(context) for parameter in shown]
    usage = [path, *(_kind(p) for p in shown if p.param_type_name == "argument")]
    yield f"    {' '.join(usage)}{' [OPTIONS]' if any(p.param_type_name == 'option' for p in shown) else ''}"
    yield ""
    yield _text(command.help)
    if records:
        yield from ("", "| parameter | meaning |", "| --- | --- |")
    for parameter, (name, meaning) in zip(shown, records, strict=True):
        label = (
            _kind(parameter) if parameter.param_type_name == "argument" else _TYPER_KIND.sub(_renamed, name)
        )
        yield f"| `{label}` | {_cell(meaning)} |"


def _renamed(match: re.Match[str]) -> str:
    return _KINDS.get(match[1], match[1].upper())


def _kind(argument: Any) -> str:
    name = str(argument.metavar or argument.name).upper()
    return name if argument.required else f"[{name}]"


def _summary(command: Any) -> str:
    return _cell(_text(command.help).partition("\n\n")[0].partition(". ")[0].rstrip(".") + ".")


def _text(text: str | None) -> str:
    return inspect.cleandoc((text or "").replace("\b", "").replace("\f", ""))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
