"""Every metric is described where people look for it, and what is shipped for Prometheus asks for no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from interlock.engine.metrics import METRICS
from interlock.interfaces.reference import pages

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "interlock.json"
NAME = re.compile(r"\binterlock_[a-z_]+")
LABELLED = re.compile(r'(interlock_[a-z_]+)\{([a-z_]+)=~?"([^"]*)"')
KINDS = {metric.name: metric for metric in METRICS}


def _series() -> set[str]:
    """Every name that a sample can have."""
    parts = ("_bucket", "_sum", "_count")
    return {metric.name for metric in METRICS} | {
        metric.name + part for metric in METRICS if metric.kind == "histogram" for part in parts
    }


def _rules() -> list[dict[str, str]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _panels() -> list[dict[str, object]]:
    panels: list[dict[str, object]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return panels


def _expressions() -> list[str]:
    targets = [target for panel in _panels() for target in panel["targets"]]  # type: ignore[attr-defined]
    return [*(rule["expr"] for rule in _rules()), *(target["expr"] for target in targets)]


def test_every_metric_is_in_the_committed_reference() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert page == pages()["metrics.md"], "make docs"
    for metric in METRICS:
        assert f"| `{metric.name}` | {metric.kind} |" in page
        assert metric.help in page


@pytest.mark.parametrize("expression", _expressions())
def test_what_is_shipped_asks_only_for_what_there_is(expression: str) -> None:
    assert expression.count("(") == expression.count(")")
    names = NAME.findall(expression.replace('job="interlock"', ""))
    assert names or "up{" in expression
    assert set(names) <= _series()
    for name, label, values in LABELLED.findall(expression):
        declared = KINDS[name].labels[label]
        assert declared is not None
        assert set(values.split("|")) <= set(declared)


@pytest.mark.parametrize("expression", _expressions())
def test_counters_are_asked_for_their_increase_and_gauges_for_their_value(expression: str) -> None:
    for name in NAME.findall(expression):
        base = re.sub(r"_(bucket|sum|count)$", "", name) if name not in KINDS else name
        counted = KINDS[base].kind in {"counter", "histogram"}
        assert bool(re.search(rf"(rate|increase)\({name}\b", expression)) == counted, name


def test_every_alert_says_what_to_do_and_the_how_to_explains_it() -> None:
    text = (ROOT / "docs" / "howto" / "monitor.md").read_text(encoding="utf-8")
    names = [rule["alert"] for rule in _rules()]
    assert len(set(names)) == len(names)
    for rule in _rules():
        annotations: dict[str, str] = rule["annotations"]  # type: ignore[assignment]
        assert annotations["summary"]
        assert annotations["action"]
        assert f"`{rule['alert']}`" in text


def test_panels_have_titles_of_their_own_and_do_not_lie_on_one_another() -> None:
    panels = _panels()
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place: dict[str, int] = panel["gridPos"]  # type: ignore[assignment]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
