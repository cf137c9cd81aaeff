"""A process that goes on when Interlock ends: what keeps it running, and what is known about it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey

KeptName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+@-]{0,199}$")]
KeptPhase = Literal["starting", "running", "waiting", "stopped", "given_up"]
"""`waiting`: it ended by itself and is started again soon. `given_up`: it ended too often. `stopped`: it should run,
and neither it nor its keeper is there: the machine was started anew, say."""


class KeptProcess(Frozen):
    """A process that is kept running: started again when it ends, with growing pauses, and stopped only when told to.

    Args:
        name: The one process of this name on this installation.
        argv: The program by its absolute path, and its arguments; no shell. It stays in the foreground: when it ends,
            all that it left behind is ended too.
        environment: All of it, but for a mark of the keeper's (INTERLOCK_KEPT).
        folder: Where it runs.
        stop_signal: Sent first when it is to end; SIGKILL follows after `stop_grace_seconds`, to the whole tree.
        restarts_per_hour_max: After more than so many it is given up, and says so.
        log_bytes_max: Of one log file; the one before it is kept. The process appends to the file itself, which is
            looked at once in a second, and for a moment may be larger by what is written in that second.
    """

    name: KeptName
    argv: tuple[str, ...] = Field(min_length=1, max_length=1000)
    environment: dict[str, str] = {}
    folder: str = "/"
    stop_signal: Literal["SIGTERM", "SIGINT", "SIGQUIT"] = "SIGTERM"
    stop_grace_seconds: float = Field(default=10.0, ge=0, le=3600)
    restart_pause_seconds: float = Field(default=0.1, ge=0.01, le=60)
    restart_pause_seconds_max: float = Field(default=10.0, ge=0.1, le=600)
    restarts_per_hour_max: int = Field(default=100, ge=0, le=10_000)
    log_bytes_max: int = Field(default=16 * 1024 * 1024, ge=4096, le=1024 * 1024 * 1024)


class KeptState(Frozen):
    """How a kept process fares."""

    process: KeptProcess
    phase: KeptPhase
    pid: int | None
    """Of the process itself, while it runs."""
    started_at: datetime | None
    """When it was started last."""
    restarts: int
    """How often it was started again, in all."""
    last_exit: str | None
    """`exit 1`, `signal 9`; `unknown` where its keeper had been killed before."""


class Keeper(Protocol):
    """Keeps processes running, each under a small process of its own that does not end with Interlock."""

    def ensure(self, process: KeptProcess) -> KeptState:
        """Run it, or find it running. Returns when it was started once; one that had been given up is started again.

        A process that outlived its keeper is kept on, and not started a second time.

        Raises Conflict when another process (another argv, environment or folder) is kept under its name, Permanent
        when the program cannot be started, Transient when its keeper does not answer.
        """
        ...

    def stop(self, name: str) -> None:
        """End it with its whole tree and keep it no longer; its logs stay. Nothing happens where there is none."""
        ...

    def restart(self, name: str) -> KeptState:
        """End it and start it again at once, whatever it had been waiting for. Raises NotFound."""
        ...

    def state(self, name: str) -> KeptState | None:
        """How it fares; None when nothing of this name is kept."""
        ...

    def members(self, name: str) -> frozenset[int]:
        """The ids of a kept process and of all that it started and that can be told from others; of a moment ago."""
        ...

    def states(self) -> tuple[KeptState, ...]:
        """All that are kept, by name."""
        ...

    def log_path(self, name: str) -> Path:
        """Where its output goes."""
        ...

    def revive(self) -> tuple[str, ...]:
        """Start a keeper for each process that should be kept and has none; returns their names.

        Call it again and again: keepers die with the machine, and now and then by somebody's hand. Raises as `ensure`,
        after all were tried.
        """
        ...

    def forget(self, name: str) -> None:
        """Delete the logs of a process that is kept no longer. Raises Conflict when it is kept."""
        ...


KEEPER: OutsideKey[Keeper] = OutsideKey("the keeper of processes")
