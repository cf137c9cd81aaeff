"""`interlock door --stdio`: one request as a line of JSON on standard input, answered by lines of JSON.

    -> {"ready": 1}
    <- {"version": 1, "id": "17:0", "do": "plan", "argv": ["systemctl", "status", "nginx"]}
    -> {"plan": {...}, "digest": "..."}

or, for `"do": "run"` with that digest, {"output": "..."} again and again, then {"result": {...}}; or, for `"do":
"read"`, {"original": "..."}: what a file that would be changed holds. An {"error": {...}} ends each of them. What sshd
says in its environment about another command is never looked at.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from interlock.bootstrap.remote_door import POLICY_FILE, RemoteDoor, read_door_policy
from interlock.core.errors import InterlockError, Invalid
from interlock.core.model import JsonObject
from interlock.core.remote_host import REQUEST_BYTES_MAX, DoorRequest
from interlock.engine.planner import validate
from interlock.lib.redact import StreamRedactor

REQUEST_SECONDS = 30.0
READ_BYTES = 64 * 1024


def serve(policy_file: Path = POLICY_FILE) -> int:
    """Answer one request; 0 when it was answered, with an error too."""
    lock = threading.Lock()

    def send(frame: JsonObject) -> None:
        with lock:
            left = memoryview(json.dumps(frame).encode() + b"\n")
            while left:
                left = left[os.write(sys.stdout.fileno(), left) :]

    try:
        send({"ready": 1})
        try:
            send(_answer(policy_file, send))
        except InterlockError as error:
            refusal: JsonObject = {"kind": error.kind, "code": error.code, "message": error.message, "fix": error.fix}
            send({"error": refusal})
    except OSError:
        return 1  # whoever asked has gone, and nobody is left to be told
    return 0


def _answer(policy_file: Path, send: Callable[[JsonObject], None]) -> JsonObject:
    request = _request(sys.stdin.fileno())
    door = RemoteDoor(read_door_policy(policy_file))
    if request.do == "plan":
        plan = door.plan(request)
        return {"plan": plan.model_dump(mode="json"), "digest": plan.digest}
    if request.do == "read":
        return {"original": door.original(request)}
    redacted = StreamRedactor(door.redactor)

    def show(piece: bytes) -> None:
        _send_text(redacted.feed(piece), send)

    result = door.run(request, show, _when_gone)
    _send_text(redacted.finish(), send)
    return {"result": result.model_dump(mode="json"), "digest": request.digest}


def _send_text(text: str, send: Callable[[JsonObject], None]) -> None:
    if text:
        send({"output": text})


def _request(descriptor: int) -> DoorRequest:
    """One line, within bounds of size and time. Raises Invalid."""
    end = time.monotonic() + REQUEST_SECONDS
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        piece = os.read(descriptor, READ_BYTES) if readable else b""
        line += piece
        if not piece or len(line) > REQUEST_BYTES_MAX:
            msg = f"a request is one line of JSON of {REQUEST_BYTES_MAX:,} bytes at most, within {REQUEST_SECONDS:g} s"
            raise Invalid(msg, code="door.request", fix="ask through Interlock: interlock exec --host")
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        msg = "a request is an object of JSON"
        raise Invalid(msg, code="door.request", fix="ask through Interlock: interlock exec --host")
    request: DoorRequest = validate(DoorRequest, given, "the request")
    return request


def _when_gone(call: Callable[[], None]) -> None:
    """Watch our input: whoever asked keeps it open until he has his answer."""

    def watch() -> None:
        try:
            while os.read(sys.stdin.fileno(), READ_BYTES):
                continue
        except OSError:
            pass  # gone as well
        call()

    threading.Thread(target=watch, name="whoever-asked", daemon=True).start()
