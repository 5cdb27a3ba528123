"""The text template: which text a row's columns make.

============  ======================================================================================
written       means
============  ======================================================================================
``{name}``    the text of the column ``name``; nothing when it is null
``{$table}``  the source table, ``schema.table``
``{$op}``     the operation: ``c``, ``r`` or ``u``
``{$ts}``     when the source committed the change, ISO 8601 in UTC
``[...]``     an optional part: it vanishes when any column in it is null, empty or only white space
``{{ }}``     a literal ``{`` and ``}``
``[[ ]]``     a literal ``[`` and ``]``
============  ======================================================================================

Doubled braces and brackets are read first, from the left. Optional parts cannot be nested (``]]`` would be
ambiguous). White space around the whole text is dropped, so that an absent last column leaves no trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vectide.core.render import is_blank

#: The event fields that a template (and a metadata field) may name.
EVENT_FIELDS: Final = ("$table", "$op", "$ts")

_TOKEN: Final = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{[^{}\n]*\}|[{}\[\]]|[^{}\[\]]+")
#: Stands for a column's text; no such text holds it.
_ANY: Final = "\0"
_DOUBLED: Final = {"{{": "{", "}}": "}", "[[": "[", "]]": "]"}
_STRAY: Final = {
    "{": "this brace is never closed, or holds a brace or a line break; write {{ for a literal one",
    "}": "this brace closes nothing; write }} for a literal one",
    "]": "this bracket closes nothing; write ]] for a literal one",
}


class TemplateError(ValueError):
    """The template cannot be read. ``position`` is the offending character, counted from 1 (0: the whole)."""

    def __init__(self, problem: str, text: str = "", position: int = 0) -> None:
        where = f" (character {position}: {text[position - 1 : position + 19]!r})" if position else ""
        super().__init__(f"{problem}{where}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Literal:
    """Text that stands for itself."""

    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or an event field when the name starts with ``$``."""

    name: str

    @property
    def is_event(self) -> bool:
        return self.name.startswith("$")


@dataclass(frozen=True, slots=True)
class OptionalPart:
    """A part that vanishes when one of its fields has nothing to say."""

    parts: tuple[Literal | Field, ...]


Part = Literal | Field | OptionalPart


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. ``source`` is the text it was parsed from, and its identity."""

    source: str
    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template. Raises :class:`TemplateError`, which says where and what to write instead."""
        return cls(text, tuple(_Parser(text).parts()))

    @classmethod
    def of_columns(cls, names: Sequence[str]) -> Template:
        """The columns' texts in this order with a blank line between them; blank ones are left out.

        Any column name is possible here, also one with braces. Raises :class:`TemplateError` for an empty
        or repeated name and for an event field.
        """
        for name in names:
            if not name or name.startswith("$"):
                raise TemplateError(f"{name!r} is not a column name")
            if names.count(name) > 1:
                raise TemplateError(f"the column {name!r} is listed more than once")
        fields = [Field(name) for name in names]
        parts = [
            OptionalPart((field,) if at == 0 else (Literal("\n\n"), field)) for at, field in enumerate(fields)
        ]
        source = "".join(f"[{{{name}}}]" if at == 0 else f"[\n\n{{{name}}}]" for at, name in enumerate(names))
        return cls(source, tuple(parts))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns used, each once, in order of appearance."""
        return tuple(dict.fromkeys(field.name for field in self._all_fields() if not field.is_event))

    @property
    def fields(self) -> tuple[str, ...]:
        """The event fields used (with their ``$``), each once, in order of appearance."""
        return tuple(dict.fromkeys(field.name for field in self._all_fields() if field.is_event))

    def render(self, values: Mapping[str, str | None], event: Mapping[str, str | None]) -> str:
        """The text of one row, stripped of surrounding white space.

        ``values`` has the text of every name in :attr:`columns` (None: null), ``event`` that of every name
        in :attr:`fields`; a name that is absent raises KeyError.
        """

        def text_of(field: Field) -> str | None:
            return event[field.name] if field.is_event else values[field.name]

        pieces: list[str] = []
        for part in self.parts:
            if not isinstance(part, OptionalPart):
                pieces.append(part.text if isinstance(part, Literal) else text_of(part) or "")
                continue
            texts = [piece.text if isinstance(piece, Literal) else text_of(piece) for piece in part.parts]
            missing = (
                isinstance(piece, Field) and is_blank(text)
                for piece, text in zip(part.parts, texts, strict=True)
            )
            if not any(missing):
                pieces.extend(text or "" for text in texts)
        return "".join(pieces).strip()

    def value_in(self, text: str) -> str | None:
        """The text of the only column, such that :meth:`render` makes ``text`` of it; None where the
        template has other columns or event fields, or does not make such a text."""
        if len(self.columns) != 1 or self.fields:
            return None
        before, _, after = self.render(dict.fromkeys(self.columns, _ANY), {}).partition(_ANY)
        value = text.removeprefix(before).removesuffix(after)
        return value if self.render(dict.fromkeys(self.columns, value), {}) == text else None

    def _all_fields(self) -> Iterator[Field]:
        for part in self.parts:
            for piece in part.parts if isinstance(part, OptionalPart) else (part,):
                if isinstance(piece, Field):
                    yield piece


class _Parser:
    """Walks over the tokens once; the only state is the optional part that is open."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._opened_at = 0
        self._inner: list[Literal | Field] = []

    def parts(self) -> Iterator[Part]:
        for match in _TOKEN.finditer(self._text):
            lexeme, position = match.group(), match.start() + 1
            if lexeme == "[":
                self._open(position)
            elif lexeme == "]" and self._opened_at:
                yield self._close()
            else:
                piece = self._piece(lexeme, position)
                if self._opened_at:
                    self._inner.append(piece)
                else:
                    yield piece
        if self._opened_at:
            raise self._error(
                "this optional part is never closed; write [[ for a literal bracket", self._opened_at
            )

    def _open(self, position: int) -> None:
        if self._opened_at:
            raise self._error("optional parts cannot be nested; write [[ for a literal bracket", position)
        self._opened_at, self._inner = position, []

    def _close(self) -> OptionalPart:
        if not any(isinstance(piece, Field) for piece in self._inner):
            raise self._error(
                "an optional part needs a column in it; write [[ and ]] for literal brackets", self._opened_at
            )
        self._opened_at = 0
        return OptionalPart(tuple(self._inner))

    def _piece(self, lexeme: str, position: int) -> Literal | Field:
        if lexeme in _DOUBLED:
            return Literal(_DOUBLED[lexeme])
        if lexeme in _STRAY:
            raise self._error(_STRAY[lexeme], position)
        if lexeme.startswith("{"):
            return self._field(lexeme[1:-1], position)
        return Literal(lexeme)

    def _field(self, name: str, position: int) -> Field:
        if not name.strip():
            raise self._error("a column name is missing between the braces", position)
        if name != name.strip():
            raise self._error(f"remove the white space around {name.strip()!r}", position)
        if name.startswith("$") and name not in EVENT_FIELDS:
            raise self._error(f"{name} is not an event field; there are {', '.join(EVENT_FIELDS)}", position)
        return Field(name)

    def _error(self, problem: str, position: int) -> TemplateError:
        return TemplateError(problem, self._text, position)
