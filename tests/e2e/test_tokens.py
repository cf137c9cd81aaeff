"""Tokens from their making to their end: by the command line, presented at the socket, kept to codes and scopes."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from typing import Any

import pytest

from harness.resident import RawLine, Resident, Stranger, resident
from interlock.core.errors import Denied, InterlockError
from interlock.core.token import WrittenToken
from interlock.interfaces.local.client import Connection

ME = pwd.getpwuid(os.geteuid()).pw_name
NOBODY_HERE = 54_321
PROJECT: dict[str, Any] = {
    "people": {
        "ann": {"user": ME, "roles": ["operator"]},
        "bob": {"roles": ["operator"]},
        "vera": {"roles": ["viewer"]},
    },
    "agents": {"claude": {"on_behalf_of": "ann"}, "scout": {"on_behalf_of": "vera"}},
    "services": {"deploy": {"roles": ["deployer"]}},
    "roles": {"deployer": {"codes": ["run:file.*", "view:run", "view:runs", "view:tokens"]}},
}


@pytest.fixture(scope="module")
def served(postgres_endpoint: Any) -> Iterator[Resident]:
    with resident(postgres_endpoint, open_to_all=True, **PROJECT) as made:
        yield made.start()
        assert "request.bug" not in made.log


def create(served: Resident, name: str, *words: str) -> str:
    """A token, as a program gets it."""
    done = served.run("tokens", "create", name, *words, "--confirm", "--output", "json")
    answer = json.loads(done.stdout)
    run = answer["data"]["run"]
    if run["state"] == "waiting":
        served.ask("decide", run=run["number"], verdict=True, wait_seconds=10)
    assert served.ask("wait", run=run["number"], wait_seconds=10)["run"]["state"] == "succeeded", done.stdout
    text: str = answer["data"]["token"]
    assert text.startswith(f"ilk_{answer['data']['id']}_")
    assert "shown once" in " ".join(answer["warnings"])
    return text


def call(served: Resident, token: str, method: str, acting_as: str | None = None, **params: Any) -> dict[str, Any]:
    with Connection(served.door, trusted_uids=frozenset({os.geteuid()})) as connection:
        found: dict[str, Any] = connection.call(method, params, token=token, acting_as=acting_as)
        return found


def refusal(served: Resident, token: str, method: str = "hello", acting_as: str | None = None, **params: Any) -> Any:
    with pytest.raises(InterlockError) as caught:
        call(served, token, method, acting_as, **params)
    return caught.value


def write(served: Resident, token: str, name: str, acting_as: str | None = None) -> dict[str, Any]:
    ask = {"action": "file.write", "args": {"path": str(served.data / name), "content": "x\n"}, "confirmed": True}
    run: dict[str, Any] = call(served, token, "submit", acting_as, ask=ask, wait_seconds=10)["run"]
    return run


def view(served: Resident, token: str, name: str, **args: Any) -> dict[str, Any]:
    data: dict[str, Any] = call(served, token, "view", name=name, args=args)["data"]
    return data


def test_the_bearer_of_a_token_is_its_actor_and_evidence_says_by_which_token_he_came(served: Resident) -> None:
    token = create(served, "ci", "--actor", "service:deploy")
    identity = token.split("_")[1]
    actor = call(served, token, "hello")["actor"]
    assert (actor["kind"], actor["name"], actor["roles"], actor["via"]) == ("service", "deploy", ["deployer"], identity)
    run = write(served, token, "ci.txt")
    assert run["state"] == "waiting", "small-team lets a person say yes to a service's change"
    assert served.ask("decide", run=run["number"], verdict=True, wait_seconds=10)["run"]["state"] == "succeeded"
    rows = served.view("evidence", run=run["number"])["rows"]
    asked = rows[0]["line"]["data"]
    assert (asked["actor"], asked["via"]) == ("service:deploy", identity)
    tokens = served.view("tokens", actor="service:deploy")["tokens"]
    (listed,) = [each for each in tokens if each["id"] == identity]
    assert (listed["state"], listed["created_by"]) == ("good", "person:ann")
    assert listed["last_used_at"].endswith(":00:00+00:00")


def test_a_secret_is_nowhere_but_with_its_bearer(served: Resident) -> None:
    token = create(served, "kept", "--actor", "service:deploy")
    secret = token.rpartition("_")[2] if "_" not in token.split("_", 2)[2] else token.split("_", 2)[2]
    told = [served.log, json.dumps(served.view("tokens", state="all")), json.dumps(served.view("actors"))]
    for row in served.view("runs", limit=50)["runs"]:
        told += [
            json.dumps(served.view("run", run=row["number"])),
            json.dumps(served.view("evidence", run=row["number"])),
        ]
    assert not any(secret in text for text in told)
    assert not any('"sha256"' in text or '"hash"' in text for text in told[1:3])


def test_what_is_revoked_opens_nothing_any_more_and_is_told_like_what_never_was(served: Resident) -> None:
    token = create(served, "short", "--actor", "service:deploy", "--days", "1")
    assert call(served, token, "hello")["actor"]["name"] == "deploy"
    done = served.run("tokens", "revoke", "short", "--confirm", "--reason", "it was in a log")
    assert done.returncode == 0, done.stderr
    told = refusal(served, token).to_json()
    assert (told["kind"], told["code"]) == ("denied", "token.refused")
    unknown = WrittenToken("a" * 12, "x" * 43).text
    for other in (
        unknown,
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        "nonsense",
        "",
        "ilk_",
        "ilk_" + "x" * 5000,
    ):
        assert refusal(served, other).to_json() == told
    listed = {each["name"]: each["state"] for each in served.view("tokens", state="all")["tokens"]}
    assert listed["short"] == "revoked"
    assert served.run("tokens", "revoke", "short", "--confirm").returncode != 0


def test_a_token_that_is_none_is_never_taken_for_the_account(served: Resident) -> None:
    with RawLine(served.door) as line:
        for wrong in (None, 7, True, [], {"id": 1}):
            answer = line.ask({"id": 1, "method": "hello", "params": {}, "token": wrong})
            assert answer is not None
            assert answer["error"]["code"] == "token.refused"
        assert line.ask({"id": 2, "method": "hello", "params": {}})["result"]["actor"]["name"] == "ann"  # type: ignore[index]


def test_scopes_narrow_what_a_person_may_do_and_the_missing_code_is_named(served: Resident) -> None:
    token = create(served, "phone", "--scope", "view:runs", "--scope", "approve:low")
    assert view(served, token, "runs")["runs"]
    with pytest.raises(Denied, match="view:status"):
        view(served, token, "status")
    run = write(served, token, "no.txt")
    assert (run["state"], run["state_code"]) == ("denied", "denied.policy")
    assert "run:file.write" in run["state_reason"]
    assert run["plan"]["blanked"], "a refusal shows nothing of what the plan read"
    assert not (served.data / "no.txt").exists()
    ask = {"action": "file.write", "args": {"path": str(served.data / "no.txt"), "content": "x\n"}}
    assert call(served, token, "propose", ask=ask)["proposal"]["plan"]["blanked"]
    for method in ("policy_check", "policy_test", "check", "audit_verify", "audit_export"):
        assert refusal(served, token, method).code in {"code.missing", "view.denied"}
    explained = served.ask("policy_explain", run=run["number"])["explanation"]
    assert ["with the code run:file.write"] in [change["what"] for change in explained["changes"]] or any(
        "with the code run:file.write" in change["what"] for change in explained["changes"]
    )


def test_approving_takes_the_code_for_that_risk(served: Resident) -> None:
    low = create(served, "bob-low", "--actor", "person:bob", "--scope", "approve:high", "--scope", "view:*")
    every = create(served, "bob-all", "--actor", "person:bob", "--scope", "approve:*")
    number = served.ask(
        "submit",
        "claude",
        ask={"action": "file.write", "args": {"path": str(served.data / "a.txt"), "content": "x\n"}, "confirmed": True},
    )["run"]["number"]
    refused = refusal(served, low, "decide", run=number, verdict=True)
    assert refused.code == "code.missing"
    assert "approve:" in refused.message
    assert refusal(served, low, "cancel", run=number).code == "code.missing"
    assert call(served, every, "decide", run=number, verdict=True, wait_seconds=10)["run"]["state"] == "succeeded"


def test_whatever_can_say_yes_to_everything_for_a_person_is_a_high_risk(served: Resident) -> None:
    found = {}
    for scopes in ([], ["*"], ["view:*", "approve:*"], ["approve:high"], ["approve:low"], ["run:*", "view:*"]):
        for kind in ("person:bob", "service:deploy"):
            args = {"id": "d" * 12, "name": "more", "actor": kind, "hash": "0" * 64, "scopes": scopes}
            proposal = served.ask("propose", ask={"action": "token.create", "args": args})["proposal"]
            found[kind, *scopes] = proposal["risk"]
    assert {key for key, risk in found.items() if risk == "high"} == {
        ("person:bob",),
        ("person:bob", "*"),
        ("person:bob", "view:*", "approve:*"),
        ("person:bob", "approve:high"),
    }


def test_a_role_with_codes_binds_a_person_and_the_agents_that_work_for_him(served: Resident) -> None:
    vera = create(served, "vera", "--actor", "person:vera")
    assert view(served, vera, "people")["you"]["name"] == "vera"
    assert write(served, vera, "vera.txt")["state"] == "denied"
    assert write(served, vera, "vera.txt", "scout")["state"] == "denied"
    assert not (served.data / "vera.txt").exists()
    assert refusal(served, vera, acting_as="claude").code == "actor.as_other"


def test_nobody_makes_a_token_by_a_token_or_as_an_agent(served: Resident) -> None:
    token = create(served, "own")
    args = {"id": "b" * 12, "name": "more", "actor": "service:deploy", "hash": "0" * 64, "scopes": ["view:*"]}
    ask = {"action": "token.create", "args": args, "confirmed": True}
    assert call(served, token, "submit", ask=ask)["run"]["state"] == "denied"
    assert served.ask("submit", "claude", ask={**ask, "args": {**args, "id": "c" * 12}})["run"]["state"] == "denied"
    assert not [each for each in served.view("tokens", state="all")["tokens"] if each["name"] == "more"]


def test_a_token_never_stands_in_for_the_account_that_runs_interlock(served: Resident) -> None:
    token = create(served, "ops")
    for method in ("stop", "reload", "backup"):
        assert refusal(served, token, method).code == "operator.only"
    assert call(served, token, "hello")["mode"] == "enforced"


def test_a_token_for_somebody_who_is_not_declared_is_not_made(served: Resident) -> None:
    done = served.run("tokens", "create", "x", "--actor", "service:ghost", "--confirm", "--output", "json")
    assert json.loads(done.stdout)["data"]["error"]["code"] == "actor.undeclared"
    done = served.run(
        "tokens", "create", "x", "--actor", "service:deploy", "--scope", "fly:*", "--confirm", "-o", "json"
    )
    assert json.loads(done.stdout)["data"]["error"]["code"] == "args.invalid"


def test_without_a_terminal_the_plan_is_shown_first_and_the_next_command_works(served: Resident) -> None:
    done = served.run("tokens", "create", "ask first", "--actor", "service:deploy", "--output", "json")
    assert json.loads(done.stdout)["data"]["error"]["code"] == "args.invalid"
    done = served.run("tokens", "create", "first", "--actor", "service:deploy", "--output", "json")
    answer = json.loads(done.stdout)
    assert answer["status"] == "proposed"
    assert "token" not in answer["data"]
    assert answer["next"] == ["interlock tokens create first --actor service:deploy --days 90 --confirm"]
    shown = served.run(*answer["next"][0].split()[1:])
    assert WrittenToken(*shown.stdout.strip().split("_", 2)[1:]).text == shown.stdout.strip()
    listed = served.run("tokens", "list").stdout
    assert "first" in listed
    assert shown.stdout.strip() not in listed
    assert "service:deploy" in served.run("actors").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other accounts, which only root may")
def test_an_account_that_is_nobody_here_may_present_a_token_and_nothing_else(served: Resident) -> None:
    token = create(served, "elsewhere", "--actor", "service:deploy")
    served.door.chmod(0o666)
    served.door.parent.chmod(0o711)
    stranger = Stranger(NOBODY_HERE, served.door)
    try:
        hello = {"id": 1, "method": "hello", "params": {}}
        with_token, again = stranger.ask({**hello, "token": token}, {**hello, "id": 2, "token": token})
        assert with_token["result"]["actor"]["name"] == again["result"]["actor"]["name"] == "deploy"
        with_token, without = stranger.ask({**hello, "token": token}, hello)
        assert without["error"]["code"] == "actor.unknown"
        assert stranger.ask({**hello, "token": "ilk_x"})[0]["error"]["code"] == "token.refused"
    finally:
        stranger.close()
