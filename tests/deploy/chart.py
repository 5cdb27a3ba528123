"""The chart, rendered as Helm does it, and judged by what Kubernetes and its operators take."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm" / "vectide"
EXAMPLES: Final = {
    path.stem: yaml.safe_load(path.read_text("utf-8"))
    for path in sorted((ROOT / "helm/examples").glob("*.yaml"))
}
#: The oldest and the newest Kubernetes that is checked.
VERSIONS: Final = ("1.27", "1.37")
#: Operators: where the models of their API are.
MODELS: Final = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}

Document = Mapping[str, Any]


def render(values: Document, *, release: str = "vectide", namespace: str = "prod") -> list[Document]:
    """Every document that Helm makes of these values; raises its HelmError for values that are refused."""
    helm = pytest.importorskip("helm_python", reason="Helm's library has no build for this machine")
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(dict(values))
        files = chart.render(dict(values), name=release, namespace=namespace)
    texts = [text for name, text in sorted(files.items()) if name.endswith(".yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def one(documents: list[Document], kind: str) -> Any:
    """The only document of its kind."""
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def container(documents: list[Document]) -> Any:
    (found,) = one(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def problems(document: Document) -> Iterator[str]:
    """What is wrong with a document by the schema of its API: wrong values, and fields that there are not."""
    if document["apiVersion"] in MODELS:
        model = getattr(importlib.import_module(MODELS[document["apiVersion"]]), document["kind"])
        try:
            parsed = model.model_validate(document)
        except ValueError as error:
            yield str(error)
            return
        yield from _lost(document, parsed.model_dump(mode="json", by_alias=True, exclude_unset=True), "")
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(dict(document), version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{version}: {error}"


def _lost(given: Any, understood: Any, path: str) -> Iterator[str]:
    """What a model, which passes over unknown fields, did not take in."""
    if isinstance(given, Mapping) and isinstance(understood, Mapping):
        for name, value in given.items():
            if name not in understood:
                yield f"{path}.{name}: there is no such field"
            else:
                yield from _lost(value, understood[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(understood, list):
        for number, (value, taken) in enumerate(zip(given, understood, strict=True)):
            yield from _lost(value, taken, f"{path}[{number}]")
