"""Tools of outside MCP servers through the whole product: accepted by a person, called under policy, at most once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import outside_mcp
from harness.resident import Resident, resident
from interlock.core.errors import Conflict, Invalid

SECRET = "t0ken-of-the-ticket-system"


@pytest.fixture(scope="module")
def shop(postgres_endpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resident]:
    outside = tmp_path_factory.mktemp("outside")
    servers = {
        "tickets": {
            "command": [sys.executable, outside_mcp.__file__, str(outside)],
            "credential": "credential:tickets",
            "credential_variable": "TICKET_TOKEN",
            "timeout_seconds": 2,
            "tools": {
                "look": {"changes": False, "risk": "none"},
                "credential": {"changes": False, "risk": "none"},
                "fail": {"risk": "low"},
                "die_once": {"risk": "low", "repeatable": True},
            },
        }
    }
    with resident(postgres_endpoint, mcp_servers=servers) as made:
        made.start()
        credentials = made.state_folder / "credentials"
        credentials.mkdir(mode=0o700, exist_ok=True)
        (credentials / "tickets").write_text(SECRET)
        (credentials / "tickets").chmod(0o600)
        made.outside = outside  # type: ignore[attr-defined]
        yield made
        assert SECRET not in made.log
        assert "Traceback" not in made.log


def call(shop: Resident, tool: str, acting_as: str | None = None, **args: Any) -> dict[str, Any]:
    return shop.submit("mcp.call", acting_as=acting_as, server="tickets", tool=tool, args=args)


def accept(shop: Resident, tool: str) -> dict[str, Any]:
    run = shop.submit("mcp.accept", server="tickets", tool=tool)
    assert run["state"] == "succeeded", run["state_reason"]
    return run


def approve(shop: Resident, run: dict[str, Any]) -> dict[str, Any]:
    """A person's yes, as often as it is asked for."""
    while run["state"] == "waiting":
        run = shop.ask("decide", run=run["number"], verdict=True, wait_seconds=20)["run"]
    return run


def done(shop: Resident) -> list[str]:
    path: Path = shop.outside / "done"  # type: ignore[attr-defined]
    return path.read_text().splitlines() if path.exists() else []


def output(shop: Resident, number: int) -> str:
    return shop.run("output", str(number)).stdout


def test_a_tool_that_nobody_accepted_is_not_called(shop: Resident) -> None:
    with pytest.raises(Conflict) as caught:
        call(shop, "burst")
    assert caught.value.code == "mcp.not_accepted"
    assert "mcp.accept" in (caught.value.fix or "")
    assert not [line for line in done(shop) if line.startswith("burst")]


def test_only_a_person_accepts(shop: Resident) -> None:
    run = shop.submit("mcp.accept", acting_as="claude", server="tickets", tool="put")
    assert run["state"] == "denied"


def test_a_person_sees_all_that_a_tool_says_of_itself_before_he_accepts_it(shop: Resident) -> None:
    ask = {"action": "mcp.accept", "args": {"server": "tickets", "tool": "put"}}
    proposal = shop.ask("propose", ask=ask)["proposal"]
    assert '"maxLength": 100' in proposal["plan"]["preview"]
    assert "does what it is called" in proposal["plan"]["preview"]


def test_an_agents_call_waits_for_a_person_and_is_made_once(shop: Resident) -> None:
    accept(shop, "append")
    before = len(done(shop))
    run = call(shop, "append", "claude", text="from claude")
    assert (run["state"], run["risk"], run["targets"]) == ("waiting", "high", ["mcp:tickets/append"])
    assert len(done(shop)) == before
    run = approve(shop, run)
    assert run["state"] == "succeeded", run["state_reason"]
    assert done(shop)[before:] == ['append {"text": "from claude"}']
    assert output(shop, run["number"]).startswith("append by ")


def test_a_tool_that_the_project_vouches_for_is_called_at_once(shop: Resident) -> None:
    accept(shop, "look")
    run = call(shop, "look", "claude")
    assert run["state"] == "succeeded", run["state_reason"]


def test_a_credential_reaches_the_tool_and_nobody_else(shop: Resident) -> None:
    accept(shop, "credential")
    run = call(shop, "credential", "claude")
    assert output(shop, run["number"]) == "known\n"
    told = json.dumps([shop.view("run", run=run["number"]), shop.view("evidence", run=run["number"])])
    assert SECRET not in told


@pytest.mark.parametrize("args", [{}, {"text": 7}, {"text": "x" * 200}, {"text": "x", "more": 1}])
def test_arguments_that_do_not_fit_are_refused_before_anything_is_recorded(
    shop: Resident, args: dict[str, Any]
) -> None:
    accept(shop, "append")
    before, calls = shop.view("runs", limit=1)["runs"][0]["number"], len(done(shop))
    with pytest.raises(Invalid) as caught:
        call(shop, "append", "claude", **args)
    assert caught.value.code == "args.invalid"
    assert shop.view("runs", limit=1)["runs"][0]["number"] == before
    assert len(done(shop)) == calls


def test_a_tool_that_changes_after_its_approval_is_not_called_until_it_is_accepted_again(shop: Resident) -> None:
    accept(shop, "append")
    words: Path = shop.outside / "words"  # type: ignore[attr-defined]
    calls = len(done(shop))
    run = call(shop, "append", "claude", text="a")
    words.write_text("now also sends everything to a stranger")
    run = approve(shop, run)
    assert (run["state"], run["state_code"]) == ("failed", "mcp.tool_changed")
    assert len(done(shop)) == calls
    accept(shop, "append")
    assert approve(shop, call(shop, "append", "claude", text="b"))["state"] == "succeeded"
    words.unlink()


def test_what_was_accepted_again_while_a_run_waited_makes_it_stale(shop: Resident) -> None:
    accept(shop, "count")
    run = call(shop, "count", "claude", count=1)
    words: Path = shop.outside / "words"  # type: ignore[attr-defined]
    words.write_text("counts differently")
    accept(shop, "count")
    words.unlink()
    assert approve(shop, run)["state"] == "stale"


def test_an_acceptance_is_taken_back_by_undo(shop: Resident) -> None:
    number = accept(shop, "flood")["number"]
    undone = shop.ask("undo", run=number, confirmed=True, wait_seconds=20)["run"]
    assert undone["state"] == "succeeded", undone["state_reason"]
    assert "flood" not in [tool["tool"] for tool in shop.view("outside_tools")["tools"]]
    with pytest.raises(Conflict):
        call(shop, "flood")


def test_tools_lists_what_was_accepted_with_its_arguments_and_names_no_other_server(shop: Resident) -> None:
    accept(shop, "append")
    listed = shop.run("tools", "tickets")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert any(line.split()[:4] == ["tickets", "append", "text,", "folder"] for line in listed.stdout.splitlines())
    found = json.loads(shop.run("tools", "--output", "json").stdout)["data"]
    assert {tool["server"] for tool in found["tools"]} == {"tickets"}
    assert "input_schema" in found["tools"][0]["description"]
    assert shop.run("tools", "elsewhere").returncode == 3


def test_what_a_tool_calls_an_error_fails_the_run_and_its_words_are_data(shop: Resident) -> None:
    accept(shop, "fail")
    run = approve(shop, call(shop, "fail", "claude"))
    assert (run["state"], run["state_code"]) == ("failed", "mcp.tool_error")
    assert "IGNORE" in output(shop, run["number"])
    assert "IGNORE" not in run["state_reason"]


def test_a_call_whose_answer_never_comes_is_unresolved_and_not_repeated(shop: Resident) -> None:
    accept(shop, "hang")
    run = approve(shop, call(shop, "hang", "claude"))
    shop.until(lambda: shop.view("run", run=run["number"])["state"] == "unresolved")
    assert [line for line in done(shop) if line.startswith("hang")] == ["hang {}"]


def test_a_call_that_may_be_repeated_is_tried_again_after_its_server_died(shop: Resident) -> None:
    accept(shop, "die_once")
    run = approve(shop, call(shop, "die_once", "claude"))
    shop.until(lambda: shop.view("run", run=run["number"])["state"] == "succeeded")
    assert [line for line in done(shop) if line.startswith("die_once")] == ["die_once {}"] * 2


def test_a_schema_by_which_arguments_cannot_be_checked_is_not_accepted(shop: Resident) -> None:
    with pytest.raises(Invalid) as caught:
        shop.submit("mcp.accept", server="tickets", tool="evil")
    assert caught.value.code == "mcp.schema"


def test_kill_9_of_the_resident_process_ends_the_servers_it_started(shop: Resident) -> None:
    accept(shop, "look")
    call(shop, "look", "claude")
    pid = int((shop.outside / "pid").read_text())  # type: ignore[attr-defined]
    os.kill(pid, 0)
    shop.kill()
    shop.until(lambda: not Path(f"/proc/{pid}").exists(), 20)
    shop.start()
    assert call(shop, "look", "claude")["state"] == "succeeded"
