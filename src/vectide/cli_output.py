"""How the command line shows things: to people with rich, to programs as plain values for JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import yaml
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from vectide.jobs.check import Result, Verdict
from vectide.jobs.preview import Decision, Preview, tally
from vectide.ports import Hit
from vectide.settings import VariableDoc

#: Hears nothing.
NOTHING: Final[Callable[[object], None]] = lambda _: None  # noqa: E731

_VERDICT_STYLES: Final = {Verdict.OK: "green", Verdict.FAILED: "bold red", Verdict.SKIPPED: "yellow"}
_DECISION_STYLES: Final = {
    Decision.SKIP: "dim",
    Decision.EMBED: "bold green",
    Decision.PATCH: "cyan",
    Decision.REMOVE: "magenta",
    Decision.DEAD_LETTER: "bold red",
    Decision.HALT: "bold red",
}


def _console() -> Console:
    """Standard output. Away from a terminal lines are not broken: programs and logs read them."""
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 10_000
    return Console(width=wide, highlight=False, markup=False, emoji=False)


def _clean(text: str) -> str:
    """Text as a terminal may be shown it: content of rows must not command it."""
    return "".join(
        char if char.isprintable() or char == "\n" else repr(char)[1:-1]
        for char in text.replace("\r\n", "\n")
    )


def _below(content: RenderableType, indent: int = 4) -> Padding:
    return Padding(content, (0, 0, 0, indent), expand=False)


# --- configuration --------------------------------------------------------------------------------------


def configuration(effective: Mapping[str, Any]) -> None:
    """What is in force, as YAML."""
    plain = json.loads(json.dumps(effective, default=str))
    _console().print(
        yaml.safe_dump(
            plain, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100
        ).rstrip()
    )


def variables(documented: Sequence[VariableDoc]) -> None:
    """Every variable: name, type, default, meaning."""
    console = _console()
    for variable in documented:
        traits = [variable.type]
        if variable.required:
            traits.append("required")
        elif variable.default is not None:
            traits.append(f"default {variable.default}")
        if variable.secret:
            traits.append(f"secret, or its file in {variable.name}_FILE")
        console.print(Text.assemble((variable.name, "bold"), "  ", (", ".join(traits), "cyan")))
        console.print(_below(Text(variable.meaning)))


def plain_variables(documented: Sequence[VariableDoc]) -> list[dict[str, Any]]:
    """The variables for JSON."""
    return [
        {
            "name": variable.name,
            "type": variable.type,
            "default": variable.default,
            "required": variable.required,
            "secret": variable.secret,
            "meaning": variable.meaning,
        }
        for variable in documented
    ]


# --- check ----------------------------------------------------------------------------------------------


def check_told(result: Result) -> None:
    """One result, as soon as it is there."""
    line = Text.assemble(
        (f"{result.verdict.value:<8}", _VERDICT_STYLES[result.verdict]), f"{result.name:<14}"
    )
    console = _console()
    console.print(line.append(_clean(result.detail)), soft_wrap=True)
    if result.advice:
        console.print(Text(" " * 22 + "-> " + result.advice), soft_wrap=True)


def check_summary(results: Sequence[Result]) -> None:
    """The last line."""
    failed = failures(results)
    if failed:
        _console().print(Text(f"\n{len(failed)} of {len(results)} checks failed.", "bold red"))
    else:
        _console().print(Text(f"\nAll {len(results)} checks passed.", "bold green"))


def failures(results: Sequence[Result]) -> list[Result]:
    """Those that failed."""
    return [result for result in results if result.verdict is Verdict.FAILED]


def plain(results: Sequence[Result]) -> list[dict[str, str]]:
    """The results for JSON."""
    return [
        {
            "name": result.name,
            "result": result.verdict.value,
            "detail": result.detail,
            "advice": result.advice,
        }
        for result in results
    ]


# --- preview --------------------------------------------------------------------------------------------


def previews(found: Iterable[Preview]) -> None:
    """Each record as it is decided, then how many of each kind."""
    console = _console()
    seen: list[Preview] = []
    for one in found:
        seen.append(one)
        console.print(_headline(one), soft_wrap=True)
        body = list(_body(one))
        if body:
            console.print(_below(Group(*body)))
    counts = ", ".join(f"{count} {decision}" for decision, count in tally(seen).items())
    tokens = sum(one.tokens for one in seen)
    console.print(Text(f"\n{len(seen)} records: {counts or 'nothing to decide'}; {tokens} tokens to embed."))


def _headline(one: Preview) -> Text:
    line = Text(one.record.where + "  ")
    line.append(one.decision.value, _DECISION_STYLES[one.decision])
    if one.reason:
        line.append(f" {one.reason}")
    if one.row is not None:
        line.append(f"  {one.table} {_clean(one.row.key)}")
    if one.tokens:
        line.append(f"  {one.tokens} tokens", "dim")
    return line


def _body(one: Preview) -> Iterable[RenderableType]:
    if one.detail:
        yield Text(_clean(one.detail), "red")
    if one.points:
        yield Text(f"id        {' '.join(one.points)}", "dim")
    for text in one.texts:
        yield Text.assemble(("text\n", "dim"), "  " + _clean(text.text).replace("\n", "\n  "))
    if one.metadata:
        yield Text.assemble(("metadata  ", "dim"), _clean(json.dumps(one.metadata, ensure_ascii=False)))
    if one.keep:
        yield Text(f"keeps     {', '.join(sorted(one.keep))} (unavailable in the event)", "dim")


def plain_preview(one: Preview) -> dict[str, Any]:
    """One record for JSON."""
    record = one.record
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "table": one.table or None,
        "collection": one.collection or None,
        "key": None if one.row is None else json.loads(one.row.key),
        "decision": one.decision.value,
        "reason": one.reason or None,
        "detail": one.detail or None,
        "points": list(one.points),
        "texts": [{"id": text.point, "text": text.text, "tokens": text.tokens} for text in one.texts],
        "tokens": one.tokens,
        "metadata": dict(one.metadata),
        "keep": sorted(one.keep),
    }


# --- search ---------------------------------------------------------------------------------------------


def hits(found: Sequence[Hit]) -> None:
    """The rows found, the most similar first."""
    console = _console()
    for hit in found:
        line = Text.assemble((f"{hit.score:.4f}", "bold green"), f"  {hit.row.table} {_clean(hit.row.key)}")
        console.print(line if hit.chunk == 0 else line.append(f" chunk {hit.chunk}"), soft_wrap=True)
        if hit.text is not None:
            console.print(_below(Text(_clean(hit.text))))
        if hit.metadata:
            console.print(_below(Text(_clean(json.dumps(hit.metadata, ensure_ascii=False)), "dim")))
    if not found:
        console.print("Nothing found.")


def plain_hit(hit: Hit) -> dict[str, Any]:
    """One hit for JSON."""
    return {
        "score": hit.score,
        "table": hit.row.table,
        "key": json.loads(hit.row.key),
        "chunk": hit.chunk,
        "text": hit.text,
        "metadata": dict(hit.metadata),
    }
