"""Whatever is thrown at the socket is answered or hung up on; the resident process lives on and serves the others."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.resident import RawLine, Resident, resident
from interlock.interfaces.local.client import Connection
from interlock.interfaces.local.server import CONNECTIONS_OF_OWN_ACCOUNT_MAX

MIB = 1024 * 1024
BUSY = "door.busy"


@pytest.fixture(scope="module")
def served(postgres_endpoint: Any) -> Iterator[Resident]:
    """One for all attacks: what one of them broke, the next one finds."""
    with resident(postgres_endpoint, "permissive") as made:
        made.start()
        assert made.write("first.txt", "x\n")["state"] == "succeeded"
        yield made
        assert made.ask("hello")["pid"] == made.pid
        assert made.ask("audit_verify")["intact"] is True


@pytest.fixture(autouse=True)
def lives_on(served: Resident) -> Iterator[None]:
    """After each attack the same process answers, and has met no bug of its own."""
    before = len(served.log)
    yield
    served.until(served.answers)  # connections that were closed a moment ago may still hold their places
    assert served.ask("hello")["pid"] == served.pid
    assert "request.bug" not in served.log[before:]
    assert "Traceback" not in served.log[before:]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hello\n",
        b"{\n",
        b"[]\n",
        b"null\n",
        b'"hello"\n',
        b"1e999\n",
        b'{"method": NaN}\n',
        b"\xff\xfe\x00\x01\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
        b"GET / HTTP/1.1\r\n",
        b"{}\n",
        b'{"method": "hello", "method": 7}\n',
        b'{"method": ["hello"]}\n',
        b'{"method": "hello", "params": []}\n',
        b'{"method": "hello", "params": null}\n',
        b'{"method": "hello", "more": 1}\n',
        b'{"method": "hello", "as": {}}\n',
        b'{"method": "hello", "as": "\\ud800"}\n',
        b'{"method": "\\ud800"}\n',
        b'{"method": "__init__"}\n',
        b'{"method": "_outcome"}\n',
        b'{"method": "run"}\n',
        b'{"id": "\\ud800", "method": "hello"}\n',
    ],
)
def test_what_is_no_request_is_answered_with_an_error_and_the_line_stays_usable(served: Resident, line: bytes) -> None:
    with RawLine(served.door) as raw:
        raw.send(line)
        answer = raw.read()
        assert answer is not None
        assert answer["error"]["kind"] in {"invalid", "not_found"}, answer
        assert raw.ask({"id": 2, "method": "hello"})["result"]["pid"] == served.pid  # type: ignore[index]


def test_a_line_of_5_mib_is_refused_and_hung_up_on(served: Resident) -> None:
    with RawLine(served.door) as raw:
        try:
            for _ in range(5):
                raw.send(b"x" * MIB)
        except (BrokenPipeError, ConnectionResetError):
            return  # it did not even listen to the end
        answer = raw.read()
        assert answer is None or answer["error"]["code"] == "protocol.size"


@pytest.mark.parametrize("depth", [100, 400, 700, 900, 980, 1_100, 20_000])
@pytest.mark.parametrize("place", ["frame", "params", "args", "id"])
def test_json_that_is_nested_too_deeply_is_refused(served: Resident, depth: int, place: str) -> None:
    deep = "[" * depth + "]" * depth
    line = {
        "frame": deep,
        "params": f'{{"id":1,"method":"submit","params":{{"ask":{deep}}}}}',
        "args": f'{{"id":1,"method":"submit","params":{{"ask":{{"action":"file.write","args":{{"path":{deep}}}}}}}}}',
        "id": f'{{"id":{deep},"method":"hello","as":7}}',
    }[place]
    with RawLine(served.door) as raw:
        raw.send(line.encode() + b"\n")
        answer = raw.read()
        assert answer is not None
        assert answer["error"]["kind"] == "invalid", answer


def test_half_a_line_and_silence_holds_nobody_up(served: Resident) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            raw = RawLine(served.door)
            stack.callback(raw.close)
            raw.send(b'{"id": 1, "method": "subm')
        assert served.write("meanwhile.txt", "x\n")["state"] == "succeeded"


def test_of_300_connections_those_beyond_the_accounts_bound_are_told_and_all_is_well_afterwards(
    served: Resident,
) -> None:
    with ExitStack() as stack:
        lines = []
        for _ in range(300):
            raw = RawLine(served.door)
            stack.callback(raw.close)
            lines.append(raw)
        answers = []
        for raw in lines:
            try:
                answers.append(raw.ask({"id": 1, "method": "hello"}))
            except (BrokenPipeError, ConnectionResetError):
                answers.append(raw.read())
        served_count = sum(answer is not None and "result" in answer for answer in answers)
        told = sum(answer is not None and answer.get("error", {}).get("code") == BUSY for answer in answers)
        assert served_count == CONNECTIONS_OF_OWN_ACCOUNT_MAX
        assert served_count + told == 300
    served.until(served.answers)


def _values() -> list[Any]:
    return [None, True, -1, 0, 2**31, 2**63, 10**30, -(2**63), 1.5, 1e308, "", "x", "\0", "\ud800", "x" * 100_000,
            [], [None], {}, {"run": 1}, ["a"] * 300]  # fmt: skip


def test_no_method_meets_a_value_it_did_not_foresee(served: Resident) -> None:
    with RawLine(served.door) as raw:
        known = raw.ask({"id": 0, "method": "no-such-method"})["error"]["details"]["known"]  # type: ignore[index]
        assert {"submit", "decide", "undo", "output", "hold"} <= set(known)
        fields = ("run", "ask", "name", "args", "key", "reason", "digest", "wait_seconds", "verdict", "target", "since")
        sound: dict[str, dict[str, Any]] = {
            "submit": {"ask": {"action": "file.write", "args": {"path": "x"}}},
            "decide": {"run": 1, "verdict": True},
            "resolve": {"run": 1, "resolution": "skip"},
            "hold": {"target": "file:/x", "command": ["true"]},
            "view": {"name": "run", "args": {"run": 1}},
        }
        for method in sorted(set(known) - {"stop", "backup", "audit_export", "reload"}):
            takes_run = method in {"cancel", "retry", "undo", "wait", "output", "receipt"}
            base = sound.get(method, {"run": 1} if takes_run else {})
            for field in fields:
                for value in _values():
                    _is_foreseen(raw, method, {**base, field: value})


def _is_foreseen(raw: RawLine, method: str, params: dict[str, Any]) -> None:
    answer = raw.ask({"id": 1, "method": method, "params": params})
    assert answer is not None, f"hung up on {method} {params!r:.200}"
    code = answer.get("error", {}).get("code")
    assert code != "bug", f"{method} {params!r:.200}: {answer}"


def test_no_action_meets_a_value_it_did_not_foresee(served: Resident) -> None:
    with RawLine(served.door) as raw:
        actions = raw.ask({"id": 1, "method": "view", "params": {"name": "actions"}})["result"]["data"]["actions"]  # type: ignore[index]
        for action in actions:
            for field in action["arguments"]["properties"]:
                for value in _values():
                    ask = {"action": action["name"], "args": {**action["example"], field: value}}
                    _is_foreseen(raw, "propose", {"ask": ask})


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 20_000 + "true" + ")" * 20_000,
        "!(" * 900 + "true" + ")" * 900,
        "true // \r && " + "[" * 900 + "]" * 900 + " == []",
        " || ".join(["true"] * 20_000),
        "context" + ".granted" * 9_000,
        " && ".join(["(" + " || ".join(["resource.own"] * 190) + ")"] * 40),
    ],
)
def test_no_policy_of_a_client_ends_the_resident_process_or_keeps_it_from_the_others(
    served: Resident, condition: str
) -> None:
    policies = [["team.cedar", f'@id("x.y") forbid (principal, action, resource is Plan) when {{ {condition} }};']]
    with RawLine(served.door) as raw:
        answer = raw.ask({"id": 1, "method": "policy_replay", "params": {"since": "1h", "policies": policies}})
    assert answer is not None
    assert answer["error"]["code"] == "policy.size"
    assert answer["error"]["message"].startswith("team.cedar:1: ")


def test_a_replayed_ask_with_a_key_is_the_same_run_and_a_replayed_approval_counts_once(served: Resident) -> None:
    path = str(served.data / "replayed.txt")
    ask = {"action": "file.write", "args": {"path": path, "content": "x\n"}, "confirmed": True, "key": "once"}
    frame = {"id": 1, "method": "submit", "params": {"ask": ask, "wait_seconds": 20}}
    with RawLine(served.door) as one, RawLine(served.door) as other:
        first, *again = [line.ask(frame) for line in (one, one, other)]
        assert first is not None
        assert {answer["result"]["run"]["number"] for answer in again if answer} == {first["result"]["run"]["number"]}
        other_ask = {**ask, "args": {"path": path, "content": "y\n"}}
        answer = one.ask({"id": 1, "method": "submit", "params": {"ask": other_ask}})
        assert answer is not None
        assert answer["error"]["code"] == "run.key_reused"
        number = first["result"]["run"]["number"]
        decided = one.ask({"id": 1, "method": "decide", "params": {"run": number, "verdict": True}})
        assert decided is not None
        assert decided["error"]["code"] == "run.not_waiting"


def test_whoever_hangs_up_in_the_middle_of_an_answer_leaves_his_run_going(served: Resident) -> None:
    before = served.view("runs", limit=1)["runs"][0]["number"]
    for _ in range(10):
        raw = RawLine(served.door)
        ask = {"action": "command.exec", "args": {"argv": ["sleep", "0.3"]}, "confirmed": True}
        raw.send(json.dumps({"id": 1, "method": "submit", "params": {"ask": ask, "wait_seconds": 60}}).encode() + b"\n")
        # A reset rather than an orderly end.
        raw.socket.setsockopt(*_LINGER)
        raw.close()
    served.until(lambda: served.view("runs", limit=1)["runs"][0]["number"] >= before + 10)
    served.until(lambda: all(run["state"] == "succeeded" for run in served.view("runs", limit=10)["runs"]))


_LINGER = (1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER


def test_a_client_of_ours_waits_for_its_turn_where_many_knock_at_once(tmp_path: Path) -> None:
    door = tmp_path / "door.sock"
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as threads, ExitStack() as stack:
        listener.bind(str(door))
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(door))
        waiting = threads.submit(Connection, door, trusted_uids=frozenset({os.geteuid()}))
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        stack.enter_context(listener.accept()[0])
        stack.enter_context(waiting.result(5))


def test_descriptors_are_not_left_open(served: Resident) -> None:
    def count() -> int:
        return len(os.listdir(f"/proc/{served.pid}/fd"))  # noqa: PTH208 - only how many

    served.ask("hello")
    before = count()
    for _ in range(100):
        RawLine(served.door).close()
    served.until(lambda: count() <= before + 3)
