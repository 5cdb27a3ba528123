"""The simulated consumer group: who owns which partition, and each member's consumer."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from tests.simulation.broker import SimBroker, log_of
from tests.simulation.clock import SimClock
from tests.simulation.scenario import Scenario

from vectide.core.failures import Failure, Kind
from vectide.core.model import Record
from vectide.ports import AdapterError, Deadline, Partition, SourceListener


@dataclass(slots=True)
class _Share:
    """One partition as the coordinator sees it. ``term``: counts its assignments; whoever holds it under an
    older one has to give it back, or has lost it already. ``wanted``: who gets it, from ``from_s`` on."""

    owner: SimSource | None = None
    wanted: SimSource | None = None
    from_s: float = 0.0
    term: int = 0


class SimGroup:
    """The coordinator. Rebalances are cooperative: whoever goes on owning a partition is not disturbed; or,
    with ``eager``, everybody gives everything back first.

    ``overlaps``: a partition that is lost may have a new owner before the former one knows.
    """

    def __init__(self, clock: SimClock, broker: SimBroker, rng: random.Random, scenario: Scenario) -> None:
        self._clock = clock
        self.broker = broker
        self._rng = rng
        self._eager = scenario.eager
        self.overlaps = scenario.replicas > 1 and scenario.conditional
        self._members: list[SimSource] = []
        later = scenario.added()
        self._shares = {partition: _Share() for partition in broker.logs if partition not in later}

    def owns(self, member: SimSource, partition: Partition) -> bool:
        """Whether the partition is the member's, whatever the member believes."""
        share = self._shares.get(partition)
        return share is None or share.owner is member  # nobody is told of what is not there yet

    def join(self, member: SimSource) -> None:
        """A new member: it gets its share of the partitions."""
        self._members.append(member)
        if len(self._members) == 1:
            return self._assign([part for part, share in self._shares.items() if share.wanted is None], 0.0)
        moving = [partition for partition in self._shares if self._rng.random() < 1 / len(self._members)]
        return self._assign(
            list(self._shares) if self._eager else moving, 0.0, to=None if self._eager else member
        )

    def remove(self, member: SimSource) -> None:
        """The member is gone, or has not been heard of for too long: its partitions are free at once."""
        if member not in self._members:
            return
        self._members.remove(member)
        theirs = [part for part, share in self._shares.items() if member in (share.owner, share.wanted)]
        for partition in theirs:
            if self._shares[partition].owner is member:
                self._shares[partition].owner = None
        self._assign(theirs, 0.0)

    def disturb(self, what: str) -> None:
        """``lost``: some partitions are taken away; ``rebalance``: they are asked back. Whoever gets them."""
        held = [part for part, share in self._shares.items() if share.owner is not None]
        moving = [partition for partition in held if self._rng.random() < 0.7]
        if what == "rebalance" and self._eager:
            moving = held
        for partition in moving:
            share = self._shares[partition]
            if what == "lost" and share.owner is not None:
                share.owner.lose(partition)
                if self.overlaps:
                    share.owner = None
        self._assign(moving, self._rng.choice((0.0, 0.01, 0.2)))

    def recreate(self, topic: str) -> None:
        """The topic is deleted and created again: its partitions are lost and assigned anew."""
        partitions = self.broker.recreate(topic)
        partitions = [partition for partition in partitions if partition in self._shares]
        for partition in partitions:
            share = self._shares[partition]
            if share.owner is not None:
                share.owner.lose(partition)
                if self.overlaps:
                    share.owner = None
        self._assign(partitions, self._rng.choice((0.0, 0.01, 0.2)))

    def add(self, partition: Partition) -> None:
        """The topic has got another partition, which is read from its begin as soon as a rebalance gives it
        to somebody."""
        self.broker.add(partition)
        self._shares[partition] = _Share()
        moving = list(self._shares) if self._eager else [partition]
        self._assign(moving, self._rng.choice((0.0, 0.01, 0.2)))

    def _assign(self, partitions: Sequence[Partition], after_s: float, to: SimSource | None = None) -> None:
        for partition in partitions:
            share = self._shares[partition]
            share.wanted = to or (self._rng.choice(self._members) if self._members else None)
            share.term += 1
            share.from_s = self._clock.now_s + after_s
            self._clock.at(share.from_s, self._clock.stir)

    def called_back(self, held: Mapping[Partition, int]) -> list[Partition]:
        """Of what a member holds (and since which term), what it has to give back."""
        return [partition for partition, term in held.items() if self._shares[partition].term != term]

    def released(self, member: SimSource, partition: Partition) -> None:
        """The member has given the partition back, or knows that it has lost it."""
        share = self._shares[partition]
        if share.owner is member:
            share.owner = None
            share.from_s = max(share.from_s, self._clock.now_s)

    def free_for(self, member: SimSource, held: Collection[Partition]) -> dict[Partition, int]:
        """The partitions that the member may have now, with their terms: none that it believes to hold."""
        free = {}
        for partition, share in self._shares.items():
            is_free = share.owner is None and share.from_s <= self._clock.now_s
            if share.wanted is member and is_free and partition not in held:
                share.owner = member
                free[partition] = share.term
        return free

    def is_member(self, member: SimSource) -> bool:
        return member in self._members


class SimSource:
    """One consumer of the group, owned by one process."""

    def __init__(
        self, group: SimGroup, clock: SimClock, rng: random.Random, commits_lost: float, *, waits: bool
    ) -> None:
        self._group = group
        self._broker = group.broker
        self._clock = clock
        self._rng = rng
        self._listener: SourceListener
        self._positions: dict[Partition, int] = {}
        self._terms: dict[Partition, int] = {}
        self._lost: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._ended: dict[Partition, int] = {}
        self._stored: dict[Partition, int] = {}
        self._commits_lost = commits_lost
        #: Whether time passes while it waits: it does not while others have something to do.
        self._waits = waits
        #: Around a drain, in which time has to pass.
        self.draining: Callable[[bool], None] = lambda drains: None
        #: Whether the last poll brought something.
        self.flows = False

    def start(self, listener: SourceListener) -> None:
        self._listener = listener
        self._group.join(self)

    def lose(self, partition: Partition) -> None:
        """The partition is somebody else's; the next poll tells."""
        self._lost.add(partition)

    def oust(self) -> None:
        """The group gives everything to somebody else."""
        self._group.remove(self)
        self._lose(list(self._positions))

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        self._rebalance()
        self._report_ends()
        records = self._take(max_records)
        clock, end_s = self._clock, self._clock.now_s + timeout_s
        clock.stirred = False
        while self._waits and not records and clock.now_s < end_s and not clock.stirred:
            due = clock.next_s()
            clock.advance_to(min(end_s, max(due, clock.now_s) if due is not None else end_s))
            records = self._take(max_records)
        self.flows = bool(records)
        return records

    def _rebalance(self) -> None:
        if not self._group.is_member(self):
            self._lose(list(self._positions))
            self._group.join(self)
        lost = [partition for partition in self._positions if partition in self._lost]
        if lost:
            self._lose(lost)
        back = self._group.called_back(self._terms)
        if back:
            self.draining(True)
            self._listener.on_revoked(back)
            self.draining(False)
            self._drop(back)
        free = self._group.free_for(self, self._terms)
        if free:
            for partition in free:
                self._positions[partition] = self._broker.committed.get(partition, 0)
            self._terms |= free
            logs = {part: log_of(part[0], self._broker.begins[part]) for part in free}
            self._listener.on_assigned(logs)

    def _lose(self, partitions: Sequence[Partition]) -> None:
        self._drop(partitions)
        if partitions:
            self._listener.on_lost(partitions)

    def _drop(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            del self._positions[partition], self._terms[partition]
            self._lost.discard(partition)
            self._paused.discard(partition)
            self._ended.pop(partition, None)
            self._stored.pop(partition, None)
            self._group.released(self, partition)

    def _take(self, max_records: int) -> list[Record]:
        taken: list[Record] = []
        order = [partition for partition in self._positions if partition not in self._paused]
        self._rng.shuffle(order)
        for partition in order:
            if len(taken) >= max_records:
                break
            limit = self._rng.randint(1, max_records - len(taken))
            records, whole = self._broker.read(partition, self._positions[partition], limit)
            taken += records
            if records:
                self._positions[partition] = records[-1].offset + 1
            if whole:
                self._positions[partition] = self._broker.ends[partition]
        return taken

    def _report_ends(self) -> None:
        # Of paused partitions too: the end may have been met before the pause.
        for partition, position in self._positions.items():
            if position == self._broker.end_now(partition) and position != self._ended.get(partition):
                self._ended[partition] = position
                self._listener.on_end(partition, position)

    def partition_count(self, topic: str) -> int | None:
        return self._broker.counts[topic]

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._paused |= set(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._paused -= set(partitions)

    def rewind(self, partition: Partition, offset: int | None) -> None:
        self._positions[partition] = self._broker.committed.get(partition, 0) if offset is None else offset
        self._ended.pop(partition, None)

    def commit(self, positions: Mapping[Partition, int], *, wait: bool) -> None:
        for partition, offset in positions.items():
            assert partition in self._positions, f"commit for {partition}, which is not assigned"
            self._stored[partition] = offset
        # Of a member that is behind the times the broker takes nothing.
        fenced = any(not self._group.owns(self, partition) for partition in self._stored)
        if fenced or self._broker.commits_fail or (not wait and self._rng.random() < self._commits_lost):
            if wait:
                raise AdapterError(Failure(Kind.TRANSIENT, "coordinator"))
            return  # what is stored goes with the next commit
        self._broker.commit(self._stored)

    @property
    def problems(self) -> Mapping[str, str]:
        return {}

    def end_offsets(self) -> Mapping[Partition, int]:
        return {partition: self._broker.ends[partition] for partition in self._positions}

    def close(self, deadline: Deadline) -> None:
        pass
