"""What models in this process share: their folder, found and never fetched, and told from every other by a
digest; and how texts go through a transformer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.embedders import in_time
from vectide.ports import AdapterError, Deadline, Matrix, StartupRefused

_PIECE_BYTES: Final = 1 << 20
#: Tokens that go through a transformer at once, filled up ones included: what a call's memory depends on.
_RUN_TOKENS: Final = 4096


def folder_of(model: str) -> tuple[Path, str]:
    """The folder that ``model`` means, and what its model is called: a path, else the name of a model
    (``owner/name``) that a model hub's client has downloaded before.

    Raises :class:`StartupRefused` for what is not on this machine: nothing is downloaded.
    """
    path = Path(model)
    if path.is_dir():
        return path, path.resolve().name
    return _downloaded(model), model.rpartition("/")[2]


def _downloaded(model: str) -> Path:
    from huggingface_hub import errors, snapshot_download  # comes with the packages that load such models

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        raise StartupRefused(
            f"VECTIDE_EMBEDDER__MODEL: {model!r} is no folder, and no model of that name was downloaded "
            "before (HF_HOME says where to); the service downloads none"
        ) from None


def digest_of(how: str, files: Iterable[Path]) -> str:
    """Short digest of the files' content and of ``how`` they are used. Raises :class:`StartupRefused` for one
    that cannot be read."""
    digest = blake2b(how.encode(), digest_size=4)
    for path in files:
        for piece in _pieces(path):
            digest.update(piece)
    return digest.hexdigest()


class Turns:
    """Calls of a transformer take turns, as one already uses every core (or the GPU)."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def run(
        self, lengths: Any, most: int | None, deadline: Deadline, forward: Callable[[list[int]], Matrix]
    ) -> Matrix:
        """The vectors of texts with so many tokens each (an array), in their order; ``forward`` makes those
        of the texts at some places.

        Raises :class:`AdapterError`: refused for a text without tokens, or with more than ``most``, which
        nothing cuts off in silence; transient when it is not our turn before the deadline.
        """
        if not lengths.all():
            raise AdapterError(Failure(Kind.REFUSED, "no_tokens"))
        if most is not None and lengths.max() > most:
            detail = f"{lengths.max()} tokens, the model reads {most}"
            raise AdapterError(Failure(Kind.REFUSED, "text_too_long", detail))
        vectors: list[Any] = [None] * len(lengths)
        if not self._turn.acquire(timeout=deadline.remaining_s()):
            raise AdapterError(Failure(Kind.TRANSIENT, "timeout", "the model was busy"))
        try:
            for places in _runs(lengths):
                in_time(deadline)
                for place, vector in zip(places, forward(places), strict=True):
                    vectors[place] = vector
        finally:
            self._turn.release()
        return np.stack(vectors)


def _runs(lengths: Any) -> Iterator[list[int]]:
    """The places of texts that go through the model together: of about the same length, so that little is
    filled up, and not too many."""
    run: list[int] = []
    for place in map(int, np.argsort(lengths, kind="stable")):
        if run and lengths[place] * (len(run) + 1) > _RUN_TOKENS:
            yield run
            run = []
        run.append(place)
    yield run


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
    except OSError as error:
        raise StartupRefused(f"VECTIDE_EMBEDDER__MODEL: {path}: cannot be read: {error.strerror}") from None
