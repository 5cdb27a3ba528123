"""Pinecone: a collection is an index, for documents or for vectors with metadata.

What is written is seen later, by a while that nobody promises. A write counts once a look-up of the same
points shows it (:meth:`PineconeStore._see`). Pinecone compares nothing when it writes, so that a writer who
comes late is not noticed.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.core.model import Row, Stamp, Value
from vectide.ports import (
    MISSING,
    AdapterError,
    Capabilities,
    CollectionSpec,
    Deadline,
    Hit,
    Outcome,
    Put,
    Remove,
    Stored,
    Trim,
    Vector,
    Write,
)
from vectide.stores.pinecone_collections import Collections
from vectide.stores.pinecone_indexes import Index, Record
from vectide.stores.pinecone_points import DIGEST, ROW, check, conditions, fields_of, held_of
from vectide.stores.pointwise import (
    Changes,
    Held,
    changes_of,
    check_vectors,
    hit_of,
    ids_to_read,
    matching,
    stamps_of,
)

CAPABILITIES: Final = Capabilities(
    kind="pinecone",
    max_batch_items=1000,
    atomic_calls=False,
    read_your_writes=True,
    conditional_writes=False,
    update_only=True,
    nested_metadata=False,
    null_metadata=False,
    uniform_lists=True,
    text_lists=True,
    max_integer=2**53,
)

#: The most points that one search may give.
_MAX_RESULTS: Final = 10_000

#: How long to wait before looking again whether something can be seen (s): at first, and at most.
_LOOK_AGAIN_S: Final = (0.02, 1.0)


class PineconeStore:
    """A :class:`~vectide.ports.Store`, searchable and scannable.

    ``api_key``: of the project. ``url``: of its control plane. ``ca_file``: certificates to trust instead of
    the public ones.
    """

    def __init__(
        self, api_key: str, *, url: str = "https://api.pinecone.io", ca_file: str | None = None
    ) -> None:
        self._collections = Collections(api_key, url, ca_file)

    @property
    def capabilities(self) -> Capabilities:
        """Not all of them once an index for vectors is among the collections."""
        return CAPABILITIES if self._collections.updates_only else replace(CAPABILITIES, update_only=False)

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`. An index that is there and has no mark gets one."""
        self._collections.prepare(spec, deadline)

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`: an index without a mark counts as missing."""
        return self._collections.verify(spec, deadline)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`. Returns when a look-up shows what was written."""
        shape = self._collections.shape(collection, deadline)
        check_vectors((write.vector for write in writes if isinstance(write, Put)), shape.dimensions)
        index = shape.index
        old = {one.id: one for one in index.fetch(ids_to_read(writes, puts=False), deadline)}
        changes = changes_of(writes, dict(_held(old.values())))
        written = [*changes.patches, *(held for held, _ in changes.puts)]
        check(written, index.field)
        known = [one for one in changes.puts if one[0].point.id in changes.updates]
        patches = [*((held, None) for held in changes.patches), *known]
        index.put([one for one in changes.puts if one[0].point.id not in changes.updates], deadline)
        index.patch(patches, old, deadline)
        digests: dict[str, str | None] = dict.fromkeys(self._remove(index, writes, changes, deadline))
        digests |= {held.point.id: fields_of(held)[DIGEST] for held in written}
        may_go = {held.point.id for held, _ in patches} if index.updates_only else set[str]()
        gone = self._see(index, digests, may_go, deadline)
        return changes.outcomes_of(writes, dict.fromkeys(gone, MISSING))

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        """As :meth:`vectide.ports.Store.stamps`."""
        index = self._collections.shape(collection, deadline).index
        ids = list({row.head_id: None for row in rows})
        return stamps_of(rows, dict(_held(index.fetch(ids, deadline, brief=not values))), values=values)

    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """As :meth:`vectide.ports.Searchable.search`, at most 10,000 candidates. Filters on objects, nulls
        and lists compare what became of such a value when it was written."""
        shape = self._collections.shape(collection, deadline)
        check_vectors([vector], shape.dimensions)
        wanted = conditions(filters, CAPABILITIES)
        if wanted is None:
            return []
        legal, where = wanted

        def find(count: int) -> Sequence[Hit | None]:
            found = shape.index.search(vector, min(count, _MAX_RESULTS), where, deadline)
            return [_hit(one, shape.metric) for one in found]

        return matching(find, limit, legal)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`."""
        index = self._collections.shape(collection, deadline).index
        ids, following = index.page(cursor, limit, deadline)
        while following is not None and len(ids) < limit:
            more, following = index.page(following, limit - len(ids), deadline)
            ids += more
        held = dict(_held(index.fetch(ids, deadline), vectors=vectors))
        return [held[id_].point for id_ in ids if id_ in held], following

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of points in the collection, a while ago."""
        return self._collections.shape(collection, deadline).index.count(deadline)

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`. Returns when the index is gone, which takes a while."""
        self._collections.drop(collection, deadline)

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._collections.close()

    # --- calls ---

    def _see(
        self, index: Index, digests: Mapping[str, str | None], may_go: Container[str], deadline: Deadline
    ) -> set[str]:
        """Wait until look-ups show these points with these digests (None: do not show them). Those that may
        go, and are not shown any more, have gone before they were changed: their ids."""
        unseen, gone = dict(digests), set[str]()
        pause_s, most_s = _LOOK_AGAIN_S
        while True:
            shown = {
                one.id: one.fields.get(DIGEST) for one in index.fetch(list(unseen), deadline, brief=True)
            }
            unseen = {id_: digest for id_, digest in unseen.items() if shown.get(id_) != digest}
            gone |= {id_ for id_ in unseen if id_ in may_go and id_ not in shown}
            unseen = {id_: digest for id_, digest in unseen.items() if id_ not in gone}
            if not unseen:
                return gone
            if deadline.remaining_s() <= pause_s:
                detail = f"{len(unseen)} of {len(digests)} points that were written cannot be seen yet"
                raise AdapterError(Failure(Kind.TRANSIENT, "not_visible", detail))
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, most_s)

    def _remove(
        self, index: Index, writes: Sequence[Write], changes: Changes, deadline: Deadline
    ) -> list[str]:
        """Remove what is named, seen or not, and what is found; the ids."""
        stays = {row_id: stay for row_id, stay, _ in changes.removals}
        if not stays:
            return []
        found = {one.id: one.fields[ROW] for one in index.of_rows(list(stays), deadline)}
        named = {
            id_: write.row.head_id
            for write in writes
            if isinstance(write, Remove | Trim) and write.row.head_id in stays
            for id_ in (*write.ids, *([write.row.head_id] if isinstance(write, Remove) else ()))
        }
        unseen = {id_: row_id for id_, row_id in named.items() if id_ not in found}
        others = index.fetch(list(unseen), deadline, brief=True)
        found |= unseen | {one.id: one.fields.get(ROW) for one in others}
        gone = [id_ for id_, row_id in found.items() if row_id in stays and id_ not in stays[row_id]]
        index.delete(gone, deadline)
        return gone


create = PineconeStore


def _held(records: Iterable[Record], *, vectors: bool = True) -> Iterator[tuple[str, Held]]:
    for one in records:
        held = held_of(one.id, one.fields, one.vector if vectors else None)
        if held is not None:
            yield one.id, held


def _hit(found: Record, metric: str) -> Hit | None:
    held = held_of(found.id, found.fields)
    if held is None:
        return None
    score = -float(np.sqrt(max(0.0, found.score))) if metric == "l2" else found.score
    return hit_of(held, score)
