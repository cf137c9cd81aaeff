"""A broken `programs:` file is found by `check`, refused by `policy reload`, and locks nobody out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Shop

SCHEMA = """
program: shop-reindex
summary: The shop's search index
forms:
  - name: status
    words: status
    summary: show how old the index is
    changes: false
    discloses: nothing
    match: [shop-reindex status]
"""


@pytest.fixture(scope="module")
def shop(make_shop: Callable[[], Shop]) -> Shop:
    made = make_shop()
    made.set_up()
    (made.folder / "reindex.yaml").write_text(SCHEMA)
    with (made.folder / "interlock.yaml").open("a") as file:
        file.write("programs: [reindex.yaml]\n")
    return made


def _wrong(shop: Shop) -> list[str]:
    found = shop.json("check", code=None)["data"]["findings"]
    return [finding["area"] for finding in found if finding["level"] == "error"]


def test_check_and_reload_load_the_programs(shop: Shop) -> None:
    assert (_wrong(shop), shop.run("policy", "reload").returncode) == ([], 0)
    (shop.folder / "reindex.yaml").write_text("program: [nonsense")
    assert _wrong(shop) == ["programs"]
    refused = shop.json("policy", "reload", code=2)["data"]["error"]
    assert "reindex.yaml" in refused["message"]
    assert shop.run("exec", "--", "uptime").returncode == 0, "the old ones stay in force"
    assert "reindex.yaml" in shop.run("status").stdout, "status shows the trouble"


def test_after_a_restart_the_built_in_programs_are_known_and_status_says_what_is_wrong(shop: Shop) -> None:
    (shop.folder / "reindex.yaml").unlink()
    assert shop.run("stop").returncode == 0
    done = shop.run("status")
    assert "reindex.yaml" in done.stdout + done.stderr
    assert shop.run("exec", "--", "uptime").returncode == 0
    (shop.folder / "reindex.yaml").write_text(SCHEMA)
    assert shop.run("policy", "reload").returncode == 0
    assert "reindex.yaml" not in shop.run("status").stdout
