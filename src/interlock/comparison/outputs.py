"""Compares two folders of outputs: tables by key, documents by field, texts by line, everything else by digest."""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from interlock.comparison.answers import Answer, compare_answers, keys_in
from interlock.comparison.evidence import Counts, agreement_lower_bound
from interlock.comparison.outputs_model import (
    DIFF_LINES_MAX,
    DIFFERENCES_SHOWN_MAX,
    FileComparison,
    FileKind,
    OutputComparison,
    OutputTask,
)
from interlock.comparison.outputs_noise import Noise, noise_of, propose_rules
from interlock.comparison.rules import ReadyRules
from interlock.comparison.table_model import TableComparison, TableKind
from interlock.comparison.table_sources import KINDS, column_names
from interlock.comparison.tables import TableLimits, compare_tables
from interlock.core.comparison import ComparisonRules, Difference
from interlock.core.errors import Invalid

FILES_MAX = 10_000
WHOLE_BYTES_MAX = 32 * 1024 * 1024
"""A document or text that is larger is compared by digest, and its first differing line is shown."""
DIFF_BYTES_MAX = 1024 * 1024
LINE_SHOWN_MAX = 500
READ_BYTES = 1024 * 1024
SENTENCES_MAX = 200
UNLISTED = frozenset({"comparison.too_many_files", "comparison.file_name"})
_CONTENT_TYPES: dict[FileKind, str] = {"document": "application/json", "text": "text/plain"}


def compare_outputs(task: OutputTask) -> OutputComparison:
    """Compare the candidate's folder with the stable version's, after the stable version's two with each other.

    Outputs that cannot even be listed are a finding that blocks: who writes too much, or what nobody can name, is not
    spared the verdict. Raises Invalid for rules that cannot be applied; Transient when memory or disk do not suffice.
    """
    begun = time.monotonic()
    noise: Mapping[str, Noise] = {}
    told: tuple[str, ...] = ()
    if task.again is not None:
        itself = _compared(_Folders(task, Path(task.stable), Path(task.again), "noise", {}))
        if isinstance(itself, str):
            told = (f"the stable version's second run taught nothing: {itself}",)
        else:
            noise = noise_of(itself)
    found = _compared(_Folders(task, Path(task.stable), Path(task.candidate), "differences", noise))
    if isinstance(found, str):
        found = OutputComparison(blocks=(f"nothing was compared: {found}",))
    more = {"proposed_rules": propose_rules(noise), "seconds": time.monotonic() - begun}
    return found.model_copy(update={**more, "warns": (*told, *found.warns)})


def _compared(folders: _Folders) -> OutputComparison | str:
    """What was found, or why not even the paths can be listed. Raises as `compare_outputs`."""
    try:
        return folders.compare()
    except Invalid as error:
        if error.code not in UNLISTED:
            raise
        return error.message


def listed(folder: Path) -> dict[str, os.stat_result]:
    """Everything below a folder that is no folder, by its relative path. Links are not followed.

    Raises: Invalid when there are more than `FILES_MAX`, or one has a name that is no text.
    """
    found: dict[str, os.stat_result] = {}
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                    continue
                found[_name(Path(entry.path).relative_to(folder))] = entry.stat(follow_symlinks=False)
                if len(found) > FILES_MAX:
                    msg = f"{folder.name} holds more than {FILES_MAX} files"
                    raise Invalid(msg, code="comparison.too_many_files", fix="write fewer, or compare a part of them")
    return dict(sorted(found.items()))


def leads_out(folder: Path, path: str) -> bool:
    """Whether what lies there is a link that does not lead to a place in this folder, or not once the folder moved."""
    link, inside = folder / path, os.path.realpath(folder)
    if not link.is_symlink():
        return False
    leads_to = os.path.realpath(link)
    return link.readlink().is_absolute() or not (leads_to == inside or leads_to.startswith(f"{inside}/"))


def _name(path: Path) -> str:
    """A relative path as text. Raises Invalid where it is none: nobody could write it down."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        msg = f"the name {shown} of a file is not UTF-8"
        raise Invalid(msg, code="comparison.file_name", fix="give it another name") from None
    return name


def sha256_of(path: Path) -> str:
    """The digest of a plain file; a link is not followed."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True)
class _File:
    """One file that both folders have."""

    path: str
    stable: Path
    candidate: Path
    size: int
    """Of the larger of the two, in bytes."""


class _Folders:
    """One comparison of two folders."""

    def __init__(self, task: OutputTask, stable: Path, candidate: Path, name: str, noise: Mapping[str, Noise]) -> None:
        self._task = task
        self._stable = stable
        self._candidate = candidate
        self._name = name
        self._noise = noise
        self._rules = ReadyRules(task.rules, task.today)
        self._keys_found: set[int] = set()
        self._totals_found: set[str] = set()
        self._number = 0

    def compare(self) -> OutputComparison:
        """All files, the sets of paths first."""
        one, other = listed(self._stable), listed(self._candidate)
        files = [self._file(path, one[path], other[path]) for path in one if path in other]
        missing = tuple(path for path in one if path not in other)
        added = tuple(path for path in other if path not in one)
        blocks = [f"{path} is missing" for path in missing]
        blocks += [f"{path} is new, and leads out of the output" for path in added if leads_out(self._candidate, path)]
        warns = [f"{path} is new" for path in added]
        for file in files:
            blocks += [f"{file.path}: {sentence}" for sentence in file.blocks]
            warns += [f"{file.path}: {sentence}" for sentence in file.warns]
        if not one and not other:
            blocks.append("neither version wrote anything")
        blocks += self._never_found()
        pairs = sum(file.table.rows.paired if file.table and file.table.keys else 1 for file in files)
        disagreeing = sum(_disagreeing(file) for file in files)
        bound = agreement_lower_bound(Counts(pairs, disagreeing), self._task.rules.confidence_percent / 100)
        return OutputComparison(
            files=tuple(files),
            missing=missing[:SENTENCES_MAX],
            added=added[:SENTENCES_MAX],
            pairs=pairs,
            disagreeing=disagreeing,
            agreement_bound=bound,
            blocks=_cut(blocks),
            warns=_cut(warns),
        )

    def _never_found(self) -> list[str]:
        """A guard that guards nothing is worse than none: what was declared and is nowhere is said."""
        declared = self._task.rules
        said = [
            f"the key field {pattern.text} is in no output"
            for number, pattern in enumerate(self._rules.keys)
            if number not in self._keys_found
        ]
        said += [
            f"the control total {name} is a column of no output"
            for name in declared.control_totals
            if name not in self._totals_found
        ]
        return said

    def _file(self, path: str, one: os.stat_result, other: os.stat_result) -> FileComparison:
        kinds = [_shape(each.st_mode) for each in (one, other)]
        if kinds[0] != kinds[1]:
            said = f"it is a {kinds[1]}, and a {kinds[0]} in the stable version's output"
            return FileComparison(path=path, kind="other", blocks=(said,))
        if kinds[0] == "link":
            targets = [str(Path(folder, path).readlink()) for folder in (self._stable, self._candidate)]
            if leads_out(self._candidate, path):
                blocks = (f"it leads to {targets[1]}, which is out of the output",)
                return FileComparison(path=path, kind="link", identical=targets[0] == targets[1], blocks=blocks)
            same = targets[0] == targets[1]
            said = "" if same else f"it leads to {targets[1]}, and to {targets[0]} in the stable version's output"
            return FileComparison(path=path, kind="link", identical=same, warns=(said,) if said else ())
        if kinds[0] != "file":
            return FileComparison(path=path, kind="other", blocks=(f"it is a {kinds[0]}, which is not compared",))
        file = _File(path, self._stable / path, self._candidate / path, max(one.st_size, other.st_size))
        digests = sha256_of(file.stable), sha256_of(file.candidate)
        found = self._plain(file, identical=digests[0] == digests[1])
        return found.model_copy(update={"stable_sha256": digests[0], "candidate_sha256": digests[1]})

    def _plain(self, file: _File, *, identical: bool) -> FileComparison:
        kind = _table_kind(file)
        if kind is not None:
            try:
                table = self._table(file, kind)
            except Invalid as error:
                if error.code != "comparison.unreadable":
                    raise
                whole = self._whole(file, "text", identical=identical)
                return whole.model_copy(update={"warns": (*whole.warns, error.message)})
            return FileComparison(
                path=file.path,
                kind="table",
                identical=identical,
                table=table,
                noisy=tuple(each.name for each in table.columns if each.noise),
                blocks=table.blocks,
                warns=table.warns,
            )
        return self._whole(file, "document" if file.path.endswith(".json") else "text", identical=identical)

    def _table(self, file: _File, kind: TableKind) -> TableComparison:
        self._number += 1
        work = Path(self._task.work) / f"{self._name}-{self._number}"
        work.mkdir(mode=0o700)
        differences = None
        if self._task.differences is not None:
            differences = Path(self._task.differences) / f"{self._name}-{self._number}.csv"
        rules, said = self._rules_for(file, kind, work)
        noise = self._noise.get(file.path)
        found = compare_tables(
            file.stable,
            file.candidate,
            kind,
            rules,
            folder=work,
            today=self._task.today,
            limits=TableLimits(memory_bytes=self._task.memory_bytes, threads=self._task.threads),
            differences=differences,
            noise=noise.cells if noise is not None else {},
        )
        self._keys_found.update(found.key_fields_found)
        return found.model_copy(update={"warns": (*said, *found.warns)})

    def _rules_for(self, file: _File, kind: TableKind, work: Path) -> tuple[ComparisonRules, tuple[str, ...]]:
        """The declared rules, without keys and totals that this table has not: another of the outputs has them."""
        declared = self._task.rules
        names = column_names(file.stable, kind, work)
        self._totals_found.update(set(declared.control_totals) & set(names))
        totals = tuple(name for name in declared.control_totals if name in names)
        if set(declared.keys) <= set(names):
            return declared.model_copy(update={"control_totals": totals}), ()
        lacking = next(name for name in declared.keys if name not in names)
        said = f"it has no column {lacking}, so its rows are paired otherwise"
        return declared.model_copy(update={"keys": (), "control_totals": totals}), (said,)

    def _whole(self, file: _File, kind: FileKind, *, identical: bool) -> FileComparison:
        """A document, a text, or bytes."""
        if file.size > WHOLE_BYTES_MAX:
            return self._large(file, identical=identical)
        one, other = (Answer(200, _headers(kind), path.read_bytes()) for path in (file.stable, file.candidate))
        self._keys_found |= keys_in(one, self._rules)
        if one.text is None or other.text is None:
            kind = "binary"
        found = compare_answers(one, other, self._rules)
        noise = self._noise.get(file.path)
        noisy = noise.fields if noise is not None else frozenset()
        told = [each.told() for each in found.found]
        diff = None
        if not identical and kind == "text" and file.size <= DIFF_BYTES_MAX:
            diff = _unified(one.text or "", other.text or "")
        return FileComparison(
            path=file.path,
            kind=kind,
            identical=identical,
            differences=tuple(told[:DIFFERENCES_SHOWN_MAX]),
            more=found.more + max(0, len(told) - DIFFERENCES_SHOWN_MAX),
            diff=diff,
            noisy=tuple(sorted(noisy)),
            blocks=_sentences(told, noisy, block=True),
            warns=_sentences(told, noisy, block=False),
        )

    def _large(self, file: _File, *, identical: bool) -> FileComparison:
        """By digest; the first line that differs is found in one pass."""
        way = self._rules.way(("$body",))
        self._keys_found.update([] if way.key is None else [way.key])
        if identical:
            return FileComparison(path=file.path, kind="binary", identical=True)
        pairs = enumerate(_line_pairs(file.stable, file.candidate), start=1)
        number, (one, other) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        grade, reason = way.grade("changed")
        difference = Difference(
            path=f"$body (line {number})",
            field="$body",
            kind="changed",
            stable=one.decode("utf-8", "replace")[:LINE_SHOWN_MAX],
            candidate=other.decode("utf-8", "replace")[:LINE_SHOWN_MAX],
            grade=grade,
            reason=reason,
        )
        said = (f"it differs from line {number} on, and is too large to be compared further ({reason})",)
        return FileComparison(
            path=file.path,
            kind="binary",
            differences=(difference,),
            blocks=said if grade == "block" else (),
            warns=said if grade == "warn" else (),
        )


def _sentences(differences: list[Difference], noisy: frozenset[str], *, block: bool) -> tuple[str, ...]:
    """One for each field; where the stable version differs from itself, nothing is held against the candidate."""
    said: dict[str, str] = {}
    for each in differences:
        field = each.field or each.path
        blocks = each.grade == "block" and field not in noisy
        if each.grade != "ignore" and blocks == block:
            noise = "; the stable version differs from itself there" if field in noisy else ""
            said.setdefault(field, f"{field}: {each.kind} at {each.path} ({each.reason}){noise}")
    return tuple(said.values())[:DIFFERENCES_SHOWN_MAX]


def _disagreeing(file: FileComparison) -> int:
    if file.table is not None and file.table.keys:
        return file.table.disagreeing if any(column.blocks for column in file.table.columns) else 0
    return int(bool(file.blocks))


def _shape(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    return "link" if stat.S_ISLNK(mode) else "pipe, socket or device"


def _table_kind(file: _File) -> TableKind | None:
    suffix = Path(file.path).suffix.lower()
    if suffix in KINDS:
        return KINDS[suffix]
    if suffix == ".json" and all(_begins_with_object_list(path) for path in (file.stable, file.candidate)):
        return "json"
    return None


def _begins_with_object_list(path: Path) -> bool:
    """Whether a JSON file is an array whose first element is an object: rows, rather than a document."""
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"[") and head[1:].lstrip().startswith(b"{")


def _headers(kind: FileKind) -> dict[str, str]:
    return {"content-type": _CONTENT_TYPES.get(kind, "application/octet-stream")}


def _line_pairs(one: Path, other: Path) -> Iterator[tuple[bytes, bytes]]:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            pair = first.readline(READ_BYTES), second.readline(READ_BYTES)
            if pair == (b"", b""):
                return
            yield pair


def _unified(one: str, other: str) -> str:
    lines = difflib.unified_diff(one.splitlines(), other.splitlines(), "stable", "candidate", lineterm="", n=2)
    kept: list[str] = []
    for line in lines:
        if len(kept) >= DIFF_LINES_MAX:
            kept.append("... and more")
            break
        kept.append(line[:LINE_SHOWN_MAX])
    return "\n".join(kept)


def _cut(sentences: list[str]) -> tuple[str, ...]:
    if len(sentences) <= SENTENCES_MAX:
        return tuple(sentences)
    return (*sentences[:SENTENCES_MAX], f"and {len(sentences) - SENTENCES_MAX} more")
