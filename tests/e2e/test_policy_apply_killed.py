"""Replay and apply through the whole product, killed in the middle, and started again on a sound set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from harness.engine import PERMISSIVE
from harness.resident import Resident, resident

NO_MAIL = """
@id("team.no-mail") @reason("mail is never touched") @risk("low") @effect("forbid")
forbid (principal, action == Action::"file.write", resource is Plan)
when { resource.changes && resource.targets.contains("file:DATA/mail") };
"""
LOCK = "select pg_advisory_lock(hashtextextended('interlock.policy_in_force', 0))"
WAITED_FOR = "select count(*) from pg_locks where locktype = 'advisory' and not granted"


@pytest.fixture
def served(postgres_endpoint: Any) -> Iterator[Resident]:
    with resident(postgres_endpoint, "permissive") as made:
        yield made.start()
        assert "request.bug" not in made.log


def _propose(served: Resident) -> None:
    text = PERMISSIVE + NO_MAIL.replace("DATA", str(served.data.resolve()))
    (served.folder / "project" / "policies" / "test.cedar").write_text(text, encoding="utf-8")


def _json(served: Resident, *words: str, code: int) -> dict[str, Any]:
    done = served.run("policy", words[0], "--output", "json", *words[1:])
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_replay_finds_what_would_differ_and_applying_brings_it_about(served: Resident) -> None:
    for name in ("mail", "mail", "other"):
        assert served.write(name, "hi\n")["state"] == "succeeded"
    same = _json(served, "replay", code=0)
    assert (same["data"]["decided"], same["data"]["different"]) == (3, 0)
    _propose(served)
    found = _json(served, "replay", "--since", "1h", code=1)["data"]
    (group,) = found["differences"]
    assert (group["policy"], group["count"], group["from"], group["to"]) == ("team.no-mail", 2, "permit", "forbid")
    told = served.run("policy", "replay")
    assert told.returncode == 1
    assert "team.no-mail" in told.stdout
    assert "permitted → " in told.stdout
    folder = served.folder / "bad"
    folder.mkdir()
    (folder / "x.cedar").write_text("\n@id(1) nonsense;\n", encoding="utf-8")
    refused = _json(served, "replay", "--policies", str(folder), code=2)
    assert f"{folder}/x.cedar:2" in json.dumps(refused)
    assert served.write("mail", "still\n")["state"] == "succeeded", "a replay puts nothing in force"
    shown = served.run("policy", "apply", "--replay", "1h")
    assert "of 4 Runs 3 would be answered otherwise" in shown.stdout, shown.stdout + shown.stderr
    applied = served.run("policy", "apply", "--confirm", "--reason", "mail is not ours")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert served.write("mail", "no\n")["state"] == "denied"
    assert _json(served, "check", code=0)["data"]["pinned"] is True


def test_a_kill_in_the_middle_of_an_apply_leaves_a_sound_set_and_the_run_is_finished(served: Resident) -> None:
    assert served.submit("policy.apply")["state"] == "succeeded"
    _propose(served)
    with psycopg.connect(served.environment["INTERLOCK_DATABASE_OWNER_URL"], autocommit=True) as held:
        held.execute(LOCK)
        number = served.submit("policy.apply", wait=0.0)["number"]

        def is_waited_for() -> bool:
            row = held.execute(WAITED_FOR).fetchone()
            return row is not None and row[0] > 0

        served.until(is_waited_for)
        served.kill()
        served.start()
        assert served.write("mail", "before\n")["state"] == "succeeded", "the set before is in force"
    assert served.ask("wait", run=number, wait_seconds=30)["run"]["state"] == "succeeded"
    assert served.write("mail", "after\n")["state"] == "denied"
    served.kill()
    (served.folder / "project" / "policies" / "test.cedar").write_text("// nothing\n", encoding="utf-8")
    served.start()
    assert served.write("mail", "after\n")["state"] == "denied", "a start uses the set in force"
    undone = served.ask("undo", run=number, confirmed=True, wait_seconds=20)["run"]
    assert undone["state"] == "succeeded"
    assert served.write("mail", "again\n")["state"] == "succeeded"
