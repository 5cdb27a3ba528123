"""What the acts share: stage and screen, progress that is watched, and the checks that they add to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from vectide.core.model import Record
from vectide.demo import catalogue
from vectide.demo.readings import Readings
from vectide.demo.screen import Screen, View
from vectide.demo.stage import Stage
from vectide.demo.worker import wait_until_ready
from vectide.testing.broker import read_topic

#: For everything that is waited for: only a broken service or machine needs longer.
PATIENCE_S: Final = 60.0


class DemoFailed(RuntimeError):
    """Something did not happen that the demo promises."""


@dataclass(slots=True)
class Play:
    """One performance. ``checks`` has a line for everything that was found to be so, or not."""

    stage: Stage
    screen: Screen
    checks: list[tuple[bool, str]] = field(default_factory=list)
    _began_s: float = field(default_factory=time.monotonic)
    #: Records of the topic that were dealt with before the present act, and what the worker had counted.
    _done_before: int = 0
    _before: Readings = field(default_factory=Readings)

    @property
    def passed(self) -> bool:
        """Whether every check so far did."""
        return all(passed for passed, _ in self.checks)

    def check(self, passed: bool, text: str) -> None:
        """Note it for the verdict."""
        self.checks.append((passed, text))

    def start_worker(self) -> float:
        """Start the worker where the group's commits are; seconds until it was ready."""
        self._done_before = sum(self.stage.offsets.committed().values())
        self._before = Readings()
        self.stage.worker.start()
        return wait_until_ready(self.stage.worker, PATIENCE_S)

    def count_from_here(self) -> None:
        """The numbers begin at 0 again. Nothing may be under way."""
        self._done_before = self.stage.feeder.records
        self._before = self.stage.worker.readings()

    def counted(self) -> Readings:
        """What the worker counted since then."""
        return self.stage.worker.readings().since(self._before)

    def committed(self) -> int:
        """Records that were committed since then, as the broker says."""
        return sum(self.stage.offsets.committed().values()) - self._done_before

    def until_caught_up(self) -> Readings:
        """Show progress until every record of the topic is committed; what the worker counted meanwhile."""
        give_up_s = time.monotonic() + PATIENCE_S
        with self.screen.watch() as watch:
            while self.stage.offsets.behind():
                watch.show(self.view())
                if time.monotonic() > give_up_s:
                    raise DemoFailed(f"the worker is still behind after {PATIENCE_S:g} s")
                time.sleep(0.1)
            watch.show(self.view())
        return self.counted()

    def view(self) -> View:
        """The numbers of this instant."""
        feeder = self.stage.feeder
        counted = self.counted()
        events = feeder.records - self._done_before
        return View(
            elapsed_s=time.monotonic() - self._began_s,
            events=events,
            behind=max(0, events - counted.settled),
            counted=counted,
            freshness=bool(feeder.changes),  # the recorded events are as old as the recording
            now=feeder.last_statement,
        )

    def topic(self) -> list[Record]:
        """Every record of the topic. Raises :class:`DemoFailed` when the broker has not kept them all."""
        records = read_topic(self.stage.broker.bootstrap, catalogue.TOPIC)
        produced = self.stage.feeder.records
        if len(records) != produced:
            raise DemoFailed(f"the broker has {len(records):,} of the {produced:,} records")
        return records
