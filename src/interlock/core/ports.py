"""What Actions may ask of the outside: Protocols that adapters fulfil and `bootstrap` hands in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Target

OUTPUT_BYTES_MAX = 16 * 1024 * 1024
TAIL_BYTES = 16 * 1024


class ProcessSpec(Frozen):
    """A program to start: absolute path, argv without a shell, the whole environment, a folder."""

    path: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    folder: str = "/"
    stdin: bytes = b""
    timeout_seconds: float = 60.0
    output_bytes_max: int = OUTPUT_BYTES_MAX
    sha256: str | None = None
    """When given, the file at `path` must have this digest at the moment of exec; exactly what was hashed is executed.
    When others could change that file, that is a copy in memory: a script then cannot tell from `$0` where it lies."""


class ProcessResult(Frozen):
    """How a process ended. `exit_code` is None when a signal ended it. `tail` is the redacted end of its output."""

    exit_code: int | None
    signal: int | None
    timed_out: bool
    output_bytes: int
    truncated: bool
    output_sha256: str
    tail: str
    duration_seconds: float


class Blobs(Protocol):
    """Encrypted bodies, addressed by the SHA-256 of what they hold."""

    def put(self, body: bytes) -> str:
        """Keep a body; returns its digest. Raises Transient when the disk is full."""
        ...

    def get(self, digest: str) -> bytes:
        """Raises NotFound when retention has pruned it, Permanent when it does not match its digest."""
        ...


class StepContext(Protocol):
    """What a step is given while it is performed, checked or undone."""

    run: int
    key: str
    """`run:step`, the idempotency key of the effect."""
    attempt: int
    blobs: Blobs

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for an end; a step that waits should look."""
        ...

    def hold(self) -> None:
        """Call right before an effect in this process. Raises Transient(effect_sent=False) when the lease is lost."""
        ...

    def execute(self, spec: ProcessSpec) -> ProcessResult:
        """Run a program under the guard; output is streamed into the Run, bounded and redacted.

        Raises Transient(effect_sent=False) when it is proven that nothing was started.
        """
        ...

    def write_output(self, text: str) -> None:
        """Add text to what the Run shows as its output."""
        ...

    def arrange(self, name: str, payload: JsonObject) -> JsonObject:
        """Change Interlock's own tables in the way registered under `name` (freezes, pauses, programs)."""
        ...


class TargetResolver(Protocol):
    """Turns the name of one kind of thing into the identities it stands for."""

    kinds: tuple[str, ...]

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """The identities behind a name; more than one when the name is a pattern.

        Raises NotFound (nothing by that name), Transient (the outside system did not answer): both are refusals.
        """
        ...

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:
        """What `operation` (`unit.restart`) on this target would touch besides it."""
        ...


@runtime_checkable
class Resolvers(Protocol):
    """All resolvers behind one face."""

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """As `TargetResolver.resolve`; raises Invalid for a kind that nobody resolves."""
        ...

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:
        """As `TargetResolver.pulled_along`."""
        ...


class ProgramContext(Frozen):
    """Operator-owned settings under which a program runs, never the asker's: environment, folder, account."""

    environment: dict[str, str] = {}
    folder: str = "/"


@dataclass(frozen=True)
class PolicyAnswer:
    """What a policy engine says to one request. `errors` non-empty means the answer must not be trusted."""

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...]


class PolicyHandle(Protocol):
    """A parsed, validated policy set."""

    digest: str
    annotations: dict[str, dict[str, str]]
    """@id -> all annotations of that policy, and what its text says: `effect_word` (permit or forbid), `file`, `line`,
    and `granted`: `unless` when it steps aside by `unless { context.granted }`, `used` for any other mention."""

    def ask(self, requests: Sequence[JsonObject], entities: Sequence[JsonObject]) -> tuple[PolicyAnswer, ...]:
        """Answer several requests over the same entities, in order. Never raises for a policy error: it reports it."""
        ...


class PolicyEngine(Protocol):
    """The policy library behind one method."""

    def load(self, policies: Sequence[tuple[str, str]], schema: str) -> PolicyHandle:
        """Parse and validate (file name, text) pairs against the schema. Raises Invalid with file, line and fix."""
        ...
