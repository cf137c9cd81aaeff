"""What reviewers would otherwise keep saying, as small checks of the source tree; each message names the fix."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "interlock"
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60


class Finding(NamedTuple):
    """One line that breaks a rule, and what to do about it."""

    line: int
    fix: str


class Rule(NamedTuple):
    """A check of one module, the modules it does not hold for (with the reason), and a module that breaks it."""

    name: str
    check: Callable[[ast.Module, str], Iterator[Finding]]
    broken: str
    except_in: dict[str, str] = {}


def _dotted(node: ast.expr) -> str:
    """`a.b.c` for a chain of names, the empty string for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def _imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every absolute name that a module imports: `os`, `os.environ`, `datetime.datetime`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _uses(tree: ast.Module, names: re.Pattern[str]) -> Iterator[int]:
    """Lines that import or reach one of `names`, written in full (`time.sleep`)."""
    yield from (line for line, name in _imported(tree) if names.fullmatch(name))
    yield from (
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and names.fullmatch(_dotted(node))
    )


def one_sentence_docstring(tree: ast.Module, _text: str) -> Iterator[Finding]:
    first = (ast.get_docstring(tree) or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")
    if not first.endswith(".") or re.search(r"[.!?] [A-Z]", first):
        yield Finding(1, "begin the module with one sentence, in a docstring, that says what it is for")


def short_file(_tree: ast.Module, text: str) -> Iterator[Finding]:
    if text.count("\n") > FILE_LINES_MAX:
        yield Finding(FILE_LINES_MAX, f"over {FILE_LINES_MAX} lines: split by what is decided, not by kind of code")


def short_functions(tree: ast.Module, _text: str) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        explained = len((ast.get_docstring(node, clean=False) or "").splitlines())
        lines = (node.end_lineno or node.lineno) - node.lineno + 1 - explained
        if lines > FUNCTION_LINES_MAX:
            yield Finding(node.lineno, f"{node.name} has {lines} lines: give each of its decisions a name of its own")


def no_environment(tree: ast.Module, _text: str) -> Iterator[Finding]:
    for line in _uses(tree, re.compile(r"os\.(environ|environb|getenv|getenvb|putenv|unsetenv)")):
        yield Finding(line, "the environment is read once, in settings.py: take the value as an argument")


def no_sleep(tree: ast.Module, _text: str) -> Iterator[Finding]:
    for line in _uses(tree, re.compile(r"time\.sleep")):
        yield Finding(
            line, "wait for the condition itself (an event, a descriptor, a condition variable), with a bound"
        )


def no_ambient_inputs(tree: ast.Module, _text: str) -> Iterator[Finding]:
    ambient = re.compile(
        r"(random|uuid)(\..*)?|time\.time(_ns)?|(datetime\.)?(datetime\.(now|utcnow|today)|date\.today)"
    )
    for line in _uses(tree, ambient):
        yield Finding(line, "time, chance and identity enter through lib, as arguments")


def no_swallowed_exception(tree: ast.Module, _text: str) -> Iterator[Finding]:
    broad = {"", "Exception", "BaseException"}
    fix = "catch the narrow class, or raise one of core.errors, or record it: silence is a defect"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {_dotted(kind) if kind is not None else "" for kind in caught}
            speaks = any(isinstance(inner, ast.Raise | ast.Call) for inner in ast.walk(ast.Module(node.body, [])))
            if names & broad and not speaks:
                yield Finding(node.lineno, fix)
        elif isinstance(node, ast.Call) and _dotted(node.func) in {"suppress", "contextlib.suppress"}:
            silenced = {_dotted(argument) for argument in node.args}
            yield from [Finding(node.lineno, fix)] if silenced & broad else []


def driver_only_in_stores(tree: ast.Module, _text: str) -> Iterator[Finding]:
    for line, name in _imported(tree):
        if name.split(".")[0] in {"psycopg", "psycopg_pool", "sqlalchemy", "alembic"}:
            yield Finding(line, "SQL belongs into the folder's store.py")


RULES = (
    Rule("one_sentence_docstring", one_sentence_docstring, '"""Does this. Does that."""\n'),
    Rule("short_file", short_file, "\n" * (FILE_LINES_MAX + 1)),
    Rule("short_functions", short_functions, "def f():\n" + "    g()\n" * FUNCTION_LINES_MAX),
    Rule(
        "no_environment",
        no_environment,
        "import os\nos.environ['HOME']\n",
        {
            "settings.py": "this is where the environment enters",
            "engine/guard/process.py": "a program of its own; its worker gave it the mark by which its tree is found",
        },
    ),
    Rule(
        "no_sleep",
        no_sleep,
        "import time\ntime.sleep(1)\n",
        {
            "adapters/postgres*.py": "PostgreSQL says in a file that it is ready, locks of others cannot be awaited",
            "interfaces/cli/demo.py": "it waits for others to act, as its reader does",
            "examples/**": "a service that takes its time to answer",
            "engine/guard/process_tree.py": "the kernel does not tell when it has let go of a cgroup",
        },
    ),
    Rule(
        "no_ambient_inputs",
        no_ambient_inputs,
        "from datetime import datetime\ndatetime.now()\n",
        {
            "lib/**": "this is where time, chance and identity enter",
            "bootstrap/**": "and this is where the real ones are handed in",
        },
    ),
    Rule("no_swallowed_exception", no_swallowed_exception, "try:\n    f()\nexcept Exception:\n    pass\n"),
    Rule(
        "driver_only_in_stores",
        driver_only_in_stores,
        "import psycopg\n",
        {
            "engine/db.py": "the pool and the migrations",
            "engine/migrations/**": "what the migration library runs",
            "**/*store*.py": "all SQL of a folder",
            "adapters/sql_*.py": "databases that are guarded are an outside system like any other",
        },
    ),
)


def _matches(path: str, pattern: str) -> bool:
    """Whether a path below src/interlock is meant by a pattern of an exception (`**/` may stand for no folder)."""
    expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.fullmatch(expression, path) is not None


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_source_keeps_the_rule(rule: Rule) -> None:
    found = []
    for path in _modules():
        relative = path.relative_to(SOURCE).as_posix()
        if any(_matches(relative, pattern) for pattern in rule.except_in):
            continue
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        found += [f"src/interlock/{relative}:{finding.line}: {finding.fix}" for finding in rule.check(tree, text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_rule_can_fail(rule: Rule) -> None:
    """A check that nothing can break proves nothing."""
    assert list(rule.check(ast.parse(rule.broken), rule.broken))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_exception_is_still_needed(rule: Rule) -> None:
    """An exception that nobody needs any more would hide the next mistake."""
    for pattern in rule.except_in:
        meant = [path for path in _modules() if _matches(path.relative_to(SOURCE).as_posix(), pattern)]
        assert any(
            list(rule.check(ast.parse(text), text)) for text in (path.read_text(encoding="utf-8") for path in meant)
        ), f"{rule.name} no longer needs its exception for {pattern}"


def test_no_module_is_named_after_nothing() -> None:
    """A file is named after what it decides; these names take in anything."""
    vague = {"base", "bases", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
    assert not [path for path in _modules() if path.stem in vague]


def test_every_action_and_view_lies_where_people_look_for_it() -> None:
    """Capabilities are found by file name: Actions in actions.py, Views in views.py."""
    places = {"Action": "actions.py", "View": "views.py"}
    lost = [
        f"{path.relative_to(ROOT)}:{node.lineno}: move {node.name} to {places[name]}"
        for path in _modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for name in (_dotted(parent).rpartition(".")[2] for parent in node.bases)
        if name in places and path.name != places[name]
    ]
    assert not lost, "\n".join(lost)
