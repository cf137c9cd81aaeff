"""`sql.read`, `sql.write` and `sql.migrate`: a guarded database, asked and changed through the door."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from interlock.core.action import Action, StepResult
from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import (
    SQL_DATABASES,
    SQL_PARSER,
    CatalogFacts,
    RelationFacts,
    Scalar,
    SqlParser,
    StatementShape,
    TableFacts,
    WriteOutcome,
    WriteRequest,
)
from interlock.core.errors import Invalid, NotFound, Stale
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import STEP_TIMEOUT_SECONDS_MAX, STEPS_MAX, Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.databases.effects import Effects
from interlock.databases.migrations import (
    MigrationFile,
    due,
    is_transactional,
    read_folder,
    read_migration,
    require_same,
    script_of,
)
from interlock.databases.model import (
    MigrateArgs,
    ReadArgs,
    WriteArgs,
    database_target,
    digest,
    disclosed,
    rendered,
    table_target,
    targets_of,
)
from interlock.databases.statement import (
    require_defaults,
    require_names,
    require_parameters,
    require_query,
    require_write,
    written_table,
)
from interlock.databases.writing import (
    Rehearsal,
    differs,
    irreversible,
    is_many,
    preview_of,
    rehearsal_in,
    rehearsal_of,
    relations_of,
    risk_of,
)
from interlock.lib.canonical import digest_of

MARGIN_SECONDS = 30.0
PREVIEW_CHARACTERS = 20_000
UNDO_OPERATIONS = {"insert": "sql.delete", "update": "sql.update", "delete": "sql.insert"}


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
            # What it is made of was judged; from here on its text and its names count.
            "shape": shape.model_dump(mode="json", exclude_defaults=True, exclude={"nodes"}),
            "names": names.model_dump(mode="json", exclude_defaults=True),
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
            facts={"names": digest_of(facts["names"]), "discloses": facts["discloses"]},
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


class SqlWrite(Action):
    """Writes."""

    name: ClassVar[str] = "sql.write"
    summary: ClassVar[str] = (
        "Run one INSERT, UPDATE or DELETE; the plan shows the rows, rehearsed, and undo restores them."
    )
    example: ClassVar[JsonObject] = {
        "database": "shop",
        "sql": "update orders set state = 'paid' where id = $1",
        "parameters": [7],
    }
    Args: ClassVar[type[Frozen]] = WriteArgs

    def read_facts(self, args: WriteArgs) -> JsonObject:
        """What the statement touches, without running it. Raises Invalid, Denied, NotFound, Transient."""
        databases, parser = self.ports.outside[SQL_DATABASES], self.ports.outside[SQL_PARSER]
        declaration = databases.declaration(args.database)
        shape = parser.parse(args.sql)
        require_write(shape)
        require_parameters(shape, args.parameters)
        names = databases.look_up(args.database, shape, writing=True)
        require_names(shape, names, declaration)
        table = databases.table(args.database, written_table(shape, names, declaration))
        if table.defaults and (shape.kind == "insert" or "SetToDefault" in shape.nodes):
            defaults = parser.parse(f"select {', '.join(table.defaults.values())}")
            require_defaults(databases.look_up(args.database, defaults, writing=True))
        return {
            "shape": shape.model_dump(mode="json", exclude_defaults=True),
            "table": table.model_dump(mode="json"),
            "declaration": declaration.model_dump(mode="json"),
            "discloses": disclosed((*names.relations, *relations_of(shape, table)), declaration),
        }

    def rehearse(self, args: WriteArgs, facts: JsonObject) -> JsonObject:
        """Run it and roll back; where code runs that nobody knows, ask PostgreSQL for an estimate instead."""
        databases = self.ports.outside[SQL_DATABASES]
        request = self._request(args.database, facts, args.parameters)
        if request.table.unknown_code:
            rows = databases.estimate(args.database, request.shape, args.parameters)
            found = Rehearsal(exact=False, rows=rows)
        else:
            shown = facts["discloses"] != "secret"
            found = rehearsal_of(databases.rehearse(args.database, request), shown=shown)
        return {**facts, "rehearsal": found.model_dump_json()}

    def plan(self, args: WriteArgs, facts: JsonObject) -> Plan:
        """One step, which touches what was rehearsed or nothing."""
        shape, table = StatementShape.model_validate(facts["shape"]), TableFacts.model_validate(facts["table"])
        declaration = DatabaseDeclaration.model_validate(facts["declaration"])
        found = rehearsal_in(facts)
        step = self._step(args, facts, irreversible(shape, table, declaration))
        if found is not None and found.exact and found.before is None and step.undo is not None:
            why = f"it touches more rows than are kept ({declaration.pre_image_rows_max:,}), or larger ones"
            step = step.model_copy(update={"undo": None, "irreversible": why})
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={"table": facts["table"], "rehearsal": facts.get("rehearsal")},
            preview=preview_of(shape, found, table, self.ports.redactor),
        )

    def _step(self, args: WriteArgs, facts: JsonObject, why_irreversible: str | None) -> Step:
        shape, table = StatementShape.model_validate(facts["shape"]), TableFacts.model_validate(facts["table"])
        declaration = DatabaseDeclaration.model_validate(facts["declaration"])
        found = rehearsal_in(facts)
        targets = targets_of(args.database, relations_of(shape, table))
        rows = "rows" if found is None else f"{'' if found.exact else 'about '}{found.rows} rows"
        timeout_seconds = declaration.statement_timeout_seconds * 3 + MARGIN_SECONDS
        undo = Step(
            verb="put_back",
            summary=f"put the rows of {table.relation.qualified} in {args.database} back as they were",
            params={"database": args.database, "table": facts["table"]},
            targets=targets,
            risk="medium",
            operations=(UNDO_OPERATIONS[shape.kind],),
            repeatable=True,
            discloses="nothing",
            timeout_seconds=timeout_seconds,
        )
        many = ("sql.write_many",) if is_many(declaration, found) else ()
        return Step(
            verb="write",
            summary=f"{shape.kind} {rows} of {table.relation.qualified} in {args.database}",
            params={
                "database": args.database,
                "shape": facts["shape"],
                "table": facts["table"],
                "parameters": list(args.parameters),
                "keep_images": why_irreversible is None,
            },
            targets=targets,
            risk=risk_of(shape, table, declaration, found),
            operations=(f"sql.{shape.kind}", *many),
            repeatable=True,
            discloses="secret" if facts["discloses"] == "secret" else "content",
            precondition={"rehearsal": facts.get("rehearsal")},
            undo=undo if why_irreversible is None else None,
            irreversible=why_irreversible,
            timeout_seconds=timeout_seconds,
        )

    def _request(self, database: str, facts: JsonObject, parameters: tuple[Scalar, ...]) -> WriteRequest:
        shape, table = StatementShape.model_validate(facts["shape"]), TableFacts.model_validate(facts["table"])
        declaration = self.ports.outside[SQL_DATABASES].declaration(database)
        keep = irreversible(shape, table, declaration) is None
        return WriteRequest(shape=shape, parameters=parameters, table=table, keep_images=keep)

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Write, or put back what was written; once, however often it is asked."""
        if step.verb == "put_back":
            return self._put_back(step, context)
        effects = Effects(self.ports.outside[SQL_DATABASES], context)
        if effects.is_committed(context.key):
            return StepResult(ok=True, summary="it was done already")
        database = str(step.params["database"])
        self._require_same_table(database, step)
        planned = Rehearsal.model_validate_json(str((step.precondition or {})["rehearsal"]))

        def accept(outcome: WriteOutcome) -> None:
            difference = differs(planned, outcome)
            if difference is not None:
                msg = f"{difference}; nothing was written"
                raise Stale(msg, code="sql.rows_changed", fix="ask again to see the new plan")

        request = WriteRequest(
            shape=StatementShape.model_validate(step.params["shape"]),
            parameters=_scalars(step),
            table=TableFacts.model_validate(step.params["table"]),
            keep_images=bool(step.params["keep_images"]),
        )
        outcome = self.ports.outside[SQL_DATABASES].write(
            database, request, accept, lambda identity, seen: effects.intend(database, context.key, identity, seen)
        )
        return StepResult(ok=True, summary=f"{outcome.rows} rows", data={"rows": outcome.rows})

    def _require_same_table(self, database: str, step: Step) -> None:
        """Raises Stale when the table is another one, or has other columns, triggers or keys, than when planned."""
        table = TableFacts.model_validate(step.params["table"])
        if self.ports.outside[SQL_DATABASES].table(database, table.relation) != table:
            msg = f"{table.relation.qualified} is not the table that it was when the plan was made"
            raise Stale(msg, code="sql.changed", fix="ask again to see the new plan")

    def _put_back(self, step: Step, context: StepContext) -> StepResult:
        effects = Effects(self.ports.outside[SQL_DATABASES], context)
        own = f"{context.key}:undo"
        if effects.is_committed(own):
            return StepResult(ok=True, summary="it was put back already")
        images = effects.images(str(step.params.get("effect", context.key)))
        if images is None:
            return StepResult(ok=True, summary="nothing had been written")
        self._require_same_table(str(step.params["database"]), step)
        database, table = str(step.params["database"]), TableFacts.model_validate(step.params["table"])
        count = self.ports.outside[SQL_DATABASES].put_back(
            database,
            table,
            *images,
            lambda identity: effects.intend(database, own, identity, WriteOutcome(rows=0, before=None, after=None)),
        )
        return StepResult(ok=True, summary=f"{count} rows are as they were", data={"rows": count})

    def check(self, step: Step, context: StepContext) -> StepResult:
        """Ask the database whether it committed."""
        effects = Effects(self.ports.outside[SQL_DATABASES], context)
        if step.verb == "put_back":
            own, other = f"{context.key}:undo", str(step.params.get("effect", context.key))
            done = effects.is_committed(own) or not effects.is_committed(other)
        else:
            done = effects.is_committed(context.key)
        return StepResult(
            ok=done, summary="the database has committed it" if done else "the database knows nothing of it"
        )


class SqlMigrate(Action):
    """Migrates."""

    name: ClassVar[str] = "sql.migrate"
    summary: ClassVar[str] = "Apply the numbered files of a migration folder that were not applied to a database yet."
    example: ClassVar[JsonObject] = {"database": "shop"}
    Args: ClassVar[type[Frozen]] = MigrateArgs

    def read_facts(self, args: MigrateArgs) -> JsonObject:
        """Which files are due. Raises Conflict when what was applied is not what lies there; Invalid, NotFound."""
        databases, parser = self.ports.outside[SQL_DATABASES], self.ports.outside[SQL_PARSER]
        folder = self._folder(args.database)
        files = due(read_folder(folder), databases.applied_migrations(args.database), args.to)
        if not files:
            msg = f"every migration of {args.database} was applied already"
            raise Invalid(msg, code="sql.nothing_to_migrate", fix=f"put a new file into {folder}")
        if len(files) > STEPS_MAX:
            msg = f"{len(files)} files are due, and a plan has at most {STEPS_MAX} steps"
            raise Invalid(
                msg, code="sql.too_many_migrations", fix=f"apply some first: to={files[STEPS_MAX - 1].version}"
            )
        return {
            "files": [self._file_facts(each, parser) for each in files],
            "tables": [each.model_dump(mode="json") for each in databases.tables(args.database)],
            "timeout_seconds": databases.declaration(args.database).statement_timeout_seconds,
        }

    def _folder(self, database: str) -> Path:
        declared = self.ports.outside[SQL_DATABASES].declaration(database).migrations
        if declared is None:
            msg = f"no migration folder is declared for {database}"
            raise NotFound(msg, code="sql.no_migrations", fix=f"name one under databases.{database}.migrations")
        return Path(self.ports.project().folder, declared)

    @staticmethod
    def _file_facts(file: MigrationFile, parser: SqlParser) -> JsonObject:
        script = script_of(file, parser, reverts=False)
        if file.down is not None:
            script_of(file.down, parser, reverts=True)
        return {
            "version": file.version,
            "name": file.name,
            "sha256": file.sha256,
            "text": file.text[:PREVIEW_CHARACTERS],
            "transactional": script.transactional,
            "down": None if file.down is None else {"name": file.down.name, "sha256": file.down.sha256},
            "down_transactional": file.down is not None and is_transactional(file.down),
        }

    def plan(self, args: MigrateArgs, facts: JsonObject) -> Plan:
        """One step a file, each holding the whole database."""
        listed = facts["files"] if isinstance(facts["files"], list) else []
        tables = facts["tables"] if isinstance(facts["tables"], list) else []
        relations = tuple(RelationFacts.model_validate(each) for each in tables)
        targets = (database_target(args.database), *(table_target(args.database, each) for each in relations))
        files = [each for each in listed if isinstance(each, dict)]
        timeout_seconds = min(STEP_TIMEOUT_SECONDS_MAX, float(str(facts["timeout_seconds"])) * 60 + MARGIN_SECONDS)
        steps = tuple(self._step(args.database, each, targets, timeout_seconds) for each in files)
        count = "1 migration" if len(steps) == 1 else f"{len(steps)} migrations"
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=f"apply {count} to {args.database}, up to {files[-1]['name']}",
            steps=steps,
            facts={"files": [{name: each[name] for name in ("name", "sha256", "down")} for each in files]},
            preview=self.ports.redactor.redact("\n".join(f"-- {each['name']}\n{each['text']}" for each in files)),
        )

    @staticmethod
    def _step(database: str, file: JsonObject, targets: tuple[Target, ...], timeout_seconds: float) -> Step:
        down = file["down"]
        undo = Step(
            verb="revert",
            summary=f"take {file['name']} back in {database}",
            params={"database": database, **(down if isinstance(down, dict) else {})},
            targets=targets,
            risk="high",
            operations=("sql.migrate",),
            repeatable=bool(file["down_transactional"]),
            timeout_seconds=timeout_seconds,
        )
        return Step(
            verb="apply",
            summary=f"apply {file['name']} to {database}",
            params={"database": database, "name": file["name"], "sha256": file["sha256"]},
            targets=targets,
            risk="high",
            operations=("sql.migrate",),
            repeatable=bool(file["transactional"]),
            precondition={"sha256": file["sha256"]},
            undo=undo if down is not None else None,
            irreversible=None if down is not None else "there is no .down.sql file beside it",
            timeout_seconds=timeout_seconds,
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Apply the file, or the one that takes it back, exactly as it was planned."""
        database, name = str(step.params["database"]), str(step.params["name"])
        file = read_migration(self._folder(database), name)
        require_same(file, str(step.params["sha256"]))
        script = script_of(file, self.ports.outside[SQL_PARSER], reverts=step.verb == "revert")
        context.hold()
        done = self.ports.outside[SQL_DATABASES].migrate(database, script, context.hold)
        data: JsonObject = {"name": name, "sha256": file.sha256, "statements": len(script.statements)}
        return StepResult(ok=True, summary=f"{name}: done" if done else f"{name}: it was so already", data=data)

    def check(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002
        """Ask the database which versions it has."""
        database, name = str(step.params["database"]), str(step.params["name"])
        version = str(int(name.partition("_")[0]))
        known = self.ports.outside[SQL_DATABASES].applied_migrations(database).get(version)
        done = known is None if step.verb == "revert" else known == step.params["sha256"]
        said = "the database has it on its list" if known is not None else "the database does not have it on its list"
        return StepResult(ok=done, summary=said)


def _scalars(step: Step) -> tuple[str | int | float | bool | None, ...]:
    listed = step.params["parameters"]
    values = listed if isinstance(listed, list) else []
    return tuple(value for value in values if value is None or isinstance(value, str | int | float | bool))
