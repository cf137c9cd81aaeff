"""What is decided about batch jobs without looking at the world: keys, shares, verdicts; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from interlock.comparison.evidence import Counts, agreement_lower_bound, pairs_needed
from interlock.comparison.outputs_model import OutputComparison
from interlock.core.batch import BatchComparison, BatchRouting, VersionPin
from interlock.core.comparison import ComparisonRules, LinearPattern
from interlock.core.errors import Invalid, NotFound
from interlock.core.judgement import Verdict
from interlock.core.plan import Target
from interlock.core.traffic import WHOLE
from interlock.core.workload import BatchWorkload, Gate, ServiceWorkload, filled
from interlock.lib.canonical import canonical_bytes

Part = Literal["stable", "candidate"]
PARTS: tuple[Part, ...] = ("stable", "candidate")
VALUE_CHARACTERS_MAX = 200


def batch_of(workloads: Mapping[str, ServiceWorkload | BatchWorkload], name: str) -> BatchWorkload:
    """The declaration of a batch job. Raises NotFound, and Invalid for a service."""
    declared = workloads.get(name)
    if declared is None:
        known = ", ".join(sorted(each for each, made in workloads.items() if isinstance(made, BatchWorkload))) or "none"
        msg = f"interlock.yaml declares no workload {name}; its batch jobs are: {known}"
        raise NotFound(msg, code="workload.unknown", fix="declare it under `workloads` with `kind: batch`")
    if not isinstance(declared, BatchWorkload):
        msg = f"{name} is a service"
        raise Invalid(msg, code="workload.service", fix=f"interlock deploy {name} VERSION")
    return declared


def checked_arguments(declared: BatchWorkload, given: Mapping[str, str]) -> dict[str, str]:
    """Exactly the declared parameters, each as its pattern wants it. Raises Invalid."""
    unknown = sorted(given.keys() - declared.parameters.keys())
    missing = sorted(declared.parameters.keys() - given.keys())
    if unknown or missing:
        wrong = f"takes no parameter {unknown[0]}" if unknown else f"needs a value for {missing[0]}"
        known = ", ".join(sorted(declared.parameters)) or "none"
        msg = f"it {wrong}"
        raise Invalid(msg, code="batch.parameters", fix=f"its parameters are: {known}")
    for name, value in sorted(given.items()):
        if (
            len(value) > VALUE_CHARACTERS_MAX
            or "\0" in value
            or not LinearPattern(declared.parameters[name]).fits(value)
        ):
            msg = f"{name} does not match {declared.parameters[name]}"
            raise Invalid(msg, code="batch.parameters", fix=f"give a value that matches {declared.parameters[name]}")
    return dict(sorted(given.items()))


def placed(text: str, arguments: Mapping[str, str]) -> str:
    """A path with the values of parameters in their places."""
    return filled((text,), arguments)[0]


def key_of(arguments: Mapping[str, str]) -> str:
    """What an invocation is known by: the same values are the same invocation, whenever it is asked for."""
    return hashlib.sha256(canonical_bytes(dict(arguments))).hexdigest()[:16]


def chosen(routing: BatchRouting, key: str) -> Part:
    """Which version an invocation gets: the same for a key at each share, and never back as the share rises."""
    if routing.candidate is None or routing.crossed:
        return "stable"
    digest = hashlib.sha256(f"{routing.salt}:{routing.workload}:{key}".encode()).digest()
    return "candidate" if int.from_bytes(digest[:8], "big") % WHOLE < routing.share else "stable"


def serving(routing: BatchRouting, part: Part) -> VersionPin:
    """The version of a part; the one before, where the newest crossed a red line after it had taken over."""
    if part == "candidate" and routing.candidate is not None:
        return routing.candidate
    if routing.crossed and routing.candidate is None and routing.previous is not None:
        return routing.previous
    return routing.stable


def targets_of(name: str, key: str | None = None) -> tuple[Target, ...]:
    """An invocation has a target of its own, so that a rollback never waits for a slow one."""
    names = (name, f"workload:{name}")
    if key is not None:
        return (Target(kind="batch", id=f"{name}@{key}", names=names),)
    return (Target(kind="workload", id=name, names=names),)


def verdict_of(found: OutputComparison, rules: ComparisonRules) -> tuple[Verdict, str]:
    """What one comparison says by itself."""
    if found.blocks:
        return "no_go", found.blocks[0]
    wanted = rules.agreement_percent / 100
    if found.agreement_bound >= wanted:
        return "go", agreement_words(found.pairs, found.disagreeing, found.agreement_bound)
    more = pairs_needed(rules.agreement_percent, rules.confidence_percent) - found.pairs
    words = agreement_words(found.pairs, found.disagreeing, found.agreement_bound)
    return "not_yet", f"{words}; about {max(1, more)} more rows or files that agree prove {rules.agreement_percent:g} %"


def agreement_words(pairs: int, disagreeing: int, bound: float) -> str:
    """How far it agrees, in one sentence."""
    return f"{pairs - disagreeing:,} of {pairs:,} agree, at least {bound * 100:.2f} % of all"


class Criterion(NamedTuple):
    """One line of the Go/No-Go table."""

    name: str
    verdict: Verdict
    words: str


def criteria(
    comparisons: Sequence[BatchComparison],
    rules: ComparisonRules,
    *,
    slower_max: float,
    golden: Iterable[tuple[str, bool]],
    gates: Sequence[Gate] = (),
) -> tuple[Criterion, ...]:
    """What all comparisons of one pair of versions say together: differences, agreement, golden samples, gates, time.

    Several comparisons of one input count once, the newest of them.
    """
    newest: dict[str, BatchComparison] = {}
    for each in sorted(comparisons, key=lambda one: one.run, reverse=True):
        newest.setdefault(each.input_sha256, each)
    if not newest:
        return (Criterion("differences", "not_yet", "nothing was compared: interlock release shadow"),)
    found = tuple(newest.values())
    blocks = [sentence for each in found for sentence in each.blocks]
    pairs, disagreeing = sum(each.pairs for each in found), sum(each.disagreeing for each in found)
    bound = agreement_lower_bound(Counts(pairs, disagreeing), rules.confidence_percent / 100)
    enough: Verdict = "go" if bound * 100 >= rules.agreement_percent else "not_yet"
    samples = list(golden)
    failed = [name for name, passes in samples if not passes]
    lines = [
        Criterion(
            "differences",
            "no_go" if blocks else "go",
            blocks[0] if blocks else f"none that blocks on {_inputs(len(found))}",
        ),
        Criterion("agreement", "no_go" if blocks else enough, agreement_words(pairs, disagreeing, bound)),
        _time(found, slower_max),
    ]
    if samples:
        words = f"{failed[0]} differs" if failed else f"{len(samples)} agree"
        lines.insert(2, Criterion("golden samples", "no_go" if failed else "go", words))
    return (*lines[:-1], *_gates(gates, comparisons), lines[-1])


def _inputs(count: int) -> str:
    return "1 input" if count == 1 else f"{count} inputs"


def _gates(gates: Sequence[Gate], comparisons: Sequence[BatchComparison]) -> list[Criterion]:
    """A line for each that is declared, as it ended last; one that was not run keeps a version from being let in."""
    results = {each.name: each for one in sorted(comparisons, key=lambda one: one.run) for each in one.gates}
    lines = []
    for gate in gates:
        result = results.get(gate.name)
        verdict: Verdict = "not_yet" if result is None else "go" if result.ok else "no_go"
        words = result.words if result is not None else "was not run: interlock release shadow"
        lines.append(Criterion(f"gate {gate.name}", verdict, words))
    return lines or [Criterion("gates", "go", "none declared")]


def _time(found: Sequence[BatchComparison], slower_max: float) -> Criterion:
    """Told, and never a reason to stop by itself: single runs of a batch job say little about time."""
    before, after = sum(each.stable_seconds for each in found), sum(each.candidate_seconds for each in found)
    change = after / before - 1 if before else 0.0
    words = f"{change:+.1%} ({before:.2f} → {after:.2f} s), at most {slower_max:+.0%} wanted; a point, no bound"
    return Criterion("time", "go" if change <= slower_max else "not_yet", words)


def overall(lines: Iterable[Criterion]) -> Verdict:
    """NO-GO if anything is, GO if differences, agreement and golden samples are; time alone keeps nobody waiting."""
    verdicts = {each.verdict for each in lines if each.name != "time"}
    if "no_go" in verdicts:
        return "no_go"
    return "go" if verdicts == {"go"} else "not_yet"
