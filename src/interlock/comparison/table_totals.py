"""Sums whole columns exactly: decimal arithmetic at the scale that the column itself has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from interlock.comparison.table_model import ControlTotal
from interlock.comparison.table_rules import json_text_sql

SCALE_MAX = 30
"""Decimals have 38 digits here; 8 of them at least stay before the point."""


def control_totals(
    connection: duckdb.DuckDBPyConnection, names: Sequence[str], *, typed_json: bool
) -> tuple[ControlTotal, ...]:
    """The sums of `v0`, `v1` ... in the tables `s` and `c`."""
    made = []
    for number, name in enumerate(names):
        cell = json_text_sql(f"v{number}") if typed_json else f"v{number}"
        stable, candidate = (_sum(connection, table, cell) for table in ("s", "c"))
        made.append(
            ControlTotal(
                column=name,
                stable=stable[0],
                candidate=candidate[0],
                unreadable_stable=stable[1],
                unreadable_candidate=candidate[1],
                trouble=stable[2] or candidate[2],
            )
        )
    return tuple(made)


def _sum(connection: duckdb.DuckDBPyConnection, table: str, cell: str) -> tuple[str | None, int, str | None]:
    """The sum, how many cells are no plain numbers, and why there is no sum."""
    scale = _row(
        connection,
        f"SELECT coalesce(max(CASE WHEN contains({cell}, '.') THEN length({cell}) - strpos({cell}, '.') END), 0) "
        f"FROM {table}",
    )[0]
    places = min(int(scale), SCALE_MAX)
    # A power of ten, or more places than the sum keeps, would be rounded: such a cell is no plain number.
    value = f"TRY_CAST({cell} AS DECIMAL(38, {places}))"
    plain = f"{value} IS NOT NULL AND NOT contains(lower({cell}), 'e')"
    if scale > places:
        plain += f" AND (NOT contains({cell}, '.') OR length({cell}) - strpos({cell}, '.') <= {places})"
    absent = f"coalesce({cell}, '') IN ('', 'null')"
    try:
        total, unreadable = _row(
            connection,
            f"SELECT CAST(sum({value}) FILTER ({plain}) AS VARCHAR), "
            f"count(*) FILTER (NOT ({absent}) AND NOT coalesce({plain}, false)) FROM {table}",
        )
    except duckdb.OutOfRangeException:
        return None, 0, "the sum has more than 38 digits"
    return _shortest(total if total is not None else "0"), int(unreadable), None


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    return connection.execute(sql).fetchall()[0]


def _shortest(number: str) -> str:
    """Without zeros after the last decimal, so that 1.50 and 1.5 are one sum."""
    return number.rstrip("0").rstrip(".") if "." in number else number
