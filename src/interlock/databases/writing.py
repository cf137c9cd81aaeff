"""What a write would touch, how bad that is, whether it can be taken back, and how the plan shows it."""

from __future__ import annotations

from typing import cast

from pydantic import JsonValue

from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import Image, RelationFacts, StatementShape, TableFacts, WriteOutcome
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Risk
from interlock.databases.model import image_digest
from interlock.lib.redact import Redactor

SAMPLE_ROWS = 5
CELL_CHARACTERS = 80
UNDECIDED = "(decided when it happens)"


class Rehearsal(Frozen):
    """What a dry run, or an estimate, found. The digests leave out what is decided when it happens."""

    exact: bool
    rows: int
    before: str | None = None
    after: str | None = None
    unstable: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    sample_before: tuple[tuple[str | None, ...], ...] = ()
    sample_after: tuple[tuple[str | None, ...], ...] = ()


def rehearsal_of(outcome: WriteOutcome, *, shown: bool) -> Rehearsal:
    """What of an outcome the plan holds. `shown` False: digests alone, because a plan is kept as it is."""
    before, after = outcome.before, outcome.after
    if before is None or after is None:
        return Rehearsal(exact=True, rows=outcome.rows)
    return Rehearsal(
        exact=True,
        rows=outcome.rows,
        before=image_digest(before.columns, before.rows, ()),
        after=image_digest(after.columns, after.rows, outcome.unstable),
        unstable=outcome.unstable,
        columns=after.columns,
        sample_before=_sample(before, ()) if shown else (),
        sample_after=_sample(after, outcome.unstable) if shown else (),
    )


def differs(planned: Rehearsal, outcome: WriteOutcome) -> str | None:
    """How what happened differs from what was planned, or None."""
    if not planned.exact:
        return None
    if outcome.rows != planned.rows:
        return f"it would touch {outcome.rows} rows instead of {planned.rows}"
    if planned.before is None or planned.after is None:
        return None
    if outcome.before is None or outcome.after is None:
        return "its rows became too large to be kept"
    if image_digest(outcome.before.columns, outcome.before.rows, ()) != planned.before:
        return "the rows that it would touch are not as they were"
    if image_digest(outcome.after.columns, outcome.after.rows, planned.unstable) != planned.after:
        return "it would write other values than those that were shown"
    return None


def relations_of(shape: StatementShape, table: TableFacts) -> tuple[RelationFacts, ...]:
    """Every table that a write touches: the named one, its parts and wholes, what follows by foreign keys, and, where
    code runs that nobody vouches for, all that such code might reach."""
    followers = table.cascades if shape.kind == "delete" else table.key_cascades if _moves_keys(shape, table) else ()
    return (table.relation, *table.related, *followers, *table.everything)


def irreversible(shape: StatementShape, table: TableFacts, declaration: DatabaseDeclaration) -> str | None:
    """Why a write cannot be taken back, as far as that is known before it is rehearsed; None when it can."""
    name = table.relation.qualified
    if table.unknown_code:
        return f"nobody knows what it brings along: {'; '.join(table.unknown_code[:3])}"
    if not table.key:
        return f"{name} has no primary key by which its rows could be found again"
    if _moves_keys(shape, table):
        return "it changes a key by which rows, here or in other tables, would be found again"
    if table.relation.kind == "r" and any(each.through == "part" for each in table.related):
        return f"other tables inherit from {name}, and rows of theirs may have the same keys"
    if shape.kind in ("delete", "insert") and table.cascades:
        follows = ", ".join(each.qualified for each in table.cascades[:3])
        return f"rows of {follows} follow when rows of {name} are deleted"
    if declaration.pre_image_rows_max == 0:
        return "no rows are kept here (pre_image_rows_max: 0)"
    return None


def risk_of(
    shape: StatementShape, table: TableFacts, declaration: DatabaseDeclaration, found: Rehearsal | None
) -> Risk:
    """High where everything, much, or nobody knows what is touched."""
    everything = shape.kind in ("update", "delete") and not shape.where
    return "high" if everything or table.unknown_code or is_many(declaration, found) else "medium"


def is_many(declaration: DatabaseDeclaration, found: Rehearsal | None) -> bool:
    """Whether so many rows are touched that a person has to say yes."""
    return found is not None and found.rows > declaration.write_rows_without_approval


def preview_of(shape: StatementShape, found: Rehearsal | None, table: TableFacts, redactor: Redactor) -> str:
    """The statement, how many rows it touches, and a few of them before and after."""
    lines = [shape.text, ""]
    if found is None:
        lines.append("not rehearsed: policy forbids it to whoever asked")
    elif not found.exact:
        lines.append(f"about {_rounded(found.rows)} rows, by PostgreSQL's estimate: not rehearsed, because")
        lines += [f"  {what}" for what in table.unknown_code[:10]]
    else:
        lines.append(f"{found.rows} row{'' if found.rows == 1 else 's'} of {table.relation.qualified}, rehearsed")
        for sign, rows in (("-", found.sample_before), ("+", found.sample_after)):
            lines += [f"{sign} {_line(found.columns, row)}" for row in rows]
        if found.columns and found.rows and not (found.sample_before or found.sample_after):
            lines.append("its values are not shown: a table that it reads or writes is marked secret")
        elif found.rows > SAMPLE_ROWS and found.columns:
            lines.append(f"... and {found.rows - SAMPLE_ROWS} more")
    return redactor.redact("\n".join(lines))


def image_json(image: Image) -> bytes:
    """An image as it is kept."""
    return image.model_dump_json().encode()


def rehearsal_in(facts: JsonObject) -> Rehearsal | None:
    """The rehearsal that facts hold, if there was one."""
    found: JsonValue = facts.get("rehearsal")
    return None if found is None else Rehearsal.model_validate_json(cast("str", found))


def _moves_keys(shape: StatementShape, table: TableFacts) -> bool:
    assigned = shape.assigned if shape.kind == "update" else shape.reassigned
    return bool(set(assigned) & {*table.key, *table.referenced})


def _sample(image: Image, masked: tuple[str, ...]) -> tuple[tuple[str | None, ...], ...]:
    rows = sorted(image.rows, key=lambda row: [cell or "" for cell in row]) if not masked else image.rows
    return tuple(
        tuple(
            UNDECIDED if column in masked else cell if cell is None else cell[:CELL_CHARACTERS]
            for column, cell in zip(image.columns, row, strict=True)
        )
        for row in rows[:SAMPLE_ROWS]
    )


def _line(columns: tuple[str, ...], row: tuple[str | None, ...]) -> str:
    cells = (f"{column}={'NULL' if cell is None else cell}" for column, cell in zip(columns, row, strict=True))
    return ", ".join(cell.encode("unicode_escape").decode() if not cell.isprintable() else cell for cell in cells)


def _rounded(rows: int) -> int:
    """To the first digit: an estimate that moves a little is no other plan."""
    digits = str(rows)
    return int(digits[0] + "0" * (len(digits) - 1))
