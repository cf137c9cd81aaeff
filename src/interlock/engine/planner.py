"""Turns an ask into a plan: validates the arguments, reads the facts, and lets the action plan."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from pydantic import JsonValue, ValidationError

from interlock.core.action import Action
from interlock.core.ask import require_size
from interlock.core.errors import Invalid, Transient
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan
from interlock.lib.redact import Redactor

Admit = Callable[[Plan], Awaitable[bool]]
PROBLEMS_SHOWN = 5
FACTS_SECONDS = 60.0
"""How long the world may take to answer; what reads it after that is left alone, and its answer is not waited for."""


class Planner:
    """Makes plans; what it reads it reads in a bounded thread, and it changes nothing."""

    def __init__(
        self,
        action: Callable[[str], Action],
        redactor: Redactor,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        facts_seconds: float = FACTS_SECONDS,
    ) -> None:
        self._action = action
        self._redactor = redactor
        self._in_thread = in_thread
        self._facts_seconds = facts_seconds

    async def plan(self, name: str, args: JsonObject, admit: Admit | None = None) -> Plan:
        """The plan for an ask as the world is now.

        `admit` says of a plan that was made without a rehearsal whether the asker may have one; without it nobody may.

        Raises:
            NotFound: There is no such action, or nothing by a name in the arguments.
            Invalid: The arguments are wrong, too large, or hold what looks like a secret.
            Transient: The world could not be read, or not in time; without facts there is no plan.
        """
        action = self._action(name)
        require_size(args)
        self.refuse_secrets(args)
        validated = validate(action.Args, args, f"{name}")
        if type(action).read_facts is Action.read_facts:
            return action.plan(validated, {})
        if type(action).rehearse is Action.rehearse:
            return await self._in_time(name, lambda: action.plan(validated, action.read_facts(validated)))
        return await self._rehearsed(name, action, validated, admit)

    async def _rehearsed(self, name: str, action: Action, args: Any, admit: Admit | None) -> Plan:
        facts: JsonObject = {}

        def look() -> Plan:
            facts.update(action.read_facts(args))
            return action.plan(args, facts)

        plan = await self._in_time(name, look)
        if admit is None or not await admit(plan):
            return plan
        return await self._in_time(name, lambda: action.plan(args, action.rehearse(args, facts)))

    async def _in_time(self, name: str, make: Callable[[], Plan]) -> Plan:
        """Make a plan in a thread: to compare two large files takes a while, and nobody else waits for it."""
        limit = asyncio.timeout(self._facts_seconds)
        try:
            async with limit:
                plan: Plan = await self._in_thread(make)
                return plan
        except TimeoutError as error:
            if not limit.expired():
                raise
            msg = f"what {name} needs to know could not be read within {self._facts_seconds:g} s; nothing was done"
            fix = "look whether a disk, a mount or a service that it names hangs"
            raise Transient(msg, code="plan.slow", fix=fix, effect_sent=False) from error

    def refuse_secrets(self, given: JsonObject) -> None:
        """Raises Invalid when any text, by itself or with its name, looks like a secret; it is not recorded then."""
        for place, text in _texts(given, ""):
            found = self._redactor.find(text)
            if found is not None:
                msg = f"{place} seems to hold a secret ({found}); nothing was recorded"
                raise Invalid(
                    msg,
                    code="args.secret",
                    fix="let the program read it from its operator-owned context, never from the command line",
                )


def validate(model: type[Frozen], args: JsonObject, where: str) -> Any:
    """Validate strictly: no coercion, no unknown names.

    Raises: Invalid, naming each place that is wrong; never the value, which may be a secret.
    """
    try:
        # From JSON text, because strict mode then reads tuples, sets and dates from their JSON forms.
        return model.model_validate_json(json.dumps(args), strict=True)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_url=False, include_input=False)[:PROBLEMS_SHOWN]
        ]
        msg = f"{where}: {'; '.join(problems)}"
        raise Invalid(
            msg, code="args.invalid", fix=f"interlock actions {where}", details={"problems": problems}
        ) from None


def _texts(value: JsonValue, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place or "value", value
    elif isinstance(value, dict):
        for name, inner in value.items():
            here = f"{place}.{name}" if place else name
            if isinstance(inner, str):
                # A name such as `password` makes a secret of any value.
                yield here, f"{name}={inner}"
            yield from _texts(inner, here)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{index}]")
        words = [item for item in value if isinstance(item, str)]
        if len(words) > 1:
            yield place, " ".join(words)
