"""What travels through the pump: the work on one row, the texts it waits for, the letters it may end as."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vectide.core.budget import memory_of_chunks
from vectide.core.lane import Entry, Lane, Merged, RowQueue, merge
from vectide.core.model import Row, Stamp, Upserted
from vectide.core.planner import EmbedText, Plan
from vectide.jobs.steps import Step, steps_of, writes_of
from vectide.ports import Capabilities, Letter, Put, Vector


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a change can never succeed: what its dead letter will say."""

    cause: str
    stage: str
    detail: str = ""
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """The row that a row was before its primary key changed, and the delete of it that holds."""

    row: Row
    delete: Entry


@dataclass(frozen=True, slots=True)
class Reread:
    """What the source said about a row. ``gone``: it has it no more. ``why`` something is still missing,
    without row content. ``columns``: those of the change that it told."""

    gone: bool = False
    why: str = ""
    columns: frozenset[str] = frozenset()


@dataclass(eq=False, slots=True)
class Work:
    """One attempt to apply the merged waiting changes of one row."""

    queue: RowQueue
    entries: list[Entry]
    merged: Merged
    #: That of its entries: they have one in common.
    lane: Lane
    #: What the store holds of the row, as far as it has confirmed.
    stamp: Stamp | None = None
    #: Where the text of its former key still is.
    moved_from: Origin | None = None
    #: Set once the source was asked for what the change lacks.
    reread: Reread | None = None
    plan: Plan | None = None
    vectors: list[Vector | None] = field(default_factory=list)
    texts_missing: int = 0
    #: What it takes beside its records, as far as the budget was told.
    chunks_bytes: int = 0
    #: What is still to be written, the next step first.
    steps: list[Step] = field(default_factory=list)
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

    def complete(self, change: Upserted) -> None:
        """More is known of the change than the event told."""
        self.merged = replace(self.merged, change=change)

    def rows_to_look_up(self) -> Sequence[Row]:
        """Its row, and the row that has what it lacks."""
        return [self.row] if self.moved_from is None else [self.row, self.moved_from.row]

    def plan_steps(self, able: Capabilities) -> None:
        """Lay out the writes of the plan. Only for plans that write, when all vectors are there."""
        update_only = able.update_only and self.stamp is not None
        base = None if self.stamp is None else self.stamp.position
        at = self.merged.position
        writes = writes_of(self.plan, self.row, self.vectors, at, update_only=update_only, base=base)
        self.steps = steps_of(writes, self.stamp, atomic_calls=able.atomic_calls)

    def measured_bytes(self, dimensions: int) -> int:
        """About the memory that the chunks of its plan take, 0 where there are no several."""
        planned = self.plan
        if not isinstance(planned, EmbedText) or len(planned.texts) == 1:
            return 0
        texts_bytes = sum(map(sys.getsizeof, planned.texts))
        return memory_of_chunks(len(planned.texts), texts_bytes, dimensions)

    def step_done(self) -> bool:
        """The store has confirmed the first of the steps; returns whether it was the last."""
        self.stamp = self.steps.pop(0).leaves
        return not self.steps

    @property
    def wants_texts(self) -> bool:
        """Whether its vectors are still of use: not when another text of it turned out to be poison."""
        return not self.ended and self.verdict is None

    @property
    def size(self) -> int:
        """Writes of the next step."""
        return len(self.steps[0].writes)

    def weight_bytes(self) -> int:
        """About what the next step costs on the wire."""
        writes = self.steps[0].writes
        vectors = sum(write.vector.nbytes for write in writes if isinstance(write, Put))
        return vectors + len(self.entries[-1].record.value or b"") + 200 * len(writes)


@dataclass(eq=False, slots=True)
class TextItem:
    """One text to embed, sent once however many works wait for it: (work, index of its chunk)."""

    text: str
    digest: str
    tokens: int
    waiters: list[tuple[Work, int]]
    in_flight: bool = False

    @property
    def held(self) -> bool:
        """Whether anybody who still owns its partition waits for it."""
        return any(work.lane.held and work.wants_texts for work, _ in self.waiters)


@dataclass(eq=False, slots=True)
class LetterItem:
    """One dead letter on its way to the broker."""

    lane: Lane
    letter: Letter
