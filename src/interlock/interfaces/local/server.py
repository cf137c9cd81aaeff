"""The door's own socket: who calls is who the kernel says, and each line is one request."""

from __future__ import annotations

import asyncio
import pwd
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from interlock.bootstrap import Installation
from interlock.core.actor import Actor
from interlock.core.errors import InterlockError, Invalid, Permanent, Transient
from interlock.engine.actors import actor_of_account, as_agent
from interlock.engine.cancellation import cancel_all
from interlock.interfaces.local.methods import Call, Methods
from interlock.interfaces.local.protocol import (
    FRAME_BYTES_MAX,
    PeerCredentials,
    decode_frame,
    encode_frame,
    peer_credentials,
)

log = structlog.get_logger()

CONNECTIONS_MAX = 400
CONNECTIONS_PER_ACCOUNT_MAX = 100
IDENTIFIER_CHARACTERS_MAX = 100
REQUEST_FIELDS = frozenset({"id", "method", "params", "as"})


class LocalServer:
    """Answers at the Unix socket; one connection asks one thing after another."""

    def __init__(self, installation: Installation, own_uid: int) -> None:
        self._installation = installation
        self._own_uid = own_uid
        self._methods = Methods(installation, own_uid)
        self._connections: set[asyncio.Task[None]] = set()
        self._of_account: Counter[int] = Counter()

    @property
    def asked_to_stop(self) -> asyncio.Event:
        """Set when somebody who may do so asked the resident process to end."""
        return self._methods.asked_to_stop

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the other end closes it."""
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        peer = peer_credentials(writer.get_extra_info("socket"))
        self._of_account[peer.uid] += 1
        try:
            self._require_place(peer)
            while line := await reader.readline():
                await self._request(line, peer, reader, writer)
        except Transient as error:
            await _send(writer, {"id": None, "error": error.to_json()})
        except (ConnectionError, asyncio.IncompleteReadError):
            log.debug("client.gone")
        except asyncio.CancelledError:
            # `close` ends this task, which nobody awaits; until Python 3.12 asyncio takes its cancellation for a fault.
            log.debug("client.left_behind")
        except ValueError:
            # The stream's own limit: a line without an end.
            too_long = Invalid(f"a message is over {FRAME_BYTES_MAX:,} bytes", code="protocol.size")
            await _send(writer, {"id": None, "error": too_long.to_json()})
        finally:
            self._of_account[peer.uid] -= 1
            writer.close()

    def _require_place(self, peer: PeerCredentials) -> None:
        """One account alone cannot close the door to others, nor all together to the operator. Raises Transient."""
        of_account = self._of_account[peer.uid]
        operator = peer.uid in (self._own_uid, 0)
        if of_account > CONNECTIONS_PER_ACCOUNT_MAX:
            msg = f"{CONNECTIONS_PER_ACCOUNT_MAX} clients of this account are connected, which is all that are served"
        elif len(self._connections) > CONNECTIONS_MAX and not operator:
            msg = f"{CONNECTIONS_MAX} clients are connected, which is all that are served at once"
        else:
            return
        raise Transient(msg, code="door.busy", fix="ask again when some of them have hung up", effect_sent=False)

    async def _request(
        self, line: bytes, peer: PeerCredentials, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        identifier: object = None
        try:
            frame = decode_frame(line)
            identifier = _identifier(frame)
            unknown = set(frame) - REQUEST_FIELDS
            params = frame.get("params", {})
            if unknown or not isinstance(frame.get("method"), str) or not isinstance(params, dict):
                msg = "a request has id, method, params and as, and nothing else"
                raise Invalid(msg, code="protocol.request")  # noqa: TRY301 - answered like every other error
            actor = self._actor(peer, frame.get("as"))
            call = Call(actor, peer, params, identifier, reader, writer)
            result = await self._methods.run(str(frame["method"]), call)
            await _send(writer, {"id": identifier, "result": result})
        except InterlockError as error:
            await _send(writer, {"id": identifier, "error": error.to_json()})
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("request.bug")
            told = Permanent(
                f"Interlock has a bug: {type(error).__name__}", code="bug", fix="see serve.log in the state folder"
            )
            await _send(writer, {"id": identifier, "error": told.to_json()})

    def _actor(self, peer: PeerCredentials, agent: object) -> Actor:
        try:
            user = pwd.getpwuid(peer.uid).pw_name
        except KeyError:
            user = None
        project = self._installation.project()
        actor = actor_of_account(project, peer.uid, user, self._own_uid)
        if agent is None:
            return actor
        if not isinstance(agent, str):
            msg = "`as` is the name of an agent"
            raise Invalid(msg, code="protocol.as")
        return as_agent(project, actor, agent)

    async def close(self) -> None:
        """Let go of every client; their Runs go on."""
        await cancel_all(list(self._connections))


@asynccontextmanager
async def local_server(installation: Installation, own_uid: int) -> AsyncIterator[asyncio.Event]:
    """Listen, and stop listening at the end. The value is set when somebody asked the process to stop."""
    server = LocalServer(installation, own_uid)
    path = installation.locations.door_socket
    path.unlink(missing_ok=True)
    listener = await asyncio.start_unix_server(server.answer, path, limit=FRAME_BYTES_MAX)
    path.chmod(0o666 if installation.locations.shared else 0o600)
    try:
        yield server.asked_to_stop
    finally:
        path.unlink(missing_ok=True)
        listener.close()
        await server.close()


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
