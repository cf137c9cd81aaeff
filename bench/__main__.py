"""Measures every claim, one after another."""

from __future__ import annotations

import sys

from bench import (
    audit,
    command_line,
    decisions,
    drain,
    history,
    http,
    judgement,
    latency,
    mcp,
    releases,
    replay,
    shadow,
    sql,
    tables,
    telemetry,
    traffic,
)
from bench.report import run

if __name__ == "__main__":
    sys.exit(
        run(
            (
                latency.measure,
                http.measure,
                mcp.measure,
                sql.measure,
                drain.measure,
                decisions.measure,
                replay.measure,
                audit.measure,
                history.measure,
                command_line.measure,
                telemetry.measure,
                judgement.measure,
                shadow.measure,
                tables.measure,
                releases.measure,
                traffic.measure,
            )
        )
    )
