"""Who could put something else where a path leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.lib.reach import FileStatus, why_replaceable, why_swappable

if TYPE_CHECKING:
    from interlock.lib.reach import Stat

OWNERS, GROUPS = frozenset({0, 1000}), frozenset({0, 1000})
FOLDER, FILE, LINK, AGENT = 0o040755, 0o100644, 0o120777, 2000


def disk(**files: FileStatus) -> Stat:
    """/srv/drop/r.txt of root, with what is said besides."""
    own = {"/": FileStatus(FOLDER, 0), "/srv": FileStatus(FOLDER, 0), "/srv/drop": FileStatus(FOLDER, 1000)}
    own["/srv/drop/r.txt"] = FileStatus(FILE, 0)
    return (own | {name.replace("__", "/"): found for name, found in files.items()}).get


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"__srv__drop": FileStatus(0o040775, 0, None, 0)},
        {"__srv__drop": FileStatus(0o040775, 1000, None, 1000)},
        {"__srv__drop__r.txt": FileStatus(0o100666, AGENT)},
        {"__srv": FileStatus(0o041777, 0)},
        {"__srv__drop": FileStatus(0o041777, 0)},
    ],
)
def test_a_path_below_folders_of_the_operator_stays_where_it_is(files: dict[str, FileStatus]) -> None:
    assert why_swappable("/srv/drop/r.txt", OWNERS, GROUPS, disk(**files)) is None


@pytest.mark.parametrize(
    "files",
    [
        {"__srv__drop": FileStatus(FOLDER, AGENT)},
        {"__srv": FileStatus(FOLDER, AGENT)},
        {"__srv__drop": FileStatus(0o040757, 0)},
        {"__srv__drop": FileStatus(0o040775, 0, None, AGENT)},
        {"__srv__drop__r.txt": FileStatus(LINK, 0, "/etc/shadow")},
        {"__srv": FileStatus(0o041777, AGENT)},
        {"__srv": FileStatus(0o041777, 0), "__srv__drop": FileStatus(FOLDER, AGENT)},
        {"__srv__drop": FileStatus(0o041777, 0), "__srv__drop__r.txt": FileStatus(FILE, AGENT)},
    ],
)
def test_a_path_that_somebody_could_let_lead_elsewhere_is_told_apart(files: dict[str, FileStatus]) -> None:
    assert why_swappable("/srv/drop/r.txt", OWNERS, GROUPS, disk(**files)) is not None


def test_what_is_not_there_yet_is_safe_only_where_nobody_else_creates_it() -> None:
    assert why_swappable("/srv/drop/new/deeper", OWNERS, GROUPS, disk()) is None
    assert why_swappable("/srv/drop/new", OWNERS, GROUPS, disk(__srv__drop=FileStatus(0o041777, 0))) is not None


def test_a_folder_that_everybody_fills_is_not_safe_as_a_whole() -> None:
    assert why_swappable("/srv/drop", OWNERS, GROUPS, disk(__srv__drop=FileStatus(0o041777, 0))) is not None


def test_a_file_that_others_may_write_is_replaceable_though_it_cannot_be_swapped() -> None:
    loose = disk(**{"__srv__drop__r.txt": FileStatus(0o100666, 0)})
    assert why_swappable("/srv/drop/r.txt", OWNERS, GROUPS, loose) is None
    assert why_replaceable("/srv/drop/r.txt", OWNERS, loose) is not None
    assert why_replaceable("/srv/drop/r.txt", OWNERS, disk()) is None
    assert why_replaceable("/srv/drop/absent", OWNERS, disk()) is not None
