"""What operators add to Kubernetes, as custom resource definitions: made from the models of their API.

Unknown fields and wrong types are refused as by the operators' own definitions; their rules in CEL are not
known here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.deploy.chart import MODELS

KINDS: Final = {
    "keda.sh/v1alpha1": ("ScaledObject",),
    "monitoring.coreos.com/v1": ("ServiceMonitor", "PrometheusRule"),
    "external-secrets.io/v1": ("ExternalSecret",),
}
Schema = dict[str, Any]
_TEXT: Final = {"type": "string"}
_KEY: Final = {"type": "object", "properties": {"key": _TEXT, "property": _TEXT}, "required": ["key"]}
_ENTRY: Final = {
    "type": "object",
    "properties": {"secretKey": _TEXT, "remoteRef": _KEY},
    "required": ["secretKey", "remoteRef"],
}
_NAMED: Final = {"type": "object", "properties": {"name": _TEXT, "kind": _TEXT}}
#: No package has a model of it: what the chart uses of it, by its documentation.
_EXTERNAL_SECRET: Final = {
    "type": "object",
    "properties": {
        "refreshInterval": _TEXT,
        "secretStoreRef": _NAMED,
        "target": {"type": "object", "properties": {"name": _TEXT, "creationPolicy": _TEXT}},
        "data": {"type": "array", "items": _ENTRY},
    },
}
#: What a structural schema may say.
_KEPT: Final = ("type", "format", "pattern", "enum", "minimum", "maximum", "required")


def definitions() -> Iterator[Schema]:
    """Every definition that a chart with everything switched on needs."""
    for api, kinds in KINDS.items():
        group, _, version = api.partition("/")
        for kind in kinds:
            yield _definition(group, version, kind, _spec(api, kind))


def _spec(api: str, kind: str) -> Schema:
    if api not in MODELS:
        return dict(_EXTERNAL_SECRET)
    schema = getattr(importlib.import_module(MODELS[api]), kind).model_json_schema(by_alias=True)
    return structural(schema["properties"]["spec"], schema["$defs"])


def structural(schema: Mapping[str, Any], named: Mapping[str, Any]) -> Schema:
    """A JSON schema in the words that Kubernetes takes: nothing by reference, nothing that may be null."""
    if "$ref" in schema:
        return structural(named[schema["$ref"].rpartition("/")[2]], named)
    if "anyOf" in schema:
        options = [structural(option, named) for option in schema["anyOf"] if option.get("type") != "null"]
        if len(options) == 1:
            return options[0]
        assert {option["type"] for option in options} == {"integer", "string"}, options
        return {"x-kubernetes-int-or-string": True}
    made: Schema = {word: schema[word] for word in _KEPT if word in schema}
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if "items" in schema:
        made["items"] = structural(schema["items"], named)
    if "properties" in schema:
        made["properties"] = {name: structural(one, named) for name, one in schema["properties"].items()}
    if isinstance(schema.get("additionalProperties"), Mapping):
        made["additionalProperties"] = structural(schema["additionalProperties"], named)
    return made if "type" in made else {"x-kubernetes-preserve-unknown-fields": True}


def _definition(group: str, version: str, kind: str, spec: Schema) -> Schema:
    plural = f"{kind.lower()}s"
    whole = {"type": "object", "properties": {"spec": spec}, "required": ["spec"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": whole}}
            ],
        },
    }
