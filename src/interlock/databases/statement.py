"""Which statements may run at all: an allowlist of what they are made of and of what their names stand for."""

from __future__ import annotations

import re
from typing import NoReturn

from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import CatalogFacts, RelationFacts, Scalar, StatementShape
from interlock.core.errors import Denied, Invalid, NotFound
from interlock.databases.functions import is_trusted, refused_own

_QUERY_NODES = frozenset(
    {
        *("SelectStmt", "ResTarget", "ColumnRef", "ParamRef", "A_Star", "A_Const", "A_Expr", "BoolExpr", "NullTest"),
        *("BooleanTest", "FuncCall", "TypeCast", "TypeName", "SubLink", "CaseExpr", "CaseWhen", "CoalesceExpr"),
        *("MinMaxExpr", "A_ArrayExpr", "A_Indirection", "A_Indices", "RowExpr", "RangeVar", "RangeSubselect"),
        *("RangeFunction", "JoinExpr", "Alias", "SortBy", "WindowDef", "WithClause", "CommonTableExpr"),
        *("CTESearchClause", "CTECycleClause", "GroupingSet", "GroupingFunc", "SQLValueFunction", "CollateClause"),
        *("List", "String", "Integer", "Float", "Boolean", "BitString", "NamedArgExpr"),
    }
)
_WRITE_NODES = _QUERY_NODES | {"SetToDefault", "OnConflictClause", "InferClause", "IndexElem", "MultiAssignRef"}
_ROOTS = {"insert": "InsertStmt", "update": "UpdateStmt", "delete": "DeleteStmt"}
_EXPLAIN_OPTIONS = frozenset({"costs", "verbose", "format", "settings", "summary", "generic_plan", "of select_stmt"})
_WORDS = {
    "LockingClause": "FOR UPDATE and its kin",
    "IntoClause": "SELECT INTO",
    "RangeTableSample": "TABLESAMPLE",
    "InsertStmt": "INSERT inside another statement",
    "UpdateStmt": "UPDATE inside another statement",
    "DeleteStmt": "DELETE inside another statement",
    "MergeStmt": "MERGE",
    "CurrentOfExpr": "WHERE CURRENT OF",
    "TypeNameOfAnother": "SETOF and %TYPE",
    "ReturningClause": "RETURNING",
}
READABLE_KINDS = frozenset({"r", "p", "v", "m"})
_KIND_WORDS = {
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "c": "a composite type",
    "t": "a TOAST table",
}
_SYSTEM = frozenset({"pg_catalog", "information_schema"})
# What describes tables, and nothing of what others do, may or hide.
_SYSTEM_READABLE = re.compile(
    r"pg_catalog\.pg_(class|attribute|attrdef|namespace|type|enum|index|indexes|constraint|tables|views|matviews"
    r"|sequences|description|inherits|partitioned_table|trigger|stat_user_tables|stat_user_indexes|statio_user_tables)"
    r"|information_schema\.(tables|columns|views|table_constraints|key_column_usage|constraint_column_usage"
    r"|referential_constraints|check_constraints|sequences|schemata|element_types|domains)"
)
_TYPES_REFUSED = frozenset({"xml", "cstring", "internal", "record", "aclitem", "pg_snapshot", "txid_snapshot"})


def require_query(shape: StatementShape) -> None:
    """Refuse what is not one plain query, or the EXPLAIN of one. Raises Denied."""
    allowed = _QUERY_NODES
    if shape.kind == "explain":
        allowed = _QUERY_NODES | {"ExplainStmt", "DefElem"}
        wrong = sorted(set(shape.explain_options) - _EXPLAIN_OPTIONS)
        if wrong:
            refuse(f"EXPLAIN with {', '.join(wrong)} is not only a look")
    elif shape.kind != "select":
        refuse(f"this is no query but {_spoken(shape.root)}")
    _require_nodes(shape, allowed)


def require_write(shape: StatementShape) -> None:
    """Refuse what is not one plain INSERT, UPDATE or DELETE. Raises Denied."""
    if shape.kind not in _ROOTS:
        refuse(f"this is no INSERT, UPDATE or DELETE but {_spoken(shape.root)}")
    if shape.returning:
        refuse("RETURNING is not needed: the plan shows the rows before and after")
    _require_nodes(shape, _WRITE_NODES | {_ROOTS[shape.kind]})
    if shape.target is not None and shape.target[-1] in shape.ctes:
        refuse(f"the CTE {shape.target[-1]} is called as the table that is written")


def _require_nodes(shape: StatementShape, allowed: frozenset[str]) -> None:
    wrong = sorted(set(shape.nodes) - allowed)
    if wrong:
        refuse(f"{', '.join(_WORDS.get(node, node) for node in wrong)} cannot go through the door")
    if any(len(name) > 2 for name in (*shape.relations, *shape.functions, *shape.types)):  # noqa: PLR2004 - schema.name
        refuse("a name may have a schema before it, and nothing more")
    for name in shape.operators:
        if len(name) > 1 and name[0] != "pg_catalog":
            refuse(f"the operator {'.'.join(name)} is not one of PostgreSQL's own")
    for name in shape.collations:
        if len(name) > 1 and name[0] != "pg_catalog":
            refuse(f"the collation {'.'.join(name)} is not one of PostgreSQL's own")
    for name in shape.types:
        if name[-1] in _TYPES_REFUSED:
            refuse(f"nothing is cast to {name[-1]}")


def require_parameters(shape: StatementShape, parameters: tuple[Scalar, ...]) -> None:
    """Raises Invalid when the statement's $1, $2 ... are not as many as the values given."""
    if shape.parameters != len(parameters):
        msg = f"the statement has {shape.parameters} parameters, and {len(parameters)} were given"
        raise Invalid(msg, code="sql.parameters", fix="give one value in `parameters` for each of $1, $2, ...")


def require_names(shape: StatementShape, facts: CatalogFacts, declaration: DatabaseDeclaration) -> None:
    """Refuse names that stand for what may not be read or called. Raises Denied, NotFound."""
    refusal = refused_own(facts)
    if refusal is not None:
        refuse(refusal)
    for found in facts.foreign:
        if not is_trusted(found, declaration.functions):
            refuse(_foreign_words(found.kind, found.qualified, found.name))
    present = {name for name, state in facts.functions.items() if state != "absent"}
    elsewhere = {found.name for found in facts.foreign} | {found.qualified for found in facts.foreign}
    for name in shape.functions:
        if name[-1] not in present and ".".join(name) not in elsewhere:
            msg = f"there is no function {'.'.join(name)}"
            raise NotFound(msg, code="sql.no_function", fix="check the name")
    for missing in facts.unknown:
        if missing not in shape.ctes:
            msg = f"there is no table {missing}, or not for this role"
            raise NotFound(msg, code="sql.no_table", fix="see information_schema.tables")
    if facts.unknown_types:
        msg = f"there is no type {facts.unknown_types[0]}"
        raise NotFound(msg, code="sql.no_type", fix="check the name")
    for relation in facts.relations:
        _require_readable(relation, declaration)


def require_defaults(facts: CatalogFacts) -> None:
    """Refuse defaults of a table that call what a new row does not need. Raises Denied."""
    refusal = refused_own(facts, of_new_rows=True)
    if refusal is not None:
        refuse(f"a default of the table: {refusal}")


def written_table(shape: StatementShape, facts: CatalogFacts, declaration: DatabaseDeclaration) -> RelationFacts:
    """The table that an INSERT, UPDATE or DELETE names, found as PostgreSQL finds it. Raises Denied, NotFound."""
    target = shape.target or ()
    schemas = (target[0],) if len(target) > 1 else ("pg_catalog", *declaration.schemas)
    named = {each.qualified: each for each in facts.relations if each.through == "named"}
    for schema in schemas:
        found = named.get(f"{schema}.{target[-1]}" if target else "")
        if found is not None:
            if found.kind not in ("r", "p") or found.schema_name in _SYSTEM:
                refuse(f"{found.qualified} is no table: write to the table itself")
            return found
    msg = f"there is no table {'.'.join(target)}, or not for this role"
    raise NotFound(msg, code="sql.no_table", fix="see information_schema.tables")


def _require_readable(relation: RelationFacts, declaration: DatabaseDeclaration) -> None:
    if relation.schema_name in _SYSTEM:
        if relation.through == "named" and not _SYSTEM_READABLE.fullmatch(relation.qualified):
            refuse(f"{relation.qualified} tells what others do, may or hide")
        return
    if relation.kind not in READABLE_KINDS:
        refuse(f"{relation.qualified} is {_KIND_WORDS.get(relation.kind, 'no table')}")
    if relation.through == "named" and relation.schema_name not in declaration.schemas:
        refuse(f"the schema {relation.schema_name} is not declared under `schemas`")


def _foreign_words(kind: str, qualified: str, name: str) -> str:
    """Why something outside `pg_catalog` is refused, and what could be written instead."""
    if kind == "operator":
        return f"the operator {name} could mean that of {qualified}; write OPERATOR(pg_catalog.{name})"
    if kind == "type":
        return f"a cast to {qualified} may run code"
    if kind == "cast":
        return f"a column's type brings the cast {qualified} along, which nobody vouches for"
    if kind == "attribute":
        return f"a name behind a dot could call the function {qualified}, which nobody vouches for"
    if kind == "view function":
        return f"a view calls {qualified}, which nobody vouches for"
    return f"{name} could mean the function {qualified}, which nobody vouches for or which is volatile"


def refuse(why: str) -> NoReturn:
    """Raises Denied."""
    raise Denied(
        why,
        code="sql.refused",
        fix="write it with plain tables and PostgreSQL's own functions, or let the operator list what the database's"
        " owner vouches for under `functions`",
    )


def _spoken(root: str) -> str:
    return root.removesuffix("_stmt").replace("_", " ").upper() or "nothing"
