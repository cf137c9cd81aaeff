"""The files by which nginx shares users say what the hash says, for every routing and from every routing before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from interlock.adapters.nginx_configuration import TENTH, Structure, structure_of
from interlock.core.traffic import WHOLE, Arm, Routing

FILES_MAX = 40


def routing(*parts: int, timeout_seconds: float = 15) -> Routing:
    arms = [Arm(name="v0", address="127.0.0.1:1", share=WHOLE - sum(parts))]
    arms += [Arm(name=f"v{n}", address=f"127.0.0.1:{n + 1}", share=part) for n, part in enumerate(parts, 1)]
    return Routing(workload="web", listen="127.0.0.1:80", arms=tuple(arms), timeout_seconds=timeout_seconds)


def arm_at(structure: Structure, files: frozenset[str], place: int) -> str:
    """As the configuration looks for it: the last file that is there decides, the stable arm where there is none."""
    part = max(each for each in structure.parts if each <= place)
    picked = 0
    for index, _ in enumerate(structure.routing.arms[1:], 1):
        if files & {f"{index}-all", f"{index}-{part // TENTH}xxx", f"{index}-{part:04d}"}:
            picked = index
    return structure.routing.arms[picked].name


def wanted_at(told: Routing, place: int) -> str:
    end = 0
    for arm in reversed(told.arms[1:]):
        end += arm.share
        if place < end:
            return arm.name
    return told.arms[0].name


shares = st.lists(st.integers(0, 3333), min_size=1, max_size=3)


@given(shares, st.integers(0, WHOLE - 1))
def test_every_place_on_the_line_has_the_arm_it_should(parts: list[int], place: int) -> None:
    told = routing(*parts)
    structure = structure_of(told)
    files = structure.files_for(told)
    assert files is not None
    assert len(files) <= FILES_MAX * len(parts)
    assert arm_at(structure, frozenset(files), place) == wanted_at(told, place)


@given(st.integers(0, 100), st.integers(0, 100))
def test_whole_percents_need_no_other_structure(one: int, other: int) -> None:
    before = structure_of(routing(one * 100))
    assert structure_of(routing(other * 100), before).digest == before.digest


@given(st.integers(0, WHOLE), st.integers(0, WHOLE), st.integers(0, WHOLE - 1))
def test_what_a_structure_says_of_another_routing_is_right_or_nothing(one: int, other: int, place: int) -> None:
    structure, told = structure_of(routing(one)), routing(other)
    files = structure.files_for(told)
    if files is not None:
        assert arm_at(structure, frozenset(files), place) == wanted_at(told, place)
    else:
        assert other % 100


@given(st.integers(0, WHOLE))
def test_going_back_can_always_be_said_at_once(share: int) -> None:
    before = structure_of(routing(share))
    alone = Routing(
        workload="web", listen="127.0.0.1:80", arms=(routing(0).arms[0].model_copy(update={"share": WHOLE}),)
    )
    assert before.files_for(alone) == ()
    assert structure_of(alone, before).digest != before.digest
    candidate = Arm(name="v1", address="127.0.0.1:2", share=WHOLE)
    assert before.files_for(Routing(workload="web", listen="127.0.0.1:80", arms=(candidate,))) == ("1-all",)


def test_another_timeout_is_another_structure_and_other_bounds_are_dropped_with_it() -> None:
    before = structure_of(routing(33))
    assert before.fine == (33,)
    assert structure_of(routing(5000), before).digest == before.digest
    after = structure_of(routing(5000, timeout_seconds=3), before)
    assert (after.digest == before.digest, after.fine) == (False, ())
