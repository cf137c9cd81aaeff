"""A day at the command line: look, ask, confirm, approve, deny, undo, freeze, and what comes back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def shop(make_shop: Callable[[], Any]) -> Any:
    """One project, whose resident process the first verb starts."""
    made = make_shop()
    made.set_up()
    return made


def _ask(shop: Any, path: str, *options: str, code: int | None = 8) -> dict[str, Any]:
    envelope: dict[str, Any] = shop.json("exec", *options, "--", "touch", str(shop.folder / "data" / path), code=code)
    return envelope


def test_what_only_looks_runs_at_once_and_prints_what_the_program_printed(shop: Any) -> None:
    done = shop.run("exec", "--", "uptime")
    assert done.returncode == 0
    assert "load average" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_the_answer_for_programs_is_one_envelope(shop: Any) -> None:
    envelope = shop.json("exec", "--", "uptime")
    assert envelope.keys() == {"ok", "status", "data", "warnings", "next"}
    assert envelope["ok"] is True
    assert envelope["status"] == "succeeded"
    assert "load average" in envelope["data"]["output"]
    done = shop.run("exec", "--output", "yaml", "--", "uptime")
    assert yaml.safe_load(done.stdout)["status"] == "succeeded"


def test_status_says_the_mode_and_a_bare_word_is_status(shop: Any) -> None:
    assert shop.json("status")["data"]["resident"]["mode"] == "advisory"
    assert shop.run().stdout.startswith("advisory")


def test_a_change_without_a_terminal_does_nothing_and_says_how_to_go_on(shop: Any) -> None:
    path = shop.folder / "data" / "unconfirmed"
    done = shop.run("exec", "--", "touch", str(path))
    assert done.returncode == 8
    assert not path.exists()
    assert f"touch {path}" in done.stdout
    command = re.search(r"interlock (exec --confirm=[0-9a-f]{12} -- .*)", done.stderr)
    assert command is not None
    assert shop.run(*command[1].split()).returncode == 0
    assert path.exists()


def test_an_environment_variable_never_confirms(shop: Any) -> None:
    path = str(shop.folder / "data" / "by-environment")
    for name in ("INTERLOCK_CONFIRM", "INTERLOCK_YES", "CONFIRM", "CI"):
        assert shop.run("exec", "--", "touch", path, **{name: "1"}).returncode == 8
    assert not Path(path).exists()


def test_a_digest_of_another_plan_does_nothing(shop: Any) -> None:
    envelope = _ask(shop, "stale", "--confirm=000000000000", code=5)
    assert envelope["status"] == "stale"
    assert not (shop.folder / "data" / "stale").exists()


def test_the_same_key_is_the_same_run(shop: Any) -> None:
    first = _ask(shop, "keyed", "--confirm", "--key", "k1", code=0)["data"]["run"]["number"]
    assert _ask(shop, "keyed", "--confirm", "--key", "k1", code=0)["data"]["run"]["number"] == first
    assert _ask(shop, "other", "--confirm", "--key", "k1", code=5)["status"] == "conflict"


def test_an_agents_change_waits_until_a_person_approves_it(shop: Any) -> None:
    path = shop.folder / "data" / "by-agent"
    envelope = _ask(shop, "by-agent", "--as", "helper", "--confirm", "--reason", "asked to")
    number = str(envelope["data"]["run"]["number"])
    assert envelope["status"] == "waiting"
    assert not path.exists()
    assert shop.json("approve", number, "--as", "helper", "--yes", code=4)["status"] == "denied"
    refused = shop.run("approve", number)
    assert refused.returncode == 8
    assert f"interlock approve {number} --confirm=" in refused.stderr
    assert shop.json("approve", number, "--confirm=000000", code=5)["status"] == "stale"
    assert shop.json("approve", number, "--yes", "--wait")["status"] == "succeeded"
    assert path.exists()
    assert shop.json("approve", number, "--yes", code=5)["status"] == "conflict"


def test_a_denied_run_is_denied_for_whoever_asks_what_became_of_it(shop: Any) -> None:
    number = str(_ask(shop, "denied", "--as", "helper", "--confirm")["data"]["run"]["number"])
    assert shop.run("deny", number).returncode == 2
    denied = shop.json("deny", number, "--reason", "not on a Friday")
    assert denied["status"] == "denied"
    told = shop.run("why", number).stdout
    assert ("not on a Friday" in told, "waits for an approval" in told) == (True, False)
    again = _ask(shop, "denied", "--as", "helper", "--confirm", code=4)
    assert again["status"] == "denied"


def test_an_agents_shell_is_taken_for_the_agent_and_told_so(shop: Any) -> None:
    path = str(shop.folder / "data" / "from-shell")
    done = shop.run("exec", "--confirm", "--", "touch", path, CLAUDECODE="1")
    assert done.returncode == 8
    assert "acting as agent:claude" in done.stderr
    assert not Path(path).exists()
    number = re.search(r"Run (\d+) waits", done.stderr)
    assert number is not None
    assert shop.run("approve", number[1], "--yes", CLAUDECODE="1").returncode == 4
    assert shop.run("cancel", number[1]).returncode == 0


@pytest.mark.parametrize("name", ["person:root", "person:bob"])
def test_nobody_acts_as_a_person(shop: Any, name: str) -> None:
    assert shop.json("exec", "--as", name, "--", "uptime", code=2)["data"]["error"]["code"] == "actor.as_person"


def test_a_run_that_succeeded_can_be_taken_back(shop: Any) -> None:
    path = shop.folder / "data" / "motd"
    path.write_text("closed\n")
    words = ("do", "file.write", "--arg", f"path={path}", "--arg", "content=open")
    shown = shop.run(*words)
    assert "-closed" in shown.stdout
    assert "+open" in shown.stdout
    number = str(shop.json(*words, "--confirm")["data"]["run"]["number"])
    assert path.read_text() == "open"
    assert shop.run("undo", number).returncode == 8
    assert shop.json("undo", number, "--confirm")["status"] == "succeeded"
    assert path.read_text() == "closed\n"


def test_arguments_may_come_from_files(shop: Any) -> None:
    (shop.folder / "text").write_text("from a file\n")
    path = shop.folder / "data" / "from-file"
    shop.json("do", "file.write", "--arg", f"path={path}", "--arg", "content=@text", "--confirm")
    assert path.read_text() == "from a file\n"
    (shop.folder / "args.json").write_text(json.dumps({"path": str(path), "content": "5"}))
    shop.json("do", "file.write", "--args-file", "args.json", "--confirm")
    assert path.read_text() == "5"


def test_a_read_whose_answer_is_no_succeeded_and_scripts_hear_the_no(shop: Any) -> None:
    file = shop.folder / "data" / "answers"
    file.write_text("one\n")
    done = shop.json("exec", "--", "grep", "two", str(file), code=1)
    assert done["data"]["run"]["state"] == "succeeded"
    assert done["data"]["run"]["exit_code"] == 1
    assert shop.json("exec", "--", "grep", "-Z", "two", str(file) + "-missing", code=3)["ok"] is False


def test_a_program_that_fails_fails_with_what_it_printed(shop: Any) -> None:
    done = shop.run("exec", "--", "ls", str(shop.folder / "data" / "nothing-here"))
    assert done.returncode in {1, 3}
    assert "nothing-here" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", "99999"), 3),
        (("why", "99999"), 3),
        (("do", "no.such"), 3),
        (("do", "file.write", "--arg", "path"), 2),
        (("do", "file.write", "--arg", "bogus=1"), 2),
        (("log", "--state", "bogus"), 2),
        (("resolve", "1", "skip"), 5),
        (("exec", "--", "sudo", "id"), 4),
        (("hold", "unit:x", "--", "no-such-program-here"), 3),
    ],
)
def test_a_wrong_ask_has_its_exit_code_and_a_way_on(shop: Any, words: tuple[str, ...], code: int) -> None:
    envelope = shop.json(*words, code=code)
    assert envelope["ok"] is False
    assert envelope["next"]
    done = shop.run(*words)
    assert done.returncode == code
    assert done.stdout == ""
    assert "→" in done.stderr


def test_the_log_shows_who_asked_for_what(shop: Any) -> None:
    shop.run("exec", "--as", "helper", "--", "uptime")
    newest = shop.json("log", "--limit", "1")["data"]["runs"][0]
    assert newest["actor_id"] == "agent:helper"
    assert shop.json("log", "--actor", "agent:helper", "--state", "succeeded", "--limit", "1")["data"]["runs"] == [
        newest
    ]
    assert str(newest["number"]) in shop.run("log").stdout


def test_a_run_is_shown_with_its_evidence(shop: Any) -> None:
    number = str(shop.json("exec", "--", "uptime")["data"]["run"]["number"])
    shown = shop.run("show", number).stdout
    for kind in ("asked", "decided", "started", "done", "closed"):
        assert kind in shown
    output = shop.run("output", number)
    assert "load average" in output.stdout
    assert shop.run("output", number, "--tail-bytes", "5").stdout == output.stdout[-5:]


def test_a_freeze_stops_changes_until_it_is_lifted(shop: Any) -> None:
    shop.json("freeze", "--reason", "release weekend", "--confirm")
    try:
        assert "release weekend" in shop.run("status").stdout
        frozen = _ask(shop, "frozen", code=4)
        assert frozen["status"] == "denied"
        assert re.search(r"frozen by person:\S+: release weekend", frozen["data"]["run"]["state_reason"])
        assert shop.run("exec", "--", "uptime").returncode == 0
    finally:
        shop.json("unfreeze", "--confirm")
    assert _ask(shop, "frozen")["status"] == "proposed"


def test_paused_agents_look_and_change_nothing(shop: Any) -> None:
    shop.json("pause-agents", "--reason", "odd", "--confirm")
    try:
        assert shop.run("exec", "--as", "helper", "--", "uptime").returncode == 0
        paused = _ask(shop, "paused", "--as", "helper", "--confirm", code=4)
        assert paused["status"] == "denied"
        assert re.search(r"paused by person:\S+: odd", paused["data"]["run"]["state_reason"])
        assert not any("approval" in advice for advice in paused["next"]), "nothing waits"
    finally:
        shop.json("resume-agents", "--confirm")


def test_an_adopted_script_is_called_by_its_name(shop: Any) -> None:
    script = shop.folder / "nightly.sh"
    script.write_text("#!/bin/sh\necho nightly\n")
    script.chmod(0o755)
    shop.json("adopt", "nightly.sh", "--name", "report.nightly", "--reads-only", "--confirm")
    assert shop.run("exec", "--confirm", "--", "report.nightly").stdout == "nightly\n"
    script.write_text("#!/bin/sh\necho changed\n")
    assert "changed" not in shop.run("exec", "--confirm", "--", "report.nightly").stdout


def test_a_person_on_a_terminal_is_asked_and_no_is_the_default(shop: Any) -> None:
    path = shop.folder / "data" / "asked"
    code, seen = shop.on_terminal("exec", "--", "touch", str(path), answers={"[y/N]": ""})
    assert code == 8
    assert "digest" in seen
    assert not path.exists()
    code, seen = shop.on_terminal("exec", "--", "touch", str(path), answers={"[y/N]": "y"})
    assert code == 0, seen
    assert path.exists()


def test_an_agents_shell_is_never_asked_even_on_a_terminal(shop: Any) -> None:
    path = shop.folder / "data" / "agent-terminal"
    code, seen = shop.on_terminal("exec", "--", "touch", str(path), answers={"[y/N]": "y"}, CLAUDECODE="1")
    assert code == 8
    assert "[y/N]" not in seen
    assert not path.exists()


def test_a_high_risk_change_of_ones_own_needs_more_than_a_habit(shop: Any) -> None:
    folder = shop.folder / "data" / "old"
    folder.mkdir()
    words = ("exec", "--", "rm", "-r", str(folder))
    code, seen = shop.on_terminal(*words, answers={"[y/N]": "y", "High risk": "y"})
    assert code == 8
    assert folder.exists()
    number = re.findall(r"Run (\d+) waits", seen)[-1]
    assert shop.run("cancel", number).returncode == 0
    code, seen = shop.on_terminal(*words, answers={"[y/N]": "y", "High risk": str(folder)})
    assert code == 0, seen
    assert not folder.exists()


@pytest.mark.parametrize("columns", ["40", "80"])
def test_every_screen_fits_a_terminal_of_that_width(shop: Any, columns: str) -> None:
    number = str(_ask(shop, "width", "--confirm", code=0)["data"]["run"]["number"])
    for words in (
        ("status",),
        ("log",),
        ("show", number),
        ("why", number),
        ("pending",),
        ("policy", "check"),
        ("check",),
    ):
        _, seen = shop.on_terminal(*words, answers={}, COLUMNS=columns, NO_COLOR="1")
        assert "\x1b" not in seen
        prose = [line for line in seen.splitlines() if not line.startswith(("→", "  interlock "))]
        assert max(len(line) for line in prose) <= int(columns), seen


def test_policies_are_listed_tested_and_explained(shop: Any) -> None:
    assert "invariant" in shop.run("policy", "check").stdout
    assert shop.run("policy", "test").returncode == 0
    told = shop.json("policy", "explain", "--as", "helper", "--", "touch", str(shop.folder / "data" / "x"), code=None)
    assert told["data"]["outcome"] == "needs_approval"


def test_the_evidence_verifies_and_is_exported_for_others(shop: Any) -> None:
    assert shop.json("audit", "verify")["status"] == "intact"
    checkpoint = shop.run("audit", "show").stdout
    (shop.folder / "checkpoint.txt").write_text(checkpoint)
    assert shop.json("audit", "verify", "--since", "checkpoint.txt")["status"] == "intact"
    exported = shop.json("audit", "export", "evidence.tar.gz")["data"]
    assert shop.json("audit", "verify", "evidence.tar.gz")["status"] == "intact"
    archive = shop.folder / "evidence.tar.gz"
    assert archive.stat().st_size == exported["bytes"]
    assert archive.stat().st_mode & 0o777 == 0o600
    number = str(shop.json("exec", "--", "uptime")["data"]["run"]["number"])
    (shop.folder / "receipt.json").write_text(shop.run("audit", "receipt", number).stdout)
    assert shop.json("audit", "verify", "--since", "receipt.json")["status"] == "intact"
    assert not list(shop.folder.glob(".interlock-*.part"))


def test_prose_comes_in_the_readers_language_and_data_does_not(shop: Any) -> None:
    chinese = shop.run("status", LANG="zh_CN.UTF-8").stdout
    assert re.search("[一-鿿]", chinese)
    assert shop.json("status", LANG="zh_TW.UTF-8").keys() == {"ok", "status", "data", "warnings", "next"}
    assert "advisory" in chinese


def test_the_output_of_a_run_survives_a_reader_that_goes_away(shop: Any) -> None:
    process = shop.start("exec", "--", "uptime")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    process.wait(60)
    assert "Traceback" not in told


def test_asking_costs_little(shop: Any) -> None:
    """0.35 s of processor time is what was promised; a machine may be twice as slow as the one it was measured on."""
    shop.run("exec", "--", "uptime")
    before = os.times()
    for _ in range(3):
        assert shop.run("exec", "--", "uptime").returncode == 0
    after = os.times()
    spent = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    assert spent / 3 < 0.7
