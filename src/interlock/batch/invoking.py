"""Performs one invocation: the version it gets, the stable one beside or instead of it, and the output in its place."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from interlock.batch.model import PARTS, Part, key_of, placed, serving
from interlock.batch.publishing import publish
from interlock.batch.running import BatchRuns, Trial
from interlock.batch.shadowing import Shadowed, shadow
from interlock.core.action import Ports, StepResult
from interlock.core.batch import BATCHES
from interlock.core.model import JsonObject
from interlock.core.plan import Step
from interlock.core.ports import StepContext
from interlock.core.source_layout import LaidSource
from interlock.core.workload import BatchWorkload


class Invocation(NamedTuple):
    """What a step of batch.run says."""

    name: str
    declared: BatchWorkload
    arguments: dict[str, str]
    part: Part
    laid: LaidSource
    fallback: LaidSource | None
    """The version that does it when the first one fails."""
    beside: bool
    """Whether both are first run confined and compared, and the candidate does it only if nothing blocks."""
    epoch: int

    @classmethod
    def of(cls, step: Step) -> Invocation:
        """As it was planned."""
        params = step.params
        fallback, arguments = params["fallback"], params["arguments"]
        return cls(
            name=str(params["workload"]),
            declared=BatchWorkload.model_validate(params["declared"]),
            arguments={str(name): str(each) for name, each in arguments.items()} if isinstance(arguments, dict) else {},
            part="candidate" if params["part"] == "candidate" else "stable",
            laid=LaidSource.model_validate(params["laid"]),
            fallback=LaidSource.model_validate(fallback) if fallback is not None else None,
            beside=params["beside"] is True,
            epoch=params["epoch"] if isinstance(params["epoch"], int) else -1,
        )

    @property
    def counts(self) -> bool:
        """Whether a failure of it is one of the newest version, and has another to fall back to."""
        return self.fallback is not None


class Invoking:
    """One attempt of one step of batch.run."""

    def __init__(self, ports: Ports, context: StepContext, invocation: Invocation) -> None:
        self._ports = ports
        self._context = context
        self._of = invocation
        self._folder = ports.outside[BATCHES].folder(invocation.name)
        self._key = key_of(invocation.arguments)

    def perform(self) -> StepResult:
        """Run, compare where that is due, fall back where that is needed, publish, write down. Raises as these do."""
        of = self._of
        with BatchRuns(self._ports, self._context, of.name, of.declared, of.arguments) as runs:
            refused = self._refused(runs) if of.beside else None
            trial = self._invoke(runs, of.laid, "first") if refused is None else None
            words = refused or (trial.words if trial is not None else "")
            if trial is not None and trial.ok and self._was_rolled_back(trial):
                trial, words = None, f"{of.laid.version} was rolled back while it ran"
            fell_back = trial is None or not trial.ok
            if fell_back and of.fallback is not None:
                trial = self._invoke(runs, of.fallback, "fallback")
                words = f"{words}; {of.fallback.version} did it instead: {trial.words}"
            if trial is None or not trial.ok:
                # Where both fail nobody knows whose fault it is, and nothing is held against the newest version.
                self._write_down(trial, ok=False, fell_back=False, words=words, failed=None)
                return StepResult(ok=False, summary=words)
            place = self._publish(trial)
            data = self._write_down(
                trial,
                ok=True,
                fell_back=fell_back,
                words=words,
                failed=fell_back if of.counts else None,
                output=str(place),
            )
            data |= {"version": trial.pin.version, "identity": trial.pin.identity, "output": str(place)}
            return StepResult(ok=True, summary=f"{of.name}: {words}; it lies in {place}", data=data)

    def _was_rolled_back(self, trial: Trial) -> bool:
        """Whether invocations no longer get this version: then users do not get what it wrote either."""
        routing = self._ports.outside[BATCHES].routing(self._of.name)
        if routing is None:
            return False
        given = {serving(routing, part).identity for part in PARTS}
        return trial.pin.identity not in {*given, routing.stable.identity}

    def _refused(self, runs: BatchRuns) -> str | None:
        """Why the candidate must not do it, as a comparison beside the stable version says; None when it may."""
        of = self._of
        if of.fallback is None:
            return None
        seen = self._shadowed(runs, of.fallback)
        if seen.found.blocks:
            return f"{of.laid.version} differs from {of.fallback.version}: {seen.found.blocks[0]}"
        return None

    def _shadowed(self, runs: BatchRuns, stable: LaidSource) -> Shadowed:
        rules = self._of.declared.comparison
        return shadow(runs, self._context, stable, self._of.laid, rules, self._now(), twice=False)

    def _invoke(self, runs: BatchRuns, laid: LaidSource, part: str) -> Trial:
        runs.lay_out(laid)
        return runs.invoke(laid, part)

    def _publish(self, trial: Trial) -> Path:
        place = output_place(self._of.declared, self._of.arguments, self._ports.project().folder, self._folder)
        publish(trial.output, place, self._folder / "before" / self._key, self._context)
        return place

    def _write_down(
        self,
        trial: Trial | None,
        *,
        ok: bool,
        fell_back: bool,
        words: str,
        failed: bool | None,
        output: str | None = None,
    ) -> JsonObject:
        laid = self._of.laid
        found: JsonObject = {
            "workload": self._of.name,
            "version": trial.pin.version if trial is not None else laid.version,
            "identity": trial.pin.identity if trial is not None else laid.identity,
            "key": self._key,
            "arguments": dict(self._of.arguments),
            "part": self._of.part if not fell_back else "stable",
            "ok": ok,
            "fell_back": fell_back,
            "seconds": trial.seconds if trial is not None else 0.0,
            "words": words[:2000],
            "output": output,
        }
        return self._context.arrange("batch.invoked", {"found": found, "epoch": self._of.epoch, "failed": failed})

    def _now(self) -> datetime:
        return self._ports.clock.now()


def output_place(declared: BatchWorkload, arguments: dict[str, str], base: str, folder: Path) -> Path:
    """Where users find what an invocation with these parameters wrote."""
    if declared.output is not None:
        return Path(base, placed(declared.output, arguments))
    return folder / "outputs" / key_of(arguments)
