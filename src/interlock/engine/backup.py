"""One archive with everything that makes an installation: database, keys, bodies, configuration, policies."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO

from interlock.core.errors import Invalid, Permanent
from interlock.core.model import JsonObject
from interlock.engine.project_file import environments_of, overlay_file
from interlock.lib.clock import rfc3339

FORMAT = "interlock-backup-1"
MANIFEST = "manifest.json"
DATABASE = "database.dump"
MEMBERS_MAX = 1_000_000
MANIFEST_BYTES_MAX = 256 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
STATE_PARTS = ("keys", "blobs")
ENVIRONMENT_FILE = "environment"
"""Which environment ran: what is restored runs as the same one."""


@dataclass(frozen=True)
class BackupParts:
    """Where the parts lie; `dump` writes the database in pg_dump's custom format."""

    state_folder: Path
    project_file: Path
    policies: tuple[Path, ...]
    dump: Callable[[IO[bytes]], None]


@dataclass(frozen=True)
class Backup:
    """A finished archive. It holds the keys: whoever reads it can read everything."""

    path: Path
    sha256: str


def write_backup(parts: BackupParts, folder: Path, now: datetime) -> Backup:
    """Write `interlock-backup-<time>.tar.gz` (0600) into `folder`.

    Bodies and keys are only ever added, so that what was dumped first never misses what it names.
    """
    path = folder / f"interlock-backup-{now:%Y%m%d-%H%M%S}.tar.gz"
    manifest: dict[str, str] = {}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        dump = folder / DATABASE
        with dump.open("w+b") as body:
            dump.chmod(0o600)
            parts.dump(body)
        manifest[DATABASE] = _add(tar, dump, DATABASE)
        dump.unlink()
        for source, name in _files(parts):
            manifest[name] = _add(tar, source, name)
        head: JsonObject = {"format": FORMAT, "at": rfc3339(now), "files": dict(manifest)}
        text = json.dumps(head, indent=1).encode()
        member = tarfile.TarInfo(MANIFEST)
        member.size, member.mode = len(text), 0o600
        tar.addfile(member, io.BytesIO(text))
    return Backup(path, _sha256(path))


def unpack_backup(archive: Path, folder: Path) -> JsonObject:
    """Unpack an archive into an empty folder, and compare every file with the manifest.

    Raises: Invalid when it is no backup, is damaged, or names a place outside itself.
    """
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            for count, member in enumerate(tar):
                if count > MEMBERS_MAX or not member.isfile():
                    msg = f"{archive} holds something else than files: {member.name}"
                    raise Invalid(msg, code="backup.member", fix="use another copy of it")
                _unpack(tar, member, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        msg = f"{archive} cannot be read as a backup: {error}"
        raise Invalid(msg, code="backup.unreadable", fix="use another copy of it") from error
    manifest = _read_manifest(folder / MANIFEST, archive)
    files = manifest["files"]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    if not isinstance(files, dict) or found != set(files):
        msg = f"{archive} does not hold what its manifest lists"
        raise Invalid(msg, code="backup.incomplete", fix="use another copy of it")
    for name, digest in files.items():
        if _sha256(folder / name) != digest:
            msg = f"{name} in {archive} is not what was saved"
            raise Invalid(msg, code="backup.damaged", fix="use another copy of it")
    return manifest


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """One file, to where its name says below `folder`, for its owner alone. The filters of `tarfile` are not in every
    Python 3.11. Raises tarfile.TarError for a name that leads elsewhere."""
    parts = PurePosixPath(member.name).parts
    body = tar.extractfile(member)
    if body is None or not parts or member.name.startswith("/") or ".." in parts:
        msg = f"{member.name} lies outside"
        raise tarfile.TarError(msg)
    place = folder.joinpath(*parts)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with body, os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        shutil.copyfileobj(body, file)


def verify_backup(archive: Path, folder: Path) -> JsonObject:
    """Unpack and compare the whole archive in a place of its own below `folder`, and keep nothing of it.

    Returns: the manifest. Raises: as `unpack_backup`; Permanent when there is no room to unpack it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".interlock-verify-", dir=folder) as place:
            return unpack_backup(archive, Path(place))
    except OSError as error:
        msg = f"the backup cannot be unpacked below {folder} to verify it: {error.strerror or error}"
        raise Permanent(msg, code="backup.unpack", fix="make room there, or let this account write there") from error


def _read_manifest(path: Path, archive: Path) -> JsonObject:
    if not path.is_file() or path.stat().st_size > MANIFEST_BYTES_MAX:
        msg = f"{archive} has no manifest: it is not a backup of Interlock"
        raise Invalid(msg, code="backup.no_manifest", fix="use another copy of it")
    try:
        manifest: JsonObject | list[str] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"the manifest of {archive} is damaged"
        raise Invalid(msg, code="backup.no_manifest", fix="use another copy of it") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        msg = f"{archive} is of a format that this version does not know"
        raise Invalid(msg, code="backup.format", fix="restore it with the version that made it")
    return manifest


def _files(parts: BackupParts) -> Iterator[tuple[Path, str]]:
    for part in STATE_PARTS:
        root = parts.state_folder / part
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path, str(PurePosixPath("state", part, path.relative_to(root)))
    yield parts.project_file, "project/interlock.yaml"
    for name in environments_of(parts.project_file):
        yield overlay_file(parts.project_file, name), f"project/interlock.{name}.yaml"
    record = parts.state_folder / ENVIRONMENT_FILE
    if record.is_file() and not record.is_symlink():
        yield record, f"state/{ENVIRONMENT_FILE}"
    for folder in parts.policies:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path, str(PurePosixPath("project", folder.name, path.relative_to(folder)))


def _add(tar: tarfile.TarFile, source: Path, name: str) -> str:
    with source.open("rb") as file:
        member = tarfile.TarInfo(name)
        found = os.fstat(file.fileno())
        # Retention goes by the age of a body: without it everything would come back old enough to be pruned.
        member.size, member.mode, member.mtime = found.st_size, 0o600, int(found.st_mtime)
        reader = _Hashing(file)
        tar.addfile(member, reader)
        return reader.digest.hexdigest()


class _Hashing:
    """Reads a file and digests what it read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """As a file does."""
        piece = self._file.read(size)
        self.digest.update(piece)
        return piece


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
