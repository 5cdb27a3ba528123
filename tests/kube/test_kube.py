"""The chart on a real API server: taken strictly, installed, upgraded, rolled back, refused where wrong."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.deploy.chart import CHART, EXAMPLES, one, render
from tests.kube.cluster import Cluster

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3 * 3600)]  # the first time it is built

NAME = "vectide"
WAIT_S = 120
_numbers = itertools.count()


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """One of its own, which takes only pods of the profile "restricted"."""
    name = f"test-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    return name


@pytest.fixture
def models(cluster: Cluster, namespace: str) -> None:
    """The volume that an example expects to be there."""
    name, volume = "models", f"models-of-{namespace}"
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    for kind, where, spec in (
        (
            "PersistentVolume",
            {"name": volume},
            {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/models"}},
        ),
        (
            "PersistentVolumeClaim",
            {"name": name, "namespace": namespace},
            {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": volume},
        ),
    ):
        cluster.make({"apiVersion": "v1", "kind": kind, "metadata": where, "spec": {**common, **spec}})


@pytest.fixture
def helm(cluster: Cluster, namespace: str) -> Iterator[Any]:
    """Helm, at that namespace."""
    library = pytest.importorskip("helm_python", reason="Helm's library has no build for this machine")
    with library.Config(kubeconfig_path=cluster.kubeconfig, namespace=namespace) as config:
        yield config


def deployment(cluster: Cluster, namespace: str) -> Mapping[str, Any]:
    answer = cluster.get("apps/v1", "Deployment", namespace, NAME)
    assert answer.status == 200, answer.message
    return answer.body


@pytest.mark.parametrize("tls", [{}, {"secret": "certificate"}], ids=["http", "https"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_every_document_is_taken_strictly(
    cluster: Cluster, namespace: str, example: str, tls: Mapping[str, str]
) -> None:
    documents = render({**EXAMPLES[example], "tls": tls}, namespace=namespace)
    answers = {document["kind"]: cluster.judge(document) for document in documents}
    assert {kind: answer.message for kind, answer in answers.items() if answer.status >= 300} == {}
    assert len(answers) > 5


def test_the_api_server_refuses_what_is_wrong_with_its_path(cluster: Cluster, namespace: str) -> None:
    documents = render(EXAMPLES["pgvector-openai"], namespace=namespace)

    def refusal(kind: str, path: str, value: object) -> str:
        document = copy.deepcopy(one(documents, kind))
        *parents, last = path.split(".")
        at = document
        for name in parents:
            at = at[int(name)] if name.isdigit() else at[name]
        at[last] = value
        answer = cluster.judge(document)
        assert answer.status in (400, 422), (kind, path, answer)
        return answer.message

    pod = "spec.template.spec"
    assert f"{pod}.terminationGracePeriod" in refusal("Deployment", f"{pod}.terminationGracePeriod", 5)
    assert "spec.replicas" in refusal("Deployment", "spec.replicas", -1)
    assert "spec.advanced.formula" in refusal("ScaledObject", "spec.advanced.formula", "lag")
    assert "spec.maxReplicaCount" in refusal("ScaledObject", "spec.maxReplicaCount", "many")
    assert "spec.triggers[0].metadata" in refusal("ScaledObject", "spec.triggers.0.metadata.lagThreshold", 5)
    assert "spec.endpoints[0]" in refusal("ServiceMonitor", "spec.endpoints.0.intervall", "5s")
    assert "spec.groups[0].rules[0]" in refusal("PrometheusRule", "spec.groups.0.rules.0.expr", ["up"])


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_is_installed_upgraded_and_rolled_back(
    cluster: Cluster, namespace: str, helm: Any, example: str
) -> None:
    """With --wait: every replica is ready each time."""
    values = copy.deepcopy(EXAMPLES[example])

    def tables_after(helm_call: Any, *arguments: Any) -> str:
        helm_call(*arguments, timeout=WAIT_S, wait="watcher")
        found = deployment(cluster, namespace)
        assert found["status"]["readyReplicas"] == found["spec"]["replicas"] == found["status"]["replicas"]
        return str(found["spec"]["template"]["metadata"]["annotations"]["checksum/tables"])

    first = tables_after(helm.install, CHART, NAME, values)
    budget = cluster.get("policy/v1", "PodDisruptionBudget", namespace, NAME).body
    assert budget["spec"]["maxUnavailable"] == 1
    table = next(iter(values["tables"].values()))
    table["source"] = f"{table['source']}2"
    second = tables_after(helm.upgrade, CHART, NAME, values)
    assert first != second
    assert tables_after(helm.rollback, NAME) == first
    assert len(helm.history(NAME)) == 3
    helm.uninstall(NAME, timeout=WAIT_S, wait="watcher")
    assert cluster.get("apps/v1", "Deployment", namespace, NAME).status == 404


def test_a_wrong_value_is_refused_with_its_path_and_leaves_what_runs_alone(
    cluster: Cluster, namespace: str, helm: Any
) -> None:
    import helm_python

    values = copy.deepcopy(EXAMPLES["pgvector-local"])
    helm.install(CHART, NAME, values, timeout=WAIT_S, wait="watcher")
    before = deployment(cluster, namespace)
    values["settings"]["VECTIDE_EMBEDDER__CONCURRENCY"] = "many"
    with pytest.raises(helm_python.HelmError) as refusal:
        helm.upgrade(CHART, NAME, values, timeout=WAIT_S, wait="watcher")
    assert "settings/VECTIDE_EMBEDDER__CONCURRENCY" in str(refusal.value).replace(".", "/")
    assert deployment(cluster, namespace)["spec"] == before["spec"]
