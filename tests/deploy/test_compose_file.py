"""``docker-compose.yml``: valid by the published schema, complete, closed to the outside, read by us."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from vectide.settings import load

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "tests" / "data" / "schemas" / "compose-spec.json"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def problems(document: Any) -> list[str]:
    validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text("utf-8")))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def test_compose_file_is_valid_by_the_published_schema(compose: dict[str, Any]) -> None:
    assert problems(compose) == []


def test_a_wrong_key_would_be_found(compose: dict[str, Any]) -> None:
    services = {**compose["services"], "kafka": {"imagee": "x"}}
    assert any("imagee" in problem for problem in problems({**compose, "services": services}))


def test_every_mounted_file_exists(compose: dict[str, Any]) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", ())]
    named = {mount.split(":")[0] for mount in mounts}
    assert named
    assert [name for name in named if name.startswith("./") and not (ROOT / name).is_file()] == []
    assert {name for name in named if not name.startswith("./")} == compose["volumes"].keys()


def test_every_dependency_can_reach_the_state_that_is_waited_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        needed = service.get("depends_on", {})
        for name, wanted in needed.items() if isinstance(needed, dict) else ():
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in services[name], name
            else:
                assert "restart" not in services[name], name


def test_ports_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 6
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_every_image_has_a_version(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":[\w.-]+$", service["image"]), name
        assert not service["image"].endswith(":latest"), name


def test_service_takes_its_settings(compose: dict[str, Any]) -> None:
    service = compose["services"]["vectide"]
    lines = (ROOT / service["env_file"]).read_text("utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    (tables,) = (mount.split(":") for mount in service["volumes"])
    environment = {**given, **service["environment"]}
    assert environment["VECTIDE_TABLES_FILE"] == tables[1]
    settings = load({**environment, "VECTIDE_TABLES_FILE": str(ROOT / tables[0])})
    assert settings.topics == ("shop.public.products",)
    grace_s = float(service["stop_grace_period"].removesuffix("s"))
    assert grace_s >= settings.limits.grace_s + 5
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_connector_fills_the_topic_that_the_table_reads(compose: dict[str, Any]) -> None:
    connector = json.loads((ROOT / "deploy/compose/connector.json").read_text("utf-8"))
    tables = yaml.safe_load((ROOT / "deploy/compose/tables.yaml").read_text("utf-8"))
    assert tables["products"]["source"] == (f"{connector['topic.prefix']}.{connector['table.include.list']}")
    variables = set(re.findall(r"\$\{env:(\w+)\}", json.dumps(connector)))
    assert variables <= compose["services"]["connect"]["environment"].keys()
    assert connector["database.dbname"] == compose["services"]["postgres"]["environment"]["POSTGRES_DB"]
