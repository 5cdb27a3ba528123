"""Replicas as the chart would have them: a real Prometheus with the chart's rules, and an autoscaler that
does to processes, by the chart's ScaledObject, what KEDA and Kubernetes do to pods."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlencode

import yaml
from tests.deploy.chart import CHART, EXAMPLES, one, render
from tests.real.jars import StackError, StackUnavailable
from tests.real.processes import Child, accepts_connections, free_port, wait_until
from tests.real.service import Service

NAMESPACE, JOB = "prod", "vectide"
#: Kubernetes leaves alone what is off by less.
TOLERANCE: Final = 0.1


def find_prometheus() -> Path:
    """Its program; raises :class:`StackUnavailable` where it is not to be had."""
    script = Path(__file__).parents[2] / "scripts" / "prometheus.sh"
    found = subprocess.run([script, "prometheus"], capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode != 0:
        raise StackUnavailable(f"no prometheus: {found.stderr.strip()}")
    return Path(found.stdout.strip())


def scaled_object(bootstrap: str, group: str, lag_per_replica: int, scale_down_after_s: int) -> Any:
    """The chart's ScaledObject (``spec``): up to three replicas for this group."""
    values = json.loads(json.dumps(EXAMPLES["pgvector-openai"]))
    values["settings"] |= {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "VECTIDE_KAFKA__GROUP_ID": group,
    }
    values["autoscaling"] |= {
        "maxReplicas": 3,
        "lagPerReplica": lag_per_replica,
        "scaleDownAfterSeconds": scale_down_after_s,
    }
    return one(render(values, release=JOB, namespace=NAMESPACE), "ScaledObject")["spec"]


class Prometheus(AbstractContextManager["Prometheus"]):
    """Scrapes the replicas it is told of every second, and evaluates the chart's rules as often."""

    def __init__(self, program: Path, folder: Path):
        folder.mkdir(parents=True)
        self._targets, self._port = folder / "targets.json", free_port()
        self.watch([])
        scrape = {"job_name": JOB, "file_sd_configs": [{"files": [str(self._targets)]}]}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(CHART / "files" / "alerts.yaml")],
            "scrape_configs": [scrape],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
        command = [
            str(program),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        self._child = Child("prometheus", command, folder)
        self._child.wait_ready("listens", lambda: accepts_connections(self._port), 60)

    def watch(self, ports: list[int]) -> None:
        """From now on: these replicas."""
        groups = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE, "pod": f"{JOB}-{port}"}}
            for port in ports
        ]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps(groups), "utf-8")
        new.rename(self._targets)

    def value(self, query: str) -> float | None:
        """Of the only series that this query has; None when it has none."""
        series = self._ask(query)
        return float(series[0]["value"][1]) if series else None

    def _ask(self, query: str) -> list[Any]:
        link = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            link.request("GET", f"/api/v1/query?{urlencode({'query': query})}")
            told = json.loads(link.getresponse().read())
        finally:
            link.close()
        if told["status"] != "success" or len(told["data"]["result"]) > 1:
            raise StackError(f"{query}: {told}")
        return list(told["data"]["result"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()


class Fleet:
    """The replicas, of which the newest goes first."""

    def __init__(self, start: Callable[[], Service], prometheus: Prometheus):
        self._start, self._prometheus = start, prometheus
        self.running: list[Service] = []

    def __len__(self) -> int:
        return len(self.running)

    def resize(self, replicas: int) -> None:
        """Start or stop some; returns when those to be stopped have ended, which they must do in peace."""
        while len(self) < replicas:
            self.running.append(self._start())
        leaving, self.running = self.running[replicas:], self.running[:replicas]
        self._prometheus.watch([service.port for service in self.running])
        for service in leaving:
            if (code := service.stop()) != 0:
                raise StackError(f"a replica ended with {code}:\n{service.child.log_tail()}")

    def all_work(self) -> bool:
        """Whether each has partitions."""
        return all(service.sample("vectide_lanes") > 0 for service in self.running)


class Autoscaler:
    """How many replicas there should be, by a ScaledObject (``spec``), as KEDA and Kubernetes work it out."""

    def __init__(self, spec: Any, lag: Callable[[], int], prometheus: Prometheus):
        self._spec, self._lag, self._prometheus = spec, lag, prometheus
        modifiers = spec["advanced"]["scalingModifiers"]
        assert modifiers["metricType"] == "AverageValue"
        self._formula, self._target = modifiers["formula"], float(modifiers["target"])
        behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        self._window_s = behaviour["scaleDown"]["stabilizationWindowSeconds"]
        self._advice: deque[tuple[float, int]] = deque()

    def triggers(self) -> dict[str, float]:
        """What each trigger measures now."""
        lag, held = self._spec["triggers"]
        assert (lag["type"], held["type"]) == ("kafka", "prometheus")
        found = self._prometheus.value(held["metadata"]["query"])
        assert found is not None, "the query always has an answer"
        return {lag["name"]: float(self._lag()), held["name"]: found}

    def wanted(self, replicas: int, triggers: Mapping[str, float]) -> int:
        """So many, were there no wait before replicas are taken away."""
        metric = formula(self._formula, triggers)
        if abs(metric / (self._target * replicas) - 1) <= TOLERANCE:
            return replicas
        asked = math.ceil(metric / self._target)
        return int(min(max(asked, self._spec["minReplicaCount"]), self._spec["maxReplicaCount"]))

    def advise(self, replicas: int) -> int:
        """So many now. Fewer only when that has been enough for a while."""
        now_s = time.monotonic()
        self._advice.append((now_s, self.wanted(replicas, self.triggers())))
        whole_window = self._advice[0][0] <= now_s - self._window_s
        while self._advice[0][0] < now_s - self._window_s:
            self._advice.popleft()
        most = max(count for _, count in self._advice)
        return most if whole_window else max(most, replicas)


def formula(text: str, values: Mapping[str, float]) -> float:
    """``a < b ? c : d``, of names, numbers and their products."""

    def term(words: str) -> float:
        return math.prod(
            values[word] if word in values else float(word) for word in map(str.strip, words.split("*"))
        )

    condition, _, outcomes = text.partition(" ? ")
    small, large = condition.split(" < ")
    then, otherwise = outcomes.split(" : ")
    return term(then if term(small) < term(large) else otherwise)


def wait_scaling(
    what: str, fleet: Fleet, scaler: Autoscaler, done: Callable[[], bool], patience_s: float
) -> None:
    """Wait, and have the autoscaler look every second meanwhile."""

    def looked() -> bool:
        if done():
            return True
        advice = scaler.advise(len(fleet))
        if advice != len(fleet):
            fleet.resize(advice)
        return False

    wait_until(what, looked, patience_s, every_s=1.0)
