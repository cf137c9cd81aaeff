"""A client's connection to the resident process; it knows frames and nothing of what they mean."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from interlock.core.errors import Denied, Invalid, Transient
from interlock.interfaces.local.protocol import (
    FRAME_BYTES_MAX,
    JsonMapping,
    decode_frame,
    encode_frame,
    error_from_json,
    peer_credentials,
    request_frame,
)

CONNECT_TIMEOUT_SECONDS = 5
ANSWER_TIMEOUT_SECONDS = 60.0
"""How long an answer may take beyond the waiting that the request itself asks for."""

Progress = Callable[[JsonMapping], None]


class Disconnected(Transient):
    """The connection ended before the answer: the resident process stopped, or was killed.

    What it had begun goes on when it runs again; whether it had begun is not known here.
    """


class NotRunning(Transient):
    """Nobody listens at the door."""


class Connection:
    """One connection, over which requests are answered one after another.

    Args:
        door: The socket's path.
        trusted_uids: Accounts that may be at the other end; whatever another account says is not believed.
    """

    def __init__(self, door: Path, *, trusted_uids: frozenset[int]) -> None:
        self._socket = _connect(door)
        self._reader = self._socket.makefile("rb", buffering=64 * 1024)
        self._last_id = 0
        self.peer = peer_credentials(self._socket)
        if self.peer.uid not in trusted_uids:
            self.close()
            msg = f"the process behind {door} belongs to the account with the id {self.peer.uid}, which is not trusted"
            raise Denied(msg, code="door.impostor", fix="see who made that socket: ls -l " + str(door))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Abandon waiting. A Run that was asked for goes on."""
        self._reader.close()
        self._socket.close()

    def call(
        self,
        method: str,
        params: JsonMapping | None = None,
        *,
        token: str | None = None,
        acting_as: str | None = None,
        on_progress: Progress | None = None,
        timeout_seconds: float | None = ANSWER_TIMEOUT_SECONDS,
    ) -> JsonMapping:
        """Ask, hand every progress frame to `on_progress`, and return the result.

        `token` is a bearer's; without one the caller is the account of this process. `timeout_seconds` bounds the
        silence between two frames; None waits as long as the connection stands.

        Raises:
            InterlockError: The error that the resident process answered with.
            Disconnected: The connection ended first.
            Transient: No frame came in time.
            Invalid: The request is too large, or the answer is no frame.
        """
        self._last_id += 1
        self._socket.settimeout(timeout_seconds)
        # Whoever hung up may have said why first: then that is read below.
        with contextlib.suppress(Disconnected):
            self._send(request_frame(self._last_id, method, params, token=token, acting_as=acting_as))
        while True:
            frame = self._receive()
            error = frame.get("error")
            # A request that was not even read (too many clients, say) is answered without its number.
            if isinstance(error, dict) and frame.get("id") in {None, self._last_id}:
                raise error_from_json(error)
            if frame.get("id") != self._last_id:
                msg = "the resident process answered something that was not asked"
                raise Invalid(msg, code="protocol.order")
            progress, result = frame.get("progress"), frame.get("result")
            if isinstance(progress, dict):
                if on_progress is not None:
                    on_progress(progress)
            elif isinstance(result, dict):
                return result
            else:
                msg = "the resident process sent a frame that is neither progress nor result nor error"
                raise Invalid(msg, code="protocol.frame")

    def fileno(self) -> int:
        """The descriptor, to be watched while something else is done: it is readable when an answer is there."""
        return self._socket.fileno()

    def send_input(self, data: JsonMapping) -> None:
        """Tell the request that is being answered something more (`hold` is told how the command ended)."""
        self._send({"id": self._last_id, "input": data})

    def _send(self, frame: JsonMapping) -> None:
        try:
            self._socket.sendall(encode_frame(frame))
        except TimeoutError as error:
            raise _silent() from error
        except OSError as error:
            raise _gone() from error

    def _receive(self) -> JsonMapping:
        try:
            line = self._reader.readline(FRAME_BYTES_MAX + 1)
        except TimeoutError as error:
            raise _silent() from error
        except OSError as error:
            raise _gone() from error
        if not line.endswith(b"\n") and len(line) <= FRAME_BYTES_MAX:
            raise _gone()
        return decode_frame(line)


def _connect(door: Path) -> socket.socket:
    """Raises NotRunning when nobody listens, Denied when this account may not knock."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Not `settimeout`, with which connect(2) gives up at once where many others knock at the same moment.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", CONNECT_TIMEOUT_SECONDS, 0))
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        try:
            connection.connect(str(door))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            msg = f"no resident process listens at {door}"
            raise NotRunning(msg, code="resident.absent", fix="interlock serve") from error
        except PermissionError as error:
            msg = f"this account may not use {door}"
            fix = "ask whoever runs Interlock here; for several accounts it runs in enforced mode"
            raise Denied(msg, code="door.closed", fix=fix) from error
        except OSError as error:
            msg = f"the door at {door} does not open: {error.strerror or error}"
            raise Transient(msg, code="door.busy", fix="try again") from error
        undo.pop_all()
    return connection


def _gone() -> Disconnected:
    msg = "the resident process went away before it answered"
    return Disconnected(msg, code="resident.gone", fix="interlock log shows whether it was recorded; then ask again")


def _silent() -> Transient:
    msg = "the resident process does not answer"
    return Transient(msg, code="resident.silent", fix="interlock check; or stop it and ask again: interlock stop")
