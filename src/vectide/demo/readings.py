"""What the worker says about itself at one moment: its ``/metrics``, parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from vectide.core import signals

_Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Readings:
    """Samples by name and labels. Those of a process that has just started are empty, which reads as 0."""

    samples: Mapping[tuple[str, _Labels], float] = field(default_factory=dict)

    @classmethod
    def parse(cls, exposition: str) -> Readings:
        return cls(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(exposition)
                for sample in family.samples
            }
        )

    def total(self, name: str, /, **labels: str) -> int:
        """The sum over all series that carry these labels."""
        wanted = labels.items()
        return round(
            sum(
                value
                for (sample, found), value in self.samples.items()
                if sample == name and wanted <= dict(found).items()
            )
        )

    def by(self, name: str, label: str) -> dict[str, int]:
        """The sums for each value of a label, the largest first, those of 0 left out."""
        sums = self._sums(name, label)
        return {key: round(count) for key, count in sorted(sums.items(), key=lambda item: -item[1]) if count}

    def _sums(self, name: str, label: str) -> dict[str, float]:
        sums: dict[str, float] = {}
        for (sample, found), value in self.samples.items():
            if sample == name:
                key = dict(found)[label]
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def since(self, earlier: Readings) -> Readings:
        """What was counted in between (gauges lose their meaning)."""
        return Readings({at: value - earlier.samples.get(at, 0.0) for at, value in self.samples.items()})

    def quantile_s(self, name: str, share: float) -> float | None:
        """The time below which this share of the observations lies, interpolated within its bucket; None
        without observations."""
        buckets = sorted((float(bound), count) for bound, count in self._sums(f"{name}_bucket", "le").items())
        if not buckets or not buckets[-1][1]:
            return None
        wanted = share * buckets[-1][1]
        low_s, below = 0.0, 0.0
        for bound_s, count in buckets:
            if count >= wanted:
                if bound_s == float("inf"):
                    return low_s
                return low_s + (bound_s - low_s) * (wanted - below) / max(1, count - below)
            low_s, below = bound_s, count
        return low_s

    # --- the ones that the demo speaks of ---------------------------------------------------------------

    @property
    def received(self) -> int:
        return self.total(signals.RECORDS_RECEIVED)

    @property
    def settled(self) -> int:
        return self.total(signals.RECORDS_SETTLED)

    @property
    def embedded(self) -> int:
        return self.total(signals.TEXTS_EMBEDDED)

    @property
    def saved(self) -> int:
        return self.total(signals.TEXTS_SAVED)

    @property
    def skipped(self) -> int:
        """Records with nothing to do, for whatever reason."""
        return self.total(signals.CHANGES_SKIPPED)

    def decided(self, decision: str) -> int:
        return self.total(signals.CHANGES_DECIDED, decision=decision)

    @property
    def saved_share(self) -> float:
        """The part of the texts that needed no embedding call, 0 to 1."""
        return self.saved / max(1, self.saved + self.embedded)
