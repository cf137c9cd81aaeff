"""`sql.read`, `sql.write` and `sql.migrate`: a guarded database, asked and changed through the door."""

from __future__ import annotations

from typing import ClassVar

from interlock.core.action import Action, StepResult
from interlock.core.databases import SQL_DATABASES, SQL_PARSER, CatalogFacts, StatementShape
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step
from interlock.core.ports import StepContext
from interlock.databases.model import ReadArgs, digest, disclosed, rendered, targets_of
from interlock.databases.statement import require_names, require_parameters, require_query
from interlock.lib.canonical import digest_of

MARGIN_SECONDS = 30.0


class SqlRead(Action):
    """Reads."""

    name: ClassVar[str] = "sql.read"
    summary: ClassVar[str] = "Run one query in a declared database, read-only, as a plain role and within bounds."
    example: ClassVar[JsonObject] = {
        "database": "shop",
        "sql": "select id, state from orders where id = $1",
        "parameters": [7],
    }
    Args: ClassVar[type[Frozen]] = ReadArgs

    def read_facts(self, args: ReadArgs) -> JsonObject:
        """What the statement is made of and what its names stand for. Raises Invalid, Denied, NotFound, Transient."""
        databases = self.ports.outside[SQL_DATABASES]
        declaration = databases.declaration(args.database)
        shape = self.ports.outside[SQL_PARSER].parse(args.sql)
        require_query(shape)
        require_parameters(shape, args.parameters)
        names = databases.look_up(args.database, shape, writing=False)
        require_names(shape, names, declaration)
        return {
            "shape": shape.model_dump(mode="json"),
            "names": names.model_dump(mode="json"),
            "discloses": disclosed(names.relations, declaration),
            "timeout_seconds": declaration.statement_timeout_seconds,
        }

    def plan(self, args: ReadArgs, facts: JsonObject) -> Plan:
        """One step that changes nothing."""
        shape = StatementShape.model_validate(facts["shape"])
        names = CatalogFacts.model_validate(facts["names"])
        targets = targets_of(args.database, names.relations)
        listed = ", ".join(target.id.partition("/")[2] or target.id for target in targets)
        step = Step(
            verb="read",
            summary=f"read {listed} in {args.database}"[:500],
            params={
                "database": args.database,
                "shape": facts["shape"],
                "names": facts["names"],
                "parameters": list(args.parameters),
                "format": args.format,
            },
            targets=targets,
            changes=False,
            operations=("sql.read",),
            repeatable=True,
            discloses="secret" if facts["discloses"] == "secret" else "content",
            precondition={"names": digest_of(facts["names"])},
            timeout_seconds=float(str(facts["timeout_seconds"])) + MARGIN_SECONDS,
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={"names": facts["names"], "discloses": facts["discloses"]},
            preview=shape.text,
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Run the query and show its rows. Raises Stale when a name came to mean something else."""
        shape = StatementShape.model_validate(step.params["shape"])
        result = self.ports.outside[SQL_DATABASES].read(
            str(step.params["database"]),
            shape,
            _scalars(step),
            CatalogFacts.model_validate(step.params["names"]),
            context.hold,
        )
        text = rendered(result, "table" if step.params["format"] == "table" else "json")
        context.write_output(text)
        data: JsonObject = {
            "rows": len(result.rows),
            "truncated": result.truncated,
            "cells_cut": result.truncated_cells,
            "columns": [column.model_dump() for column in result.columns],
            "output_sha256": digest(text),
        }
        rows = "1 row" if len(result.rows) == 1 else f"{len(result.rows)} rows"
        return StepResult(ok=True, summary=f"{rows}, truncated" if result.truncated else rows, data=data)


def _scalars(step: Step) -> tuple[str | int | float | bool | None, ...]:
    listed = step.params["parameters"]
    values = listed if isinstance(listed, list) else []
    return tuple(value for value in values if value is None or isinstance(value, str | int | float | bool))
