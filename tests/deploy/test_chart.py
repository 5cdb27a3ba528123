"""The Helm chart: valid for Kubernetes and its operators, true to the settings, refusing what is wrong."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.chart import CHART, EXAMPLES, ROOT, Document, container, one, problems, render

from vectide import __version__
from vectide.settings import describe, load

OPENAI, SELFHOSTED, LOCAL = (EXAMPLES[f"pgvector-{name}"] for name in ("openai", "selfhosted", "local"))
#: What no package with schemas knows: looked at by the tests themselves.
UNKNOWN_KINDS = {"ExternalSecret"}


def changed(values: Document, path: str, value: Any) -> dict[str, Any]:
    """The values with another one at ``path``."""
    new = copy.deepcopy(dict(values))
    at = new
    *parents, last = path.split(".")
    for name in parents:
        at = at.setdefault(name, {})
    at[last] = value
    return new


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_document_is_valid_strictly(example: str) -> None:
    documents = render(EXAMPLES[example])
    wrong = {
        (document["kind"], problem)
        for document in documents
        if document["kind"] not in UNKNOWN_KINDS
        for problem in problems(document)
    }
    assert wrong == set()
    assert all(document["metadata"]["namespace"] == "prod" for document in documents)


def test_the_judge_finds_unknown_fields_and_wrong_types() -> None:
    documents = render(OPENAI)
    for kind, path in (
        ("Deployment", "spec.template.spec.terminationGracePeriod"),
        ("ScaledObject", "spec.advanced.formula"),
        ("ServiceMonitor", "spec.nonsense"),
        ("PrometheusRule", "spec.rules"),
    ):
        assert list(problems(changed(one(documents, kind), path, 1))), kind
    assert list(problems(changed(one(documents, "ScaledObject"), "spec.maxReplicaCount", "many")))
    assert list(problems(changed(one(documents, "Deployment"), "spec.replicas", "many")))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("settings.VECTIDE_LOG__FORMAT", "jsonn", "settings/VECTIDE_LOG__FORMAT"),
        ("settings.VECTIDE_EMBEDDER__CONCURENCY", 4, "VECTIDE_EMBEDDER__CONCURENCY"),
        ("settings.VECTIDE_EMBEDDER__CONCURRENCY", "many", "settings/VECTIDE_EMBEDDER__CONCURRENCY"),
        ("settings.VECTIDE_STORE__DSN", "postgresql://user:password@host/db", "VECTIDE_STORE__DSN"),
        ("settings.VECTIDE_HTTP__PORT", 9000, "VECTIDE_HTTP__PORT"),
        ("secrets.VECTIDE_STORE__DNS", {"key": "dsn"}, "VECTIDE_STORE__DNS"),
        ("secrets.VECTIDE_STORE__DSN", {"secret": "a"}, "secrets/VECTIDE_STORE__DSN"),
        ("autoscaling.kind", "vpa", "autoscaling/kind"),
        ("autoscaling.maxReplicas", 0, "autoscaling/maxReplicas"),
        ("image.digest", "latest", "image/digest"),
        ("replicas", -1, "replicas"),
        ("tables", {}, "tables"),
        ("tables.products", {"source": "a"}, "tables/products"),
        ("monitoring.serviceMonitor.intervall", "5s", "monitoring/serviceMonitor"),
        ("replicaCount", 3, "replicaCount"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(path: str, value: Any, said: str) -> None:
    helm = pytest.importorskip("helm_python")
    with pytest.raises(helm.HelmError) as refusal:
        render(changed(LOCAL, path, value))
    assert said in str(refusal.value).replace(".", "/")


def test_values_without_settings_are_refused() -> None:
    helm = pytest.importorskip("helm_python")
    with pytest.raises(helm.HelmError):
        render({})


def test_every_variable_that_the_chart_sets_exists() -> None:
    known = {variable.name for variable in describe()}
    known |= {f"{variable.name}_FILE" for variable in describe() if variable.secret} | {"VECTIDE_TABLES_FILE"}
    texts = [path.read_text("utf-8") for path in CHART.rglob("*") if path.is_file()]
    texts += [path.read_text("utf-8") for path in (ROOT / "helm/examples").glob("*.yaml")]
    texts += [(ROOT / "docs" / name).read_text("utf-8") for name in ("kubernetes.md", "image.md")]
    named = set(re.findall(r"VECTIDE_[A-Z_]*[A-Z]", "\n".join(texts)))
    assert named - known == set()
    for values in EXAMPLES.values():
        assert {entry["name"] for entry in container(render(values))["env"]} <= known


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_service_takes_what_the_chart_gives_it(example: str, tmp_path: Path) -> None:
    """The rendered environment and files, read by the settings themselves."""
    documents = render(EXAMPLES[example])
    environment = {entry["name"]: entry["value"] for entry in container(documents)["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(documents)["volumeMounts"]}
    (tables,) = (document for document in documents if "tables.yaml" in document.get("data", {}))
    assert environment["VECTIDE_TABLES_FILE"] == f"{mounts['tables']}/tables.yaml"
    volumes = {
        volume["name"]: volume
        for volume in one(documents, "Deployment")["spec"]["template"]["spec"]["volumes"]
    }
    assert volumes["tables"]["configMap"]["name"] == tables["metadata"]["name"]
    sources = volumes["secrets"]["projected"]["sources"]
    files = {item["path"] for source in sources for item in source["secret"]["items"]}
    contents = {
        "VECTIDE_STORE__DSN": "postgresql://a@b/c",
        "VECTIDE_KAFKA__EXTRA": "{}",
        "VECTIDE_STORE__URL": "http://a",
    }
    (tmp_path / "tables.yaml").write_text(tables["data"]["tables.yaml"], "utf-8")
    for name in files:
        (tmp_path / name).write_text(contents.get(name, "secret"), "utf-8")
        assert environment[f"{name}_FILE"] == f"{mounts['secrets']}/{name}"
    here = {
        name: str(tmp_path / Path(value).name) if name.endswith("_FILE") else value
        for name, value in environment.items()
    }
    settings = load(here)
    assert settings.http.host == "0.0.0.0"  # noqa: S104
    assert {mapping.table for mapping in settings.mappings} == EXAMPLES[example]["tables"].keys()
    assert settings.embedder.concurrency == EXAMPLES[example]["settings"].get(
        "VECTIDE_EMBEDDER__CONCURRENCY", 8
    )


def test_large_numbers_and_objects_arrive_as_they_were_meant() -> None:
    values = changed(LOCAL, "settings.VECTIDE_LIMITS__RECORDS_IN_FLIGHT", 5_000_000)
    values = changed(values, "settings.VECTIDE_DLQ__MAX_SHARE", 0.25)
    values["settings"]["VECTIDE_KAFKA__EXTRA"] = {"security.protocol": "SSL"}
    given = {entry["name"]: entry["value"] for entry in container(render(values))["env"]}
    assert given["VECTIDE_LIMITS__RECORDS_IN_FLIGHT"] == "5000000"
    assert given["VECTIDE_DLQ__MAX_SHARE"] == "0.25"
    assert given["VECTIDE_KAFKA__EXTRA"] == '{"security.protocol":"SSL"}'


@pytest.mark.parametrize(("grace", "period"), [(None, 65), (90, 95), (0.5, 6)])
def test_pods_get_the_grace_period_and_a_little_more(grace: float | None, period: int) -> None:
    values = LOCAL if grace is None else changed(LOCAL, "settings.VECTIDE_LIMITS__GRACE_S", grace)
    pod = one(render(values), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == period


def test_pods_are_as_restricted_as_kubernetes_knows() -> None:
    """The profile "restricted" of the Pod Security Standards, and a read-only root file system."""
    documents = render(OPENAI)
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    given = container(documents)["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert given == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert all(mount["readOnly"] for mount in container(documents)["volumeMounts"])


def test_user_is_that_of_the_image() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
    context = one(render(LOCAL), "Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in dockerfile


def test_a_change_of_the_tables_rolls_the_pods_and_nothing_else_does() -> None:
    def checksum(values: Document) -> str:
        template = one(render(values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/tables"])

    assert checksum(LOCAL) == checksum(changed(LOCAL, "replicas", 3))
    assert checksum(LOCAL) != checksum(changed(LOCAL, "tables.products.metadata", ["price"]))


def test_replicas_are_left_to_the_autoscaler() -> None:
    assert "replicas" not in one(render(OPENAI), "Deployment")["spec"]
    assert "replicas" not in one(render(SELFHOSTED), "Deployment")["spec"]
    assert one(render(LOCAL), "Deployment")["spec"]["replicas"] == 2


def test_keda_scales_on_the_lag_of_the_group_and_holds() -> None:
    documents = render(changed(OPENAI, "settings.VECTIDE_KAFKA__GROUP_ID", "search"))
    spec = one(documents, "ScaledObject")["spec"]
    lag, held = spec["triggers"]
    assert (lag["metadata"]["consumerGroup"], lag["metadata"]["lagThreshold"]) == ("search", "1000")
    assert lag["metadata"]["bootstrapServers"] == OPENAI["settings"]["VECTIDE_KAFKA__BOOTSTRAP_SERVERS"]
    assert lag["authenticationRef"] == {"name": "vectide-kafka"}
    job = one(documents, "Service")["metadata"]["name"]
    assert held["metadata"]["query"] == (
        f'sum(vectide:replicas:held{{namespace="prod",job="{job}"}}) or vector(1e9)'
    )
    modifiers = spec["advanced"]["scalingModifiers"]
    assert modifiers["formula"] == "lag < held * 1000 ? lag : held * 1000"
    assert [trigger["name"] for trigger in spec["triggers"]] == ["lag", "held"]
    assert modifiers["target"] == "1000"


def test_hpa_reads_the_lag_that_is_not_there_while_replicas_are_held() -> None:
    documents = render(SELFHOSTED, release="shop")
    (metric,) = one(documents, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["external"]["metric"] == {
        "name": "vectide_scalable_lag_records",
        "selector": {
            "matchLabels": {"namespace": "prod", "job": one(documents, "Service")["metadata"]["name"]}
        },
    }
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "5000"}


def test_external_secret_holds_every_key_that_is_mounted() -> None:
    documents = render(OPENAI)
    made = one(documents, "ExternalSecret")
    keys = {entry["secretKey"] for entry in made["spec"]["data"]}
    volumes = one(documents, "Deployment")["spec"]["template"]["spec"]["volumes"]
    (secrets,) = (volume for volume in volumes if volume["name"] == "secrets")
    mounted = {
        (source["secret"]["name"], item["key"])
        for source in secrets["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert mounted == {(made["spec"]["target"]["name"], key) for key in keys}
    assert made["apiVersion"] == "external-secrets.io/v1"


def test_with_a_certificate_probes_and_prometheus_speak_https() -> None:
    documents = render(changed(OPENAI, "tls.secret", "vectide-tls"))
    assert [
        problem for kind in ("Deployment", "ServiceMonitor") for problem in problems(one(documents, kind))
    ] == []
    ours = container(documents)
    probes = [ours[f"{name}Probe"]["httpGet"] for name in ("liveness", "startup", "readiness")]
    assert {probe["scheme"] for probe in probes} == {"HTTPS"}
    mounts = {mount["name"]: mount["mountPath"] for mount in ours["volumeMounts"]}
    environment = {entry["name"]: entry["value"] for entry in ours["env"]}
    assert environment["VECTIDE_HTTP__CERTIFICATE_PATH"] == f"{mounts['tls']}/tls.crt"
    assert environment["VECTIDE_HTTP__KEY_PATH"] == f"{mounts['tls']}/tls.key"
    (endpoint,) = one(documents, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"] == {
        "serverName": "vectide.prod.svc",
        "ca": {"secret": {"name": "vectide-tls", "key": "ca.crt"}},
    }
    plain = render(OPENAI)
    assert "scheme" not in container(plain)["livenessProbe"]["httpGet"]
    assert "scheme" not in one(plain, "ServiceMonitor")["spec"]["endpoints"][0]


def test_network_policy_lets_out_to_dns_as_soon_as_anything_is_restricted() -> None:
    policy = one(render(SELFHOSTED), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {port["port"] for port in policy["egress"][0]["ports"]} == {53}
    assert one(render(LOCAL), "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress"]


def test_rules_and_dashboard_of_the_chart_are_the_tested_ones() -> None:
    documents = render(OPENAI)
    source = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text("utf-8"))
    assert one(documents, "PrometheusRule")["spec"] == source
    (dashboard,) = (document for document in documents if "vectide.json" in document.get("data", {}))
    assert (
        dashboard["data"]["vectide.json"] == (CHART / "files" / "dashboard.json").read_text("utf-8").rstrip()
    )
    moved = one(render(SELFHOSTED), "PrometheusRule")["spec"]["groups"][1]["rules"]
    assert moved[0]["annotations"]["runbook"] == "https://wiki.example/vectide/runbooks/halted.md"


def test_chart_is_of_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == __version__


def test_helm_finds_nothing_wrong() -> None:
    helm = pytest.importorskip("helm_python")
    assert helm.lint(CHART, dict(LOCAL), strict=True)["errors"] == []
