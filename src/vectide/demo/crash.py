"""The third act: SIGKILL with work in flight, and what the next start makes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from vectide.demo import verify
from vectide.demo.play import PATIENCE_S, DemoFailed, Play
from vectide.demo.readings import Readings
from vectide.demo.stage import SESSION_TIMEOUT_MS, points

#: New products in the import during which the worker is killed, and how many come in a second.
IMPORT: Final = 1500
IMPORT_RATE: Final = 1000
#: The kill comes when this many of them are done and not committed: a replay must find them in the store.
DONE_AND_UNCOMMITTED: Final = 300
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Wreck:
    """What the kill left behind.

    ``in_flight`` and ``lost_vectors`` (texts that were embedded and never stored) are by the worker's last
    answer; the rest is what the broker and the store say. ``stored`` counts records that are not committed
    although the store holds them, ``missing`` are the texts that the store lacks.
    """

    pid: int
    records: int
    uncommitted: int
    in_flight: int
    lost_vectors: int
    stored: int
    missing: frozenset[str]

    @property
    def in_mid_stream(self) -> bool:
        """Whether the worker had work in flight, and done work that it had not committed."""
        return bool(self.in_flight and self.stored and self.missing)


def crash(play: Play) -> None:
    """Kill the worker in the middle of an import, restart it, and see what it pays for."""
    play.screen.act(
        "3  kill -9",
        f"A supplier's {IMPORT:,} new products come in, and the worker dies in the middle of them.",
    )
    for _ in range(_ATTEMPTS):
        wreck = _kill_during_import(play)
        if wreck.in_mid_stream:
            break
        play.screen.say("The kill met no work in flight: once more.", style="dim")
        play.start_worker()
        play.until_caught_up()
    else:
        raise DemoFailed(f"no kill out of {_ATTEMPTS} met work in flight")
    _show(play, wreck)
    began_s = time.monotonic()
    play.start_worker()
    counted = play.until_caught_up()
    _settle_account(play, wreck, counted, time.monotonic() - began_s)


def _kill_during_import(play: Play) -> Wreck:
    stage = play.stage
    play.count_from_here()
    stage.feeder.import_products(IMPORT, IMPORT_RATE)
    last = _wait_for_the_moment(play)
    pid = stage.worker.pid
    stage.worker.kill()
    stage.feeder.wait()
    stage.quiet()
    records = play.topic()
    committed = stage.offsets.committed()
    uncommitted = [record for record in records if record.offset >= committed[record.partition]]
    stored = points(stage)
    missing = verify.to_embed(verify.folded(records, stage.codec, stage.mapping, stage.window.able), stored)
    return Wreck(
        pid=pid,
        records=len(records),
        uncommitted=len(uncommitted),
        in_flight=last.received - last.settled,
        lost_vectors=max(0, last.embedded - (IMPORT - len(missing))),
        stored=len(verify.already_stored(uncommitted, stored)),
        missing=frozenset(missing),
    )


def _wait_for_the_moment(play: Play) -> Readings:
    """Until enough is done and not committed, or everything is done; the worker's last answer."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        committed = play.committed()
        last = play.counted()
        if last.settled >= IMPORT or last.settled - committed >= DONE_AND_UNCOMMITTED:
            return last
        if time.monotonic() > give_up_s:
            raise DemoFailed(f"the import does not get on: {last.settled} of {IMPORT} are done")


def _show(play: Play, wreck: Wreck) -> None:
    play.screen.say(f"kill -9 {wreck.pid}", style="bold red")
    play.screen.account(
        [
            ("in flight in the worker", wreck.in_flight, "received and not yet settled"),
            (
                "  of them embedded",
                wreck.lost_vectors,
                "but not stored: these die with it, and are paid again",
            ),
            ("records in the topic", wreck.records, "the import went on without the worker"),
            ("not committed", wreck.uncommitted, "will be delivered again"),
            ("  of them already stored", wreck.stored, "must cost nothing"),
            ("  texts not yet stored", len(wreck.missing), "must be embedded, and nothing else"),
        ]
    )
    session_s = SESSION_TIMEOUT_MS / 1000
    play.screen.say(
        "",
        "vectide run, again. Kafka hands the partitions over when the dead member's session ends: "
        f"{session_s:g} s here.",
        style="dim",
    )


def _settle_account(play: Play, wreck: Wreck, counted: Readings, took_s: float) -> None:
    play.screen.account(
        [
            ("records delivered again", counted.received, ""),
            ("recognised by their stamp", counted.decided("skip"), "already applied: no call, no write"),
            ("texts embedded", counted.embedded, f"{len(wreck.missing):,} were missing"),
        ]
    )
    play.check(
        counted.embedded == len(wreck.missing),
        f"after kill -9: {counted.embedded:,} texts embedded, exactly the {len(wreck.missing):,} that were "
        "not stored",
    )
    play.screen.check(*play.checks[-1])
    play.screen.say(f"Whole again {took_s:.1f} s after the restart.")
