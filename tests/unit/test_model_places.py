"""Faults of interlock.yaml are told at the place that was written, and of a union only about what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from interlock.core.errors import Invalid
from interlock.engine.project_file import parse_project
from interlock.engine.yaml_model import faults_of

WEB = """\
version: 1
workloads:
  web:
    kind: service
    command: [web, "{port}"]
    source: {folder: "/srv/web/{version}"}
    traffic: {listen: "127.0.0.1:8000"}
"""


def faults(text: str) -> list[tuple[object, object, object]]:
    with pytest.raises(Invalid) as caught:
        parse_project(text.encode(), Path("/srv/interlock.yaml"))
    return [(each["path"], each["line"], each["fix"]) for each in faults_of(caught.value)]


def test_a_near_key_is_one_of_the_very_model() -> None:
    found = faults(WEB + "    health: {deadline_second: 4}\n")
    assert found == [("workloads.web.health.deadline_second", 8, "Did you mean `deadline_seconds`?")]


def test_of_a_step_only_the_kind_is_told_whose_key_is_there() -> None:
    path = "workloads.web.release.steps[0].weight_percent"
    found = faults(WEB + "    release:\n      steps:\n        - weight_percent: 500\n")
    assert found == [(path, 10, f"Change the value of `{path}`.")]
    misspelt = faults(WEB + "    release:\n      steps:\n        - weight_percen: 50\n")
    assert [each[2] for each in misspelt] == ["Add `weight_percent: ...`.", "Did you mean `weight_percent`?"]
    shadow = faults(WEB + "    release: {steps: [{shadow_percent: 50, pairs: -1}]}\n")
    assert [each[0] for each in shadow] == ["workloads.web.release.steps[0].pairs"]


def test_a_kind_that_is_none_is_told_with_those_there_are() -> None:
    found = faults(WEB.replace("kind: service", "kind: srevice"))
    assert found == [("workloads.web.kind", 4, "Did you mean `service`? Allowed: service, batch.")]
    assert faults(WEB.replace("    kind: service\n", ""))[0][0] == "workloads.web.kind"


def test_a_list_of_models_is_followed_by_its_indexes() -> None:
    found = faults("version: 1\nwindows:\n  - {name: night, from: '22:00', too: '23:00'}\n")
    assert found == [
        ("windows[0].to", 3, "Add `to: ...`."),
        ("windows[0].too", 3, "Did you mean `to`?"),
    ]
