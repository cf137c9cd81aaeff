"""What the stable version's two runs on one input teach: where it differs from itself, and rules that would say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from interlock.comparison.outputs_model import OutputComparison

RULES_MAX = 50
REASON = "the stable version differs from itself here, run twice on the same input"


@dataclass(frozen=True)
class Noise:
    """Of one file: differing cells by column, and differing fields of a document."""

    cells: Mapping[str, int] = field(default_factory=dict)
    fields: frozenset[str] = frozenset()


def noise_of(itself: OutputComparison) -> dict[str, Noise]:
    """The noise in each file, from the comparison of the stable version with itself."""
    found: dict[str, Noise] = {}
    for file in itself.files:
        columns = file.table.columns if file.table is not None else ()
        cells = {column.name: column.beyond for column in columns if column.beyond}
        fields = frozenset(each.field or each.path for each in file.differences)
        if cells or fields:
            found[file.path] = Noise(cells, fields)
    return found


def propose_rules(noise: Mapping[str, Noise]) -> str | None:
    """Rules to paste into interlock.yaml, below the workload's `comparison`; None where there is no noise."""
    paths = sorted({name for each in noise.values() for name in (*each.cells, *each.fields)})
    if not paths:
        return None
    rules = [{"path": path, "grade": "ignore", "reason": REASON} for path in paths[:RULES_MAX]]
    return yaml.safe_dump({"comparison": {"rules": rules}}, sort_keys=False, allow_unicode=True)
