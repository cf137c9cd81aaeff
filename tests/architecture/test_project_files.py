"""Locks, documents and every tracked text are what the project promises about them."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from interlock.settings import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock")
ADR_HEADINGS = ["Decision", "Why", "What you must now do"]

# Written with brackets so that this file does not break its own rule.
FORBIDDEN = {
    r"(#|//|<!--).*\b([T]ODO|[F]IXME|[X]XX)\b|\b([T]ODO|[F]IXME|[X]XX):": "do it now, or write an issue",
    r"(?<![\w.])/[w]ork/|/tmp/[b]ash_jobs": "a path of somebody's machine",
    r"https?://[^/\s]+/([s]imple|[p]ackages/[0-9a-f]{2}|[d]ebian)/": "an address of a package registry",
}


def _tracked() -> list[Path]:
    """Every file under version control; in an unpacked source archive, every file of it."""
    command = ["/usr/bin/env", "git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    if not (ROOT / ".git").exists():
        command = ["/usr/bin/env", "find", "README.md", "src", "tests", "docs", "-type", "f", "-print0"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=30)
    return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def _texts() -> list[tuple[Path, str]]:
    found = []
    for path in _tracked():
        body = path.read_bytes()
        if b"\0" not in body:
            found.append((path.relative_to(ROOT), body.decode("utf-8")))
    return found


def _headings(path: Path) -> list[str]:
    """The headings of a Markdown file, without those inside code blocks."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^(#+ .+)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("pattern", FORBIDDEN, ids=list(FORBIDDEN.values()))
def test_no_tracked_file_holds_a_forbidden_word(pattern: str) -> None:
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in _texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not found, f"{FORBIDDEN[pattern]}:\n" + "\n".join(found)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_hashes_and_no_addresses(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash)", text, flags=re.MULTILINE), "options in a lock file speak of one machine"
    requirements = re.findall(r"^[a-z0-9._-]+==.*?(?=^[a-z0-9]|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert requirements
    assert all("--hash=sha256:" in requirement for requirement in requirements)


def test_the_locks_agree_with_each_other() -> None:
    """What is tested, what is shipped and what is measured are the same versions."""
    pins = {
        name: dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE))
        for name in LOCKS
    }
    tested = pins["requirements-dev.lock"]
    assert pins["requirements.lock"].items() <= tested.items()
    shared = pins["requirements-bench.lock"].keys() & tested.keys()
    assert all(pins["requirements-bench.lock"][name] == tested[name] for name in shared)


def test_everything_the_project_needs_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[\[=<>~! ]", requirement)[0].lower() for requirement in wanted}
    locked = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    assert {name for name in names if f"\n{name}==" not in locked} == set()


@pytest.mark.parametrize("name", ["README.zh-CN.md", "README.zh-TW.md"])
def test_a_translated_readme_has_the_same_parts(name: str) -> None:
    def levels(path: Path) -> list[int]:
        return [heading.index(" ") for heading in _headings(path)]

    assert levels(ROOT / name) == levels(ROOT / "README.md")


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_a_decision_record_says_what_why_and_what_now(path: Path) -> None:
    title, *parts = _headings(path)
    assert title.startswith(f"# {int(path.name[:4])}. ")
    assert [part.removeprefix("## ") for part in parts] == ADR_HEADINGS
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, "an ADR is one page"


def test_decision_records_are_numbered_without_gaps_and_listed() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in records if f"({path.name})" not in index] == []


def test_every_link_between_documents_leads_somewhere() -> None:
    lost = [
        f"{path}: {target}"
        for path, text in _texts()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"`[^`\n]*`", "", text))
        if "://" not in target and not (ROOT / path).parent.joinpath(target).exists()
    ]
    assert not lost, "\n".join(lost)


def test_every_test_that_a_document_names_exists() -> None:
    """ARCHITECTURE.md names the test that tries to break each invariant: no promise outlives its test."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    lost = [
        f"{path}: {name}"
        for path, text in _texts()
        if path.suffix == ".md"
        for name in re.findall(r"`(test_[a-z0-9_]+)`", text)
        if f"def {name}(" not in tests
    ]
    assert not lost, "\n".join(lost)


def test_every_variable_that_a_document_names_is_read() -> None:
    """Settings that nobody reads are the most patient kind of mistake."""
    read = {variable.name for variable in VARIABLES} | {"INTERLOCK_TEST_DATABASE_URL"}
    named = {name for path, text in _texts() if path.suffix == ".md" for name in re.findall(r"INTERLOCK_[A-Z_]+", text)}
    assert named <= read, f"not in settings.VARIABLES: {sorted(named - read)}"
