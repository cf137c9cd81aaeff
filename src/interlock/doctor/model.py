"""What the doctor says of one thing: how bad it is, what it is, why it matters, and the command that mends it."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from interlock.core.model import Frozen

Level = Literal["ok", "warning", "error"]


class Finding(Frozen):
    """One thing that was looked at. What is not `ok` says why it matters, and the command that mends it."""

    level: Level
    area: str
    message: str
    why: str = ""
    command: str | None = None

    @model_validator(mode="after")
    def _helps(self) -> Finding:
        if self.level != "ok" and not (self.why and self.command):
            msg = "a finding that is not ok has a reason and a command"
            raise ValueError(msg)
        return self


def sound(area: str, message: str) -> Finding:
    """Nothing is wrong with it."""
    return Finding(level="ok", area=area, message=message)


def wrong(area: str, message: str, why: str, command: str) -> Finding:
    """Something does not work, or is not safe."""
    return Finding(level="error", area=area, message=message, why=why, command=command)


def doubtful(area: str, message: str, why: str, command: str) -> Finding:
    """It works for now, or may be meant."""
    return Finding(level="warning", area=area, message=message, why=why, command=command)
