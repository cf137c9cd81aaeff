"""A row of adopted programs counts only where Interlock wrote it: who else writes to the database adopts nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.engine import ALICE, Engine
from interlock.bootstrap.checking import check_installation
from interlock.bootstrap.project import command_action
from interlock.commands.model import Unknown
from interlock.core.ask import Ask
from interlock.core.run import Run
from interlock.engine.adoption_seal import AdoptionSeal
from interlock.engine.views import Nothing

from .conftest import OpenEngine

NAME = "report.nightly"


def _script(folder: Path, name: str = "nightly.sh") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {name}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


async def _do(engine: Engine, action: str, **args: Any) -> Run:
    run = await engine.door.submit(ALICE, Ask(action=action, args=args, confirmed=True))
    assert isinstance(run, Run), run
    return await engine.rest(run.number)


async def _adopt(engine: Engine, path: Path, name: str = NAME) -> Run:
    run = await _do(engine, "interlock.adopt", path=str(path), name=name, reads_only=True)
    assert run.state == "succeeded", run.state_reason
    return run


def _known(engine: Engine, name: str = NAME) -> bool:
    return not isinstance(command_action(engine.parts.catalog).library().match([name]), Unknown)


def _records(engine: Engine) -> Any:
    return command_action(engine.parts.catalog).ports.records


def _troubles(engine: Engine) -> list[str]:
    return [trouble.message for trouble in engine.parts.reconcilers.troubles if trouble.code == "adopt.unbound"]


CHANGES = {
    "another timeout": "update adopted set program = jsonb_set(program, '{forms,0,timeout_seconds}', '1')",
    "another script": "update adopted set program = jsonb_set(program, '{adopted,path}', '\"/bin/sh\"')",
    "another digest": "update adopted set sha256 = repeat('0', 64)",
    "another run": "update adopted set run = run + 1",
    "another person": "update adopted set adopted_by = 'person:mallory'",
    "another name": "update adopted set name = 'evil.twin'",
    "no mac": "update adopted set mac = null",
    "an empty mac": "update adopted set mac = ''",
    "a mac of another kind": "update adopted set mac = 'é'",
    "no program": "update adopted set program = '[1e999, null]'",
}


async def test_a_row_that_somebody_changed_is_no_program_and_is_told(open_apart: OpenEngine, tmp_path: Path) -> None:
    async with open_apart() as engine:
        await _adopt(engine, _script(tmp_path))
        await engine.execute("create table kept as select * from adopted")
        for change, statement in CHANGES.items():
            await engine.execute(statement)
            await _records(engine).refresh()
            assert _records(engine).adopted() == (), change
            assert len(_troubles(engine)) == 1, change
            await engine.execute("delete from adopted")
            await engine.execute("insert into adopted select * from kept")
            await _records(engine).refresh()
            assert len(_records(engine).adopted()) == 1, "as it was written it holds"
            assert not _troubles(engine)


async def test_a_row_that_nobody_adopted_is_opaque_after_a_restart_and_adopting_anew_mends_it(
    open_apart: OpenEngine, tmp_path: Path
) -> None:
    async with open_apart() as engine:
        await _adopt(engine, _script(tmp_path))
        # With every right that Interlock itself has on the tables, and a key of his own.
        row = (await engine.query("select * from adopted"))[0]
        row |= {"name": "evil.twin", "program": {**row["program"], "program": "evil.twin"}}
        async with engine.database.connection() as connection:
            await connection.execute(
                "insert into adopted (name, program, path, sha256, adopted_by, run, mac)"
                " values (%s, %s::jsonb, %s, %s, %s, %s, %s)",
                (
                    *(row["name"], json.dumps(row["program"]), row["path"], row["sha256"], row["adopted_by"]),
                    *(row["run"], AdoptionSeal(b"k" * 32).of(row)),
                ),
            )
    async with open_apart() as engine:
        assert _known(engine), "what was adopted is known after a restart"
        assert not _known(engine, "evil.twin")
        (told,) = _troubles(engine)
        assert "'evil.twin'" in told
        levels = {each["level"] for each in check_installation(engine.parts) if each["message"] == told}
        assert levels == {"error"}
        shown = await engine.parts.views.read(ALICE, "status", Nothing())
        assert told in json.dumps(shown)
        adopted = await _adopt(engine, _script(tmp_path, "mine.sh"), "evil.twin")
        assert _known(engine, "evil.twin")
        assert not _troubles(engine)
        undo = adopted.plan.steps[0].undo
        assert undo is not None
        assert undo.verb == "forget", "the strange row is nothing to go back to"
