"""What the verbs of the command line share: options, exit codes, the settings, and printing for programs.

The adapters are imported when a verb runs: the others must not pay for them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from vectide.settings import Settings

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
EXIT_FATAL: Final = 70

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Time limit of each call.")
]


def settings_now() -> Settings:
    """The settings of this process's environment. Raises SettingsError."""
    from vectide.settings import load

    return load(os.environ)


def print_json(value: Any) -> None:
    """One value, for people to read too."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def json_line(value: Any) -> str:
    """One value on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def print_lines(values: Iterable[Any]) -> None:
    """One value on each line."""
    for value in values:
        typer.echo(json_line(value))
