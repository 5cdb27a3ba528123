"""The composition root of the verbs that only look: check, preview and search. None of them waits for what
does not answer, and none writes anything."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from vectide.app import (
    SAMPLE_RECORDS,
    Dependencies,
    build_all,
    build_codec,
    build_decoder,
    build_embedder,
    build_registry,
    build_source,
    build_store,
    check_topics,
    chunk_problems,
    chunks_of_unknown_fit,
    collections_of,
    newest_records,
    unknown_columns,
)
from vectide.core.model import Record, Row, Stamp, Value
from vectide.jobs.check import CheckFailed, Noted, judge_events, run_check
from vectide.jobs.check import Result as Result
from vectide.jobs.check import Verdict as Verdict
from vectide.jobs.executor import SystemClock
from vectide.jobs.preview import Preview as Preview
from vectide.jobs.preview import Previewer, Rules
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
        self._embeds = False
        self._reached = False
        self.results: list[Result] = []

    def run(self) -> None:
        at_embedder = "check VECTIDE_EMBEDDER__BASE_URL, the network and the provider's status"
        self._check("embedder", self._ask_embedder, at_embedder)
        address = "DSN" if self._settings.store.dsn else "URL"
        at_store = f"check VECTIDE_STORE__{address}, the network, and that the server runs"
        self._check("store", self._ask_store, at_store)
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

    def _ask_embedder(self) -> str | Noted:
        embedder = self._given.embedder
        embedder.prepare(self._deadline())
        self._embeds = True
        told = f"{embedder.space}: {embedder.dimensions} dimensions"
        tables = chunks_of_unknown_fit(self._settings, embedder)
        if not tables:
            return told
        unknown = f"nobody knows how long a text it takes, so whether the chunks of {', '.join(tables)} fit"
        return Noted(f"{told}; {unknown}", "set VECTIDE_EMBEDDER__TEXT_TOKENS")

    def _ask_store(self) -> str:
        store = self._given.store
        if not self._embeds:
            names = sorted({mapping.collection for mapping in self._settings.mappings})
            there = {name: _answers(store, name, self._deadline()) for name in names}
            return _listed(there) + " (dimensions not verified: the embedder did not tell its own)"
        specs = collections_of(self._settings, self._given.embedder)
        return _listed({name: _exists(store, spec, self._deadline()) for name, spec in specs.items()})

    def _ask_registry(self, registry: SchemaRegistry) -> str:
        return registry.check(self._deadline())

    def _ask_kafka(self) -> str:
        source = self._given.source
        topics = source.topics_matching(self._deadline())
        self._reached = True
        check_topics(self._settings, source, self._deadline())
        return ", ".join(topics) or "no topic matches yet"

    def _check_source(self) -> None:
        if self._given.reader is None:
            return
        from vectide.app_source import SourceCheck

        try:
            newest = self._newest
        except AdapterError:
            newest = []  # the check of the events says why
        check = SourceCheck(self._settings, self._given, newest, self._deadline)
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
        embedder = build_embedder(settings)
        stack.callback(embedder.close)
        problems = chunk_problems(settings, embedder)
        if problems:
            raise SettingsError(problems)
        store = build_store(settings)
        stack.callback(store.close)
        records, logs = _records(settings, request)
        stored = _stored(settings, request, embedder, store)
        registry = build_registry(settings)
        if registry is not None:
            stack.callback(registry.close)
        rules = Rules(
            decode=build_decoder(settings, build_codec(settings), registry),
            mapping_of=settings.mapping_of,
            capabilities=store.capabilities,
            limits=embedder.limits,
            count_tokens=embedder.count_tokens,
            space=embedder.space if request.stored else _ANY_SPACE,
            can_reread=bool(settings.source.address),
        )
        previewer = Previewer(rules, log_of=lambda topic: logs.get(topic, topic), stored=stored)
        wanted = [record for record in records if _is_wanted(settings, request, record)]
        _save(request, wanted)
        for record in wanted:
            yield previewer.preview(record)


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
    settings: Settings, request: PreviewRequest, embedder: Embedder, store: Store
) -> Callable[[str, Row], Stamp | None]:
    """Asks the store for a row's stamp, or answers that it has none."""
    if not request.stored:
        return lambda _collection, _row: None
    deadline = Deadline.after(_CLOCK, request.timeout_s)
    embedder.prepare(deadline)
    specs = collections_of(settings, embedder)
    there = {name for name, spec in specs.items() if _exists(store, spec, deadline)}

    def ask(collection: str, row: Row) -> Stamp | None:
        if collection not in there:
            return None
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
    collection = _collection(settings, request)
    filters = {**(request.filters or {}), **_tenant(settings, collection, request.tenant)}
    deadline = Deadline.after(_CLOCK, request.timeout_s)
    with ExitStack() as stack:
        embedder = build_embedder(settings)
        stack.callback(embedder.close)
        store = build_store(settings)
        stack.callback(store.close)
        if not isinstance(store, Searchable):
            raise StartupRefused(f"the store {settings.store.kind!r} cannot be searched from here")
        embedder.prepare(deadline)
        if not _exists(store, collections_of(settings, embedder)[collection], deadline):
            raise StartupRefused(f"there is no collection {collection!r} yet: `vectide run` makes it")
        vector = embedder.embed_query(request.text, deadline)
        return best_chunks(lambda n: store.search(collection, vector, n, deadline, filters), request.limit)


def _tenant(settings: Settings, collection: str, whose: str | None) -> Mapping[str, Value]:
    """The condition for the rows of one tenant. Raises SettingsError where there are none."""
    if whose is None:
        return {}
    name = next(mapping.tenant for mapping in settings.mappings if mapping.collection == collection)
    if name is None:
        raise SettingsError([f"the collection {collection} has no tenants: no table of it names a tenant"])
    return {name: whose}


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


def _collection(settings: Settings, request: SearchRequest) -> str:
    """The collection to search, or SettingsError saying which there are."""
    by_table = {mapping.table: mapping.collection for mapping in settings.mappings}
    known = sorted(set(by_table.values()))
    if request.table is not None:
        if request.table not in by_table:
            raise SettingsError([f"there is no table {request.table}: there are {', '.join(by_table)}"])
        return by_table[request.table]
    if request.collection is not None:
        if request.collection not in known:
            raise SettingsError(
                [f"no table fills a collection {request.collection}: there are {', '.join(known)}"]
            )
        return request.collection
    if len(known) > 1:
        raise SettingsError([f"there are several tables, name one with --table: {', '.join(by_table)}"])
    return known[0]
