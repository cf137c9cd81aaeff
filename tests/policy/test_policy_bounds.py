"""A policy that is too large or too deep for the library is refused before it is shown to it, with file, line, fix."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from interlock.adapters import cedar_bounds
from interlock.adapters.cedar import CedarEngine
from interlock.adapters.cedar_bounds import Size
from interlock.core.errors import Invalid
from interlock.core.project import Project
from interlock.engine.policy.load import PolicyLoader, PolicySource, built_in_sources, schema_for

MANY = 20_000
HEAD = '@id("team.x") @reason("why") @risk("low") @effect("forbid") forbid (principal, action, resource is Plan)'
BOMBS = {
    "brackets": "(" * MANY + "true" + ")" * MANY,
    "a few brackets too many": "(" * 900 + "true" + ")" * 900,
    "brackets behind what only seems to be a comment": "true // \r && " + "(" * 900 + "true" + ")" * 900,
    "brackets that are never closed": "(" * MANY,
    "or": " || ".join(["true"] * 600),
    "or within brackets": "(" * 45 + " || ".join(["true"] * 600) + ")" * 45,
    "negations": "!(" * 900 + "true" + ")" * 900,
    "if": "if true then " * 900 + "true" + " else true" * 900,
    "else if": "if true then true else " * 900 + "true",
    "sums": " + ".join(["1"] * 600) + " == 600",
    "sets": "[" * 900 + "]" * 900 + " == []",
    "records": "{a:" * 900 + "1" + "}" * 900 + " == {}",
    "attributes": "context" + ".granted" * 900,
    "indexes": "context" + '["granted"]' * 900,
    "calls": "context.contains(" * 900 + "1" + ")" * 900,
    "paths": "context has " + ".".join(["granted"] * 900),
    "conditions": "true }" + " when { true }" * 900 + " when { true",
    "wide": " && ".join(["(" + " || ".join(["resource.own"] * 190) + ")"] * 40),
    "elements": "[" + ",".join(["1"] * 30_000) + "].contains(1)",
    "long": f'resource.reason == "{"x" * 500_000}"',
}
_LOAD = """
import json, sys
from interlock.adapters.cedar import CedarEngine
from interlock.core.errors import Invalid
from interlock.engine.policy.load import schema_for
schema = schema_for(["command.exec"])
for name, text in json.load(sys.stdin).items():
    told = None
    try:
        CedarEngine().load([("team.cedar", text)], schema)
    except Invalid as error:
        told = error.to_json()
    print(json.dumps([name, told]), flush=True)
"""


@pytest.fixture(scope="module")
def told_of() -> dict[str, Any]:
    """What is said of each, by a process of its own: a policy that is let through takes it with it."""
    texts = {name: f"// a comment\n\n{HEAD} when {{ {condition} }};" for name, condition in BOMBS.items()}
    command = [sys.executable, "-c", _LOAD]
    done = subprocess.run(command, input=json.dumps(texts), text=True, capture_output=True, check=False, timeout=60)
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", BOMBS)
def test_a_policy_that_would_end_the_process_is_refused_with_its_line(told_of: dict[str, Any], name: str) -> None:
    told = told_of[name]
    assert (told["kind"], told["code"]) == ("invalid", "policy.size")
    assert told["message"].startswith("team.cedar:3: ")
    assert told["details"] == {"file": "team.cedar", "line": 3}
    assert told["fix"]
    assert len(told["message"]) < 500


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 40 + "resource.own" + ")" * 40,
        " || ".join(["resource.own"] * 150),
        " || ".join(f'resource.targets.contains("unit:app{number}.service")' for number in range(150)),
        "resource.targets.containsAny([" + ",".join(f'"unit:app{number}.service"' for number in range(4000)) + "])",
        'resource.own || "' + "(" * 900 + '" == "\\"((("',
        "!(" * 40 + "resource.own" + ")" * 40,
        "if resource.own then " * 40 + "true" + " else false" * 40,
    ],
)
def test_a_policy_within_the_bounds_is_taken(loader: PolicyLoader, condition: str) -> None:
    source = PolicySource("further", "team.cedar", f"{HEAD} when {{ {condition} }};")
    assert "team.x" in loader.load_sources(Project(), (*built_in_sources("small-team"), source)).rules


def test_too_many_annotations_are_refused() -> None:
    text = "".join(f'@a{number}("x")\n' for number in range(100)) + f"{HEAD};"
    with pytest.raises(Invalid, match=r"^team\.cedar:1: it has 104 annotations") as caught:
        CedarEngine().load([("team.cedar", text)], schema_for(["command.exec"]))
    assert caught.value.code == "policy.size"


@pytest.mark.parametrize(
    ("bound", "what"),
    [("POLICIES_MAX", "policies"), ("SET_OPERATORS_MAX", "operators"), ("SET_ELEMENTS_MAX", "elements")],
)
def test_a_set_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, bound: str, what: str) -> None:
    monkeypatch.setattr(cedar_bounds, bound, 1)
    text = "".join(f'@id("team.x{number}") forbid (principal, action, resource is Plan);\n' for number in range(3))
    with pytest.raises(Invalid, match=rf"the set has \d+ {what}") as caught:
        CedarEngine().load([("team.cedar", text)], schema_for(["command.exec"]))
    assert caught.value.code == "policy.size"
    assert caught.value.fix


def test_what_cedar_says_of_a_text_is_cut() -> None:
    text = f"{HEAD} when {{ {'{a:' * 45}1{'}' * 45} == {{bbbbbbbbbb: {'{c:' * 40}1{'}' * 40}}} }};"
    with pytest.raises(Invalid, match=r"^team\.cedar:1: ") as caught:
        CedarEngine().load([("team.cedar", text)], schema_for(["command.exec"]))
    assert len(caught.value.message) < 1100


def test_each_policy_of_a_large_set_keeps_its_own_line(loader: PolicyLoader) -> None:
    # It is checked in pieces, and each piece counts its policies from nothing.
    policy = '@reason("why") @risk("low") @effect("forbid") forbid (principal, action, resource is Plan)'
    good = [f'@id("team.n{number}") {policy} when {{ resource.own }};' for number in range(500)]
    rules = loader.load_sources(
        Project(), (*built_in_sources("small-team"), PolicySource("further", "team.cedar", "\n".join(good)))
    ).rules
    assert [rules[f"team.n{number}"].line for number in range(500)] == list(range(1, 501))
    good[420] = f'@id("team.bad") {policy} when {{ resource.nosuch }};'
    with pytest.raises(Invalid, match=r"^team\.cedar:421: .*nosuch"):
        loader.load_sources(
            Project(), (*built_in_sources("small-team"), PolicySource("further", "team.cedar", "\n".join(good)))
        )


@pytest.mark.parametrize(
    ("text", "depth"),
    [("", 0), ("a", 0), ("a.b.c", 2), ("a || b || c", 2), ("a.b || c.d", 2), ("f(a, b || c)", 2), ("((a))", 2)],
)
def test_the_depth_counts_what_hangs_on_each_other(text: str, depth: int) -> None:
    assert Size.of(text).depth == depth
