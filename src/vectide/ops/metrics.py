"""Prometheus telemetry: every metric of :mod:`vectide.core.signals`, in a registry of its own."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

from vectide.core import signals

#: The label value that stands for all those beyond the bound.
OTHER: Final = "other"
_MAX_VALUE_CHARS: Final = 256

T = TypeVar("T")
M = TypeVar("M", Counter, Histogram)
#: Name and labels of a call, in the order in which the caller wrote them.
_Given = tuple[Any, ...]


class SignalError(ValueError):
    """A metric was used against the catalogue: unknown name, wrong kind or wrong labels. A bug of ours."""


class PrometheusTelemetry:
    """Counts into a registry of its own; may be called from any thread.

    Label values may be hostile (topic names, peers' error names): they are made valid, and a metric that has
    ``max_series`` combinations counts every further one under the value ``other``. A gauge set to NaN is
    removed, which is how the lag of a partition that went away disappears.
    """

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self, *, registry: CollectorRegistry | None = None, max_series: int = 1000) -> None:
        self._registry = CollectorRegistry() if registry is None else registry
        self._max_series = max_series
        self._lock = threading.Lock()
        self._series: dict[str, set[tuple[str, ...]]] = {name: set() for name in signals.CATALOGUE}
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        # By name and labels as they are given: to check them is most of the cost of counting.
        self._counting: dict[_Given, Counter] = {}
        self._observing: dict[_Given, Histogram] = {}
        for metric in signals.CATALOGUE.values():
            self._register(metric)
        ProcessCollector(registry=self._registry)

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Add ``amount`` (not negative) to a counter."""
        given = (name, *labels.items())
        counter = self._counting.get(given)
        if counter is None:
            counter = _of_kind(self._counters, name, "counter")
            counter = self._child(counter, given, labels, self._counting)
        counter.inc(amount)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge; NaN removes the series of these labels."""
        gauge = _of_kind(self._gauges, name, "gauge")
        if math.isnan(value) and labels:
            self._remove(gauge, name, labels)
            return
        values = self._values(name, labels)
        (gauge.labels(*values) if values else gauge).set(value)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Record one observation in a histogram."""
        given = (name, *labels.items())
        histogram = self._observing.get(given)
        if histogram is None:
            histogram = _of_kind(self._histograms, name, "histogram")
            histogram = self._child(histogram, given, labels, self._observing)
        histogram.observe(value)

    def exposition(self) -> bytes:
        """Everything in the Prometheus text format, UTF-8 (see ``content_type``)."""
        return generate_latest(_WithoutCreated(self._registry))

    def _register(self, metric: signals.Metric) -> None:
        name, labels, registry = metric.name, metric.labels, self._registry
        match metric.kind:
            case "counter":
                self._counters[name] = Counter(name, metric.help, labels, registry=registry)
            case "gauge":
                self._gauges[name] = Gauge(name, metric.help, labels, registry=registry)
            case "histogram":
                self._histograms[name] = Histogram(
                    name, metric.help, labels, registry=registry, buckets=metric.buckets
                )

    def _child(self, metric: M, given: _Given, labels: dict[str, str], known: dict[_Given, M]) -> M:
        """The series of these labels, kept in ``known`` unless it stands for other labels too."""
        values = self._values(given[0], labels)
        child = metric.labels(*values) if values else metric
        if all(value in values for value in labels.values()):  # neither cleaned nor folded
            known[given] = child
        return child

    def _values(self, name: str, labels: dict[str, str]) -> tuple[str, ...]:
        values = _label_values(name, labels)
        known = self._series[name]
        if not values or values in known:
            return values
        with self._lock:
            if len(known) < self._max_series:
                known.add(values)
                return values
        self.count(signals.LABELS_FOLDED, metric=name)
        return (OTHER,) * len(values)

    def _remove(self, gauge: Gauge, name: str, labels: dict[str, str]) -> None:
        values = _label_values(name, labels)
        with self._lock:
            if values in self._series[name]:
                self._series[name].discard(values)
                gauge.remove(*values)


class _WithoutCreated(Collector):
    """Leaves out the ``_created`` samples, which double the number of series and which nobody reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Family]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def _of_kind(metrics: dict[str, T], name: str, kind: str) -> T:
    metric = metrics.get(name)
    if metric is not None:
        return metric
    if name in signals.CATALOGUE:
        raise SignalError(f"{name} is a {signals.CATALOGUE[name].kind}, not a {kind}")
    raise SignalError(f"{name} is not in the catalogue of metrics")


def _label_values(name: str, labels: dict[str, str]) -> tuple[str, ...]:
    expected = signals.CATALOGUE[name].labels
    if labels.keys() != set(expected):
        raise SignalError(f"{name} takes the labels {list(expected)}, not {sorted(labels)}")
    return tuple(_clean(labels[label]) for label in expected)


def _clean(value: str) -> str:
    """Valid UTF-8 of bounded length, without control characters."""
    if value.isascii() and value.isprintable() and len(value) <= _MAX_VALUE_CHARS:
        return value
    text = value[:_MAX_VALUE_CHARS].encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() else "?" for char in text)
