"""A backup made under load brings everything back in an empty place; what is damaged or foreign is refused whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from harness.databases import database
from harness.resident import Resident, resident
from interlock.bootstrap import restore
from interlock.core.errors import InterlockError, Invalid, Permanent
from interlock.settings import Locations

CONFLICT, FAILED = 5, 1
ADOPTED = "report.nightly"
DEBIAN_SERVER = Path("/usr/lib/postgresql/15/bin")
MIGRATE = """
import asyncio, sys
from interlock.engine.db import DatabaseAddress, migrate
asyncio.run(migrate(DatabaseAddress(app=sys.argv[1], owner=sys.argv[2])))
"""


@dataclass(frozen=True)
class Kept:
    """A backup, what was there when it was begun, and the one it was made of."""

    source: Resident
    archive: Path
    runs: tuple[int, ...]
    undoable: int
    note: str


@pytest.fixture(scope="module")
def kept(postgres_endpoint: Any) -> Iterator[Kept]:
    """A backup that was made while four clients wrote."""
    with resident(postgres_endpoint, "permissive") as source:
        source.start()
        source.write("shop.txt", "old\n")
        undoable = source.write("shop.txt", "new\n")["number"]
        script = source.folder / "nightly.sh"
        script.write_text("#!/bin/sh\necho nightly\n")
        script.chmod(0o755)
        assert source.run("adopt", str(script), "--name", ADOPTED, "--reads-only", "--confirm").returncode == 0
        recorded: list[int] = []
        over = threading.Event()

        def write_on(name: str) -> None:
            while not over.is_set():
                recorded.append(source.write(name, f"{time.monotonic_ns()}\n")["number"])

        with ThreadPoolExecutor(4) as threads:
            clients = [threads.submit(write_on, f"load-{number}.txt") for number in range(4)]
            try:
                source.until(lambda: len(recorded) > 30)
                note = source.ask("audit_verify")["note"]
                before = tuple(recorded)
                archive = source.folder / "backup.tar.gz"
                done = source.run("backup", str(archive))
            finally:
                over.set()
            assert done.returncode == 0, done.stderr
            for client in clients:
                client.result()
        assert source.ask("audit_verify")["intact"] is True
        yield Kept(source, archive, before, undoable, note)


def _members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive, "r:gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def _epoch(made: Resident) -> int:
    with psycopg.connect(made.environment["INTERLOCK_DATABASE_OWNER_URL"]) as connection:
        row = connection.execute("select max(epoch) from checkpoint").fetchone()
    assert row is not None
    return int(row[0])


def test_a_backup_is_readable_by_its_owner_alone_and_holds_what_it_lists(kept: Kept) -> None:
    assert kept.archive.stat().st_mode & 0o777 == 0o600
    members = _members(kept.archive)
    manifest = json.loads(members.pop("manifest.json"))
    assert manifest["files"] == {name: hashlib.sha256(body).hexdigest() for name, body in members.items()}
    assert {"database.dump", "project/interlock.yaml", "state/keys/evidence-ed25519.key"} <= set(members)


def test_everything_comes_back_in_an_empty_place(kept: Kept, postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint, "permissive") as made:
        done = made.run("restore", str(kept.archive), "--yes")
        assert done.returncode == 0, done.stderr
        keys = made.state_folder / "keys"
        assert {path.stat().st_mode & 0o077 for path in (keys, *keys.iterdir())} == {0}
        made.start()
        for number in kept.runs:
            assert made.view("run", run=number)["state"] == "succeeded"
        restored = made.view("runs", limit=1)["runs"][0]["number"]
        assert made.ask("audit_verify", since=kept.note)["intact"] is True
        undone = made.ask("undo", run=kept.undoable, confirmed=True, wait_seconds=20)["run"]
        assert undone["state"] == "succeeded", undone["state_reason"]
        assert (kept.source.data / "shop.txt").read_text() == "old\n", "the original came out of the backup"
        assert made.run("exec", "--confirm", "--", ADOPTED).stdout == "nightly\n", "known by the key of the backup"
        assert made.write("after.txt", "x\n")["number"] > restored
        assert made.ask("audit_verify", since=kept.note)["intact"] is True
        assert _epoch(made) == 1, "sealed in another place than before"
        exported = made.folder / "export.tar.gz"
        assert made.run("audit", "export", str(exported)).returncode == 0
        assert _verified_alone(exported).returncode == 0


def _verified_alone(archive: Path) -> subprocess.CompletedProcess[str]:
    """By the verifier that lies in the archive, with nothing of ours."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["/bin/tar", "-xzf", str(archive), "-C", folder], check=True)
        (program,) = Path(folder).rglob("verify.py")
        command = [sys.executable, "-I", str(program), str(program.parent)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def test_restore_keeps_away_from_an_installation_that_has_data_or_runs(kept: Kept) -> None:
    done = kept.source.run("restore", str(kept.archive), "--yes")
    assert (done.returncode, "running" in done.stderr) == (CONFLICT, True)
    runs = kept.source.view("runs", limit=1)
    kept.source.stop()
    try:
        done = kept.source.run("restore", str(kept.archive), "--yes")
        assert (done.returncode, "holds an installation already" in done.stderr) == (CONFLICT, True)
    finally:
        kept.source.start()
    assert kept.source.view("runs", limit=1) == runs


def _packed(path: Path, members: dict[str, bytes], **more: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
        for member in more.values():
            tar.addfile(member)


def _signed(members: dict[str, bytes]) -> dict[str, bytes]:
    """With a manifest that fits: whoever can write the archive can write that as well."""
    manifest = json.loads(members["manifest.json"])
    rest = {name: body for name, body in members.items() if name != "manifest.json"}
    manifest["files"] = {name: hashlib.sha256(body).hexdigest() for name, body in rest.items()}
    return {**rest, "manifest.json": json.dumps(manifest).encode()}


def _flip_in_the_middle(archive: Path, members: dict[str, bytes]) -> None:
    body = bytearray(archive.read_bytes())
    body[len(body) // 2] ^= 0xFF
    archive.write_bytes(body)


def _cut(archive: Path, members: dict[str, bytes]) -> None:
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size * 2 // 3])


def _other_key(archive: Path, members: dict[str, bytes]) -> None:
    _packed(archive, {**members, "state/keys/blobs.key": b"A" * 44 + b"\n"})


def _extra_file(archive: Path, members: dict[str, bytes]) -> None:
    _packed(archive, {**members, "state/keys/authorized": b"x"})


def _missing_dump(archive: Path, members: dict[str, bytes]) -> None:
    _packed(archive, {name: body for name, body in members.items() if name != "database.dump"})


def _climbs_out(archive: Path, members: dict[str, bytes]) -> None:
    _packed(archive, _signed({**members, "../../climbed": b"x"}))


def _absolute(archive: Path, members: dict[str, bytes]) -> None:
    _packed(archive, _signed({**members, f"{archive.parent}/climbed": b"x"}))


def _link(archive: Path, members: dict[str, bytes]) -> None:
    member = tarfile.TarInfo("state/keys/link")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    _packed(archive, members, link=member)


def _no_archive(archive: Path, members: dict[str, bytes]) -> None:
    archive.write_bytes(b"not an archive at all")


def _foreign_archive(archive: Path, members: dict[str, bytes]) -> None:
    _packed(archive, {"etc/passwd": b"root"})


def _another_format(archive: Path, members: dict[str, bytes]) -> None:
    manifest = json.loads(members["manifest.json"]) | {"format": "interlock-backup-9"}
    _packed(archive, {**members, "manifest.json": json.dumps(manifest).encode()})


def _dump_that_is_none(archive: Path, members: dict[str, bytes]) -> None:
    _packed(archive, _signed({**members, "database.dump": b"drop everything"}))


def _dump_that_ends_early(archive: Path, members: dict[str, bytes]) -> None:
    dump = members["database.dump"]
    _packed(archive, _signed({**members, "database.dump": dump[: len(dump) // 2]}))


SPOILED: dict[Callable[[Path, dict[str, bytes]], None], type[InterlockError]] = {
    _flip_in_the_middle: Invalid,
    _cut: Invalid,
    _other_key: Invalid,
    _extra_file: Invalid,
    _missing_dump: Invalid,
    _climbs_out: Invalid,
    _absolute: Invalid,
    _link: Invalid,
    _no_archive: Invalid,
    _foreign_archive: Invalid,
    _another_format: Invalid,
    _dump_that_is_none: Permanent,
    _dump_that_ends_early: Permanent,
}


def test_a_spoiled_archive_is_refused_and_nothing_is_half_done(kept: Kept, postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint, "permissive") as made:
        app, owner = (made.environment[f"INTERLOCK_DATABASE_{word}"] for word in ("URL", "OWNER_URL"))
        locations = Locations(made.folder / "project" / "interlock.yaml", made.state_folder, made.folder / "run")
        archive, members = made.folder / "spoiled.tar.gz", _members(kept.archive)
        for spoil, expected in SPOILED.items():
            shutil.copy(kept.archive, archive)
            spoil(archive, dict(members))
            with pytest.raises(expected) as caught:
                restore(archive, locations, app, owner)
            assert caught.value.fix, spoil.__name__
            assert not list(made.state_folder.iterdir()), f"{spoil.__name__} left something behind"
            assert not (made.folder / "climbed").exists()
            assert _tables(made) == 0, spoil.__name__
        done = made.run("restore", str(archive), "--yes")
        assert (done.returncode, "Traceback" in done.stderr) == (FAILED, False)
        _packed(archive, _signed(members))
        restore(archive, locations, app, owner)
        assert _tables(made) > 0, "packed anew it is what it was"


def _tables(made: Resident) -> int:
    with psycopg.connect(made.environment["INTERLOCK_DATABASE_OWNER_URL"]) as connection:
        row = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
    assert row is not None
    return int(row[0])


# The schema.


def test_a_schema_newer_than_the_program_is_refused_and_left_alone(postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint, "permissive") as made:
        made.start().stop()
        with psycopg.connect(made.environment["INTERLOCK_DATABASE_OWNER_URL"]) as connection:
            connection.execute("update schema_version set version_num = '9999'")
        serve = made.spawn()
        assert serve.wait(60) == FAILED
        assert "a newer Interlock made it" in made.log
        assert "restore the backup" in made.log
        done = made.run("status", "--output", "json")
        assert done.returncode == FAILED
        assert "a newer Interlock made it" in done.stdout + done.stderr
        with psycopg.connect(made.environment["INTERLOCK_DATABASE_OWNER_URL"]) as connection:
            assert connection.execute("select version_num from schema_version").fetchall() == [("9999",)]


def test_many_processes_may_migrate_at_once(postgres_endpoint: Any) -> None:
    with database(postgres_endpoint) as (_, owner, app):
        command = [sys.executable, "-c", MIGRATE, app, owner]
        all_of_them = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(6)]
        for process in all_of_them:
            _, complaint = process.communicate(timeout=60)
            assert process.returncode == 0, complaint.decode()
        with psycopg.connect(app) as connection:
            assert len(connection.execute("select * from schema_version").fetchall()) == 1


# A PostgreSQL that somebody else runs.


@contextmanager
def _debian_server() -> Iterator[str]:
    """A server as an operator would run it, with passwords; the address of one who may do everything."""
    account: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="il-pg-", dir="/tmp") as text:
        folder, password = Path(text), secrets.token_hex(8)
        (folder / "password").write_text(password)
        if os.geteuid() == 0:
            account = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(folder / "password", "postgres", "postgres")
        make = [
            DEBIAN_SERVER / "initdb",
            "-D",
            folder / "data",
            "-U",
            "root",
            "-A",
            "scram-sha-256",
            "-N",
            "-E",
            "UTF8",
        ]
        make += [f"--pwfile={folder}/password", "--no-instructions", "--locale=C"]
        subprocess.run(make, check=True, capture_output=True, cwd="/", **account)
        options = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off")
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [DEBIAN_SERVER / "postgres", "-D", folder / "data", *options], stderr=log, cwd="/", **account
            )
        try:
            address = f"postgresql://root:{password}@/postgres?host={quote(str(folder), safe='')}"
            Resident.until(lambda: _takes_connections(address))
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _takes_connections(address: str) -> bool:
    try:
        psycopg.connect(address).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="module")
def debian() -> Iterator[str]:
    if not (DEBIAN_SERVER / "postgres").exists():
        pytest.skip(f"there is no PostgreSQL in {DEBIAN_SERVER}")
    with _debian_server() as address:
        yield address


def _database_of(address: str, name: str, *roles: str) -> list[str]:
    """A database that belongs to the first role; how each role connects. Passwords are awkward."""
    addresses = []
    with psycopg.connect(address, autocommit=True) as connection:
        for role in roles:
            password = f"{secrets.token_hex(4)} @:/?#%'\"\\=&"
            connection.execute(
                sql.SQL("create role {} login password {}").format(sql.Identifier(role), sql.Literal(password))
            )
            _, _, rest = address.rpartition("@/postgres")
            addresses.append(f"postgresql://{role}:{quote(password, safe='')}@/{name}{rest}")
        connection.execute(
            sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(roles[0]))
        )
    return addresses


@pytest.mark.parametrize("roles", [("shop_owner",), ("fair_owner", "fair_app")], ids=["one-role", "two-roles"])
def test_somebody_elses_server_serves_with_one_role_or_two(debian: str, roles: tuple[str, ...]) -> None:
    owner, *rest = _database_of(debian, f"db_{roles[0]}", *roles)
    with resident(None, "permissive") as made:
        made.environment["INTERLOCK_DATABASE_URL"] = app = rest[0] if rest else owner
        if rest:
            made.environment["INTERLOCK_DATABASE_OWNER_URL"] = owner
        made.start()
        assert made.ask("hello")["database"] == {"kind": "external", "separated": bool(rest)}
        assert made.write("a.txt", "x\n")["state"] == "succeeded"
        warned = [finding["message"] for finding in made.ask("check")["findings"] if "one role" in finding["message"]]
        assert bool(warned) is not bool(rest)
        told = "permission denied" if rest else "append-only"
        with psycopg.connect(app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege, match=told):
            connection.execute("delete from evidence")
        archive = made.folder / "backup.tar.gz"
        done = made.run("backup", str(archive))
        assert done.returncode == 0, done.stderr
        made.stop()
        assert app.split(":")[2].partition("%")[0] not in made.log, "no part of the password"
        _restores_elsewhere(debian, archive, made, tuple(f"{role}_2" for role in roles))


def _restores_elsewhere(debian: str, archive: Path, source: Resident, roles: tuple[str, ...]) -> None:
    owner, *rest = _database_of(debian, f"db_{roles[0]}", *roles)
    with resident(None, "permissive") as made:
        made.environment["INTERLOCK_DATABASE_URL"] = rest[0] if rest else owner
        if rest:
            made.environment["INTERLOCK_DATABASE_OWNER_URL"] = owner
        done = made.run("restore", str(archive), "--yes")
        assert done.returncode == 0, done.stderr
        made.start()
        assert made.ask("audit_verify")["intact"] is True
        undone = made.ask("undo", run=1, confirmed=True, wait_seconds=20)["run"]
        assert undone["state"] == "succeeded"
        assert not (source.data / "a.txt").exists()


def test_a_role_that_may_not_make_tables_is_told_what_is_missing(debian: str) -> None:
    _, stranger = _database_of(debian, "db_strange", "strange_owner", "strange_app")
    with resident(None, "permissive") as made:
        made.environment["INTERLOCK_DATABASE_URL"] = stranger
        done = made.run("status", "--output", "json")
        assert done.returncode == FAILED
        error = json.loads(done.stdout)["data"]["error"]
        assert error["code"] == "database.migration"
        assert "permission denied for schema public" in error["message"]


def test_a_server_that_is_not_there_is_said_so_in_words(postgres_endpoint: Any) -> None:
    with resident(None, "permissive") as made:
        made.environment["INTERLOCK_DATABASE_URL"] = "postgresql://nobody:secretly@/nothing?host=/nonexistent"
        done = made.run("status", "--output", "json")
        assert done.returncode == FAILED
        error = json.loads(done.stdout)["data"]["error"]
        assert (error["kind"], error["code"]) == ("transient", "database.unreachable")
        assert "/nonexistent" in error["message"]
        assert "secretly" not in done.stdout + done.stderr
        with pytest.raises(InterlockError):
            made.ask("hello")
