"""Codecs: bytes of a Kafka record to a change.

A codec is pure and quick: no network, no state but caches. Whatever the bytes are, it raises nothing but
:class:`~vectide.core.model.DecodeError`, and :class:`~vectide.ports.SchemaMissing` where it has to be told a
schema first.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, cast

from vectide.ports import Codec

#: Kind to (module, class). Imported when asked for, so that a codec's libraries load only where used.
KINDS: Final[dict[str, tuple[str, str]]] = {
    "json": ("vectide.codecs.debezium_json", "DebeziumJson"),
    "registry": ("vectide.codecs.registry", "RegistryCodec"),
}


def load(kind: str, **options: Any) -> Codec:
    """Build the codec of this kind. Raises ValueError for a kind that does not exist."""
    if kind not in KINDS:
        raise ValueError(f"there is no codec {kind!r}; there are: {', '.join(sorted(KINDS))}")
    module, name = KINDS[kind]
    return cast(Codec, getattr(import_module(module), name)(**options))
