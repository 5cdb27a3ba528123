"""Geometries as text: well-known text for points, hex of the well-known binary for the rest."""

from __future__ import annotations

import math
import struct
from typing import Final

from vectide.core.model import Value
from vectide.core.render import render_value

_POINT: Final = 1
#: Flag of the extended form (PostGIS) in the type word: a reference system is inside.
_HAS_SRID: Final = 0x2000_0000


def geometry_text(wkb: bytes, srid: Value) -> str | None:
    """``POINT(1.5 -2)``, with ``SRID=4326;`` in front where the reference system is known; hex in upper case
    for what is not a point of two dimensions. None when there are no bytes."""
    if not wkb:
        return None
    inside, point = _point(wkb)
    body = wkb.hex().upper() if point is None else point
    system = srid if isinstance(srid, int) and not isinstance(srid, bool) else inside
    # What is not a point stays as it is: its own bytes may name the system.
    return body if not system or (point is None and inside) else f"SRID={system};{body}"


def _point(wkb: bytes) -> tuple[int, str | None]:
    """The reference system that the bytes name (0: none), and the text of the point that they are."""
    order = {0: ">", 1: "<"}.get(wkb[0])
    if order is None or len(wkb) < 5:
        return 0, None
    (word,) = struct.unpack_from(f"{order}I", wkb, 1)
    start, srid = 5, 0
    if word & _HAS_SRID and len(wkb) >= 9:
        (srid,) = struct.unpack_from(f"{order}I", wkb, 5)
        start = 9
    if word & ~_HAS_SRID != _POINT or len(wkb) != start + 16:
        return srid, None
    x, y = struct.unpack_from(f"{order}dd", wkb, start)
    if math.isnan(x) and math.isnan(y):
        return srid, "POINT EMPTY"
    return srid, f"POINT({_digits(x)} {_digits(y)})"


def _digits(number: float) -> str:
    return (render_value(number) or "").removesuffix(".0")
