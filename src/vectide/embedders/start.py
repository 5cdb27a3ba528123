"""What every provider behind an API checks at start, and how it says what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from vectide.core.failures import Failure, Kind
from vectide.embedders import checked
from vectide.ports import AdapterError, StartupRefused, Vector

#: What is embedded to see whether provider, key and model work together.
PROBE: Final = "dimension"

_ADVICE: Final = {
    "unauthorized": "check VECTIDE_EMBEDDER__API_KEY",
    "forbidden": "the key may not use this model; check its permissions",
    "not_found": "check VECTIDE_EMBEDDER__MODEL and VECTIDE_EMBEDDER__BASE_URL",
}


def usable_url(url: str) -> str:
    """The address, if it is one. Raises :class:`StartupRefused`."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # broken brackets, or a port that is no number
        usable = False
    if not usable:
        raise StartupRefused(f"VECTIDE_EMBEDDER__BASE_URL {url!r} is not a URL that starts with http(s)://")
    return url


def usable_key(provider: str, api_key: str | None) -> str:
    """The key, if a header can carry it. Raises :class:`StartupRefused`, which does not show it."""
    if not api_key:
        raise StartupRefused(f"{provider} needs a key: set VECTIDE_EMBEDDER__API_KEY")
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise StartupRefused("VECTIDE_EMBEDDER__API_KEY holds characters that no key has (blanks, line ends)")
    return api_key


def quiet(*loggers: str) -> None:
    """Keep these loggers from saying less than warnings: below they log several lines per call, and what
    those show is theirs to change (invariant 13)."""
    for name in loggers:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))


def dimensions_of(vectors: Sequence[Vector], model: str, configured: int | None) -> int:
    """The dimension that the probe shows, if it is the configured one. Raises :class:`StartupRefused`, and
    what :func:`~vectide.embedders.checked` raises."""
    size = vectors[0].size if vectors else 0
    checked(vectors, 1, size)
    if configured not in (None, size):
        raise StartupRefused(
            f"model {model!r} gives {size} dimensions, "
            f"but {configured} are configured: change the setting or the model"
        )
    return size


def at_start(failure: Failure, where: str, model: str, advice: Mapping[str, str] = _ADVICE) -> Exception:
    """What a failed probe means at start-up. An exhausted quota is no reason to exit: it comes back."""
    if failure.kind is Kind.OPERATOR and failure.cause != "quota_exhausted":
        default = "check VECTIDE_EMBEDDER__BASE_URL and the provider's status"
        told = advice.get(failure.cause) or _ADVICE.get(failure.cause, default)
    elif failure.kind in (Kind.REFUSED, Kind.TOO_LARGE):
        told = "check the model, and whether it takes the configured dimensions"
    else:
        return AdapterError(failure)
    return StartupRefused(f"{where} refuses model {model!r} ({failure.detail}): {told}")
