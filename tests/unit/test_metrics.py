"""The catalogue of metrics and its Prometheus form (case 192)."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vectide.core import signals
from vectide.ops.metrics import PrometheusTelemetry, SignalError
from vectide.ports import Telemetry


def samples(telemetry: PrometheusTelemetry, name: str) -> dict[tuple[str, ...], float]:
    """The values of one metric by its label values, in the catalogue's order of labels."""
    labels = signals.CATALOGUE[name].labels
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(telemetry.exposition().decode())
        for sample in family.samples
        if sample.name == name
    }


def use(telemetry: Telemetry, metric: signals.Metric, label: str = "x") -> None:
    labels = dict.fromkeys(metric.labels, label)
    match metric.kind:
        case "counter":
            telemetry.count(metric, **labels)
        case "gauge":
            telemetry.gauge(metric, 1, **labels)
        case "histogram":
            telemetry.observe(metric, 1, **labels)


def constants() -> Iterator[tuple[str, signals.Metric]]:
    return ((name, value) for name, value in vars(signals).items() if isinstance(value, signals.Metric))


# --- the catalogue --------------------------------------------------------------------------------------


def test_the_catalogue_holds_every_constant_once() -> None:
    metrics = [metric for _, metric in constants()]
    assert len(metrics) == len(set(metrics)) == len(signals.CATALOGUE)
    assert set(signals.CATALOGUE) == set(metrics)
    assert signals.CATALOGUE["vectide_lag_records"] is signals.LAG


@pytest.mark.parametrize("metric", signals.CATALOGUE.values(), ids=str)
def test_names_follow_the_grammar(metric: signals.Metric) -> None:
    assert re.fullmatch(r"vectide(_[a-z]+)+", metric)
    assert metric.endswith("_total") == (metric.kind == "counter")
    assert metric.help.endswith(".")
    assert set(metric.labels) <= set(signals.LABELS)


@pytest.mark.parametrize("metric", signals.CATALOGUE.values(), ids=str)
def test_histograms_and_only_they_have_growing_buckets(metric: signals.Metric) -> None:
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_freshness_is_fine_where_a_healthy_pipeline_sits() -> None:
    assert min(signals.FRESHNESS_BUCKETS) == 0.01
    assert sum(1 for bound in signals.FRESHNESS_BUCKETS if bound <= 60) >= 15
    assert max(signals.FRESHNESS_BUCKETS) > 3600


def test_every_label_is_used_and_explained() -> None:
    used = {label for metric in signals.CATALOGUE.values() for label in metric.labels}
    assert used == set(signals.LABELS)


# --- counting -------------------------------------------------------------------------------------------


def test_counters_add_gauges_set_and_histograms_observe() -> None:
    telemetry = PrometheusTelemetry()
    telemetry.count(signals.RECORDS_RECEIVED, topic="a")
    telemetry.count(signals.RECORDS_RECEIVED, 2.5, topic="a")
    telemetry.count(signals.RECORDS_RECEIVED, topic="b")
    telemetry.gauge(signals.LANES, 3)
    telemetry.gauge(signals.LANES, 2)
    telemetry.observe(signals.FRESHNESS, 0.02, table="products")
    assert samples(telemetry, signals.RECORDS_RECEIVED) == {("a",): 3.5, ("b",): 1}
    assert samples(telemetry, signals.LANES) == {(): 2}
    text = telemetry.exposition().decode()
    assert 'vectide_freshness_seconds_bucket{le="0.01",table="products"} 0.0' in text
    assert 'vectide_freshness_seconds_bucket{le="0.025",table="products"} 1.0' in text
    assert 'vectide_freshness_seconds_count{table="products"} 1.0' in text


def test_every_metric_of_the_catalogue_can_be_used_and_is_exposed() -> None:
    telemetry = PrometheusTelemetry()
    for metric in signals.CATALOGUE.values():
        use(telemetry, metric)
    exposed = {
        line.split()[2] for line in telemetry.exposition().decode().splitlines() if line.startswith("# TYPE")
    }
    assert {name for name in exposed if name.startswith("vectide_")} == set(signals.CATALOGUE)


def test_metrics_without_labels_start_at_zero() -> None:
    assert samples(PrometheusTelemetry(), signals.LANES) == {(): 0}


def test_two_telemetries_share_nothing() -> None:
    one, other = PrometheusTelemetry(), PrometheusTelemetry()
    one.gauge(signals.LANES, 5)
    assert samples(other, signals.LANES) == {(): 0}


def test_an_unknown_metric_raises_at_once() -> None:
    with pytest.raises(SignalError, match="not in the catalogue"):
        PrometheusTelemetry().count("vectide_nonsense_total")


def test_a_metric_of_another_kind_raises_at_once() -> None:
    with pytest.raises(SignalError, match="is a gauge, not a counter"):
        PrometheusTelemetry().count(signals.LANES)


@pytest.mark.parametrize(
    "labels", [{}, {"table": "x"}, {"topic": "x", "table": "y"}], ids=["none", "wrong", "too many"]
)
def test_wrong_labels_raise_at_once(labels: dict[str, str]) -> None:
    with pytest.raises(SignalError, match="takes the labels"):
        PrometheusTelemetry().count(signals.RECORDS_RECEIVED, 1, **labels)


def test_a_gauge_set_to_nan_is_gone() -> None:
    telemetry = PrometheusTelemetry(max_series=2)
    for partition in "0123":
        telemetry.gauge(signals.LAG, 7, topic="t", partition=partition)
        telemetry.gauge(signals.LAG, math.nan, topic="t", partition=partition)
        telemetry.gauge(signals.LAG, math.nan, topic="t", partition=partition)
    telemetry.gauge(signals.LAG, 1, topic="t", partition="9")
    assert samples(telemetry, signals.LAG) == {("t", "9"): 1}


# --- hostile label values -------------------------------------------------------------------------------

HOSTILE = ['a"b', "a\\b", "line\nbreak", "\r\t\x00\x1b", "\u2028", "naïve 日本 🎉", "\ud800", "{}=,", ""]


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_hostile_label_values_give_a_valid_exposition(value: str) -> None:
    """Case 192."""
    telemetry = PrometheusTelemetry()
    telemetry.count(signals.RECORDS_RECEIVED, topic=value)
    (labels,) = samples(telemetry, signals.RECORDS_RECEIVED)
    assert len(labels[0]) == len(value)
    assert labels[0].isprintable()
    use(telemetry, signals.LAG, value)
    assert "\x00" not in telemetry.exposition().decode("utf-8")


def test_an_endless_label_value_is_cut() -> None:
    telemetry = PrometheusTelemetry()
    telemetry.count(signals.RECORDS_RECEIVED, topic="x" * 100_000)
    assert len(telemetry.exposition()) < 100_000


def test_the_number_of_series_is_bounded_and_the_rest_counts_as_other() -> None:
    """Case 192."""
    telemetry = PrometheusTelemetry(max_series=10)
    for number in range(100):
        telemetry.count(signals.RECORDS_RECEIVED, topic=f"topic-{number}")
        telemetry.count(signals.RECORDS_RECEIVED, topic="topic-0")
    found = samples(telemetry, signals.RECORDS_RECEIVED)
    assert len(found) == 11
    assert found[("other",)] == 90
    assert found[("topic-0",)] == 101
    assert sum(found.values()) == 200
    assert samples(telemetry, signals.LABELS_FOLDED) == {(signals.RECORDS_RECEIVED.name,): 90}


def test_spellings_of_one_label_are_told_apart_without_being_remembered() -> None:
    telemetry = PrometheusTelemetry()
    for number in range(50):
        telemetry.count(signals.RECORDS_RECEIVED, topic=f"{'t' * 300}{number}")
        telemetry.count(signals.RECORDS_RECEIVED, 2, topic="plain")
    lines = [
        line for line in telemetry.exposition().decode().splitlines() if line.startswith("vectide_records")
    ]
    assert sorted(line.rsplit(" ", 1)[1] for line in lines if "{" in line) == ["100.0", "50.0"]
    assert len(telemetry._counting) == 1  # noqa: SLF001  (nothing else shows that memory is bounded)


def test_counting_from_many_threads_loses_nothing() -> None:
    telemetry = PrometheusTelemetry(max_series=5)

    def work() -> None:
        for number in range(500):
            telemetry.count(signals.RECORDS_RECEIVED, topic=f"topic-{number % 20}")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = samples(telemetry, signals.RECORDS_RECEIVED)
    assert sum(found.values()) == 2000
    assert len(found) == 6


def test_no_created_samples_double_the_series() -> None:
    telemetry = PrometheusTelemetry()
    for metric in signals.CATALOGUE.values():
        use(telemetry, metric)
    assert b"_created" not in telemetry.exposition()
    assert telemetry.content_type.startswith("text/plain; version=")


def test_the_process_itself_is_measured() -> None:
    assert b"process_resident_memory_bytes" in PrometheusTelemetry().exposition()
