"""The part of the chart's values.schema.json that follows from the settings: which variables may be given."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from vectide.settings import VariableDoc

#: What the chart itself sets.
OWN: Final = (
    *(f"VECTIDE_HTTP__{name}" for name in ("HOST", "PORT", "CERTIFICATE_PATH", "KEY_PATH")),
    "VECTIDE_TABLES",
)
#: Plug-ins have names of their own.
_OPEN: Final = ("VECTIDE_EMBEDDER__KIND", "VECTIDE_STORE__KIND")
_KINDS: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": "string"},
    "list": {"type": "string"},
    "JSON object": {"type": ["object", "string"]},
    "bytes": {"type": ["integer", "string"]},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
}


def updated(schema: str, variables: Sequence[VariableDoc]) -> str:
    """The schema with ``settings`` and ``secrets`` as these variables have it; the rest stays as it is.

    What is secret is refused among the settings, where it would be kept in the clear; but for properties of
    Kafka's client, which may hold nothing secret.
    """
    document = json.loads(schema)
    given = [variable for variable in variables if variable.name not in OWN]
    plain = [variable for variable in given if not variable.secret or variable.type == "JSON object"]
    properties = document["properties"]
    properties["settings"]["properties"] = {variable.name: _schema(variable) for variable in plain}
    secret = [variable.name for variable in given if variable.secret]
    properties["secrets"]["propertyNames"] = {"enum": secret}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _schema(variable: VariableDoc) -> dict[str, Any]:
    kind = _KINDS.get("text" if variable.name in _OPEN else variable.type)
    if kind is None:
        kind = {"enum": re.split(r"\s*\|\s*", variable.type)}
    return {"description": variable.meaning, **kind}
