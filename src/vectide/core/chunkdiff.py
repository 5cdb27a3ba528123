"""What has to happen to the points of a row so that its chunks are those of a new stamp.

A later chunk is the same point for as long as the row has its text, so only its index and metadata change.
Chunk 0 is always the row's own point: when another text comes first, its vector is replaced, even by that of
a text which the row holds as a later chunk.
"""

from __future__ import annotations

from vectide.core.model import Row, Stamp
from vectide.core.value import value


@value
class Tail:
    """The later chunks of a row.

    ``ids``: of all that the row shall have. ``changed``: of those whose metadata or index changes (id and
    index). ``gone``: of those that may exist and shall not.
    """

    ids: tuple[str, ...] = ()
    changed: tuple[tuple[str, int], ...] = ()
    gone: tuple[str, ...] = ()


@value
class Difference:
    """``ids``: of all points of the row. ``missing``: indexes of the chunks that no point holds, in order."""

    ids: tuple[str, ...]
    missing: tuple[int, ...]
    tail: Tail


def difference(row: Row, stamp: Stamp | None, new: Stamp) -> Difference:
    """From the row as ``stamp`` tells of it (None: it has no points) to the row as ``new`` does.

    What an open row holds is not relied on: any chunk that it lists may be missing, or have old metadata.
    """
    ids = row.chunk_ids(new.chunks)
    if stamp is None:
        return Difference(ids, tuple(range(len(ids))), Tail(ids[1:]))
    was = row.chunk_ids(stamp.chunks)
    held: dict[str, int] = {}
    if stamp.space == new.space and not stamp.open:
        same_head = stamp.chunks[0] == new.chunks[0]
        held = {id_: at for at, id_ in enumerate(was) if at or same_head}
    patched = stamp.metadata_hash != new.metadata_hash
    stay = [(id_, at) for at, id_ in enumerate(ids) if at and id_ in held]
    wanted = frozenset(ids)
    return Difference(
        ids,
        tuple(at for at, id_ in enumerate(ids) if id_ not in held),
        Tail(
            ids[1:],
            tuple((id_, at) for id_, at in stay if patched or held[id_] != at),
            tuple(id_ for id_ in was if id_ not in wanted),
        ),
    )
