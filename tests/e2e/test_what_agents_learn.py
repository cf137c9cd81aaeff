"""An agent learns no secret through the back: plans, previews, other people's output, reasons, logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.resident import Resident, resident
from interlock.core.errors import Conflict, Denied, Invalid

VALUE = "API_TOKEN_VALUE_ABC"
AGENT = "helper"


@pytest.fixture(scope="module")
def team(postgres_endpoint: Any) -> Iterator[Resident]:
    """A resident process with the preset for small teams, and a file that holds a secret."""
    with resident(postgres_endpoint, "small-team") as made:
        made.data.mkdir(exist_ok=True)
        (made.data / ".env").write_text(f"TOKEN={VALUE}\n")
        yield made.start()


def test_a_proposal_to_write_a_secret_file_does_not_show_it_to_an_agent(team: Resident) -> None:
    ask = {"action": "file.write", "args": {"path": str(team.data / ".env"), "content": "x"}}
    proposal = team.ask("propose", AGENT, ask=ask)["proposal"]
    assert VALUE not in str(proposal)
    assert (proposal["decision"]["outcome"], proposal["discloses"]) == ("forbid", "secret")


def test_what_a_person_writes_to_a_secret_file_is_not_shown_to_an_agent(team: Resident) -> None:
    run = team.write(".env", f"TOKEN={VALUE}2\n", wait=5)
    for view in ("run", "why"):
        try:
            shown = team.ask("view", AGENT, name=view, args={"run": run["number"]})
        except Denied:
            continue
        assert VALUE not in str(shown["data"].get("plan"))
        assert VALUE not in str(shown["data"].get("run", {}))


def test_an_agent_does_not_hear_the_output_of_a_run_that_discloses_a_secret(team: Resident) -> None:
    ask = {"action": "command.exec", "args": {"argv": ["cat", str(team.data / ".env")]}, "confirmed": True}
    number = team.ask("submit", ask=ask, wait_seconds=0)["run"]["number"]
    with pytest.raises(Denied):
        team.ask("output", AGENT, run=number, follow=False)
    answer = team.ask("wait", AGENT, run=number, wait_seconds=5, stream=True)
    assert VALUE not in str(answer)


@pytest.mark.parametrize("field", ["reason", "key"])
def test_a_secret_in_what_goes_with_an_ask_is_refused_before_anything_is_recorded(team: Resident, field: str) -> None:
    before = team.view("runs", limit=1)["runs"]
    ask = {"action": "command.exec", "args": {"argv": ["uptime"]}, field: "password=" + "hunter2hunter2"}
    with pytest.raises(Invalid):
        team.ask("submit", ask=ask, wait_seconds=5)
    assert team.view("runs", limit=1)["runs"] == before


@pytest.mark.parametrize("field", ["undo_of", "retry_of"])
def test_a_client_does_not_say_what_its_run_takes_back(team: Resident, field: str) -> None:
    ask = {"action": "command.exec", "args": {"argv": ["uptime"]}, field: 1}
    with pytest.raises(Invalid):
        team.ask("submit", ask=ask, wait_seconds=5)


def test_a_yes_that_does_not_count_is_refused_and_not_recorded(team: Resident) -> None:
    run = team.write("a.txt", "x\n", acting_as=AGENT, wait=0)
    assert run["state"] == "waiting"
    with pytest.raises((Denied, Conflict)):
        team.ask("decide", AGENT, run=run["number"], verdict=True)
    assert team.view("run", run=run["number"])["approvals"] == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("file:/**", "file:/**"), ("file:/etc*", "file:/etc*"), ("file:/usr/share/**", "file:/usr/share/**")],
)
def test_a_freeze_covers_what_was_typed(team: Resident, typed: str, meant: str) -> None:
    team.submit("interlock.freeze", pattern=typed, reason="a test of patterns")
    assert meant in [freeze["pattern"] for freeze in team.view("freezes")["freezes"]]
    team.submit("interlock.unfreeze", pattern=typed)
    assert team.view("freezes")["freezes"] == []


@pytest.mark.parametrize("pattern", ["file:*", "file:/**", "unit:*", "*"])
def test_a_glass_is_never_broken_over_everything(team: Resident, pattern: str) -> None:
    with pytest.raises(Invalid):
        team.submit("interlock.break_glass", pattern=pattern, reason="a test of patterns")
