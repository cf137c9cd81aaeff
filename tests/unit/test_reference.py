"""docs/reference is what the code says now."""

from __future__ import annotations

from pathlib import Path

import pytest

from interlock.interfaces.reference import SCHEMA_FOLDER, pages, schemas

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
PAGES = pages() | schemas()


def test_the_same_code_gives_the_same_pages() -> None:
    assert pages() | schemas() == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_current(name: str) -> None:
    written = FOLDER / name
    assert written.is_file(), "make docs"
    assert written.read_text(encoding="utf-8") == PAGES[name], "make docs"


def test_no_page_is_left_over() -> None:
    found = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert found == PAGES.keys()
    assert any(name.startswith(SCHEMA_FOLDER) for name in found)


def test_every_verb_and_exit_code_is_in_it() -> None:
    text = PAGES["cli.md"]
    for verb in ("exec", "policy explain", "audit export", "resolve", "pause-agents"):
        assert f"\n## {verb}\n" in text
    assert "| 130 |" in text
