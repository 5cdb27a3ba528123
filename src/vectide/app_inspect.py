"""The composition root of the verbs that only look: check, preview and search. None of them waits for what
does not answer, and none writes anything."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from vectide.app import (
    SAMPLE_RECORDS,
    Closable,
    Dependencies,
    build_all,
    build_codec,
    build_decoder,
    build_embedder,
    build_registry,
    build_source,
    build_store,
    built_once,
    check_topics,
    chunk_problems,
    chunks_of_unknown_fit,
    collections_of,
    newest_records,
    once,
    routes_of,
    spec_of,
    unknown_columns,
)
from vectide.core.mapping import TableMapping
from vectide.core.model import Record, Row, Stamp, Value
from vectide.jobs.check import CheckFailed, Noted, judge_events, run_check
from vectide.jobs.check import Result as Result
from vectide.jobs.check import Verdict as Verdict
from vectide.jobs.executor import SystemClock
from vectide.jobs.preview import Decision, Previewer, Rules
from vectide.jobs.preview import Preview as Preview
from vectide.jobs.routes import Provider, Routes, Target, is_several, providers_of, targets_of
from vectide.ops.logs import Logs
from vectide.ops.metrics import PrometheusTelemetry
from vectide.ports import (
    AdapterError,
    CollectionSpec,
    Deadline,
    Embedder,
    Hit,
    SchemaRegistry,
    Searchable,
    StartupRefused,
    Store,
    Verifiable,
)
from vectide.settings import Settings, SettingsError
from vectide.testing.recordings import read_recording, write_recording

#: Stands for the space of a provider that nobody has asked: nothing stored is compared with it.
_ANY_SPACE: Final = "preview"
_CLOSE_S: Final = 5.0
_CLOCK: Final = SystemClock()


def _quiet() -> tuple[PrometheusTelemetry, Logs]:
    """Nobody looks at the metrics, and what the Kafka client would log is in the errors of its calls."""
    return PrometheusTelemetry(), Logs(stream=io.StringIO())


def _exists(store: Store, spec: CollectionSpec, deadline: Deadline) -> bool:
    """Whether the collection is there, and as far as the store can tell what ``spec`` says."""
    if isinstance(store, Verifiable):
        return store.verify(spec, deadline)
    return _answers(store, spec.name, deadline)


def _answers(store: Store, collection: str, deadline: Deadline) -> bool:
    """Whether the store knows the collection, by asking it for nothing."""
    try:
        store.stamps(collection, [], deadline)
    except AdapterError as error:
        if error.failure.cause == "collection_missing":
            return False
        raise
    return True


# --- check ----------------------------------------------------------------------------------------------


def check(
    settings: Settings, timeout_s: float, tell: Callable[[Result], None] = lambda _result: None
) -> list[Result]:
    """Ask every dependency once. ``tell`` hears each result as it comes; ``timeout_s`` is for each call."""
    given = build_all(settings, *_quiet())
    try:
        checks = _Checks(settings, given, timeout_s, tell)
        checks.run()
    finally:
        given.source.close(Deadline.after(_CLOCK, _CLOSE_S))
        given.close()
    return checks.results


class _Checks:
    def __init__(
        self, settings: Settings, given: Dependencies, timeout_s: float, tell: Callable[[Result], None]
    ) -> None:
        self._settings = settings
        self._given = given
        self._timeout_s = timeout_s
        self._tell = tell
        self._routes = routes_of(settings, given)
        self._well: set[Provider] = set()
        self._reached = False
        self.results: list[Result] = []

    def run(self) -> None:
        several = is_several(self._routes)
        for provider in providers_of(self._routes):
            tables = [table for table, route in self._routes.items() if route.provider is provider]
            address = self._settings.name_of(tables[0], "embedder.base_url")
            name = f"embedder {provider.name}" if several else "embedder"
            advice = f"check {address}, the network and the provider's status"
            self._check(name, partial(self._ask_embedder, provider, tables), advice)
        for target in targets_of(self._routes):
            routes = {table: route for table, route in self._routes.items() if route.target is target}
            table = next(iter(routes))
            field = "dsn" if self._settings.store_of(table).dsn else "url"
            address = self._settings.name_of(table, f"store.{field}")
            name = f"store {target.name}" if several else "store"
            advice = f"check {address}, the network, and that the server runs"
            self._check(name, partial(self._ask_store, target, routes), advice)
        if self._given.registry is not None:
            at_registry = "check VECTIDE_REGISTRY__URL, the network, and that the registry runs"
            self._check("registry", partial(self._ask_registry, self._given.registry), at_registry)
        at_kafka = "check VECTIDE_KAFKA__BOOTSTRAP_SERVERS and __EXTRA, the network, and that the brokers run"
        self._check("topics", self._ask_kafka, at_kafka)
        self._check_source()
        if not self._reached:
            self._skip("Kafka does not answer", "dead letters", "events")
            return
        self._check("dead letters", self._ask_dead_letters, at_kafka)
        self._check("events", self._ask_events, "check Kafka and the schema registry, and the network")

    def _deadline(self) -> Deadline:
        return Deadline.after(_CLOCK, self._timeout_s)

    def _check(self, name: str, ask: Callable[[], str | Noted], unreachable: str) -> None:
        self._add(run_check(name, ask, unreachable=unreachable))

    def _skip(self, why: str, *names: str) -> None:
        for name in names:
            self._add(Result(name, Verdict.SKIPPED, why))

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self._tell(result)

    def _ask_embedder(self, provider: Provider, tables: Sequence[str]) -> str | Noted:
        embedder = provider.embedder
        embedder.prepare(self._deadline())
        self._well.add(provider)
        told = f"{embedder.space}: {embedder.dimensions} dimensions"
        unfit = chunks_of_unknown_fit(self._settings, tables, embedder)
        if not unfit:
            return told
        unknown = f"nobody knows how long a text it takes, so whether the chunks of {', '.join(unfit)} fit"
        return Noted(f"{told}; {unknown}", f"set {self._settings.name_of(tables[0], 'embedder.text_tokens')}")

    def _ask_store(self, target: Target, routes: Routes) -> str:
        store = target.store
        asked = {table: route for table, route in routes.items() if route.provider in self._well}
        try:
            known = collections_of(self._settings, asked)
        except SettingsError as error:
            raise CheckFailed("; ".join(error.problems)) from None
        there = {one.spec.name: _exists(store, one.spec, self._deadline()) for one in known}
        mappings = self._settings.mappings
        names = {mapping.collection for mapping in mappings if mapping.table in routes.keys() - asked.keys()}
        unknown = sorted(names - there.keys())
        told = _listed(there | {name: _answers(store, name, self._deadline()) for name in unknown})
        return f"{told} (dimensions not verified: the embedder did not tell its own)" if unknown else told

    def _ask_registry(self, registry: SchemaRegistry) -> str:
        return registry.check(self._deadline())

    def _ask_kafka(self) -> str:
        source = self._given.source
        topics = source.topics_matching(self._deadline())
        self._reached = True
        check_topics(self._settings, source, self._deadline())
        return ", ".join(topics) or "no topic matches yet"

    def _check_source(self) -> None:
        readers = once(self._given.readers.values())
        if not readers:
            return
        from vectide.app_source import SourceCheck

        try:
            newest = self._newest
        except AdapterError:
            newest = []  # the check of the events says why
        for reader in readers:
            tables = [table for table, own in self._given.readers.items() if own is reader]
            name = f"source of {', '.join(tables)}" if len(readers) > 1 else "source"
            check = SourceCheck(self._settings, self._given, reader, (name, tables), newest, self._deadline)
            for result in check.results():
                self._add(result)

    @cached_property
    def _newest(self) -> Sequence[Record]:
        """The newest records of every partition, none where Kafka does not answer."""
        if not self._reached:
            return []
        return newest_records(self._given.source, SAMPLE_RECORDS, self._deadline())

    def _ask_dead_letters(self) -> str:
        self._given.dead_letters.check(self._deadline())
        return self._settings.dlq.topic

    def _ask_events(self) -> str:
        newest = self._newest
        decode = build_decoder(self._settings, self._given.codec, self._given.registry)
        problems = unknown_columns(self._settings, newest, decode)
        if problems:
            raise CheckFailed("; ".join(problems), "correct the columns in the tables file")
        found = []
        for mapping in self._settings.mappings:
            records = [record for record in newest if self._settings.mapping_of(record.topic) is mapping]
            found.append(f"{mapping.table}: {judge_events(records, decode, mapping)}")
        return "; ".join(found)


def _listed(collections: Mapping[str, bool]) -> str:
    return ", ".join(
        f"{name} {'is there' if there else 'is made at the first start'}"
        for name, there in collections.items()
    )


# --- preview --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """What to preview: these ``records`` (of ``logs`` with these identities, by topic), else those of a
    file, else the ``newest`` ones of every partition; only those of ``tables`` if any are named. ``stored``:
    decide from what the store holds. ``save``: a file to write the records to, as a recording. ``timeout_s``
    is for each call."""

    recording: Path | None = None
    newest: int = 10
    tables: Sequence[str] = ()
    stored: bool = False
    save: Path | None = None
    timeout_s: float = 10.0
    records: Sequence[Record] | None = None
    logs: Mapping[str, str] = field(default_factory=dict)


def preview(settings: Settings, request: PreviewRequest) -> Iterator[Preview]:
    """What would become of each record, in order. Nothing is written; only ``stored`` asks the provider."""
    unknown = sorted(set(request.tables) - {mapping.table for mapping in settings.mappings})
    if unknown:
        raise SettingsError([f"there is no table {', '.join(unknown)}: there are {_tables(settings)}"])
    with ExitStack() as stack:
        made, kept = _made(settings, request.tables or list(settings.tables), stack)
        problems = chunk_problems(settings, made)
        if problems:
            raise SettingsError(problems)
        records, logs = _records(settings, request)
        registry = build_registry(settings)
        if registry is not None:
            stack.callback(registry.close)
        decode = build_decoder(settings, build_codec(settings), registry)
        previewers = {
            table: Previewer(
                Rules(
                    decode=decode,
                    mapping_of=settings.mapping_of,
                    capabilities=kept[table].capabilities,
                    limits=embedder.limits,
                    count_tokens=embedder.count_tokens,
                    space=_space(embedder, request),
                    can_reread=bool(settings.source_of(table).address),
                ),
                log_of=lambda topic: logs.get(topic, topic),
                stored=_stored(settings, request, table, embedder, kept[table]),
            )
            for table, embedder in made.items()
        }
        wanted = [record for record in records if _is_wanted(settings, request, record)]
        _save(request, wanted)
        for record in wanted:
            mapping = settings.mapping_of(record.topic)
            if mapping is None:
                yield Preview(record, Decision.SKIP, "unmapped_topic")
            else:
                yield previewers[mapping.table].preview(record)


def _made(
    settings: Settings, tables: Iterable[str], stack: ExitStack
) -> tuple[Mapping[str, Embedder], Mapping[str, Store]]:
    """Embedder and store of each of the tables; ``stack`` closes them."""
    made = built_once(tables, settings.embedder_of, lambda _table, given: build_embedder(given))
    kept = built_once(tables, settings.store_of, lambda _table, given: build_store(given))
    parts: list[Closable] = [*made.values(), *kept.values()]
    for part in once(parts):
        stack.callback(part.close)
    return made, kept


def _space(embedder: Embedder, request: PreviewRequest) -> str:
    if not request.stored:
        return _ANY_SPACE
    embedder.prepare(Deadline.after(_CLOCK, request.timeout_s))
    return embedder.space


def _is_wanted(settings: Settings, request: PreviewRequest, record: Record) -> bool:
    mapping = settings.mapping_of(record.topic)
    return not request.tables or (mapping is not None and mapping.table in request.tables)


def _save(request: PreviewRequest, records: Sequence[Record]) -> None:
    if request.save is None:
        return
    try:
        write_recording(request.save, records)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise SettingsError([f"{request.save} cannot be written: {why}"]) from None


def _records(settings: Settings, request: PreviewRequest) -> tuple[Sequence[Record], Mapping[str, str]]:
    """The records in order, and the identity of the log of each topic where it is known."""
    if request.records is not None:
        return request.records, request.logs
    if request.recording is not None:
        try:
            return read_recording(request.recording), {}
        except OSError as error:
            problem = f"{request.recording} cannot be read: {error.strerror or type(error).__name__}"
        except ValueError as error:
            problem = str(error)
        raise SettingsError([problem])
    deadline = Deadline.after(_CLOCK, request.timeout_s)
    source = build_source(settings, *_quiet())
    try:
        check_topics(settings, source, deadline)
        records = newest_records(source, request.newest, deadline)
        logs = source.log_ids(sorted({record.topic for record in records}))
    finally:
        source.close(Deadline.after(_CLOCK, _CLOSE_S))
    return sorted(records, key=lambda record: (record.topic, record.partition, record.offset)), logs


def _stored(
    settings: Settings, request: PreviewRequest, table: str, embedder: Embedder, store: Store
) -> Callable[[str, Row], Stamp | None]:
    """Asks the store for the stamp of a row of the table, or answers that it has none."""
    if not request.stored:
        return lambda _collection, _row: None
    (mapping,) = (mapping for mapping in settings.mappings if mapping.table == table)
    if not _exists(store, spec_of(settings, mapping, embedder), Deadline.after(_CLOCK, request.timeout_s)):
        return lambda _collection, _row: None

    def ask(collection: str, row: Row) -> Stamp | None:
        deadline = Deadline.after(_CLOCK, request.timeout_s)
        return store.stamps(collection, [row], deadline, values=True)[0]

    return ask


def _tables(settings: Settings) -> str:
    return ", ".join(mapping.table for mapping in settings.mappings)


# --- search ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A query: its text, the table or the collection (neither: the only one), metadata that must be equal,
    and whose rows (None: everybody's)."""

    text: str
    table: str | None = None
    collection: str | None = None
    filters: Mapping[str, Value] | None = None
    tenant: str | None = None
    limit: int = 10
    timeout_s: float = 10.0


def search(settings: Settings, request: SearchRequest) -> Sequence[Hit]:
    """The rows most similar to the text, each by its best chunk. Raises StartupRefused when the collection
    cannot be searched."""
    if not request.text.strip():
        raise SettingsError(["the text to search for is blank"])
    mapping = _searched(settings, request)
    collection, kind = mapping.collection, settings.store_of(mapping.table).kind
    filters = {**(request.filters or {}), **_tenant(mapping, request.tenant)}
    deadline = Deadline.after(_CLOCK, request.timeout_s)
    with ExitStack() as stack:
        made, kept = _made(settings, [mapping.table], stack)
        embedder, store = made[mapping.table], kept[mapping.table]
        if not isinstance(store, Searchable):
            raise StartupRefused(f"the store {kind!r} cannot be searched from here")
        embedder.prepare(deadline)
        if not _exists(store, spec_of(settings, mapping, embedder), deadline):
            raise StartupRefused(f"there is no collection {collection!r} yet: `vectide run` makes it")
        vector = embedder.embed_query(request.text, deadline)
        return best_chunks(lambda n: store.search(collection, vector, n, deadline, filters), request.limit)


def _tenant(mapping: TableMapping, whose: str | None) -> Mapping[str, Value]:
    """The condition for the rows of one tenant. Raises SettingsError where there are none."""
    if whose is None:
        return {}
    if mapping.tenant is None:
        raise SettingsError([f"table {mapping.table} has no tenants: it names no column for them"])
    return {mapping.tenant: whose}


def best_chunks(search: Callable[[int], Sequence[Hit]], limit: int) -> Sequence[Hit]:
    """The best chunk of each of the ``limit`` best rows. ``search`` finds so many chunks, best first; more
    are asked for while several are of the same rows."""
    wanted = limit
    while True:
        found = search(wanted)
        best: dict[Row, Hit] = {}
        for hit in found:
            best.setdefault(hit.row, hit)
        if len(best) >= limit or len(found) < wanted:
            return list(best.values())[:limit]
        wanted *= 4


def _searched(settings: Settings, request: SearchRequest) -> TableMapping:
    """A table of the collection to search, or SettingsError saying which there are."""
    by_table = {mapping.table: mapping for mapping in settings.mappings}
    found = list(settings.mappings)
    if request.table is not None:
        if request.table not in by_table:
            raise SettingsError([f"there is no table {request.table}: there are {', '.join(by_table)}"])
        return by_table[request.table]
    if request.collection is not None:
        found = [mapping for mapping in found if mapping.collection == request.collection]
        if not found:
            known = sorted({mapping.collection for mapping in settings.mappings})
            raise SettingsError(
                [f"no table fills a collection {request.collection}: there are {', '.join(known)}"]
            )
    if len({(mapping.collection, settings.store_of(mapping.table)) for mapping in found}) > 1:
        names = ", ".join(mapping.table for mapping in found)
        which = request.collection
        several = "there are several tables" if which is None else f"collection {which} is in several stores"
        raise SettingsError([f"{several}: choose by the table, --table is one of {names}"])
    return found[0]
