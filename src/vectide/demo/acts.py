"""The first, second and last act: a snapshot, live changes with searches that follow them, the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from vectide.core import signals
from vectide.demo import verify
from vectide.demo.play import PATIENCE_S, DemoFailed, Play
from vectide.demo.readings import Readings
from vectide.demo.screen import id_of
from vectide.demo.shop import NEW_TEXT, REMOVING, Change, Kind, Shop
from vectide.demo.stage import DEAD_LETTERS, points
from vectide.ports import Hit
from vectide.testing.broker import read_topic

#: Random changes a second in the second act.
RATE: Final = 120

QUERY: Final = "noise cancelling headphones for the train"
IN_STOCK: Final = {"in_stock": True}
TOP: Final = 3
#: The field recorder that becomes a pair of headphones.
RECORDER: Final = 94

_STATEMENT_CHARS: Final = 90
_SHOWN_DIFFERENCES: Final = 10

#: What the reasons to skip mean, where their names do not say it.
_REASONS: Final = {"superseded": "superseded by a newer change", "absent": "deletes of rows not there"}


# --- act 1 ----------------------------------------------------------------------------------------------


def snapshot(play: Play) -> None:
    """The bundled events: a whole table, then every kind of change."""
    recorded = play.stage.recorded
    play.screen.act(
        "1  A table arrives",
        f"{len(recorded)} events that a real Debezium 3.7 wrote for a PostgreSQL table: a snapshot of 200 "
        "rows, then updates of text, of other columns, of nothing, deletes, a changed primary key.",
    )
    play.stage.feeder.replay(recorded)
    ready_s = play.start_worker()
    counted = play.until_caught_up()
    play.screen.say(
        f"The worker was ready after {ready_s:.1f} s. {len(points(play.stage)):,} rows are searchable; "
        f"{counted.embedded} texts were embedded."
    )
    play.screen.say(f"Skipped: {_listed(counted.by(signals.CHANGES_SKIPPED, 'reason'))}.", style="dim")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{count} {_REASONS.get(reason, reason.replace('_', ' '))}" for reason, count in counts.items()
    )


# --- act 2 ----------------------------------------------------------------------------------------------


def live(play: Play, seconds: float) -> None:
    """Random changes at a steady rate for so long, and searches that follow single ones of them."""
    play.screen.act(
        "2  The shop is open",
        f"{RATE} random changes a second. Only a new text is worth an embedding: a change of other columns "
        "patches the row, a change of nothing that is mapped is skipped.",
    )
    play.count_from_here()
    play.stage.feeder.trade(RATE)
    end_s = time.monotonic() + seconds
    with play.screen.watch() as watch:
        while time.monotonic() < end_s:
            watch.show(play.view())
            time.sleep(0.1)
    _search_story(play)
    play.stage.feeder.rest()
    _settle_account(play, play.until_caught_up())


def _search_story(play: Play) -> None:
    """The answers to one search after an update of text, one of metadata, and a delete."""
    play.screen.say("")
    play.screen.hits(f"Search: “{QUERY}”, in_stock = true", _search(play))
    name, description = (
        "Noise-cancelling train headphones",
        "Wireless over-ear headphones that keep the train out of your music for thirty hours.",
    )
    _step(
        play,
        lambda shop, now: shop.update(Kind.TEXT, RECORDER, now, name=name, description=description),
        lambda hits: id_of(hits[0]) == RECORDER,
        "a new text: embedded",
    )
    _step(
        play,
        lambda shop, now: shop.update(Kind.METADATA, RECORDER, now, in_stock=False),
        lambda hits: RECORDER not in map(id_of, hits),
        "metadata only: patched, no embedding",
    )
    first = id_of(_search(play)[0])
    _step(
        play,
        lambda shop, now: shop.delete(first, now),
        lambda hits: first not in map(id_of, hits),
        "removed",
    )
    play.screen.say("")


def _step(
    play: Play, make: Callable[[Shop, int], Change], seen: Callable[[Sequence[Hit]], bool], what: str
) -> None:
    """Let a change happen and search until the answers show it."""
    began_s = time.monotonic()
    change = play.stage.feeder.change(make)
    while not seen(hits := _search(play)):
        if time.monotonic() - began_s > PATIENCE_S:
            raise DemoFailed(f"searches do not show it after {PATIENCE_S:g} s: {change.statement}")
        time.sleep(0.005)
    took_ms = (time.monotonic() - began_s) * 1000
    statement = change.statement
    if len(statement) > _STATEMENT_CHARS:
        statement = f"{statement[: _STATEMENT_CHARS - 1]}…"
    note = f"{what}; searches show it after {took_ms:.0f} ms"
    play.screen.hits(statement, hits, mark=RECORDER, note=note)


def _search(play: Play) -> Sequence[Hit]:
    return play.stage.window.search(QUERY, TOP, IN_STOCK)


def _settle_account(play: Play, counted: Readings) -> None:
    changes = play.stage.feeder.changes
    texts = sum(changes[kind] for kind in NEW_TEXT)
    nothing = changes[Kind.NO_OP] + changes[Kind.UNMAPPED]
    unchanged = counted.total(signals.CHANGES_SKIPPED, reason="unchanged")
    removals = sum(changes[kind] for kind in REMOVING)
    play.screen.account(
        [
            ("new or changed texts", texts, f"{counted.embedded:,} embedded"),
            ("other columns only", changes[Kind.METADATA], f"{counted.decided('patch'):,} patched"),
            ("nothing that is mapped", nothing, f"{unchanged:,} skipped"),
            ("deletes, soft ones too", removals, f"{counted.decided('remove'):,} removed"),
        ]
    )
    play.screen.say("(Changes of one row that wait for each other are merged and count once.)", style="dim")
    play.check(
        counted.embedded <= texts,
        f"{sum(changes.values()):,} changes cost {counted.embedded:,} embeddings: at most one for each of "
        f"the {texts:,} new texts",
    )
    play.screen.check(*play.checks[-1])


# --- act 4 ----------------------------------------------------------------------------------------------


def verdict(play: Play) -> None:
    """The store against the fold of the topic; then a clean stop."""
    stage = play.stage
    records = play.topic()
    play.screen.act(
        "4  The verdict",
        f"The store must be what all {len(records):,} records of the topic fold to: these rows and no "
        "others, their texts, their metadata, and for each the vector of its text.",
    )
    expected = verify.folded(records, stage.codec, stage.mapping, stage.window.able)
    embed = verify.embedding_all(stage.window.embedder, stage.window.clock, stage.window.able)
    found = verify.differences(expected, points(stage, vectors=True), embed)
    play.check(
        not found,
        f"the store equals the fold of the topic: {len(expected):,} rows, texts, metadata and vectors",
    )
    code = stage.worker.stop()
    behind = stage.offsets.behind()
    play.check(code == 0 and behind == 0, f"SIGTERM: exit code {code}, {behind} records left to commit")
    letters = len(read_topic(stage.broker.bootstrap, DEAD_LETTERS))
    play.check(letters == 0, f"{letters} dead letters")
    for passed, text in play.checks:
        play.screen.check(passed, text)
    for difference in found[:_SHOWN_DIFFERENCES]:
        play.screen.say(difference, style="red")
    if len(found) > _SHOWN_DIFFERENCES:
        play.screen.say(f"… and {len(found) - _SHOWN_DIFFERENCES:,} more", style="red")
