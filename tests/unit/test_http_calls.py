"""What goes wrong on the way to a store whose HTTP interface is spoken directly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from vectide.core.failures import Kind
from vectide.stores.http_calls import Told, failure_of, failure_of_transport


def all_below(base: type[BaseException]) -> Iterator[Any]:
    for sub in base.__subclasses__():
        yield sub
        yield from all_below(sub)


@pytest.mark.parametrize(
    "cls",
    [cls for cls in all_below(httpx.HTTPError) if cls is not httpx.HTTPStatusError],
    ids=lambda cls: cls.__name__,
)
def test_every_error_of_the_transport_is_mapped(cls: Any) -> None:
    causes = ("timeout", "connection", "not_chroma", "answer")
    assert failure_of_transport(cls("words"), "chroma").cause in causes


def test_a_certificate_that_is_not_trusted_is_for_the_operator() -> None:
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    failure = failure_of_transport(error, "weaviate")
    assert (failure.kind, failure.cause) == (Kind.OPERATOR, "tls")


@pytest.mark.parametrize("body", [b"[1]", b"null", b"{}", b"<html>", b'{"message": 1}'])
def test_an_error_in_another_shape_means_what_its_status_says(body: bytes) -> None:
    def read(told: Any) -> Told:
        return Told(words=told["message"].strip())

    failure = failure_of(httpx.Response(503, content=body), "weaviate", read)
    assert (failure.kind, failure.cause) == (Kind.TRANSIENT, "server_error")
    assert "503" in failure.detail
