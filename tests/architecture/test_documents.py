"""What documents show can be used as it stands: every project file, program, policy and decision table in them."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from pydantic import Field

from interlock.adapters.cedar import CedarEngine
from interlock.commands.library import check_examples, load_library
from interlock.commands.schema import parse_program
from interlock.core.action import Action, StepResult
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.project import Project
from interlock.engine.policy.facts import OwnParts
from interlock.engine.policy.load import PolicyLoader, PolicySource, built_in_sources
from interlock.engine.policy.tables import run_tables
from interlock.engine.project_file import parse_project
from interlock.interfaces.cli.app import MODULES

ROOT = Path(__file__).resolve().parents[2]


class Example(NamedTuple):
    """One fenced block of a document."""

    place: str
    language: str
    text: str


def _examples(language: str) -> list[Example]:
    found = []
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        text = path.read_text(encoding="utf-8")
        for block in re.finditer(r"^```(\w+)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            if block[1] == language:
                line = text.count("\n", 0, block.start()) + 1
                found.append(Example(f"{path.relative_to(ROOT)}:{line}", language, block[2]))
    return found


def _loader() -> PolicyLoader:
    actions = ("command.exec", "file.write", "file.restore")
    return PolicyLoader(CedarEngine(), lambda: actions, OwnParts(), realpath=os.path.realpath, monotonic=time.monotonic)


@pytest.mark.parametrize("example", _examples("yaml"), ids=lambda example: example.place)
def test_a_yaml_example_is_valid(example: Example) -> None:
    """A program's own examples are held against it, and the rows of a decision table must come true."""
    body = example.text.encode()
    if re.search(r"^program:", example.text, flags=re.MULTILINE):
        program = parse_program(body, example.place)
        check_examples(load_library().with_programs([program]), program)
    elif re.search(r"^rows:", example.text, flags=re.MULTILINE):
        report = run_tables(
            _loader(), built_in_sources("small-team"), [(example.place, body)], preset=Project(preset="small-team")
        )
        assert [(row.name, row.fault) for row in report.failed] == []
    else:
        parse_project(body, Path("/srv/shop/interlock.yaml"))


@pytest.mark.parametrize("example", _examples("cedar"), ids=lambda example: example.place)
def test_a_policy_example_is_valid_beside_the_preset(example: Example) -> None:
    further = PolicySource("further", "example.cedar", example.text)
    loaded = _loader().load_sources(Project(), (*built_in_sources("small-team"), further))
    assert set(re.findall(r'@id\("([^"]+)"\)', example.text)) <= set(loaded.rules)


def test_every_verb_that_a_document_shows_exists() -> None:
    """In code, whatever follows `interlock` and a space is a verb."""
    verbs = {verb for words in MODULES.values() for verb in words}
    shown = {
        (path.name, verb)
        for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for code in re.findall(
            r"^```.*?^```|`[^`\n]+`", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )
        for verb in re.findall(r"(?<![\w./=-])interlock (?:--\S+ )*([a-z][a-z-]*)", code)
    }
    assert {(name, verb) for name, verb in shown if verb not in verbs} == set()
    assert {verb for _, verb in shown} >= {"exec", "do", "approve", "undo", "audit"}


def test_the_action_that_contributing_shows_can_be_planned() -> None:
    """Without a port: it needs none, and its plan follows from arguments and facts alone."""
    (example,) = (found for found in _examples("python") if "(Action)" in found.text)
    words = (Action, StepResult, Frozen, Plan, Step, Target, StepContext, Path)
    names: dict[str, Any] = {word.__name__: word for word in words}
    names |= {"JsonObject": JsonObject, "Field": Field, "ClassVar": ClassVar}
    exec(compile(example.text, example.place, "exec"), names)  # noqa: S102 - our own document
    action, args = names["Touch"](None), names["TouchArgs"](path="/srv/site/.ready")
    assert action.plan(args, {"exists": False}).digest == action.plan(args, {"exists": False}).digest
    assert action.plan(args, {"exists": False}).digest != action.plan(args, {"exists": True}).digest
