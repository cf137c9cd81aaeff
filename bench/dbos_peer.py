"""DBOS as its documentation shows it: a workflow of one step that does nothing, called or put into a queue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from dbos import DBOS, DBOSClient, DBOSConfig, WorkflowHandle

from bench.server import BenchDatabase

NAME = "bench"
POLL_SECONDS = 0.05
"""Twenty times shorter than its default."""
RESULT_POLL_SECONDS = 0.005
"""How often a single client looks for its result: its default of a second would hide how fast the queue is."""
DRAIN_SECONDS = 240
LOOK_SECONDS = 0.2


@DBOS.step()
def nothing() -> None:
    """The step."""


@DBOS.workflow()
def workflow() -> None:
    """The workflow."""
    nothing()


@contextmanager
def launched(database: BenchDatabase, *, concurrency: int | None) -> Iterator[None]:
    """Launch DBOS with one queue, and take it down at the end."""
    config: DBOSConfig = {
        "name": NAME,
        "system_database_url": database.owner_url,
        "executor_id": NAME,
        "application_version": "1",
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        DBOS.register_queue(NAME, worker_concurrency=concurrency, polling_interval_sec=POLL_SECONDS)
        yield
    finally:
        DBOS.destroy()


def enqueue() -> WorkflowHandle[None]:
    """Put one workflow into the queue."""
    return DBOS.enqueue_workflow(NAME, workflow)


class Backlog:
    """Fills the queue while no worker listens, and watches it being emptied."""

    def __init__(self, database: BenchDatabase) -> None:
        self._client = DBOSClient(system_database_url=database.owner_url)
        self._conninfo = database.owner
        self._since_ms = int(time.time() * 1000)

    def add(self, _: int) -> None:
        """Put one workflow into the queue, as another process would."""
        self._client.enqueue({"queue_name": NAME, "workflow_name": workflow.__qualname__})

    def close(self) -> None:
        """Let go of the client."""
        self._client.destroy()

    def rate(self, count: int) -> float:
        """Wait until all `count` are done; returns how many that were each second, by DBOS's own records."""
        query = """select count(*), (max(completed_at) - min(started_at_epoch_ms)) / 1000.0 from dbos.workflow_status
            where created_at >= %s and status = 'SUCCESS'"""
        end = time.monotonic() + DRAIN_SECONDS
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            while time.monotonic() < end:
                done, seconds = connection.execute(query, (self._since_ms,)).fetchone() or (0, None)
                if done >= count:
                    return float(done / float(seconds))
                time.sleep(LOOK_SECONDS)
        msg = f"the backlog was not emptied in {DRAIN_SECONDS} s"
        raise RuntimeError(msg)
