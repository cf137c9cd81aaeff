"""The stand-alone verifier accepts an honest export and names what was done to any other."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from interlock.core.checkpoint import Checkpoint, link_of
from interlock.core.evidence import GENESIS, EvidenceKind, evidence_line, leaf_hash
from interlock.engine.audit import verify_bundle
from interlock.engine.audit.archive import ArchiveDraft
from interlock.engine.audit.receipt import Receipt, ReceiptRow
from interlock.lib.canonical import canonical_bytes
from interlock.lib.merkle import Frontier, Tree
from interlock.lib.note import SigningKey, sign_note

NAME = "log.example/team"
KEY, ATTACKER = SigningKey.generate(NAME), SigningKey.generate(NAME)
AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
RUNS, SIZES, PER_FILE = 6, (5, 9, 24), 10


def entries(*, skip: int | None = None, state: str = "succeeded") -> list[tuple[int, str]]:
    """(run, line) of every row; the first rows of all Runs come first, so that chains interleave."""
    chains: dict[int, list[tuple[int, str]]] = {}
    for run in range(1, RUNS + 1):
        previous, rows = GENESIS, []
        steps = [
            ("asked", {"digest": f"{run:064x}"}),
            ("decided", {}),
            ("done", {"ok": True}),
            ("closed", {"state": state}),
        ]
        for seq, (kind, data) in enumerate(steps, start=1):
            evidence = evidence_line(run, seq, EvidenceKind(kind), AT, data, previous)
            previous = evidence.hash
            rows.append((run, evidence.line))
        chains[run] = rows
    return [chains[run][seq] for seq in range(4) for run in chains if run != skip]


@dataclass
class Log:
    """Everything an export is made from; an attack changes it before or after it is signed."""

    key: SigningKey = KEY
    lines: list[tuple[int, str]] = field(default_factory=entries)
    sizes: tuple[int, ...] = SIZES
    statement_key: SigningKey | None = None

    def notes(self) -> list[str]:
        """The signed checkpoints, in order."""
        frontier, notes = Frontier(), [""]
        for _, line in self.lines:
            frontier.append(bytes.fromhex(leaf_hash(line.encode())))
            if frontier.size in self.sizes:
                checkpoint = Checkpoint(
                    origin=self.key.name,
                    size=frontier.size,
                    root=frontier.root().hex(),
                    prev=link_of(notes[-1] or None),
                    at="2026-03-01T09:30:00.000000Z",
                    epoch=0,
                    home="1-2-3",
                )
                notes.append(sign_note(checkpoint.text(), self.key))
        return notes[1:]

    def closed(self) -> list[bytes]:
        """The lines of runs.jsonl."""
        told = []
        for run, line in self.lines:
            value = json.loads(line)
            if value["kind"] == "closed":
                row = {
                    "run": run,
                    "state": value["data"]["state"],
                    "digest": f"{run:064x}",
                    "head": leaf_hash(line.encode()),
                }
                told.append(canonical_bytes(row))
        return told

    def files(self, start: int = 0) -> dict[str, bytes]:
        """What an export holds, from leaf `start` on."""
        notes = self.notes()
        late = [(size, note) for size, note in zip(self.sizes, notes, strict=False) if size > start]
        files = {
            "README.md": b"read me\n",
            "audit/checkpoints.jsonl": b"".join(canonical_bytes({"size": s, "note": n}) + b"\n" for s, n in late),
            "audit/runs.jsonl": b"".join(line + b"\n" for line in self.closed()),
            "checkpoint.note": notes[-1].encode(),
            "public-key.vkey": self.key.verifier.encode().encode() + b"\n",
        }
        for first in range(start, len(self.lines), PER_FILE):
            body = "".join(f"{line}\n" for _, line in self.lines[first : first + PER_FILE])
            files[f"audit/entries/{first:012d}.jsonl"] = body.encode()
        return files

    def pack(self, folder: Path, files: dict[str, bytes], **predicate: object) -> Path:
        """Sign and pack."""
        facts = {"format": 1, "kind": "log", "start": 0, "size": len(self.lines)} | predicate
        with ArchiveDraft.within(folder) as draft:
            for name, body in files.items():
                draft.add(name, body)
            draft.sign(self.statement_key or self.key, facts)  # type: ignore[arg-type]
            target = folder / "interlock-audit-24.tar.gz"
            draft.pack(target)
        return target


@dataclass
class Answer:
    """What the verifier said."""

    code: int
    text: str


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def run(*arguments: object) -> Answer:
        code = verify_bundle.main([str(argument) for argument in arguments])
        return Answer(code, capsys.readouterr().out)

    return run


Verify = Callable[..., Answer]
VKEY = KEY.verifier.encode()


def unpack(archive: Path, folder: Path) -> Path:
    for name, body in members(archive).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder / "interlock-audit-24"


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as packed:
        return {member.name: packed.extractfile(member).read() for member in packed}  # type: ignore[union-attr]


def repack(archive: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """What an attacker without the key does: other contents, an honest-looking archive around them."""
    files = members(archive)
    change(files)
    with tarfile.open(archive, "w:gz") as packed:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            packed.addfile(member, io.BytesIO(body))
    return archive


def test_an_honest_export_is_intact(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    answer = verify(log.pack(tmp_path, log.files()), "--key", VKEY)
    assert answer.code == 0, answer.text
    assert answer.text.startswith("INTACT")
    assert "24 rows of 6 Runs" in answer.text


def test_the_unpacked_folder_is_intact_too(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    folder = unpack(log.pack(tmp_path, log.files()), tmp_path)
    assert verify(folder, "--key", VKEY).code == 0


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    log = Log()
    first = log.pack(tmp_path, log.files()).read_bytes()
    assert log.pack(tmp_path, log.files()).read_bytes() == first


def test_it_runs_alone_as_a_program(tmp_path: Path) -> None:
    log = Log()
    archive = log.pack(tmp_path, log.files())
    program = tmp_path / "verify.py"
    program.write_bytes(Path(verify_bundle.__file__).read_bytes())
    command = [sys.executable, str(program), str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert KEY.verifier.fingerprint in done.stdout
    assert "whoever made the export could have made it" in done.stdout


def test_without_cryptography_it_could_not_check(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-I", verify_bundle.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "cryptography" in done.stderr


def test_an_earlier_checkpoint_is_part_of_it(tmp_path: Path, verify: Verify) -> None:
    log, kept = Log(), tmp_path / "kept.note"
    archive = log.pack(tmp_path, log.files())
    for note in log.notes():
        kept.write_text(note, encoding="utf-8")
        answer = verify(archive, "--key", VKEY, "--since", kept)
        assert answer.code == 0, answer.text


def test_any_flipped_byte_in_an_unpacked_file_is_found(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    folder = unpack(log.pack(tmp_path, log.files()), tmp_path)
    generator = random.Random(7)  # noqa: S311 - the same bytes in every run
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        body = path.read_bytes()
        for position in generator.sample(range(len(body)), min(12, len(body))):
            flipped = bytearray(body)
            flipped[position] ^= 1
            path.write_bytes(flipped)
            answer = verify(folder, "--key", VKEY)
            assert answer.code == 1, f"{path.name} byte {position}: {answer.text}"
            assert path.name in answer.text
        path.write_bytes(body)
    assert verify(folder, "--key", VKEY).code == 0


def unpacks_to(body: bytes) -> bytes | None:
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        return None


def test_any_flipped_byte_in_the_archive_that_changes_its_content_is_found(tmp_path: Path, verify: Verify) -> None:
    """A compressed stream has bits without meaning, and more than one way to say the same: those change nothing."""
    log = Log()
    archive = log.pack(tmp_path, log.files())
    body = archive.read_bytes()
    plain, same = gzip.decompress(body), 0
    for position in [*range(10, len(body), len(body) // 60), *range(len(body) - 8, len(body))]:
        flipped = bytearray(body)
        flipped[position] ^= 1
        archive.write_bytes(flipped)
        unchanged = unpacks_to(flipped) == plain
        same += unchanged
        assert verify(archive, "--key", VKEY).code == (0 if unchanged else 1), position
    assert same < 6


def test_it_says_which_row_was_changed(tmp_path: Path, verify: Verify) -> None:
    log = Log()

    def change(files: dict[str, bytes]) -> None:
        name = "interlock-audit-24/audit/entries/000000000020.jsonl"
        lines = files[name].split(b"\n")
        lines[1] = lines[1].replace(b"succeeded", b"failed")
        files[name] = b"\n".join(lines)

    answer = verify(repack(log.pack(tmp_path, log.files()), change), "--key", VKEY)
    assert answer.code == 1
    assert "audit/entries/000000000020.jsonl:2: Run 4 is closed otherwise" in answer.text


def test_everything_recomputed_without_the_key_is_found(tmp_path: Path, verify: Verify) -> None:
    forged = Log(ATTACKER, entries(state="failed"))
    archive = forged.pack(tmp_path, forged.files())
    assert verify(archive, "--key", VKEY).code == 1
    kept = tmp_path / "kept.note"
    kept.write_text(Log().notes()[0], encoding="utf-8")
    answer = verify(archive, "--since", kept)
    assert answer.code == 1
    assert "made anew with another key" in answer.text


def test_new_lines_under_the_old_signatures_are_found(tmp_path: Path, verify: Verify) -> None:
    honest, forged = Log(), Log(KEY, entries(state="failed"), statement_key=ATTACKER)
    files = forged.files() | {name: honest.files()[name] for name in ("audit/checkpoints.jsonl", "checkpoint.note")}
    answer = verify(forged.pack(tmp_path, files), "--key", VKEY)
    assert answer.code == 1
    assert "statement.dsse.json: it is not signed" in answer.text
    assert "not those of the checkpoint of 24 rows" in answer.text


def test_a_signature_of_another_key_under_our_id_is_found() -> None:
    note = Log(ATTACKER).notes()[0]
    text, _, line = note.rpartition("\n\n")
    body = base64.b64decode(line.split(" ")[2])
    forged = base64.b64encode(KEY.verifier.id + body[4:]).decode()
    key = verify_bundle.Key(VKEY)
    assert verify_bundle.Checkpoint(Log().notes()[0], key).size == 5
    with pytest.raises(verify_bundle.Broken, match="not signed"):
        verify_bundle.Checkpoint(f"{text}\n\n— {NAME} {forged}\n", key)


def test_a_log_rewritten_by_the_key_owner_needs_an_earlier_checkpoint_to_be_found(
    tmp_path: Path, verify: Verify
) -> None:
    forged = Log(KEY, entries(state="failed"))
    archive = forged.pack(tmp_path, forged.files())
    alone = verify(archive, "--key", VKEY)
    assert alone.code == 0
    assert "rewrote it all" in alone.text
    kept = tmp_path / "kept.note"
    kept.write_text(Log().notes()[2], encoding="utf-8")
    answer = verify(archive, "--key", VKEY, "--since", kept)
    assert answer.code == 1
    assert "history was rewritten" in answer.text


def test_a_dropped_run_is_found_by_an_earlier_checkpoint(tmp_path: Path, verify: Verify) -> None:
    forged = Log(KEY, entries(skip=3), sizes=(5, 9, 20))
    kept = tmp_path / "kept.note"
    kept.write_text(Log().notes()[0], encoding="utf-8")
    answer = verify(forged.pack(tmp_path, forged.files()), "--key", VKEY, "--since", kept)
    assert answer.code == 1
    assert "the first 5 rows" in answer.text


def test_a_cut_end_is_found_by_an_earlier_checkpoint(tmp_path: Path, verify: Verify) -> None:
    cut = Log(KEY, entries()[:9], sizes=(5, 9))
    archive, kept = cut.pack(tmp_path, cut.files()), tmp_path / "kept.note"
    assert verify(archive, "--key", VKEY).code == 0
    kept.write_text(Log().notes()[2], encoding="utf-8")
    answer = verify(archive, "--key", VKEY, "--since", kept)
    assert answer.code == 1
    assert "the end is gone" in answer.text


def test_an_end_cut_below_its_checkpoint_is_found(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    files = log.files()
    del files["audit/entries/000000000020.jsonl"]
    answer = verify(log.pack(tmp_path, files), "--key", VKEY)
    assert answer.code == 1
    assert "cut off: 24 rows were signed, 20 are here" in answer.text


def test_rows_that_no_checkpoint_covers_are_found(tmp_path: Path, verify: Verify) -> None:
    log = Log(sizes=(5, 9))
    answer = verify(log.pack(tmp_path, log.files()), "--key", VKEY)
    assert answer.code == 1
    assert "no signed checkpoint covers the last of the 24 rows" in answer.text


def test_a_checkpoint_taken_out_of_the_chain_is_found(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    files = log.files()
    files["audit/checkpoints.jsonl"] = b"".join(files["audit/checkpoints.jsonl"].splitlines(keepends=True)[::2])
    answer = verify(log.pack(tmp_path, files), "--key", VKEY)
    assert answer.code == 1
    assert "does not follow from the checkpoint before it" in answer.text


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("interlock-audit-24/extra.txt", b"more"),
        ("interlock-audit-24/../../evil", b"x"),
        ("/etc/evil", b"x"),
        ("other-folder/README.md", b"x"),
    ],
)
def test_a_member_that_no_export_holds_is_refused(tmp_path: Path, verify: Verify, name: str, body: bytes) -> None:
    log = Log()
    archive = repack(log.pack(tmp_path, log.files()), lambda files: files.update({name: body}))
    answer = verify(archive, "--key", VKEY)
    assert answer.code == 1
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_links_and_devices_in_the_archive_are_refused(tmp_path: Path, verify: Verify, kind: bytes) -> None:
    log = Log()
    archive = log.pack(tmp_path, log.files())
    plain = tmp_path / "plain.tar"
    plain.write_bytes(gzip.decompress(archive.read_bytes()))
    with tarfile.open(plain, "a") as packed:
        member = tarfile.TarInfo("interlock-audit-24/link")
        member.type, member.linkname = kind, "/etc/passwd"
        packed.addfile(member)
    archive.write_bytes(gzip.compress(plain.read_bytes()))
    answer = verify(archive, "--key", VKEY)
    assert answer.code == 1
    assert "which no export holds" in answer.text


def test_a_member_that_stands_twice_is_refused(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    archive = log.pack(tmp_path, log.files())
    plain = tmp_path / "plain.tar"
    plain.write_bytes(gzip.decompress(archive.read_bytes()))
    with tarfile.open(plain, "a") as packed:
        packed.addfile(tarfile.TarInfo("interlock-audit-24/README.md"))
    archive.write_bytes(gzip.compress(plain.read_bytes()))
    assert "twice" in verify(archive, "--key", VKEY).text


def test_a_symlink_in_the_folder_is_refused(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    folder = unpack(log.pack(tmp_path, log.files()), tmp_path)
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/passwd")
    assert verify(folder, "--key", VKEY).code == 1


def test_a_bomb_is_not_unpacked(tmp_path: Path, verify: Verify) -> None:
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(gzip.compress(b"\0" * 50_000_000))
    answer = verify(bomb, "--max-bytes", 1_000_000)
    assert answer.code == 2
    assert "more than 1000000 bytes" in answer.text


@pytest.mark.parametrize("body", [b"", b"plain text", b"\x1f\x8b"], ids=["empty", "text", "gzip header only"])
def test_what_is_no_archive_is_not_intact(tmp_path: Path, verify: Verify, body: bytes) -> None:
    path = tmp_path / "some.tar.gz"
    path.write_bytes(body)
    assert verify(path).code == (1 if body.startswith(b"\x1f\x8b") else 2)


def test_what_cannot_be_read_is_not_checked(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    archive = log.pack(tmp_path, log.files())
    note = tmp_path / "no.note"
    assert verify(tmp_path / "absent.tar.gz").code == 2
    assert verify(archive, "--key", "no+such+key").code == 2
    assert verify(archive, "--key", VKEY, "--since", note).code == 2
    note.write_text("a shopping list\n", encoding="utf-8")
    assert verify(archive, "--key", VKEY, "--since", note).code == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    assert verify(empty).code == 2


def test_an_export_without_a_key_needs_one(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    files = log.files()
    del files["public-key.vkey"]
    archive = log.pack(tmp_path, files)
    assert verify(archive).code == 2
    assert verify(archive, "--key", VKEY).code == 0


def test_a_newer_format_is_left_to_a_newer_verifier(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    answer = verify(log.pack(tmp_path, log.files(), format=2), "--key", VKEY)
    assert answer.code == 2
    assert "does not know the format" in answer.text


def later_part(log: Log, start: int = 9) -> dict[str, bytes]:
    frontier = Frontier()
    for _, line in log.lines[:start]:
        frontier.append(bytes.fromhex(leaf_hash(line.encode())))
    told = {"frontier": [node.hex() for node in frontier.nodes], "note": log.notes()[1], "size": start}
    return log.files(start) | {"audit/start.json": canonical_bytes(told)}


def test_the_later_part_goes_on_from_its_checkpoint(tmp_path: Path, verify: Verify) -> None:
    log, kept = Log(), tmp_path / "kept.note"
    archive = log.pack(tmp_path, later_part(log), start=9)
    assert verify(archive, "--key", VKEY).code == 0
    kept.write_text(log.notes()[1], encoding="utf-8")
    assert verify(archive, "--key", VKEY, "--since", kept).code == 0
    kept.write_text(log.notes()[0], encoding="utf-8")
    assert verify(archive, "--key", VKEY, "--since", kept).code == 2


def test_a_later_part_with_another_beginning_is_found(tmp_path: Path, verify: Verify) -> None:
    log, forged = Log(), Log(KEY, entries(state="failed"))
    files = later_part(log)
    files["audit/start.json"] = later_part(forged)["audit/start.json"].replace(b'"note":"', b'"note":"x')
    assert verify(log.pack(tmp_path, files, start=9), "--key", VKEY).code == 1


def receipt_of(log: Log, run: int, size: int) -> Receipt:
    leaves = [bytes.fromhex(leaf_hash(line.encode())) for _, line in log.lines]
    tree, note = Tree(leaves), log.notes()[log.sizes.index(size)]
    rows = [
        ReceiptRow(
            index=index,
            line=line,
            size=size,
            path=tuple(base64.b64encode(node).decode() for node in tree.inclusion_proof(index, size)),
        )
        for index, (of, line) in enumerate(log.lines)
        if of == run and index < size
    ]
    return Receipt(run=run, head=leaf_hash(rows[-1].line.encode()), rows=tuple(rows), checkpoints=(note,))


def run_export(log: Log, run: int, *, consistency: tuple[int, int] | None = None) -> dict[str, bytes]:
    files = {name: body for name, body in log.files().items() if not name.startswith("audit/")}
    files["audit/receipt.json"] = receipt_of(log, run, 24).encode().encode()
    if consistency is not None:
        tree = Tree([bytes.fromhex(leaf_hash(line.encode())) for _, line in log.lines])
        path = [base64.b64encode(node).decode() for node in tree.consistency_proof(*consistency)]
        told = [{"from": consistency[0], "to": consistency[1], "path": path}]
        files["audit/consistency.json"] = canonical_bytes(told)
    return files


def test_an_export_of_one_run_is_intact(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    answer = verify(log.pack(tmp_path, run_export(log, 2), kind="run", run=2), "--key", VKEY)
    assert answer.code == 0, answer.text
    assert "Run 2, 4 rows" in answer.text


def test_an_export_of_one_run_is_tied_to_an_earlier_checkpoint(tmp_path: Path, verify: Verify) -> None:
    log, kept = Log(), tmp_path / "kept.note"
    kept.write_text(log.notes()[1], encoding="utf-8")
    tied = log.pack(tmp_path, run_export(log, 2, consistency=(9, 24)), kind="run", run=2)
    assert verify(tied, "--key", VKEY, "--since", kept).code == 0
    kept.write_text(Log(KEY, entries(skip=3), sizes=(5, 9, 20)).notes()[1], encoding="utf-8")
    answer = verify(tied, "--key", VKEY, "--since", kept)
    assert answer.code == 1
    assert "two histories" in answer.text
    kept.write_text(log.notes()[0], encoding="utf-8")
    assert verify(tied, "--key", VKEY, "--since", kept).code == 2


def test_a_row_taken_out_of_a_receipt_is_found(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    files = run_export(log, 2)
    told = json.loads(files["audit/receipt.json"])
    del told["rows"][1]
    files["audit/receipt.json"] = json.dumps(told).encode()
    log.statement_key = ATTACKER
    answer = verify(log.pack(tmp_path, files, kind="run", run=2), "--key", VKEY)
    assert answer.code == 1
    assert "audit/receipt.json, row 2" in answer.text


def test_a_receipt_serves_as_an_earlier_checkpoint(tmp_path: Path, verify: Verify) -> None:
    log, kept = Log(), tmp_path / "receipt.json"
    kept.write_text(receipt_of(log, 2, 9).encode(), encoding="utf-8")
    assert verify(log.pack(tmp_path, log.files()), "--key", VKEY, "--since", kept).code == 0
    forged = Log(KEY, entries(state="failed"))
    kept.write_text(receipt_of(log, 2, 24).encode(), encoding="utf-8")
    answer = verify(forged.pack(tmp_path, forged.files()), "--key", VKEY, "--since", kept)
    assert answer.code == 1
    assert "is not the row in your receipt" in answer.text


def test_whatever_stands_behind_the_end_is_found(tmp_path: Path, verify: Verify) -> None:
    log = Log()
    body = log.pack(tmp_path, log.files()).read_bytes()
    plain = gzip.decompress(body)
    packed = (body + body, body + b"\0", body + b"more", body[:-4])
    for number, longer in enumerate((*packed, gzip.compress(plain + plain), gzip.compress(plain + b"more"))):
        archive = tmp_path / f"longer-{number}.tar.gz"
        archive.write_bytes(longer)
        answer = verify(archive)
        assert answer.code == 1, (number, answer.text)
