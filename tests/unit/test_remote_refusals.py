"""What another machine refuses is told with the way out that leads there, not with one for this machine."""

from __future__ import annotations

from interlock.core.errors import Denied
from interlock.core.remote_step import refusal_there


def test_a_folder_that_may_not_be_written_there_is_declared_there() -> None:
    told = {
        "kind": "denied",
        "code": "file.outside_roots",
        "message": "/etc/motd lies outside the folders that may be written",
        "fix": "declare the folder under roots.write in interlock.yaml",
    }
    error = refusal_there("db1", told, "look on db1")
    assert isinstance(error, Denied)
    assert error.message.startswith("db1 says: /etc/motd")
    assert error.fix == "on db1, declare the folder under `roots.write` in its own door.yaml"


def test_any_other_advice_of_another_machine_stays_what_it_is() -> None:
    assert refusal_there("db1", {"kind": "conflict", "fix": "stop it first"}, "look on db1").fix == "stop it first"
    assert refusal_there("db1", {}, "look on db1").fix == "look on db1"
