"""How the command line shows things: to people with rich, to programs as plain values for JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import yaml
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:  # listing the variables shall not load the rest
    from vectide.app_inspect import Preview, Result
    from vectide.ports import Hit
    from vectide.settings import VariableDoc

_STYLES: Final = {
    "ok": "green",
    "failed": "bold red",
    "skipped": "yellow",
    "skip": "dim",
    "embed": "bold green",
    "patch": "cyan",
    "remove": "magenta",
    "reread": "yellow",
    "dead_letter": "bold red",
    "halt": "bold red",
}


class _Yaml(yaml.SafeDumper):
    """Texts of several lines as blocks, as people write them."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Yaml.add_representer(str, _Yaml.represent_str)


def say(*lines: Text | str, indent: int = 0) -> None:
    """Lines on standard output; a line is never broken, so that programs can read it too."""
    console = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        text = line if isinstance(line, Text) else Text(line)
        for part in text.split("\n", allow_blank=True):
            console.print(Text(" " * indent) + part if part else "", soft_wrap=True)


def clean(text: str) -> str:
    """Text as a terminal may be shown it: the content of rows must not command it."""
    shown = text.replace("\r\n", "\n")
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in shown)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# --- configuration --------------------------------------------------------------------------------------


def configuration(effective: Mapping[str, Any]) -> None:
    """What is in force, as YAML."""
    plain = json.loads(_json(effective))
    say(yaml.dump(plain, Dumper=_Yaml, sort_keys=False, allow_unicode=True, width=100).rstrip())


def variables(documented: Sequence[VariableDoc]) -> None:
    """Every variable: name, type, default, meaning."""
    for variable in documented:
        traits = [variable.type]
        if variable.required:
            traits.append("required")
        elif variable.default is not None:
            traits.append(f"default {variable.default}")
        if variable.secret:
            traits.append(f"secret, or its file in {variable.name}_FILE")
        say(Text.assemble((variable.name, "bold"), "  ", (", ".join(traits), "cyan")))
        say(variable.meaning, indent=4)


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


def result(found: Result) -> None:
    """One check, as soon as it is done."""
    verdict = found.verdict.value
    line = Text.assemble((f"{verdict:<9}", _STYLES[verdict]), f"{found.name:<13} ", clean(found.detail))
    say(line)
    if found.advice:
        say(f"-> {found.advice}", indent=23)


def summary(results: Sequence[Result], failed: int) -> None:
    """The last line of a check."""
    if failed:
        say(Text(f"{failed} of {len(results)} checks failed.", "bold red"))
    else:
        say(Text(f"All {len(results)} checks passed.", "bold green"))


def plain_results(results: Sequence[Result]) -> list[dict[str, str]]:
    """The checks for JSON."""
    return [
        {"name": one.name, "result": one.verdict.value, "detail": one.detail, "advice": one.advice}
        for one in results
    ]


# --- preview --------------------------------------------------------------------------------------------


def previews(found: Iterable[Preview]) -> None:
    """Each record as it is decided, then how many of each kind. Why a table halts is told once."""
    counts: Counter[str] = Counter()
    tokens = 0
    halts: set[tuple[str, str]] = set()
    for one in found:
        counts[one.decision.value] += 1
        tokens += one.tokens
        say(_headline(one))
        if (one.table, one.detail) not in halts:
            say(*_body(one), indent=4)
        if one.decision.value == "halt":
            halts.add((one.table, one.detail))
    each = ", ".join(f"{count} {decision}" for decision, count in counts.items())
    total = f"{counts.total()} records: {each}; {tokens} tokens to embed." if counts else "No records."
    say(Text(total, "bold"))


def preview_lines(one: Preview, *, content: bool = True) -> Iterator[Text]:
    """One record, without its place; the content of its row only if wanted."""
    line = Text(one.decision.value, _STYLES[one.decision.value])
    line.append(f" {one.reason}" if one.reason else "")
    yield line.append(f"  {one.tokens} tokens" if one.tokens else "", "dim")
    if content:
        yield from _body(one)
    elif one.detail:
        yield Text(clean(one.detail), "red")


def _headline(one: Preview) -> Text:
    line = Text(one.record.where + "  ")
    line.append(one.decision.value, _STYLES[one.decision.value])
    if one.reason:
        line.append(f" {one.reason}")
    if one.row is not None:
        line.append(f"  {one.table} {clean(one.row.key)}")
    if one.tokens:
        line.append(f"  {one.tokens} tokens", "dim")
    return line


def _body(one: Preview) -> Iterator[Text]:
    if one.detail:
        yield Text(clean(one.detail), "red")
    if one.points:
        yield Text(f"id        {' '.join(one.points)}", "dim")
    if one.metadata:
        yield Text.assemble(("metadata  ", "dim"), clean(_json(one.metadata)))
    if one.keep:
        yield Text(f"keeps     {', '.join(sorted(one.keep))} (unavailable in the event)", "dim")
    for text in one.texts:
        if one.chunks is not None:
            yield Text(f"chunk {text.chunk} of {one.chunks}, {text.tokens} tokens", "dim")
        yield Text.assemble(("text      ", "dim"), clean(text.text).replace("\n", "\n          "))
    if one.chunks is not None and len(one.texts) < one.chunks:
        yield Text(f"{one.chunks - len(one.texts)} of {one.chunks} chunks keep their vector", "dim")
    if one.gone:
        yield Text(f"removes   {' '.join(one.gone)}", "dim")


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
        "texts": [
            {"id": text.point, "chunk": text.chunk, "text": text.text, "tokens": text.tokens}
            for text in one.texts
        ],
        "chunks": one.chunks,
        "removed": list(one.gone),
        "tokens": one.tokens,
        "metadata": dict(one.metadata),
        "keep": sorted(one.keep),
    }


def comparison(kept: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> int:
    """Show where two lists of :func:`plain_preview` differ, record by record. Returns how many do."""
    before, after = _by_place(kept), _by_place(found)
    changed = 0
    for place in dict.fromkeys([*before, *after]):
        lines = list(_changes(before.get(place, {}), after.get(place, {})))
        if lines:
            changed += 1
            say(Text(place, "bold"))
            say(*lines, indent=4)
    if changed:
        say(Text(f"{changed} of {len(after)} previews differ from the file.", "bold red"))
    else:
        say(Text(f"{len(after)} previews are as in the file.", "green"))
    return changed


def _by_place(lines: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {f"{line.get('topic')}[{line.get('partition')}]@{line.get('offset')}": line for line in lines}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Text]:
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) == after.get(name):
            continue
        if name in before:
            yield Text(f"- {name}: {clean(_json(before[name]))}", "red")
        if name in after:
            yield Text(f"+ {name}: {clean(_json(after[name]))}", "green")


# --- search ---------------------------------------------------------------------------------------------


def hits(found: Sequence[Hit]) -> None:
    """The rows found, the most similar first; which chunk of them it was is shown where rows have several."""
    cut = any(hit.chunk for hit in found)
    for hit in found:
        chunk = f"  chunk {hit.chunk}" if cut else ""
        where = f"  {hit.row.table} {clean(hit.row.key)}{chunk}"
        say(Text.assemble((f"{hit.score:.4f}", "bold green"), where))
        if hit.metadata:
            say(Text(clean(_json(hit.metadata)), "dim"), indent=4)
        if hit.text is not None:
            say(clean(hit.text), indent=4)
    if not found:
        say("Nothing found.")


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
