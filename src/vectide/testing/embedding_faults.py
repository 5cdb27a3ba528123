"""What the embedding server can be told to do wrong, when, and what it counts."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from threading import Lock
from typing import Any, Final, Literal

import numpy as np

from vectide.ports import Vector

FaultKind = Literal[
    "status",  # answers ``status`` with ``headers`` and an error of ``code``, ``type``, ``message``
    "error_200",  # the same error under status 200
    "shuffled",  # the items in reverse order, their indexes right
    "one_short",
    "one_extra",
    "empty",  # no items
    "repeated_index",
    "nan",
    "null",  # null for each number, in a list
    "zero",
    "wrong_dimension",  # one dimension too many
    "html",  # a page under status 200
    "truncated",  # the connection ends in the middle of the body
    "cut",  # half of the JSON, as if that were all
    "reset_before",  # connection reset instead of an answer
    "reset_after",  # connection reset after the headers
    "drip",  # the body in 20 pieces, ``every_s`` apart
    "delay",  # a good answer, ``every_s`` later
]

_TIMES_KEPT: Final = 10_000

#: These spoil vectors: those of the marked texts, or all.
VECTOR_FAULTS: Final = frozenset({"nan", "null", "zero", "wrong_dimension"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    It applies to the next ``times`` calls (None: until cleared) after ``after`` good ones, for at most
    ``for_s`` seconds from when it was planned; with ``marker`` only to calls that carry a text holding that
    string, and other calls do not count.
    """

    kind: FaultKind
    times: int | None = None
    after: int = 0
    for_s: float | None = None
    marker: str | None = None
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    type: str = "server_error"
    message: str = "planned fault"
    every_s: float = 0.05

    def marks(self, text: str) -> bool:
        """Whether the fault is about this text."""
        return self.marker is None or self.marker in text


class Plan:
    """The planned faults; thread-safe. A call meets the first one that applies to it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._planned: list[_Planned] = []

    def add(self, faults: Sequence[Fault]) -> None:
        now = time.monotonic()
        with self._lock:
            self._planned += [_Planned.start(fault, now) for fault in faults]

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()

    def next(self, texts: Sequence[str]) -> Fault | None:
        """The fault of a call with these texts."""
        now = time.monotonic()
        with self._lock:
            self._planned = [one for one in self._planned if not one.over(now)]
            for planned in self._planned:
                if any(planned.fault.marks(text) for text in texts) and planned.strikes():
                    return planned.fault
        return None


@dataclass(slots=True)
class _Planned:
    fault: Fault
    skip: int
    left: float
    until_s: float

    @classmethod
    def start(cls, fault: Fault, now: float) -> _Planned:
        infinite = float("inf")
        left = infinite if fault.times is None else fault.times
        return cls(fault, fault.after, left, infinite if fault.for_s is None else now + fault.for_s)

    def over(self, now: float) -> bool:
        return self.left <= 0 or now >= self.until_s

    def strikes(self) -> bool:
        if self.skip:
            self.skip -= 1
            return False
        self.left -= 1
        return True


def spoiled(fault: Fault | None, texts: Sequence[str], vectors: list[Vector]) -> list[Vector]:
    """The vectors with a vector fault applied. ``null`` is written by whoever writes the answer."""
    if fault is None or fault.kind not in VECTOR_FAULTS or fault.kind == "null":
        return vectors
    return [
        _spoil(fault.kind, vector) if fault.marks(text) else vector
        for text, vector in zip(texts, vectors, strict=True)
    ]


def _spoil(kind: str, vector: Vector) -> Vector:
    match kind:
        case "nan":
            return np.concatenate([np.full(1, np.nan, dtype=np.float32), vector[1:]])
        case "zero":
            return np.zeros_like(vector)
        case _:
            return np.append(vector, np.float32(0.5))


def rearranged(fault: Fault | None, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of an answer with a fault of count or order applied."""
    match fault.kind if fault else None:
        case "shuffled":
            return items[::-1]
        case "one_short":
            return items[:-1]
        case "one_extra":
            return [*items, {**items[-1], "index": len(items)}]
        case "empty":
            return []
        case "repeated_index":
            return [{**item, "index": 0} for item in items]
        case _:
            return items


@dataclass(frozen=True, slots=True)
class Stats:
    """What the server has seen since it started, or since it was told to forget.

    ``texts_sent_twice`` and ``texts_answered_twice`` count distinct texts; a text counts as answered when
    it was part of a faultless answer. ``most_*`` are maxima over calls. ``statuses`` has text keys.
    ``call_times_s`` are the starts of the last calls on the server's monotonic clock.
    """

    calls: int = 0
    texts: int = 0
    distinct_texts: int = 0
    texts_sent_twice: int = 0
    texts_answered: int = 0
    texts_answered_twice: int = 0
    tokens: int = 0
    most_items: int = 0
    most_tokens: int = 0
    most_at_once: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    call_times_s: Sequence[float] = ()


class Counts:
    """Counts calls and texts; thread-safe. Keeps 16 bytes per distinct text, and the texts if told to."""

    def __init__(self, *, record_texts: bool) -> None:
        self._lock = Lock()
        self._record_texts = record_texts
        self._at_once = 0
        self.forget()

    def forget(self) -> None:
        with self._lock:
            self._stats: Counter[str] = Counter()
            self._most: Counter[str] = Counter()
            self._sent: Counter[bytes] = Counter()
            self._answered: Counter[bytes] = Counter()
            self._statuses: Counter[str] = Counter()
            self._times_s: deque[float] = deque(maxlen=_TIMES_KEPT)
            self._texts: list[str] = []
            self._answered_texts: list[str] = []

    def began(self, texts: Sequence[str], tokens: int) -> None:
        digests = [_digest(text) for text in texts]
        with self._lock:
            self._at_once += 1
            self._stats.update(calls=1, texts=len(texts), tokens=tokens)
            self._sent.update(digests)
            seen = {"most_items": len(texts), "most_tokens": tokens, "most_at_once": self._at_once}
            self._most |= Counter(seen)
            self._times_s.append(time.monotonic())
            if self._record_texts:
                self._texts += texts

    def answered(self, status: int, texts: Sequence[str]) -> None:
        """A call was answered with ``status``; ``texts`` are those that got their right vector."""
        digests = [_digest(text) for text in texts]
        with self._lock:
            self._statuses[str(status)] += 1
            self._stats["texts_answered"] += len(texts)
            self._answered.update(digests)
            if self._record_texts:
                self._answered_texts += texts

    def ended(self) -> None:
        with self._lock:
            self._at_once -= 1

    def texts(self) -> list[str]:
        with self._lock:
            return list(self._texts)

    def answered_texts(self) -> list[str]:
        with self._lock:
            return list(self._answered_texts)

    def stats(self) -> Stats:
        with self._lock:
            return Stats(
                **self._stats,
                **self._most,
                distinct_texts=len(self._sent),
                texts_sent_twice=sum(1 for n in self._sent.values() if n > 1),
                texts_answered_twice=sum(1 for n in self._answered.values() if n > 1),
                statuses=dict(self._statuses),
                call_times_s=tuple(self._times_s),
            )

    def as_json(self) -> dict[str, Any]:
        return asdict(self.stats())


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
