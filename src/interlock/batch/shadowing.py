"""Runs two versions beside each other on one input, the stable one twice, and compares what they wrote."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from interlock.batch.comparing import Sides, compare
from interlock.batch.running import OPEN, BatchRuns, Trial, require_unchanged
from interlock.batch.summary import Material
from interlock.comparison.outputs_model import OutputComparison
from interlock.core.batch import VersionPin
from interlock.core.comparison import ComparisonRules
from interlock.core.errors import Permanent
from interlock.core.ports import StepContext
from interlock.core.source_layout import LaidSource
from interlock.core.workload import BatchWorkload
from interlock.services.gates import GateResult

NOTED_LINES = 10


class Shadowed(NamedTuple):
    """What came of it. When the candidate failed there is nothing to compare, and `found` says just that."""

    found: OutputComparison
    trials: dict[str, Trial]
    input_sha256: str
    notes: tuple[str, ...]
    gates: tuple[GateResult, ...] = ()

    @property
    def kept_from(self) -> Mapping[str, str]:
        """What the candidate was kept from."""
        return self.trials["candidate"].kept_from


def shadow(
    runs: BatchRuns,
    context: StepContext,
    stable: LaidSource,
    candidate: LaidSource,
    rules: ComparisonRules,
    now: datetime,
    *,
    twice: bool,
    gates: bool = False,
) -> Shadowed:
    """Both versions on a copy of the input, confined. `twice`: the stable one a second time, to learn its noise.

    `gates`: the candidate has to pass them before either version is run.

    Raises: Permanent when the stable version itself fails; Stale when a version changed the input; and what running and
        comparing raise.
    """
    runs.lay_out(stable)
    runs.lay_out(candidate)
    given, digest = runs.pinned_input()
    passed = runs.examine(candidate) if gates else ()
    if passed and not passed[-1].ok:
        return _kept_out(runs, stable, candidate, digest, passed)
    trials = {"stable": _tried(runs, stable, "stable", given, digest)}
    if not trials["stable"].ok:
        msg = f"the stable version itself fails on this input: {trials['stable'].words}"
        raise Permanent(msg, code="batch.stable_failed", fix="mend the input, or the stable version")
    if twice:
        trials["again"] = _tried(runs, stable, "again", given, digest)
    trials["candidate"] = _tried(runs, candidate, "candidate", given, digest)
    if not trials["candidate"].ok:
        words = trials["candidate"].words
        found = OutputComparison(pairs=1, disagreeing=1, blocks=(words,))
        return Shadowed(found, trials, digest, _notes(trials), passed)
    again = trials.get("again")
    sides = Sides(
        trials["stable"].output,
        trials["candidate"].output,
        again.output if again is not None and again.ok else None,
    )
    return Shadowed(compare(context, runs.root, sides, rules, now), trials, digest, _notes(trials), passed)


def _kept_out(
    runs: BatchRuns, stable: LaidSource, candidate: LaidSource, digest: str, gates: tuple[GateResult, ...]
) -> Shadowed:
    """A gate says no: neither version is run, and that stands in the place of a comparison."""
    failed = gates[-1]
    trials = {
        part: Trial(
            VersionPin(version=laid.version, identity=laid.identity),
            runs.root,
            0.0,
            ok=False,
            words=words,
            kept_from={},
        )
        for part, laid, words in (("stable", stable, "was not run"), ("candidate", candidate, failed.sentence))
    }
    notes = [f"the gate {failed.name} said last: {line}" for line in failed.tail.strip().splitlines()[-NOTED_LINES:]]
    found = OutputComparison(pairs=1, disagreeing=1, blocks=(failed.sentence,))
    return Shadowed(found, trials, digest, tuple(notes), gates)


def _tried(runs: BatchRuns, laid: LaidSource, part: str, given: Path | None, digest: str) -> Trial:
    trial = runs.try_version(laid, part, given)
    require_unchanged(given, digest)
    return trial


def _notes(trials: Mapping[str, Trial]) -> tuple[str, ...]:
    """What a reader must know about how the versions were tried."""
    open_ways = sorted(
        {
            f"{name.replace('_', ' ')} {words}"
            for trial in trials.values()
            for name, words in trial.kept_from.items()
            if words.startswith(OPEN)
        }
    )
    notes = [f"this machine could not keep a trial from everything: {words}" for words in open_ways]
    if "again" not in trials:
        notes.append("the stable version was run once: its own noise is not known")
    elif not trials["again"].ok:
        notes.append(f"the stable version's second run failed: {trials['again'].words}")
    return tuple(notes)


def material_of(name: str, run: int, arguments: dict[str, str], declared: BatchWorkload, seen: Shadowed) -> Material:
    """What the summary is made from."""
    stable, candidate = seen.trials["stable"], seen.trials["candidate"]
    return Material(
        workload=name,
        run=run,
        arguments=arguments,
        stable=stable.pin,
        candidate=candidate.pin,
        stable_seconds=stable.seconds,
        candidate_seconds=candidate.seconds,
        kept_from=seen.kept_from,
        input_sha256=seen.input_sha256,
        rules=declared.comparison,
        found=seen.found,
        notes=seen.notes,
    )
