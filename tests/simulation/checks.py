"""The invariants of the pump, checked from outside while it runs and when it has come to rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tests.simulation.broker import NEW_LOG, Place, log_of, place_of
from tests.simulation.process import Process
from tests.simulation.scenario import (
    POISON_CHUNK,
    POISON_PRICE,
    POISON_TEXT,
    PRODUCTS,
    TABLES,
    Scenario,
)
from tests.simulation.world import OTHER_SPACE, SOON, SPACE, World, space_of, vector_of

from vectide.core import signals
from vectide.core.completion import completed
from vectide.core.lane import Lane
from vectide.core.model import (
    Change,
    Deleted,
    Order,
    Point,
    Position,
    Row,
    Stamp,
    Truncated,
    Upserted,
    listed_hash,
    text_hash,
)
from vectide.ports import Partition, Patch, Put, Remove, Stored, Write
from vectide.testing.fold import Expected, Fold, Leaves, Nothing
from vectide.testing.store import row_of

#: The changes of one row in the order of the log, and what each leaves.
History = list[tuple[Place, Leaves]]


class Violation(AssertionError):
    """An invariant does not hold."""


def require(holds: bool, message: str) -> None:
    """Raise :class:`Violation` unless it holds."""
    if not holds:
        raise Violation(message)


class Watch:
    """Looks at one world while process after process runs in it."""

    def __init__(self, world: World, scenario: Scenario) -> None:
        self._world = world
        self._scenario = scenario
        self._processes: list[Process] = []
        #: Whose call takes effect.
        self._actor: Process | None = None
        #: Rows that were written by a process that no longer owned their partition. In some ways nothing in
        #: the store keeps it from that, and what becomes of the row is nobody's fault.
        self._visited: set[Row] = set()
        self._haunted: set[Row] = set()
        self._settled: set[Place] = set()
        #: Told of every record that settles.
        self.settles: Callable[[], None] = lambda: None
        #: By process and table.
        self._dead_in_a_row: Counter[tuple[str, str]] = Counter()
        #: Up to where the commits were found to be right.
        self._verified: dict[Partition, int] = {}
        self._partitions: dict[Row, set[int]] = {}
        self._generations: dict[Row, set[int]] = {}
        for (topic, partition, offset), change in world.broker.changes.items():
            row = self._row_at((topic, partition, offset), change)
            if row is not None:
                self._partitions.setdefault(row, set()).add(partition)
                self._generations.setdefault(row, set()).add(offset // NEW_LOG)
        #: Records of topics that were deleted before anybody was done with them.
        self._gone: set[Place] = set()
        self._abandoned: set[Row] = set()
        #: Records that were applied, even if they are among the dead letters.
        self._applied: set[Place] = set()
        #: The last change of each row and partition that settled while the row had a point.
        self._newest: dict[tuple[Row, int], Position] = {}
        world.provider.watch = lambda texts: self._texts_sent(texts, SPACE)
        world.other_provider.watch = lambda texts: self._texts_sent(texts, OTHER_SPACE)
        world.store.watch = self._row_written
        world.store.changed = self._row_changed
        self._histories: dict[Row, History] = {}
        self._leaves: Mapping[Place, Leaves] = {}
        self._tell_histories()

    def follow(self, process: Process) -> None:
        """Watch this process, too."""
        self._processes.append(process)
        intake = process.stream.intake
        inner = intake.settle

        def settle(lane: Lane, offset: int, outcome: str, reason: str) -> None:
            self._record_settles(process, lane, offset, outcome, reason)
            inner(lane, offset, outcome, reason)
            self.settles()

        intake.settle = settle  # type: ignore[method-assign]

    def unfollow(self, process: Process) -> None:
        """The process is gone."""
        self._processes.remove(process)

    def acts(self, process: Process) -> None:
        """A call of this process takes effect now."""
        self._actor = process

    def log_line(self, process: Process, event: str, fields: Mapping[str, Any]) -> None:
        """Something was logged: is it a flood of dead letters that nobody stops?"""
        table = (process.name, str(fields.get("table", "")))
        if event == "table_halted":
            self._dead_in_a_row[table] = 0
        elif event == "dead_letter":
            self._dead_in_a_row[table] += 1
            flood = self._dead_in_a_row[table]
            require(flood <= process.dead_in_a_row, f"{flood} dead letters of {table!r} in a row")

    def _row_at(self, place: Place, change: Change | None) -> Row | None:
        """The row that a record is about, as far as anybody can tell."""
        if isinstance(change, Upserted | Deleted):
            return _row_of(place[0], change)
        return TABLES[place[0]].row_at(self._world.broker.keys.get(place))

    def recreated(self, topic: str) -> None:
        """The topic was deleted and created again. What nobody was done with by then is nobody's."""
        begins = self._world.broker.begins
        self._gone |= {
            place
            for place in self._world.broker.changes
            if place[0] == topic and place[2] < begins[place[:2]] and place not in self._settled
        }
        rows = (self._row_at(place, self._world.broker.changes[place]) for place in self._gone)
        self._abandoned = {row for row in rows if row is not None}
        self._tell_histories()

    def _tell_histories(self) -> None:
        self._histories = self._fold()
        self._leaves = {place: leaves for history in self._histories.values() for place, leaves in history}

    def _is_owned(self, process: Process, row: Row) -> bool:
        """Whether all that is told of the row comes to this process alone."""
        topic, group = _topic_of(row), self._world.group
        return all(group.owns(process.source, (topic, at)) for at in self._partitions.get(row, ()))

    # --- at every instant -------------------------------------------------------------------------------

    def step(self) -> None:
        """After every step of the pump."""
        self._check_committed()
        for process in self._processes:
            self._check_counts(process)
            self._check_budget(process)

    def _check_committed(self) -> None:
        for partition, committed in self._world.broker.committed.items():
            if committed == self._verified.get(partition):
                continue
            for _, record in self._world.broker.logs[partition]:
                place = place_of(record)
                if record.offset < committed and place not in self._settled and place not in self._gone:
                    raise Violation(f"invariant 1: {committed} committed before {record.where} settled")
            self._verified[partition] = committed

    def _check_counts(self, process: Process) -> None:
        tally = process.stream.intake.tally
        lanes = _lanes_of(process)
        flying = sum(len(lane.tracker) - lane.tracker.settled_ahead for lane in lanes)
        ends = sum(tally.values()) - tally["received"] - tally["forgotten_settled"]
        if tally["received"] != ends + flying:
            raise Violation(f"invariant 12: {dict(tally)}, in flight {flying}")
        counts = process.telemetry.counts
        told = counts[signals.RECORDS_SETTLED] + counts[signals.RECORDS_FORGOTTEN]
        received = counts[signals.RECORDS_RECEIVED]
        if received != told + flying:
            raise Violation(f"invariant 12: metrics say {received}, not {told} + {flying}")
        busy = [lane.busy for lane in lanes]
        if min(busy, default=0) < 0 or (any(busy) and not flying):
            raise Violation(f"works per lane: {busy}, records in flight: {flying}")

    def _check_budget(self, process: Process) -> None:
        budget, lanes = process.stream.intake.budget, _lanes_of(process)
        held = sum(len(lane.tracker) for lane in lanes)
        held_bytes = sum(lane.bytes_held for lane in lanes)
        if (budget.held_records, budget.held_bytes) != (held, held_bytes):
            raise Violation(f"{budget}, but the lanes hold {held} records, {held_bytes} bytes")
        # One poll's worth of bytes may come on top: sizes are only known after the fact.
        may = (self._scenario.records_in_flight, self._scenario.bytes_in_flight + 10 * 6000)
        if held > may[0] or held_bytes > may[1]:
            raise Violation(f"invariant 11: {held} records, {held_bytes} bytes held, {may} allowed")
        if budget.held_by_rows and not len(process.stream.stations.rows):
            raise Violation(f"{budget}, but no row is under way")

    # --- invariant 2 ------------------------------------------------------------------------------------

    def _record_settles(self, process: Process, lane: Lane, offset: int, outcome: str, reason: str) -> None:
        """The store or the dead letters must show it."""
        current = lane in _lanes_of(process)
        require(current, f"invariant 4: {lane.id}@{offset} settled by a lane that is gone")
        if outcome != "dead_lettered" and not lane.is_replay:
            self._dead_in_a_row[process.name, lane.table] = 0
        if not self._world.group.owns(process.source, lane.id):
            return  # it does not know yet; the broker takes no offset from it
        place = (*lane.id, offset)
        change = self._world.broker.changes[place]
        row = _row_of(lane.topic, change) if isinstance(change, Upserted | Deleted) else None
        shown = self._is_anybodys(row) or self._shows(place, change, outcome, reason)
        require(shown, f"invariant 2: {place} settled as {outcome} {reason}, but it is not")
        self._tell_applied(place, outcome, reason)
        if lane.is_replay:
            return
        self._settled.add(place)
        if outcome == "dead_lettered":
            return
        if row is not None:
            self._remember(row, lane, offset, reason)

    def _tell_applied(self, place: Place, outcome: str, reason: str) -> None:
        """What became of a record last, where dead letters are replayed."""
        if not self._scenario.replays:
            return
        if outcome == "dead_lettered":
            self._applied.discard(place)
        elif reason != "superseded":
            self._applied.add(place)

    def _is_anybodys(self, row: Row | None) -> bool:
        """Whether somebody else than the owner of the partition may have changed the row, and no store could
        tell: a late writer, or the owner of another partition that the row has come to."""
        several = row is not None and self._comes_apart(row) and self._scenario.replicas > 1
        return several or row in self._haunted

    def _comes_apart(self, row: Row) -> bool:
        """Whether what is told of the row comes in several logs, to which Kafka gives no order."""
        return len(self._partitions[row]) > 1 or len(self._generations[row]) > 1

    def _shows(self, place: Place, change: Change | None, outcome: str, reason: str) -> bool:
        topic, partition, offset = place
        if outcome == "dead_lettered":
            return any(place_of(letter.record) == place for letter in self._world.broker.dead)
        if isinstance(change, Truncated):
            return outcome == "deleted" and not self._older_than(place)
        if not isinstance(change, Upserted | Deleted):
            return outcome == "skipped"
        row = _row_of(topic, change)
        stamp = self._world.store.stamp_of(row)
        mine = Position(log_of(topic, offset), partition, offset, change.source)
        match (outcome, reason):
            case ("deleted", _) | ("skipped", "absent" | "soft_deleted" | "filtered" | "empty_text"):
                return stamp is None
            case ("written", _) | ("skipped", "unchanged"):
                return (
                    stamp is not None
                    and not (stamp.open and outcome == "written")
                    and (
                        reason == "unchanged"
                        or self._comes_apart(row)
                        or mine.relation_to(stamp.position) in (Order.SAME, Order.OLDER)
                    )
                )
            case ("skipped", "already_applied"):
                return stamp is not None and mine.relation_to(stamp.position) in (Order.SAME, Order.OLDER)
        return reason == "superseded"

    def _older_than(self, place: Place) -> Sequence[Row]:
        """Rows of the topic's table whose point is older than the place."""
        topic, partition, offset = place
        mine = Position(log_of(topic, offset), partition, offset)
        return [
            point.row
            for point in self._scan()
            if point.row.table == TABLES[topic].table
            and point.stamp is not None
            and point.stamp.position.relation_to(mine) is Order.OLDER
        ]

    # --- invariant 3 ------------------------------------------------------------------------------------

    def _remember(self, row: Row, lane: Lane, offset: int, reason: str) -> None:
        key = (row, lane.partition)
        if self._world.store.stamp_of(row) is None:
            self._newest.pop(key, None)  # a row that is gone has nothing that tells old from new
        elif reason != "superseded" or key not in self._newest or self._newest[key].offset < offset:
            self._newest[key] = Position(lane.log, lane.partition, offset)

    def _row_written(self, write: Write) -> None:
        """A row never goes back to what it was before a change that had settled, not even for a moment."""
        self._is_late(write)
        match write:
            case Put(Point(row=row, stamp=Stamp() as new)) | Patch(row=row, stamp=new):
                pass
            case Remove(row):
                # What comes next may be a replay: nothing tells old from new any more.
                for key in [key for key in self._newest if key[0] == row]:
                    del self._newest[key]
                return
            case _:
                return
        newest = self._newest.get((row, new.position.partition))
        held = self._world.store.stamp_of(row)
        if newest is None or held is None or self._comes_apart(row) or row in self._haunted:
            return
        if self._scenario.conditional and new.position.relation_to(held.position) is Order.OLDER:
            return  # the store refuses it
        if held.open:
            # It may be torn: going back is better than staying so.
            del self._newest[row, new.position.partition]
            return
        same = (held.chunks, held.metadata_hash) == (new.chunks, new.metadata_hash)
        back = new.position.relation_to(newest) is Order.OLDER
        require(same or not back, f"invariant 3: {row} goes back from {newest} to {new.position}")

    def _is_late(self, write: Write) -> None:
        """Is the writer still the owner? Else the store has to refuse whatever would do harm, and what it
        cannot refuse is what docs/guarantees.md says of a frozen process."""
        row = row_of(write)
        if self._actor is None or self._is_owned(self._actor, row):
            return
        self._visited.add(row)
        if self._may_do_harm(row, write):
            self._haunted.add(row)

    def _may_do_harm(self, row: Row, write: Write) -> bool:
        """Whether nothing keeps this late write from doing harm: the insert of a row that has been removed
        (or could not be changed) since; and any that is a part of a row where calls are not atomic."""
        if TABLES[_topic_of(row)].chunking is not None and not self._scenario.atomic:
            return True
        if self._comes_apart(row):
            return True
        match write:
            case Put(Point(stamp=Stamp() as new), only_if_present=False):
                mine = new.position
                since = [
                    leaves for (_, *at), leaves in self._histories[row] if at > [mine.partition, mine.offset]
                ]
                return any(not isinstance(leaves, Expected) or _is_refused(leaves) for leaves in since)
        return False

    # --- invariant 8 ------------------------------------------------------------------------------------

    def _row_changed(self, collection: str, row: Row) -> None:
        """Nobody ever sees a torn row that is not marked open."""
        if self._is_anybodys(row):
            return
        points = self._world.store.inner.of_row(collection, row)
        if not points:
            return
        stamp = next((point.stamp for point in points if point.id == row.head_id), None)
        if stamp is None:
            raise Violation(f"invariant 8: {row} has chunks without chunk 0")
        ids = row.chunk_ids(stamp.chunks)
        held = [(point.id, point.chunk) for point in points]
        if stamp.open:
            require(
                {id_ for id_, _ in held} <= set(ids), f"invariant 8: {row} has chunks that it does not list"
            )
            return
        whole = held == [(id_, at) for at, id_ in enumerate(ids)]
        require(whole, f"invariant 8: {row} is closed and has {held}, listed are {ids}")
        hashes = tuple(listed_hash(point.text_hash) for point in points)
        require(hashes == stamp.chunks, f"invariant 8: {row} has other texts than it lists")
        metadata = [point.metadata for point in points]
        require(metadata == metadata[:1] * len(points), f"invariant 8: the metadata of {row} differ")

    # --- invariants 5 and 7 -----------------------------------------------------------------------------

    def _space_of(self, row: Row) -> str:
        return space_of(self._scenario, row.table)

    def _texts_sent(self, texts: Sequence[str], space: str) -> None:
        actor = self._actor
        if actor not in self._processes or actor is None:
            return  # it is gone, and its request still on the way
        under_way = actor.stream.stations.texts_under_way()
        require(len(texts) == len(set(texts)), f"one text twice in a call: {texts}")
        for text in texts:
            require(bool(text.strip()), "invariant 5: a blank text was sent")
            waiting = [one for one in under_way.get(text_hash(text), ()) if self._space_of(one[0]) == space]
            news = not waiting or any(
                row in self._visited or not self._is_owned(actor, row) or self._is_news(row, mine, text)
                for row, mine in waiting
            )
            require(news, f"invariant 7: {text!r} was sent although it is stored or overtaken")

    def _is_news(self, row: Row, mine: Position, text: str) -> bool:
        stamp = self._world.store.stamp_of(row)
        if stamp is None or stamp.open:
            return True
        place = (_topic_of(row), mine.partition, mine.offset)
        if self._scenario.ahead_s is not None and self._is_partial(place):
            # The source may have told a text of later changes, which may hold this one once more.
            return mine.relation_to(stamp.position) in (Order.NEWER, Order.UNKNOWN)
        wanted = self._leaves.get(place)
        if isinstance(wanted, Expected):
            texts = wanted.chunks or (wanted.text,)
        else:
            # A change of another partition completes what the fold cannot. Then nothing tells whether the
            # text is the row's first: a later chunk has another point than the head that holds the same.
            texts = (text,) if len(stamp.chunks) == 1 and not TABLES[_topic_of(row)].chunking else ("", text)
        ids = row.chunk_ids([listed_hash(text_hash(one)) for one in texts])
        held = set(row.chunk_ids(stamp.chunks))
        if stamp.chunks[0] != listed_hash(text_hash(texts[0])):
            held.discard(row.head_id)
        missing = {one for one, id_ in zip(texts, ids, strict=True) if id_ not in held}
        known = text not in missing and text in texts
        return not known and mine.relation_to(stamp.position) in (Order.NEWER, Order.UNKNOWN)

    # --- at rest ----------------------------------------------------------------------------------------

    def end(self) -> None:
        """Everything is committed: the store must be the fold of the topic (invariant 14)."""
        points: dict[Row, list[Stored]] = {}
        for point in sorted(self._scan(), key=lambda point: point.chunk):
            points.setdefault(point.row, []).append(point)
        histories = self._histories
        dead = {place_of(letter.record) for letter in self._world.broker.dead} - self._applied
        for row, history in histories.items():
            held = points.pop(row, [])
            if row in self._haunted or self._may_be_either(row, history):
                pass
            elif len(self._partitions[row]) > 1:
                self._check_spread(row, history, dead, held)
            else:
                self._check_row(row, history, dead, held)
                self._check_dead(row, history, dead)
            for point in held:
                _check_vector(point, self._space_of(point.row))
        self._check_made_up_for(histories, dead)
        unknown = sorted(str(row) for row in points if row not in self._abandoned)
        require(not unknown, f"invariant 14: points of unknown rows: {unknown}")
        for place in dead:
            change = self._world.broker.changes[place]
            fine = change is None or isinstance(change, Upserted)
            require(fine, f"invariant 10: {place} was dead-lettered")

    def _may_be_either(self, row: Row, history: History) -> bool:
        """Whether the last that was told of the row went with its topic: it was applied by then, or not."""
        begins = self._world.broker.begins
        return row in self._abandoned and all(place[2] < begins[place[:2]] for place, _ in history)

    def _scan(self) -> Sequence[Stored]:
        inner = self._world.store.inner
        return [
            point
            for mapping in TABLES.values()
            for point in inner.scan(mapping.collection, None, 10**6, SOON, vectors=True)[0]
        ]

    def _fold(self) -> dict[Row, History]:
        """As if no event had left anything out: what is made up for it must come to the same."""
        folds = {topic: Fold(mapping) for topic, mapping in TABLES.items()}
        histories: dict[Row, History] = {}
        for place, change in self._world.broker.changes.items():
            if place in self._gone:
                continue
            if isinstance(change, Upserted):
                change = completed(change, self._world.broker.whole[place])
            if isinstance(change, Upserted | Deleted):
                row, leaves = folds[place[0]].apply(change)
                histories.setdefault(row, []).append((place, leaves))
            elif (unread := self._row_at(place, change)) is not None:
                histories.setdefault(unread, []).append((place, Nothing.UNKNOWABLE))
            elif isinstance(change, Truncated):
                folds[place[0]].truncate()
                for row in [row for row in histories if row.table == TABLES[place[0]].table]:
                    histories[row].append((place, Nothing.ABSENT))
        return histories

    def _check_spread(self, row: Row, history: History, dead: set[Place], points: Sequence[Stored]) -> None:
        """Kafka gives the row's changes no order. Then the source's does, unless the row was removed: nothing
        is left of it that an older change could be compared with. Else what arrives last stays, which is the
        last of one of its partitions."""
        tears = self._scenario.replicas > 1 and not self._scenario.atomic
        if row in self._world.store.vanished or (tears and TABLES[_topic_of(row)].chunking is not None):
            return
        if any(place in dead or self._is_partial(place) for place, _ in history):
            return  # what completes a change depends on what came before it
        lasts = {(place[1], place[2] // NEW_LOG): (place, leaves) for place, leaves in history}
        kept = history[-1:] if self._is_ordered(history) else list(lasts.values())
        told = f"invariant 14: {row} is {points}, expected {kept}"
        require(any(_is_as(points, leaves) for _, leaves in kept) or not history, told)

    def _is_ordered(self, history: History) -> bool:
        changes = [self._world.broker.changes[place] for place, _ in history]
        orders = [
            change.source.order if isinstance(change, Upserted) and change.source is not None else ""
            for change in changes
        ]
        there = all(isinstance(leaves, Expected) for _, leaves in history)
        return there and "" not in orders and orders == sorted(orders)

    def _check_row(self, row: Row, history: History, dead: set[Place], points: Sequence[Stored]) -> None:
        last = max((at for at, (place, _) in enumerate(history) if place not in dead), default=-1)
        overtaken = history[last + 1 :]
        due = history[last][1] if last >= 0 else Nothing.ABSENT
        if overtaken and row in self._world.store.vanished and not points:
            return  # the change that met no point could not be completed: it is in the dead letters
        if any(_is_as(points, leaves) for _, leaves in overtaken if not _is_refused(leaves)):
            return  # dead-lettered for want of a column, then applied by a replay that merged it
        filtered = any(
            mapping.table == row.table and mapping.where is not None for mapping in TABLES.values()
        )
        if overtaken and (points or filtered) and self._was_reread(history):
            return  # the source knew what the dead letters say, which may be that the filter leaves it out
        stamp = points[0].stamp if points else None
        torn = stamp is not None and stamp.open and not self._scenario.atomic
        # What the store refused half-way has torn a row that there was (which may have gone with its topic),
        # and has not begun a new one.
        was_there = isinstance(due, Expected) or row in self._abandoned
        excused = torn and was_there and any(_is_refused(le) for _, le in overtaken)
        require(excused or _is_as(points, due), f"invariant 14: {row} is {points}, expected {due}")
        if stamp is not None:
            told = f"{row}: stale is {stamp.stale}, dead-lettered since: {overtaken}"
            require(stamp.stale == bool(overtaken), told)

    def _was_reread(self, history: History) -> bool:
        return self._scenario.ahead_s is not None and any(self._is_partial(place) for place, _ in history)

    def _is_partial(self, place: Place) -> bool:
        change = self._world.broker.changes[place]
        return isinstance(change, Upserted) and bool(change.unavailable)

    def _check_made_up_for(self, histories: Mapping[Row, History], dead: set[Place]) -> None:
        """Where nothing disturbs, a change is dead-lettered for want of a column only if nothing has it."""
        if not self._scenario.is_calm:
            return
        for row, history in histories.items():
            for at, (place, leaves) in enumerate(history):
                if place not in dead or not self._is_partial(place) or _is_refused(leaves):
                    continue
                known = self._can_be_carried(row, place, histories, dead) or self._can_be_reread(row, history)
                require(not known, f"{place} was dead-lettered, though {history[:at]} could be made up for")

    def _can_be_reread(self, row: Row, history: History) -> bool:
        ahead_s = self._scenario.ahead_s
        if ahead_s is None or ahead_s > 0.1 or self._scenario.refused:
            return False
        if len(self._partitions[row]) > 1:
            return False  # the delete of a row that the source no longer has may come in another one
        return not any(_is_refused(leaves) for _, leaves in history)

    def _can_be_carried(
        self, row: Row, place: Place, histories: Mapping[Row, History], dead: set[Place]
    ) -> bool:
        """Whether the change is the create of a new key, and the row as it was under the old one was stored
        with all that is missing here."""
        topic, partition, _ = place
        change = self._world.broker.changes[place]
        if not isinstance(change, Upserted) or change.old_key is None or topic != PRODUCTS.source:
            return False
        old = TABLES[topic].row_at(change.old_key)
        if old is None or not change.unavailable <= set(PRODUCTS.embed_columns):
            return False
        if self._partitions.get(old, set()) | self._partitions[row] != {partition}:
            return False
        before = [(at, leaves) for at, leaves in histories.get(old, []) if at[2] < place[2]]
        told = self._world.broker.changes[before[-1][0]] if before else None
        if not isinstance(told, Deleted) or told.new_key != change.key:
            return False
        while before and isinstance(self._world.broker.changes[before[-1][0]], Deleted):
            before.pop()
        whole = False
        for at, leaves in before:
            if at in dead or _is_refused(leaves):
                return False
            whole = isinstance(leaves, Expected) and (whole or not self._is_partial(at))
        return whole

    def _check_dead(self, row: Row, history: History, dead: set[Place]) -> None:
        """Only what can never succeed is in the dead letters (invariant 10)."""
        before: Leaves = Nothing.ABSENT
        whole = False
        for at, (place, leaves) in enumerate(history):
            change = self._world.broker.changes[place]
            partial = isinstance(change, Upserted) and bool(change.unavailable)
            if place in dead:
                # Once the row is removed, a replay finds nothing that could complete a change before that.
                # A delete before it may have gone with the topic, not applied.
                lost = row in self._world.store.vanished or row in self._abandoned
                gone = lost or any(le is Nothing.ABSENT for _, le in history[at:])
                excused = partial and (gone or not whole or _is_open(place[0], change, before))
                told = f"invariant 10: {place} was dead-lettered after {before}"
                require(change is None or _is_refused(leaves) or excused, told)
            before = leaves
            can_be_applied = isinstance(leaves, Expected) and not _is_refused(leaves) and place not in dead
            whole = can_be_applied and (whole or not partial)


def _lanes_of(process: Process) -> Sequence[Lane]:
    """Those of its partitions, and those beside them for replays."""
    lanes = process.stream.lanes.values()
    return [*lanes, *process.stream.stations.replays.beside(lanes)]


def _topic_of(row: Row) -> str:
    return next(mapping.source for mapping in TABLES.values() if mapping.table == row.table)


def _row_of(topic: str, change: Upserted | Deleted) -> Row:
    return TABLES[topic].row_of(change)


def _is_open(topic: str, change: Change | None, before: Leaves) -> bool:
    """Whether the row may have left the filter with the change, by a column that nothing tells."""
    if not isinstance(change, Upserted) or not isinstance(before, Expected):
        return False
    moved = change.columns["price"] != before.metadata["price"]
    return moved and TABLES[topic].matches_where(change.columns) is None


def _check_vector(point: Stored, space: str) -> None:
    assert point.text is not None
    assert point.vector is not None
    right = np.array_equal(point.vector, vector_of(point.text, space))
    require(right, f"invariant 9: {point.row} has the vector of another text")
    require("unavailable" not in point.text, "invariant 5: a placeholder was stored")


def _is_as(points: Sequence[Stored], leaves: Leaves) -> bool:
    if not isinstance(leaves, Expected):
        return not points and leaves is Nothing.ABSENT
    wanted = [(text, dict(leaves.metadata)) for text in leaves.chunks or (leaves.text,)]
    return [(point.text, dict(point.metadata)) for point in points] == wanted


def _is_refused(leaves: Leaves) -> bool:
    """Whether the provider or the store refuse such a row by itself."""
    if not isinstance(leaves, Expected):
        return False
    poison = any(word in leaves.text for word in (POISON_TEXT, POISON_CHUNK))
    return poison or POISON_PRICE in leaves.metadata.values()
