"""Alerts on what a process says at ``/metrics`` that really is halted, stale and rid of records, or is well.

What it says before and after is stretched over half an hour, and given to promtool.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.pipeline.shop import Shop, running, until

from vectide.core.model import Record
from vectide.testing.broker import BrokerProcess
from vectide.testing.postgres import EmbeddedPostgres

RULES = Path(__file__).parents[2] / "helm" / "vectide" / "files" / "alerts.yaml"
MINUTES = 40
PATIENCE_S = 90.0

Samples = dict[str, tuple[str, float]]


@pytest.fixture
def shop() -> Iterator[Shop]:
    with (
        BrokerProcess(heartbeat_ms=100, session_timeout_ms=1000) as broker,
        EmbeddedPostgres(tcp_port=0) as postgres,
    ):
        yield Shop(broker, postgres)


def just_now(record: Record) -> Record:
    """The change as if the source had made it now."""
    value = json.loads(record.value or b"")
    value["source"]["ts_ms"] = value["ts_ms"] = int(time.time() * 1000)
    return replace(record, value=json.dumps(value).encode())


def samples(exposition: str) -> Samples:
    """Series -> kind and value."""
    found = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = {**sample.labels, "namespace": "n", "job": "v", "pod": "p"}
            text = ", ".join(f'{name}="{value}"' for name, value in labels.items())
            if sample.name.startswith("vectide_"):
                found[f"{sample.name}{{{text}}}"] = family.type, sample.value
    return found


def lag(told: Samples) -> float:
    return sum(value for series, (_, value) in told.items() if series.startswith("vectide_lag_records{"))


def stretched(before: Samples, after: Samples) -> list[dict[str, str]]:
    """For five minutes as before; then as after, with counters going on as they have."""
    series = []
    for name, (kind, value) in after.items():
        first = f"{before[name][1]:f}x5" if name in before else "_x5"
        grown = value - before[name][1] if name in before and kind != "gauge" else 0
        series.append({"series": name, "values": f"{first} {value:f}+{grown:f}x{MINUTES}"})
    return series


def objection(
    promtool: str, series: list[dict[str, str]], minute: int, folder: Path, firing: str = ""
) -> str:
    """What promtool has against this alert firing then (without one: against silence); empty for nothing."""
    named = f'alertname="{firing}", ' if firing else ""
    expected = [{"labels": f'{{alertname="{firing}"}}', "value": 1}] if firing else []
    query = f'count by (alertname) (ALERTS{{{named}alertstate="firing"}})'
    case = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{"expr": query, "eval_time": f"{minute}m", "exp_samples": expected}],
    }
    path = folder / "case.yaml"
    path.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}), "utf-8"
    )
    done = subprocess.run(  # noqa: S603
        [promtool, "test", "rules", path], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.timeout(400)
def test_a_halted_and_stale_process_that_puts_records_aside_is_told_of(
    shop: Shop, promtool: str, tmp_path: Path
) -> None:
    with running(shop.environment(VECTIDE_DLQ__MAX_IN_A_ROW="2")) as service:
        # Its time at the source is long ago.
        shop.produce(shop.upsert(1, "one"))
        until(lambda: shop.exists() and len(shop.stored()) == 1, "the first row to be stored", PATIENCE_S)
        before = samples(service.get("/metrics")[1])
        shop.produce(shop.upsert(2, "two"))
        until(lambda: len(shop.stored()) == 2, "the second row to be stored", PATIENCE_S)
        shop.produce(shop.raw(b"no event"))
        until(
            lambda: "vectide_dead_letters_total{" in service.get("/metrics")[1], "the record to be put aside"
        )
        shop.produce(*(shop.raw(b"no event") for _ in range(5)))
        until(lambda: "vectide_halted{" in service.get("/metrics")[1], "the table to be halted", PATIENCE_S)
        after = samples(service.get("/metrics")[1])
    series = stretched(before, after)
    wrong = {
        alert: problem
        for alert, minute in (("VectideHalted", 10), ("VectideDeadLetters", 10), ("VectideStale", 30))
        if (problem := objection(promtool, series, minute, tmp_path, firing=alert))
    }
    assert wrong == {}


@pytest.mark.timeout(400)
def test_a_process_that_keeps_up_sets_off_nothing(shop: Shop, promtool: str, tmp_path: Path) -> None:
    def produced(*rows: int) -> Samples:
        shop.produce(*(just_now(shop.upsert(row, f"row {row}")) for row in rows))
        until(lambda: shop.exists() and set(rows) <= shop.stored().keys(), f"{rows} to be stored", PATIENCE_S)
        until(lambda: lag(samples(service.get("/metrics")[1])) == 0, "the lag to be 0")
        return samples(service.get("/metrics")[1])

    with running(shop.environment()) as service:
        series = stretched(produced(1, 2), produced(3, 4, 5))
    assert any("vectide_freshness_seconds_bucket" in one["series"] for one in series)
    assert objection(promtool, series, 30, tmp_path) == ""
