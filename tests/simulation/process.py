"""One replica of the service: the very pump with its consumer and its workers, in the simulated world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.routes import shared_route
from tests.simulation.broker import SimCodec
from tests.simulation.clock import SimExecutor
from tests.simulation.group import SimSource
from tests.simulation.replaying import SimDesk
from tests.simulation.scenario import APART, NO_LIMIT, TABLES, Scenario
from tests.simulation.world import SimLog, SimTelemetry, World

from vectide.cache import CachingEmbedder
from vectide.core.batcher import BatchLimits
from vectide.core.breaker import BreakerLimits
from vectide.core.failures import FailurePolicy
from vectide.jobs.parts import Parts, StreamPolicy
from vectide.jobs.routes import Provider, Routes, Target
from vectide.jobs.stream import Stream

GRACE_S = 4.0


@dataclass(frozen=True)
class Hooks:
    """Who hears of what a process does: of its log, of each call that is submitted, and of each that takes
    effect."""

    log: Callable[[Process, str, Mapping[str, Any]], None]
    submits: Callable[[Process, str], None]
    acts: Callable[[Process], None]


class Process:
    """One life of one replica: a crash or a stop ends it."""

    def __init__(
        self,
        name: str,
        world: World,
        scenario: Scenario,
        dead_in_a_row: int,
        hooks: Hooks,
        executor: type[SimExecutor] = SimExecutor,
    ) -> None:
        self.name = name
        alone = scenario.replicas == 1
        self.telemetry = SimTelemetry()
        self.source = SimSource(world.group, world.clock, world.rng, scenario.commits_lost, waits=alone)
        self.executor = executor(world.clock, world.rng, waits=alone)
        self.executor.watch = lambda pool: hooks.submits(self, pool)
        self.executor.acts = lambda: hooks.acts(self)
        self.executor.due_s = self.due_s
        self.source.draining = self._drains
        self._alone = alone
        self.stopped_at_s: float | None = None
        self.dead_in_a_row = dead_in_a_row
        codec = SimCodec(world.broker)
        log = SimLog(world.clock, world.told, name)
        log.heard = lambda event, fields: hooks.log(self, event, fields)
        parts = Parts(
            self.source,
            codec.decode,
            TABLES.get,
            routes_of(scenario, world),
            world.letters,
            self.executor,
            world.clock,
            self.telemetry,
            log,
            world.rng.random,
            world.registry,
            codec.learn,
            SimDesk(world.replays),
        )
        self.stream = Stream(parts, policy_of(scenario, dead_in_a_row))

    def due_s(self) -> float | None:
        """When it has something to do by itself."""
        return self.stream.stations.due_s()

    def _drains(self, drains: bool) -> None:
        self.executor.waits = self._alone or drains


def routes_of(scenario: Scenario, world: World) -> Routes:
    """The way of each table's rows."""
    limits = limits_of(scenario)
    first, second = (
        CachingEmbedder(embedder, world.cache) if scenario.cached else embedder
        for embedder in (world.provider, world.other_provider)
    )
    provider = Provider("models", first, limits)
    target = Target("store", world.store, limits, limits)
    reader = None if scenario.ahead_s is None else world.reader
    if not scenario.apart:
        return shared_route(TABLES.values(), provider, target, reader)
    other = Provider("other models", second, limits)
    here, elsewhere = (
        Target("here", world.here, limits, limits),
        Target("elsewhere", world.elsewhere, limits, limits),
    )
    usual = shared_route(TABLES.values(), provider, here, reader)
    return {**usual, **shared_route(APART, other, elsewhere, reader)}


def limits_of(scenario: Scenario) -> BatchLimits:
    """What every call carries."""
    return BatchLimits(items=scenario.batch_items, linger_s=0.05, quiet_s=0.002)


def policy_of(scenario: Scenario, dead_in_a_row: int) -> StreamPolicy:
    """The numbers that the scenario's processes obey."""
    return StreamPolicy(
        records_in_flight=scenario.records_in_flight,
        bytes_in_flight=scenario.bytes_in_flight,
        poll_records=10,
        commit_interval_s=0.2,
        revoke_drain_s=1.0,
        grace_s=GRACE_S,
        halt_probe_s=0.5,
        reread=limits_of(scenario),
        idle_wait_s=0.2,
        busy_wait_s=0.5,
        incomplete_patience_s=0.3,
        move_patience_s=0.3,
        failures=FailurePolicy(backoff_first_s=0.01, backoff_max_s=0.5, probe_s=0.5),
        breaker=BreakerLimits(in_a_row=dead_in_a_row, window=NO_LIMIT),
    )
