"""A named, typed capability that reaches outside Interlock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from interlock.core.model import Frozen, JsonObject
from interlock.core.outside import Outside
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import Resolvers, StepContext
from interlock.core.project import Project
from interlock.core.run import Run
from interlock.lib.clock import Clock
from interlock.lib.redact import Redactor


class StepResult(Frozen):
    """What a perform, check or undo reports. `ok` False is a failure that needs no exception to explain it.

    `data` goes into evidence: digests, exit codes, counts; never bodies, never secrets.
    """

    ok: bool
    summary: str
    data: JsonObject = {}


PathClass = Literal["open", "rooted", "secret"]
"""How a real path may be read: by everybody, inside the declared roots, or by nobody without a yes."""


class Records(Protocol):
    """What Actions may read of Interlock's own tables, from a step's or a planner's thread."""

    def run(self, number: int) -> Run:
        """Raises NotFound."""
        ...

    def adopted(self) -> tuple[JsonObject, ...]:
        """The programs that were made known to this installation, as their schemas."""
        ...


@dataclass(frozen=True)
class Ports:
    """What an Action is constructed with; it takes what it needs, and nothing of it reads the environment.

    `project` is a function because interlock.yaml may be read anew while the process lives.
    """

    project: Callable[[], Project]
    resolvers: Resolvers
    clock: Clock
    records: Records
    redactor: Redactor
    path_class: Callable[[str], PathClass]
    action: Callable[[str], Action]
    outside: Outside = field(default_factory=Outside)


class Action(ABC):
    """One capability. To add one, write one class like this in a folder's `actions.py`; nothing else is edited.

    The engine calls, in order: `Args` (strict validation), `read_facts` (looks at the world, changes nothing), `plan`
    (pure), and then for each step `perform` and `check`; for undo, `perform` and `check` of the step's own `undo` step.
    `perform` and `check` are plain functions run in a bounded thread; they take everything from the step, and raise
    the errors of `core.errors`: Transient is retried, Permanent is undone, anything else is a bug and stops the Run.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    example: ClassVar[JsonObject]
    """Arguments for the reference and the contract tests."""
    Args: ClassVar[type[Frozen]]
    guarded: ClassVar[bool] = False
    """True when every effect goes through `context.execute`: a step that started but has no guard had no effect."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    def read_facts(self, args: Any) -> JsonObject:  # noqa: ARG002 - the default reads nothing
        """Look at the world through ports. Raises Invalid, NotFound, Transient: each of them is a refusal."""
        return {}

    @abstractmethod
    def plan(self, args: Any, facts: JsonObject) -> Plan:
        """Make the plan from arguments and facts alone; the same inputs give the same digest."""

    def rehearse(self, args: Any, facts: JsonObject) -> JsonObject:  # noqa: ARG002 - the default looks no further
        """Further facts that cost something to find out (a dry run that is rolled back, say), the first ones included.

        Asked only after policy did not forbid the plan that was made without them to this very asker; the plan is then
        made anew, and decided on. It has no lasting effect. Raises as `read_facts`.
        """
        return facts

    def targets_now(self, step: Step) -> tuple[Target, ...]:
        """What a step of an older plan would touch as the world is now; asked before it is taken back.

        The default is for steps that name identities: they touch what they say, or their precondition does not hold.
        """
        return step.targets

    @abstractmethod
    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Verify the precondition, then have the effect."""

    def check(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002
        """Read the world: did it happen? The default trusts `perform`, for steps whose effect it can see itself."""
        return StepResult(ok=True, summary="nothing further to check")
