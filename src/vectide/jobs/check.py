"""Ask every dependency once, and say of each whether it would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from vectide.core.mapping import TableMapping
from vectide.core.model import Change, DecodeError, Deleted, Record, Upserted
from vectide.core.source_facts import Finding
from vectide.ports import AdapterError, MissingExtra, StartupRefused


class Verdict(Enum):
    """How a check ended. ``SKIPPED``: it needs something that failed."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """One check. ``detail`` is what was found, ``advice`` what to do about a failure, each one line."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""


class CheckFailed(Exception):
    """The dependency answers, and would not do. ``advice`` says what to mend."""

    def __init__(self, detail: str, advice: str = "") -> None:
        super().__init__(detail)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Noted:
    """What a check found that would do, and what is good to know about it."""

    detail: str
    advice: str


def judge(findings: Iterable[Finding], found: str) -> str | Noted:
    """What a check of the source comes to; ``found`` names what was looked at. Raises :class:`CheckFailed`
    with every finding and its SQL when one of them fails."""
    told = list(findings)
    detail = "; ".join([found, *(finding.text for finding in told)])
    statements = " ".join(dict.fromkeys(finding.sql for finding in told))
    if any(finding.fails for finding in told):
        raise CheckFailed(detail, statements)
    return Noted(detail, statements)


def run_check(name: str, check: Callable[[], str | Noted], *, unreachable: str) -> Result:
    """The result of ``check``, which returns what it found or raises. ``unreachable`` is the advice for a
    dependency that does not answer."""
    try:
        found = check()
        if isinstance(found, Noted):
            return Result(name, Verdict.OK, found.detail, found.advice)
        return Result(name, Verdict.OK, found)
    except CheckFailed as failure:
        return Result(name, Verdict.FAILED, str(failure), failure.advice)
    except (StartupRefused, MissingExtra) as refusal:
        return Result(name, Verdict.FAILED, str(refusal))  # which says what to do
    except AdapterError as error:
        return Result(name, Verdict.FAILED, f"cannot be used now: {error}", unreachable)


def judge_events(records: Sequence[Record], decode: Callable[[Record], Change], mapping: TableMapping) -> str:
    """What the newest records of a table tell. Raises :class:`CheckFailed` when all would be dead letters."""
    if not records:
        return "no events yet: key and columns could not be verified"
    poor = Counter(filter(None, (_cause(record, decode, mapping) for record in records)))
    if not poor:
        return f"the {len(records)} newest events fit"
    causes = "; ".join(f"{count}: {cause}" for cause, count in poor.items())
    if poor.total() < len(records):
        return f"of the {len(records)} newest events some would be dead letters: {causes}"
    raise CheckFailed(
        f"every one of the {len(records)} newest events would be a dead letter: {causes}",
        "compare the connector's converter and message key with the table's settings",
    )


def _cause(record: Record, decode: Callable[[Record], Change], mapping: TableMapping) -> str | None:
    """Why the record could never be applied, None when it could."""
    try:
        change = decode(record)
        if isinstance(change, Upserted | Deleted) and mapping.skip_reason(change) is None:
            mapping.row_of(change)
    except DecodeError as error:
        return str(error)
    return None
