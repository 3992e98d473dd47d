"""The monitoring examples, checked by Prometheus' own tool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.needs import missing
from tests.support.processes import ROOT

FOLDER = ROOT / "docs" / "examples" / "monitoring"


@pytest.fixture
def promtool() -> str:
    path = shutil.which("promtool")
    if path is None:
        missing("no promtool: apt install prometheus")
    return path


def run(*args: str) -> str:
    done = subprocess.run(args, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_and_the_alerts_are_valid(promtool: str) -> None:
    assert "13 rules found" in run(promtool, "check", "rules", "channelsq-alerts.yml")
    assert "is valid prometheus config" in run(promtool, "check", "config", "prometheus.yml")


def test_the_alerts_fire_when_they_must(promtool: str) -> None:
    run(promtool, "test", "rules", "channelsq-alerts.test.yml")


def test_the_queries_of_the_grafana_dashboard_are_valid(promtool: str, tmp_path: Path) -> None:
    panels = json.loads((FOLDER / "grafana-dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    rules = [
        {"record": f"query:{number}", "expr": re.sub(r"\$__rate_interval", "1m", query)}
        for number, query in enumerate(queries)
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(queries)} rules found" in run(promtool, "check", "rules", str(path))
