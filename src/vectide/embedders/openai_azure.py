"""Azure OpenAI: the models of OpenAI as deployments of a resource, through the SDK's client for Azure.

A request goes to ``{resource}/openai/deployments/{deployment}/embeddings?api-version=...`` with the key as
``api-key``, or a token of Microsoft Entra as the bearer (Microsoft's reference of the data plane, operation
*Embeddings_Create*). A resource's newer address, which ends in ``/openai/v1``, speaks the API of OpenAI
itself: that is the kind ``openai``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar, Final

import httpx2
import openai

from vectide.embedders.api import Answered
from vectide.embedders.openai_compatible import OpenAIEmbedder
from vectide.embedders.openai_entra import EntraTokens, identity_of
from vectide.embedders.start import usable_key, usable_url
from vectide.ports import AdapterError, Deadline, StartupRefused

#: The newest version of the data plane that Microsoft calls stable and that takes a date.
API_VERSION: Final = "2024-10-21"


class AzureEmbedder(OpenAIEmbedder):
    """:class:`~vectide.ports.Embedder` over one deployment.

    ``base_url`` is the resource's address (``https://NAME.openai.azure.com``). ``model`` is what is deployed:
    it names the space and tells dimensions and limits; ``deployment`` is the name under which, where it is
    another. Without ``api_key`` the identity that the environment describes is used
    (:func:`~vectide.embedders.openai_entra.identity_of`). Other settings as in :class:`OpenAIEmbedder`.
    """

    provider: ClassVar[str] = "azure"
    advice: ClassVar[Mapping[str, str]] = {
        "not_found": "check VECTIDE_EMBEDDER__DEPLOYMENT, which is the name of the model if not given, "
        "VECTIDE_EMBEDDER__BASE_URL (https://NAME.openai.azure.com) and VECTIDE_EMBEDDER__API_VERSION",
        "unauthorized": "check VECTIDE_EMBEDDER__API_KEY; without one, AZURE_TENANT_ID, AZURE_CLIENT_ID and "
        "the role of that identity in the resource (Cognitive Services OpenAI User)",
    }

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        deployment: str | None = None,
        api_version: str = API_VERSION,
        dimensions: int | None = None,
        text_tokens: int | None = None,
        tokenizer: str | None = None,
        concurrency: int = 8,
    ) -> None:
        self._deployment = deployment or model
        self._api_version = api_version
        self._tokens: EntraTokens | None = None
        super().__init__(
            model,
            base_url=base_url,
            api_key=api_key,
            dimensions=dimensions,
            text_tokens=text_tokens,
            tokenizer=tokenizer,
            concurrency=concurrency,
        )

    def _connected(self, base_url: str | None, api_key: str | None, http: httpx2.Client) -> openai.OpenAI:
        identity = None if api_key else identity_of(os.environ)
        if identity is not None:
            self._tokens = EntraTokens(identity, http)
        elif not api_key:
            raise StartupRefused(
                "Azure OpenAI needs a key: set VECTIDE_EMBEDDER__API_KEY, or for an identity of Microsoft "
                "Entra AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE or AZURE_CLIENT_SECRET"
            )
        tokens = self._tokens
        return openai.AzureOpenAI(
            azure_endpoint=usable_url(base_url or ""),
            api_version=self._api_version,
            api_key=usable_key("Azure OpenAI", api_key) if api_key else None,
            azure_ad_token_provider=None if tokens is None else lambda: tokens.current,
            max_retries=0,
            http_client=http,
        )

    def _call(self, texts: list[str], deadline: Deadline, *, query: bool) -> Answered:
        """A token that is refused, because it was revoked or the clocks differ, is replaced once."""
        if self._tokens is None:
            return super()._call(texts, deadline, query=query)
        token = self._tokens.token(deadline)
        try:
            return super()._call(texts, deadline, query=query)
        except AdapterError as exc:
            if exc.failure.cause != "unauthorized":
                raise
        self._tokens.forget(token)
        self._tokens.token(deadline)
        return super()._call(texts, deadline, query=query)

    def _parameters(self, *, query: bool) -> dict[str, object]:
        return {**super()._parameters(query=query), "model": self._deployment}


create = AzureEmbedder
