"""Answers over HTTP: read in time, within bounds, and their vectors made float32."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.embedders import in_time
from vectide.ports import AdapterError, Deadline, Vector

#: A connection takes no longer; and how long one is kept that nobody uses.
CONNECT_S: Final = 5.0
KEEPALIVE_S: Final = 30.0

#: The most bytes of one number in a JSON list, and what an answer may hold besides its vectors.
_NUMBER_BYTES: Final = 32
_ANSWER_BYTES: Final = 1 << 20
_LARGEST_DIMENSIONS: Final = 8192


def most_bytes(texts: int, dimensions: int | None) -> int:
    """What an answer with the vectors of so many texts can take at most."""
    return texts * (dimensions or _LARGEST_DIMENSIONS) * _NUMBER_BYTES + _ANSWER_BYTES


class Response(Protocol):
    """An answer whose body has not been read yet."""

    def iter_bytes(self, chunk_size: int | None = None) -> Any: ...


def read(response: Response, most_bytes: int, deadline: Deadline) -> bytes:
    """The body, piece by piece: a server that drips cannot hold a worker much past its deadline, nor fill
    the memory. Raises :class:`AdapterError` (transient ``timeout``, invalid ``answer_too_large``)."""
    pieces: list[bytes] = []
    size = 0
    for piece in response.iter_bytes():
        in_time(deadline)
        size += len(piece)
        if size > most_bytes:
            raise AdapterError(Failure(Kind.INVALID, "answer_too_large", f"more than {most_bytes} bytes"))
        pieces.append(piece)
    return b"".join(pieces)


def vector_of(embedding: bytes | list[float]) -> Vector:
    """Not yet checked. Raises :class:`AdapterError` (invalid ``malformed``)."""
    if isinstance(embedding, bytes):
        if len(embedding) % 4:
            raise AdapterError(Failure(Kind.INVALID, "malformed", "base64 of a broken length"))
        return np.frombuffer(embedding, dtype="<f4")
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which the check finds
        return np.array(embedding, dtype=np.float32)
