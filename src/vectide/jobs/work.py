"""What travels through the pump: the work on one row, the texts it waits for, the letters it may end as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vectide.core.lane import Entry, Lane, Merged, RowQueue, merge
from vectide.core.model import Row, Stamp
from vectide.core.planner import EmbedText, MarkStale, PatchMetadata, Plan, RemoveRow
from vectide.ports import Letter, Mark, Patch, Put, Remove, Vector, Write


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a change can never succeed: what its dead letter will say."""

    cause: str
    stage: str
    detail: str = ""
    attempts: int = 1


@dataclass(eq=False, slots=True)
class Work:
    """One attempt to apply the merged waiting changes of one row."""

    queue: RowQueue
    entries: list[Entry]
    merged: Merged
    #: That of its entries: they have one in common.
    lane: Lane
    stamp: Stamp | None = None
    plan: Plan | None = None
    vectors: list[Vector | None] = field(default_factory=list)
    texts_missing: int = 0
    #: Set while the row is marked stale, before the letter about its newest change leaves.
    verdict: Verdict | None = None
    #: Set at its one end; results that come later mean nothing.
    ended: bool = False

    @classmethod
    def of(cls, queue: RowQueue, entries: list[Entry]) -> Work:
        return cls(queue, entries, merge(entries), entries[0].lane)

    @property
    def row(self) -> Row:
        return self.queue.row

    def writes(self) -> Sequence[Write]:
        """The plan as writes for the store. Only for plans that write, when all vectors are there."""
        match self.plan:
            case EmbedText(points, _, keep):
                return [
                    Put(point, vector, keep)
                    for point, vector in zip(points, self.vectors, strict=True)
                    if vector is not None
                ]
            case PatchMetadata(metadata, keep, stamp, values):
                return [Patch(self.row, metadata, stamp, keep, values=values)]
            case RemoveRow(ids, _):
                return [Remove(self.row, ids)]
            case MarkStale(stamp, _):
                return [Mark(self.row, stamp)]
            case _:
                raise ValueError(f"{type(self.plan).__name__} writes nothing")

    def weight_bytes(self) -> int:
        """About what the writes cost on the wire."""
        vectors = sum(vector.nbytes for vector in self.vectors if vector is not None)
        return vectors + sum(len(entry.record.value or b"") for entry in self.entries[-1:]) + 200


@dataclass(eq=False, slots=True)
class TextItem:
    """One text to embed, sent once however many works wait for it: (work, index of its chunk)."""

    text: str
    digest: str
    waiters: list[tuple[Work, int]]
    in_flight: bool = False

    @property
    def held(self) -> bool:
        """Whether anybody who still owns its partition waits for it."""
        return any(work.lane.held for work, _ in self.waiters)


@dataclass(eq=False, slots=True)
class LetterItem:
    """One dead letter on its way to the broker."""

    lane: Lane
    letter: Letter
