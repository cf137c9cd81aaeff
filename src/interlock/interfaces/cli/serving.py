"""Runs the resident process: one for each state folder, and word to whoever waits for it to be ready."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from interlock.core.errors import InterlockError
from interlock.engine.cancellation import cancel_all
from interlock.interfaces.cli.answer import write_note
from interlock.interfaces.cli.serve_lock import alone
from interlock.interfaces.messages import say
from interlock.settings import Locations, Settings

if TYPE_CHECKING:
    from interlock.bootstrap import Installation
    from interlock.interfaces.http.supervisor import Front

log = structlog.get_logger()


class Readiness:
    """Tells that the door is open: a client through a pipe, or a person in words."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._background = descriptor is not None
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    @property
    def background(self) -> bool:
        """Whether a client started this process, because it needed one."""
        return self._background

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say(b"")

    def ready(self, locations: Locations, door: str, url: str | None) -> None:
        """Clients may knock: at the socket, and over HTTP where it is served."""
        if self._descriptor is not None:
            self._say(b"ready\n")
            return
        write_note(say("serving {project}", project=locations.project_file))
        if url is not None:
            write_note(say("HTTP at {url}/api/v1, and {url}/livez for whoever watches over it", url=url))
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


@dataclass(frozen=True)
class HttpWish:
    """What the command line says about HTTP: an address, and whether there is a default or none at all."""

    listen: str | None = None
    default: bool = False
    off: bool = False


def serve_until_stopped(
    locations: Locations,
    settings: Settings,
    readiness: Readiness,
    wish: HttpWish = HttpWish(),
    *,
    environment: str | None = None,
) -> None:
    """Serve until a signal or `interlock stop`. An `environment` may be another one than the last time.

    Raises:
        Conflict: Another process serves this project, or the address of HTTP is taken.
        InterlockError: It cannot start.
    """
    from interlock.bootstrap import serve
    from interlock.engine.environment import record_environment
    from interlock.engine.loop import run_loop
    from interlock.engine.project_file import load_project

    locations.make_folders()
    opened = Opened()
    with alone(locations):
        asked = environment or settings.environment
        if asked is not None:
            load_project(locations.project_file, asked)  # what is not there, or not sound, is not recorded
        record_environment(
            locations.environment_file, asked, change=environment is not None or not readiness.background
        )
        run_loop(
            serve(
                locations,
                settings.database_url,
                settings.database_owner_url,
                on_ready=lambda door: readiness.ready(locations, door, opened.url),
                server=lambda installation: _doors(installation, wish, opened),
                report=readiness.report,
            )
        )


@dataclass
class Opened:
    """What was opened besides the socket."""

    url: str | None = None


@asynccontextmanager
async def _doors(installation: Installation, wish: HttpWish, opened: Opened) -> AsyncIterator[asyncio.Event]:
    """The socket, and HTTP where it is wished for. SIGHUP puts in force what is on disk; the socket stays open."""
    from interlock.interfaces.http.supervisor import chosen_listening, http_front
    from interlock.interfaces.local.server import local_server

    project = installation.project
    listening = None if wish.off else chosen_listening(project().http, wish.listen, default=wish.default)
    loop, terminal = asyncio.get_running_loop(), has_terminal()
    async with AsyncExitStack() as stack:
        asked_to_stop = await stack.enter_async_context(local_server(installation, os.geteuid()))
        front = None
        if listening is not None:
            front = await stack.enter_async_context(
                http_front(installation.locations, listening, installation.telemetry.meter)
            )
            opened.url = front.url
        again = asyncio.Event()
        reloading = asyncio.create_task(_reload_when_told(installation, front, again))
        stack.push_async_callback(cancel_all, [reloading])
        # A terminal that was closed says the same as whoever wants a reload; then nobody is left to serve.
        loop.add_signal_handler(
            signal.SIGHUP, lambda: asked_to_stop.set() if terminal and not has_terminal() else again.set()
        )
        yield asked_to_stop


async def _reload_when_told(installation: Installation, front: Front | None, again: asyncio.Event) -> None:
    """Project and policies first, then the front with what they say about HTTP; what is not sound changes nothing."""
    while True:
        await again.wait()
        again.clear()
        try:
            await asyncio.to_thread(installation.project.reload, installation.catalog, installation.book)
            if front is not None:
                front.reload(installation.project().http)
            log.info("serve.reloaded")
        except InterlockError as error:
            log.error("serve.not_reloaded", reason=error.message, fix=error.fix)  # noqa: TRY400 - foreseen


def has_terminal() -> bool:
    """Whether this process was started from a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
