"""Parses SQL in processes of its own, which are replaced when a statement ends or stops them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import ValidationError

from interlock.adapters.sql_parse_process import FRAME_BYTES_MAX, LENGTH
from interlock.core.databases import SCRIPT_BYTES_MAX, SQL_BYTES_MAX, ScriptStatement, StatementShape
from interlock.core.errors import Invalid, Transient
from interlock.core.model import Frozen

PROCESSES_MAX = 2
PARSE_SECONDS = 2.0
START_SECONDS = 20.0
WAIT_SECONDS = 10.0
REMEMBERED_MAX = 256
Answer = TypeVar("Answer", bound=Frozen)
_PROGRAM = "interlock.adapters.sql_parse_process"


class ParserProcess:
    """One process; it is used by one thread at a time."""

    def __init__(self) -> None:
        # Isolated from the environment and the current folder, so that nothing but what is installed is imported.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LANG": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
        self._warm = False

    def ask(self, asked: dict[str, str]) -> dict[str, Any] | None:
        """The answer; None when the process ended or took too long, and then it is of no further use."""
        body = json.dumps(asked).encode()
        end = time.monotonic() + (PARSE_SECONDS if self._warm else START_SECONDS)
        try:
            self._write(LENGTH.pack(len(body)) + body)
            (length,) = LENGTH.unpack(self._read(LENGTH.size, end))
            if length > FRAME_BYTES_MAX:
                return None
            answer: dict[str, Any] = json.loads(self._read(length, end))
        except (OSError, EOFError, TimeoutError):
            return None
        self._warm = True
        return answer

    @property
    def alive(self) -> bool:
        """Whether it may be asked again."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _write(self, frame: bytes) -> None:
        if self._process.stdin is None:
            raise EOFError
        # It reads all of a frame before it does anything else, so that this waits no longer than a copy takes.
        self._process.stdin.write(frame)
        self._process.stdin.flush()

    def _read(self, count: int, end: float) -> bytes:
        if self._process.stdout is None:
            raise EOFError
        descriptor, pieces = self._process.stdout.fileno(), bytearray()
        while len(pieces) < count:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            piece = os.read(descriptor, count - len(pieces))
            if not piece:
                raise EOFError
            pieces += piece
        return bytes(pieces)


class ProcessParser:
    """Implements `core.databases.SqlParser` with at most `PROCESSES_MAX` processes, started when they are needed."""

    def __init__(self) -> None:
        # What a statement is made of depends on its text alone.
        self.parse = lru_cache(maxsize=REMEMBERED_MAX)(self._parse)
        self._idle: queue.LifoQueue[ParserProcess] = queue.LifoQueue()
        self._places = threading.BoundedSemaphore(PROCESSES_MAX)

    def _parse(self, sql: str) -> StatementShape:
        _require_text(sql, SQL_BYTES_MAX, "give long lists as an array parameter: = any($1)")
        return self._answered(StatementShape, {"sql": sql})

    def split(self, sql: str) -> tuple[ScriptStatement, ...]:
        """As the Protocol says."""
        _require_text(sql, SCRIPT_BYTES_MAX, "split the file")
        return self._answered(_Script, {"script": sql}).statements

    def _answered(self, model: type[Answer], asked: dict[str, str]) -> Answer:
        with self._process() as process:
            answer = process.ask(asked)
            if answer is None:
                process.close()
        if answer is None:
            msg = "the statement ended the parser, or kept it busy for too long; it was not run"
            raise Invalid(msg, code="sql.too_complex", fix="write a simpler statement")
        if "refused" in answer:
            raise Invalid(str(answer["refused"]), code=str(answer["code"]), fix="correct the statement")
        try:
            return model.model_validate(answer)
        except ValidationError as error:
            msg = "the parser's answer makes no sense; the statement was not run"
            raise Invalid(msg, code="sql.too_complex", fix="write a simpler statement") from error

    def close(self) -> None:
        """End all that are idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _living(self) -> ParserProcess | None:
        """One that is idle and was not killed meanwhile."""
        while not self._idle.empty():
            with contextlib.suppress(queue.Empty):
                process = self._idle.get_nowait()
                if process.alive:
                    return process
                process.close()
        return None

    @contextlib.contextmanager
    def _process(self) -> Iterator[ParserProcess]:
        if not self._places.acquire(timeout=WAIT_SECONDS):
            msg = "every parser is busy"
            raise Transient(msg, code="sql.parser_busy", fix="ask again", effect_sent=False)
        try:
            process = self._living() or _started()
            yield process
            if process.alive:
                self._idle.put(process)
        finally:
            self._places.release()


class _Script(Frozen):
    """What the process says of a script."""

    statements: tuple[ScriptStatement, ...]


def _require_text(sql: str, bytes_max: int, fix: str) -> None:
    size = len(sql.encode("utf-8", "surrogatepass"))
    if size > bytes_max:
        msg = f"the statement has {size:,} bytes; at most {bytes_max:,} are parsed"
        raise Invalid(msg, code="sql.too_long", fix=fix)
    if "\0" in sql or any("\ud800" <= letter <= "\udfff" for letter in sql):
        msg = "the statement holds a NUL or half a character"
        raise Invalid(msg, code="sql.characters", fix="write plain text")


def _started() -> ParserProcess:
    try:
        return ParserProcess()
    except OSError as error:
        msg = f"the parser cannot be started: {error.strerror}"
        raise Transient(msg, code="sql.parser_missing", fix="interlock doctor", effect_sent=False) from error
