"""Verifies an Interlock audit export alone, with nothing but Python 3.9+ and the package `cryptography`.

    python verify.py interlock-audit-1234.tar.gz [--key VKEY] [--since CHECKPOINT]
VKEY is the public key (or a file with it) that you noted when the log was set up, CHECKPOINT a checkpoint or a receipt
that you kept from earlier. Exit codes: 0 intact, 1 tampered with (it says where), 2 could not check.
It is written apart from Interlock's own code, from the formats alone: RFC 8785 lines, the Merkle tree of RFC 9162, C2SP
signed notes, DSSE with an in-toto statement. Nothing is ever unpacked from the archive.
"""

# ruff: noqa: EM101, EM102 - one file that people may want to read whole: the shorter, the better
from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import stat
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    sys.stderr.write("COULD NOT CHECK: the Python package 'cryptography' is missing: pip install cryptography\n")
    raise SystemExit(2) from None

INTACT, TAMPERED, COULD_NOT_CHECK = 0, 1, 2
LINE_BYTES_MAX = 1024 * 1024
SMALL_FILE_BYTES_MAX = 64 * 1024 * 1024
ARCHIVE_BYTES_MAX = 16 * 1024**3
MEMBERS_MAX = 100_000
PROBLEMS_MAX = 20
KNOWN = ("application/vnd.in-toto+json", "https://in-toto.io/Statement/v1", "urn:interlock:audit-export:v1", 1)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
FIELDS = {"at", "data", "kind", "prev", "run", "seq", "v"}
BODY = re.compile(
    r"([^\s+]+)\n([1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\nprev ([0-9a-f]{64})\n"
    r"at ([0-9TZ:.-]+)\nepoch ([0-9]{1,9})\nhome ([0-9a-z-]{1,80})\n"
)
KEY_WARNING = """The key was taken from the export itself: whoever made the export could have made it.
      Compare the fingerprint with the one you noted when the log was set up, or give it with --key."""
SINCE_WARNING = """Without an earlier checkpoint (--since) nobody can tell whether the key's owner rewrote it all, or
      cut the end off at an earlier checkpoint. Keep this export's checkpoint.note for next time."""


class CannotCheck(Exception):
    """There is no answer, neither yes nor no."""


class Broken(Exception):
    """One thing that is not what was signed."""


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Whatever cannot be parsed is not what was signed."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Broken(f"{where}: it cannot be read ({error!r})") from error


class Report:
    """What was found, and what the reader should know."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.facts: list[str] = []

    def problem(self, text: str) -> None:
        """Note something that is not what was signed; only the first ones are kept."""
        self.problems = [*self.problems, text][:PROBLEMS_MAX]


class Key:
    """An Ed25519 public key in C2SP's vkey form, NAME+ID+BASE64."""

    def __init__(self, text: str) -> None:
        name, _, rest = text.strip().partition("+")
        identity, _, encoded = rest.partition("+")
        try:
            body = base64.b64decode(encoded, validate=True)
            self.id = bytes.fromhex(identity)
        except ValueError:
            body, self.id = b"", b""
        self.name, self.public = name, body[1:]
        expected = hashlib.sha256(name.encode() + b"\n" + body).digest()[:4]
        if len(body) != 33 or body[:1] != b"\x01" or self.id != expected:  # noqa: PLR2004
            raise CannotCheck("the public key is not a whole NAME+ID+BASE64 Ed25519 key")
        self.fingerprint = hashlib.sha256(self.public).hexdigest()

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this key made the signature."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Checkpoint:
    """A signed note of the log, verified. Raises Broken; ValueError when it is no such note."""

    def __init__(self, note: str, key: Key) -> None:
        text, separator, lines = note.rpartition("\n\n")
        if not separator or not lines.endswith("\n"):
            raise ValueError("it is not a signed note")
        text += "\n"
        found = False
        for line in lines[:-1].split("\n"):
            dash, name, encoded = [*line.split(" "), "", "", ""][:3]
            signature = base64.b64decode(encoded, validate=True)
            if dash == "\u2014" and name == key.name and signature[:4] == key.id:
                found = key.signed(text.encode(), signature[4:])
        if not found:
            raise Broken(f"it is not signed by {key.name} (key {key.id.hex()})")
        body = BODY.fullmatch(text)
        if body is None or body[1] != key.name:
            raise ValueError("its text is not a checkpoint of this log")
        self.note, self.size, self.root = note, int(body[2]), base64.b64decode(body[3])
        self.prev, self.at = body[4], body[5]


def read_checkpoint(note: str, key: Key, where: str, report: Report) -> Checkpoint | None:
    """The checkpoint, or None after telling what is wrong with it."""
    try:
        return Checkpoint(note, key)
    except (Broken, ValueError) as error:
        report.problem(f"{where}: {error}")
        return None


def leaf_hash(line: bytes) -> bytes:
    """SHA-256(0x00 || line)."""
    return hashlib.sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The roots of the perfect subtrees: enough to append, and to know the root."""

    def __init__(self, size: int, nodes: list[bytes]) -> None:
        if len(nodes) != bin(size).count("1"):  # noqa: FURB161 - int.bit_count came with Python 3.10
            raise ValueError("the frontier does not fit the size")
        self.size, self.nodes = size, nodes

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        size = self.size
        while size & 1:
            leaf = node_hash(self.nodes.pop(), leaf)
            size >>= 1
        self.nodes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root as it stands."""
        if not self.nodes:
            return hashlib.sha256(b"").digest()
        root = self.nodes[-1]
        for node in self.nodes[-2::-1]:
            root = node_hash(node, root)
        return root


def climb(first: int, last: int, start: bytes, path: list[bytes]) -> tuple[bytes, bytes] | None:
    """From one node up to the roots of the older and the newer tree (the loop of sections 2.1.3.2 and 2.1.4.2)."""
    old = new = start
    for sibling in path:
        if last == 0:
            return None
        if first & 1 or first == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        first, last = first >> 1, last >> 1
    return (old, new) if last == 0 else None


def included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """Whether the leaf is number `index` of the tree with this size and root."""
    roots = climb(index, size - 1, leaf, path) if 0 <= index < size else None
    return roots is not None and roots[1] == root


def consistent(old: tuple[int, bytes], new: tuple[int, bytes], path: list[bytes]) -> bool:
    """Whether the newer tree begins with the older one; both are (size, root)."""
    if old[0] == new[0]:
        return old[1] == new[1] and not path
    nodes = [old[1], *path] if old[0] & (old[0] - 1) == 0 else list(path)
    first, last = old[0] - 1, new[0] - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    return 0 < old[0] < new[0] and bool(nodes) and climb(first, last, nodes[0], nodes[1:]) == (old[1], new[1])


class Bundle:
    """The files of an export by name; nothing is ever written under a name from the archive."""

    def __init__(self, files: dict[str, Callable[[], IO[bytes]]], *, exact: bool) -> None:
        self.files, self.exact = files, exact

    def open(self, name: str) -> IO[bytes]:
        """A file to read from. Raises Broken when it is missing."""
        if name not in self.files:
            raise Broken(f"{name} is missing")
        return self.files[name]()

    def read(self, name: str) -> bytes:
        """A small file as a whole."""
        with self.open(name) as file:
            body = file.read(SMALL_FILE_BYTES_MAX + 1)
        if len(body) > SMALL_FILE_BYTES_MAX:
            raise Broken(f"{name} is larger than {SMALL_FILE_BYTES_MAX} bytes")
        return body

    def lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Number and content of each line, without its newline."""
        with self.open(name) as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX), b""), start=1):
                if not line.endswith(b"\n"):
                    raise Broken(f"{name}:{number}: the line is cut off or too long")
                yield number, line[:-1]


def folder_bundle(folder: Path) -> Bundle:
    """The files of an unpacked export."""
    files: dict[str, Callable[[], IO[bytes]]] = {}
    for path in folder.rglob("*"):
        name, mode = path.relative_to(folder).as_posix(), path.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise Broken(f"{name} is not a plain file")
        if stat.S_ISREG(mode):
            files[name] = lambda path=path: path.open("rb")  # type: ignore[misc]
    return Bundle(files, exact=False)


def archive_bundle(path: Path, plain: IO[bytes], bytes_max: int) -> Bundle:
    """The files of a .tar.gz, read in place from `plain`, a temporary copy without the compression."""
    with path.open("rb") as packed:
        if packed.read(2) != b"\x1f\x8b":
            raise CannotCheck(f"{path} is neither a folder nor a .tar.gz")
        packed.seek(0)
        unpacked = zlib.decompressobj(31)  # one gzip member and no more, unlike GzipFile
        try:
            while not unpacked.eof and (piece := packed.read(1 << 14)):
                if plain.write(unpacked.decompress(piece)) and plain.tell() > bytes_max:  # 16 MiB more at most
                    raise CannotCheck(f"it unpacks to more than {bytes_max} bytes; see --max-bytes")
        except zlib.error as error:
            raise Broken(f"{path.name} was changed near byte {packed.tell()} ({error})") from error
        if not unpacked.eof or unpacked.unused_data or packed.read(1):
            raise Broken(f"{path.name} is cut off or goes on behind its end; was it copied whole?")
    plain.seek(0)
    try:
        return Bundle(_members(tarfile.open(fileobj=plain, mode="r:"), plain), exact=True)
    except tarfile.TarError as error:
        raise Broken(f"{path.name} holds no readable tar archive: {error}") from error


def _members(archive: tarfile.TarFile, plain: IO[bytes]) -> dict[str, Callable[[], IO[bytes]]]:
    files: dict[str, Callable[[], IO[bytes]]] = {}
    tops = set()
    for count, member in enumerate(archive):
        top, _, name = member.name.partition("/")
        tops.add(top)
        if count >= MEMBERS_MAX or not member.isreg() or member.issparse() or not NAME.fullmatch(name):
            raise Broken(f"the archive holds {member.name!r}, which no export holds")
        if name in files or len(tops) != 1:
            raise Broken(f"the archive holds {member.name!r} twice, or beside another export")
        files[name] = lambda member=member: archive.extractfile(member)  # type: ignore[misc, assignment]
    plain.seek(archive.offset)
    if any(piece.strip(b"\0") for piece in iter(lambda: plain.read(1 << 20), b"")):
        raise Broken("the archive holds something behind its end")
    return files


def check_statement(bundle: Bundle, key: Key, report: Report) -> dict[str, Any]:
    """Check the DSSE envelope and the digest of each file it names; returns the predicate."""
    with reading("statement.dsse.json"):
        envelope = json.loads(raw := bundle.read("statement.dsse.json"))
        payload, kind = base64.b64decode(envelope["payload"]), str(envelope["payloadType"])
        signature = base64.b64decode(envelope["signatures"][0]["sig"])
        statement = json.loads(payload)
        subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
        predicate = dict(statement["predicate"])
        said = (kind, statement["_type"], statement["predicateType"], predicate["format"])
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    encoded = [base64.b64encode(body).decode() for body in (payload, signature)]
    exact = {"payload": encoded[0], "payloadType": kind, "signatures": [{"keyid": key.fingerprint, "sig": encoded[1]}]}
    text = json.dumps(exact, separators=(",", ":"), ensure_ascii=False) + "\n"  # every byte counts, hints too
    if text.encode() != raw or not key.signed(message, signature):
        report.problem(f"statement.dsse.json: it is not signed by {key.name} (key {key.id.hex()})")
    if said != KNOWN:
        raise CannotCheck(f"this verifier does not know the format {said}: use the verify.py of that version")
    _check_files(bundle, subjects, report)
    return predicate


def _check_files(bundle: Bundle, subjects: dict[str, str], report: Report) -> None:
    for name in sorted(subjects):
        if name not in bundle.files:
            report.problem(f"{name} is missing")
            continue
        digest = hashlib.sha256()
        with bundle.open(name) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        if digest.hexdigest() != subjects[name]:
            report.problem(f"{name}: its content is not what was signed")
    extra = sorted(bundle.files.keys() - subjects.keys() - {"statement.dsse.json"})
    for name in extra[:PROBLEMS_MAX]:
        if bundle.exact:
            report.problem(f"{name} was added to the archive")
        else:
            report.warnings.append(f"{name} is not part of the export; it was not looked at.")


class Kept(NamedTuple):
    """An earlier checkpoint, alone or in a receipt: roots by size, leaf hashes by index."""

    roots: dict[int, bytes]
    leaves: dict[int, bytes]


def read_kept(text: str, key: Key, report: Report) -> Kept:
    """Read a checkpoint note or a receipt."""
    if text.lstrip().startswith("{"):
        checkpoints, leaves = check_receipt(text, key, "your receipt", report)
    elif "\n\n\u2014 " in text:
        where = "your checkpoint is of another log, or this export was made anew with another key"
        found = read_checkpoint(text, key, where, report)
        checkpoints, leaves = [found] if found else [], {}
    else:
        raise CannotCheck("--since: it is neither a checkpoint nor a receipt")
    return Kept({checkpoint.size: checkpoint.root for checkpoint in checkpoints}, leaves)


def check_receipt(text: str, key: Key, where: str, report: Report) -> tuple[list[Checkpoint], dict[int, bytes]]:
    """Check a receipt: every row follows from the one before it, and is where a signed checkpoint has it."""
    with reading(where):
        receipt = json.loads(text)
        rows = [
            (row["index"], row["line"].encode(), row["size"], [*map(base64.b64decode, row["path"])])
            for row in receipt["rows"]
        ]
        run, head, notes = receipt["run"], receipt["head"], receipt["checkpoints"]
    found = [read_checkpoint(note, key, f"{where}, checkpoint {number}", report) for number, note in enumerate(notes)]
    checkpoints = {checkpoint.size: checkpoint for checkpoint in found if checkpoint}
    chains, leaves = Chains(report, whole=True), {}
    for number, (index, line, size, path) in enumerate(rows, start=1):
        leaves[index] = leaf_hash(line)
        chains.take(line, leaves[index], f"{where}, row {number}", run)
        signed = checkpoints.get(size)
        if signed is None or not included(leaves[index], index, size, path, signed.root):
            report.problem(f"{where}, row {number}: it is not leaf {index} of the log that was signed")
    if not rows or chains.state.get(run, (0, b""))[1].hex() != head:
        report.problem(f"{where}: its head is not the hash of its last row")
    return list(checkpoints.values()), leaves


class Chains:
    """Each Run's rows must follow from one another; about 300 bytes are kept for each Run."""

    def __init__(self, report: Report, *, whole: bool) -> None:
        self._report, self._whole = report, whole
        self.state: dict[int, tuple[int, bytes, str | None, bool]] = {}
        self.rows = 0

    def take(self, line: bytes, leaf: bytes, where: str, only: int | None = None) -> dict[str, Any] | None:
        """Check a line; returns it parsed when it closes its Run, with `digest` of what was asked beside it."""
        self.rows += 1
        try:
            value = json.loads(line)
            if value.keys() != FIELDS or value["v"] != 1 or not isinstance(value["data"], dict):
                raise ValueError("not the seven fields of evidence")  # noqa: TRY301
            run, seq, kind, data = int(value["run"]), int(value["seq"]), value["kind"], value["data"]
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            self._report.problem(f"{where}: the line cannot be read ({error})")
            return None
        place = f"{where}: Run {run}, row {seq}"
        last, head, digest, closed = (known := self.state.get(run)) or (0, bytes(32), None, False)
        if known is None and not self._whole:
            last = seq - 1
        if (only is not None and run != only) or seq != last + 1:
            self._report.problem(f"{place}: row {last + 1} is missing")
        if (known is not None or seq == 1) and value["prev"] != head.hex():
            self._report.problem(f"{place}: it does not follow from the row before it: one of the two was changed")
        if closed and kind != "noted":
            self._report.problem(f"{place}: {kind!r} comes after the Run was closed")
        if seq == 1:
            digest = data.get("digest")
            if kind != "asked" or not isinstance(digest, str):
                self._report.problem(f"{place}: the Run does not begin with what was asked")
        self.state[run] = (seq, leaf, digest, closed or kind == "closed")
        return {**value, "digest": digest} if kind == "closed" else None


class LogWalk:
    """Goes through the entries once, with the checkpoints and the closed Runs beside them."""

    def __init__(self, bundle: Bundle, key: Key, kept: Kept, report: Report) -> None:
        self._bundle, self._key, self._kept, self._report = bundle, key, kept, report
        self._closed = bundle.lines("audit/runs.jsonl")
        self._checkpoints = self._read_checkpoints()
        self._before: Checkpoint | None = None
        self._broken = False
        self._covered = "the beginning"
        self.tree = Tree(0, [])
        self.chains = Chains(report, whole=True)

    def walk(self, start: int) -> Checkpoint | None:
        """Check everything; returns the newest checkpoint."""
        if start:
            self._begin(start)
        self._compare_kept()
        due = next(self._checkpoints, None)
        expected, where = start, "the beginning"
        for name in sorted(name for name in self._bundle.files if name.startswith("audit/entries/")):
            if name != f"audit/entries/{expected:012d}.jsonl":
                raise Broken(f"audit/entries/{expected:012d}.jsonl is missing; next comes {name}")
            for number, line in self._bundle.lines(name):
                where = f"{name}:{number}"
                self._take(line, where)
                expected += 1
                if due is not None and due.size <= expected:
                    self._check_root(due, where)
                    due = next(self._checkpoints, None)
        self._finish(due, where)
        return self._before

    def _begin(self, start: int) -> None:
        """An export of the later part begins with the frontier of an earlier checkpoint."""
        with reading("audit/start.json"):
            told = json.loads(self._bundle.read("audit/start.json"))
            self.tree = Tree(start, [bytes.fromhex(node) for node in told["frontier"]])
            checkpoint = Checkpoint(told["note"], self._key)
        if (checkpoint.size, checkpoint.root) != (start, self.tree.root()):
            raise Broken("audit/start.json: its frontier is not that of its checkpoint")
        self._before, self.chains = checkpoint, Chains(self._report, whole=False)

    def _take(self, line: bytes, where: str) -> None:
        leaf, index = leaf_hash(line), self.tree.size
        self.tree.append(leaf)
        if self._kept.leaves.get(index, leaf) != leaf:
            self._report.problem(f"{where}: leaf {index} is not the row in your receipt")
        if (closing := self.chains.take(line, leaf, where)) is not None:
            self._compare_closed(closing, where)
        self._compare_kept()

    def _compare_kept(self) -> None:
        if (size := self.tree.size) in self._kept.roots and self._kept.roots[size] != self.tree.root():
            self._report.problem(
                f"the first {size} rows are not those of your earlier checkpoint: history was rewritten"
            )

    def _compare_closed(self, closing: dict[str, Any], where: str) -> None:
        (number, line), run = next(self._closed, (0, b"{}")), closing["run"]
        with reading(f"audit/runs.jsonl:{number}"):
            told = json.loads(line)
            said = (told.get("run"), told.get("state"), told.get("head"))
        if said != (run, closing["data"].get("state"), self.chains.state[run][1].hex()):
            self._report.problem(f"{where}: Run {run} is closed otherwise than audit/runs.jsonl:{number} says")
        elif closing["digest"] not in (None, told.get("digest")):
            self._report.problem(f"audit/runs.jsonl:{number}: Run {run} has another plan's digest than what was asked")

    def _read_checkpoints(self) -> Iterator[Checkpoint]:
        """Those that can be read, in order, each linked to the one before it."""
        note = None
        for number, line in self._bundle.lines("audit/checkpoints.jsonl"):
            where = f"audit/checkpoints.jsonl:{number}"
            if note is None and self._before is not None:
                note = self._before.note
            with reading(where):
                text = str(json.loads(line)["note"])
            found = read_checkpoint(text, self._key, where, self._report)
            if found is not None:
                expected = "0" * 64 if note is None else hashlib.sha256(note.encode()).hexdigest()
                if found.prev != expected:
                    self._report.problem(f"{where}: it does not follow from the checkpoint before it")
                yield found
            note = text

    def _check_root(self, checkpoint: Checkpoint, where: str) -> None:
        if not self._broken and (checkpoint.size, checkpoint.root) != (self.tree.size, self.tree.root()):
            span = f"after {self._covered} up to {where}"
            self._report.problem(f"{span}: these rows are not those of the checkpoint of {checkpoint.size} rows")
            self._broken = True
        self._before, self._covered = checkpoint, where

    def _finish(self, due: Checkpoint | None, where: str) -> None:
        size = self.tree.size
        if due is not None:
            self._report.problem(f"{where}: the end is cut off: {due.size} rows were signed, {size} are here")
        elif self._before is None or self._before.size != size:
            self._report.problem(f"{where}: no signed checkpoint covers the last of the {size} rows")
        if next(self._closed, None) is not None:
            self._report.problem("audit/runs.jsonl tells of Runs that no entry closes")
        if (kept := max(self._kept.roots, default=0)) > size:
            self._report.problem(f"your earlier checkpoint covers {kept} rows, only {size} are here: the end is gone")


def check_run(bundle: Bundle, key: Key, kept: Kept, report: Report) -> tuple[Checkpoint | None, int]:
    """An export of one Run: its receipt, and how its checkpoints relate to the one that was kept."""
    name = "audit/receipt.json"
    checkpoints, leaves = check_receipt(bundle.read(name).decode(), key, name, report)
    paths: dict[tuple[int, int], list[bytes]] = {}
    if "audit/consistency.json" in bundle.files:
        with reading("audit/consistency.json"):
            told = json.loads(bundle.read("audit/consistency.json"))
            paths = {(proof["from"], proof["to"]): [*map(base64.b64decode, proof["path"])] for proof in told}
    for checkpoint in checkpoints:
        for size, root in kept.roots.items():
            old, new = sorted([(checkpoint.size, checkpoint.root), (size, root)])
            path = paths.get((old[0], new[0]), [])
            if not path and old[0] != new[0]:
                raise CannotCheck(f"nothing here ties your checkpoint of {size} rows to it: export with --since")
            if not consistent(old, new, path):
                report.problem(f"your checkpoint of {size} rows and that of {checkpoint.size} are of two histories")
    return max(checkpoints, key=lambda one: one.size, default=None), len(leaves)


def check(bundle: Bundle, key_text: str | None, since_text: str | None, report: Report) -> None:
    """Check a bundle; what is found goes into the report. Raises CannotCheck, Broken."""
    if "statement.dsse.json" not in bundle.files and not any(name.startswith("audit/") for name in bundle.files):
        raise CannotCheck("this is not an Interlock audit export")
    if key_text is None and "public-key.vkey" not in bundle.files:
        raise CannotCheck("there is no public key in it; give one with --key")
    key = Key(key_text if key_text is not None else bundle.read("public-key.vkey").decode("utf-8", "replace"))
    report.facts.append(f"key {key.name}, fingerprint {key.fingerprint}")
    if key_text is None:
        report.warnings.append(KEY_WARNING)
    predicate = check_statement(bundle, key, report)
    kept = Kept({}, {}) if since_text is None else read_kept(since_text, key, report)
    start = int(predicate.get("start") or 0)
    if predicate.get("kind") == "run":
        newest, rows = check_run(bundle, key, kept, report)
        report.facts.append(f"Run {predicate.get('run')}, {rows} rows")
    else:
        if kept.roots and min(kept.roots) < start:
            raise CannotCheck(f"this export begins after row {start}, later than your checkpoint")
        newest = (walk := LogWalk(bundle, key, kept, report)).walk(start)
        report.facts.append(f"{walk.chains.rows} rows of {len(walk.chains.state)} Runs")
    if newest is not None:
        report.facts.append(f"newest checkpoint: {newest.size} rows, {newest.at}, root {newest.root.hex()}")
        if bundle.read("checkpoint.note").decode("utf-8", "replace") != newest.note:
            report.problem("checkpoint.note is not the newest checkpoint")
    if since_text is None:
        report.warnings.append(SINCE_WARNING)


def main(arguments: list[str] | None = None) -> int:
    """Check what the command line names, say what was found, return the exit code."""
    parser = argparse.ArgumentParser(prog="verify.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archive", type=Path, help="the .tar.gz, or the folder it was unpacked into")
    parser.add_argument("--key", help="the public key you noted (NAME+ID+BASE64), or a file with it")
    parser.add_argument("--since", type=Path, help="a checkpoint or receipt that you kept from earlier")
    parser.add_argument("--max-bytes", type=int, default=ARCHIVE_BYTES_MAX, help="refuse what unpacks to more")
    options = parser.parse_args(arguments)
    report, cannot = Report(), ""
    try:
        key, path = options.key, options.archive
        if key is not None and Path(key).is_file():
            key = Path(key).read_text(encoding="utf-8")
        since = options.since and options.since.read_text(encoding="utf-8")
        with reading("the export"), tempfile.TemporaryFile() as plain:
            bundle = folder_bundle(path) if path.is_dir() else archive_bundle(path, plain, options.max_bytes)
            check(bundle, key, since, report)
    except Broken as error:
        report.problem(str(error))
    except (CannotCheck, OSError, UnicodeDecodeError) as error:
        cannot = str(error)
    if report.problems:
        lines = ["TAMPERED: this is not what was signed."] + [f"  - {text}" for text in report.problems]
    elif cannot:
        lines = [f"COULD NOT CHECK: {cannot}"]
    else:
        lines = ["INTACT: every row, checkpoint and file is what was signed."]
    lines += [f"  {text}" for text in report.facts] + [f"Note: {text}" for text in report.warnings]
    sys.stdout.write("\n".join(lines) + "\n")
    return TAMPERED if report.problems else COULD_NOT_CHECK if cannot else INTACT


if __name__ == "__main__":
    raise SystemExit(main())
