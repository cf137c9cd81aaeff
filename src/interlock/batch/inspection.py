"""What `check` says about batch jobs as they are declared."""

from __future__ import annotations

from collections.abc import Iterable

from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.workload import BatchWorkload
from interlock.engine.inspection import finding

AREA = "batch"


def inspect_batches(project: Project) -> Iterable[JsonObject]:
    """What would make a comparison prove less than its reader thinks."""
    for name, declared in sorted(project.workloads.items()):
        if not isinstance(declared, BatchWorkload):
            continue
        rules = declared.comparison
        if not rules.key_fields and not any(rule.grade == "block" for rule in rules.rules):
            yield finding(
                "warning",
                AREA,
                f"no value that {name} writes can stop a release: no key field is named, and no rule blocks",
                f"name the columns that matter most under workloads.{name}.comparison.key_fields",
            )
        if not rules.keys:
            yield finding(
                "warning",
                AREA,
                f"rows that {name} writes are paired by a column that is guessed",
                f"name the columns that tell rows apart under workloads.{name}.comparison.keys",
            )
