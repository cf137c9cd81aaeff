"""Collects the files of an export, signs a statement over them, and packs them: same files, same bytes."""

from __future__ import annotations

import base64
import gzip
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import IO, Self

from interlock.core.model import JsonObject
from interlock.engine.keys import sync_folder
from interlock.lib.canonical import canonical_bytes
from interlock.lib.note import SigningKey

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:interlock:audit-export:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "statement.dsse.json"


class ArchiveDraft:
    """A private folder with the files of an archive to be."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[str] = []

    @classmethod
    @contextmanager
    def within(cls, folder: Path) -> Iterator[Self]:
        """A draft beside where the archive will lie; whatever happens, nothing of it is left."""
        with tempfile.TemporaryDirectory(prefix=".interlock-export-", dir=folder) as draft:
            yield cls(Path(draft))

    def open(self, name: str) -> IO[bytes]:
        """A new file of the archive, to be written by the caller."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._names.append(name)
        return path.open("xb")

    def add(self, name: str, body: bytes) -> None:
        """A new file of the archive."""
        with self.open(name) as file:
            file.write(body)

    def sign(self, key: SigningKey, predicate: JsonObject) -> None:
        """Add a DSSE envelope around an in-toto statement that names every file so far with its SHA-256."""
        subjects = [{"digest": {"sha256": self._digest(name)}, "name": name} for name in sorted(self._names)]
        payload = canonical_bytes(
            {"_type": STATEMENT_TYPE, "predicate": predicate, "predicateType": PREDICATE_TYPE, "subject": subjects}
        )
        signature = {
            "keyid": key.verifier.fingerprint,
            "sig": base64.b64encode(key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))).decode(),
        }
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [signature],
        }
        self.add(STATEMENT, canonical_bytes(envelope) + b"\n")

    def pack(self, target: Path) -> str:
        """Write the archive under its name, whole or not at all, readable by nobody else; returns its SHA-256.

        Every name lies under one folder called as the archive. Order, times, owners and modes are fixed.
        """
        packed = self._folder.with_name(self._folder.name + ".tar.gz")
        try:
            with packed.open("xb") as raw:
                packed.chmod(0o600)
                self._write(raw, target.name.removesuffix(".tar.gz"))
                raw.flush()
                os.fsync(raw.fileno())
            with packed.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
            packed.replace(target)
        finally:
            packed.unlink(missing_ok=True)
        sync_folder(target.parent)
        return digest

    def _write(self, raw: IO[bytes], top: str) -> None:
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name in sorted(self._names):
                member = tarfile.TarInfo(f"{top}/{name}")
                path = self._folder / name
                member.size, member.mode = path.stat().st_size, 0o644
                with path.open("rb") as file:
                    archive.addfile(member, file)

    def _digest(self, name: str) -> str:
        with (self._folder / name).open("rb") as file:
            return file_digest(file, "sha256").hexdigest()


def pre_authentication_encoding(kind: str, payload: bytes) -> bytes:
    """What a DSSE signature is made over (the DSSE protocol's PAE)."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)
