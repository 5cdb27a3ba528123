"""Alerts, dashboard and runbooks: every expression is valid, every name exists, every alert fires in time.

The cases of the alerts are in ``alerts_test.yaml``, in the language of promtool.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from vectide.cli import app
from vectide.core import signals
from vectide.settings import describe

ROOT = Path(__file__).parents[2]
FILES = ROOT / "helm" / "vectide" / "files"
CASES = ROOT / "tests" / "deploy" / "alerts_test.yaml"
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
#: What a query of the dashboard is when Grafana has filled in its variables.
FILLED_IN = {
    "$__rate_interval": "5m",
    "$namespace": ".*",
    "$job": ".*",
}


def ran(promtool: str, *arguments: object) -> tuple[int, str]:
    """Exit code and output."""
    done = subprocess.run(  # noqa: S603
        [promtool, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((FILES / "alerts.yaml").read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def queries() -> Iterator[str]:
    """Every query of the dashboard, as Prometheus gets it."""
    board = json.loads((FILES / "dashboard.json").read_text("utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for variable, value in FILLED_IN.items():
                query = query.replace(variable, value)
            assert "$" not in query, query
            yield query


def unknown_metrics(text: str) -> set[str]:
    """Names that look like metrics of ours and are none."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = {*signals.CATALOGUE, *recorded}
    for metric in signals.CATALOGUE.values():
        if metric.kind == "histogram":
            known |= {f"{metric.name}_{suffix}" for suffix in ("bucket", "sum", "count")}
    return set(re.findall(r"\bvectide(?::[a-z_]+:[a-z]+|_[a-z_]+)\b", text)) - known


def test_alerts_are_valid(promtool: str) -> None:
    code, output = ran(promtool, "check", "rules", FILES / "alerts.yaml")
    assert code == 0, output


def test_alerts_fire_when_they_should_and_not_in_a_healthy_hour(promtool: str) -> None:
    code, output = ran(promtool, "test", "rules", CASES)
    assert code == 0, output


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load(CASES.read_text("utf-8"))["tests"]
    fired = {
        case["alertname"] for test in cases for case in test.get("alert_rule_test", ()) if case["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in alerts()}


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    pages = {alert["annotations"]["runbook"]: alert for alert in alerts()}
    assert set(pages) == {str(page.relative_to(ROOT)) for page in RUNBOOKS}
    for page, alert in pages.items():
        text = (ROOT / page).read_text("utf-8")
        assert text.startswith(f"# {alert['alert']}\n\nSeverity: {alert['labels']['severity']}.")


def test_every_query_of_the_dashboard_is_valid(promtool: str, tmp_path: Path) -> None:
    recorded = [{"record": f"panel_{number}", "expr": query} for number, query in enumerate(queries())]
    assert len(recorded) > 30
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}), "utf-8")
    code, output = ran(promtool, "check", "rules", path)
    assert code == 0, output


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    board = json.loads((FILES / "dashboard.json").read_text("utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_metric_of_rules_and_dashboard_exists() -> None:
    assert unknown_metrics("rate(vectide_nonsense_total[5m])") == {"vectide_nonsense_total"}
    assert unknown_metrics((FILES / "alerts.yaml").read_text("utf-8")) == set()
    assert unknown_metrics("\n".join(queries())) == set()


def test_labels_that_rules_select_by_are_labels_of_the_metric() -> None:
    texts = [*(rule["expr"] for rule in rules()), *queries()]
    for name, selector in re.findall(r"\b(vectide_\w+)\{([^}]*)\}", "\n".join(texts)):
        metric = signals.CATALOGUE.get(name) or signals.CATALOGUE[name.rpartition("_")[0]]
        used = set(re.findall(r"(\w+)\s*=~?", selector))
        assert used <= {*metric.labels, "namespace", "job"}, name


@pytest.mark.parametrize("page", [path.stem for path in RUNBOOKS])
def test_whatever_a_runbook_names_exists(page: str) -> None:
    text = (ROOT / "docs" / "runbooks" / f"{page}.md").read_text("utf-8")
    assert unknown_metrics(text) == set()
    variables = {variable.name for variable in describe()}
    assert set(re.findall(r"\bVECTIDE_\w+", text)) <= variables
    commands: Any = get_command(app)
    for verb, rest in re.findall(r"(?:^|`|-- )vectide ([a-z]+)(.*)", text, re.MULTILINE):
        assert verb in commands.commands, verb
        found = commands.commands[verb]
        if hasattr(found, "commands"):
            found = found.commands[rest.split("`")[0].split()[0]]
        options = {name for parameter in found.params for name in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest.split("`")[0])) <= options, (verb, rest)
    assert "## What it means" in text
    assert "## What to look at" in text
    assert "## What to do" in text
