"""Runs the resident process: one for each state folder, and word to whoever waits for it to be ready."""

from __future__ import annotations

import json
import os
from functools import partial
from types import TracebackType
from typing import Self

from interlock.core.errors import InterlockError
from interlock.interfaces.cli.answer import write_note
from interlock.interfaces.cli.serve_lock import alone
from interlock.interfaces.messages import say
from interlock.settings import Locations, Settings


class Readiness:
    """Tells that the door is open: a client through a pipe, or a person in words."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say(b"")

    def ready(self, locations: Locations, door: str) -> None:
        """Clients may knock."""
        if self._descriptor is not None:
            self._say(b"ready\n")
            return
        write_note(say("serving {project}", project=locations.project_file))
        write_note(say("at {door}; stop it with Ctrl-C, or with: interlock stop", door=door))

    def failed(self, error: InterlockError) -> None:
        """It does not start, and why."""
        if self._descriptor is not None:
            self._say(json.dumps(error.to_json(), default=str).encode() + b"\n")

    def report(self, text: str) -> None:
        """Something takes its time."""
        write_note(text)

    def _say(self, word: bytes) -> None:
        """The last word, after which the pipe is closed."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.write(descriptor, word)
        except BrokenPipeError:
            write_note(say("whoever started this went away"))
        finally:
            os.close(descriptor)


def serve_until_stopped(locations: Locations, settings: Settings, readiness: Readiness) -> None:
    """Serve until a signal or `interlock stop`.

    Raises:
        Conflict: Another process serves this project.
        InterlockError: It cannot start.
    """
    from interlock.bootstrap import serve
    from interlock.engine.loop import run_loop
    from interlock.interfaces.local.server import local_server

    locations.make_folders()
    with alone(locations):
        run_loop(
            serve(
                locations,
                settings.database_url,
                settings.database_owner_url,
                on_ready=partial(readiness.ready, locations),
                server=partial(local_server, own_uid=os.geteuid()),
                report=readiness.report,
            )
        )
