"""Ask every dependency once, and say of each whether it would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from vectide.core.mapping import TableMapping
from vectide.core.model import Change, DecodeError, Deleted, Record, Upserted
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


def run_check(name: str, check: Callable[[], str], *, unreachable: str) -> Result:
    """The result of ``check``, which returns what it found or raises. ``unreachable`` is the advice for a
    dependency that does not answer."""
    try:
        return Result(name, Verdict.OK, check())
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
