"""Replicas come and go with the lag, by the chart's own trigger: nothing is lost, and more are faster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.real.lab import PATIENCE_S, Lab, Wide
from tests.real.processes import wait_until
from tests.real.scaling import (
    JOB,
    NAMESPACE,
    Autoscaler,
    Fleet,
    Prometheus,
    scaled_object,
    wait_scaling,
)
from tests.real.service import Service

from vectide.testing.embedding_server import Fault

pytestmark = [pytest.mark.real, pytest.mark.nightly, pytest.mark.timeout(420)]

LAG_PER_REPLICA = 150
BACKLOG = 600
#: One replica embeds so many texts a second, whatever the machine: the provider is what takes time.
BATCH, LATENCY_MS = 20, 2000
#: No call ends while the test looks.
STANDSTILL_MS = 20_000
SERIES = f'{{namespace="{NAMESPACE}", job="{JOB}"}}'
LAG = f"sum(vectide_lag_records{SERIES})"
#: What the chart's HorizontalPodAutoscaler reads.
SCALABLE = f"vectide:scalable_lag:records{SERIES}"
#: How often a ServiceMonitor of the chart has it scraped.
SCRAPE_S = 15.0


class Yard:
    """Eight partitions, a slow provider, Prometheus, and as many replicas as are asked for."""

    def __init__(self, lab: Lab, prometheus: Prometheus):
        self.lab, self.prometheus = lab, prometheus
        self.wide = Wide(lab, rows=2 * BACKLOG)
        lab.provider.latency_ms = LATENCY_MS
        self.fleet = Fleet(self._replica, prometheus)
        spec = scaled_object(lab.stack.broker.bootstrap, lab.name, LAG_PER_REPLICA, scale_down_after_s=5)
        self.scaler = Autoscaler(spec, self.lag, prometheus)

    def _replica(self) -> Service:
        return self.lab.service(
            self.wide.tables, VECTIDE_EMBEDDER__CONCURRENCY="1", VECTIDE_EMBEDDER__BATCH_ITEMS=str(BATCH)
        )

    def lag(self) -> int:
        """By the broker."""
        return self.lab.kafka.lag(self.lab.name, [self.lab.topic])

    def texts(self) -> int:
        return len(self.lab.paid())


@pytest.fixture
def yard(lab: Lab, prometheus_program: Path) -> Iterator[Yard]:
    with Prometheus(prometheus_program, lab.stack.folder / f"{lab.name}-prometheus") as prometheus:
        yield Yard(lab, prometheus)


def test_replicas_follow_the_lag_from_one_to_three_and_back_and_nothing_is_lost(yard: Yard) -> None:
    yard.fleet.resize(1)
    wait_until("a replica works", yard.fleet.all_work, PATIENCE_S)

    # One replica for one backlog.
    yard.wide.happen(BACKLOG)
    began_s = time.monotonic()
    wait_until("one replica has drained it", lambda: yard.lag() == 0, PATIENCE_S, every_s=0.2)
    alone_s = time.monotonic() - began_s

    # As many as the autoscaler wants for another.
    yard.wide.happen(BACKLOG)
    began_s = time.monotonic()
    wait_scaling("there are three", yard.fleet, yard.scaler, lambda: len(yard.fleet) == 3, PATIENCE_S)
    wait_until("all three have partitions", yard.fleet.all_work, PATIENCE_S)
    together_s, texts, half = time.monotonic(), yard.texts(), yard.lag() // 2
    wait_scaling("half of it is done", yard.fleet, yard.scaler, lambda: yard.lag() <= half, PATIENCE_S)
    per_s = (yard.texts() - texts) / (time.monotonic() - together_s)
    wait_scaling("they have drained it", yard.fleet, yard.scaler, lambda: yard.lag() == 0, PATIENCE_S)
    scaled_s = time.monotonic() - began_s

    # Back to one, while rows go on changing.
    yard.wide.happen(LAG_PER_REPLICA // 2)
    wait_scaling("one is left", yard.fleet, yard.scaler, lambda: len(yard.fleet) == 1, PATIENCE_S)
    yard.wide.happen(LAG_PER_REPLICA // 2)
    wait_until("everything is committed", yard.wide.settled, PATIENCE_S)

    print(
        f"\n{BACKLOG} rows: {alone_s:.1f} s with one replica ({BACKLOG / alone_s:.0f} texts/s), "
        f"{scaled_s:.1f} s with up to three, which made {per_s:.0f} texts/s together"
    )
    assert yard.wide.complaints() == []
    assert yard.lab.kafka.ends([yard.lab.letters]) == {(yard.lab.letters, 0): 0}
    assert scaled_s < alone_s
    assert per_s > 1.5 * BACKLOG / alone_s


def test_lag_that_prometheus_has_is_the_figure_of_the_broker_within_one_scrape(yard: Yard) -> None:
    """While two replicas share the partitions and records wait; on the way down; and at the end."""
    yard.fleet.resize(2)
    wait_until("both have partitions", yard.fleet.all_work, PATIENCE_S)
    yard.lab.provider.latency_ms = STANDSTILL_MS
    yard.wide.happen(BACKLOG // 2)
    for metric in (LAG, SCALABLE):
        wait_until(f"it is in {metric}", lambda: yard.prometheus.value(metric) == BACKLOG // 2, SCRAPE_S)  # noqa: B023
    assert yard.lag() == BACKLOG // 2

    yard.lab.provider.latency_ms = LATENCY_MS
    readings: list[tuple[float, int, float | None]] = []
    give_up_s = time.monotonic() + PATIENCE_S
    while not readings or readings[-1][1] > 0:
        assert time.monotonic() < give_up_s, "the backlog is not drained"
        readings.append((time.monotonic(), yard.lag(), yard.prometheus.value(LAG)))
        time.sleep(0.2)
    wait_until("it is 0 too", lambda: yard.prometheus.value(LAG) == 0, SCRAPE_S)
    for at_s, _, said in readings:
        near = [lag for other_s, lag, _ in readings if abs(other_s - at_s) < SCRAPE_S]
        assert said is not None
        assert min(near) <= said <= max(near)


TROUBLES = {
    "halted": Fault("status", status=401, message="invalid key"),
    "waiting": Fault("status", status=503),
    "limited": Fault("status", status=429, headers={"Retry-After": "1"}, type="rate_limit_error"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_replica_is_added_while_it_would_not_help(yard: Yard, trouble: str) -> None:
    """Whether an operator must act, the provider is away, or it limits the rate: both autoscalers hold."""
    yard.lab.provider.latency_ms = 20
    yard.fleet.resize(1)
    wait_until("a replica works", yard.fleet.all_work, PATIENCE_S)
    yard.wide.happen(10)
    wait_until("it has stored something", yard.wide.settled, PATIENCE_S)
    assert yard.scaler.triggers()["held"] > 1e6

    yard.lab.provider.plan(TROUBLES[trouble])
    yard.wide.happen(10)
    wait_until("Prometheus knows", lambda: yard.scaler.triggers()["held"] == 1, PATIENCE_S, every_s=0.5)
    yard.wide.happen(4 * LAG_PER_REPLICA)
    wait_until(
        "Prometheus knows that records wait",
        lambda: (yard.prometheus.value(LAG) or 0) > 3 * LAG_PER_REPLICA,
        PATIENCE_S,
    )
    triggers = yard.scaler.triggers()
    assert yard.scaler.wanted(1, {**triggers, "held": 1e9}) == 3, "by the lag alone there would be three"
    assert [yard.scaler.advise(1) for _ in range(5)] == [1] * 5
    assert yard.prometheus.value(SCALABLE) is None
    if trouble != "limited":
        assert yard.fleet.running[0].state() == trouble
