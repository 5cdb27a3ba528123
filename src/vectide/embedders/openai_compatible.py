"""Embeddings over the OpenAI API: OpenAI itself and every server that speaks its ``/embeddings`` endpoint.

Through the openai SDK, with its own retries off and its response parsing by-passed: vectors are asked for
as base64 and decoded straight into float32 (several times cheaper than the SDK's lists of floats; servers
that answer with lists are understood too). The body is read piece by piece so that a server that drips
cannot hold a worker much past its deadline, nor fill the memory.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx2
import msgspec
import numpy as np
import openai

from vectide.core.failures import Failure, Kind
from vectide.embedders import checked, checked_texts, in_time
from vectide.embedders.openai_failures import ERRORS, failure_of
from vectide.ports import (
    AdapterError,
    Deadline,
    EmbedderLimits,
    Embeddings,
    StartupRefused,
    Vector,
)

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"

#: Dimensions of the models whose dimension is known without asking.
KNOWN_DIMENSIONS: Final = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}

#: What OpenAI's models read of one text, in tokens.
MODEL_TOKENS: Final = 8191

#: UTF-8 bytes that :meth:`OpenAIEmbedder.count_tokens` takes for one token.
BYTES_PER_TOKEN: Final = 3

_CONNECT_S: Final = 5.0
_KEEPALIVE_S: Final = 30.0
_PROBE: Final = "dimension"
#: The most bytes of one number in a JSON list, and what an answer may hold besides its vectors.
_NUMBER_BYTES: Final = 32
_ANSWER_BYTES: Final = 1 << 20
_LARGEST_DIMENSIONS: Final = 8192

#: Below warning they log several lines per call; what those show is theirs to change (invariant 13).
_LOGGERS: Final = ("openai", "httpx2", "httpcore2")


class OpenAIEmbedder:
    """:class:`~vectide.ports.Embedder` over one model of one server. One client, shared by all threads.

    ``dimensions`` is sent along only when given; otherwise :meth:`prepare` learns it. ``max_tokens`` is
    what the provider accepts in one request; ``text_tokens`` what the model reads of one text, where it is
    not one of OpenAI's own. ``tokenizer`` is the path of the model's ``tokenizer.json``; without it tokens
    are estimated. ``concurrency`` sizes the pool of kept connections.

    The space names model and dimensions, not the server: the same model behind another address (a proxy, a
    second deployment) gives the same vectors, and moving must not mean embedding everything again. Whoever
    serves two different models under one name must give them different names.

    Raises :class:`StartupRefused` for an address or a key that cannot be sent.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        max_items: int = 2048,
        max_tokens: int = 300_000,
        text_tokens: int | None = None,
        tokenizer: str | None = None,
        concurrency: int = 8,
    ) -> None:
        self._model = model
        self._configured = dimensions
        self._dimensions = dimensions or KNOWN_DIMENSIONS.get(model)
        if text_tokens is None and model in KNOWN_DIMENSIONS:
            text_tokens = MODEL_TOKENS
        self._count = _estimate if tokenizer is None else _counter(tokenizer)
        self._limits = _limits(max_items, max_tokens, text_tokens, exact=tokenizer is not None)
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.level, logging.WARNING))
        self._client = openai.OpenAI(
            base_url=_usable_url(base_url),
            api_key=_usable_key(base_url, api_key),
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                limits=httpx2.Limits(
                    max_connections=None,  # the callers are bounded; a call never queues for a connection
                    max_keepalive_connections=concurrency + 1,
                    keepalive_expiry=_KEEPALIVE_S,
                )
            ),
        )

    def prepare(self, deadline: Deadline) -> None:
        """One tiny call: does the server take the key and the model, and how long are its vectors?"""
        try:
            (vector,), _ = self._call([_PROBE], deadline)
        except AdapterError as exc:
            raise self._at_start(exc.failure) from None
        checked([vector], 1, vector.size)
        if self._configured not in (None, vector.size):
            raise StartupRefused(
                f"model {self._model!r} gives {vector.size} dimensions, "
                f"but {self._configured} are configured: change the setting or the model"
            )
        self._dimensions = vector.size

    @property
    def space(self) -> str:
        return f"openai/{self._model}/{self.dimensions}"

    @property
    def dimensions(self) -> int:
        """Known once configured, or for OpenAI's own models, or after :meth:`prepare`."""
        if self._dimensions is None:
            raise RuntimeError("the dimension is not known before prepare()")
        return self._dimensions

    @property
    def limits(self) -> EmbedderLimits:
        """In tokens as :meth:`count_tokens` counts them. Where these are estimated, keeping ``max_tokens``
        and ``max_chunk_tokens`` keeps the provider's limits with certainty, and ``max_text_tokens`` is None:
        an estimate must not refuse a text that the provider would have taken."""
        return self._limits

    def count_tokens(self, text: str) -> int:
        """Exact with the model's tokenizer. Else UTF-8 bytes / 3, rounded up, at least 1.

        That is more than the truth for prose and code (3.8 to 4.4 bytes per token in German and Python code)
        and about right for Chinese (3.1); less than the truth for emoji (1.45) and lists of UUIDs (1.95).
        """
        return self._count(text)

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        vectors, tokens = self._call(checked_texts(texts), deadline)
        return checked(vectors, len(texts), self.dimensions, tokens)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        vector: Vector = self.embed([text], deadline).vectors[0]
        return vector

    def close(self) -> None:
        self._client.close()

    def _call(self, texts: list[str], deadline: Deadline) -> tuple[list[Vector], int | None]:
        in_time(deadline)
        remaining_s = deadline.remaining_s()
        dimensions = self._configured or self._dimensions or _LARGEST_DIMENSIONS
        try:
            with self._client.embeddings.with_streaming_response.create(
                model=self._model,
                input=texts,
                encoding_format="base64",
                dimensions=self._configured if self._configured is not None else openai.omit,
                timeout=httpx2.Timeout(remaining_s, connect=min(_CONNECT_S, remaining_s)),
            ) as response:
                body = _read(response, len(texts) * dimensions * _NUMBER_BYTES + _ANSWER_BYTES, deadline)
        except ERRORS as exc:
            # Not chained: the SDK's errors hold the request, and with it the texts and the key.
            raise AdapterError(failure_of(exc)) from None
        return decode(body, len(texts))

    def _at_start(self, failure: Failure) -> Exception:
        """What a failed probe means at start-up. An exhausted quota is no reason to exit: it comes back."""
        if failure.kind is Kind.OPERATOR and failure.cause != "quota_exhausted":
            advice = _ADVICE.get(failure.cause, "check VECTIDE_EMBEDDER__BASE_URL and the provider's status")
        elif failure.kind in (Kind.REFUSED, Kind.TOO_LARGE):
            advice = "check the model, and whether it takes the configured dimensions"
        else:
            return AdapterError(failure)
        where = self._client.base_url.host
        return StartupRefused(f"{where} refuses model {self._model!r} ({failure.detail}): {advice}")


def _estimate(text: str) -> int:
    return max(1, -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN))


def _counter(path: str) -> Callable[[str], int]:
    from vectide.embedders.tokenizer_file import counter  # its SDK is needed by those only who name a file

    return counter(path)


def _limits(items: int, call_tokens: int, text_tokens: int | None, *, exact: bool) -> EmbedderLimits:
    if exact:
        return EmbedderLimits(items, call_tokens, text_tokens)
    # An estimate is at least bytes / 3, and a token is never less than a byte: a third of the provider's
    # limit, in estimated tokens, can therefore never exceed it.
    sure = None if text_tokens is None else max(1, text_tokens // BYTES_PER_TOKEN)
    return EmbedderLimits(items, max(1, call_tokens // BYTES_PER_TOKEN), max_chunk_tokens=sure)


_ADVICE: Final = {
    "unauthorized": "check VECTIDE_EMBEDDER__API_KEY",
    "forbidden": "the key may not use this model; check its permissions",
    "not_found": "check VECTIDE_EMBEDDER__MODEL and VECTIDE_EMBEDDER__BASE_URL (it usually ends in /v1)",
}


def _usable_url(base_url: str | None) -> str:
    url = base_url or DEFAULT_BASE_URL
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # broken brackets, or a port that is no number
        usable = False
    if not usable:
        raise StartupRefused(f"VECTIDE_EMBEDDER__BASE_URL {url!r} is not a URL that starts with http(s)://")
    return url


def _usable_key(base_url: str | None, api_key: str | None) -> str:
    """The key to send. A server of one's own may need none, but the SDK insists on one."""
    if not api_key:
        if base_url is None:
            raise StartupRefused("OpenAI needs a key: set VECTIDE_EMBEDDER__API_KEY")
        return "none"
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise StartupRefused("VECTIDE_EMBEDDER__API_KEY holds characters that no key has (blanks, line ends)")
    return api_key


# --- the answer -----------------------------------------------------------------------------------------


class _Response(Protocol):
    def iter_bytes(self, chunk_size: int | None = None) -> Any: ...


def _read(response: _Response, most_bytes: int, deadline: Deadline) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for piece in response.iter_bytes():
        in_time(deadline)
        size += len(piece)
        if size > most_bytes:
            raise AdapterError(Failure(Kind.INVALID, "answer_too_large", f"more than {most_bytes} bytes"))
        pieces.append(piece)
    return b"".join(pieces)


class _Item(msgspec.Struct):
    embedding: bytes | list[float]
    index: int | None = None


class _Usage(msgspec.Struct):
    total_tokens: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None


_DECODER: Final = msgspec.json.Decoder(_Answer)


def decode(body: bytes, count: int) -> tuple[list[Vector], int | None]:
    """Vectors in the order of the inputs, not yet checked, and the tokens billed.

    Raises :class:`AdapterError`: transient ``not_json`` for what is no answer of this API at all (a proxy's
    page), transient ``error_in_answer`` for an error under status 200, invalid ``malformed``,
    ``wrong_count`` or ``wrong_order``.
    """
    try:
        answer = _DECODER.decode(body)
    except ValueError:  # every error of msgspec is one
        answer = _lenient(body)
    tokens = answer.usage.total_tokens if answer.usage else None
    return [_vector(item.embedding) for item in _in_order(answer.data, count)], tokens


def _vector(embedding: bytes | list[float]) -> Vector:
    if isinstance(embedding, bytes):
        if len(embedding) % 4:
            raise AdapterError(Failure(Kind.INVALID, "malformed", "base64 of a broken length"))
        return np.frombuffer(embedding, dtype="<f4")
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which the check finds
        return np.array(embedding, dtype=np.float32)


def _in_order(items: list[_Item], count: int) -> list[_Item]:
    """By ``index``, which must name every input once. A server that leaves it out everywhere is taken at
    its word: its items are in order."""
    if len(items) != count:
        raise AdapterError(Failure(Kind.INVALID, "wrong_count", f"{len(items)} vectors for {count} texts"))
    if all(item.index is None for item in items):
        return items
    places = {item.index: item for item in items}
    if places.keys() != set(range(count)):
        raise AdapterError(Failure(Kind.INVALID, "wrong_order", "the indexes do not name every text once"))
    return [places[index] for index in range(count)]


def _lenient(body: bytes) -> _Answer:
    """Understand what strict JSON does not allow (NaN literals) or the API does not promise (null for a
    number, a usage of another shape), so that the precise cause is found and the culprit can be isolated."""
    try:
        answer = json.loads(body)
    except ValueError:
        if body.lstrip()[:1] == b"{":
            raise AdapterError(Failure(Kind.TRANSIENT, "truncated", f"{len(body)} bytes")) from None
        raise AdapterError(Failure(Kind.TRANSIENT, "not_json", f"{len(body)} bytes")) from None
    if isinstance(answer, dict) and answer.get("error") is not None and not answer.get("data"):
        raise AdapterError(Failure(Kind.TRANSIENT, "error_in_answer"))
    try:
        items = [_lenient_item(item) for item in answer["data"]]
    except (KeyError, TypeError, ValueError):
        raise AdapterError(Failure(Kind.INVALID, "malformed", f"{len(body)} bytes")) from None
    return _Answer(items)


def _lenient_item(item: dict[str, Any]) -> _Item:
    embedding, index = item["embedding"], item.get("index")
    if isinstance(embedding, str):
        embedding = msgspec.convert(embedding, bytes)
    else:
        embedding = [float("nan") if number is None else float(number) for number in embedding]
    return _Item(embedding, index if isinstance(index, int) else None)


create = OpenAIEmbedder
