"""Who speaks at the door is who the kernel says, over one socket that every account of the machine may reach."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from harness.resident import RawLine, Resident, Stranger, resident

NAMELESS = 54_321

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other accounts, which only root may")


@dataclass
class Machine:
    """A resident process of root, and other accounts of the machine, each with a line of its own to the door."""

    served: Resident
    ann: Stranger
    bob: Stranger
    agent: Stranger
    unknown: Stranger
    nameless: Stranger

    def run(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.ann.call("view", name="run", args={"run": number})["result"]["data"]
        return found

    def write(self, who: Stranger, name: str, acting_as: str | None = None) -> dict[str, Any]:
        """Ask for a file; the whole frame that comes back."""
        path = str(self.served.data / name)
        ask = {"action": "file.write", "args": {"path": path, "content": "x\n"}, "confirmed": True}
        return who.call("submit", acting_as, ask=ask, wait_seconds=10)

    def waiting(self, who: Stranger, name: str, acting_as: str | None = None) -> int:
        """The number of a Run that waits for somebody."""
        run = self.write(who, name, acting_as)["result"]["run"]
        assert run["state"] == "waiting", run
        return int(run["number"])

    @staticmethod
    def decide(who: Stranger, number: int, acting_as: str | None = None, **params: Any) -> dict[str, Any]:
        return who.call("decide", acting_as, run=number, verdict=True, wait_seconds=10, **params)


def _ordinary_accounts() -> list[pwd.struct_passwd]:
    """Accounts that every machine has; nobody has to be added."""
    found = {user.pw_uid: user for user in pwd.getpwall() if user.pw_uid != 0 and user.pw_gid != 0}
    return list(found.values())


@pytest.fixture(scope="module")
def machine(postgres_endpoint: Any) -> Iterator[Machine]:
    """Ann and bob are people, ann has an agent with an account and one without; all changes need another person."""
    ann, bob, agent, unknown, *_ = _ordinary_accounts()
    people = {"ann": {"user": ann.pw_name, "roles": ["operator"]}, "bob": {"user": bob.pw_name, "roles": ["operator"]}}
    agents = {"claude": {"user": agent.pw_name, "on_behalf_of": "ann"}, "helper": {"on_behalf_of": "ann"}}
    with (
        resident(postgres_endpoint, "strict", open_to_all=True, people=people, agents=agents) as served,
        ExitStack() as stack,
    ):
        served.start()
        lines = [Stranger(user, served.door) for user in (ann, bob, agent, unknown, NAMELESS)]
        for line in lines:
            stack.callback(line.close)
        yield Machine(served, *lines)
        assert "request.bug" not in served.log


def code_of(frame: dict[str, Any]) -> str | None:
    return frame["error"]["code"] if "error" in frame else None


def test_the_kernel_says_who_calls(machine: Machine) -> None:
    ann = machine.ann.call("hello")["result"]
    assert (ann["actor"]["kind"], ann["actor"]["name"], ann["actor"]["roles"]) == ("person", "ann", ["operator"])
    agent = machine.agent.call("hello")["result"]["actor"]
    assert (agent["kind"], agent["name"], agent["on_behalf_of"]) == ("agent", "claude", "person:ann")


def test_the_mode_is_enforced_for_others_and_advisory_for_the_account_that_runs_it(machine: Machine) -> None:
    assert machine.ann.call("hello")["result"]["mode"] == "enforced"
    assert machine.agent.call("hello")["result"]["mode"] == "enforced"
    assert machine.served.ask("hello")["mode"] == "advisory"
    assert machine.served.run("status").stdout.startswith("advisory")


def test_an_account_that_nobody_declared_gets_nothing_at_all(machine: Machine) -> None:
    runs = machine.ann.call("view", name="runs", args={})["result"]
    for who in (machine.unknown, machine.nameless):
        for acting_as in (None, "claude", "helper", "ann"):
            for method in ("hello", "view", "submit", "decide", "stop", "no-such-method"):
                assert code_of(who.call(method, acting_as)) == "actor.unknown"
    assert machine.ann.call("view", name="runs", args={})["result"] == runs


def test_an_account_that_nobody_declared_is_refused_before_it_asks(machine: Machine) -> None:
    refusal, *_ = machine.unknown.ask({})
    assert (refusal["id"], code_of(refusal)) == (None, "actor.unknown")
    assert code_of(machine.ann.ask({})[0]) == "protocol.request"


def test_an_agents_account_is_that_agent_whatever_it_says(machine: Machine) -> None:
    for name in ("ann", "bob", "helper", "root", "somebody"):
        assert code_of(machine.agent.call("hello", name)) == "actor.as"
    assert machine.agent.call("hello", "claude")["result"]["actor"]["kind"] == "agent"
    for extra in ({"actor": {"kind": "person", "name": "ann"}}, {"uid": 0}, {"peer": [1, 0, 0]}):
        (answer,) = machine.agent.ask({"id": 1, "method": "hello", "params": {}, **extra})
        assert code_of(answer) == "protocol.request"
    ask = {"action": "file.write", "args": {}, "actor": {"kind": "person", "name": "ann"}}
    assert code_of(machine.agent.call("submit", ask=ask)) == "args.invalid"


def test_as_works_downwards_only(machine: Machine) -> None:
    helper = machine.ann.call("hello", "helper")["result"]["actor"]
    assert (helper["kind"], helper["on_behalf_of"], helper["roles"]) == ("agent", "person:ann", [])
    refused = {"bob": "actor.as_person", "claude": "actor.as_account", "person:bob": "actor.agent_name"}
    for name, code in refused.items():
        assert code_of(machine.ann.call("hello", name)) == code
    assert code_of(machine.bob.call("hello", "helper")) == "actor.as_other"
    assert code_of(machine.ann.call("hello", 7)) == "protocol.as"  # type: ignore[arg-type]


def test_an_agents_change_is_approved_by_a_person_from_an_account_of_his_own(machine: Machine) -> None:
    number = machine.waiting(machine.agent, "agents.txt")
    assert code_of(machine.decide(machine.agent, number)) == "approval.not_a_person"
    assert code_of(machine.decide(machine.agent, number, "claude")) == "approval.not_a_person"
    assert code_of(machine.decide(machine.ann, number, "helper")) == "approval.not_a_person"
    assert code_of(machine.decide(machine.unknown, number)) == "actor.unknown"
    assert machine.run(number)["state"] == "waiting"
    assert not (machine.served.data / "agents.txt").exists()
    decided = machine.decide(machine.bob, number)["result"]["run"]
    assert decided["state"] == "succeeded"
    assert (machine.served.data / "agents.txt").read_text() == "x\n"
    rows = machine.ann.call("view", name="evidence", args={"run": number})["result"]["data"]["rows"]
    assert [row["line"]["data"]["approver"] for row in rows if row["line"]["kind"] == "approved"] == ["person:bob"]
    assert code_of(machine.decide(machine.bob, number)) == "run.not_waiting", "an approval is used once"


def test_a_person_does_not_approve_his_own_change_nor_what_his_agent_asked_for_him(machine: Machine) -> None:
    for acting_as in (None, "helper"):
        number = machine.waiting(machine.ann, f"own-{acting_as}.txt", acting_as)
        machine.decide(machine.ann, number)
        assert machine.run(number)["state"] == "waiting"
        assert not (machine.served.data / f"own-{acting_as}.txt").exists()
        assert machine.decide(machine.bob, number)["result"]["run"]["state"] == "succeeded"


def test_what_only_the_operator_of_the_process_may_do_is_closed_to_other_accounts(machine: Machine) -> None:
    for who in (machine.ann, machine.agent):
        for method in ("stop", "reload", "backup"):
            assert code_of(who.call(method)) == "operator.only"
    assert code_of(machine.ann.call("stop", "helper")) == "operator.only"
    assert machine.served.ask("hello")["pid"] == machine.served.pid


def test_what_belongs_to_the_resident_alone_is_closed_to_others(machine: Machine) -> None:
    assert machine.served.state_folder.stat().st_mode & 0o077 == 0
    assert machine.served.door.parent.stat().st_mode & 0o066 == 0, "others pass through it and see nothing in it"


def test_one_account_that_takes_all_it_can_get_does_not_close_the_door_to_others(machine: Machine) -> None:
    with ExitStack() as stack:
        for _ in range(450):
            line = RawLine(machine.served.door)
            stack.callback(line.close)
            with suppress(BrokenPipeError, ConnectionResetError):
                line.send(b'{"half a line')
        assert machine.ann.call("hello")["result"]["actor"]["name"] == "ann"
        assert machine.agent.call("hello")["result"]["actor"]["name"] == "claude"
    machine.served.until(machine.served.answers)
