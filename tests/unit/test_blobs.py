"""Bodies are kept encrypted, once, whole or not at all, and a changed file never passes for the body."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from interlock.core.errors import Invalid, NotFound, Permanent, Transient
from interlock.core.ports import Blobs
from interlock.engine.blobs import BODY_BYTES_MAX, FileBlobs
from interlock.engine.keys import blob_key, signing_key

BODY = b"password hunter2 is in this output\n" * 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def blobs(folder: Path) -> FileBlobs:
    return FileBlobs(folder, b"k" * 32)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_body_comes_back(blobs: FileBlobs) -> None:
    kept: Blobs = blobs
    digest = kept.put(BODY)
    assert digest == sha256(BODY).hexdigest()
    assert kept.get(digest) == BODY
    assert kept.get(kept.put(b"")) == b""


def test_only_its_owner_may_read_what_is_encrypted_anyway(blobs: FileBlobs, folder: Path) -> None:
    digest = blobs.put(BODY)
    path = folder / digest[:2] / digest
    assert b"hunter2" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert {place.stat().st_mode & 0o777 for place in (folder, path.parent)} == {0o700}


def test_the_same_body_is_kept_once(blobs: FileBlobs, folder: Path) -> None:
    digest = blobs.put(BODY)
    before = (folder / digest[:2] / digest).read_bytes()
    assert blobs.put(BODY) == digest
    assert [path.read_bytes() for path in files(folder)] == [before]
    assert list(blobs.digests()) == [digest]


@pytest.mark.parametrize("position", [0, 20, 40, -1])
def test_a_changed_file_is_refused_and_mended_by_the_next_put(blobs: FileBlobs, folder: Path, position: int) -> None:
    digest = blobs.put(BODY)
    path = folder / digest[:2] / digest
    body = bytearray(path.read_bytes())
    body[position] ^= 1
    path.write_bytes(body)
    with pytest.raises(Permanent) as raised:
        blobs.get(digest)
    assert raised.value.code == "blob.damaged"
    blobs.put(BODY)
    assert blobs.get(digest) == BODY


def test_one_file_cannot_stand_in_for_another(blobs: FileBlobs, folder: Path) -> None:
    one, two = blobs.put(b"one"), blobs.put(b"two")
    (folder / one[:2] / one).write_bytes((folder / two[:2] / two).read_bytes())
    with pytest.raises(Permanent):
        blobs.get(one)


@pytest.mark.parametrize("content", [b"", b"interlock-blob-1\n", b"plain text that is not ours"])
def test_a_file_cut_short_is_refused(blobs: FileBlobs, folder: Path, content: bytes) -> None:
    digest = blobs.put(BODY)
    (folder / digest[:2] / digest).write_bytes(content)
    with pytest.raises(Permanent):
        blobs.get(digest)


def test_another_key_does_not_open_it(blobs: FileBlobs, folder: Path) -> None:
    digest = blobs.put(BODY)
    with pytest.raises(Permanent):
        FileBlobs(folder, b"x" * 32).get(digest)


def test_what_was_pruned_is_not_found(blobs: FileBlobs) -> None:
    digest = blobs.put(BODY)
    assert blobs.prune(digest)
    assert not blobs.prune(digest)
    with pytest.raises(NotFound):
        blobs.get(digest)


def test_retention_forgets_what_nobody_put_again(blobs: FileBlobs, folder: Path) -> None:
    old, again, young = blobs.put(b"old"), blobs.put(b"again"), blobs.put(b"young")
    draft = folder / old[:2] / ".half.written"
    draft.write_bytes(b"left by a killed process")
    for path in (folder / old[:2] / old, folder / again[:2] / again, draft):
        os.utime(path, (1_000_000, 1_000_000))
    assert blobs.put(b"again") == again
    assert blobs.prune_older(datetime(2000, 1, 1, tzinfo=UTC)) == 2
    assert sorted(blobs.digests()) == sorted([again, young])
    assert not draft.exists()


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 63 + "\n"])
def test_only_a_digest_names_a_body(blobs: FileBlobs, digest: str) -> None:
    with pytest.raises(Invalid):
        blobs.get(digest)


def test_a_body_over_the_bound_is_refused(blobs: FileBlobs, folder: Path) -> None:
    with pytest.raises(Permanent) as raised:
        blobs.put(bytes(BODY_BYTES_MAX + 1))
    assert raised.value.code == "blob.too_large"
    assert not folder.exists()


@pytest.fixture
def no_file_over_4096_bytes() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_half_way_leaves_nothing(
    blobs: FileBlobs, folder: Path, no_file_over_4096_bytes: None
) -> None:
    with pytest.raises(Permanent) as raised:
        blobs.put(bytes(10_000))
    assert raised.value.code == "blob.unwritable"
    assert files(folder) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_transient(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, packed: bytes) -> None:
        with Path("/dev/full").open("wb", buffering=0) as device:
            device.write(packed)

    monkeypatch.setattr(blobs, "_write", full)
    with pytest.raises(Transient) as raised:
        blobs.put(BODY)
    assert raised.value.code == "blob.disk_full"


def test_many_threads_may_put_the_same_body(blobs: FileBlobs, folder: Path) -> None:
    digests: list[str] = []
    threads = [threading.Thread(target=lambda: digests.append(blobs.put(BODY))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 8
    assert len(files(folder)) == 1
    assert blobs.get(digests[0]) == BODY


def test_the_blob_key_is_made_once(tmp_path: Path) -> None:
    key = blob_key(tmp_path / "keys")
    assert len(key) == 32
    assert blob_key(tmp_path / "keys") == key


def test_a_signing_key_gets_a_name_of_its_own(tmp_path: Path) -> None:
    names = [signing_key(tmp_path / folder, "interlock/My Project+测试").name for folder in ("one", "two")]
    assert names[0] != names[1]
    assert all(name.startswith("interlock/My-Project-") for name in names)
    assert signing_key(tmp_path / "one", "another name").name == names[0]


def test_keys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    blob_key(folder)
    (folder / "blobs.key").chmod(0o640)
    with pytest.raises(Permanent) as raised:
        blob_key(folder)
    assert raised.value.code == "key.exposed"
    (folder / "blobs.key").chmod(0o600)
    folder.chmod(0o755)
    with pytest.raises(Permanent):
        blob_key(folder)


def test_a_linked_key_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    blob_key(folder)
    (folder / "blobs.key").rename(tmp_path / "elsewhere")
    (folder / "blobs.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Permanent):
        blob_key(folder)


@pytest.mark.parametrize("content", ["", "not base64 !", "AAAA"])
def test_damaged_keys_are_refused(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "keys"
    blob_key(folder)
    signing_key(folder, "log.example/one")
    for name in ("blobs.key", "evidence-ed25519.key"):
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(Permanent, match="damaged"):
        blob_key(folder)
    with pytest.raises(Permanent, match="damaged"):
        signing_key(folder, "log.example/one")


def test_a_public_key_that_was_swapped_is_found(tmp_path: Path) -> None:
    folder, other = tmp_path / "keys", tmp_path / "other"
    signing_key(folder, "log.example/one")
    signing_key(other, "log.example/one")
    (other / "evidence-ed25519.vkey").replace(folder / "evidence-ed25519.vkey")
    with pytest.raises(Permanent, match="replaced"):
        signing_key(folder, "log.example/one")
