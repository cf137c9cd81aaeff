"""The seven errors: each class tells the caller what he may do next."""

from __future__ import annotations

from typing import ClassVar, Literal

ErrorKind = Literal["invalid", "not_found", "denied", "conflict", "stale", "transient", "permanent"]


class InterlockError(Exception):
    """An error that was foreseen.

    Anything else that is raised is a bug: it is loud, recorded and never retried.

    Args:
        message: One sentence for people, saying what is wrong and where.
        code: A stable machine-readable word (`run.unknown`), listed in the reference.
        fix: The next thing to do, as a sentence or a command.
        details: JSON-ready facts for programs; never a secret.
    """

    kind: ClassVar[ErrorKind]

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fix: str | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.kind
        self.fix = fix
        self.details = details or {}

    def to_json(self) -> dict[str, object]:
        """The one shape in which every interface shows an error."""
        return {
            "kind": self.kind,
            "code": self.code,
            "message": self.message,
            "fix": self.fix,
            "details": self.details,
        }


class Invalid(InterlockError):
    """The ask itself is wrong: change it, then ask again."""

    kind = "invalid"


class NotFound(InterlockError):
    """What was named does not exist: check the name."""

    kind = "not_found"


class Denied(InterlockError):
    """Policy says no: do not retry, ask a person."""

    kind = "denied"


class Conflict(InterlockError):
    """Something else holds what is needed: look, then ask again."""

    kind = "conflict"


class Stale(InterlockError):
    """The world changed since the plan: make a new plan."""

    kind = "stale"


class Transient(InterlockError):
    """It may work later: the same ask may be repeated.

    `effect_sent` is False only where it is proven that nothing left this process, or that the other side did nothing.
    `retry_after_seconds` is how long whoever refused wants to be left alone.
    """

    kind = "transient"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fix: str | None = None,
        details: dict[str, object] | None = None,
        effect_sent: bool = True,
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(message, code=code, fix=fix, details=details)
        self.effect_sent = effect_sent
        self.retry_after_seconds = retry_after_seconds


class Permanent(InterlockError):
    """It will not work however often it is tried: mend the cause first."""

    kind = "permanent"


ERRORS: dict[ErrorKind, type[InterlockError]] = {
    cls.kind: cls for cls in (Invalid, NotFound, Denied, Conflict, Stale, Transient, Permanent)
}
