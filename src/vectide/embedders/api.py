"""What all embedders behind an API have in common; one call is what each adds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vectide.core.pace import Allowance
from vectide.embedders import checked, checked_texts, in_time
from vectide.embedders.start import PROBE, at_start, dimensions_of
from vectide.embedders.tokens import Model, counter_of, limits_of
from vectide.ports import AdapterError, Deadline, EmbedderLimits, Embeddings, Vector


@dataclass(frozen=True, slots=True)
class Answered:
    """One call's answer: vectors in the order of the texts, not yet checked; the tokens billed and what is
    left of the limits, None where the provider does not say."""

    vectors: Sequence[Vector]
    tokens: int | None = None
    allowance: Allowance | None = None


class ApiEmbedder(ABC):
    """:class:`~vectide.ports.Embedder` over one model of a provider.

    ``dimensions`` is sent along only when given; otherwise :meth:`prepare` learns it. ``max_tokens`` is
    what the provider accepts in one request, and ``text_tokens`` what the model reads of one text, where it
    is not one that is known. ``tokenizer`` is the path of the model's ``tokenizer.json``; without it tokens
    are estimated.
    """

    #: The provider, as the space names it.
    provider: ClassVar[str]
    #: The models that are known.
    models: ClassVar[Mapping[str, Model]]
    #: Cause of a failure at start -> what to do, where this provider's differs from what all have.
    advice: ClassVar[Mapping[str, str]] = {}
    #: What the space ends in, where documents and queries are told apart.
    input_type: ClassVar[str | None] = None

    def __init__(
        self,
        model: str,
        *,
        dimensions: int | None,
        max_items: int,
        max_tokens: int | None,
        text_tokens: int | None,
        tokenizer: str | None,
    ) -> None:
        self._model = model
        self._configured = dimensions
        known = self.models.get(model)
        self._dimensions = dimensions or (known.dimensions if known else None)
        text_tokens = text_tokens or (known.text_tokens if known else None)
        max_tokens = known.call_tokens if known and known.call_tokens else max_tokens
        self._count = counter_of(tokenizer)
        self._limits = limits_of(max_items, max_tokens, text_tokens, exact=tokenizer is not None)

    def prepare(self, deadline: Deadline) -> None:
        """One tiny call: does the provider take the key and the model, and how long are its vectors?"""
        try:
            in_time(deadline)
            vectors = self._call([PROBE], deadline, query=False).vectors
        except AdapterError as exc:
            raise at_start(exc.failure, self._host, self._model, self.advice) from None
        self._dimensions = dimensions_of(vectors, self._model, self._configured)

    @property
    def space(self) -> str:
        name = f"{self.provider}/{self._model}/{self.dimensions}"
        return f"{name}/{self.input_type}" if self.input_type else name

    @property
    def dimensions(self) -> int:
        """Known once configured, or for models that are known, or after :meth:`prepare`."""
        if self._dimensions is None:
            raise RuntimeError("the dimension is not known before prepare()")
        return self._dimensions

    @property
    def limits(self) -> EmbedderLimits:
        """In tokens as :meth:`count_tokens` counts them: :func:`~vectide.embedders.tokens.limits_of`."""
        return self._limits

    def count_tokens(self, text: str) -> int:
        """Exact with the model's tokenizer, else :func:`~vectide.embedders.tokens.estimate`."""
        return self._count(text)

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        return self._embed(texts, deadline, query=False)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        vector: Vector = self._embed([text], deadline, query=True).vectors[0]
        return vector

    @abstractmethod
    def close(self) -> None: ...

    @property
    @abstractmethod
    def _host(self) -> str:
        """Who is asked, for messages."""

    @abstractmethod
    def _call(self, texts: list[str], deadline: Deadline, *, query: bool) -> Answered:
        """Raises only :class:`AdapterError`."""

    def _embed(self, texts: Sequence[str], deadline: Deadline, *, query: bool) -> Embeddings:
        sent = checked_texts(texts)
        in_time(deadline)
        answer = self._call(sent, deadline, query=query)
        return checked(answer.vectors, len(texts), self.dimensions, answer.tokens, answer.allowance)
