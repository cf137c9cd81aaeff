"""The policy sets of this installation: the one in force, the one on disk, and the way from one to the other."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from interlock.core.actor import Actor
from interlock.core.errors import Conflict, InterlockError, Invalid, NotFound, Permanent, Stale
from interlock.core.model import JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.policy_set import InForce, PolicyProposal
from interlock.core.project import Project
from interlock.core.run import Run
from interlock.engine.policy.applied import (
    AppliedPolicies,
    AppliedSet,
    digest_of_texts,
    load_applied,
    own_texts,
    read_layers_or_trouble,
)
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyBook, PolicySet
from interlock.engine.policy.request import DecisionContext
from interlock.engine.policy.tables import read_table_file, run_tables, table_files
from interlock.engine.policy_store import PolicyStore
from interlock.engine.rooms import RoomParts

BRIDGE_SECONDS = 30.0
DIFF_LINES_MAX = 400
FAULTS_SHOWN = 10
SAY = "interlock policy apply"

Answer = TypeVar("Answer")


class PolicyDesk:
    """Implements `core.policy_set.PolicySets` for Actions, and what their steps have changed."""

    def __init__(self, store: PolicyStore, applied: AppliedPolicies) -> None:
        self._store = store
        self._applied = applied
        self._loop = asyncio.get_running_loop()
        self._parts: RoomParts | None = None
        self._drift: InterlockError | None = None

    def connect(self, parts: RoomParts) -> None:
        """Once all parts are there."""
        self._parts = parts

    @property
    def trouble(self) -> tuple[InterlockError, ...]:
        """What lies on disk although another set is in force, as of the last look."""
        return () if self._drift is None else (self._drift,)

    async def look(self) -> None:
        """Compare what lies on disk with what a Run put in force."""
        if not self._applied.pinned:
            self._drift = None
            return
        digest, broken = await asyncio.to_thread(read_layers_or_trouble, self._all.project())
        if broken is not None or digest == self._loaded.digest:
            self._drift = broken
            return
        msg = "the policies on disk are not the ones in force: they are a proposal until somebody applies them"
        self._drift = Conflict(msg, code="policy.drift", fix=SAY)

    def propose(self) -> PolicyProposal:
        """As the Protocol says."""
        project, parts = self._all.project(), self._all
        proposed = parts.loader.load(project)
        now, current = self._loaded, parts.book.current
        rows = self._run_tables(project, proposed)
        self._require_way_back(project, proposed)
        old, new = current.rules, proposed.rules
        before, after = _texts(current), _texts(proposed)
        differing = sorted(name for name in before | after if before.get(name) != after.get(name))
        return PolicyProposal(
            digest=digest_of_texts(proposed.sources),
            now=now,
            files=tuple({"name": each, "before": _sha(before, each), "after": _sha(after, each)} for each in differing),
            added=tuple(sorted(new.keys() - old.keys())),
            changed=tuple(sorted(_changed(current, proposed))),
            removed=tuple(sorted(old.keys() - new.keys())),
            rows=rows,
            warnings=proposed.warnings,
            diff=_diff(before, after, differing),
        )

    def in_force(self) -> InForce:
        """As the Protocol says."""
        recorded = self._wait(self._store.in_force())
        loaded = self._loaded
        differs = recorded is not None and recorded.pinned and recorded.digest != loaded.digest
        if differs or (recorded is not None and recorded.pinned) != loaded.pinned:
            msg = f"the tables do not say {loaded.digest[:12]}, and the door decides by it"
            raise Permanent(msg, code="policy.not_in_force", fix="interlock policy reload")
        return loaded

    def replayed(self, number: int, digest: str) -> JsonObject:
        """As the Protocol says."""
        found = self._wait(self._store.replay(number))
        if found is None:
            msg = f"there is no replay {number}"
            raise NotFound(msg, code="replay.unknown", fix="interlock policy replay")
        of, summary = found
        if of != digest:
            msg = f"replay {number} was made of other policies than those on disk now"
            raise Conflict(msg, code="replay.other_set", fix="interlock policy replay")
        return summary

    async def put_in_force(self, run: Run, payload: JsonObject) -> JsonObject:
        """The arrangement behind both directions: `{digest, pinned, previous}`.

        The set is sound and kept before it counts, and one row says that it does: whoever is killed in between leaves
        either the one or the other in force.

        Raises: Stale when another set is in force by now, or other texts lie on disk; Invalid when it is not sound.
        """
        digest, pinned = str(payload["digest"]), payload["pinned"] is True
        parts, loaded = self._all, self._loaded
        if loaded.digest not in {digest, payload["previous"]}:
            msg = f"another set is in force by now: {loaded.digest[:12]}"
            raise Stale(msg, code="policy.other_set", fix="see what is in force: interlock policy check")
        kept = await self._store.kept(digest) if pinned else None
        wanted = kept if kept is not None else await asyncio.to_thread(self._from_disk, digest, pinned=pinned)
        await asyncio.to_thread(load_applied, parts.loader, parts.project(), wanted.sources)
        before = AppliedSet(loaded.digest, own_texts(parts.book.current.sources), loaded.pinned)
        await self._store.put(wanted, before, run.number, run.actor.id)
        self._applied.current = wanted
        await asyncio.to_thread(parts.book.reload)
        await self.look()
        return {"digest": digest, "pinned": pinned}

    def _from_disk(self, digest: str, *, pinned: bool) -> AppliedSet:
        project = self._all.project()
        sources = own_texts(self._all.loader.load(project).sources)
        if digest_of_texts(sources) != digest:
            msg = "the policies on disk are not those of the plan any more"
            raise Stale(msg, code="policy.files_changed", fix="ask again")
        return AppliedSet(digest, sources, pinned)

    def _run_tables(self, project: Project, proposed: PolicySet) -> int:
        """How many rows hold. Raises Invalid, naming those that do not."""
        tables = [read_table_file(path) for path in table_files(project)]
        report = run_tables(self._all.loader, proposed.sources, tables, preset=project)
        if report.failed:
            shown = "; ".join(f"{row.file}:{row.line}: {row.name}: {row.fault}" for row in report.failed[:FAULTS_SHOWN])
            msg = f"{len(report.failed)} rows of the decision tables do not hold: {shown}"
            raise Invalid(msg, code="policy.table_failed", fix="interlock policy test")
        return len(report.results)

    def _require_way_back(self, project: Project, proposed: PolicySet) -> None:
        """Raises Invalid where no declared person could ever put another set in force after this one."""
        plan = apply_plan(digest_of_texts(proposed.sources), self._loaded, pinned=True)
        # A window that is closed now opens again, and is no reason.
        always = self._all.loader.load_sources(project.model_copy(update={"windows": ()}), proposed.sources)
        judge = Judge(PolicyBook(lambda: always, _silent), _silent)
        now = self._all.clock.now()
        context = DecisionContext(now=now, run=0, digest=plan.digest, frozen=False, agents_paused=False)
        people = [Actor(kind="person", name=name, roles=each.roles) for name, each in project.people.items()]
        found = [judge.decide(who, plan, context) for who in people or [Actor(kind="person", name="somebody")]]
        if all(each.outcome == "forbid" for each in found):
            reason = found[0].reasons[0]
            msg = f"after this nobody could put other policies in force: {reason.policy}: {reason.reason}"
            raise Invalid(msg, code="policy.lockout", fix="let some person ask for policy.apply")

    @property
    def _all(self) -> RoomParts:
        if self._parts is None:
            msg = "asked before all parts were there"
            raise Permanent(msg, code="bug")
        return self._parts

    @property
    def _loaded(self) -> InForce:
        """What the door decides by."""
        current = self._all.book.current
        return InForce(digest=digest_of_texts(current.sources), pinned=current.pinned)

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BRIDGE_SECONDS)


def apply_plan(digest: str, now: InForce, *, pinned: bool, **more: Any) -> Plan:
    """The plan of `policy.apply`: one row of ours, and the row that takes it back."""
    target = Target(kind="policies", id="in-force")
    common: dict[str, Any] = {"targets": (target,), "operations": ("policy.apply",), "repeatable": True}
    then = "" if pinned else ", and from then on whatever lies on disk at each reload and start"
    step = Step(
        verb="put",
        summary=f"put the policies {digest[:12]} in force{then}",
        params={"digest": digest, "pinned": pinned, "previous": now.digest},
        risk="medium",
        undo=Step(
            verb="put",
            summary=f"put the policies {now.digest[:12]} in force again",
            params={"digest": now.digest, "pinned": True, "previous": digest},
            risk="medium",
            **common,
        ),
        **common,
    )
    return Plan(action="policy.apply", summary=step.summary, steps=(step,), **{"args": {}, **more})


def _changed(current: PolicySet, proposed: PolicySet) -> set[str]:
    """Ids that are in both sets and say something else about themselves, or lie in a file that differs there."""
    before, after = _texts(current), _texts(proposed)
    found = set()
    for identity, rule in proposed.rules.items():
        other = current.rules.get(identity)
        if other is not None and _policy(after, rule.file, identity) != _policy(before, other.file, identity):
            found.add(identity)
    return found


def _policy(texts: dict[str, str], file: str, identity: str) -> str:
    """The text from one @id to the next."""
    whole = texts.get(file, "")
    begin = whole.find(f'@id("{identity}")')
    if begin < 0:
        return ""
    end = whole.find("@id(", begin + 1)
    return " ".join(whole[begin : end if end >= 0 else None].split())


def _texts(policies: PolicySet) -> dict[str, str]:
    return {source.name: source.text for source in own_texts(policies.sources)}


def _sha(texts: dict[str, str], name: str) -> str | None:
    return hashlib.sha256(texts[name].encode()).hexdigest() if name in texts else None


def _diff(before: dict[str, str], after: dict[str, str], names: list[str]) -> str:
    lines: list[str] = []
    for name in names:
        old, new = (texts.get(name, "").splitlines() for texts in (before, after))
        lines += difflib.unified_diff(old, new, f"in force/{name}", f"on disk/{name}", lineterm="")
    cut = [] if len(lines) <= DIFF_LINES_MAX else [f"... {len(lines) - DIFF_LINES_MAX} more lines"]
    return "\n".join([*lines[:DIFF_LINES_MAX], *cut])


def _silent(_event: str, _fields: JsonObject) -> None:
    """A trouble is a refusal, which is what is looked for."""
