"""`restore --replace` and archives that are written: nothing is lost by a broken archive or a name that is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Shop

CONFLICT, FAILED, INVALID = 5, 1, 2


@pytest.fixture(scope="module")
def shop(make_shop: Callable[[], Shop]) -> Shop:
    made = make_shop()
    made.set_up()
    return made


def test_a_log_without_rows_is_not_called_intact(make_shop: Callable[[], Shop]) -> None:
    shop = make_shop()
    shop.set_up()
    done = shop.run("audit", "verify")
    assert (done.returncode, "nothing recorded yet" in done.stdout) == (0, True)
    assert shop.json("audit", "verify")["status"] == "empty"


def test_an_archive_is_never_written_over_what_is_there(shop: Shop) -> None:
    taken = shop.folder / "taken.tar.gz"
    taken.write_text("precious")
    for words in (("backup", str(taken)), ("audit", "export", str(taken)), ("backup", "/dev/null")):
        done = shop.run(*words)
        assert (done.returncode, "exists" in done.stderr, "Traceback" in done.stderr) == (CONFLICT, True, False)
    assert taken.read_text() == "precious"


def test_a_folder_gets_an_archive_of_the_usual_name(shop: Shop) -> None:
    place = shop.folder / "backups"
    place.mkdir()
    assert shop.run("backup", str(place)).returncode == 0
    assert [path.name.startswith("interlock-backup-") for path in place.iterdir()] == [True]


def test_a_broken_archive_leaves_the_installation_as_it_was(shop: Shop) -> None:
    assert shop.run("exec", "--", "uptime").returncode == 0
    whole = shop.folder / "whole.tar.gz"
    assert shop.run("backup", str(whole)).returncode == 0
    broken = shop.folder / "broken.tar.gz"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    shop.run("stop")
    before = sorted(path.name for path in shop.folder.iterdir())
    keys = {path.name: path.read_bytes() for path in (shop.folder / ".interlock" / "keys").iterdir()}
    done = shop.run("restore", "--replace", "--yes", str(broken))
    assert (done.returncode, "Traceback" in done.stderr) == (INVALID, False)
    assert sorted(path.name for path in shop.folder.iterdir()) == before
    # A sound archive into a database that is not empty fails as late as can be, and everything is put back.
    done = shop.run("restore", "--replace", "--yes", str(whole))
    assert (done.returncode, "is back in" in done.stderr) == (FAILED, True), done.stderr
    assert sorted(path.name for path in shop.folder.iterdir()) == before
    assert {path.name: path.read_bytes() for path in (shop.folder / ".interlock" / "keys").iterdir()} == keys
    assert shop.json("audit", "verify")["status"] == "intact"


def test_the_hint_without_a_terminal_keeps_replace(shop: Shop) -> None:
    archive = shop.folder / "hint.tar.gz"
    assert shop.run("backup", str(archive)).returncode == 0
    shop.run("stop")
    done = shop.run("restore", "--replace", str(archive))
    assert (done.returncode, "--replace" in done.stderr.splitlines()[-1]) == (8, True)
