"""What models in this process share: their folder, found and never fetched, and told from every other by a
digest; and which of a call's texts go through a model together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np

from vectide.ports import StartupRefused

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


def runs(lengths: Any) -> Iterator[list[int]]:
    """The places of texts that go through the model together: of about the same length, so that little is
    filled up, and not too many. ``lengths``: the tokens of each."""
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
