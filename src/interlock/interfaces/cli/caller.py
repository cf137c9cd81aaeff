"""The person or program at this end: what was chosen on the command line, and the line to the resident process."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from interlock.core.errors import Invalid
from interlock.interfaces.cli.answer import OutputFormat, write_note
from interlock.interfaces.cli.patience import Patience
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.resident import Resident, connect
from interlock.interfaces.local.client import ANSWER_TIMEOUT_SECONDS, Progress
from interlock.interfaces.messages import say
from interlock.settings import Locations, Settings, find_project_file, locate

WAIT_SECONDS_MAX = 24 * 3600.0
"""How long one request waits for a Run; whoever waits longer asks again."""


@dataclass
class Caller:
    """One invocation."""

    settings: Settings
    output: OutputFormat = "table"
    project: Path | None = None
    asked_as: str | None = None
    run: int | None = None
    """The Run that is being waited for, for the words after Ctrl-C."""
    release: tuple[str, int] | None = None
    """Workload and number of the release that is being followed, likewise."""
    asked_here: bool = False
    """Whether that Run is this invocation's own ask, rather than one that it decides on or follows."""
    _resident: Resident | None = field(default=None, repr=False)
    _introduced: bool = False

    @property
    def table(self) -> bool:
        """Whether the answer is for people."""
        return self.output == "table"

    @property
    def colour(self) -> bool:
        """Whether standard output shows colours."""
        return sys.stdout.isatty() and not self.settings.no_color

    @property
    def interactive(self) -> bool:
        """Whether there is a person who can be asked. A coding agent's shell may have a terminal and is no person."""
        return self.table and sys.stdin.isatty() and sys.stderr.isatty() and self.settings.agent_mark is None

    @property
    def acting_as(self) -> str | None:
        """The agent to act as: by option, by INTERLOCK_AS, or because an agent's shell gave itself away.

        Raises:
            Invalid: Another person is named.
        """
        mark = self.settings.agent_mark
        name = self.asked_as or self.settings.acting_as or (mark.agent if mark else None)
        if name is None:
            return None
        kind, colon, rest = name.rpartition(":")
        if kind == "person":
            msg = f"--as makes you less than you are: an agent of yours, never a person ({rest})"
            raise Invalid(msg, code="actor.as_person", fix="leave out --as, or name an agent: --as claude")
        return rest if colon and kind == "agent" else name

    def locations(self) -> Locations:
        """Where the project lies. Raises NotFound, Denied."""
        uid = os.geteuid()
        return locate(find_project_file(self.project, self.settings, Path.cwd(), uid), self.settings, uid)

    @property
    def resident(self) -> Resident:
        """The resident process, started if need be. Raises as `connect`."""
        if self._resident is None:
            self._resident = connect(self.locations(), self.settings)
        return self._resident

    def close(self) -> None:
        """Hang up."""
        if self._resident is not None:
            self._resident.connection.close()
            self._resident = None

    def call(
        self,
        method: str,
        params: dict[str, object] | None = None,
        *,
        on_progress: Progress | None = None,
        timeout_seconds: float | None = ANSWER_TIMEOUT_SECONDS,
        patience: str | None = None,
    ) -> Record:
        """Ask the resident process. Raises what it answers with, and as `Connection.call`."""
        self._introduce()
        connection = self.resident.connection
        with Patience(patience or say("waiting for an answer")) as waiting:

            def heard(progress: dict[str, object]) -> None:
                number, text = progress.get("run"), progress.get("text")
                decided, total = progress.get("decided"), progress.get("total")
                if isinstance(text, str):
                    waiting.text = text
                elif isinstance(decided, int) and isinstance(total, int):
                    waiting.text = say("decided {decided} of {total} Runs", decided=decided, total=total)
                elif method == "hold" or progress.keys() & {"output", "chunk"}:
                    waiting.end()  # the terminal belongs to what comes now
                elif isinstance(number, int):
                    waiting.text = say("waiting for Run {number}", number=number)
                if on_progress is not None:
                    on_progress(progress)

            return Record(
                connection.call(
                    method, params, acting_as=self.acting_as, on_progress=heard, timeout_seconds=timeout_seconds
                )
            )

    def view(self, name: str, /, **args: object) -> Record:
        """Read a view."""
        given = {key: value for key, value in args.items() if value is not None}
        return self.call("view", {"name": name, "args": given}).record("data")

    def _introduce(self) -> None:
        """Say once as whom this goes, when the command line did not say so itself."""
        if self._introduced or self.asked_as is not None:
            return
        self._introduced = True
        if self.settings.acting_as is not None:
            write_note(say("acting as agent:{name}, because INTERLOCK_AS says so", name=self.acting_as))
        elif self.settings.agent_mark is not None:
            mark = self.settings.agent_mark
            write_note(
                say(
                    "acting as agent:{name}, because {variable} is set: this is an agent's shell",
                    name=mark.agent,
                    variable=mark.variable,
                )
            )
