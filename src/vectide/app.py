"""The composition root: settings to parts. The only module that knows every adapter; what the parts make up
is in ``app_service`` (the service) and ``app_inspect`` (the verbs that only look)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

from vectide import __version__, codecs, embedders, stores
from vectide.cache import CachingEmbedder, DiskCache, MemoryCache, VectorCache
from vectide.core.batcher import BatchLimits
from vectide.core.breaker import BreakerLimits
from vectide.core.failures import Kind
from vectide.core.mapping import TableMapping
from vectide.core.model import Change, DecodeError, Record, Upserted
from vectide.core.pace import Rates
from vectide.core.prices import usd_per_million_tokens
from vectide.deadletters import KafkaDeadLetters
from vectide.jobs.executor import SystemClock
from vectide.jobs.parts import StreamPolicy
from vectide.jobs.routes import Provider, Route, Routes, Target
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
from vectide.settings_sections import EmbedderSettings, SourceSettings, StoreSettings
from vectide.sources.kafka import KafkaSource
from vectide.sources.kafka_replays import KafkaReplays

S = TypeVar("S", bound=Hashable)
T = TypeVar("T")
Decode = Callable[[Record], Change]

#: Records of each partition that the start-up looks at to verify the mapped columns.
SAMPLE_RECORDS: Final = 5
LOOKUP_LINGER_S: Final = 0.005
LOOKUP_CONCURRENCY: Final = 2
#: Planning the rows of one look-up keeps the pump's thread busy: small enough that calls do not wait for it.
LOOKUP_ITEMS: Final = 64


# --- parts ----------------------------------------------------------------------------------------------


def build_embedder(given: EmbedderSettings) -> Embedder:
    """The configured embedder; nothing has been asked of its provider yet."""
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


def build_store(given: StoreSettings) -> Store:
    """The configured store; not connected yet."""
    if given.kind != "pgvector":
        return stores.load(given.kind, url=given.address or None, **given.options)
    # Look-ups run beside the writes.
    connections = given.concurrency + LOOKUP_CONCURRENCY
    return stores.load(given.kind, dsn=given.address, pool_size=connections, **given.options)


def build_cache(settings: Settings, logs: Logs) -> VectorCache | None:
    """Where vectors are kept that were made before; None where none are."""
    given = settings.cache
    match given.kind:
        case "memory":
            return MemoryCache(given.most_bytes)
        case "disk":
            return DiskCache(Path(given.path or ""), given.most_bytes, logs.get("cache"))
    return None


def build_reader(given: SourceSettings) -> RowReader | None:
    """Reads the source's tables; None where no source is configured. Not connected yet."""
    if not given.address:
        return None
    try:
        from vectide.sources.tables import PostgresRows
    except ImportError as error:  # also what psycopg raises when its C library is missing
        raise MissingExtra(
            f'reading the source\'s tables needs a package: pip install "vectide[postgres]" ({error})'
        ) from error
    return PostgresRows(given.address)


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
    """What the process talks to, and how it reads events. ``embedders``, ``stores`` and ``readers`` are by
    table; those that are configured alike share one. A table without a source has no reader."""

    embedders: Mapping[str, Embedder]
    stores: Mapping[str, Store]
    source: KafkaSource
    dead_letters: KafkaDeadLetters
    codec: Codec
    readers: Mapping[str, RowReader]
    registry: SchemaRegistry | None = None
    cache: VectorCache | None = None

    def close(self) -> None:
        """Close every connection but that of the Kafka source, which has a farewell of its own."""
        self.dead_letters.close()
        if self.registry is not None:
            self.registry.close()
        parts: list[Closable] = [*self.readers.values(), *self.stores.values(), *self.embedders.values()]
        for part in once(parts):
            part.close()
        if self.cache is not None:
            self.cache.close()


class Closable(Protocol):
    """What has to be closed in the end."""

    def close(self) -> None: ...


def once(parts: Iterable[T]) -> list[T]:
    """Each of them once, in their order."""
    return list({id(part): part for part in parts}.values())


def built_once(
    tables: Iterable[str], section_of: Callable[[str], S], build: Callable[[str, S], T | None]
) -> dict[str, T]:
    """What is built for each table: once for all that say the same, and for the first of them."""
    made: dict[S, T | None] = {}
    found: dict[str, T] = {}
    for table in tables:
        section = section_of(table)
        if section not in made:
            made[section] = build(table, section)
        part = made[section]
        if part is not None:
            found[table] = part
    return found


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

    def of_tables(key: str, section_of: Callable[[str], S], build: Callable[[S], T | None]) -> dict[str, T]:
        def named(table: str, section: S) -> T | None:
            return built(settings.name_of(table, key), lambda: build(section))

        return built_once(settings.tables, section_of, named)

    cache = built("VECTIDE_CACHE__KIND", lambda: build_cache(settings, logs))

    def remembering(section: EmbedderSettings) -> Embedder:
        embedder = build_embedder(section)
        return embedder if cache is None else CachingEmbedder(embedder, cache)

    made = of_tables("embedder.kind", settings.embedder_of, remembering)
    kept = of_tables("store.kind", settings.store_of, build_store)
    source = built("kafka", lambda: build_source(settings, telemetry, logs))
    dead_letters = built("dlq", lambda: build_dead_letters(settings))
    readers = of_tables("source.dsn", settings.source_of, build_reader)
    registry = built("VECTIDE_REGISTRY__URL", lambda: build_registry(settings))
    problems += chunk_problems(settings, made) + vector_problems(settings, kept)
    if problems or source is None or dead_letters is None:
        # Kafka's properties are refused by both of its clients.
        raise SettingsError(list(dict.fromkeys(problems)))
    return Dependencies(made, kept, source, dead_letters, build_codec(settings), readers, registry, cache)


def chunk_problems(settings: Settings, made: Mapping[str, Embedder]) -> list[str]:
    """Tables whose chunks could be larger than what their model takes. ``made``: the embedder of each."""
    problems = []
    for mapping in settings.mappings:
        limits = made[mapping.table].limits if mapping.table in made else None
        limit = None if limits is None else limits.chunk_tokens
        if limits is None or limit is None or mapping.chunking is None or mapping.chunking.tokens <= limit:
            continue
        given = settings.embedder_of(mapping.table)
        most = f"{given.model or given.kind} takes {limit} tokens at most"
        if limits.max_text_tokens is None:
            tokenizer = settings.name_of(mapping.table, "embedder.tokenizer")
            most = (
                f"{given.model or given.kind} is sure to take {limit} estimated tokens; "
                f"with {tokenizer} they are counted, and may be more"
            )
        problems.append(f"tables.{mapping.table}.chunk.tokens: is {mapping.chunking.tokens}, but {most}")
    return problems


def chunks_of_unknown_fit(settings: Settings, tables: Iterable[str], embedder: Embedder) -> list[str]:
    """Those of the embedder's ``tables`` whose chunk size is set though nobody knows how much of a text its
    model takes."""
    if embedder.limits.chunk_tokens is not None:
        return []
    of_any_length = ("hashing", "model2vec", "wordllama")
    return [
        mapping.table
        for mapping in settings.mappings
        if mapping.table in tables
        and mapping.chunking is not None
        and settings.embedder_of(mapping.table).kind not in of_any_length
    ]


def policy_of(settings: Settings) -> StreamPolicy:
    """The pump's numbers, from the settings."""
    limits = settings.limits
    return StreamPolicy(
        reread_timeout_s=settings.source.timeout_s,
        schema_timeout_s=settings.registry.timeout_s,
        records_in_flight=limits.records_in_flight,
        bytes_in_flight=int(limits.bytes_in_flight),
        commit_interval_s=limits.commit_interval_s,
        grace_s=limits.grace_s,
        breaker=BreakerLimits(settings.dlq.max_in_a_row, settings.dlq.max_share, settings.dlq.window),
    )


def routes_of(settings: Settings, given: Dependencies) -> Routes:
    """The way of each table's rows. Providers and stores are called by their kind and model; one that another
    is called like already has the id of its first table behind that."""
    providers: dict[EmbedderSettings, Provider] = {}
    targets: dict[StoreSettings, Target] = {}
    routes: dict[tuple[Provider, Target, SourceSettings], Route] = {}
    found: dict[str, Route] = {}
    for table in settings.tables:
        by, to, source = (settings.embedder_of(table), settings.store_of(table), settings.source_of(table))
        if by not in providers:
            called = _unique(f"{by.kind}/{by.model}" if by.model else by.kind, table, providers.values())
            providers[by] = _provider(by, called, given.embedders[table])
        if to not in targets:
            targets[to] = _target(to, _unique(to.kind, table, targets.values()), given.stores[table])
        route = Route(providers[by], targets[to], given.readers.get(table))
        found[table] = routes.setdefault((route.provider, route.target, source), route)
    return found


def _provider(given: EmbedderSettings, name: str, embedder: Embedder) -> Provider:
    batch = BatchLimits(given.batch_items, given.batch_tokens, given.linger_ms / 1000)
    rates = Rates(given.requests_per_minute, given.tokens_per_minute)
    price = given.usd_per_million_tokens
    if price is None:
        price = usd_per_million_tokens(given.kind, given.model)
    return Provider(name, embedder, batch, given.concurrency, given.timeout_s, rates, price)


def _target(given: StoreSettings, name: str, store: Store) -> Target:
    return Target(
        name,
        store,
        BatchLimits(min(LOOKUP_ITEMS, given.batch_items), None, LOOKUP_LINGER_S, quiet_s=0.002),
        BatchLimits(given.batch_items, 4 * 2**20, given.linger_ms / 1000, quiet_s=0.002),
        LOOKUP_CONCURRENCY,
        given.concurrency,
        given.timeout_s,
    )


def _unique(name: str, table: str, others: Iterable[Provider | Target]) -> str:
    return f"{name}:{table}" if any(other.name == name for other in others) else name


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection of a store, what it must be, and the tables that fill it."""

    target: Target
    spec: CollectionSpec
    tables: tuple[str, ...] = ()


def spec_of(settings: Settings, mapping: TableMapping, embedder: Embedder) -> CollectionSpec:
    """What the collection that a table fills must be, when the table's embedder is prepared."""
    store = settings.store_of(mapping.table)
    filters = {
        by.name: by
        for other in settings.mappings
        if other.collection == mapping.collection and settings.store_of(other.table) == store
        for by in other.filters
    }
    return CollectionSpec(
        mapping.collection,
        embedder.dimensions,
        embedder.space,
        filters=tuple(filters.values()),
        vector=mapping.vector,
    )


def collections_of(settings: Settings, routes: Routes) -> Sequence[Collection]:
    """What each collection of these tables must be, when their embedders are prepared. Raises SettingsError
    for tables that fill one with vectors of different spaces."""
    found: dict[tuple[Target, str], Collection] = {}
    problems: list[str] = []
    for mapping in settings.mappings:
        if mapping.table not in routes:
            continue
        target, embedder = routes[mapping.table].target, routes[mapping.table].provider.embedder
        spec = spec_of(settings, mapping, embedder)
        at = (target, mapping.collection)
        known = found.setdefault(at, Collection(target, spec))
        if (known.spec.space, known.spec.dimensions) != (spec.space, spec.dimensions):
            problems.append(
                f"tables.{mapping.table}.collection: table {known.tables[0]} fills {mapping.collection} with "
                f"vectors of {known.spec.space}, and this one with vectors of {spec.space}: "
                "give it a collection of its own"
            )
        found[at] = replace(known, tables=(*known.tables, mapping.table))
    if problems:
        raise SettingsError(problems)
    return list(found.values())


def vector_problems(settings: Settings, kept: Mapping[str, Store]) -> list[str]:
    """Tables that name a vector where points have one without a name. ``kept``: the store of each."""
    problems = []
    for mapping in settings.mappings:
        able = kept[mapping.table].capabilities if mapping.table in kept else None
        if able is not None and mapping.vector is not None and not able.named_vectors:
            problems.append(
                f"tables.{mapping.table}.vector: points have one vector in {able.kind}: leave it out"
            )
    return problems


def check_topics(settings: Settings, source: KafkaSource, deadline: Deadline) -> None:
    """Raises StartupRefused when a subscribed topic does not exist or belongs to several tables, or Kafka
    refuses us, AdapterError when it cannot be reached."""
    try:
        missing = source.missing_topics(settings.topics, deadline)
        there = source.topics_matching(deadline)
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
    claims = {topic: settings.tables_of(topic) for topic in there}
    shared = [f"{topic} by {' and '.join(tables)}" for topic, tables in claims.items() if len(tables) > 1]
    if shared:
        raise StartupRefused(
            f"a topic may fill one table only, and these are taken in by several: {', '.join(shared)}: "
            "make the expressions in their source narrower"
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
