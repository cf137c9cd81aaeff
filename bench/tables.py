"""Claim: two tables of a million rows are compared in at most 1.5 times what DuckDB takes for a join by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from bench.measure import Result, Rounds, figure, interleaved, ratio
from bench.report import run
from interlock.comparison.tables import compare_tables
from interlock.core.comparison import ComparisonRules

ROWS = 1_000_000
TIME_MAX = 1.5
MEMORY_MAX_MB = 500
KEY = "settlement_id"
MISSING, CHANGED = 7, 1000
SECONDS_MAX = 120


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """Both on the same two files of 20 columns, keys out of order, each in a process of its own.

    The join written by hand counts rows and differing cells, takes all the memory it wants, and looks for no key that
    occurs twice; ours also finds those, names examples and writes them out, and keeps to its bound.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder, ROWS // 10 if quick else ROWS)
        memory: dict[str, list[float]] = {"interlock": [], "by hand": []}

        def turn(who: str) -> float:
            seen = _child(who, folder)
            memory[who].append(seen["megabytes"])
            return seen["seconds"]

        for who in memory:
            turn(who)  # files into the page cache
        rounds: Rounds = interleaved({who: lambda who=who: turn(who) for who in memory}, 3 if quick else 5)  # type: ignore[misc]
    return [
        ratio("comparison of two tables / DuckDB's join by hand", rounds, "interlock", "by hand", limit=TIME_MAX),
        Result("memory of the comparison", "MB", tuple(memory["interlock"]), MEMORY_MAX_MB),
        figure("memory of the join by hand", "MB", memory["by hand"]),
    ]


def _make(folder: Path, rows: int) -> None:
    """Amounts, counts, labels, moments and a note; some rows are gone and one amount of some others is another."""
    columns = [f"'S' || lpad(CAST(k AS VARCHAR), 9, '0') AS {KEY}"]
    columns += [f"printf('%.2f', (hash(k * 31 + {n}) % 10000000) / 100.0) AS amount_{n}" for n in range(6)]
    columns += [f"CAST(hash(k * 17 + {n}) % 100000 AS VARCHAR) AS count_{n}" for n in range(5)]
    columns += [f"'name-' || CAST(hash(k * 13 + {n}) % 5000 AS VARCHAR) AS label_{n}" for n in range(5)]
    columns += [
        "CAST(DATE '2026-01-01' + CAST(hash(k) % 365 AS INT) AS VARCHAR) AS day",
        "CAST(TIMESTAMP '2026-01-01' + INTERVAL (hash(k * 3) % 31536000) SECOND AS VARCHAR) AS moment",
        "'a somewhat longer description of row ' || k AS note",
    ]
    other = f"CASE WHEN k % {rows // CHANGED} = 1 THEN '0.01' ELSE amount_3 END AS amount_3"
    gone = f"k % {rows // MISSING} <> 2"
    with duckdb.connect() as made:
        made.execute(f"CREATE TABLE r AS SELECT k, {', '.join(columns)} FROM range({rows}) t(k)")  # noqa: S608
        made.execute(f"COPY (SELECT * EXCLUDE (k) FROM r ORDER BY hash(k)) TO '{folder}/stable.csv' (HEADER)")  # noqa: S608
        made.execute(
            f"COPY (SELECT * EXCLUDE (k) REPLACE ({other}) FROM r WHERE {gone} ORDER BY hash(k + 7)) "  # noqa: S608
            f"TO '{folder}/candidate.csv' (HEADER)"
        )


def _child(who: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.tables", "--child", who, str(folder)],
        check=True,
        capture_output=True,
        timeout=SECONDS_MAX,
        cwd=Path(__file__).parents[1],
    )
    seen: dict[str, float] = json.loads(done.stdout)
    return seen


def _turn(who: str, folder: Path) -> None:
    begun = time.perf_counter()
    differing = _ours(folder) if who == "interlock" else _by_hand(folder)
    seconds = time.perf_counter() - begun
    assert differing[0] >= MISSING
    assert differing[1] >= CHANGED - 1
    # Not ru_maxrss: a child begins with that of the process that it was forked from.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    sys.stdout.write(json.dumps({"seconds": seconds, "megabytes": kilobytes / 1024}))


def _ours(folder: Path) -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as work:
        found = compare_tables(
            folder / "stable.csv",
            folder / "candidate.csv",
            "csv",
            ComparisonRules(keys=(KEY,), key_fields=("amount_3",)),
            folder=Path(work),
            today=datetime.now(UTC).date(),
            differences=Path(work) / "differences.csv",
        )
    return found.rows.missing, next(each.beyond for each in found.columns if each.name == "amount_3")


def _by_hand(folder: Path) -> tuple[int, int]:
    """What somebody who knows DuckDB would write: one outer join, all of it as text, one count for each column."""
    with duckdb.connect() as connection:
        connection.execute("SET preserve_insertion_order = false")
        names = [row[0] for row in connection.execute(f"DESCRIBE FROM '{folder}/stable.csv'").fetchall()]
        counts = ", ".join(
            f"count(*) FILTER (a.k IS NOT NULL AND b.k IS NOT NULL AND a.{name} IS DISTINCT FROM b.{name}) AS {name}"
            for name in names
        )
        table = f"SELECT {KEY} AS k, * FROM read_csv('{{}}', all_varchar = true, header = true)"  # noqa: S608
        row = connection.execute(
            f"SELECT count(*) FILTER (b.k IS NULL) AS missing, count(*) FILTER (a.k IS NULL) AS added, {counts} "  # noqa: S608
            f"FROM ({table.format(folder / 'stable.csv')}) a FULL OUTER JOIN "
            f"({table.format(folder / 'candidate.csv')}) b ON a.k = b.k"
        ).fetchall()[0]
    return int(row[0]), int(row[2 + names.index("amount_3")])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _turn(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(run((measure,)))
