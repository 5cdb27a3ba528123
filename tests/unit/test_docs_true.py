"""What the pages name exists: commands with their options, variables, metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from scripts.cli_page import PROGRAM, commands

from vectide import cli
from vectide.core import signals
from vectide.settings import describe

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "reference" not in path.parts
}
#: Made by the rules of the chart, and of other programs.
OTHER_METRICS = {"vectide_scalable_lag_records"}


def code(text: str) -> Iterator[str]:
    """The lines of code blocks, and what stands in backquotes."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def calls(text: str) -> Iterator[str]:
    """Calls of the command, also behind a prompt or what runs it elsewhere."""
    for line in code(text):
        if found := re.search(r"(?:^|^\$ |-- |exec vectide )vectide ([a-z][^#|>&]*)", line):
            yield found[1]


def wrong(call: str) -> Iterator[str]:
    """What of a call there is not."""
    root: Any = typer.main.get_command(cli.app)
    known = {path.removeprefix(f"{PROGRAM} "): command for path, command in commands(root, PROGRAM)}
    words = call.split()
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in known), None)
    if name is None:
        yield f"vectide {call}: there is no such command"
        return
    options = {"--help", *(option for parameter in known[name].params for option in parameter.opts)}
    options |= {option for parameter in known[name].params for option in parameter.secondary_opts}
    for option in re.findall(r"(?<!\S)--[a-z-]+", call):
        if option not in options:
            yield f"vectide {call}: {name} has no {option}"


def test_every_command_and_option_in_the_pages_exists() -> None:
    found = [(page, call) for page, text in PAGES.items() for call in calls(text)]
    assert len(found) > 30
    assert [(page, problem) for page, call in found for problem in wrong(call)] == []
    assert list(wrong("serve --all")) == ["vectide serve --all: there is no such command"]
    assert list(wrong("dlq list --everything")) == [
        "vectide dlq list --everything: dlq list has no --everything"
    ]


def test_every_variable_in_the_pages_exists() -> None:
    known = {variable.name for variable in describe()}
    known |= {f"{variable.name}_FILE" for variable in describe() if variable.secret} | {"VECTIDE_TABLES_FILE"}
    named = {name for text in PAGES.values() for name in re.findall(r"\bVECTIDE_[A-Z_]*[A-Z]\b", text)}
    assert len(named) > 30
    assert named - known == set()


def test_every_metric_in_the_pages_exists() -> None:
    known = set(OTHER_METRICS)
    for metric in signals.CATALOGUE.values():
        known.add(metric.name)
        if metric.kind == "histogram":
            known |= {f"{metric.name}_{suffix}" for suffix in ("bucket", "sum", "count")}
    ends = {metric.name.rpartition("_")[2] for metric in signals.CATALOGUE.values()} | {"sum", "count"}
    named = {
        name
        for text in PAGES.values()
        for line in code(text)
        for name in re.findall(r"\bvectide_[a-z_]+\b", line)
    }
    named = {name for name in named if name.rpartition("_")[2] in ends}
    assert len(named) > 8
    assert named - known == set()
