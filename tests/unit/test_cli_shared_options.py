"""The options that all verbs share may stand before the verb."""

from __future__ import annotations

import pytest

from interlock.interfaces.cli.app import _with_verb


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("", "status"),
        ("--output json", "status --output json"),
        ("-o json --as=helper", "status -o json --as=helper"),
        ("--project X exec -- uptime", "exec --project X -- uptime"),
        ("--project=X -o json audit verify --since F", "audit verify --project=X -o json --since F"),
        ("exec --project X -- uptime", "exec --project X -- uptime"),
        ("--help", "--help"),
        ("help", "--help"),
        ("help exec", "exec --help"),
        ("-h exec", "exec --help"),
        ("--help audit verify", "audit verify --help"),
        ("--project", "status --project"),
    ],
)
def test_shared_options_are_read_on_either_side_of_the_verb(typed: str, read: str) -> None:
    assert _with_verb(typed.split()) == read.split()
