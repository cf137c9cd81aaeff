"""Small worlds for the Actions of batch jobs: a report of a few lines, in versions that lie in its own folder."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg

from harness.action_worlds import Stage, World
from interlock.core.model import JsonObject
from interlock.core.workload import BatchWorkload

SCRIPT = 'import sys\nopen(f"{sys.argv[1]}/r.csv", "w").write("id,n\\n" + "".join(f"{n},{n}\\n" for n in range(500)))\n'


def _report(stage: Stage) -> Path:
    """A batch job of this world alone is declared, with versions v1 and v2; the folder of v2 is returned."""
    source = stage.engine.parts.project
    for version in ("v1", "v2"):
        (stage.folder / version).mkdir()
        (stage.folder / version / "report.py").write_text(f"# {version}\n{SCRIPT}")
    made = {
        "kind": "batch",
        "command": [sys.executable, "-I", "-S", "{source}/report.py", "{output}"],
        "source": {"folder": str(stage.folder / "{version}")},
        "output": str(stage.folder / "out"),
        "comparison": {"keys": ["id"], "key_fields": ["n"]},
    }
    workloads = {**source.current.workloads, stage.word: BatchWorkload.model_validate(made)}
    source.current = source.current.model_copy(update={"workloads": workloads})
    return stage.folder / "v2"


def _change(folder: Path) -> Callable[[], object]:
    return lambda: (folder / "more.py").write_text("more = 1\n")


def _epoch(stage: Stage) -> Callable[[], None]:
    """Somebody else changed which version invocations get."""

    def routed_by_other_hands() -> None:
        with psycopg.connect(stage.engine.parts.address.owner, autocommit=True) as connection:
            connection.execute(
                "update batch_routing set epoch = epoch + 1,"
                " document = jsonb_set(document, '{epoch}', to_jsonb(epoch + 1)) where workload = %s",
                (stage.word,),
            )

    return routed_by_other_hands


def _args(stage: Stage, **more: object) -> JsonObject:
    return {"workload": stage.word, **more}  # type: ignore[dict-item]


async def _first(stage: Stage) -> Path:
    """v1 is in force."""
    folder = _report(stage)
    await stage.succeed("batch.cutover", _args(stage, version="v1", percent=100.0))
    return folder


async def _run(stage: Stage) -> World:
    await _first(stage)
    return World(_args(stage), _epoch(stage))


async def _shadow(stage: Stage) -> World:
    folder = await _first(stage)
    return World(_args(stage, version="v2"), _change(folder))


async def _cutover_first(stage: Stage) -> World:
    folder = _report(stage)
    return World(_args(stage, version="v2", percent=100.0), _change(folder))


async def _cutover(stage: Stage) -> World:
    await _first(stage)
    await stage.succeed("batch.shadow", _args(stage, version="v2"))
    return World(_args(stage, version="v2", percent=20.0), _epoch(stage))


async def _rollback(stage: Stage) -> World:
    world = await _cutover(stage)
    await stage.succeed("batch.cutover", world.args)
    return World(_args(stage, reason="output_mismatch"), _epoch(stage))


async def _accept(stage: Stage) -> World:
    folder = _report(stage)
    return World(_args(stage, name="one", reason="as told", version="v2"), _change(folder))


async def _check(stage: Stage) -> World:
    world = await _accept(stage)
    await stage.succeed("batch.accept", world.args)
    return World(_args(stage, version="v2"), world.disturb)


BATCH_WORLDS: dict[str, tuple[Callable[[Stage], Awaitable[World]], ...]] = {
    "batch.accept": (_accept,),
    "batch.check": (_check,),
    "batch.cutover": (_cutover_first, _cutover),
    "batch.rollback": (_rollback,),
    "batch.run": (_run,),
    "batch.shadow": (_shadow,),
}
