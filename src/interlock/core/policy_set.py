"""What an Action may know of policy sets: the one in force, the one that lies on disk, and what lies between them."""

from __future__ import annotations

from typing import Protocol

from interlock.core.model import Frozen, JsonObject
from interlock.core.outside import OutsideKey


class InForce(Frozen):
    """`digest` (SHA-256, hex) covers the texts of all layers but the built-in one.

    `pinned`: what lies on disk is a proposal. Otherwise it is in force from each reload and start on.
    """

    digest: str
    pinned: bool


class PolicyProposal(Frozen):
    """The set on disk, which is sound and whose decision tables hold, beside the one in force.

    `files` has one object for each file that differs: `{name, before, after}`, digests or None. `added`, `changed` and
    `removed` are ids of policies; `rows` is how many rows of decision tables hold; `diff` is for people.
    """

    digest: str
    now: InForce
    files: tuple[JsonObject, ...]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    rows: int
    warnings: tuple[str, ...]
    diff: str


class PolicySets(Protocol):
    """The policy sets of this installation, for an Action's own thread."""

    def propose(self) -> PolicyProposal:
        """Read, validate and lint what lies on disk, and run its decision tables.

        Raises: Invalid, naming file and line; also where nobody could ever put another set in force after it.
        """
        ...

    def in_force(self) -> InForce:
        """As the tables and the door have it. Raises Permanent when these two differ."""
        ...

    def replayed(self, number: int, digest: str) -> JsonObject:
        """What a recorded replay of the set with this digest came to. Raises NotFound, Conflict (of another set)."""
        ...


POLICY_SETS: OutsideKey[PolicySets] = OutsideKey("policy sets")
