"""Change events inside the JSON form of CloudEvents, as Debezium's ``CloudEventsConverter`` writes them."""

from __future__ import annotations

from dataclasses import dataclass

from vectide.codecs.source_block import NAMES
from vectide.core.model import Columns, DecodeError, Value

_EXTENSION = "iodebezium"
#: Where the members of the source block are: attributes have no underscores.
_ATTRIBUTES = {name: _EXTENSION + name.replace("_", "") for name in NAMES}


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """The change in a cloud event. ``schema`` is the schema of its data, None when it has none."""

    op: Value
    before: Value
    after: Value
    source: Columns
    schema: Value


def is_cloud_event(document: Columns) -> bool:
    """Whether the document is a cloud event of Debezium. A row may have columns of some of these names."""
    if "specversion" not in document or "data" not in document:
        return False
    kind = document.get("type")
    return _EXTENSION + "op" in document or (isinstance(kind, str) and kind.startswith("io.debezium."))


def read_cloud_event(document: Columns) -> CloudEvent:
    """The change. Raises DecodeError ``not_an_envelope`` when its data is not that of a change as JSON.

    Without the connector's extension attributes the operation is told by the rows: no row after the change
    means a delete. Raises ``no_op`` when there is no row at all to tell it.
    """
    data, schema = document["data"], None
    if isinstance(data, dict) and data.keys() == {"schema", "payload"}:
        data, schema = data["payload"], data["schema"]
    if not isinstance(data, dict) or not data.keys() & {"before", "after"}:
        raise DecodeError("not_an_envelope", "the data of the cloud event is not a change as JSON")
    before, after = data.get("before"), data.get("after")
    op = document.get(_EXTENSION + "op")
    if op is None:
        if before is None and after is None:
            raise DecodeError("no_op", "the cloud event has neither an operation nor a row")
        op = "d" if after is None else "u"
    source = {name: document.get(attribute) for name, attribute in _ATTRIBUTES.items()}
    source["ts_ms"] = _integer(source["ts_ms"])
    return CloudEvent(op, before, after, source, schema)


def _integer(value: Value) -> Value:
    """Extension attributes are texts, also where they are numbers."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value
