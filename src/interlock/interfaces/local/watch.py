"""States and outputs of many Runs over one connection: each look is answered when there is something new to see.

After the request `watch` the caller sends `{"id", "input": {"look": KEY, "run", "after", "state", ...}}` as often as he
likes, and is answered with one progress frame `{"look": KEY, ...}` each; a KEY is a number of his choice. A look names
what he has seen, so nothing is kept here between two of them, and whoever reads slowly is sent nothing meanwhile.
"""

from __future__ import annotations

import asyncio

from pydantic import Field

from interlock.bootstrap import Installation
from interlock.core.actor import Actor
from interlock.core.errors import Conflict, InterlockError, Invalid
from interlock.core.model import Frozen, JsonObject
from interlock.core.run import Run, RunState
from interlock.core.trace import parse_traceparent
from interlock.engine.cancellation import cancel_all
from interlock.engine.planner import validate
from interlock.engine.signals import set_within
from interlock.engine.views import is_own, may_see
from interlock.interfaces.local.call import Call
from interlock.interfaces.local.protocol import JsonMapping, decode_frame

LOOKS_MAX = 50
LOOKS_OF_OWN_ACCOUNT_MAX = 2000
"""At once, over one connection. The front of the account that runs Interlock looks on behalf of many."""

IDLE_SECONDS_MAX = 600.0
LOOK_AGAIN_SECONDS = 3.0
"""How long a change that no signal told of may go unseen."""

PIECES_MAX = 16
"""Of 64 KiB each, in one answer."""


class Look(Frozen):
    """What is looked at and what was seen of it: the number of the last piece of output, and the state."""

    look: int = Field(ge=0, lt=2**53)
    run: int = Field(ge=1)
    after: int = Field(default=0, ge=0, le=2**31 - 1)
    state: RunState | None = None
    output: bool = True
    wait_seconds: float = Field(default=15.0, ge=0, le=60)


class Forget(Frozen):
    """A look whose answer nobody waits for any more."""

    forget: int


class Watch:
    """The looks of one connection."""

    def __init__(self, installation: Installation, call: Call, *, own: bool) -> None:
        self._on = installation
        self._call = call
        self._most = LOOKS_OF_OWN_ACCOUNT_MAX if own else LOOKS_MAX
        self._looks: dict[int, asyncio.Task[None]] = {}
        self._telling = asyncio.Lock()

    async def serve(self) -> JsonObject:
        """Until the other end hangs up or has nothing to look at for long. Raises Invalid for what is no look."""
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS_MAX):
                    line = await self._call.reader.readline()
                if not line:
                    break
                self._take(line)
        except TimeoutError:
            await self._tell(idle=True)
        finally:
            await cancel_all(list(self._looks.values()))
        return {}

    def _take(self, line: bytes) -> None:
        frame = decode_frame(line)
        given = frame.get("input")
        if not isinstance(given, dict):
            msg = 'a look is {"input": {"look": NUMBER, "run": NUMBER}}'
            raise Invalid(msg, code="protocol.input")
        if "forget" in given:
            forgotten: Forget = validate(Forget, given, "forget")
            task = self._looks.get(forgotten.forget)
            if task is not None:
                task.cancel()
            return
        look: Look = validate(Look, given, "look")
        if look.look in self._looks or len(self._looks) >= self._most:
            msg = f"{self._most} looks at once are answered, each under a number of its own"
            raise Conflict(msg, code="watch.looks", fix="wait for an answer first")
        task = asyncio.create_task(self._answer(look, frame))
        self._looks[look.look] = task
        task.add_done_callback(lambda _: self._looks.pop(look.look, None))

    async def _answer(self, look: Look, frame: JsonMapping) -> None:
        try:
            seen = await self._see(await self._call.identify(frame), look)
        except InterlockError as error:
            seen = {"error": error.to_json()}
        self._looks.pop(look.look, None)  # its number is free before the other end knows
        try:
            await self._tell(look=look.look, **seen)
        except ConnectionError:
            self._call.writer.close()  # and the reader, whom nobody writes to any more, ends with it

    async def _tell(self, **fields: object) -> None:
        async with self._telling:
            await self._call.progress(**fields)

    async def _see(self, actor: Actor, look: Look) -> dict[str, object]:
        """What is new of the Run, or how it is when the time is over. Raises Denied, NotFound, Transient."""
        on = self._on
        end = on.clock.monotonic() + look.wait_seconds
        with on.signals.watch(look.run) as moved:
            while True:
                moved.clear()
                run = await on.store.by_number(look.run)
                if not is_own(actor, run):
                    on.views.require(actor, "runs", "nothing")
                hears = look.output and may_see(on.judge, actor, run, on.clock)
                pieces = await self._pieces(look) if hears else []
                left = end - on.clock.monotonic()
                if pieces or run.state is not look.state or left <= 0:
                    return _seen(run, pieces, hears=hears)
                await set_within(moved, min(left, LOOK_AGAIN_SECONDS))

    async def _pieces(self, look: Look) -> list[tuple[int, str]]:
        await self._on.output_log.flush(look.run)
        pieces = await self._on.outputs.read(look.run, look.after, PIECES_MAX)
        return [(piece.seq, piece.text) for piece in pieces]


def _seen(run: Run, pieces: list[tuple[int, str]], *, hears: bool) -> dict[str, object]:
    """`more`: there may be further output at once, so that an end is not the end yet."""
    trace = parse_traceparent(run.traceparent)
    return {
        "run": run.number,
        "state": run.state.value,
        "state_reason": run.state_reason,
        "state_code": run.state_code,
        "final": run.state.is_final,
        "trace_id": trace.trace_id if trace is not None else None,
        "output": pieces,
        "more": len(pieces) == PIECES_MAX,
        "hears": hears,
    }
