"""`interlock doctor` finds real trouble, names its command, and changes nothing; with and without a process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from interlock.adapters.remote_hosts import SshHosts
from interlock.core.remote_host import RemoteHost

if TYPE_CHECKING:
    from conftest import Shop


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@pytest.fixture(scope="module")
def shop(make_shop: Callable[[], Shop]) -> Shop:
    """A process serves it."""
    made = make_shop()
    made.set_up()
    assert made.run("exec", "--", "uptime").returncode == 0
    return made


def _findings(shop: Shop, code: int | None = 0, **environment: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop.json("doctor", code=code, **environment)["data"]["findings"]
    return [finding for finding in found if finding["area"] != "clusters"]  # other people's, on a shared machine


def _bad(shop: Shop, code: int | None = 0, **environment: str) -> list[tuple[str, str]]:
    bad = [finding for finding in _findings(shop, code, **environment) if finding["level"] != "ok"]
    assert all(finding["why"] and finding["command"] for finding in bad)
    return [(finding["area"], finding["message"]) for finding in bad]


@contextmanager
def _owner(shop: Shop) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shop.environment["INTERLOCK_DATABASE_OWNER_URL"], autocommit=True) as connection:
        yield connection


def test_without_a_process_it_looks_at_what_can_be_looked_at_and_starts_none(make_shop: Callable[[], Shop]) -> None:
    shop = make_shop()
    shop.set_up()
    areas = {finding["area"] for finding in _findings(shop)}
    assert {"tools", "rights", "socket", "clock", "disk", "policies", "keys", "database"} <= areas
    assert ("database", "the tables are not made yet") in _bad(shop)
    assert not (shop.folder / ".interlock").exists(), "it makes nothing"
    wrong = make_conninfo(shop.environment["INTERLOCK_DATABASE_URL"], host="/nowhere")
    assert "database" in dict(_bad(shop, 1, INTERLOCK_DATABASE_URL=wrong))


def test_a_sound_installation_has_no_error(shop: Shop) -> None:
    assert _bad(shop) == []
    assert "interlock_app" in str(_findings(shop))
    text = shop.run("doctor").stdout
    assert "0 errors" in text
    assert {"log", "database", "keys"} <= {finding["area"] for finding in _findings(shop)}


def test_rights_that_the_working_role_should_not_have_are_found(shop: Shop) -> None:
    with _owner(shop) as owner:
        owner.execute("grant update on evidence to interlock_app")
        try:
            assert ("database", "the role interlock_app has UPDATE on evidence") in _bad(shop, 1)
        finally:
            owner.execute("revoke update on evidence from interlock_app")
        owner.execute("alter table evidence disable trigger user")
        try:
            assert any("no trigger guards evidence" in message for _, message in _bad(shop, 1))
        finally:
            owner.execute("alter table evidence enable trigger user")
        (revision,) = owner.execute("select version_num from schema_version").fetchone() or ("",)
        owner.execute("update schema_version set version_num = '9999'")
        try:
            assert any("9999" in message for _, message in _bad(shop, 1))
        finally:
            owner.execute("update schema_version set version_num = %s", (revision,))
    assert _bad(shop) == []


def test_what_others_may_read_or_write_is_found_with_its_chmod(shop: Shop) -> None:
    key = shop.folder / ".interlock" / "keys" / "blobs.key"
    file = shop.folder / "interlock.yaml"
    key.chmod(0o644)
    file.chmod(0o666)
    try:
        commands = {finding["command"] for finding in _findings(shop, 1) if finding["level"] == "error"}
        assert {f"chmod go= {key}", f"chmod go-w {file}"} <= commands
    finally:
        key.chmod(0o600)
        file.chmod(0o644)
    assert _bad(shop) == []


def test_declared_targets_that_do_not_answer_and_broken_files_are_found(shop: Shop) -> None:
    file = shop.folder / "interlock.yaml"
    text = file.read_text()
    sections = 'databases: {shop: {url: "postgresql://127.0.0.1:1/x", read_user: r}}\ncontexts: {no-such-tool: {}}\n'
    file.write_text(text + sections)
    host = RemoteHost(name="far", user="ops", address="127.0.0.1", port=1, host_keys=(KEY,))
    SshHosts(shop.folder / ".interlock" / "hosts").add(host)
    assert shop.run("policy", "reload").returncode == 0
    bad = _bad(shop, 1)
    assert ("reach", "hosts.far cannot be reached at 127.0.0.1:1: Connection refused") in bad
    SshHosts(shop.folder / ".interlock" / "hosts").remove("far")
    assert ("reach", "databases.shop cannot be reached at 127.0.0.1:1: Connection refused") in bad
    assert ("tools", "there is no program no-such-tool") in bad
    file.write_text(text + "presset: x\n")
    assert any("presset" in message for _, message in _bad(shop, 1))
    file.write_text(text)
    assert shop.run("policy", "reload").returncode == 0
    assert _bad(shop) == []


def test_a_process_that_was_killed_leaves_a_socket_that_is_found(shop: Shop) -> None:
    pid = shop.json("status")["data"]["resident"]["pid"]
    os.kill(pid, signal.SIGKILL)
    door = shop.folder / "run" / "door.sock"
    while True:  # until the kernel has closed what it listened on
        bad = _findings(shop, None)
        if any(finding["command"] == f"rm {door}" for finding in bad):
            break
    assert door.exists(), "it removes nothing itself"
    assert shop.run("status").returncode == 0
    assert _bad(shop) == []


def test_it_says_which_version_runs(shop: Shop) -> None:
    assert any(finding["area"] == "resident" and "runs here" in finding["message"] for finding in _findings(shop))


def test_orphans_are_not_removed_unless_somebody_says_so(shop: Shop) -> None:
    done = shop.json("doctor", "--remove-orphans", code=None)
    assert done["data"]["removed"] == []
    assert done["status"] == ("proposed" if any(not each["running"] for each in done["data"]["orphans"]) else "ok")
