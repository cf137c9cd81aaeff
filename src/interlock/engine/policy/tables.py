"""Decision tables: rows of who asks what when, and what must come of it, beside the policies that they test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from pydantic import Field

from interlock.core.actor import Actor, ActorKind
from interlock.core.approval import Approval
from interlock.core.decision import Decision, Outcome
from interlock.core.errors import Invalid
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses, Plan, Risk, Step, Target
from interlock.core.project import Agent, Person, Project, Service, TargetPattern, Window
from interlock.core.role import Code, Role
from interlock.engine.policy.facts import OwnParts
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyBook, PolicyLoader, PolicySet, PolicySource
from interlock.engine.policy.request import DecisionContext
from interlock.engine.trusted_file import read_trusted
from interlock.engine.yaml_model import Faults, invalid, read_document, to_model
from interlock.lib.strict_yaml import BYTES_MAX

MOMENT = "2026-03-02T10:00:00Z"
"""When rows happen that do not say: a Monday morning."""
ROWS_MAX = 2000
TABLES_MAX = 100

_CODE = "policy.table"
_KINDS: dict[str, ActorKind] = {"person": "person", "agent": "agent", "service": "service", "system": "system"}


class NamedTarget(Frozen):
    """A target that is known by other names as well."""

    target: TargetPattern
    names: tuple[str, ...] = ()


class PlanRow(Frozen):
    """A plan of one step, by what policies see of it. Without `changes` it only reads."""

    action: str = "command.exec"
    operations: tuple[str, ...] = ()
    targets: tuple[TargetPattern | NamedTarget, ...] = ()
    risk: Risk = "none"
    changes: bool = False
    opaque: bool = False
    discloses: Discloses = "nothing"


class ViewRow(Frozen):
    """A read of one of Interlock's own tables."""

    name: str
    discloses: Discloses = "nothing"


class ContextRow(Frozen):
    """The moment."""

    at: str = Field(default=MOMENT, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?Z$")
    frozen: bool = False
    agents_paused: bool = False
    held: bool = False
    break_glass: bool = False


class YesRow(Frozen):
    """An approval that has been given."""

    by: str
    roles: tuple[str, ...] = ()


class MissingRow(Frozen):
    """What must still be missing, over all requirements: the largest numbers."""

    approvals: int = 0
    confirmations: int = 0


class Row(Frozen):
    """One line of a table.

    `by`, where given, must be exactly the policies that take part in the decision. `missing`, where given, must be
    what the decision still asks for.
    """

    name: str
    actor: str = Field(pattern=r"^(person|agent|service|system):.+$")
    roles: tuple[str, ...] = ()
    on_behalf_of: str | None = None
    via: str | None = None
    scopes: tuple[Code, ...] | None = None
    plan: PlanRow | None = None
    view: ViewRow | None = None
    context: ContextRow = ContextRow()
    approvals: tuple[YesRow, ...] = ()
    confirmations: int = Field(default=0, ge=0, le=10)
    expect: Outcome
    by: tuple[str, ...] | None = None
    missing: MissingRow | None = None


class ProjectRow(Frozen):
    """What a table supposes interlock.yaml to say; nothing else of the real one counts."""

    people: dict[str, Person] = {}
    agents: dict[str, Agent] = {}
    services: dict[str, Service] = {}
    roles: dict[str, Role] | None = None
    protected: tuple[TargetPattern, ...] = ()
    windows: tuple[Window, ...] = ()
    isolated: bool = False


class OwnRow(Frozen):
    """What a table supposes to belong to Interlock itself."""

    changed: tuple[TargetPattern, ...] = ()
    private: tuple[TargetPattern, ...] = ()


class Table(Frozen):
    """One file of rows."""

    project: ProjectRow = ProjectRow()
    own: OwnRow = OwnRow()
    rows: tuple[Row, ...] = Field(min_length=1, max_length=ROWS_MAX)


@dataclass(frozen=True)
class RowResult:
    """What became of one row; `fault` is empty when it held."""

    file: str
    line: int | None
    name: str
    fault: str
    decision: Decision


@dataclass(frozen=True)
class TableReport:
    """What became of all rows. `uncovered` are policies of the project that no row ever met: nobody knows
    whether they work."""

    results: tuple[RowResult, ...]
    uncovered: tuple[str, ...]

    @property
    def failed(self) -> tuple[RowResult, ...]:
        """The rows that did not hold."""
        return tuple(result for result in self.results if result.fault)


def table_files(project: Project) -> tuple[Path, ...]:
    """The tables of a project: `tests/*.yaml` in each of its policies folders, sorted.

    Raises:
        Invalid: there are more than `TABLES_MAX`.
    """
    found = [
        path for folder in project.policies for path in sorted(Path(project.folder, folder, "tests").glob("*.yaml"))
    ]
    if len(found) > TABLES_MAX:
        msg = f"{len(found)} decision tables; at most {TABLES_MAX} are read"
        raise Invalid(msg, code="policy.table", fix="Join small tables.")
    return tuple(found)


def read_table_file(path: Path) -> tuple[str, bytes]:
    """A table's name and text.

    Raises:
        Invalid, NotFound: it cannot be read or trusted.
    """
    return str(path), read_trusted(path, BYTES_MAX)


def run_tables(
    loader: PolicyLoader, sources: tuple[PolicySource, ...], tables: Iterable[tuple[str, bytes]], *, preset: Project
) -> TableReport:
    """Decide every row of (name, text) tables by the given policies. `preset` names the preset; tables bring the rest.

    Raises:
        Invalid: a table cannot be read, or the policies are not sound.
    """
    results: list[RowResult] = []
    met: set[str] = set()
    known: set[str] = set()
    for name, body in tables:
        document = read_document(body, name, _CODE)
        table = to_model(Table, document, name, _CODE)
        _check_table(table, Faults(document), name)
        supposed = Project(name="table", preset=preset.preset, folder="/", policies=(), **dict(table.project))
        own = OwnParts(changed=table.own.changed, private=table.own.private)
        loaded = loader.load_sources(supposed, sources, own=own)
        known |= {identity for identity, rule in loaded.rules.items() if rule.layer != "invariant"}
        judge = Judge(PolicyBook(partial(_same, loaded), _silent), _silent)
        for index, row in enumerate(table.rows):
            decision = _decide(judge, row)
            met |= {reason.policy for reason in decision.reasons}
            line = document.line_of(("rows", index))
            results.append(RowResult(name, line, row.name, _fault(row, decision), decision))
    return TableReport(results=tuple(results), uncovered=tuple(sorted(known - met)))


def _same(loaded: PolicySet) -> PolicySet:
    return loaded


def _silent(_event: str, _fields: JsonObject) -> None:
    """A policy error shows in the row itself, which fails."""


def _check_table(table: Table, faults: Faults, name: str) -> None:
    for index, row in enumerate(table.rows):
        if (row.plan is None) == (row.view is None):
            faults.add(("rows", index), f"{row.name!r} needs a plan or a view", "Add one of `plan:` and `view:`.")
    if faults.found:
        raise invalid(name, faults.found, _CODE)


def _decide(judge: Judge, row: Row) -> Decision:
    kind, _, name = row.actor.partition(":")
    actor = Actor(
        kind=_KINDS[kind],
        name=name,
        roles=row.roles,
        on_behalf_of=row.on_behalf_of,
        via=row.via,
        scopes=row.scopes,
    )
    now = datetime.fromisoformat(row.context.at).astimezone(UTC)
    if row.view is not None:
        return judge.decide_view(actor, row.view.name, row.view.discloses, now)
    if row.plan is None:
        msg = f"the row {row.name!r} has neither plan nor view"
        raise Invalid(msg, code="policy.table", fix="give the row a plan or a view")
    plan = _plan(row.plan)
    context = DecisionContext(
        now=now,
        run=1,
        digest=plan.digest,
        frozen=row.context.frozen,
        agents_paused=row.context.agents_paused,
        held=row.context.held,
        break_glass=row.context.break_glass,
    )
    return judge.decide(actor, plan, context, _approvals(row, actor, plan, now))


def _plan(row: PlanRow) -> Plan:
    targets = []
    for each in row.targets:
        text, names = (each.target, each.names) if isinstance(each, NamedTarget) else (each, ())
        kind, _, identity = text.partition(":")
        targets.append(Target(kind=kind, id=identity, names=names))
    step = Step(
        verb="execute",
        summary="the plan of this row",
        targets=tuple(targets),
        risk=row.risk,
        changes=row.changes,
        opaque=row.opaque,
        operations=row.operations,
        discloses=row.discloses,
    )
    return Plan(action=row.action, args={}, summary="the plan of this row", steps=(step,))


def _approvals(row: Row, actor: Actor, plan: Plan, now: datetime) -> tuple[Approval, ...]:
    common = {
        "run": 1,
        "digest": plan.digest,
        "asker": actor.id,
        "verdict": True,
        "reason": None,
        "at": now,
        "expires_at": now + timedelta(hours=1),
    }
    others = [Approval(approver=yes.by, roles=yes.roles, kind="approval", **common) for yes in row.approvals]
    own = [Approval(approver=actor.id, roles=row.roles, kind="confirmation", **common)] * row.confirmations
    return (*others, *own)


def _fault(row: Row, decision: Decision) -> str:
    """What is other than the row says; the empty string when nothing is."""
    took_part = sorted(reason.policy for reason in decision.reasons)
    if decision.outcome != row.expect:
        return f"expected {row.expect}, got {decision.outcome} by {', '.join(took_part)}"
    if row.by is not None and sorted(row.by) != took_part:
        return f"expected {row.expect} by {', '.join(sorted(row.by))}, got it by {', '.join(took_part)}"
    missing = MissingRow(
        approvals=_most(requirement.approvals for requirement in decision.requirements),
        confirmations=_most(requirement.confirmations for requirement in decision.requirements),
    )
    if row.missing is not None and row.missing != missing:
        return f"expected {row.missing} still to be missing, got {missing}"
    return ""


def _most(numbers: Iterable[int]) -> int:
    return max(numbers, default=0)
