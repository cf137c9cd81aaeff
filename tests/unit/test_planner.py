"""A plan is made in time, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from interlock.core.action import Action, StepResult
from interlock.core.errors import Invalid, Transient
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step
from interlock.core.ports import StepContext
from interlock.engine.planner import Planner, validate
from interlock.engine.runner import in_threads
from interlock.lib.redact import Redactor
from interlock.web.model import RequestArgs

ANSWERS = threading.Event()


class Waits(Action):
    """Its facts are there when the event is set; a second ask finds a time-out of its own."""

    name = "test.waits"
    summary = "Waits."
    Args = Frozen
    own_timeout = False

    def __init__(self) -> None:
        """Without ports: it asks nobody."""

    def read_facts(self, args: Frozen) -> JsonObject:
        if self.own_timeout:
            raise TimeoutError
        ANSWERS.wait(30)
        return {}

    def plan(self, args: Frozen, facts: JsonObject) -> Plan:
        raise AssertionError((args, facts))

    def perform(self, step: Step, context: StepContext) -> StepResult:
        raise AssertionError((step, context))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    ANSWERS.clear()
    with ThreadPoolExecutor(1) as pool:
        yield pool
        ANSWERS.set()


async def test_facts_that_do_not_come_in_time_end_the_ask_and_nothing_was_done(threads: ThreadPoolExecutor) -> None:
    planner = Planner(lambda _: Waits(), Redactor(), in_threads(threads), facts_seconds=0.05)
    with pytest.raises(Transient) as caught:
        await planner.plan("test.waits", {})
    assert (caught.value.code, caught.value.effect_sent) == ("plan.slow", False)


async def test_a_time_out_inside_the_reading_is_not_taken_for_ours(threads: ThreadPoolExecutor) -> None:
    action = Waits()
    action.own_timeout = True
    planner = Planner(lambda _: action, Redactor(), in_threads(threads))
    with pytest.raises(TimeoutError):
        await planner.plan("test.waits", {})


class PlansSlowly(Waits):
    """Its facts are there at once, and its plan when the event is set."""

    def read_facts(self, args: Frozen) -> JsonObject:
        return {}

    def plan(self, args: Frozen, facts: JsonObject) -> Plan:
        ANSWERS.wait(30)
        raise AssertionError((args, facts))


async def test_a_plan_that_takes_long_to_make_keeps_nobody_else_waiting(threads: ThreadPoolExecutor) -> None:
    planner = Planner(lambda _: PlansSlowly(), Redactor(), in_threads(threads), facts_seconds=0.05)
    with pytest.raises(Transient) as caught:
        await planner.plan("test.waits", {})
    assert caught.value.code == "plan.slow"


def test_a_refused_argument_is_told_in_our_words_with_its_place() -> None:
    with pytest.raises(Invalid) as refused:
        validate(RequestArgs, {"url": "http://service.example/a/../b"}, "http.request")
    assert str(refused.value).startswith("http.request: url: character")
    assert "Value error" not in str(refused.value)
