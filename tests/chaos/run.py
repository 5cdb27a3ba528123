"""One run: replicas at work, rows changing, everything failing; then quiet, and the account."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import psycopg
from tests.chaos.account import (
    MAX_SHOWN,
    Bill,
    ahead,
    differences,
    letter_complaints,
    on_the_way,
    read_letters,
    read_store,
)
from tests.chaos.history import TABLES, History
from tests.chaos.stage import PROVIDER_TIMEOUT_S, SESSION_S, Stage
from tests.chaos.trouble import Agenda, Trouble, troubles
from tests.real.jars import StackError
from tests.real.processes import wait_until
from tests.real.service import Service

from vectide.testing.embedding_faults import FaultKind
from vectide.testing.embedding_server import Fault

#: Sent once at every start, to learn how long the vectors are.
PROBE: Final = "dimension"
REPLICAS: Final = 2
ACTIVE_S: Final = 22.0
EVENTS_PER_S: Final = 60
SAMPLE_EVERY_S: Final = 0.5
#: Until all is done after the last trouble: far beyond every back-off, on a slow machine.
PATIENCE_S: Final = 180.0
STOP_GRACE_S: Final = 30.0


@dataclass(slots=True)
class Result:
    """What came of one run. ``complaints`` is empty when every promise was kept."""

    seed: int
    complaints: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, complaints: Iterator[str]) -> None:
        found = list(complaints)
        if found:
            self.complaints.append(f"{what}: {len(found)}")
            self.complaints += [f"  {one}" for one in found[:MAX_SHOWN]]


class Run:
    """``seed`` decides what happens to the rows and what goes wrong; how long everything takes does not
    follow from it."""

    def __init__(self, stage: Stage, seed: int):
        self._stage = stage
        self._chance = random.Random(f"run {seed}")  # noqa: S311
        self._history = History(seed)
        self._bill = Bill()
        self._agenda = Agenda()
        self._result = Result(seed)
        self._replicas: list[Service] = []
        self._leaving: list[Service] = []
        self._store: psycopg.Connection[Any] | None = None
        self._started_s = time.monotonic()

    def __call__(self) -> Result:
        """The whole of it. Raises :class:`StackError` when a part of the stage fails."""
        try:
            self._work()
            self._settle()
            self._judge()
        finally:
            for service in [*self._replicas, *self._leaving]:
                service.close()
            if self._store is not None:
                self._store.close()
        return self._result

    # --- acts ---

    def _work(self) -> None:
        planned = troubles(self._result.seed, ACTIVE_S)
        self._result.facts["troubles"] = [str(trouble) for trouble in planned]
        for trouble in planned:
            self._agenda.add(trouble.at_s, partial(self._begin, trouble))
        for _ in range(REPLICAS):
            self._start_one()
        self._started_s = time.monotonic()
        produced, next_sample_s = 0, 0.0
        while (now_s := self._now_s()) < ACTIVE_S or self._agenda:
            for thing in self._agenda.due(now_s):
                thing()
            more = int(min(now_s, ACTIVE_S) * EVENTS_PER_S) - produced
            for message in self._history.events(more):
                self._stage.produce(message)
            produced += more
            if now_s >= next_sample_s:
                self._sample()
                next_sample_s = now_s + SAMPLE_EVERY_S
            time.sleep(0.02)
        self._stage.flush()

    def _settle(self) -> None:
        """Wait until all is committed and every replica that was told to leave has left."""
        quiet_s = self._now_s()

        def behind() -> dict[tuple[str, int], int]:
            self._sample()
            committed = self._committed()
            return {at: end for at, end in self._history.ends.items() if committed.get(at, 0) != end}

        try:
            wait_until("everything is committed", lambda: not behind(), PATIENCE_S, every_s=SAMPLE_EVERY_S)
        except StackError:
            logs = "\n".join(service.child.log_tail(15) for service in self._replicas)
            self._result.complaints.append(f"never done: {behind()}\n{logs}")
        self._result.facts["done after"] = f"{self._now_s() - quiet_s:.1f} s"
        for service in self._replicas:
            os.kill(service.child.pid, signal.SIGTERM)
        for service in [*self._replicas, *self._leaving]:
            code = service.stop(STOP_GRACE_S)
            if code != 0 and (code != -signal.SIGTERM or service.child.log_text()):  # Python itself starting
                self._result.complaints.append(f"exit code {code}\n{service.child.log_tail(10)}")

    def _judge(self) -> None:
        history, result = self._history, self._result
        with self._stage.connect() as store:
            result.add("store", differences(history, read_store(store, vectors=True)))
        letters = read_letters(self._stage)
        result.add("dead letters", letter_complaints(history, letters, self._stage))
        paid = self._paid()
        result.add("texts", self._bill.complaints(history, paid))
        result.facts |= {
            "records": sum(history.ends.values()),
            "poison": len(history.poison | history.garbage),
            "letters": len(letters),
            "texts paid": len(paid),
            "in vain": f"{self._bill.in_vain(history, paid)} (of {self._bill.allowance()} allowed)",
        }

    # --- trouble ---

    def _begin(self, trouble: Trouble) -> None:
        begin = {
            "kill": self._kill,
            "join": self._join,
            "freeze": self._freeze,
            "provider": self._provider,
            "answers": self._answers,
            "store": self._store_fails,
            "broker": self._broker,
        }[trouble.kind]
        begin(trouble)

    def _kill(self, trouble: Trouble) -> None:
        at_work = [one for one in self._replicas if one.readings() is not None]
        if not at_work:
            self._agenda.add(self._now_s() + 0.5, partial(self._kill, trouble))
            return
        victim = self._chance.choice(at_work)
        victim.kill()
        self._replicas.remove(victim)
        self._bill.killed(self._on_the_way())
        self._moved(self._now_s() + trouble.lasts_s)
        self._agenda.add(self._now_s() + trouble.lasts_s, self._start_one)

    def _join(self, trouble: Trouble) -> None:
        self._start_one()
        self._agenda.add(self._now_s() + trouble.lasts_s, self._leave)

    def _leave(self) -> None:
        if not self._replicas:  # all of them have just been killed
            self._agenda.add(self._now_s() + 0.5, self._leave)
            return
        leaver = self._replicas.pop(self._chance.randrange(len(self._replicas)))
        os.kill(leaver.child.pid, signal.SIGTERM)
        self._leaving.append(leaver)
        self._moved(self._now_s() + STOP_GRACE_S)

    def _freeze(self, trouble: Trouble) -> None:
        if not self._replicas:
            self._agenda.add(self._now_s() + 0.5, partial(self._freeze, trouble))
            return
        victim = self._chance.choice(self._replicas)
        pid = victim.child.pid
        os.kill(pid, signal.SIGSTOP)
        self._moved(self._now_s() + trouble.lasts_s)

        def thaw() -> None:
            if victim.child.exit_code is None:
                os.kill(pid, signal.SIGCONT)

        self._agenda.add(self._now_s() + trouble.lasts_s, thaw)

    def _provider(self, trouble: Trouble) -> None:
        provider, proxy = self._stage.provider, self._stage.to_provider
        self._bill.excuse_between(self._now_s(), self._now_s() + trouble.lasts_s + PROVIDER_TIMEOUT_S)
        match trouble.how.split():
            case ["refuse"]:
                proxy.refuse()
            case ["swallow"]:
                proxy.swallow()
            case ["delay"]:
                proxy.delay(2000)
            case ["reset"]:
                provider.clear()
                provider.plan(Fault("reset_before"))
            case ["status", code]:
                headers = {"Retry-After": "1"} if code == "429" else {}
                provider.clear()
                provider.plan(Fault("status", status=int(code), headers=headers))

        def heal() -> None:
            provider.clear()
            self._stage.refuse_poison()
            proxy.heal()

        self._agenda.add(self._now_s() + trouble.lasts_s, heal)

    def _answers(self, trouble: Trouble) -> None:
        kind: FaultKind = trouble.how  # type: ignore[assignment]
        self._stage.provider.plan(Fault(kind, times=2))
        if kind == "truncated":  # what was paid for does not arrive
            self._bill.excuse_between(self._now_s(), self._now_s() + PROVIDER_TIMEOUT_S)

    def _store_fails(self, trouble: Trouble) -> None:
        proxy, postgres = self._stage.servers.to_store, self._stage.servers.postgres
        match trouble.how:
            case "refuse":
                proxy.refuse()
            case "swallow":
                proxy.swallow()
            case "cut":
                proxy.cut_after(3000)
            case "crash":
                self._forget_store()
                postgres.kill()

        def heal() -> None:
            if trouble.how == "crash":
                postgres.start()
            proxy.heal()

        self._agenda.add(self._now_s() + trouble.lasts_s, heal)

    def _broker(self, trouble: Trouble) -> None:
        proxy = self._stage.servers.to_broker
        match trouble.how:
            case "refuse":
                proxy.refuse()
            case "swallow":
                proxy.swallow()
            case "delay":
                proxy.delay(1500)
        self._moved(self._now_s() + trouble.lasts_s)
        self._agenda.add(self._now_s() + trouble.lasts_s, proxy.heal)

    def _moved(self, until_s: float) -> None:
        """Partitions change hands from now until a session after then, and what is on its way may be lost."""
        self._bill.excuse_between(self._now_s(), until_s + 2 * SESSION_S)

    # --- readings ---

    def _now_s(self) -> float:
        return time.monotonic() - self._started_s

    def _start_one(self) -> None:
        number = len(list(self._stage.servers.folder.glob(f"{self._stage.name}-*")))
        folder = self._stage.servers.folder / f"{self._stage.name}-{number}"
        service = Service(self._stage.environment(), folder)
        service.start()
        self._replicas.append(service)
        self._moved(self._now_s())

    def _committed(self) -> dict[tuple[str, int], int]:
        """By table and partition."""
        asked = [(self._stage.topic(table.name), n) for table in TABLES for n in range(table.partitions)]
        found = self._stage.servers.kafka.committed(self._stage.group, asked)
        names = {self._stage.topic(table.name): table.name for table in TABLES}
        return {(names[topic], partition): offset for (topic, partition), offset in found.items()}

    def _sample(self) -> None:
        """The commits first: what the store holds after them may be newer, never older."""
        committed = self._committed()
        rows = self._rows()
        if rows is None:
            return
        self._result.add(f"commits at {self._now_s():.1f} s", ahead(self._history, committed, rows))
        self._bill.sample(self._now_s(), on_the_way(self._history, self._paid(), committed, rows))
        for service in self._replicas:
            if service.child.exit_code is not None:
                self._result.complaints.append(
                    f"ended by itself with {service.child.exit_code}\n{service.child.log_tail(10)}"
                )
                self._replicas.remove(service)
                break

    def _on_the_way(self) -> Set[str]:
        committed, rows = self._committed(), self._rows()
        return on_the_way(self._history, self._paid(), committed, rows or {})

    def _paid(self) -> list[str]:
        return [text for text in self._stage.provider.answered_texts() if text != PROBE]

    def _rows(self) -> Any:
        """What the store holds; None while it is down."""
        try:
            if self._store is None:
                self._store = self._stage.connect()
            return read_store(self._store)
        except psycopg.OperationalError:
            self._forget_store()
            return None

    def _forget_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
