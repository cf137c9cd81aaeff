"""Compares what versions wrote, in a process of its own, and files what was found under the day's folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from interlock.batch.model import verdict_of
from interlock.batch.running import Trial, disk, how_ended
from interlock.batch.summary import DaySummary, Material, day_text, summary_text
from interlock.comparison.outputs_model import OutputComparison, OutputTask
from interlock.comparison.written import replace_file
from interlock.core.batch import BatchComparison
from interlock.core.comparison import ComparisonRules
from interlock.core.errors import Permanent
from interlock.core.ports import ProcessSpec, StepContext
from interlock.services.gates import GateResult

COMPARE_SECONDS = 3600.0
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
DIFFERENCES = "differences.csv"
DIFFERENCES_BYTES_MAX = 16 * 1024 * 1024


class Sides(NamedTuple):
    """The folders of outputs that are compared; `again` is the stable version's second run."""

    stable: Path
    candidate: Path
    again: Path | None


def compare(context: StepContext, root: Path, sides: Sides, rules: ComparisonRules, now: datetime) -> OutputComparison:
    """Run the comparing process under the guard. Raises Permanent when it could not compare, Transient as `execute`."""
    work, differences = root / "compare", root / "differences"
    context.hold()
    try:
        for folder in (work, differences):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        result_file, task_file = root / "result.json", root / "task.json"
        result_file.unlink(missing_ok=True)
        task = OutputTask(
            stable=str(sides.stable),
            candidate=str(sides.candidate),
            again=str(sides.again) if sides.again is not None else None,
            rules=rules,
            work=str(work),
            today=now.date(),
            differences=str(differences),
            result=str(result_file),
        )
        replace_file(task_file, task.model_dump_json().encode())
    except OSError as error:
        raise disk(error) from error
    command = (sys.executable, "-m", "interlock.comparison.outputs_process", str(task_file))
    ended = context.execute(
        ProcessSpec(
            path=sys.executable,
            argv=command,
            environment=ENVIRONMENT,
            folder=str(work),
            timeout_seconds=COMPARE_SECONDS,
        )
    )
    if ended.exit_code != 0:
        msg = f"the outputs could not be compared: it {how_ended(ended)}"
        raise Permanent(msg, code="batch.compare", fix="see the output of this Run; mend `comparison` or the outputs")
    return OutputComparison.model_validate_json(result_file.read_bytes())


def found_of(
    found: OutputComparison,
    rules: ComparisonRules,
    trials: Mapping[str, Trial],
    input_sha256: str,
    folder: Path,
    gates: Sequence[GateResult] = (),
) -> dict[str, object]:
    """What is recorded of it: all of a BatchComparison but its Run, its workload and its time."""
    verdict, _ = verdict_of(found, rules)
    stable, candidate = trials["stable"], trials["candidate"]
    return {
        "stable": stable.pin.model_dump(),
        "candidate": candidate.pin.model_dump(),
        "input_sha256": input_sha256,
        "verdict": verdict,
        "pairs": found.pairs,
        "disagreeing": found.disagreeing,
        "blocks": list(found.blocks[:20]),
        "warns": list(found.warns[:20]),
        "fields": list(found.fields[:50]),
        "gates": [{"name": gate.name, "ok": gate.ok, "words": gate.words} for gate in gates],
        "stable_seconds": stable.seconds,
        "candidate_seconds": candidate.seconds,
        "folder": str(folder),
    }


def day_folder(folder: Path, now: datetime, run: int) -> Path:
    """2026-03-01/run-17: one folder a day, in it one for each comparison."""
    return folder / f"{now:%Y-%m-%d}" / f"run-{run}"


def file_comparison(place: Path, material: Material, root: Path) -> None:
    """Write summary.md, summary.json and differences.csv, and the day's own summary anew. Raises Transient."""
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(place / "summary.json", material.found.model_dump_json(indent=1).encode())
        replace_file(place / DIFFERENCES, _joined(root / "differences"))
        if material.found.proposed_rules is not None:
            replace_file(place / "proposed_rules.yaml", material.found.proposed_rules.encode())
        replace_file(place / "summary.md", summary_text(material).encode())
    except OSError as error:
        raise disk(error) from error


def file_day(place: Path, comparisons: Sequence[BatchComparison], name: str) -> None:
    """The day's summary, from all of the day's comparisons. Raises Transient."""
    summary = DaySummary(workload=name, day=place.name, comparisons=tuple(comparisons))
    try:
        replace_file(place / "summary.json", summary.model_dump_json(indent=1).encode())
        replace_file(place / "summary.md", day_text(summary).encode())
    except OSError as error:
        raise disk(error) from error


def _joined(folder: Path) -> bytes:
    """The differing rows of all tables in one file, cut at a bound; each table has its own head line."""
    parts: list[bytes] = []
    left = DIFFERENCES_BYTES_MAX
    for path in sorted(folder.glob("differences-*.csv")):
        body = path.read_bytes()[:left]
        parts.append(body)
        left -= len(body)
    return b"\n".join(parts)
