"""Azure OpenAI: the models of OpenAI as deployments of a resource, through the SDK's client for Azure.

A request goes to ``{resource}/openai/deployments/{deployment}/embeddings?api-version=...`` with the key as
``api-key`` (Microsoft's reference of the data plane, operation *Embeddings_Create*). A resource's newer
address, which ends in ``/openai/v1``, speaks the API of OpenAI itself: that is the kind ``openai``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import httpx2
import openai

from vectide.embedders.openai_compatible import OpenAIEmbedder
from vectide.embedders.start import usable_key, usable_url

#: The newest version of the data plane that Microsoft calls stable and that takes a date.
API_VERSION: Final = "2024-10-21"


class AzureEmbedder(OpenAIEmbedder):
    """:class:`~vectide.ports.Embedder` over one deployment.

    ``base_url`` is the resource's address (``https://NAME.openai.azure.com``). ``model`` is what is deployed:
    it names the space and tells dimensions and limits; ``deployment`` is the name under which, where it is
    another. Other settings as in :class:`OpenAIEmbedder`.
    """

    provider: ClassVar[str] = "azure"
    advice: ClassVar[Mapping[str, str]] = {
        "not_found": "check VECTIDE_EMBEDDER__DEPLOYMENT, which is the name of the model if not given, "
        "VECTIDE_EMBEDDER__BASE_URL (https://NAME.openai.azure.com) and VECTIDE_EMBEDDER__API_VERSION",
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
        return openai.AzureOpenAI(
            azure_endpoint=usable_url(base_url or ""),
            api_version=self._api_version,
            api_key=usable_key("Azure OpenAI", api_key),
            max_retries=0,
            http_client=http,
        )

    def _parameters(self, *, query: bool) -> dict[str, object]:
        return {**super()._parameters(query=query), "model": self._deployment}


create = AzureEmbedder
