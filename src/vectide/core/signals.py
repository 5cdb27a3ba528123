"""The catalogue of every metric: names, kinds, labels, meaning. Pure data, read by telemetry and by the docs.

Each constant is the metric's name (a ``str``) that also knows the rest, so code that counts reads
``telemetry.count(signals.RECORDS_RECEIVED, topic=record.topic)``.

Names follow ``vectide_<noun>_<unit>_total``: counters end in ``_total``, durations are in seconds. Label
names come from :data:`LABELS` alone, and label values from closed sets or from what the operator configured:
never a key, a text or any other row content (invariant 13).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]


class Metric(str):
    """A metric's full name, with what it means.

    ``labels`` must all be given at each use. ``buckets`` are the upper bounds of a histogram, without the
    infinite one; empty for the other kinds.
    """

    __slots__ = ("buckets", "help", "kind", "labels")

    kind: Kind
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...]

    def __new__(
        cls,
        name: str,
        kind: Kind,
        help: str,
        labels: tuple[str, ...] = (),
        buckets: tuple[float, ...] = (),
    ) -> Metric:
        metric = super().__new__(cls, name)
        metric.kind, metric.help, metric.labels, metric.buckets = kind, help, labels, buckets
        return metric

    @property
    def name(self) -> str:
        """The name as a plain string."""
        return str(self)


#: Every label, and where its values come from. ``other`` may stand in for any value when there are too many.
LABELS: Final[Mapping[str, str]] = {
    "table": "id of a configured vector table; empty when the record belongs to none",
    "topic": "Kafka topic, as assigned to this process",
    "partition": "Kafka partition number, as assigned to this process",
    "decision": "skip, patch, embed, remove, incomplete, unfit, drift or outranked",
    "outcome": (
        "of a record: written, deleted, skipped, dead_lettered or deferred; of a commit: ok or failed; "
        "of an assignment: assigned, revoked or lost; of a replay: as of a record, or superseded, lost, "
        "gone or failed"
    ),
    "reason": "why a change was skipped or a text was not sent; a closed set for each metric",
    "station": "schema, lookup, reread, embed, write, dead_letter, purge or replay",
    "provider": "name of the embedding provider that is called; empty at other stations",
    "store": "name of the store that is called; empty at other stations",
    "cause": "short name of a failure, from the closed set of the adapter that saw it",
    "state": "starting, running, waiting, halted or stopping",
    "metric": "name of a metric of this catalogue",
    "version": "version of vectide",
}

#: Seconds: from a local call to a provider's time-out.
LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: Seconds: fine where a healthy pipeline sits, then wide enough to tell minutes from hours.
FRESHNESS_BUCKETS: Final = (
    *(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60),
    *(120, 300, 900, 3600, 21600, 86400),
)
#: Items of one call.
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024, 2048)


# --- records: received = written + deleted + skipped + dead-lettered + deferred + in flight ---------------

RECORDS_RECEIVED: Final = Metric(
    "vectide_records_received_total", "counter", "Records that Kafka delivered.", ("topic",)
)
RECORDS_SETTLED: Final = Metric(
    "vectide_records_settled_total",
    "counter",
    "Records that reached their one terminal state.",
    ("table", "outcome"),
)
RECORDS_FORGOTTEN: Final = Metric(
    "vectide_records_forgotten_total",
    "counter",
    "Records received but given up unsettled, because their partition went away or was rewound; "
    "they are delivered again.",
    ("topic",),
)
RECORDS_IN_FLIGHT: Final = Metric(
    "vectide_in_flight_records", "gauge", "Records received and not yet settled and committed."
)
BYTES_IN_FLIGHT: Final = Metric(
    "vectide_in_flight_bytes",
    "gauge",
    "Memory taken by records received and not yet settled and committed, and by the chunks of their rows, "
    "estimated.",
)
OLDEST_UNSETTLED: Final = Metric(
    "vectide_oldest_unsettled_age_seconds",
    "gauge",
    "Time since the oldest unsettled record was received; 0 when there is none.",
)

# --- changes -----------------------------------------------------------------------------------------------

CHANGES_DECIDED: Final = Metric(
    "vectide_changes_decided_total", "counter", "Changes by what was decided.", ("table", "decision")
)
CHANGES_SKIPPED: Final = Metric(
    "vectide_changes_skipped_total", "counter", "Changes with nothing to do, by reason.", ("table", "reason")
)
COMPLETED: Final = Metric(
    "vectide_changes_completed_total",
    "counter",
    "Changes that lacked an unavailable column, by where its value came from: carried (from the row's point "
    "under its former primary key) or reread (from the source's table). What the row's own point supplied is "
    "not counted.",
    ("table", "reason"),
)
ROWS_PURGED: Final = Metric(
    "vectide_rows_purged_total",
    "counter",
    "Rows removed because their source table was truncated.",
    ("table",),
)
POSITION_BREAKS: Final = Metric(
    "vectide_position_breaks_total",
    "counter",
    "Changes whose position does not continue that of their row's last one, by reason: topic (another one, "
    "perhaps of the same name), partition (another one), source (restored, or replaced by another server). "
    "They are not dropped for it.",
    ("table", "reason"),
)
FRESHNESS: Final = Metric(
    "vectide_freshness_seconds",
    "histogram",
    "From the commit in the source database to searchable in the store; never below 0.",
    ("table",),
    FRESHNESS_BUCKETS,
)

# --- texts -------------------------------------------------------------------------------------------------

TEXTS_EMBEDDED: Final = Metric(
    "vectide_texts_embedded_total", "counter", "Texts whose vector was computed.", ("table",)
)
TEXTS_SAVED: Final = Metric(
    "vectide_texts_saved_total",
    "counter",
    "Texts that needed no embedding call: unchanged, merged (superseded while waiting), duplicate (identical "
    "to another text of the batch), cache (its vector was made before) or replay (already stored).",
    ("table", "reason"),
)
TOKENS_SAVED: Final = Metric(
    "vectide_tokens_saved_total",
    "counter",
    "Tokens of the texts that needed no embedding call, estimated.",
    ("table", "reason"),
)
COST_SAVED: Final = Metric(
    "vectide_cost_saved_usd_total",
    "counter",
    "What those tokens would have cost, in USD.",
    ("table", "reason"),
)
EMBED_TOKENS: Final = Metric(
    "vectide_embed_tokens_total",
    "counter",
    "Tokens that the embedding provider billed; estimated where it does not say.",
    ("provider", "table"),
)
EMBED_COST: Final = Metric(
    "vectide_embed_cost_usd_total",
    "counter",
    "What those tokens cost, in USD, where the price is known.",
    ("provider", "table"),
)

EMBED_ALLOWED: Final = Metric(
    "vectide_embed_allowed_calls",
    "gauge",
    "Embedding calls that may be in flight now: as configured, or fewer after the provider asked to slow "
    "down.",
    ("provider",),
)
EMBED_HELD: Final = Metric(
    "vectide_embed_held_seconds",
    "gauge",
    "Time until the limits per minute, or what the provider says is left of them, allow the next embedding "
    "call; 0 when they do.",
    ("provider",),
)

# --- stations ----------------------------------------------------------------------------------------------

_STATION: Final = ("station", "provider", "store")
STATION_CALLS: Final = Metric(
    "vectide_station_calls_total", "counter", "Calls made, retries included.", _STATION
)
STATION_ERRORS: Final = Metric(
    "vectide_station_errors_total", "counter", "Calls or single items that failed.", (*_STATION, "cause")
)
STATION_RETRIES: Final = Metric(
    "vectide_station_retries_total", "counter", "Calls that will be tried again.", (*_STATION, "cause")
)
STATION_LATENCY: Final = Metric(
    "vectide_station_latency_seconds",
    "histogram",
    "Duration of one call, failed ones included.",
    _STATION,
    LATENCY_BUCKETS,
)
STATION_BATCH: Final = Metric(
    "vectide_station_batch_items", "histogram", "Items in one call.", _STATION, BATCH_BUCKETS
)
STATION_QUEUED: Final = Metric(
    "vectide_station_queued_items", "gauge", "Items waiting for a call or a retry.", _STATION
)
STATION_IN_FLIGHT: Final = Metric(
    "vectide_station_in_flight_calls", "gauge", "Calls that have not returned.", _STATION
)

# --- Kafka -------------------------------------------------------------------------------------------------

LAG: Final = Metric(
    "vectide_lag_records",
    "gauge",
    "Records between the committed offset and the end of the partition, for assigned partitions.",
    ("topic", "partition"),
)
COMMITTED_OFFSET: Final = Metric(
    "vectide_committed_offset", "gauge", "Next offset to read after a restart.", ("topic", "partition")
)
COMMITS: Final = Metric("vectide_commits_total", "counter", "Offset commits by result.", ("outcome",))
LANES: Final = Metric("vectide_lanes", "gauge", "Partitions assigned to this process.")
PAUSED_PARTITIONS: Final = Metric(
    "vectide_paused_partitions",
    "gauge",
    "Assigned partitions that are not fetched now (back-pressure, halt).",
)
ASSIGNMENTS: Final = Metric(
    "vectide_partition_assignments_total",
    "counter",
    "Partitions given and taken by rebalances.",
    ("outcome",),
)
RESULTS_DROPPED: Final = Metric(
    "vectide_results_dropped_total",
    "counter",
    "Results that came back after their partition had gone; neither committed nor counted as done.",
    ("station",),
)
SOURCE_ERRORS: Final = Metric(
    "vectide_source_errors_total", "counter", "Errors that the Kafka client reported.", ("cause",)
)
DEAD_LETTERS: Final = Metric(
    "vectide_dead_letters_total",
    "counter",
    "Records that the dead-letter topic has confirmed.",
    ("table", "cause"),
)

REPLAYS: Final = Metric(
    "vectide_replays_total",
    "counter",
    "Requests to replay a dead letter that ended here, by what became of them.",
    ("table", "outcome"),
)

# --- the process -------------------------------------------------------------------------------------------

STATE: Final = Metric(
    "vectide_state", "gauge", "1 for the state the service is in, 0 for others.", ("state",)
)
HALTED: Final = Metric(
    "vectide_halted",
    "gauge",
    "1 while the service is halted for this cause and an operator must act.",
    ("cause",),
)
LABELS_FOLDED: Final = Metric(
    "vectide_metric_labels_folded_total",
    "counter",
    "Samples counted under the label value 'other', because the metric has too many label values.",
    ("metric",),
)
BUILD_INFO: Final = Metric(
    "vectide_build_info", "gauge", "Always 1; the version is in the label.", ("version",)
)


#: Every metric of this module by name, in the order above.
CATALOGUE: Final[Mapping[str, Metric]] = {
    metric.name: metric for metric in list(globals().values()) if isinstance(metric, Metric)
}
