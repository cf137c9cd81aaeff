"""The door's own socket: who calls is who the kernel says, and each line is one request."""

from __future__ import annotations

import asyncio
import pwd
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars

from interlock.bootstrap import Installation
from interlock.core.actor import Actor
from interlock.core.errors import Denied, InterlockError, Invalid, Permanent, Transient
from interlock.core.meter import OTHER
from interlock.core.trace import join_trace
from interlock.engine.actors import actor_of_account, as_agent
from interlock.engine.cancellation import cancel_all
from interlock.engine.metrics import CONNECTIONS, REQUESTS
from interlock.engine.tokens import FAILURES_MAX, FAILURES_OF_OWN_ACCOUNT_MAX
from interlock.interfaces.local.call import Call
from interlock.interfaces.local.methods import Methods
from interlock.interfaces.local.protocol import (
    JsonMapping,
    PeerCredentials,
    decode_frame,
    encode_frame,
    peer_credentials,
)

log = structlog.get_logger()

CONNECTIONS_MAX = 200
CONNECTIONS_OF_OPERATOR = 16
"""How many more are served of root when all others together are too many."""

CONNECTIONS_PER_ACCOUNT_MAX = 32
CONNECTIONS_OF_OWN_ACCOUNT_MAX = 256
"""Of the account that runs Interlock: its HTTP front asks on behalf of many, and must leave room for the command line.
They take no places from others."""

REQUEST_BYTES_MAX = 4 * 1024 * 1024
"""Of one line from a client; arguments are at most 2 MiB. What is read ahead is at most twice that."""

LINE_SECONDS_MAX = 30.0
IDLE_SECONDS_MAX = 600.0
LINGER_SECONDS = 1.0
LINGERING_MAX = 16
IDENTIFIER_CHARACTERS_MAX = 100
REQUEST_FIELDS = frozenset({"id", "method", "params", "as", "token", "traceparent"})
STRANGER_SECONDS_MAX = 10.0
"""How long an account that is nobody here may stay silent before it presents a token."""


class Places:
    """Who is served at once: one account alone cannot close the door to others, nor all together to the operator."""

    def __init__(self, own_uid: int) -> None:
        self._own_uid = own_uid
        self._of_account: Counter[int] = Counter()

    @contextmanager
    def taken(self, uid: int) -> Iterator[None]:
        """A place for one connection. Raises Transient when there is none."""
        own = uid == self._own_uid
        most = CONNECTIONS_MAX + (CONNECTIONS_OF_OPERATOR if uid == 0 else 0)
        most_of_account = CONNECTIONS_OF_OWN_ACCOUNT_MAX if own else CONNECTIONS_PER_ACCOUNT_MAX
        if self._of_account[uid] >= most_of_account:
            msg = f"{most_of_account} clients of this account are connected, which is all that are served"
        elif not own and self._of_account.total() - self._of_account[self._own_uid] >= most:
            msg = f"{CONNECTIONS_MAX} clients are connected, which is all that are served at once"
        else:
            self._of_account[uid] += 1
            try:
                yield
            finally:
                self._of_account[uid] -= 1
                if not self._of_account[uid]:
                    del self._of_account[uid]
            return
        raise Transient(msg, code="door.busy", fix="ask again when some of them have hung up", effect_sent=False)


async def read_line(
    reader: asyncio.StreamReader, *, idle_seconds: float = IDLE_SECONDS_MAX, line_seconds: float = LINE_SECONDS_MAX
) -> bytes:
    """The next line with its end; what came before the other end closed, which may be nothing.

    Raises:
        Transient: No line began in `idle_seconds`, or one that began had no end after `line_seconds`.
        ValueError: The line is longer than the reader's limit.
    """
    try:
        async with asyncio.timeout(idle_seconds):
            first = await reader.read(1)
    except TimeoutError as error:
        msg = f"nothing was asked for {idle_seconds:g} s; the door hung up"
        raise Transient(msg, code="door.idle", fix="ask again", effect_sent=False) from error
    if first in {b"", b"\n"}:
        return first
    try:
        async with asyncio.timeout(line_seconds):
            return first + await reader.readline()
    except TimeoutError as error:
        msg = f"a request had no end after {line_seconds:g} s; the door hung up"
        raise Transient(msg, code="door.slow", fix="send each request at once", effect_sent=False) from error


class LocalServer:
    """Answers at the Unix socket; one connection asks one thing after another."""

    def __init__(self, installation: Installation, own_uid: int) -> None:
        self._installation = installation
        self._own_uid = own_uid
        self._methods = Methods(installation, own_uid)
        self._meter = installation.telemetry.meter
        self._meter.know("method", self._methods.names)
        self._connections: set[asyncio.Task[None]] = set()
        self._places = Places(own_uid)
        self._lingering = 0

    @property
    def asked_to_stop(self) -> asyncio.Event:
        """Set when somebody who may do so asked the resident process to end."""
        return self._methods.asked_to_stop

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either end closes it."""
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
            self._meter.set(CONNECTIONS, len(self._connections))
        peer = peer_credentials(writer.get_extra_info("socket"))
        try:
            refused = await self._serve(peer, reader, writer)
            if refused is not None:
                await _send(writer, {"id": None, "error": refused.to_json()})
                await self._linger(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            log.debug("client.gone")
        except asyncio.CancelledError:
            # `close` ends this task, which nobody awaits; until Python 3.12 asyncio takes its cancellation for a fault.
            log.debug("client.left_behind")
        finally:
            self._meter.set(CONNECTIONS, max(0, len(self._connections) - 1))
            writer.close()

    async def _serve(
        self, peer: PeerCredentials, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> InterlockError | None:
        """Answer one request after another; returns why the door hung up, if it was not the client who did."""
        try:
            with self._places.taken(peer.uid):
                read = partial(read_line, reader) if self._is_known(peer) else partial(self._read_token, peer, reader)
                while line := await read():
                    await self._request(line, peer, reader, writer)
        except (Denied, Transient) as error:
            return error
        except ValueError:
            # The stream's own limit: a line without an end.
            msg = f"a request is over {REQUEST_BYTES_MAX:,} bytes"
            return Invalid(msg, code="protocol.size", fix="put large content into a file and name the file")
        return None

    async def _linger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let whoever is refused while he still sends read why, for a moment; what he sends is thrown away."""
        if self._lingering >= LINGERING_MAX:
            return
        self._lingering += 1
        try:
            writer.write_eof()
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while await reader.read(64 * 1024):
                        pass
        finally:
            self._lingering -= 1

    async def _request(
        self, line: bytes, peer: PeerCredentials, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        identifier: object = None
        method, outcome = OTHER, "ok"
        clear_contextvars()
        try:
            frame = decode_frame(line)
            identifier = _identifier(frame)
            unknown = set(frame) - REQUEST_FIELDS
            params = frame.get("params", {})
            if unknown or not isinstance(frame.get("method"), str) or not isinstance(params, dict):
                msg = "a request has id, method, params, as, token and traceparent, and nothing else"
                raise Invalid(msg, code="protocol.request")  # noqa: TRY301 - answered like every other error
            method = str(frame["method"])
            given = frame.get("traceparent")
            trace = join_trace(given if isinstance(given, str) else None)
            actor = await self._actor(peer, frame)
            bind_contextvars(trace_id=trace.trace_id, actor=actor.id, method=method)
            call = Call(actor, peer, params, identifier, reader, writer, partial(self._actor, peer))
            result = await self._methods.run(method, call)
            await _send(writer, {"id": identifier, "result": result})
        except InterlockError as error:
            outcome = error.kind
            await _send(writer, {"id": identifier, "error": error.to_json()})
        except ConnectionError:
            raise
        except Exception as error:
            outcome = "bug"
            log.exception("request.bug", error_code="bug")
            told = Permanent(
                f"Interlock has a bug: {type(error).__name__}", code="bug", fix="see serve.log in the state folder"
            )
            await _send(writer, {"id": identifier, "error": told.to_json()})

        finally:
            self._meter.count(REQUESTS, method, outcome)

    def _is_known(self, peer: PeerCredentials) -> bool:
        try:
            self._account(peer)
        except Denied:
            return False
        return True

    async def _read_token(self, peer: PeerCredentials, reader: asyncio.StreamReader) -> bytes:
        """The next request of an account that is nobody here; raises Denied before it is looked at, if it presents no
        token."""
        line = await read_line(reader, idle_seconds=STRANGER_SECONDS_MAX)
        if line and not _presents_token(line):
            self._account(peer)
        return line

    async def _actor(self, peer: PeerCredentials, frame: JsonMapping) -> Actor:
        """Who asks: the bearer where a token is presented, whoever he is to this machine; else the account."""
        if "token" in frame:
            token = frame["token"]
            # Never the account instead, which may have every right: a front lends its own to all who come through it.
            most = FAILURES_OF_OWN_ACCOUNT_MAX if peer.uid == self._own_uid else FAILURES_MAX
            text = token if isinstance(token, str) else ""
            actor = await self._installation.tokens.actor_of(text, f"uid:{peer.uid}", most)
        else:
            actor = self._account(peer)
        agent = frame.get("as")
        if agent is None:
            return actor
        if not isinstance(agent, str):
            msg = "`as` is the name of an agent"
            raise Invalid(msg, code="protocol.as")
        return as_agent(self._installation.project(), actor, agent)

    def _account(self, peer: PeerCredentials) -> Actor:
        """Raises Denied when the account is nobody to this installation."""
        try:
            user = pwd.getpwuid(peer.uid).pw_name
        except KeyError:
            user = None
        return actor_of_account(self._installation.project(), peer.uid, user, self._own_uid)

    async def close(self) -> None:
        """Let go of every client; their Runs go on."""
        await cancel_all(list(self._connections))


@asynccontextmanager
async def local_server(installation: Installation, own_uid: int) -> AsyncIterator[asyncio.Event]:
    """Listen, and stop listening at the end. The value is set when somebody asked the process to stop."""
    server = LocalServer(installation, own_uid)
    path = installation.locations.door_socket
    path.unlink(missing_ok=True)
    listener = await asyncio.start_unix_server(server.answer, path, limit=REQUEST_BYTES_MAX)
    path.chmod(0o666 if installation.locations.shared else 0o600)
    try:
        yield server.asked_to_stop
    finally:
        path.unlink(missing_ok=True)
        listener.close()
        await server.close()


def _presents_token(line: bytes) -> bool:
    try:
        return "token" in decode_frame(line)
    except Invalid:
        return False


def _identifier(frame: dict[str, object]) -> object:
    """What the caller calls this request; it comes back with every answer, so it is short and can be written."""
    identifier = frame.get("id")
    short = isinstance(identifier, str) and len(identifier) <= IDENTIFIER_CHARACTERS_MAX and identifier.isprintable()
    number = isinstance(identifier, int) and abs(identifier) < 2**63
    if not (identifier is None or number or short):
        msg = f"the id of a request is a number or at most {IDENTIFIER_CHARACTERS_MAX} printable characters"
        raise Invalid(msg, code="protocol.request")
    return identifier


async def _send(writer: asyncio.StreamWriter, frame: dict[str, object]) -> None:
    writer.write(encode_frame(frame))
    await writer.drain()
