"""Letters that may be replayed, and what becomes of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vectide.core.letters import DeadLetter, Place
from vectide.core.model import Columns, Record, Row
from vectide.ports import Partition

Identity = tuple[bytes | None, int]

#: What becomes of a letter -> what that means. The first group leaves nothing to do.
OUTCOMES: Final[Mapping[str, str]] = {
    "written": "the row was written",
    "deleted": "the row was removed",
    "skipped": "the store held it already, or it needs nothing",
    "superseded": "a newer change of the row exists",
    "replayed_before": "was replayed before (--again replays it nevertheless)",
    "would_replay": "would be replayed",
    "dead_lettered": "failed again, and became a letter again",
    "still_fails": "can still not be read as a change: show it",
    "unmapped": "no table names its topic",
    "recreated": "its topic was created again since (--accept-recreated)",
    "gone": "the source does not keep the record any more: something newer may have followed (--accept-gone)",
    "lost": "the letter has not the whole record, and the source does not have it any more",
    "under_way": "was asked for already, and not answered yet",
    "failed": "the service could not look into it: try again",
    "unanswered": "nobody answered: does the service run, and does it read this topic?",
}
#: Outcomes after which nothing is left to do.
GOOD: Final = frozenset({"written", "deleted", "skipped", "superseded", "replayed_before", "would_replay"})


@dataclass(eq=False, slots=True)
class Candidate:
    """One letter and what becomes of it: ``outcome`` is empty while that is open."""

    letter: DeadLetter
    key: Columns | None
    row: Row | None
    chosen: bool
    outcome: str = ""
    reason: str = ""
    #: The look for newer changes begins here (exclusive), and went up to ``checked`` (exclusive).
    after: int = -1
    checked: int = 0
    log: str = ""
    own_log: str = ""

    @property
    def is_good(self) -> bool:
        """Whether there is nothing left to do about it."""
        return self.outcome in GOOD

    @property
    def partition(self) -> Partition:
        return (self.letter.record.topic, self.letter.record.partition)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Every chosen letter with its outcome, in the order of the failures."""

    letters: Sequence[Candidate]

    @property
    def counts(self) -> Mapping[str, int]:
        return dict(Counter(one.outcome for one in self.letters).most_common())

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do about any of them."""
        return all(one.is_good for one in self.letters)

    @staticmethod
    def meaning(outcome: str) -> str:
        return OUTCOMES[outcome]


def identity(record: Record) -> Identity:
    """What tells whether two records at one place are the same."""
    return (record.key, record.timestamp_ms)


def settle_twins(candidates: Iterable[Candidate]) -> None:
    """Of several letters about one record the newest counts; it is meant where any of them is."""
    newest: dict[tuple[Place, str], Candidate] = {}
    for one in candidates:
        twin = newest.get((one.letter.source, one.letter.log))
        if twin is not None and not twin.outcome:
            twin.outcome, twin.reason = "superseded", "another_letter"
            one.chosen = one.chosen or twin.chosen
        newest[(one.letter.source, one.letter.log)] = one


def settle_rows(candidates: Iterable[Candidate]) -> None:
    """Of several letters of a row only the newest counts, also where the source has forgotten them all."""
    newest: dict[tuple[Row | None, Partition, str], Candidate] = {}
    opened = [one for one in candidates if not one.outcome]
    for one in sorted(opened, key=lambda one: one.letter.record.offset):
        older = newest.get((one.row, one.partition, one.own_log))
        if older is not None:
            older.outcome = "superseded"
        newest[(one.row, one.partition, one.own_log)] = one
