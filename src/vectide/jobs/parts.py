"""What the pump is made of: the parts that it talks to and the numbers that it obeys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vectide.core.batcher import BatchLimits
from vectide.core.breaker import BreakerLimits
from vectide.core.failures import DEFAULT_POLICY, FailurePolicy
from vectide.core.mapping import TableMapping
from vectide.core.model import Change, Record
from vectide.jobs.routes import Route, Routes, providers_of, targets_of
from vectide.ports import (
    Clock,
    DeadLetters,
    Executor,
    Log,
    RegisteredSchema,
    ReplayDesk,
    SchemaId,
    SchemaRegistry,
    Source,
    Telemetry,
)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the pump talks to. ``decode`` is pure; ``mapping_of`` finds the table of a topic, and
    ``routes`` has the way of each such table's rows. ``registry`` and ``learn`` are there where ``decode``
    may have to be told schemas first; ``decode_now``, which is for workers, asks for them on the way.
    ``replays``: where dead letters may be replayed. ``tables_of`` names every table that claims a topic."""

    source: Source
    decode: Callable[[Record], Change]
    mapping_of: Callable[[str], TableMapping | None]
    routes: Routes
    dead_letters: DeadLetters
    executor: Executor
    clock: Clock
    telemetry: Telemetry
    log: Log
    random: Callable[[], float]
    registry: SchemaRegistry | None = None
    learn: Callable[[SchemaId, RegisteredSchema], None] | None = None
    replays: ReplayDesk | None = None
    decode_now: Callable[[Record], Change] | None = None
    tables_of: Callable[[str], Sequence[str]] = lambda _topic: ()

    def route(self, mapping: TableMapping | None) -> Route:
        """The way of the table's rows."""
        assert mapping is not None
        return self.routes[mapping.table]


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """Numbers of the pump; times in seconds. ``grace_s``: the drain on a stop takes three quarters of it.
    ``incomplete_patience_s``: how long a change that cannot be completed waits for a newer one of its row.
    ``move_patience_s``: how long the delete of a changed primary key waits for the create to arrive.
    ``takeover_patience_s``: how long a table rests here whose rows were written by a later mapping."""

    schema_concurrency: int = 2
    dead_letter_timeout_s: float = 30.0
    replay_timeout_s: float = 60.0
    schema_timeout_s: float = 10.0
    records_in_flight: int = 40_000
    bytes_in_flight: int = 96 * 2**20
    poll_records: int = 50
    commit_interval_s: float = 1.0
    revoke_drain_s: float = 10.0
    grace_s: float = 60.0
    idle_wait_s: float = 0.1
    busy_wait_s: float = 0.003
    halt_probe_s: float = 60.0
    reread: BatchLimits = field(default=BatchLimits(items=100, linger_s=0.02, quiet_s=0.005))
    reread_concurrency: int = 2
    reread_timeout_s: float = 10.0
    incomplete_patience_s: float = 10.0
    move_patience_s: float = 3.0
    takeover_patience_s: float = 300.0
    failures: FailurePolicy = DEFAULT_POLICY
    breaker: BreakerLimits = field(default_factory=BreakerLimits)

    def pools(self, routes: Routes) -> Mapping[str, int]:
        """How many calls each kind of station makes at the same time, those first whose results matter most:
        a vector that came back frees the slot that is dearest. Each provider and each target has pools of
        its own: calls to one that hangs take no other's threads."""
        providers, targets = providers_of(routes), targets_of(routes)
        return {
            **{f"embed {provider.name}": provider.concurrency for provider in providers},
            "schema": self.schema_concurrency,
            "dead_letter": 1,
            **{f"purge {target.name}": 1 for target in targets},
            **{f"write {target.name}": target.write_concurrency for target in targets},
            "reread": self.reread_concurrency,
            **{f"lookup {target.name}": target.lookup_concurrency for target in targets},
            "replay": 1,
        }
