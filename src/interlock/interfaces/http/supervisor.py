"""Keeps the process that answers HTTP running for as long as the resident process lives, and tells it what to be."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from interlock.core.errors import Conflict, Invalid, Permanent
from interlock.core.http import Http
from interlock.core.meter import Meter
from interlock.engine.cancellation import cancel_all
from interlock.engine.metrics import FRONT_STARTS, FRONT_UP
from interlock.engine.signals import set_within
from interlock.interfaces.http.options import LISTEN_DEFAULT, READY, FrontOptions, is_loopback, split_address
from interlock.settings import Locations

log = structlog.get_logger()

BACKLOG = 1024
PREDECESSOR_SECONDS_MAX = 25.0
"""How long the front of a resident process that was killed may take to let go of the address."""

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 3.0
"""Which an idle client, who merely keeps his connection, may take."""

STEADY_SECONDS = 30.0
"""Whoever lived that long did not fail at the start: then it is started again at once."""

AGAIN_SECONDS_MAX = 30.0

_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Listening:
    """What is served where: `listen` is HOST:PORT, `explicit` whether somebody asked for it rather than a default."""

    listen: str
    http: Http


def chosen_listening(http: Http, asked: str | None, *, default: bool) -> Listening | None:
    """Where to listen: what `--listen` says, then what interlock.yaml says, then the default where there is one.

    Raises Invalid where others could read the tokens on their way.
    """
    listen = asked or http.listen or (LISTEN_DEFAULT if default else None)
    if listen is None:
        return None
    host, _ = split_address(listen)
    if http.tls is None and not http.plain and not is_loopback(host):
        msg = f"{listen} can be reached from other machines, and without TLS everybody on the way reads the tokens"
        fix = "set `http: tls:` in interlock.yaml; or `plain: true` where a proxy in front of it has TLS"
        raise Invalid(msg, code="serve.plain", fix=fix)
    return Listening(listen, http)


class Front:
    """The child process, started again whenever it dies."""

    def __init__(self, locations: Locations, listening: Listening, listener: socket.socket, meter: Meter) -> None:
        self._locations = locations
        self._listening = listening
        self._listener = listener
        self._file = locations.runtime_folder / "front.json"
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._meter = meter

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{'https' if self._listening.http.tls else 'http'}://{self._listening.listen}"

    @property
    def pid(self) -> int | None:
        """Of the child; None while it is started again."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it, wait until it answers, and go on starting it. Raises Permanent when it does not, Invalid where the
        certificate cannot be used."""
        _require_tls(self._listening.http)
        self._write(self._listening.http)
        ready, told = os.pipe()
        with open(ready, "rb", buffering=0) as readiness:  # noqa: ASYNC230, PTH123 - it is only waited for
            try:
                self._process = await self._spawn(told)
            finally:
                os.close(told)
            if not await self._answers(readiness.fileno()):
                await self.stop()
                msg = "the process that answers HTTP did not start"
                fix = f"it said why, above or in {self._locations.log_file}; without it: interlock serve --no-http"
                raise Permanent(msg, code="serve.front", fix=fix)
        self._told_started()
        self._keeping = asyncio.create_task(self._keep())

    async def _answers(self, readiness: int) -> bool:
        """Wait for its word, or until the pipe is closed because nobody is left to give it."""
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        loop.add_reader(readiness, heard.set)
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                await heard.wait()
                return os.read(readiness, 1) == READY
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(readiness)

    def reload(self, http: Http) -> None:
        """Tell it what interlock.yaml says now. Its address stays as it was: the socket is open since the start.

        Raises Invalid, and changes nothing, where the certificate cannot be used, or TLS would end.
        """
        _require_tls(http)
        if (http.tls is None) != (self._listening.http.tls is None):
            msg = "TLS begins and ends with a start of its own"
            raise Invalid(msg, code="serve.tls", fix="interlock stop; then interlock serve")
        self._write(http)
        if self.pid is not None:
            # To the master alone: what a worker gets directly ends its connections.
            os.kill(self.pid, signal.SIGHUP)

    async def stop(self) -> None:
        """End it, and wait until it is gone."""
        self._stopping.set()
        if self._keeping is not None:
            await cancel_all([self._keeping])
        process = self._process
        if process is None or process.returncode is not None:
            return
        # Ever less politely: after the first, requests that are under way are answered, and nobody else is.
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await process.wait()
                    return

    def _write(self, http: Http) -> None:
        host, _ = split_address(self._listening.listen)
        FrontOptions(
            door=self._locations.door_socket,
            trusted_uids=frozenset({os.geteuid()}),
            descriptor=self._listener.fileno(),
            address=self._listening.listen,
            lock=_lock_file(self._locations),
            hosts=(host, *http.hosts),
            tls=http.tls,
            limits=http.limits,
        ).write(self._file)

    async def _spawn(self, told: int | None = None) -> asyncio.subprocess.Process:
        """It says through `told` when it answers. It inherits the listening socket, and of the environment nothing but
        where programs are and the language."""
        # -P: the folder one happens to stand in must not be searched for modules.
        command = [sys.executable, "-P", "-m", "interlock.interfaces.http.front", str(self._file), str(os.getpid())]
        return await asyncio.create_subprocess_exec(
            *command,
            *([] if told is None else [str(told)]),
            stdin=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            pass_fds=(self._listener.fileno(), *([] if told is None else [told])),
            start_new_session=True,
        )

    async def _keep(self) -> None:
        """Start it again when it died: at once when it had lived, otherwise ever more slowly."""
        loop, attempt = asyncio.get_running_loop(), 0
        while self._process is not None:
            begun = loop.time()
            code = await self._process.wait()
            self._meter.set(FRONT_UP, 0)
            attempt = 1 if loop.time() - begun > STEADY_SECONDS else attempt + 1
            log.error("http.front_died", code=code, attempt=attempt)
            if await set_within(self._stopping, _again_seconds(attempt)):
                return
            self._process = await self._spawn()
            self._told_started()

    def _told_started(self) -> None:
        self._meter.set(FRONT_UP, 1)
        self._meter.count(FRONT_STARTS)


def _require_tls(http: Http) -> None:
    """Raises Invalid where the certificate and its key cannot be used."""
    if http.tls is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(http.tls.certificate, http.tls.key)
    except OSError as error:  # as which errors of the files and of what is in them come
        msg = f"the certificate {http.tls.certificate} with its key cannot be used: {error.strerror or error}"
        raise Invalid(msg, code="serve.tls", fix="see `http: tls:` in interlock.yaml; both files are PEM") from error


def _again_seconds(attempt: int) -> float:
    """From a tenth of a second, doubling; there is one front, so nobody else comes back at the same moment."""
    return float(min(AGAIN_SECONDS_MAX, 0.05 * 2**attempt))


@asynccontextmanager
async def http_front(locations: Locations, listening: Listening, meter: Meter) -> AsyncIterator[Front]:
    """Serve HTTP until the end. Raises Conflict when the address is taken, Invalid when it is none of ours."""
    with await _listener(locations, listening.listen) as listener:
        front = Front(locations, listening, listener, meter)
        await front.start()
        try:
            yield front
        finally:
            await front.stop()


async def _listener(locations: Locations, listen: str) -> socket.socket:
    """The open socket, once the front of a process that was killed let go of the address. Raises Conflict, Invalid."""
    loop, never = asyncio.get_running_loop(), asyncio.Event()
    end = loop.time() + PREDECESSOR_SECONDS_MAX
    while True:
        try:
            return _bind(listen)
        except Conflict:
            if loop.time() >= end or not _predecessor_lives(locations):
                raise
        await set_within(never, _LOOK_SECONDS)  # a lock of others cannot be awaited within a bound


def _bind(listen: str) -> socket.socket:
    host, port = split_address(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        msg = f"{listen} is no address: {error.strerror or error}"
        raise Invalid(msg, code="serve.listen", fix="interlock serve --listen 127.0.0.1:7410") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        msg = f"{listen} cannot be listened on: {error.strerror or error}"
        fix = (
            f"see who does (ss -ltnp 'sport = :{port}'); or choose another: interlock serve --listen {host}:{port + 1}"
        )
        raise Conflict(msg, code="serve.address", fix=fix) from error
    return listener


def _lock_file(locations: Locations) -> Path:
    return locations.state_folder / "front.lock"


def _predecessor_lives(locations: Locations) -> bool:
    """Whether a front of this project still runs."""
    with suppress(FileNotFoundError):
        descriptor = os.open(_lock_file(locations), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False
