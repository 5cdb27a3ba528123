"""How ``vectide dlq`` and ``vectide topics`` show what they found."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from vectide.cli_output import clean, plain_preview, preview_lines, say

if TYPE_CHECKING:
    from vectide.app_letters import DeadLetter, Found, Listed, Shown
    from vectide.app_replay import Candidate, Replayed
    from vectide.app_topics import Needs, TopicState


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns under each other; the last one as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _time(ms: int | None) -> str:
    if ms is None or ms < 0:
        return "-"
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- list -----------------------------------------------------------------------------------------------


def letters(found: Found, *, keys: bool) -> None:
    """A line for each letter, then how many there are of each cause."""
    if found.letters:
        heading = ("LETTER", "FAILED", "RECORD", "TABLE", "KEY", "TRIED", "CAUSE", "DETAIL")
        first, *lines = _aligned([heading, *(_row(one, keys=keys) for one in found.letters)])
        say(Text(first, "dim"), *lines)
    each = ", ".join(f"{count} {clean(cause)}" for cause, count in found.causes.items())
    total = f"{found.total} dead letters: {each}." if found.total else "No dead letters."
    if len(found.letters) < found.total:
        total += f" The newest {len(found.letters)} are shown."
    say(Text(total, "bold"))
    if found.strangers:
        say(f"{found.strangers} records of the topic are no dead letters of vectide.")


def _row(one: Listed, *, keys: bool) -> Sequence[str]:
    letter = one.letter
    cells = (
        f"{letter.at.partition}@{letter.at.offset}",
        _time(letter.failed_ms),
        str(letter.source),
        letter.table or "-",
        one.key_text if keys else f"#{letter.key_hash}",
        str(letter.attempts),
        f"{letter.cause} ({letter.stage})",
        letter.detail,
    )
    return [clean(cell).replace("\n", " ") for cell in cells]


def plain_letter(one: Listed, *, keys: bool) -> dict[str, Any]:
    """One letter for JSON, without content."""
    plain = _plain(one.letter)
    if keys:
        plain["key"] = one.key
    return plain


def _plain(letter: DeadLetter) -> dict[str, Any]:
    return {
        "letter": {"partition": letter.at.partition, "offset": letter.at.offset},
        "topic": letter.record.topic,
        "partition": letter.record.partition,
        "offset": letter.record.offset,
        "timestamp": None if letter.record.timestamp_ms < 0 else letter.record.timestamp_ms,
        "table": letter.table or None,
        "key_hash": letter.key_hash,
        "cause": letter.cause,
        "stage": letter.stage,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "failed_at": None if letter.failed_ms is None else _time(letter.failed_ms),
        "truncated": letter.truncated,
        "version": letter.version,
        "log": letter.log or None,
    }


# --- show -----------------------------------------------------------------------------------------------


def shown(one: Shown, *, content: bool) -> None:
    """The letter, its record, and what would become of it now."""
    letter = one.letter
    facts = {
        "letter": str(letter.at),
        "record": f"{letter.source}, {_time(letter.record.timestamp_ms)}",
        "table": letter.table or "-",
        "cause": f"{letter.cause} ({letter.stage})",
        "detail": letter.detail,
        "tried": str(letter.attempts),
        "failed": f"{_time(letter.failed_ms)}, vectide {letter.version or 'of an unknown version'}",
        "log": letter.log or "not known",
    }
    if one.same:
        facts["also"] = ", ".join(map(str, one.same))
    if one.recreated:
        facts["beware"] = f"{letter.record.topic} was created again since: its offsets mean other records now"
    if one.lost:
        facts["beware"] = one.lost
    record = one.record or letter.record
    if content:
        facts["key"] = _bytes(record.key)
        facts |= {f"header {name}": _bytes(value) for name, value in record.headers}
        facts["value"] = "(not in the letter)" if one.record is None else _bytes(record.value)
    else:
        facts["key"] = f"#{letter.key_hash}"
    width = max(map(len, facts))
    for name, text in facts.items():
        first, *rest = clean(text).split("\n")
        say(Text.assemble((f"{name:<{width}}  ", "dim"), first))
        say(*rest, indent=width + 2)
    if one.preview is not None:
        say(Text("now", "dim"))
        say(*preview_lines(one.preview, content=content), indent=4)


def plain_shown(one: Shown, *, content: bool) -> dict[str, Any]:
    """The letter for JSON."""
    plain = _plain(one.letter)
    plain["also"] = [{"partition": place.partition, "offset": place.offset} for place in one.same]
    plain["recreated"] = one.recreated
    plain["lost"] = one.lost or None
    if content:
        record = one.record or one.letter.record
        plain["key"] = _plain_bytes(record.key)
        plain["headers"] = [[name, _plain_bytes(value)] for name, value in record.headers]
        plain["value"] = None if one.record is None else _plain_bytes(record.value)
    if one.preview is not None:
        now = plain_preview(one.preview)
        if not content:
            now = {name: now[name] for name in ("table", "decision", "reason", "detail", "tokens")}
        plain["now"] = now
    return plain


def _bytes(value: bytes | None) -> str:
    if value is None:
        return "null"
    try:
        return value.decode()
    except ValueError:
        return f"base64 {base64.b64encode(value).decode()}"


def _plain_bytes(value: bytes | None) -> Any:
    """JSON as it is (inside a text), text as text, everything else as ``{"base64": ...}``."""
    if value is None:
        return None
    try:
        return value.decode()
    except ValueError:
        return {"base64": base64.b64encode(value).decode()}


# --- replay ---------------------------------------------------------------------------------------------


def replayed(one: Candidate) -> None:
    """One letter, as soon as its outcome is known."""
    letter = one.letter
    style = "green" if one.is_good else "bold red"
    line = Text.assemble((f"{one.outcome:<15}", style), f" {letter.source}  ")
    line.append(f"letter {letter.at.partition}@{letter.at.offset}  {clean(letter.cause)}", "dim")
    if one.reason:
        line.append(f"  {clean(one.reason)}")
    say(line)


def replay_summary(done: Replayed) -> None:
    """How many there were of each outcome, and what that means."""
    for outcome, count in done.counts.items():
        say(Text.assemble((f"{count} {outcome}", "bold"), f": {done.meaning(outcome)}"))
    if not done.letters:
        say(Text("No dead letters.", "bold"))


def plain_replayed(one: Candidate) -> dict[str, Any]:
    """One letter and its outcome for JSON."""
    return _plain(one.letter) | {"outcome": one.outcome, "reason": one.reason or None}


# --- topics ---------------------------------------------------------------------------------------------


def needs(found: Needs) -> None:
    """Every topic with its state, then the commands that grant the rights."""
    for state in found.topics:
        role = state.topic.role.value.replace("_", " ")
        text, style = _state(state)
        say(Text.assemble(f"{state.topic.name}  ", (f"{role}  ", "dim"), (text, style)))
        if state.topic.config:
            recommended = ", ".join(f"{name}={value}" for name, value in state.topic.config.items())
            say(Text(f"recommended: {recommended}", "dim"), indent=4)
        for name, value, wanted in state.unlike:
            say(Text(f"{name} is {value}, recommended is {wanted}", "yellow"), indent=4)
    say("")
    for right, command in found.rights:
        say(Text(f"# {right.purpose}", "dim"), command)


def _state(state: TopicState) -> tuple[str, str]:
    if state.created:
        return "created", "green"
    match state.found:
        case []:
            pattern = state.topic.name.startswith("^")
            return ("matches no topic" if pattern else "missing, or hidden from us"), "bold red"
        case [one] if one.name == state.topic.name:
            return _count(one.partitions, "partition"), "green"
        case several:
            names = ", ".join(f"{one.name} ({_count(one.partitions, 'partition')})" for one in several)
            return f"matches {names}", "green"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plain_needs(found: Needs) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "ok": not found.missing,
        "topics": [
            {
                "name": state.topic.name,
                "role": state.topic.role.value,
                "missing": state.missing,
                "created": state.created,
                "found": [{"name": one.name, "partitions": one.partitions} for one in state.found],
                "recommended": dict(state.topic.config),
                "unlike": [
                    {"property": name, "is": value, "recommended": wanted}
                    for name, value, wanted in state.unlike
                ],
            }
            for state in found.topics
        ],
        "rights": [
            {
                "resource": right.resource,
                "name": right.name,
                "prefixed": right.prefixed,
                "operations": list(right.operations),
                "purpose": right.purpose,
                "command": command,
            }
            for right, command in found.rights
        ],
    }
