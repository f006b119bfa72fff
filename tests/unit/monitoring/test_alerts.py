"""Alerts and dashboard ask only for what the parts export, and mean what their names say."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.runtime.metrics import registry_for

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "monitoring"

PREFIX = "ServiceRegistry"
ALERTS = (
    "CircuitBreakerOpen NoServices InstanceDown RedisBackendDown LowServiceCount HighErrorRate"
    " HighLatency HighMemory HeartbeatAnomaly"
).split()

PARTS = ("dnsd", "registrar", "sidecar", "resolver_gateway")

OF_PROMETHEUS = {"up"}
"""Series that Prometheus itself makes for each target."""

FUNCTIONS = (
    "rate sum max min by on and or unless count changes histogram_quantile label_values le job"
    " instance status operation service"
).split()


def rules() -> list[dict[str, Any]]:
    """Every alert of alerts.yml."""
    document = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return loaded


def expressions() -> list[str]:
    """Every query of the alerts and of the dashboard's panels, variables and annotations."""
    board = dashboard()
    found = [rule["expr"] for rule in rules()]
    found += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    found += [v["definition"] for v in board["templating"]["list"] if "definition" in v]
    return found + [a["expr"] for a in board["annotations"]["list"]]


def names_in(expression: str) -> set[str]:
    """The metrics that an expression asks for: its words outside labels, ranges and functions."""
    bare = re.sub(r'\{[^}]*\}|\[[^]]*\]|"[^"]*"', " ", expression)
    return set(re.findall(r"\b[a-z_][a-z0-9_]*", bare)) - set(FUNCTIONS)


def exported() -> set[str]:
    """What the parts' READMEs say they export, and what every process does."""
    found = set(OF_PROMETHEUS)
    for part in PARTS:
        text = (ROOT / part / "README.md").read_text()
        section = re.split(r"^## ", text.split("## Metrics", 1)[1], maxsplit=1, flags=re.M)[0]
        found |= set(re.findall(r"`([a-z][a-z0-9_]+)", section))
    for family in registry_for("registrar").collect():
        found |= {sample.name for sample in family.samples}
    return found


def family(name: str) -> str:
    """The metric that the series *name* belongs to: histograms have three series each."""
    return re.sub(r"_(bucket|count|sum)$", "", name)


def test_the_nine_alerts_have_the_names_that_people_know() -> None:
    """Pages, silences and runbooks hang on them."""
    assert sorted(rule["alert"] for rule in rules()) == sorted(PREFIX + name for name in ALERTS)


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_asked_for_is_one_that_a_part_exports(expression: str) -> None:
    """A renamed metric leaves a dashboard empty and an alert for ever silent."""
    asked = {family(name) for name in names_in(expression)}

    assert asked, f"no metric found in {expression!r}"
    assert asked <= {family(name) for name in exported()}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_each_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    """The runbook is a heading that exists; a link into nothing helps nobody at night."""
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / path).read_text(), re.M)

    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["for"]
    assert anchor in {heading.lower() for heading in headings}


def test_the_dashboard_has_its_nine_panels_and_assumes_no_job() -> None:
    """Each panel says what it shows, and lets the person at the screen choose whose."""
    panels = dashboard()["panels"]

    assert len(panels) == 9
    assert len({panel["id"] for panel in panels}) == 9
    assert all(panel["description"] for panel in panels)
    assert all("$job" in target["expr"] for panel in panels for target in panel["targets"])


def test_panels_do_not_overlap() -> None:
    """Grafana would push one of two below the other."""
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard()["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_registrars_are_scraped_under_the_label_that_the_alerts_know_them_by() -> None:
    """InstanceDown and HighMemory ask for service="service_registry"."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    labelled = [
        target
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        if static.get("labels", {}).get("service") == "service_registry"
        for target in static["targets"]
    ]

    assert labelled == ["registrar:8888"]
    assert config["rule_files"] == ["alerts.yml"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "command",
    ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"],
)
def test_promtool_agrees(command: str) -> None:
    """Prometheus' own reader; the last command plays each alert's trouble."""
    done = subprocess.run(
        ["promtool", *command.split()], cwd=MONITORING, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
