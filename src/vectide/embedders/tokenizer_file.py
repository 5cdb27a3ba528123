"""A model's own tokenizer, from its ``tokenizer.json``: tokens are counted exactly, without the provider."""

from __future__ import annotations

from collections.abc import Callable

from vectide.ports import MissingExtra, StartupRefused

try:
    from tokenizers import Tokenizer
except ModuleNotFoundError as exc:
    raise MissingExtra(
        'VECTIDE_EMBEDDER__TOKENIZER needs "tokenizers": pip install "vectide[tokenizer]"'
    ) from exc


def counter(path: str) -> Callable[[str], int]:
    """Counts the tokens of a text as the model does, with those that it adds around it; at least 1.

    Deterministic and safe from several threads. Raises :class:`StartupRefused` for a file that cannot be
    read, or is no tokenizer.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise StartupRefused(f"VECTIDE_EMBEDDER__TOKENIZER: cannot read {path!r}: {reason}") from None
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception:  # noqa: BLE001  the package raises nothing more precise
        raise StartupRefused(f"VECTIDE_EMBEDDER__TOKENIZER: {path!r} is no tokenizer.json") from None
    # Files often say how their model's texts are cut off and filled up: then all would count the same.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(text: str) -> int:
        return max(1, len(tokenizer.encode(text).ids))

    return count
