"""What can be asked at the local socket: each method validates, calls the engine, and shapes the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from pydantic import JsonValue

from interlock import __version__
from interlock.bootstrap import Installation
from interlock.bootstrap.checking import check_installation, check_tokens
from interlock.bootstrap.doctor import examine_installation
from interlock.bootstrap.replaying import period_of
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Denied, Invalid, NotFound
from interlock.core.model import JsonObject
from interlock.core.run import Run, RunState
from interlock.engine.audit.export import export_log, export_run
from interlock.engine.audit.receipt import make_receipt
from interlock.engine.audit.verify import read_witness, verify
from interlock.engine.backup import write_backup
from interlock.engine.planner import validate
from interlock.engine.policy.applied import digest_of_texts, read_layers_or_trouble
from interlock.engine.policy.codes import CODES
from interlock.engine.policy.explain import explain
from interlock.engine.policy.load import PolicySet, read_layers, with_project_files
from interlock.engine.policy.replay import summary_of
from interlock.engine.policy.tables import TableReport, read_table_file, run_tables, table_files
from interlock.engine.policy_store import PolicyStore
from interlock.engine.proposal import Proposal
from interlock.engine.shapes import proposal_json
from interlock.engine.views import DeskView, blanked, is_own, may_see
from interlock.interfaces.local.call import Call
from interlock.interfaces.local.params import (
    AgainParams,
    CancelParams,
    DecideParams,
    ExplainParams,
    HoldParams,
    Nothing,
    OutputParams,
    ProposeParams,
    RangeParams,
    ReplayParams,
    ResolveParams,
    RunParams,
    SinceParams,
    SubmitParams,
    ViewParams,
    Waiting,
)
from interlock.interfaces.local.protocol import PROTOCOL, decode_frame
from interlock.interfaces.local.watch import Watch

LOOK_SECONDS = 0.5
SETTLE_SECONDS = 15.0
CHUNK_BYTES = 256 * 1024
RANGE_BYTES_MAX = 1024 * 1024


Method = Callable[[Call], Awaitable[JsonObject]]

CODE_OF_METHOD = {
    "policy_check": "view:policy",
    "policy_test": "view:policy",
    "policy_explain": "view:policy",
    "policy_replay": "view:policy",
    "check": "view:check",
    "doctor": "view:check",
    "audit_verify": "audit:verify",
}
"""What is neither an ask nor a view, and the code that somebody who is kept to codes needs for it."""


class Methods:
    """All methods by name."""

    def __init__(self, installation: Installation, own_uid: int) -> None:
        self._on = installation
        self._own_uid = own_uid
        self.asked_to_stop = asyncio.Event()
        self._by_name: dict[str, Method] = {
            name: getattr(self, name)
            for name in [
                "hello",
                "health",
                "submit",
                "propose",
                "decide",
                "cancel",
                "retry",
                "undo",
                "resolve",
                "wait",
                "watch",
                "output",
                "output_range",
                "view",
                "hold",
                "policy_check",
                "policy_test",
                "policy_explain",
                "policy_replay",
                "reload",
                "check",
                "doctor",
                "audit_verify",
                "audit_export",
                "receipt",
                "backup",
                "stop",
            ]
        }

    @property
    def names(self) -> tuple[str, ...]:
        """What may be asked."""
        return tuple(self._by_name)

    async def run(self, name: str, call: Call) -> JsonObject:
        """Raises NotFound for a name that is none, and whatever the method raises."""
        if name not in self._by_name:
            msg = f"there is no method {name[:100]!r}"
            raise NotFound(msg, code="method.unknown", details={"known": sorted(self._by_name)})
        if name in CODE_OF_METHOD:
            self._on.judge.require_code(call.actor, CODE_OF_METHOD[name])
        return await self._by_name[name](call)

    async def hello(self, call: Call) -> JsonObject:
        """Who is who, and what this is."""
        validate(Nothing, call.params, "hello")
        on = self._on
        shared_user = call.peer.uid in (self._own_uid, 0) and call.actor.via is None
        trouble = on.book.trouble
        return {
            "version": __version__,
            "protocol": PROTOCOL,
            "mode": "advisory" if shared_user else "enforced",
            "actor": call.actor.model_dump(mode="json"),
            "project": {
                "name": on.project().name,
                "folder": str(on.locations.project_folder),
                "preset": on.project().preset,
                **on.project.in_force,
            },
            "pid": os.getpid(),
            "started_at": on.started_at.isoformat(),
            "database": {
                "kind": "embedded" if on.embedded is not None else "external",
                "separated": on.address.separated,
            },
            "state_folder": str(on.locations.state_folder),
            "warnings": [*on.book.current.warnings, *([trouble.message] if trouble is not None else [])],
        }

    async def health(self, call: Call) -> JsonObject:
        """How this process is; the account that runs it may always ask, others by the view of that name."""
        validate(Nothing, call.params, "health")
        view = self._on.views.views["health"]
        own = call.peer.uid in (self._own_uid, 0) and call.actor.via is None and call.actor.kind != "agent"
        if not own:
            self._on.views.require(call.actor, view.name, view.discloses)
        return await view.read(call.actor, None)

    async def submit(self, call: Call) -> JsonObject:
        """Take an ask through the door."""
        params: SubmitParams = validate(SubmitParams, call.params, "submit")
        return await self._outcome(call, await self._on.door.submit(call.actor, params.ask), params)

    async def propose(self, call: Call) -> JsonObject:
        """Plan and decide, nothing else."""
        params: ProposeParams = validate(ProposeParams, call.params, "propose")
        return self._proposal(call, await self._on.door.propose(call.actor, params.ask))

    async def decide(self, call: Call) -> JsonObject:
        """Say yes or no to a Run."""
        params: DecideParams = validate(DecideParams, call.params, "decide")
        run, missing = await self._on.approvals.decide(
            call.actor, params.run, verdict=params.verdict, reason=params.reason, digest=params.digest
        )
        outcome = await self._outcome(call, run, params)
        return {**outcome, "missing": [requirement.model_dump(mode="json") for requirement in missing]}

    async def cancel(self, call: Call) -> JsonObject:
        """Stop a Run."""
        params: CancelParams = validate(CancelParams, call.params, "cancel")
        return {
            "run": await self._whole(call, await self._on.interventions.cancel(call.actor, params.run, params.reason))
        }

    async def retry(self, call: Call) -> JsonObject:
        """Ask the same again."""
        params: AgainParams = validate(AgainParams, call.params, "retry")
        await self._require_readable(call, params.run)
        return await self._outcome(
            call, await self._on.interventions.retry(call.actor, params.run, params.ask()), params
        )

    async def undo(self, call: Call) -> JsonObject:
        """Take a Run back."""
        params: AgainParams = validate(AgainParams, call.params, "undo")
        await self._require_readable(call, params.run)
        return await self._outcome(
            call, await self._on.interventions.undo(call.actor, params.run, params.ask()), params
        )

    async def resolve(self, call: Call) -> JsonObject:
        """Settle an unresolved Run."""
        params: ResolveParams = validate(ResolveParams, call.params, "resolve")
        run = await self._on.interventions.resolve(call.actor, params.run, params.resolution, params.reason)
        return await self._outcome(call, run, params)

    async def wait(self, call: Call) -> JsonObject:
        """Stay on the line until a Run comes to rest."""
        params: RunParams = validate(RunParams, call.params, "wait")
        run = await self._on.store.by_number(params.run)
        if not is_own(call.actor, run):
            self._on.judge.require_code(call.actor, "view:run")
        return await self._outcome(call, run, params)

    async def watch(self, call: Call) -> JsonObject:
        """Look at many Runs over this one connection, until the caller closes it: see `interfaces/local/watch.py`."""
        validate(Nothing, call.params, "watch")
        return await Watch(self._on, call, own=call.peer.uid == self._own_uid).serve()

    async def output(self, call: Call) -> JsonObject:
        """What a Run printed, and what it goes on to print."""
        params: OutputParams = validate(OutputParams, call.params, "output")
        run = await self._on.store.by_number(params.run)
        self._on.views.require_output(call.actor, run)
        total, skip = 0, 0
        if params.tail_bytes is not None:
            skip = max(0, await self._on.outputs.size(params.run) - params.tail_bytes)
        async for text in self._pieces(params.run, follow=params.follow):
            raw = text.encode()
            kept = raw[skip:] if skip < len(raw) else b""
            skip = max(0, skip - len(raw))
            total += len(kept)
            if kept:
                await call.progress(output=kept.decode("utf-8", "ignore"))
        return {"bytes": total, "state": (await self._on.store.by_number(params.run)).state.value}

    async def output_range(self, call: Call) -> JsonObject:
        """Some bytes of what a Run printed so far, at most `RANGE_BYTES_MAX` of them, in base64."""
        params: RangeParams = validate(RangeParams, call.params, "output_range")
        self._on.views.require_output(call.actor, await self._on.store.by_number(params.run))
        size = await self._on.outputs.size(params.run)
        start = params.start if params.last is None else max(0, size - params.last)
        end = size if params.end is None or params.last is not None else min(size, params.end + 1)
        end = min(end, start + RANGE_BYTES_MAX)
        part, place = bytearray(), 0
        async for text in self._pieces(params.run, follow=False):
            raw = text.encode()
            part += raw[max(0, start - place) : max(0, end - place)]
            place += len(raw)
            if place >= end:
                break
        return {"chunk": base64.b64encode(part).decode(), "start": start, "size": max(size, place)}

    async def view(self, call: Call) -> JsonObject:
        """Read one of Interlock's own tables."""
        params: ViewParams = validate(ViewParams, call.params, "view")
        view = self._on.views.views.get(params.name)
        if view is None:
            msg = f"there is no view {params.name[:100]!r}"
            raise NotFound(msg, code="view.unknown", details={"known": sorted(self._on.views.views)})
        args = validate(view.Args, params.args, params.name)
        return {"data": await self._on.views.read(call.actor, params.name, args)}

    async def hold(self, call: Call) -> JsonObject:
        """Keep a target while the caller runs his own command; he says when it ended."""
        params: HoldParams = validate(HoldParams, call.params, "hold")
        args: JsonObject = {"target": params.target, "command": list(params.command), "minutes": params.minutes}
        ask = Ask(
            action="target.hold", args=args, reason=params.reason, confirmed=params.confirmed, digest=params.digest
        )
        holds = self._on.holds
        outcome = await self._on.door.submit(call.actor, ask)
        if isinstance(outcome, Proposal):
            return self._proposal(call, outcome)
        number = outcome.number
        holds.attach(number)
        said = asyncio.create_task(call.reader.readline())
        try:
            await self._until_ended(call, outcome, said)
        finally:
            holds.detach(number)
            said.cancel()
        return {"run": await self._whole(call, await self._on.door.wait(number, SETTLE_SECONDS))}

    async def _until_ended(self, call: Call, run: Run, said: asyncio.Task[bytes]) -> None:
        """Tell each state of the Run until it is over, or until the terminal says that its command ended."""
        told: RunState | None = None
        while not run.state.is_final and run.state is not RunState.UNRESOLVED:
            if run.state is not told:
                told = run.state
                await call.progress(run=run.number, state=run.state.value)
            await asyncio.wait({said}, timeout=LOOK_SECONDS)
            if said.done():
                line = said.result()
                if not line:
                    return
                self._on.holds.ended(run.number, _exit_code(line))
                await self._on.door.wait(run.number, SETTLE_SECONDS)
                return
            run = await self._on.store.by_number(run.number)

    async def policy_check(self, call: Call) -> JsonObject:
        """Load the policies on disk without putting them in force."""
        validate(Nothing, call.params, "policy_check")
        found = await asyncio.to_thread(self._on.loader.load, self._on.project.read())
        rules: list[JsonValue] = [
            {
                "id": name,
                "layer": rule.layer,
                "file": rule.file,
                "effect": rule.effect,
                "reason": rule.reason.reason,
                "risk": rule.reason.risk,
            }
            for name, rule in sorted(found.rules.items())
        ]
        in_force = found.digest == self._on.book.current.digest
        return {
            "policy_set": found.digest,
            "in_force": in_force,
            "pinned": self._on.book.current.pinned,
            "policies": rules,
            "problems": list(found.warnings),
        }

    async def policy_test(self, call: Call) -> JsonObject:
        """Run the decision tables that lie beside the policies."""
        validate(Nothing, call.params, "policy_test")
        report = await asyncio.to_thread(self._test_policies)
        failed: list[JsonValue] = [
            {"file": row.file, "line": row.line, "name": row.name, "fault": row.fault} for row in report.failed
        ]
        return {
            "passed": len(report.results) - len(failed),
            "failed": failed,
            "uncovered": list(report.uncovered),
        }

    def _test_policies(self) -> TableReport:
        project = self._on.project.read()
        sources, _ = read_layers(project)
        tables = [read_table_file(path) for path in table_files(project)]
        return run_tables(self._on.loader, sources, tables, preset=project)

    async def policy_explain(self, call: Call) -> JsonObject:
        """Which policies decided, and what would change the answer."""
        params: ExplainParams = validate(ExplainParams, call.params, "policy_explain")
        if (params.run is None) == (params.ask is None):
            msg = "name either a Run or an ask"
            raise Invalid(msg, code="explain.what")
        if params.ask is not None:
            decision = (await self._on.door.propose(call.actor, params.ask)).decision
        else:
            self._on.views.require(call.actor, "run", "content")
            decision = (await self._on.store.by_number(params.run or 0)).decision
        told = explain(self._on.book.current, decision, self._on.clock.now())
        return {"explanation": asdict(told)}

    async def policy_replay(self, call: Call) -> JsonObject:
        """Decide recorded Runs by policies that are not in force, and tell what would have been answered otherwise."""
        params: ReplayParams = validate(ReplayParams, call.params, "policy_replay")
        on = self._on
        for name in ("runs", "run"):
            on.views.require(call.actor, name, "content")
        period = period_of(params.since, params.until, on.clock.now())

        def load() -> PolicySet:
            project = on.project.read()
            sources, warnings = read_layers(project)
            if params.policies is not None:
                sources = with_project_files(sources, params.policies)
            return on.loader.load_sources(project, sources, warnings)

        async def tell(decided: int, total: int) -> None:
            await call.progress(decided=decided, total=total)

        proposed = await asyncio.to_thread(load)
        report = await on.replays.replay(proposed, on.book.current, period, tell)
        if params.policies is not None:
            return {**report, "id": None}
        kept = await PolicyStore(on.database).keep_replay(digest_of_texts(proposed.sources), summary_of(report))
        return {**report, "id": kept}

    async def reload(self, call: Call) -> JsonObject:
        """Put what is on disk in force; what is not sound leaves everything as it was."""
        validate(Nothing, call.params, "reload")
        self._require_operator(call)
        before = self._on.project()
        found = await asyncio.to_thread(self._on.project.reload, self._on.catalog, self._on.book)
        now = self._on.project()
        changed: list[JsonValue] = [
            name for name in type(now).model_fields if getattr(now, name) != getattr(before, name)
        ]
        warnings: list[JsonValue] = [*found.warnings]
        if found.pinned and read_layers_or_trouble(self._on.project())[0] != digest_of_texts(found.sources):
            warnings.append("the policies on disk are not in force: only `interlock policy apply` puts them there")
        return {
            "policy_set": found.digest,
            "pinned": found.pinned,
            **self._on.project.in_force,
            "changed": changed,
            "warnings": warnings,
        }

    async def check(self, call: Call) -> JsonObject:
        """Look for what is wrong with this installation."""
        validate(Nothing, call.params, "check")
        found = await asyncio.to_thread(check_installation, self._on)
        return {"findings": [*found, *await check_tokens(self._on)]}

    async def doctor(self, call: Call) -> JsonObject:
        """Look for what is wrong with the machine as well, and what this process alone can see of it."""
        validate(Nothing, call.params, "doctor")
        return {"findings": [each.model_dump(mode="json") for each in await examine_installation(self._on)]}

    async def audit_verify(self, call: Call) -> JsonObject:
        """Recompute every chain and the tree."""
        params: SinceParams = validate(SinceParams, call.params, "audit_verify")
        key = self._on.key.verifier
        since = read_witness(params.since, key) if params.since is not None else None
        async with self._on.database.connection() as connection:
            found = await verify(connection, key, since)
        if found.intact and found.note is None and found.rows:
            # A young log gets its first checkpoint. Only now: a sealer that refuses must not hide what was found.
            await self._on.reconcilers.seal()
            async with self._on.database.connection() as connection:
                found = await verify(connection, key, since)
        return found.model_dump(mode="json")

    async def audit_export(self, call: Call) -> JsonObject:
        """Send an archive that verifies without us."""
        params: SinceParams = validate(SinceParams, call.params, "audit_export")
        self._on.views.require(call.actor, "audit.export", "content")
        await self._on.reconcilers.seal()
        with tempfile.TemporaryDirectory(prefix="export-", dir=self._on.locations.state_folder) as folder:
            async with self._on.database.connection() as connection:
                if params.run is not None:
                    exported = await export_run(connection, self._on.key, Path(folder), params.run)
                else:
                    key = self._on.key.verifier
                    since = read_witness(params.since, key) if params.since is not None else None
                    exported = await export_log(connection, self._on.key, Path(folder), since=since)
            path = Path(exported.path)
            size = await self._send_file(call, path)
            return {"name": path.name, "bytes": size, "sha256": exported.sha256}

    async def receipt(self, call: Call) -> JsonObject:
        """A Run's evidence with its proof and a checkpoint."""
        params: RunParams = validate(RunParams, call.params, "receipt")
        self._on.views.require(call.actor, "receipt", "content")
        await self._on.reconcilers.seal()
        async with self._on.database.connection() as connection:
            return {"receipt": (await make_receipt(connection, params.run)).model_dump(mode="json")}

    async def backup(self, call: Call) -> JsonObject:
        """Send database, keys, bodies and configuration as one archive."""
        validate(Nothing, call.params, "backup")
        self._require_operator(call)
        with tempfile.TemporaryDirectory(prefix="backup-", dir=self._on.locations.state_folder) as folder:
            await call.progress(text="dumping the database")
            made = await asyncio.to_thread(write_backup, self._on.backup_parts(), Path(folder), self._on.clock.now())
            size = await self._send_file(call, made.path)
            return {"name": made.path.name, "bytes": size, "sha256": made.sha256}

    async def stop(self, call: Call) -> JsonObject:
        """End the resident process; Runs that are under way are given back."""
        validate(Nothing, call.params, "stop")
        self._require_operator(call)
        self.asked_to_stop.set()
        return {"stopping": True}

    async def _require_readable(self, call: Call, number: int) -> None:
        """A new ask made of an old one shows its arguments. Raises Denied where it is somebody else's and may not be
        read, NotFound."""
        if not is_own(call.actor, await self._on.store.by_number(number)):
            self._on.views.require(call.actor, "run", "content")

    def _require_operator(self, call: Call) -> None:
        # Who came by a token came through another's account, and has none here.
        if call.peer.uid not in (self._own_uid, 0) or call.actor.kind != "person" or call.actor.via is not None:
            msg = "only a person with the account that runs Interlock may do that"
            raise Denied(msg, code="operator.only", fix="use sudo, or ask the operator of this machine")

    async def _send_file(self, call: Call, path: Path) -> int:
        """Send a file in pieces; returns its size in bytes."""
        size = 0
        file = await asyncio.to_thread(path.open, "rb")
        with file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                size += len(chunk)
                await call.progress(chunk=base64.b64encode(chunk).decode())
        return size

    async def _outcome(self, call: Call, outcome: Run | Proposal, waiting: Waiting) -> JsonObject:
        if isinstance(outcome, Proposal):
            return self._proposal(call, outcome)
        number = outcome.number
        if (
            waiting.stream
            and waiting.wait_seconds > 0
            and self._hears(call, outcome)
            and outcome.state in (RunState.QUEUED, RunState.RUNNING)
        ):
            await call.progress(run=number, state=outcome.state.value)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(waiting.wait_seconds):
                    async for text in self._pieces(number, follow=True):
                        await call.progress(run=number, output=text)
        streamed = waiting.stream and self._hears(call, outcome)
        run = await self._on.door.wait(number, 0 if streamed else waiting.wait_seconds)
        return {"run": await self._whole(call, run)}

    def _hears(self, call: Call, run: Run) -> bool:
        return may_see(self._on.judge, call.actor, run, self._on.clock)

    def _proposal(self, call: Call, proposal: Proposal) -> JsonObject:
        """A proposal as its asker may see it: an agent is shown nothing that discloses a secret."""
        shown = proposal_json(proposal)
        hidden = (proposal.plan.discloses == "secret" and call.actor.kind != "person") or any(
            reason.policy == CODES for reason in proposal.decision.reasons
        )
        return {"proposal": blanked(shown) if hidden else shown}

    async def _pieces(self, number: int, *, follow: bool) -> AsyncIterator[str]:
        """The Run's output from its beginning; when following, until it comes to rest."""
        seq = 0
        while True:
            run = await self._on.store.by_number(number)
            await self._on.output_log.flush(number)
            for piece in await self._on.outputs.read(number, seq):
                seq = piece.seq
                yield piece.text
            if not follow or run.state not in (RunState.QUEUED, RunState.RUNNING):
                return
            await self._on.signals.wait(number, LOOK_SECONDS)

    async def _whole(self, call: Call, run: Run) -> JsonObject:
        view = self._on.views.views["run"]
        if not isinstance(view, DeskView):
            msg = "the view `run` reads from the desk"
            raise Conflict(msg, code="bug")
        return await view.whole(run, call.actor)


def _exit_code(line: bytes) -> int:
    """What the terminal says about the person's command. Raises Invalid."""
    given = decode_frame(line).get("input")
    code = given.get("exit_code") if isinstance(given, dict) else None
    if not isinstance(code, int):
        msg = 'the end of a hold is {"input": {"exit_code": NUMBER}}'
        raise Invalid(msg, code="protocol.input")
    return code
