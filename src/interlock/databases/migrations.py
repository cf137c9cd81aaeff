"""A folder of numbered .sql files: which are due, in which order, and what must not be so."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from interlock.core.databases import SCRIPT_BYTES_MAX, UNFINISHED, MigrationScript, SqlParser
from interlock.core.errors import Conflict, Denied, Invalid, NotFound, Stale

FILES_MAX = 2000
NO_TRANSACTION = re.compile(r"^--[ \t]*interlock:[ \t]*no transaction[ \t]*$", re.MULTILINE)
_NAME = re.compile(r"(?P<version>[0-9]{1,14})_[A-Za-z0-9_.-]+?(?P<down>\.down)?\.sql")
_REFUSED = {
    "transaction_stmt": "it begins or ends a transaction, which Interlock does",
    "copy_stmt": "it copies from or to somewhere else",
    "load_stmt": "it loads a library",
    "alter_system_stmt": "it changes the server",
    "createdb_stmt": "it makes a database",
    "dropdb_stmt": "it drops a database",
}


@dataclass(frozen=True)
class MigrationFile:
    """One file as it is on disk. `down` takes it back."""

    version: str
    name: str
    sha256: str
    text: str
    down: MigrationFile | None = None


def read_folder(folder: Path) -> tuple[MigrationFile, ...]:
    """All files, in order of their numbers.

    Raises: NotFound (no such folder), Invalid (two files of one number, a name that is none, a file that is too large).
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    except OSError as error:
        msg = f"the migration folder {folder} cannot be read: {error.strerror}"
        raise NotFound(msg, code="sql.no_migrations", fix="name a folder under databases.NAME.migrations") from None
    if len(names) > FILES_MAX:
        msg = f"{folder} holds {len(names)} files; at most {FILES_MAX} are read"
        raise Invalid(msg, code="sql.too_many_migrations", fix="put old ones together")
    ups: dict[int, MigrationFile] = {}
    downs: dict[int, MigrationFile] = {}
    for name in names:
        matched = _NAME.fullmatch(name)
        if matched is None:
            msg = f"{name} is not called NUMBER_NAME.sql or NUMBER_NAME.down.sql"
            raise Invalid(msg, code="sql.migration_name", fix="rename it")
        found = downs if matched["down"] else ups
        number = int(matched["version"])
        if number in found:
            msg = f"{name} and {found[number].name} have one number"
            raise Invalid(msg, code="sql.migration_twice", fix="renumber one of them")
        found[number] = read_migration(folder, name)
    return tuple(
        MigrationFile(each.version, each.name, each.sha256, each.text, downs.get(number))
        for number, each in sorted(ups.items())
    )


def read_migration(folder: Path, name: str) -> MigrationFile:
    """One file, never through a link. Raises NotFound, Invalid."""
    matched = _NAME.fullmatch(name)
    if matched is None:
        msg = f"{name} is not the name of a migration"
        raise Invalid(msg, code="sql.migration_name", fix="rename it")
    body = b""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            body = file.read(SCRIPT_BYTES_MAX + 1)
        text = body.decode()
    except OSError as error:
        msg = f"the migration {name} cannot be read: {error.strerror}"
        raise NotFound(msg, code="sql.no_migration", fix="let it be a plain file of the folder") from None
    except UnicodeDecodeError:
        text = ""
    if not text or len(body) > SCRIPT_BYTES_MAX:
        msg = f"the migration {name} is empty, is not text, or is longer than {SCRIPT_BYTES_MAX} bytes"
        raise Invalid(msg, code="sql.migration_text", fix="split it")
    return MigrationFile(str(int(matched["version"])), name, hashlib.sha256(body).hexdigest(), text)


def due(files: tuple[MigrationFile, ...], applied: dict[str, str], to: str | None) -> tuple[MigrationFile, ...]:
    """The files that were not applied yet, up to the number `to`.

    Raises: Conflict when an applied file changed, is gone or broke off, or one that is due comes before an applied one.
    """
    known = {each.version: each for each in files}
    for version, sha256 in applied.items():
        if version not in known:
            msg = f"version {version} was applied, and its file is gone"
            raise Conflict(msg, code="sql.migration_gone", fix="bring the file back as it was applied")
        if sha256.startswith(UNFINISHED):
            msg = f"{known[version].name} broke off in the middle"
            raise Conflict(msg, code="sql.half_migrated", fix="settle its Run: interlock resolve")
        if known[version].sha256 != sha256:
            msg = f"{known[version].name} was changed after it was applied"
            raise Conflict(msg, code="sql.migration_changed", fix="bring it back as it was, and add a new file")
    last = max(map(int, applied), default=-1)
    found = [each for each in files if each.version not in applied and (to is None or int(each.version) <= int(to))]
    for each in found:
        if int(each.version) < last:
            msg = f"{each.name} stands before version {last}, which was applied already"
            raise Conflict(msg, code="sql.migration_order", fix="give it a number behind those that were applied")
    return tuple(found)


def script_of(file: MigrationFile, parser: SqlParser, *, reverts: bool) -> MigrationScript:
    """The file's statements. Raises Invalid (no SQL), Denied (a statement that no migration may hold)."""
    statements = parser.split(file.text)
    for number, statement in enumerate(statements, 1):
        why = _REFUSED.get(statement.root)
        if why is not None:
            msg = f"statement {number} of {file.name}: {why}"
            raise Denied(msg, code="sql.refused", fix="leave it out")
    if not statements:
        msg = f"{file.name} holds no statement"
        raise Invalid(msg, code="sql.statements", fix="write one, or remove the file")
    return MigrationScript(
        version=file.version,
        name=file.name,
        sha256=file.sha256,
        statements=tuple(statement.text for statement in statements),
        transactional=is_transactional(file),
        reverts=reverts,
    )


def is_transactional(file: MigrationFile) -> bool:
    """Whether a file is applied in one transaction: unless it says `-- interlock: no transaction` on a line."""
    return NO_TRANSACTION.search(file.text) is None


def require_same(file: MigrationFile, sha256: str) -> None:
    """Raises Stale when a file is not as it was planned."""
    if file.sha256 != sha256:
        msg = f"{file.name} changed after the plan was made; nothing was applied"
        raise Stale(msg, code="sql.migration_changed", fix="ask again to see the new plan")
