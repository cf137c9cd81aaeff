"""Verifies the whole log from the database: chains, tree, checkpoints, the Run table, and what somebody kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from interlock.core.checkpoint import Checkpoint
from interlock.core.errors import Invalid, Permanent
from interlock.core.evidence import leaf_hash
from interlock.core.model import Frozen
from interlock.engine.audit import store as audit_store
from interlock.engine.audit.chain import ChainWalk, RunTale
from interlock.engine.audit.findings import FINDINGS_MAX, Finding, Findings
from interlock.engine.audit.receipt import Receipt, verify_receipt
from interlock.engine.audit.runs import compare_run
from interlock.engine.audit.tree import Kept, TreeWalk
from interlock.engine.db import Connection
from interlock.lib.note import BadSignature, NoteError, VerifierKey, open_note, signer_names

T = TypeVar("T")

LIMIT_UNSEALED = (
    "Rows that are not sealed yet are held by their own Run's chain only; the youngest Runs could be missing whole."
)
LIMIT_WITHOUT_SINCE = (
    "Whoever owns the signing key could have rewritten everything, and the end could have been cut off at an earlier "
    "checkpoint: only a checkpoint or receipt that was kept elsewhere shows that (--since)."
)
LIMIT_WITH_SINCE = (
    "The earlier checkpoint shows that nothing it covers was changed or dropped since it was cut. It proves nothing "
    "about what happened before that, nor about rows that came and went again after it."
)


class Witness(Frozen):
    """An earlier checkpoint that somebody kept, alone or within a receipt; its signature holds.

    `roots` are hexadecimal, by size; `leaves` are the receipt's rows, hexadecimal hashes by leaf number.
    """

    note: str
    checkpoint: Checkpoint
    roots: dict[int, str]
    leaves: dict[int, str] = {}


class Verification(Frozen):
    """What was checked and what was found. `findings` holds the first of `findings_count`.

    `size` and `root` are those of the tree; `limits` say in plain words what this does not prove.
    """

    intact: bool
    rows: int
    leaves: int
    unsealed: int
    checkpoints: int
    size: int
    root: str
    note: str | None
    findings: tuple[Finding, ...]
    findings_count: int
    since: Checkpoint | None
    limits: tuple[str, ...]


def read_witness(text: str, key: VerifierKey) -> Witness:
    """Read a kept checkpoint note or receipt.

    Raises:
        Invalid: It is neither, or belongs to another log.
        Permanent: It names this log, and this key did not sign it: the key was replaced, or the file was changed.
    """
    if text.lstrip().startswith("{"):
        receipt = Receipt.parse(text)
        newest = verify_receipt(receipt, key)
        notes = {Checkpoint.parse(open_note(note, key)).size: note for note in receipt.checkpoints}
        roots = {size: Checkpoint.parse(open_note(note, key)).root for size, note in notes.items()}
        leaves = {row.index: leaf_hash(row.line.encode()) for row in receipt.rows}
        return Witness(note=notes[newest.size], checkpoint=newest, roots=roots, leaves=leaves)
    try:
        checkpoint = Checkpoint.parse(open_note(text, key))
    except BadSignature as error:
        if key.name not in signer_names(text):
            msg = f"this checkpoint is of another log than {key.name}: {error}"
            raise Invalid(msg, code="audit.since_other_log", fix="use a checkpoint of this log") from error
        msg = f"the kept checkpoint names this log, but {error}: the log's key was replaced, or the file was changed"
        raise Permanent(msg, code="audit.since_signature", fix="compare the key with one noted earlier") from error
    except (NoteError, ValueError) as error:
        msg = f"this is neither a checkpoint nor a receipt: {error}"
        raise Invalid(msg, code="audit.since_form", fix="interlock audit show > checkpoint.txt writes one") from error
    return Witness(note=text, checkpoint=checkpoint, roots={checkpoint.size: checkpoint.root})


async def verify(connection: Connection, key: VerifierKey, since: Witness | None = None) -> Verification:
    """Check everything in the database, streaming; it stands still in one snapshot while others go on writing.

    The connection must not be in a transaction. Checking runs in a thread beside the reading.
    """
    findings = Findings()
    chains = ChainWalk(findings)
    kept = None if since is None else Kept(since.roots, since.leaves)
    tree = TreeWalk(findings, key, kept)
    async with audit_store.snapshot(connection):
        await _walk_chains(connection, chains, findings)
        await _walk_tree(connection, tree)
        unsealed = await audit_store.count_unsealed(connection)
        for run, seq in await audit_store.unsealed_without_evidence(connection, FINDINGS_MAX):
            findings.add("row.lost", f"Run {run}, row {seq} waits to be sealed and is missing", run=run, seq=seq)
        for number in await audit_store.runs_without_evidence(connection, FINDINGS_MAX):
            findings.add("run.evidence", f"Run {number}: there is no evidence of it", run=number)
    return Verification(
        intact=findings.count == 0,
        rows=chains.rows,
        leaves=tree.leaves,
        unsealed=unsealed,
        checkpoints=tree.checkpoints,
        size=tree.leaves,
        root=tree.root,
        note=tree.note,
        findings=tuple(findings.kept),
        findings_count=findings.count,
        since=None if since is None else since.checkpoint,
        limits=(
            *((LIMIT_UNSEALED,) if unsealed else ()),
            LIMIT_WITHOUT_SINCE if since is None else LIMIT_WITH_SINCE,
        ),
    )


class _Checking:
    """Checks in a thread, one piece after another, while the next is being read."""

    def __init__(self) -> None:
        self._newest: asyncio.Task[Any] | None = None
        self._before: asyncio.Task[Any] | None = None

    async def begin(self, check: Callable[[], T]) -> asyncio.Task[T]:
        """Let a piece be checked after all others; at most one waits for its turn, else this does."""
        if self._before is not None:
            await self._before
        self._before = self._newest
        task = asyncio.create_task(_after(self._before, check))
        self._newest = task
        return task

    async def finish(self) -> None:
        """Wait until everything was checked."""
        if self._newest is not None:
            await self._newest


async def _after(other: asyncio.Task[Any] | None, check: Callable[[], T]) -> T:
    if other is not None:
        await other
    return await asyncio.to_thread(check)


async def _walk_chains(connection: Connection, chains: ChainWalk, findings: Findings) -> None:
    checking = _Checking()
    taking: asyncio.Task[list[RunTale]] | None = None
    async for rows in audit_store.tuples_in_chunks(connection, audit_store.CHAINS):
        if taking is not None:
            await _compare_runs(connection, await taking, findings, checking)
        taking = await checking.begin(partial(chains.take, rows))
    if taking is not None:
        await _compare_runs(connection, await taking, findings, checking)
        await _compare_runs(connection, chains.finish(), findings, checking)
    await checking.finish()


async def _compare_runs(
    connection: Connection, tales: Sequence[RunTale], findings: Findings, checking: _Checking
) -> None:
    """The Runs come in the order of their numbers, and so do the rows of the Run table."""
    numbers = [tale.run for tale in tales]
    verdicts = await audit_store.verdicts_on(connection, numbers)
    waiting = deque(tales)

    def compare(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            while waiting[0].run != row["number"]:
                compare_run(findings, waiting.popleft(), None)
            tale = waiting.popleft()
            compare_run(findings, tale, row, verdicts.get(tale.run, ()))

    def compare_the_rest() -> None:
        for tale in waiting:
            compare_run(findings, tale, None)

    facts = audit_store.rows_in_chunks(
        connection, audit_store.RUN_FACTS, {"numbers": numbers}, audit_store.RUNS_AT_ONCE
    )
    async for rows in facts:
        await checking.begin(partial(compare, rows))
    await checking.begin(compare_the_rest)


async def _walk_tree(connection: Connection, tree: TreeWalk) -> None:
    checking = _Checking()
    covered = 0
    async for leaves in audit_store.tuples_in_chunks(connection, audit_store.LEAVES):
        upto = leaves[-1][0] + 1
        checkpoints = await audit_store.checkpoints_between(connection, covered, upto)
        covered = upto
        await checking.begin(partial(tree.take, leaves, checkpoints))
    await checking.finish()
    tree.finish(await audit_store.checkpoints_between(connection, covered, None, FINDINGS_MAX))
