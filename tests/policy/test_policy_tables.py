"""Every decision table that comes with Interlock holds, and no shipped policy is without a row."""

from __future__ import annotations

from typing import get_args

import pytest

from interlock.core.errors import Invalid
from interlock.core.project import Preset, Project
from interlock.engine.policy.load import PolicyLoader, built_in_sources, built_in_text, preset_files
from interlock.engine.policy.tables import TableReport, run_tables

PRESETS = get_args(Preset)


def _run(loader: PolicyLoader, preset: Preset, *names: str) -> TableReport:
    tables = [(name, built_in_text(name).encode()) for name in names]
    return run_tables(loader, built_in_sources(preset), tables, preset=Project(preset=preset))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_row_of_a_preset_holds(loader: PolicyLoader, preset: Preset) -> None:
    report = _run(loader, preset, f"tests/{preset}.yaml")
    assert [f"{row.file}:{row.line} {row.name}: {row.fault}" for row in report.failed] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_every_policy_of_a_preset_has_a_row(loader: PolicyLoader, preset: Preset) -> None:
    assert _run(loader, preset, f"tests/{preset}.yaml").uncovered == ()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_invariants_hold_under_every_preset(loader: PolicyLoader, preset: Preset) -> None:
    report = _run(loader, preset, "tests/invariants.yaml")
    assert [f"{row.line} {row.name}: {row.fault}" for row in report.failed] == []


def test_codes_bind_as_the_table_of_codes_says(loader: PolicyLoader) -> None:
    report = _run(loader, "small-team", "tests/codes.yaml")
    assert [f"{row.line} {row.name}: {row.fault}" for row in report.failed] == []


def test_every_invariant_has_a_row(loader: PolicyLoader) -> None:
    """Each one decides at least one row under the preset that permits most."""
    report = _run(loader, "small-team", "tests/invariants.yaml")
    met = {reason.policy for row in report.results for reason in row.decision.reasons}
    loaded = loader.load_sources(Project(), built_in_sources("small-team"))
    invariants = {name for name, rule in loaded.rules.items() if rule.layer == "invariant"}
    assert invariants
    assert invariants <= met


def test_a_row_that_does_not_hold_says_what_came_instead(loader: PolicyLoader) -> None:
    table = b"rows:\n  - {name: wrong, actor: 'agent:x', plan: {changes: true, risk: low}, expect: permit}\n"
    (row,) = run_tables(loader, built_in_sources("small-team"), [("t.yaml", table)], preset=Project()).failed
    assert (row.line, row.fault) == (2, "expected permit, got needs_approval by agent-change")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("{name: a, actor: 'agent:x', expect: permit}", "needs a plan or a view"),
        ("{name: a, actor: 'ghost:x', plan: {}, expect: permit}", "should match pattern"),
        ("{name: a, actor: 'agent:x', plan: {chnages: true}, expect: permit}", "unknown key `chnages`"),
        ("{name: a, actor: 'agent:x', plan: {}, expect: maybe}", "'permit', 'forbid' or 'needs_approval'"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_its_line(loader: PolicyLoader, row: str, fault: str) -> None:
    with pytest.raises(Invalid, match=fault) as caught:
        run_tables(
            loader, built_in_sources("small-team"), [("t.yaml", f"rows:\n  - {row}\n".encode())], preset=Project()
        )
    assert caught.value.details["line"] == 2


@pytest.mark.parametrize("preset", PRESETS)
def test_init_copies_the_preset_with_its_table(preset: Preset) -> None:
    files = preset_files(preset)
    assert sorted(files) == [f"{preset}.cedar", f"tests/{preset}.yaml"]
    assert all(text.strip() for text in files.values())
