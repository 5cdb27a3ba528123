"""The reference of the command line, made from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

import typer.main

from vectide import cli

PROGRAM: Final = "vectide"


def cli_page(notice: str) -> str:
    """Every command with its arguments and options."""
    root: Any = typer.main.get_command(cli.app)
    lines = [notice, "# Command line", "", _paragraphs(root.help), ""]
    lines += ["| command | what it does |", "|---|---|"]
    commands = list(_commands(root, PROGRAM))
    lines += [f"| [`{path}`](#{_anchor(path)}) | {_first_sentence(command)} |" for path, command in commands]
    for path, command in commands:
        lines += ["", f"## {path}", "", *_describe(path, command)]
    return "\n".join(lines) + "\n"


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _describe(path: str, command: Any) -> Iterator[str]:
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option" and param.name != "help"]
    usage = [path, *(["[OPTIONS]"] if options else []), *map(_placeholder, arguments)]
    yield f"    {' '.join(usage)}"
    yield ""
    yield _paragraphs(command.help)
    rows = [(_placeholder(param), param) for param in arguments] + [(_names(param), param) for param in options]
    if rows:
        yield from ("", "| | | default |", "|---|---|---|")
        yield from (f"| `{name}` | {_cell(_help(param))} | {_default(param)} |" for name, param in rows)


def _placeholder(param: Any) -> str:
    name = str(param.human_readable_name).upper()
    return name if param.required else f"[{name}]"


def _names(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {_kind(option)}"


def _kind(option: Any) -> str:
    choices = getattr(option.type, "choices", None)
    if choices:
        return "|".join(getattr(choice, "value", str(choice)) for choice in choices)
    return str(option.metavar or option.type.name).upper()


def _default(param: Any) -> str:
    value = param.default
    if param.required:
        return "**required**"
    if value is None or callable(value) or value in (False, (), [], ""):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def _help(param: Any) -> str:
    return str(getattr(param, "help", None) or "")


def _first_sentence(command: Any) -> str:
    return _cell(_paragraphs(command.help).partition("\n\n")[0].partition(". ")[0].rstrip(".") + ".")


def _paragraphs(text: str | None) -> str:
    return inspect.cleandoc((text or "").replace("\b", "").replace("\f", ""))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _anchor(path: str) -> str:
    return path.replace(" ", "-")
