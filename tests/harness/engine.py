"""One engine as `bootstrap` puts it together, with test Actions and with policies that a test chooses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import yaml

from harness.actions import ACTIONS
from interlock.bootstrap import Installation, open_installation
from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.evidence import EvidenceKind
from interlock.core.model import JsonObject
from interlock.core.run import Run, RunState
from interlock.engine.audit.verify import Verification, verify
from interlock.engine.control_store import ControlStore
from interlock.engine.logging import configure_logging
from interlock.engine.proposal import Proposal
from interlock.lib.redact import Redactor
from interlock.settings import Locations

ALICE = Actor(kind="person", name="alice", roles=("operator",))
BOB = Actor(kind="person", name="bob", roles=("operator",))
CAROL = Actor(kind="person", name="carol")
CLAUDE = Actor(kind="agent", name="claude", on_behalf_of="person:alice")
SERVICE = Actor(kind="service", name="deploy", roles=("operator",))

PERMISSIVE = """
@id("everything")
@reason("tests of the engine permit everything")
@risk("none")
permit (principal, action, resource);
"""


@dataclass
class Engine:
    """The parts, and a few short words for what tests say most."""

    parts: Installation
    folder: Path

    def __post_init__(self) -> None:
        parts = self.parts
        self.door, self.runner, self.store, self.database = parts.door, parts.runner, parts.store, parts.database
        self.approvals, self.interventions, self.signals = parts.approvals, parts.interventions, parts.signals
        self.control = ControlStore(parts.database)

    @property
    def journal(self) -> Path:
        """Where the steps of `test.steps` leave their lines."""
        return self.folder / "journal"

    def lines(self) -> list[str]:
        """`STEP WORD` of each line of the journal, in order."""
        if not self.journal.exists():
            return []
        return [line.rsplit(" ", 1)[0] for line in self.journal.read_text(encoding="utf-8").splitlines()]

    def ask_of(self, *steps: JsonObject, action: str = "test.steps", **fields: Any) -> Ask:
        """An ask for these steps."""
        extra = fields.pop("args", {})
        args: JsonObject = {"journal": str(self.journal), "steps": [*(steps or ({},))], **extra}
        return Ask(action=action, args=args, confirmed=fields.pop("confirmed", True), **fields)

    async def ask(self, actor: Actor, *steps: JsonObject, **fields: Any) -> Run:
        """Ask, and expect that it was recorded."""
        run = await self.door.submit(actor, self.ask_of(*steps, **fields))
        assert isinstance(run, Run), run
        return run

    async def run(self, *steps: JsonObject, **fields: Any) -> Run:
        """Ask as alice and wait until it has come to rest."""
        run = await self.ask(ALICE, *steps, **fields)
        return await self.rest(run.number)

    async def rest(self, number: int, seconds: float = 30.0) -> Run:
        """The Run when it neither runs nor waits for a worker."""
        run = await self.door.wait(number, seconds)
        assert run.state not in (RunState.QUEUED, RunState.RUNNING), (run.state, run.state_reason)
        return run

    async def kinds(self, number: int) -> list[str]:
        """The kinds of a Run's evidence, in order."""
        return [row.kind.value for row in await self.store.evidence(number)]

    async def data(self, number: int, kind: EvidenceKind) -> list[dict[str, Any]]:
        """The data of a Run's evidence of one kind."""
        return [json.loads(row.line)["data"] for row in await self.store.evidence(number) if row.kind is kind]

    async def query(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Rows of a select."""
        async with self.database.connection() as connection:
            return await (await connection.execute(query.encode(), parameters)).fetchall()

    async def execute(self, statement: str, *parameters: Any) -> None:
        """A statement without rows, of who owns the tables: Interlock itself may not change most of them."""
        connection = await psycopg.AsyncConnection.connect(self.parts.address.owner, autocommit=True)
        async with connection:
            await connection.execute(statement.encode(), parameters)

    async def execute_as_owner(self, *statements: str) -> None:
        """Statements of who owns the tables."""
        connection = await psycopg.AsyncConnection.connect(self.parts.address.owner, autocommit=True)
        async with connection:
            for statement in statements:
                await connection.execute(statement.encode())

    async def verify(self) -> Verification:
        """Seal everything, then verify everything."""
        await self.parts.reconcilers.seal()
        async with self.database.connection() as connection:
            return await verify(connection, self.parts.key.verifier)


PRESETS = ("observe", "small-team", "strict")


def write_project(folder: Path, policy: str = "permissive", **project: Any) -> Locations:
    """A project folder: `policy` is `permissive`, the name of a preset, or the text of policies."""
    root = folder / "project"
    (root / "policies").mkdir(parents=True, exist_ok=True)
    limits = {"retry_budget_seconds": 5.0, **project.pop("limits", {})}
    body = {"version": 1, "preset": policy if policy in PRESETS else "small-team", "limits": limits, **project}
    (root / "interlock.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
    if policy not in PRESETS:
        text = PERMISSIVE if policy == "permissive" else policy
        (root / "policies" / "test.cedar").write_text(text, encoding="utf-8")
    return Locations(root / "interlock.yaml", folder / "state", folder / "run")


@asynccontextmanager
async def open_engine(
    app: str,
    owner: str,
    locations: Locations,
    *,
    work: bool = True,
    fast: bool = True,
    reconcile: bool = False,
) -> AsyncIterator[Engine]:
    """An engine on a database.

    `work` starts the worker; `fast` lets the door claim what it records; `reconcile` starts the timers.
    """
    configure_logging(Redactor())
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(
            open_installation(locations, app, owner, work=False, further_actions=ACTIONS)
        )
        if not fast:
            parts.door.attach(parts.runner, fast_path=False)
        if work:
            await parts.runner.start()
            stack.push_async_callback(partial(parts.runner.stop, 5.0))
        if reconcile:
            await parts.reconcilers.start()
            stack.push_async_callback(parts.reconcilers.stop)
        yield Engine(parts, locations.state_folder.parent)


def random_of(seed: int) -> Random:
    """A seeded source of chance; a failing test prints its seed."""
    return Random(seed)  # noqa: S311 - chance, not secrecy


__all__ = ["ALICE", "BOB", "CAROL", "CLAUDE", "PERMISSIVE", "SERVICE", "Engine", "Proposal", "open_engine"]
