"""What is protected stays protected under every name, in any case, from above and from beneath."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.plan import Plan, Step, Target
from interlock.engine.policy.protected import Match, Patterns, protected_targets, resolve_paths
from interlock.engine.policy.target_classes import classes_of

PARTS = st.text("abcXYZé.-_ ", min_size=1, max_size=6).filter(lambda part: part not in {".", ".."})
PATHS = st.lists(PARTS, min_size=1, max_size=5)


def _covers(pattern: str, kind: str, identity: str, *names: str, recursive: bool = False, above: bool = True) -> bool:
    target = Target(kind=kind, id=identity, names=names)
    return Patterns([pattern]).match(target, recursive=recursive, above=above) is not None


@pytest.mark.parametrize(
    ("pattern", "target"),
    [
        ("unit:postgresql*", "unit:postgresql@15-main.service"),
        ("unit:postgresql", "unit:postgresql.service"),
        ("unit:postgresql", "unit:postgresql@15-main.service"),
        ("unit:PostgreSQL.service", "unit:postgresql.service"),
        ("*:shop-db", "container:shop-db"),
        ("*:shop-db", "volume:shop-db"),
        ("cont*:shop-db", "container:shop-db"),
        ("container:web", "container:/web"),
        ("file:/srv/db/**", "file:/srv/db/base/1"),
        ("file:/srv/db/**", "file:/srv/db"),
        ("file:/srv/db", "file:/srv/db/base/1"),
        ("file:/srv/db/", "file:/srv/db"),
        ("file:/srv/db/**", "file:/srv"),
        ("file:/srv/db/**", "file:/"),
        ("file:/srv/*/data", "file:/srv/a/data/x"),
        ("file:/srv/*/data", "file:/srv/a"),
        ("file:/srv/**/data", "file:/srv/a/b/data/x"),
        ("file:/srv/**/data", "file:/srv/data"),
        ("file:/**/.env", "file:/a/b/.env"),
        ("file:/**", "file:/x"),
        ("file:/", "file:/x"),
        ("file:/SRV/Db", "file:/srv/db/x"),
        ("file:/srv//db/./x/..", "file:/srv/db/y"),
        ("file:/run/docker.sock", "socket:/run/docker.sock"),
        ("file:/srv/d?", "file:/srv/db"),
        ("file:/srv/caf\u00e9", "file:/srv/cafe\u0301/x"),
    ],
)
def test_it_is_covered(pattern: str, target: str) -> None:
    assert _covers(pattern, *target.split(":", 1))


@pytest.mark.parametrize(
    ("pattern", "target"),
    [
        ("unit:postgresql", "unit:postgresql-exporter.service"),
        ("unit:postgresql*", "container:postgresql"),
        ("unit:postgresql*", "unit:nginx.service"),
        ("file:/srv/db/**", "file:/srv/dbx"),
        ("file:/srv/db/**", "file:/srv/app/x"),
        ("file:/srv/db", "file:/srv2"),
        ("file:/srv/*/data", "file:/srv/a/other"),
        ("file:/srv/*/data", "file:/srv/a/b/data"),
        ("file:/srv/d[ab]", "file:/srv/da"),
        ("unit:n[gx]inx", "unit:nginx"),
        ("volume:/data", "socket:/data"),
        ("file:/**/.env", "file:/a/b/c"),
    ],
)
def test_it_is_not_covered(pattern: str, target: str) -> None:
    assert not _covers(pattern, *target.split(":", 1))


@pytest.mark.parametrize(
    ("pattern", "target", "name"),
    [
        ("container:shop-db", "container:3f9ab0c1", "shop-db"),
        ("unit:postgresql.service", "unit:pg-alias.service", "postgresql.service"),
        ("file:/srv/db/**", "volume:9d01", "/srv/db"),
        ("compose:shop/db", "container:3f9ab0c1", "compose:shop/db"),
        ("file:/srv/db/**", "file:/data/x", "/srv/app/../db/x"),
    ],
)
def test_another_name_does_not_help(pattern: str, target: str, name: str) -> None:
    kind, _, identity = target.partition(":")
    assert _covers(pattern, kind, identity, name)
    assert not _covers(pattern, kind, identity, "innocent")


@given(parts=PATHS, beneath=st.lists(PARTS, max_size=3))
def test_whatever_lies_beneath_or_above_a_protected_path_is_covered(parts: list[str], beneath: list[str]) -> None:
    pattern = "file:/" + "/".join(parts)
    assert _covers(pattern, "file", "/" + "/".join([*parts, *beneath]))
    for depth in range(len(parts)):
        above = "/" + "/".join(parts[:depth])
        assert _covers(pattern, "file", above)
        assert not _covers(pattern, "file", above, above=False)


@given(parts=PATHS, other=PATHS)
def test_what_lies_elsewhere_is_free(parts: list[str], other: list[str]) -> None:
    folded = [part.casefold() for part in parts], [part.casefold() for part in other]
    shared = min(len(parts), len(other))
    related = folded[0][:shared] == folded[1][:shared]
    assert _covers("file:/" + "/".join(parts), "file", "/" + "/".join(other)) is related


@given(parts=PATHS, middle=st.lists(PARTS, max_size=3))
def test_two_stars_stand_for_any_number_of_components(parts: list[str], middle: list[str]) -> None:
    pattern = f"file:/top/**/{'/'.join(parts)}"
    assert _covers(pattern, "file", "/" + "/".join(["top", *middle, *parts]))


def test_a_folder_that_may_lead_to_something_protected_counts_when_the_change_recurses() -> None:
    assert not _covers("file:/srv/**/.env", "file", "/srv/app")
    assert _covers("file:/srv/**/.env", "file", "/srv/app", recursive=True)
    assert not _covers("file:/srv/**/.env", "file", "/opt/app", recursive=True)


def test_only_changes_and_their_undo_are_looked_at() -> None:
    database = Target(kind="unit", id="postgresql.service")
    web = Target(kind="unit", id="nginx.service")
    back = Step(verb="v", summary="s", targets=(database,))
    steps = (
        Step(verb="v", summary="looks", targets=(database,), changes=False),
        Step(verb="v", summary="changes something else", targets=(web,)),
        Step(verb="v", summary="nobody knows", targets=(database,), changes=False, opaque=True),
        Step(verb="v", summary="its undo touches it", targets=(web,), undo=back),
    )
    plan = Plan(action="a.b", args={}, summary="s", steps=steps)
    found = protected_targets(plan, Patterns(["unit:postgresql*"]))
    assert found == (Match(2, database, "unit:postgresql*"), Match(3, database, "unit:postgresql*"))


def test_links_in_a_pattern_are_followed_up_to_its_first_wildcard() -> None:
    def follow(path: str) -> str:
        return path.replace("/srv", "/mnt/disk", 1)

    assert resolve_paths(["file:/srv/db/**", "unit:/srv-like", "unit:x"], follow) == (
        "file:/srv/db/**",
        "file:/mnt/disk/db/**",
        "unit:/srv-like",
        "unit:/mnt/disk-like",
        "unit:x",
    )
    assert resolve_paths(["file:/**"], lambda path: path) == ("file:/**",)


def test_a_target_chosen_to_make_matching_slow_does_not() -> None:
    patterns = Patterns(["file:/**/a*a*a*a*a*b/**/c/**/d", "unit:*a*a*a*a*a*b"])
    began = time.process_time()
    patterns.match(Target(kind="file", id=("/" + "a" * 30) * 130), recursive=True)
    patterns.match(Target(kind="unit", id="a" * 4096))
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (Target(kind="unit", id="postgresql@15-main.service"), ("database",)),
        (Target(kind="container", id="9c1e", names=("shop-postgres-1",)), ("database",)),
        (Target(kind="file", id="/var/lib/mysql/ibdata1"), ("database",)),
        (Target(kind="unit", id="ssh.service"), ("access",)),
        (Target(kind="file", id="/home/a/.ssh/authorized_keys"), ("access",)),
        (Target(kind="file", id="/etc/nftables.conf"), ("firewall",)),
        (Target(kind="file", id="/etc"), ("access", "firewall")),
        (Target(kind="unit", id="nginx.service"), ()),
        (Target(kind="file", id="/srv/app/config.yaml"), ()),
    ],
)
def test_well_known_names_have_classes(target: Target, classes: tuple[str, ...]) -> None:
    assert classes_of(target) == classes
