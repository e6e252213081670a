"""The Grafana dashboard and the alerts of Prometheus ask for metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from core import telemetry
from core.jobs import census

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "docs" / "grafana" / "fewlabels.json").read_text(encoding="utf-8"))
PANELS = DASHBOARD["panels"]
NAMED = re.compile(r"fewlabels_[a-z_]+")
ENDINGS = ("_bucket", "_count", "_sum")
# Of a worker, whose application reads the process's settings when it is imported.
WORKERS = "import json; from worker.metrics import REGISTRY; print(json.dumps(sorted({}))) "


def names(registry: CollectorRegistry) -> set[str]:
    return {name for found in registry._collector_to_names.values() for name in found}


@pytest.fixture(scope="module")
def known() -> set[str]:
    asked = WORKERS.format("n for f in REGISTRY._collector_to_names.values() for n in f")
    said = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    source = Path(census.__file__).read_text(encoding="utf-8")
    of_gpus = (ROOT / "worker" / "metrics.py").read_text(encoding="utf-8")
    written = set(re.findall(r'"(fewlabels_[a-z_]+)"', source + of_gpus))
    return names(telemetry.REGISTRY) | set(json.loads(said)) | written


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_what_a_panel_asks_for_is_there(panel: dict[str, object], known: set[str]) -> None:
    targets = panel["targets"]
    assert isinstance(targets, list)
    for target in targets:
        found = NAMED.findall(target["expr"])
        assert found
        for name in found:
            ending = next((end for end in ENDINGS if name.endswith(end)), "")
            assert name in known or name.removesuffix(ending) in known


def test_panels_have_places_and_ids_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS}) == len(PANELS)


ALERTS = yaml.safe_load((ROOT / "docs" / "grafana" / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
# Of Prometheus itself; and what the metrics of this service are told apart by.
LABELS = {"le", "job"} | {"method", "route", "status", "outcome", "step", "state", "gpu", "kind"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is_and_is_explained(
    rule: dict[str, Any], known: set[str]
) -> None:
    found = NAMED.findall(rule["expr"])
    assert found
    for name in found:
        ending = next((end for end in ENDINGS if name.endswith(end)), "")
        assert name in known or name.removesuffix(ending) in known, name
    assert set(re.findall(r"[{,]\s*(\w+)\s*=~?\"", rule["expr"])) <= LABELS
    assert rule["expr"].count("(") == rule["expr"].count(")")
    assert rule["labels"]["severity"] in {"page", "warn"}
    assert re.fullmatch(r"[A-Z].+\.", rule["annotations"]["summary"])
    assert f"\n### {rule['alert']}\n" in (ROOT / "docs" / "operations.md").read_text()


def test_what_is_explained_is_a_rule() -> None:
    headings = re.findall(
        r"^### (Fewlabels\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.M
    )
    assert headings == [rule["alert"] for rule in RULES]
