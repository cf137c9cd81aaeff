"""The program that parses SQL: reads statements from standard input, answers with what each is made of.

A process of its own, because deep nesting overflows the C stack of the parser and ends the process it runs in. A frame
is four bytes of length (big endian) and JSON: in comes `{"sql": ...}` or `{"script": ...}`, out goes what it is made
of, or `{"refused": ...}`.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from collections import deque
from typing import Any, BinaryIO

MEMORY_BYTES_MAX = 1024 * 1024 * 1024
FRAME_BYTES_MAX = 4 * 1024 * 1024
LENGTH = struct.Struct(">I")

_KINDS = {
    "select_stmt": "select",
    "explain_stmt": "explain",
    "insert_stmt": "insert",
    "update_stmt": "update",
    "delete_stmt": "delete",
}
# What an expression without an operator of its own looks up, by the name of its kind.
_IMPLIED = {
    "AEXPR_BETWEEN": (">=", "<="),
    "AEXPR_NOT_BETWEEN": ("<", ">"),
    "AEXPR_BETWEEN_SYM": (">=", "<="),
    "AEXPR_NOT_BETWEEN_SYM": ("<", ">"),
}


class _Walk:
    """Goes once over a tree without recursion, and writes down every name it meets."""

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.relations: set[tuple[str, ...]] = set()
        self.functions: set[tuple[str, ...]] = set()
        self.operators: set[tuple[str, ...]] = set()
        self.types: set[tuple[str, ...]] = set()
        self.collations: set[tuple[str, ...]] = set()
        self.attributes: set[str] = set()
        self.ctes: set[str] = set()
        self.parameters = 0

    def over(self, root: Any) -> None:
        waiting = deque([root])
        while waiting:
            message = waiting.popleft()
            name = message.DESCRIPTOR.name
            if name != "Node":
                self.nodes.add(name)
                visit = getattr(self, f"_see_{name}", None)
                if visit is not None:
                    visit(message)
            for field, value in message.ListFields():
                if field.message_type is None:
                    continue
                waiting.extend(value if field.is_repeated else (value,))

    def _see_RangeVar(self, node: Any) -> None:  # noqa: N802 - named after the parser's node
        self.relations.add(tuple(part for part in (node.catalogname, node.schemaname, node.relname) if part))

    def _see_FuncCall(self, node: Any) -> None:  # noqa: N802
        self.functions.add(_words(node.funcname))

    def _see_TypeName(self, node: Any) -> None:  # noqa: N802
        self.types.add(_words(node.names))
        if node.setof or node.pct_type:
            self.nodes.add("TypeNameOfAnother")

    def _see_CollateClause(self, node: Any) -> None:  # noqa: N802
        self.collations.add(_words(node.collname))

    def _see_A_Expr(self, node: Any) -> None:  # noqa: N802
        kind = node.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number[node.kind].name
        implied = _IMPLIED.get(kind)
        self.operators.update([(each,) for each in implied] if implied else [_words(node.name)])

    def _see_SubLink(self, node: Any) -> None:  # noqa: N802
        self.operators.add(_words(node.oper_name) or ("=",))

    def _see_SortBy(self, node: Any) -> None:  # noqa: N802
        if node.use_op:
            self.operators.add(_words(node.use_op))

    def _see_CaseExpr(self, node: Any) -> None:  # noqa: N802
        if node.HasField("arg"):
            self.operators.add(("=",))

    def _see_JoinExpr(self, node: Any) -> None:  # noqa: N802
        if node.is_natural or node.using_clause:
            self.operators.add(("=",))

    def _see_ColumnRef(self, node: Any) -> None:  # noqa: N802
        self.attributes.update(_words(node.fields)[1:])

    def _see_A_Indirection(self, node: Any) -> None:  # noqa: N802
        self.attributes.update(_words(node.indirection))

    def _see_CommonTableExpr(self, node: Any) -> None:  # noqa: N802
        self.ctes.add(node.ctename)

    def _see_ParamRef(self, node: Any) -> None:  # noqa: N802
        self.parameters = max(self.parameters, node.number)


def _words(nodes: Any) -> tuple[str, ...]:
    """The strings of a list of nodes; other nodes in it (`*`, a subscript) are walked by themselves."""
    return tuple(node.string.sval for node in nodes if node.WhichOneof("node") == "string")


def parsed(sql: str) -> tuple[Any, dict[str, Any]]:
    """The tree, or None and `refused` and a `code`."""
    import postgast  # noqa: PLC0415 - only the process that may die of it loads the library

    try:
        return postgast.parse(sql), {}
    except postgast.PgQueryError as error:
        return None, {"refused": f"PostgreSQL cannot read this: {error}"[:500], "code": "sql.syntax"}
    except Exception as error:  # noqa: BLE001 - whatever the library says, it is no statement that may run
        refused = f"the statement is nested too deeply ({type(error).__name__})"
        return None, {"refused": refused, "code": "sql.too_complex"}


def script_of(sql: str) -> dict[str, Any]:
    """The statements of a script, or `refused` and a `code`."""
    tree, refusal = parsed(sql)
    if tree is None:
        return refusal
    body = sql.encode()
    found = []
    for raw in tree.stmts:
        end = raw.stmt_location + raw.stmt_len if raw.stmt_len else None
        text = body[raw.stmt_location : end].decode().strip()
        found.append({"root": raw.stmt.WhichOneof("node") or "", "text": text})
    return {"statements": found}


def shape_of(sql: str) -> dict[str, Any]:
    """What the statement is made of, or `refused` and a `code`."""
    tree, refusal = parsed(sql)
    if tree is None:
        return refusal
    if len(tree.stmts) != 1:
        return {"refused": f"exactly one statement is accepted, not {len(tree.stmts)}", "code": "sql.statements"}
    raw = tree.stmts[0]
    body = sql.encode()[raw.stmt_location :]
    root = raw.stmt.WhichOneof("node") or ""
    walk = _Walk()
    walk.over(raw.stmt)
    return {
        "text": body[: raw.stmt_len or None].decode().strip(),
        "kind": _KINDS.get(root, "other"),
        "root": root,
        **{name: sorted(found) if isinstance(found, set) else found for name, found in vars(walk).items()},
        **_particulars(root, getattr(raw.stmt, root)),
    }


def _particulars(root: str, statement: Any) -> dict[str, Any]:
    """What only some kinds of statement have."""
    if root == "explain_stmt":
        inner = statement.query.WhichOneof("node")
        options = [option.def_elem.defname.lower() for option in statement.options]
        return {"explain_options": [*options, f"of {inner}"]}
    if root not in ("insert_stmt", "update_stmt", "delete_stmt"):
        return {}
    relation = statement.relation
    found: dict[str, Any] = {
        "target": [part for part in (relation.catalogname, relation.schemaname, relation.relname) if part],
        "alias": relation.alias.aliasname or None,
        "returning": statement.HasField("returning_clause"),
        "only": not relation.inh,
    }
    if root == "insert_stmt":
        found["assigned"] = [node.res_target.name for node in statement.cols]
        if statement.HasField("on_conflict_clause"):
            clause = statement.on_conflict_clause
            found["on_conflict"] = "nothing" if clause.action == 2 else "update"  # noqa: PLR2004 - ONCONFLICT_NOTHING
            found["reassigned"] = [node.res_target.name for node in clause.target_list]
    else:
        found["where"] = statement.HasField("where_clause")
    if root == "update_stmt":
        found["assigned"] = [node.res_target.name for node in statement.target_list]
    return found


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame, or None at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length and length <= FRAME_BYTES_MAX else None


def main() -> None:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    shape_of("select 1")  # what is slow the first time is done before anybody waits
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        asked = json.loads(frame)
        found = script_of(asked["script"]) if "script" in asked else shape_of(asked["sql"])
        answer = json.dumps(found).encode()
        sys.stdout.buffer.write(LENGTH.pack(len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
