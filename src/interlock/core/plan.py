"""The immutable list of steps with the facts it was made from; its digest is its identity."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from interlock.core.model import Frozen, JsonObject
from interlock.lib.canonical import digest_of

Risk = Literal["none", "low", "medium", "high"]
Discloses = Literal["nothing", "content", "secret"]

RISKS: tuple[Risk, ...] = ("none", "low", "medium", "high")
DISCLOSURES: tuple[Discloses, ...] = ("nothing", "content", "secret")

STEPS_MAX = 100
STEP_TIMEOUT_SECONDS_MAX = 24 * 3600.0


class Target(Frozen):
    """One thing a step touches, by the identity it has in the world rather than by the name it was called.

    `kind` is a word such as `file`, `unit`, `container`, `process`, `volume`, `host`; `id` is the resolved identity
    (an absolute real path, a canonical unit name, a full container id). `names` are the other names under which people
    know it, matched against the protected list as well.
    """

    kind: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    id: str = Field(min_length=1, max_length=4096)
    names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """`unit:nginx.service`: the key of the target's slot."""
        return f"{self.kind}:{self.id}"


class Step(Frozen):
    """One effect, so exact that performing it leaves nothing to decide.

    Args:
        verb: What the action does in this step (`execute`, `write`); the action's own vocabulary.
        summary: One line for people.
        params: All that `perform` needs, as JSON.
        targets: Everything this step touches, not only what was named.
        risk: How bad it is when it goes wrong.
        changes: False only where it is known to change nothing.
        opaque: True when it is not known what it will do; policy treats it as a change of anything it can reach.
        operations: Effect classes that policies name, such as `unit.restart` or `file.remove_recursive`.
        repeatable: Whether performing it twice equals performing it once.
        discloses: What its output may tell: `nothing` confidential, `content` of files or messages, or a `secret`.
        precondition: What must still be true at the moment of effect, in the action's own words.
        undo: The step that takes it back; None where there is none, and then `irreversible` says why.
        timeout_seconds: After this the effect is killed.
    """

    verb: str
    summary: str
    params: JsonObject = {}
    targets: tuple[Target, ...] = ()
    risk: Risk = "none"
    changes: bool = True
    opaque: bool = False
    operations: tuple[str, ...] = ()
    repeatable: bool = False
    discloses: Discloses = "nothing"
    precondition: JsonObject | None = None
    undo: Step | None = None
    irreversible: str | None = None
    timeout_seconds: float = Field(default=60.0, gt=0, le=STEP_TIMEOUT_SECONDS_MAX)


class Plan(Frozen):
    """Steps, the facts they were made from, and a preview for people.

    `facts` holds what the plan depends on: other facts, another digest. `preview` (a diff, say) is part of the digest
    too, because it is what the approver read.
    """

    action: str
    args: JsonObject
    summary: str
    steps: tuple[Step, ...] = Field(min_length=1, max_length=STEPS_MAX)
    facts: JsonObject = {}
    preview: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the RFC 8785 form of the plan, undo steps included."""
        return digest_of(self.model_dump(mode="json"))

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every target of every step, without repeats, ordered by key so that slots are taken in one order."""
        found = {target.key: target for step in self.steps for target in step.targets}
        return tuple(found[key] for key in sorted(found))

    @property
    def risk(self) -> Risk:
        """The highest risk of any step."""
        return RISKS[max(RISKS.index(step.risk) for step in self.steps)]

    @property
    def discloses(self) -> Discloses:
        """The worst disclosure of any step."""
        return DISCLOSURES[max(DISCLOSURES.index(step.discloses) for step in self.steps)]

    @property
    def changes(self) -> bool:
        """Whether any step may change the world."""
        return any(step.changes for step in self.steps)

    @property
    def opaque(self) -> bool:
        """Whether any step's effect is unknown."""
        return any(step.opaque for step in self.steps)

    @property
    def operations(self) -> tuple[str, ...]:
        """The effect classes of all steps, sorted."""
        return tuple(sorted({name for step in self.steps for name in step.operations}))

    @property
    def undoable(self) -> bool:
        """Whether every changing step can be taken back."""
        return all(step.undo is not None for step in self.steps if step.changes)
