"""The monitoring examples use metrics, labels and reasons that exist."""

from __future__ import annotations

import json
import re
from typing import Any

from channelsq.interface.context.histograms import CHANNELS
from channelsq.interface.pages.metric_names import METRICS
from tests.support.markdown import doc_page
from tests.support.processes import ROOT

FOLDER = ROOT / "docs" / "examples" / "monitoring"
ALERTS = (FOLDER / "channelsq-alerts.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())

#: The labels of each metric by the names that queries use; every metric also has those of the scrape.
LABELS = {
    name: {*metric.labels, "job", "instance", "process", *({"le"} if name.endswith("_bucket") else ())}
    for metric in METRICS
    for name in (
        [f"{metric.shown}{suffix}" for suffix in ("_bucket", "_sum", "_count")]
        if metric.kind == "histogram"
        else [metric.shown]
    )
}


def queries() -> list[str]:
    """Return all queries of the Grafana dashboard."""
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def expressions() -> list[str]:
    """Return the expressions of all alerts and of the dashboard."""
    alerts = re.findall(r"expr: (?:>-\n)?(.*?)\n        (?:for|labels):", ALERTS, re.DOTALL)
    assert len(alerts) == ALERTS.count("- alert:") > 10
    return [*alerts, *queries()]


def test_every_metric_exists() -> None:
    assert len(queries()) > 25
    used = {name for text in expressions() for name in re.findall(r"\bchannelsq_\w+", text)}
    assert used - set(LABELS) == set()
    variables = [each["definition"] for each in DASHBOARD["templating"]["list"] if "definition" in each]
    assert {name for text in variables for name in re.findall(r"\bchannelsq_\w+", text)} == {"channelsq_websockets"}


def test_every_label_is_one_of_its_metric() -> None:
    wrong = [
        f"{name}: {label}"
        for text in expressions()
        for name, labels in re.findall(r"\b(channelsq_\w+)\{([^}]*)\}", text)
        for label in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", labels)
        if label not in LABELS[name]
    ]
    assert wrong == []


def test_every_reason_is_one_of_the_documentation() -> None:
    documented = set(re.findall(r"`(\w+)`", doc_page("metrics").read_text()))
    reasons = {
        each
        for text in expressions()
        for found in re.findall(r'reason!?=~?"([^"]+)"', text)
        for each in found.split("|")
    }
    assert len(reasons) >= 5
    assert reasons <= documented


def test_every_chosen_channel_is_measured() -> None:
    chosen = {each for text in expressions() for each in re.findall(r'channel="([^"]+)"', text)}
    assert chosen <= set(CHANNELS)


def test_the_panels_are_whole() -> None:
    panels = DASHBOARD["panels"]
    identities = [panel["id"] for panel in panels]
    assert len(set(identities)) == len(identities)
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in panels]
    cells = [(x + dx, y + dy) for x, y, w, h in places for dx in range(w) for dy in range(h)]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        if panel["type"] != "row":
            assert panel["title"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
            assert all('job=~"$job", instance=~"$instance"' in target["expr"] for target in panel["targets"])
