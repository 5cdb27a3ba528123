"""What a table says for itself of its embedder, its store and its source, over what all tables have.

The keys are the names of the sections' variables in small letters. ``${NAME}`` in a value stands for that
variable of the environment, and a secret may be given as ``<key>_file`` instead, the path of a file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from vectide.settings_sections import (
    EmbedderSettings,
    Section,
    SourceSettings,
    StoreSettings,
    Variable,
    message_of,
    variables_of,
)
from vectide.settings_tables import TableSettings

_MAX_FILE_BYTES: Final = 4 * 2**20
_REFERENCE: Final = re.compile(r"\$\{(\w+)\}")

#: The sections of which a table may have its own, and what they hold.
OWN_SECTIONS: Final[Mapping[str, type[Section]]] = {"embedder": EmbedderSettings, "store": StoreSettings}
_READ: Final[Mapping[str, type[Section]]] = {**OWN_SECTIONS, "source": SourceSettings}
_VARIABLES: Final[Mapping[str, Mapping[str, Variable]]] = {
    name: {variable.field: variable for variable in variables_of("", name, model)}
    for name, model in _READ.items()
}
#: Where a section's client connects to, and what is only for the address that it was given for.
_ADDRESSES: Final = frozenset({"base_url", "dsn", "url"})
_OF_ADDRESS: Final = frozenset({"api_key", "ca_file", *_ADDRESSES})
#: What is only for the model that it was given for.
_OF_MODEL: Final = frozenset(
    {"deployment", "dimensions", "requests_per_minute", "text_tokens", "tokenizer", "tokens_per_minute"}
)

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OwnValues:
    """The values that a table gives for itself, each valid by itself, by section."""

    given: Mapping[str, Values] = field(default_factory=dict)

    def over(self, section: str, shared: Values) -> Values:
        """Those of the section, over what all tables have.

        Nothing of what is for one kind is taken for another, nor for another model what is for one, and no
        key goes to another address than the one that it was given for.
        """
        own = self.given.get(section, {})
        if own.get("kind", shared.get("kind")) != shared.get("kind"):
            return own
        left_out = set(_OF_ADDRESS if own.keys() & _ADDRESSES else ())
        left_out |= _OF_MODEL if "model" in own else set()
        return {**{name: value for name, value in shared.items() if name not in left_out}, **own}


def own_values(
    table: str, settings: TableSettings, environ: Mapping[str, str], problems: list[str]
) -> OwnValues:
    """Read what the table gives for itself; what is wrong is added to ``problems``."""
    given: dict[str, Values] = {}
    for section in OWN_SECTIONS:
        said = getattr(settings, section)
        if said is not None:
            before = len(problems)
            reader = _Reader(f"tables.{table}.{section}.", _VARIABLES[section], environ, problems)
            given[section] = reader.read(said)
            if len(problems) > before:
                given[section] = {"kind": None}  # what else it lacks is told when this is right
    source = {"dsn": settings.source_dsn, "dsn_file": settings.source_dsn_file}
    said = {name: value for name, value in source.items() if value is not None}
    if said:
        reader = _Reader(f"tables.{table}.source_", _VARIABLES["source"], environ, problems)
        given["source"] = reader.read(said)
    return OwnValues(given)


@dataclass(frozen=True, slots=True)
class _Reader:
    """``path``: what the keys' names begin with in problems."""

    path: str
    variables: Mapping[str, Variable]
    environ: Mapping[str, str]
    problems: list[str]

    def read(self, said: Mapping[str, Any]) -> Values:
        values: dict[str, Any] = {}
        for key, value in said.items():
            self.problems.extend(self._read(key, value, values))
        return values

    def _read(self, key: str, value: Any, values: dict[str, Any]) -> Iterator[str]:
        name = key.removesuffix("_file") if key not in self.variables else key
        variable = self.variables.get(name)
        if variable is None or (name != key and not variable.secret):
            close = difflib.get_close_matches(key, self.variables, n=1)
            yield f"{self.path}{key}: unknown key" + (f"; did you mean {close[0]}?" if close else "")
        elif name in values:
            yield f"{self.path}{name}: given twice, also as {name}_file: keep one of them"
        elif not isinstance(value, str | int | float | SecretStr):
            yield f"{self.path}{key}: must be a text, a number or a boolean"
        else:
            raw = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            missing = sorted(
                {one for one in _REFERENCE.findall(raw) if not self.environ.get(one, "").strip()}
            )
            if missing:
                yield f"{self.path}{key}: the environment has no {', '.join(missing)}"
                return
            text: str | None = _REFERENCE.sub(lambda found: self.environ[found[1]].strip(), raw)
            if name != key:
                text = read_file(f"{self.path}{key}", text or "", self.problems)
            if text is not None:
                yield from self._validate(key, variable, text, values)

    def _validate(self, key: str, variable: Variable, text: str, values: dict[str, Any]) -> Iterator[str]:
        try:
            values[variable.field] = variable.adapter.validate_python(text.strip())
        except ValidationError as error:
            close = difflib.get_close_matches(text.strip().lower(), variable.choices, n=1)
            advice = f"; did you mean {close[0]}?" if close else ""
            for found in error.errors(include_url=False, include_context=False, include_input=False):
                yield f"{self.path}{key}: {message_of(found)}{advice}"


def read_file(name: str, path: str, problems: list[str]) -> str | None:
    """The text of the file that ``name`` names; None, and a problem, when there is none."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        problems.append(f"{name}: the file cannot be read: {error.strerror or type(error).__name__}")
        return None
    except ValueError:
        problems.append(f"{name}: the file is not UTF-8 text")
        return None
    if len(content) > _MAX_FILE_BYTES:
        problems.append(f"{name}: the file is larger than {_MAX_FILE_BYTES // 2**20} MiB")
        return None
    if not text.strip():
        problems.append(f"{name}: the file is empty")
        return None
    return text
