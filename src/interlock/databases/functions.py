"""Which of PostgreSQL's own functions, and of a database's, a statement may call."""

from __future__ import annotations

import re

from interlock.core.databases import CatalogFacts, ForeignName

# Not volatile by PostgreSQL's own word, and yet not for everybody: they run a query that they are given as text, show
# what happens in other sessions or on the server, take a transaction number, or make a value of any size at all.
DENIED = frozenset(
    {
        *("current_setting", "currval", "lastval", "ts_stat", "ts_rewrite", "query_to_xml", "cursor_to_xml"),
        *("inet_server_addr", "inet_server_port", "inet_client_addr", "inet_client_port"),
        *("repeat", "lpad", "rpad", "array_fill", "txid_current", "txid_current_snapshot", "version"),
        *("json_populate_record", "json_populate_recordset", "jsonb_populate_record", "jsonb_populate_recordset"),
        *("suppress_redundant_updates_trigger", "row_security_active", "getdatabaseencoding"),
    }
)
_DENIED_KINDS = re.compile(
    r"(pg|lo|txid|binary_upgrade|has|fmgr|ri)_.*|.*_to_xml(schema)?|.*_and_xmlschema|.*_validator"
)
# What begins with `pg_` and only looks at its arguments, or at what everybody may see.
_LOOKS_ONLY = frozenset(
    {
        *("pg_typeof", "pg_column_size", "pg_size_pretty", "pg_size_bytes", "pg_table_is_visible", "pg_get_expr"),
        *("pg_get_constraintdef", "pg_get_indexdef", "pg_get_userbyid", "pg_collation_for", "pg_input_is_valid"),
        *("has_table_privilege", "has_column_privilege", "has_schema_privilege"),
    }
)
# A new row may take its number, its identity and its time from these.
_FOR_NEW_ROWS = frozenset(
    {
        *("nextval", "gen_random_uuid", "uuidv4", "uuidv7", "random", "clock_timestamp", "statement_timestamp"),
        *("timeofday", "now", "transaction_timestamp"),
    }
)
TRUSTED_EXTENSIONS = frozenset(
    {
        *("btree_gin", "btree_gist", "citext", "cube", "fuzzystrmatch", "hstore", "intarray", "isn", "ltree"),
        *("pg_trgm", "seg", "unaccent", "vector"),
    }
)
"""Extensions whose functions compute and do nothing else."""


def refused_own(facts: CatalogFacts, *, of_new_rows: bool = False) -> str | None:
    """Why one of PostgreSQL's own functions may not be called, or None.

    `of_new_rows`: these stand in a table's defaults, where its owner put them.
    """
    for name, state in facts.functions.items():
        if of_new_rows and name in _FOR_NEW_ROWS:
            continue
        if state == "volatile":
            return f"{name} has effects of its own or answers differently each time"
        if state == "internal":
            return f"{name} is not made to be called in a statement"
        if state == "safe" and name not in _LOOKS_ONLY and (name in DENIED or _DENIED_KINDS.fullmatch(name)):
            return f"{name} looks behind the tables or makes values without bound"
    return None


def is_trusted(found: ForeignName, vouched_for: tuple[str, ...]) -> bool:
    """Whether an object outside `pg_catalog` may take part in a statement.

    A function, when its owner vouches for it and PostgreSQL does not call it volatile; what belongs to an extension
    that only computes; an enumeration, whose values are text. A domain is none of them: its checks are code.
    """
    if found.extension in TRUSTED_EXTENSIONS:
        return found.kind in ("operator", "type") or found.detail in ("i", "s")
    if found.kind == "type":
        return found.detail == "e"
    if found.kind == "operator":
        return False
    return found.detail in ("i", "s") and found.qualified in vouched_for
