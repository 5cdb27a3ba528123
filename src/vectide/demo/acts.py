"""The acts of the demo: snapshot, live changes, kill -9, verdict. Each checks what it claims."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from vectide.core import signals
from vectide.core.model import Record
from vectide.demo import catalogue, verify
from vectide.demo.readings import Readings
from vectide.demo.screen import Screen, View, id_of
from vectide.demo.shop import NEW_TEXT, REMOVING, Change, Kind, Shop
from vectide.demo.stage import DEAD_LETTERS, SESSION_TIMEOUT_MS, Stage, points
from vectide.demo.worker import wait_until_ready
from vectide.ports import Hit
from vectide.testing.broker import read_topic

#: Random changes a second in the second act.
RATE: Final = 120
#: New products in the import during which the worker is killed, how fast they come, and when the kill comes.
IMPORT: Final = 1200
IMPORT_RATE: Final = 2500
KILL_AFTER: Final = IMPORT // 4
_KILL_ATTEMPTS: Final = 5

#: For everything that is waited for: only a broken service or machine needs longer.
PATIENCE_S: Final = 60.0

QUERY: Final = "noise cancelling headphones for the train"
IN_STOCK: Final = {"in_stock": True}
TOP: Final = 3
#: The field recorder that becomes a pair of headphones.
RECORDER: Final = 94


class DemoFailed(RuntimeError):
    """Something did not happen that the demo promises."""


@dataclass(slots=True)
class Play:
    """The acts, on one stage and one screen. ``checks`` collects what each of them found."""

    stage: Stage
    screen: Screen
    checks: list[tuple[bool, str]] = field(default_factory=list)
    _began_s: float = field(default_factory=time.monotonic)
    #: Records of the topic that were dealt with before the present act, and what the worker had counted.
    _done_before: int = 0
    _before: Readings = field(default_factory=Readings)

    # --- act 1 ------------------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """The bundled events: a whole table, then every kind of change."""
        recorded = self.stage.recorded
        self.screen.act(
            "1  A table arrives",
            f"{len(recorded)} events that a real Debezium 3.7 wrote for a PostgreSQL table: a snapshot of "
            "200 rows, then updates of text, of other columns, of nothing, deletes, a changed primary key.",
        )
        self.stage.feeder.replay(recorded)
        self.stage.worker.start()
        ready_s = wait_until_ready(self.stage.worker, PATIENCE_S)
        counted = self._until_caught_up()
        skipped = counted.by(signals.CHANGES_SKIPPED, "reason")
        self.screen.say(
            f"The worker was ready after {ready_s:.1f} s. {len(points(self.stage)):,} rows are searchable; "
            f"{counted.embedded} texts were embedded."
        )
        self.screen.say(f"Skipped: {_listed(skipped)}.", style="dim")

    # --- act 2 ------------------------------------------------------------------------------------------

    def live(self, seconds: float) -> None:
        """Random changes at a steady rate, and searches that follow them."""
        self.screen.act(
            "2  The shop is open",
            f"{RATE} random changes a second. Only a new text is worth an embedding: a change of other "
            "columns patches the row, a change of nothing that is mapped is skipped.",
        )
        self._count_from_here()
        self.stage.feeder.trade(RATE)
        self._while_trading(seconds)
        self._search_story()
        self.stage.feeder.rest()
        counted = self._until_caught_up()
        self._settle_live_account(counted)

    def _while_trading(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        with self.screen.watch() as watch:
            while time.monotonic() < end_s:
                watch.show(self._view())
                time.sleep(0.1)

    def _search_story(self) -> None:
        hits = self._search()
        self.screen.say("")
        self.screen.hits(f"Search: “{QUERY}”, in_stock = true", hits)
        name, description = (
            "Noise-cancelling train headphones",
            "Wireless over-ear headphones that keep the train out of your music for thirty hours.",
        )
        self._step(
            lambda shop, now: shop.update(Kind.TEXT, RECORDER, now, name=name, description=description),
            lambda hits: id_of(hits[0]) == RECORDER,
            RECORDER,
        )
        self._step(
            lambda shop, now: shop.update(Kind.METADATA, RECORDER, now, in_stock=False),
            lambda hits: RECORDER not in map(id_of, hits),
            note="metadata only: no embedding, the vector stays",
        )
        first = id_of(self._search()[0])
        self._step(
            lambda shop, now: shop.delete(first, now),
            lambda hits: first not in map(id_of, hits),
        )
        self.screen.say("")

    def _step(
        self,
        make: Callable[[Shop, int], Change],
        seen: Callable[[Sequence[Hit]], bool],
        mark: int | None = None,
        note: str = "",
    ) -> None:
        """Let a change happen and search until the answers show it."""
        change = self.stage.feeder.change(make)
        began_s = time.monotonic()
        while not seen(hits := self._search()):
            if time.monotonic() - began_s > PATIENCE_S:
                raise DemoFailed(f"searches do not show it after {PATIENCE_S:g} s: {change.statement}")
            time.sleep(0.005)
        told = f"seen by searches after {(time.monotonic() - began_s) * 1000:.0f} ms"
        statement = change.statement if len(change.statement) <= 72 else f"{change.statement[:71]}…"
        self.screen.hits(statement, hits, mark=mark, note=told if not note else f"{told}; {note}")

    def _search(self) -> Sequence[Hit]:
        return self.stage.window.search(QUERY, TOP, IN_STOCK)

    def _settle_live_account(self, counted: Readings) -> None:
        changes = self.stage.feeder.changes
        texts = sum(changes[kind] for kind in NEW_TEXT)
        removals = sum(changes[kind] for kind in REMOVING)
        skipped = counted.by(signals.CHANGES_SKIPPED, "reason")
        self.screen.account(
            [
                ("new or changed texts", texts, f"{counted.embedded:,} embedded"),
                ("other columns only", changes[Kind.METADATA], f"{counted.decided('patch'):,} patched"),
                (
                    "nothing that is mapped",
                    changes[Kind.NO_OP] + changes[Kind.UNMAPPED],
                    f"{skipped.get('unchanged', 0):,} skipped",
                ),
                ("deletes, soft ones too", removals, f"{counted.decided('remove'):,} removed"),
            ]
        )
        free = sum(changes.values()) - texts
        self._check(
            counted.embedded <= texts,
            f"{counted.embedded:,} embeddings for {texts:,} new texts; none for the {free:,} other changes",
        )

    # --- act 3 ------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """SIGKILL with work in flight, and what the next start makes of it."""
        self.screen.act(
            "3  kill -9",
            f"A supplier's {IMPORT:,} new products come in, and the worker dies in the middle of them.",
        )
        for _ in range(_KILL_ATTEMPTS):
            wreck = self._kill_in_mid_stream()
            if wreck.in_flight and wreck.stored and wreck.missing:
                break
            self._restart()
        else:
            raise DemoFailed(f"no kill out of {_KILL_ATTEMPTS} met work in flight")
        self._show(wreck)
        began_s = time.monotonic()
        counted = self._restart()
        self.screen.account(
            [
                ("records delivered again", counted.received, ""),
                ("recognised by their stamp", counted.decided("skip"), "already applied: no call, no write"),
                ("texts embedded", counted.embedded, f"{len(wreck.missing):,} were missing"),
            ]
        )
        again = counted.embedded - len(wreck.missing)
        self._check(
            again == 0,
            f"nothing that was stored was embedded twice; whole again {time.monotonic() - began_s:.1f} s "
            f"after the restart",
        )

    def _kill_in_mid_stream(self) -> _Wreck:
        worker, feeder = self.stage.worker, self.stage.feeder
        self._count_from_here()
        feeder.import_products(IMPORT, IMPORT_RATE)
        give_up_s = time.monotonic() + PATIENCE_S
        while (last := self._counted()).embedded < KILL_AFTER:
            if time.monotonic() > give_up_s:
                raise DemoFailed(f"the import does not get ahead: {last.embedded} texts")
        pid = worker.pid
        worker.kill()
        feeder.wait()
        self.stage.quiet()
        records = self._topic()
        committed = self.stage.offsets.committed()
        uncommitted = [record for record in records if record.offset >= committed[record.partition]]
        stored = points(self.stage)
        expected = verify.folded(records, self.stage.codec, self.stage.mapping)
        return _Wreck(
            pid=pid,
            records=len(records),
            uncommitted=len(uncommitted),
            in_flight=last.received - last.settled,
            stored=len(verify.already_stored(uncommitted, stored)),
            missing=frozenset(verify.to_embed(expected, stored)),
        )

    def _show(self, wreck: _Wreck) -> None:
        self.screen.say(f"kill -9 {wreck.pid}", style="bold red")
        self.screen.account(
            [
                ("in flight in the worker", wreck.in_flight, "received and not yet settled"),
                ("records in the topic", wreck.records, "the import went on without the worker"),
                ("not committed", wreck.uncommitted, "will be delivered again"),
                ("  of them already stored", wreck.stored, "must cost nothing"),
                ("  texts not yet stored", len(wreck.missing), "must be embedded, and nothing else"),
            ]
        )
        self.screen.say(
            f"Restarting. Kafka gives the partitions away when the dead member's session is over "
            f"({SESSION_TIMEOUT_MS / 1000:g} s here).",
            style="dim",
        )

    def _restart(self) -> Readings:
        self._done_before = sum(self.stage.offsets.committed().values())
        self._before = Readings()
        self.stage.worker.start()
        wait_until_ready(self.stage.worker, PATIENCE_S)
        return self._until_caught_up()

    # --- act 4 ------------------------------------------------------------------------------------------

    def verdict(self) -> None:
        """The store against the fold of the topic; then a clean stop."""
        records = self._topic()
        self.screen.act(
            "4  The verdict",
            f"The store must be what all {len(records):,} records of the topic fold to: these rows and no "
            "others, their texts, their metadata, and for each the vector of its text.",
        )
        expected = verify.folded(records, self.stage.codec, self.stage.mapping)
        window = self.stage.window
        embed = verify.embedding_all(window.embedder, window.clock)
        found = verify.differences(expected, points(self.stage, vectors=True), embed)
        code = self.stage.worker.stop()
        behind = self.stage.offsets.behind()
        letters = len(read_topic(self.stage.broker.bootstrap, DEAD_LETTERS))
        self._check(
            not found, f"the store equals the fold of the topic: {len(expected):,} rows compared", show=False
        )
        self._check(letters == 0, f"{letters} dead letters", show=False)
        self._check(
            code == 0 and behind == 0,
            f"SIGTERM: exit code {code}, {behind} records left to commit",
            show=False,
        )
        for passed, text in self.checks:
            self.screen.check(passed, text)
        for difference in found[:10]:
            self.screen.say(difference, style="red")

    @property
    def passed(self) -> bool:
        """Whether every check so far did."""
        return all(passed for passed, _ in self.checks)

    # --- shared -----------------------------------------------------------------------------------------

    def _check(self, passed: bool, text: str, *, show: bool = True) -> None:
        self.checks.append((passed, text))
        if show:
            self.screen.check(passed, text)

    def _topic(self) -> list[Record]:
        records = read_topic(self.stage.broker.bootstrap, catalogue.TOPIC)
        if len(records) != self.stage.feeder.records:
            raise DemoFailed(
                f"the broker has {len(records):,} of the {self.stage.feeder.records:,} records: run the demo "
                "for fewer seconds"
            )
        return records

    def _count_from_here(self) -> None:
        """The numbers on the screen begin at 0 again. Nothing may be under way."""
        self._done_before = self.stage.feeder.records
        self._before = self.stage.worker.readings()

    def _counted(self) -> Readings:
        return self.stage.worker.readings().since(self._before)

    def _until_caught_up(self) -> Readings:
        """Show progress until every record of the topic is committed; what the worker counted meanwhile."""
        give_up_s = time.monotonic() + PATIENCE_S
        with self.screen.watch() as watch:
            while self.stage.offsets.behind():
                watch.show(self._view())
                if time.monotonic() > give_up_s:
                    raise DemoFailed(f"the worker is still behind after {PATIENCE_S:g} s")
                time.sleep(0.1)
            watch.show(self._view())
        return self._counted()

    def _view(self) -> View:
        feeder = self.stage.feeder
        counted = self._counted()
        events = feeder.records - self._done_before
        return View(
            elapsed_s=time.monotonic() - self._began_s,
            events=events,
            behind=max(0, events - counted.settled),
            counted=counted,
            freshness=bool(feeder.changes),  # the recorded events are as old as the recording
            now=feeder.last_statement,
        )


@dataclass(frozen=True, slots=True)
class _Wreck:
    """What the kill left behind. ``stored`` counts records that are not committed although the store holds
    them, ``missing`` are the texts that the store lacks."""

    pid: int
    records: int
    uncommitted: int
    in_flight: int
    stored: int
    missing: frozenset[str]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts.items())
