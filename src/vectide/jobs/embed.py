"""Second station: texts to vectors, across rows, tables and lanes; identical texts are sent once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from vectide.core import signals
from vectide.core.failures import Failure
from vectide.core.model import Position, Row
from vectide.core.pace import Charge, Pace
from vectide.core.planner import EmbedText
from vectide.core.prices import usd_of
from vectide.core.station import Station, Unit
from vectide.jobs.calls import Caller
from vectide.jobs.parts import Parts
from vectide.jobs.routes import Provider
from vectide.jobs.rows import Rows
from vectide.jobs.work import TextItem, Verdict, Work
from vectide.ports import Deadline, Embeddings, Vector


class Embed:
    """The texts for one provider. ``write`` takes on the works whose vectors are all there."""

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        rows: Rows,
        provider: Provider,
        station: Station[TextItem],
        write: Callable[[Work], None],
    ) -> None:
        self._parts = parts
        self._caller = caller
        self._rows = rows
        self._provider = provider
        self._pace = station.pace = Pace(provider.rates)
        self._write = write
        self.station = station
        self._items: dict[str, TextItem] = {}

    def add(self, work: Work, planned: EmbedText) -> None:
        """Queue the texts of ``work``, unless they wait or travel already for another one."""
        if not work.lane.active:
            self._rows.forget(work)  # nobody has paid for it yet: the next owner will
            return
        longest = max(planned.tokens)
        limit = self._provider.embedder.limits.max_text_tokens
        if limit is not None and longest > limit:
            detail = f"{longest} tokens; the model takes {limit}"
            self._rows.poison(work, Verdict("text_too_long", "plan", detail))
            return
        work.vectors = [None] * len(planned.texts)
        work.texts_missing = len(planned.texts)
        for index, (point, text) in enumerate(zip(planned.points, planned.texts, strict=True)):
            item = self._items.get(point.text_hash)
            if item is not None:
                item.waiters.append((work, index))
                self._rows.savings.add(work.lane, "duplicate", 1, self._pace.billed(item.tokens))
                continue
            item = TextItem(text, point.text_hash, planned.tokens[index], [(work, index)])
            self._items[point.text_hash] = item
            self.station.add(item, item.tokens, self._caller.now())

    @property
    def held_s(self) -> float:
        """Seconds until the provider's limits allow the next call."""
        return max(0.0, self._pace.free_s - self._caller.now())

    def start(self, unit: Unit[TextItem]) -> None:
        """Send the unit's texts that somebody still wants."""
        unit.items = [item for item in unit.items if self._is_wanted(item)]
        if not unit.items:
            self.station.withdraw(unit)
            return
        items = list(unit.items)
        for item in items:
            item.in_flight = True
        charge = self._pace.depart(sum(item.tokens for item in items), self._caller.now())
        clock, provider = self._parts.clock, self._provider

        def call() -> Embeddings | None:
            if not any(item.held for item in items):
                return None
            deadline = Deadline.after(clock, provider.timeout_s)
            return provider.embedder.embed([item.text for item in items], deadline)

        def succeed(embeddings: Embeddings | None) -> None:
            self._arrived(unit, items, charge, embeddings)

        def fail(failure: Failure) -> None:
            self._pace.ended(charge)
            self._failed(unit, items, failure)

        self._caller.start(self.station, unit, call, succeed, fail)

    def sweep(self) -> None:
        """Forget the works of lanes that are gone or leaving, unless their text is paid for."""
        for item in list(self._items.values()):
            if not item.in_flight:
                self._forget_waiters(item)

    def under_way(self) -> dict[str, list[tuple[Row, Position]]]:
        """Hash of each text that waits for its vector or travels, and the changes that it is for."""
        return {
            digest: [(work.row, work.merged.position) for work, _ in item.waiters if work.wants_texts]
            for digest, item in self._items.items()
        }

    def _forget_waiters(self, item: TextItem) -> None:
        for work in [work for work, _ in item.waiters if not work.lane.active]:
            self._rows.forget(work)
        item.waiters = [(work, index) for work, index in item.waiters if work.wants_texts]

    def _is_wanted(self, item: TextItem) -> bool:
        self._forget_waiters(item)
        if not item.waiters:
            del self._items[item.digest]
        return bool(item.waiters)

    def _arrived(
        self, unit: Unit[TextItem], items: list[TextItem], charge: Charge, answer: Embeddings | None
    ) -> None:
        if answer is None:
            self._pace.undo(charge)
            self.station.withdraw(unit)
            self._not_sent(items)
            return
        self._pace.answered(charge, self._caller.now(), answer.tokens, answer.allowance)
        self.station.succeeded(unit)
        self._count(items, charge, answer.tokens)
        for index, item in enumerate(items):
            del self._items[item.digest]
            self._deliver(item, answer.vectors[index])

    def _count(self, items: Sequence[TextItem], charge: Charge, billed: int | None) -> None:
        """Texts, tokens and their cost, to each table its part. What is not billed is estimated."""
        telemetry, provider = self._parts.telemetry, self._provider
        texts: Counter[str] = Counter()
        tokens: Counter[str] = Counter()
        for item in items:
            table = item.waiters[0][0].lane.table
            texts[table] += 1
            tokens[table] += item.tokens
        share = 1.0 if billed is None else billed / charge.estimated
        for table, number in texts.items():
            used, labels = tokens[table] * share, {"provider": provider.name, "table": table}
            telemetry.count(signals.TEXTS_EMBEDDED, number, table=table)
            telemetry.count(signals.EMBED_TOKENS, used, **labels)
            if provider.usd_per_million_tokens is not None:
                telemetry.count(signals.EMBED_COST, usd_of(used, provider.usd_per_million_tokens), **labels)

    def _not_sent(self, items: list[TextItem]) -> None:
        """Nobody who was still there wanted the texts when it came to sending them. Since then a new owner
        of the partition may have joined the wait."""
        for item in items:
            item.in_flight = False
            for work, _ in item.waiters:
                if work.wants_texts and not work.lane.held:
                    self._rows.drop_result(work, "embed")
            if self._is_wanted(item):
                self.station.add(item, item.tokens, self._caller.now())

    def _deliver(self, item: TextItem, vector: Vector) -> None:
        for work, index in item.waiters:
            if not work.wants_texts:
                continue
            if not work.lane.held:
                self._rows.drop_result(work, "embed")
                continue
            work.vectors[index] = vector
            work.texts_missing -= 1
            if work.texts_missing == 0:
                self._write(work)

    def _failed(self, unit: Unit[TextItem], items: list[TextItem], failure: Failure) -> None:
        for item in items:
            item.in_flight = False
        poison = self._caller.react(self.station, unit, failure)
        if poison is None:
            return
        (item,) = items
        del self._items[item.digest]
        verdict = Verdict(poison.cause, "embed", failure.detail, unit.attempt + 1)
        for work, _ in item.waiters:
            self._rows.poison(work, verdict)
