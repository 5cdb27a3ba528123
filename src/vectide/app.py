"""The composition root: settings to parts. The only module that knows every adapter; what the parts make up
is in ``app_service`` (the service) and ``app_inspect`` (the verbs that only look)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from vectide import __version__, codecs, embedders, stores
from vectide.core.batcher import BatchLimits
from vectide.core.breaker import BreakerLimits
from vectide.core.failures import Kind
from vectide.core.filters import FilterField
from vectide.core.model import Change, DecodeError, Record, Upserted
from vectide.core.pace import Rates
from vectide.deadletters import KafkaDeadLetters
from vectide.jobs.executor import SystemClock
from vectide.jobs.parts import StreamPolicy
from vectide.jobs.schemas import patient_decoder
from vectide.ops.logs import Logs
from vectide.ops.metrics import PrometheusTelemetry
from vectide.ports import (
    AdapterError,
    Codec,
    CollectionSpec,
    Deadline,
    Embedder,
    MissingExtra,
    RowReader,
    SchemaRegistry,
    StartupRefused,
    Store,
)
from vectide.settings import Settings, SettingsError
from vectide.sources.kafka import KafkaSource
from vectide.sources.kafka_replays import KafkaReplays

T = TypeVar("T")
Decode = Callable[[Record], Change]

#: Records of each partition that the start-up looks at to verify the mapped columns.
SAMPLE_RECORDS: Final = 5
LOOKUP_LINGER_S: Final = 0.005
LOOKUP_CONCURRENCY: Final = 2
#: Planning the rows of one look-up keeps the pump's thread busy: small enough that calls do not wait for it.
LOOKUP_ITEMS: Final = 64


# --- parts ----------------------------------------------------------------------------------------------


def build_embedder(settings: Settings) -> Embedder:
    """The configured embedder; nothing has been asked of its provider yet."""
    given = settings.embedder
    return embedders.load(
        given.kind,
        model=given.model,
        deployment=given.deployment,
        api_version=given.api_version,
        base_url=given.base_url,
        api_key=given.api_key.get_secret_value() if given.api_key else None,
        dimensions=given.dimensions,
        text_tokens=given.text_tokens,
        tokenizer=given.tokenizer,
        concurrency=given.concurrency,
    )


def build_store(settings: Settings) -> Store:
    """The configured store; not connected yet."""
    given = settings.store
    if given.kind != "pgvector":
        return stores.load(given.kind, url=given.address or None, **given.options)
    # Look-ups run beside the writes.
    connections = given.concurrency + LOOKUP_CONCURRENCY
    return stores.load(given.kind, dsn=given.address, pool_size=connections, **given.options)


def build_reader(settings: Settings) -> RowReader | None:
    """Reads the source's tables; None where no source is configured. Not connected yet."""
    if not settings.source.address:
        return None
    try:
        from vectide.sources.tables import PostgresRows
    except ImportError as error:  # also what psycopg raises when its C library is missing
        raise MissingExtra(
            f'reading the source\'s tables needs a package: pip install "vectide[postgres]" ({error})'
        ) from error
    return PostgresRows(settings.source.address)


def build_codec(settings: Settings) -> Codec:
    registry = settings.registry
    framed = {"frame": registry.frame, "format": registry.format} if registry.used else {}
    return codecs.load(
        "registry" if registry.used else "json",
        unavailable=settings.codec.unavailable_placeholder,
        lenient_keys=any(mapping.key for mapping in settings.mappings),
        mapping_of=settings.mapping_of,
        decimals=settings.codec.decimals,
        **framed,
    )


def build_registry(settings: Settings) -> SchemaRegistry | None:
    """The configured schema registry, None without one; nothing has been asked of it yet."""
    given = settings.registry
    if not given.used or given.url is None:
        return None
    try:
        # Its client takes half a second to import: only those pay who need it.
        from vectide.registry import Registry, RegistryAuth
    except ImportError as error:
        raise MissingExtra(
            f'a schema registry needs {error.name}, which is not installed: pip install "vectide[registry]"'
        ) from None
    return Registry(given.url, RegistryAuth(**given.credentials), timeout_s=given.timeout_s)


def build_decoder(settings: Settings, codec: Codec, registry: SchemaRegistry | None) -> Decode:
    """What decodes at once, and waits for the registry where it has to."""
    return patient_decoder(codec, registry, SystemClock(), settings.registry.timeout_s)


def build_source(settings: Settings, telemetry: PrometheusTelemetry, logs: Logs) -> KafkaSource:
    try:
        return KafkaSource(
            bootstrap_servers=settings.kafka.bootstrap_servers,
            group_id=settings.kafka.group_id,
            topics=settings.topics,
            extra=settings.kafka.properties,
            clock=SystemClock(),
            telemetry=telemetry,
            log=logs.get("kafka"),
        )
    except ValueError as error:
        raise SettingsError([f"VECTIDE_KAFKA__EXTRA: {error}"]) from None


def build_dead_letters(settings: Settings) -> KafkaDeadLetters:
    try:
        return KafkaDeadLetters(
            bootstrap_servers=settings.kafka.bootstrap_servers,
            topic=settings.dlq.topic,
            extra=settings.kafka.properties,
            clock=SystemClock(),
            version=__version__,
        )
    except ValueError as error:
        raise SettingsError([f"VECTIDE_KAFKA__EXTRA: {error}"]) from None


def build_replays(settings: Settings, logs: Logs) -> KafkaReplays:
    """Where requests to replay dead letters arrive. Properties that it cannot use were refused before."""
    return KafkaReplays(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        topic=settings.dlq.replays,
        extra=settings.kafka.properties,
        clock=SystemClock(),
        log=logs.get("replays"),
    )


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the process talks to, and how it reads events."""

    embedder: Embedder
    store: Store
    source: KafkaSource
    dead_letters: KafkaDeadLetters
    codec: Codec
    reader: RowReader | None = None
    registry: SchemaRegistry | None = None

    def close(self) -> None:
        """Close every connection but that of the Kafka source, which has a farewell of its own."""
        self.dead_letters.close()
        for part in (self.reader, self.registry):
            if part is not None:
                part.close()
        self.store.close()
        self.embedder.close()


def build_all(settings: Settings, telemetry: PrometheusTelemetry, logs: Logs) -> Dependencies:
    """Everything that is configured; nothing has been asked yet.

    Raises SettingsError with every part's problem: settings that it has no use for, a package that is not
    installed.
    """
    problems: list[str] = []

    def built(name: str, build: Callable[[], T]) -> T | None:
        try:
            return build()
        except (StartupRefused, MissingExtra) as refusal:
            problems.append(f"{name}: {refusal}")
        except SettingsError as error:
            problems.extend(error.problems)
        return None

    embedder = built("VECTIDE_EMBEDDER__KIND", lambda: build_embedder(settings))
    store = built("VECTIDE_STORE__KIND", lambda: build_store(settings))
    source = built("kafka", lambda: build_source(settings, telemetry, logs))
    dead_letters = built("dlq", lambda: build_dead_letters(settings))
    reader = built("VECTIDE_SOURCE__DSN", lambda: build_reader(settings))
    registry = built("VECTIDE_REGISTRY__URL", lambda: build_registry(settings))
    if embedder is not None:
        problems += chunk_problems(settings, embedder)
    if problems or embedder is None or store is None or source is None or dead_letters is None:
        # Kafka's properties are refused by both of its clients.
        raise SettingsError(list(dict.fromkeys(problems)))
    codec = build_codec(settings)
    return Dependencies(embedder, store, source, dead_letters, codec, reader, registry)


def chunk_problems(settings: Settings, embedder: Embedder) -> list[str]:
    """Tables whose chunks could be larger than what the model takes."""
    limit = embedder.limits.chunk_tokens
    if limit is None:
        return []
    model = settings.embedder.model or settings.embedder.kind
    most = f"{model} takes {limit} tokens at most"
    if embedder.limits.max_text_tokens is None:
        most = (
            f"{model} is sure to take {limit} estimated tokens; "
            "with VECTIDE_EMBEDDER__TOKENIZER they are counted, and may be more"
        )
    return [
        f"tables.{mapping.table}.chunk.tokens: is {mapping.chunking.tokens}, but {most}"
        for mapping in settings.mappings
        if mapping.chunking is not None and mapping.chunking.tokens > limit
    ]


def chunks_of_unknown_fit(settings: Settings, embedder: Embedder) -> list[str]:
    """Tables whose chunk size is set though nobody knows how much of a text the provider's model takes."""
    reads_any_length = settings.embedder.kind in ("hashing", "wordllama")
    if reads_any_length or embedder.limits.chunk_tokens is not None:
        return []
    return [mapping.table for mapping in settings.mappings if mapping.chunking is not None]


def policy_of(settings: Settings) -> StreamPolicy:
    """The pump's numbers, from the settings."""
    embedder, store, limits = settings.embedder, settings.store, settings.limits
    write = BatchLimits(store.batch_items, 4 * 2**20, store.linger_ms / 1000, quiet_s=0.002)
    return StreamPolicy(
        lookup=BatchLimits(min(LOOKUP_ITEMS, store.batch_items), None, LOOKUP_LINGER_S, quiet_s=0.002),
        embed=BatchLimits(embedder.batch_items, embedder.batch_tokens, embedder.linger_ms / 1000),
        write=write,
        lookup_concurrency=LOOKUP_CONCURRENCY,
        embed_concurrency=embedder.concurrency,
        embed_rates=Rates(embedder.requests_per_minute, embedder.tokens_per_minute),
        write_concurrency=store.concurrency,
        embed_timeout_s=embedder.timeout_s,
        store_timeout_s=store.timeout_s,
        reread_timeout_s=settings.source.timeout_s,
        schema_timeout_s=settings.registry.timeout_s,
        records_in_flight=limits.records_in_flight,
        bytes_in_flight=int(limits.bytes_in_flight),
        commit_interval_s=limits.commit_interval_s,
        grace_s=limits.grace_s,
        breaker=BreakerLimits(settings.dlq.max_in_a_row, settings.dlq.max_share, settings.dlq.window),
    )


def collections_of(settings: Settings, embedder: Embedder) -> Mapping[str, CollectionSpec]:
    """What each collection must be."""
    filters: dict[str, dict[str, FilterField]] = {}
    for mapping in settings.mappings:
        filters.setdefault(mapping.collection, {}).update({field.name: field for field in mapping.filters})
    return {
        name: CollectionSpec(name, embedder.dimensions, embedder.space, filters=tuple(of.values()))
        for name, of in filters.items()
    }


def check_topics(settings: Settings, source: KafkaSource, deadline: Deadline) -> None:
    """Raises StartupRefused when a subscribed topic does not exist or Kafka refuses us, AdapterError when it
    cannot be reached."""
    try:
        missing = source.missing_topics(settings.topics, deadline)
    except AdapterError as error:
        if error.failure.kind is Kind.OPERATOR:
            raise StartupRefused(
                f"Kafka refuses us ({error.failure.detail}): check the credentials and TLS properties in "
                "VECTIDE_KAFKA__EXTRA"
            ) from None
        raise
    if missing:
        raise StartupRefused(
            f"Kafka has no topic {', '.join(missing)} (or hides it from us): create it, allow Describe, "
            "or correct the table's source"
        )


def newest_records(source: KafkaSource, per_partition: int, deadline: Deadline) -> Sequence[Record]:
    """The newest records of every partition of the subscribed topics, read outside the group."""
    return source.sample(source.topics_matching(deadline), per_partition, deadline)


def unknown_columns(settings: Settings, records: Sequence[Record], decode: Decode) -> list[str]:
    """Problems with mapped columns, from these events; none for tables that have no event among them.

    A column that no event knows would otherwise halt its table at the first record.
    """
    missing: dict[str, set[str]] = {}
    known: dict[str, set[str]] = {}
    for record in records:
        mapping = settings.mapping_of(record.topic)
        try:
            change = decode(record)
        except DecodeError:
            continue  # the stream will meet it, and dead-letter it
        if mapping is not None and isinstance(change, Upserted):
            # Events from before a column was added lack it rightly: one that has it is enough.
            missing.setdefault(mapping.table, set(mapping.mapped_columns)).intersection_update(
                mapping.missing(change)
            )
            known.setdefault(mapping.table, set()).update(change.columns, change.unavailable)
    return [
        f"tables.{table}: the events have no column {', '.join(map(repr, sorted(columns)))}; "
        f"they have {', '.join(sorted(known[table]))}"
        for table, columns in missing.items()
        if columns
    ]
