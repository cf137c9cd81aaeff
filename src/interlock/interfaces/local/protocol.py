"""The frames of the local protocol, shared by its two ends: one JSON object a line, over a Unix socket."""

from __future__ import annotations

import json
import socket
import struct
from typing import NamedTuple

from interlock.core.errors import ERRORS, InterlockError, Invalid, Permanent
from interlock.core.trace import TRACE

PROTOCOL = 1
FRAME_BYTES_MAX = 32 * 1024 * 1024

JsonMapping = dict[str, object]


class PeerCredentials(NamedTuple):
    """Who is at the other end of a Unix socket, as the kernel says (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


def peer_credentials(connection: socket.socket) -> PeerCredentials:
    """Ask the kernel. The ids are those of the peer when it connected or began to listen."""
    size = struct.calcsize("3i")
    return PeerCredentials(*struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))


def request_frame(
    number: int, method: str, params: JsonMapping | None, *, token: str | None, acting_as: str | None
) -> JsonMapping:
    """A request, as part of the trace under way: `number` is unique on its connection, `token` a bearer's, `acting_as`
    the name of an agent."""
    frame: JsonMapping = {"id": number, "method": method, "params": params or {}, "as": acting_as}
    if token is not None:
        frame["token"] = token
    if (trace := TRACE.get()) is not None:
        frame["traceparent"] = trace.traceparent
    return frame


def encode_frame(frame: JsonMapping) -> bytes:
    """One line with its newline.

    Raises:
        Invalid: It would be larger than `FRAME_BYTES_MAX`, or holds text that is not Unicode.
    """
    try:
        line = json.dumps(frame, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        # Python hands over bytes of the command line that are not UTF-8 as lone surrogates (PEP 383).
        msg = f"text that is not UTF-8 cannot be sent: {error.object[error.start : error.end]!r}"
        raise Invalid(msg, code="protocol.text", fix="write names and values in UTF-8") from error
    except ValueError as error:
        msg = "a number that is infinite, or none at all, cannot be sent"
        raise Invalid(msg, code="protocol.number", fix="write numbers that JSON knows") from error
    if len(line) > FRAME_BYTES_MAX:
        msg = f"a message of {len(line):,} bytes is over the {FRAME_BYTES_MAX:,} that fit"
        raise Invalid(msg, code="protocol.size", fix="put large content into a file and name the file")
    return line


def decode_frame(line: bytes) -> JsonMapping:
    """Read one line.

    Raises:
        Invalid: It is not one JSON object in UTF-8, is nested too deeply, or is too large.
    """
    if len(line) > FRAME_BYTES_MAX:
        msg = f"a message is over {FRAME_BYTES_MAX:,} bytes"
        raise Invalid(msg, code="protocol.size")
    try:
        frame = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        msg = "a message is not JSON in UTF-8"
        raise Invalid(msg, code="protocol.json") from error
    if not isinstance(frame, dict):
        msg = "a message is not a JSON object"
        raise Invalid(msg, code="protocol.json")
    return frame


def error_from_json(error: JsonMapping) -> InterlockError:
    """The error that the other end raised, as an object of its own class.

    An unknown kind, which only a newer version can send, becomes Permanent and keeps its code.
    """
    kind, details = error.get("kind"), error.get("details")
    fix, code = error.get("fix"), error.get("code")
    known = next((cls for name, cls in ERRORS.items() if name == kind), Permanent)
    return known(
        str(error.get("message") or "the resident process gave no reason"),
        code=code if isinstance(code, str) else None,
        fix=fix if isinstance(fix, str) else None,
        details=details if isinstance(details, dict) else None,
    )
