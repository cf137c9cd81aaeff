"""The reads that people and programs make of the door: what is, what waits, what happened, and why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from interlock.core.action import Action
from interlock.core.actor import Actor
from interlock.core.errors import Denied
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses
from interlock.core.project import Project
from interlock.core.role import code_of_action, code_of_view
from interlock.core.run import Run, RunState
from interlock.core.view import View
from interlock.engine.catalog import Catalog
from interlock.engine.policy.codes import CODES
from interlock.engine.policy.judge import Judge
from interlock.engine.progress import read_progress
from interlock.engine.shapes import decision_json, json_row, run_json
from interlock.engine.store import RunStore, slots_of
from interlock.engine.submit import Door
from interlock.engine.view_store import RECENT, RUNS_MAX, ViewStore
from interlock.engine.why import explain_run
from interlock.lib.clock import Clock

NUMBER_MAX = 2**63 - 1
WRITTEN = r"^[^\x00]*$"
"""What PostgreSQL can hold: a number of 64 bits, and text without NUL."""


@dataclass(frozen=True)
class Desk:
    """What views read from."""

    store: RunStore
    views: ViewStore
    door: Door
    judge: Judge
    catalog: Catalog
    project: Callable[[], Project]
    clock: Clock
    troubles: Callable[[], list[JsonObject]]


class Nothing(Frozen):
    """No arguments."""


class OfRun(Frozen):
    """One Run by its number."""

    run: int = Field(ge=1)


class RunsArgs(Frozen):
    """Filters; `before` goes on from where a page ended."""

    state: RunState | Literal["open"] | None = None
    action: str | None = Field(default=None, max_length=100, pattern=WRITTEN)
    actor: str | None = Field(default=None, max_length=200, pattern=WRITTEN)
    before: int | None = Field(default=None, ge=1, le=NUMBER_MAX)
    limit: int = Field(default=50, ge=1, le=RUNS_MAX)


class NamedArgs(Frozen):
    """One thing by its name, or all."""

    name: str | None = Field(default=None, max_length=200)


class DeskView(View):
    """A view of the door's own tables."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def whole(self, run: Run, reader: Actor) -> JsonObject:
        """A Run with its verdicts, what is still missing, and how its program ended; what the reader may not see of
        its plan is blanked."""
        missing = None
        if run.state is RunState.WAITING:
            missing = self.desk.door.left(run, await self.desk.store.approvals(run.number))
        asking = asyncio.create_task(self.desk.views.approvals_and_ending(run.number))
        try:
            # The table answers while policy is asked and the rest is written.
            await asyncio.sleep(0)
            shown = run_json(run, missing=missing)
            shown = shown if may_see(self.desk.judge, reader, run, self.desk.clock) else blanked(shown)
            approvals, ending = await asking
        finally:
            asking.cancel()
        return {**shown, "approvals": [json_row(row) for row in approvals], "exit_code": _exit_code(ending)}


class Status(DeskView):
    """One screen."""

    name: ClassVar[str] = "status"
    summary: ClassVar[str] = "What needs somebody, what is broken, what runs, what happened last."
    Args: ClassVar[type[Frozen]] = Nothing

    async def read(self, actor: Actor, args: Nothing) -> JsonObject:  # noqa: ARG002
        """The whole state in a few lists."""
        views = self.desk.views
        open_states = [RunState.RUNNING.value, RunState.QUEUED.value]
        final = [state.value for state in RunState if state.is_final]
        log = await views.log_state()
        return {
            "counts": dict(await views.counts()),
            "attention": [json_row(row) for row in await views.attention()],
            "running": [json_row(row) for row in await views.runs(states=open_states, limit=20)],
            "recent": [json_row(row) for row in await views.runs(states=final, limit=RECENT)],
            "freezes": [each.model_dump(mode="json") for each in await self.desk.store.freezes()],
            "log": json_row(log),
            "troubles": list(self.desk.troubles()),
        }


class Runs(DeskView):
    """The log."""

    name: ClassVar[str] = "runs"
    summary: ClassVar[str] = "Runs, newest first, by state, action or actor."
    Args: ClassVar[type[Frozen]] = RunsArgs

    async def read(self, actor: Actor, args: RunsArgs) -> JsonObject:  # noqa: ARG002
        """A page, and where the next one begins."""
        states = None
        if args.state == "open":
            states = [state.value for state in RunState if state.is_open]
        elif args.state is not None:
            states = [args.state.value]
        rows = await self.desk.views.runs(
            states=states, action=args.action, actor=args.actor, before=args.before, limit=args.limit
        )
        following = rows[-1]["number"] if len(rows) == args.limit else None
        return {"runs": [json_row(row) for row in rows], "next_before": following}


class RunDetail(DeskView):
    """One Run."""

    name: ClassVar[str] = "run"
    summary: ClassVar[str] = "Everything about one Run but its output."
    discloses: ClassVar[Discloses] = "content"
    Args: ClassVar[type[Frozen]] = OfRun

    async def read(self, actor: Actor, args: OfRun) -> JsonObject:
        """Raises NotFound."""
        return await self.whole(await self.desk.store.by_number(args.run), actor)


class EvidenceOf(DeskView):
    """One Run's evidence."""

    name: ClassVar[str] = "evidence"
    summary: ClassVar[str] = "The hash chain of one Run, row by row."
    Args: ClassVar[type[Frozen]] = OfRun

    async def read(self, actor: Actor, args: OfRun) -> JsonObject:  # noqa: ARG002
        """Raises NotFound."""
        await self.desk.store.by_number(args.run)
        rows = await self.desk.store.evidence(args.run)
        return {"run": args.run, "rows": [{"line": json.loads(row.line), "hash": row.hash} for row in rows]}


class Pending(DeskView):
    """What waits."""

    name: ClassVar[str] = "pending"
    summary: ClassVar[str] = "Runs that wait for somebody, and those nobody understands."
    discloses: ClassVar[Discloses] = "content"
    Args: ClassVar[type[Frozen]] = Nothing

    async def read(self, actor: Actor, args: Nothing) -> JsonObject:  # noqa: ARG002
        """Oldest first, each with what is missing and whether the reader can give it."""
        found: list[JsonObject] = []
        for row in await self.desk.views.attention():
            run = await self.desk.store.by_number(row["number"])
            found.append({**await self.whole(run, actor), "yours": actor.kind == "person"})
        return {"runs": list(found)}


class Why(DeskView):
    """The reason."""

    name: ClassVar[str] = "why"
    summary: ClassVar[str] = "Why a Run waits, was denied, went stale or is unresolved, and what to do next."
    discloses: ClassVar[Discloses] = "content"
    Args: ClassVar[type[Frozen]] = OfRun

    async def read(self, actor: Actor, args: OfRun) -> JsonObject:
        """Raises NotFound."""
        desk = self.desk
        run = await desk.store.by_number(args.run)
        approvals = await desk.store.approvals(run.number)
        decision = desk.door.left(run, approvals) if run.state is RunState.WAITING else run.decision
        blockers = await desk.views.holders(slots_of(run.plan), run.number)
        progress = read_progress(await desk.store.evidence(run.number))
        told = explain_run(run, decision, progress, blockers, desk.project(), actor)
        return {**told, "run": await self.whole(run, actor), "decision": decision_json(decision)}


class Actions(DeskView):
    """The catalogue."""

    name: ClassVar[str] = "actions"
    summary: ClassVar[str] = "The actions there are, with their arguments."
    Args: ClassVar[type[Frozen]] = NamedArgs

    async def read(self, actor: Actor, args: NamedArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound for a name that is none."""
        if args.name is not None:
            return {"actions": [describe_action(type(self.desk.catalog.action(args.name)))]}
        return {"actions": [describe_action(cls) for cls in self.desk.catalog.classes]}


class Freezes(DeskView):
    """What is frozen."""

    name: ClassVar[str] = "freezes"
    summary: ClassVar[str] = "Freezes and pauses in force."
    Args: ClassVar[type[Frozen]] = Nothing

    async def read(self, actor: Actor, args: Nothing) -> JsonObject:  # noqa: ARG002
        """Each with who set it, why, and until when."""
        return {"freezes": [each.model_dump(mode="json") for each in await self.desk.store.freezes()]}


class People(DeskView):
    """Who may do what."""

    name: ClassVar[str] = "people"
    summary: ClassVar[str] = "The people, agents and services that interlock.yaml declares."
    Args: ClassVar[type[Frozen]] = Nothing

    async def read(self, actor: Actor, args: Nothing) -> JsonObject:  # noqa: ARG002
        """As declared, and who is asking."""
        project = self.desk.project()
        return {
            "you": actor.model_dump(mode="json"),
            "people": {name: person.model_dump(mode="json") for name, person in project.people.items()},
            "agents": {name: agent.model_dump(mode="json") for name, agent in project.agents.items()},
            "services": {name: service.model_dump(mode="json") for name, service in project.services.items()},
        }


def is_own(reader: Actor, run: Run) -> bool:
    """Whether somebody asked for it himself. An agent that several people have is another one for each of them."""
    return (reader.id, reader.on_behalf_of) == (run.actor.id, run.actor.on_behalf_of)


def may_see(judge: Judge, reader: Actor, run: Run, clock: Clock) -> bool:
    """Whether somebody may see what a Run's plan or output tells: by policy, or because he asked for it himself. An
    agent is never shown a secret, not even one it asked for. Nobody who is kept to codes asks for what he may not, in
    order to read in the refusal what the plan read from the world."""
    if any(reason.policy == CODES for reason in run.decision.reasons) and judge.lacks_code(
        reader, code_of_action(run.action)
    ):
        return False
    if reader.kind == "person" and reader.id == run.actor.id and not judge.lacks_code(reader, code_of_view("output")):
        return True
    return judge.decide_view(reader, "output", run.plan.discloses, clock.now()).outcome == "permit"


def _exit_code(line: str | None) -> int | None:
    """How the program of a step ended, from the evidence that the step was done."""
    code = json.loads(line)["data"]["data"].get("exit_code") if line is not None else None
    return code if isinstance(code, int) else None


def blanked(shown: JsonObject) -> JsonObject:
    """A Run or a proposal without what its plan was given, and read from the world."""
    plan = shown["plan"]
    if isinstance(plan, dict):
        shown = {**shown, "plan": {**plan, "preview": None, "args": {}, "facts": {}, "blanked": True}}
    return shown


def describe_action(cls: type[Action]) -> JsonObject:
    """An action for people and programs."""
    return {
        "name": cls.name,
        "summary": cls.summary,
        "arguments": cls.Args.model_json_schema(),
        "example": cls.example,
    }


def describe_view(view: View) -> JsonObject:
    """A view for people and programs."""
    return {
        "name": view.name,
        "summary": view.summary,
        "discloses": view.discloses,
        "arguments": view.Args.model_json_schema(),
    }


ENGINE_VIEWS: tuple[type[DeskView], ...] = (
    Status,
    Runs,
    RunDetail,
    EvidenceOf,
    Pending,
    Why,
    Actions,
    Freezes,
    People,
)


class ViewDesk:
    """Reads a view for an actor, if policy lets him."""

    def __init__(self, views: dict[str, View], judge: Judge, clock: Clock) -> None:
        self._judge = judge
        self._clock = clock
        self.views = {**views, Views.name: Views(self)}

    def readable(self, actor: Actor) -> list[JsonObject]:
        """What this actor may read, by name; policy is asked as it is when he reads."""
        now = self._clock.now()
        return [
            describe_view(view)
            for name, view in sorted(self.views.items())
            if self._judge.decide_view(actor, name, view.discloses, now).outcome == "permit"
        ]

    def require(self, actor: Actor, name: str, discloses: Discloses) -> None:
        """Raises Denied when policy does not let this actor read that."""
        decision = self._judge.decide_view(actor, name, discloses, self._clock.now())
        if decision.outcome != "permit":
            reasons = "; ".join(reason.reason for reason in decision.reasons)
            msg = f"{actor.id} may not read {name}: {reasons}"
            raise Denied(msg, code="view.denied", fix="ask a person with the right")

    def require_output(self, actor: Actor, run: Run) -> None:
        """Raises Denied when this actor may not see what a Run prints."""
        if not may_see(self._judge, actor, run, self._clock):
            msg = f"{actor.id} may not see what Run {run.number} prints: it may disclose a {run.plan.discloses}"
            raise Denied(msg, code="view.denied", fix="ask a person with the right")

    async def read(self, actor: Actor, name: str, args: Any) -> JsonObject:
        """Raises Denied, NotFound, Invalid."""
        view = self.views[name]
        self.require(actor, view.subject(args), view.discloses)
        return await view.read(actor, args)


class Views(View):
    """The views themselves, so that an interface in another process can show each of them without a list of its own."""

    name: ClassVar[str] = "views"
    summary: ClassVar[str] = "The views that you may read, with their arguments."
    Args: ClassVar[type[Frozen]] = Nothing

    def __init__(self, desk: ViewDesk) -> None:
        self._desk = desk

    async def read(self, actor: Actor, args: Nothing) -> JsonObject:  # noqa: ARG002
        """By name."""
        return {"views": list(self._desk.readable(actor))}
