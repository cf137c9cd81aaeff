"""All SQL of the versions of services that were started here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString

from interlock.core.errors import Conflict
from interlock.core.service_instance import ServiceInstance
from interlock.core.service_runtime import VersionSpec
from interlock.engine.db import Connection, Database

PORT_LOCK = 0x5EC7_1CE5
LISTED_MAX = 2000
_STANDING: LiteralString = "stage in ('starting', 'running', 'stopping')"
_COLUMNS: LiteralString = "spec, stage, address, run, release, reason, started_at, healthy_at, stopped_at"


class InstanceStore:
    """One row for each version of a workload; each write is one transaction, with the event that tells of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> tuple[ServiceInstance, ...]:
        """By workload, newest first."""
        query: LiteralString = f"select {_COLUMNS} from service_instance order by workload, started_at desc limit %s"
        return await self._read(query, (LISTED_MAX,))

    async def of(self, workload: str) -> tuple[ServiceInstance, ...]:
        """Of one workload, newest first."""
        query: LiteralString = (
            f"select {_COLUMNS} from service_instance where workload = %s order by started_at desc limit %s"
        )
        return await self._read(query, (workload, LISTED_MAX))

    async def find(self, workload: str, version: str) -> ServiceInstance | None:
        """One version."""
        query: LiteralString = f"select {_COLUMNS} from service_instance where workload = %s and version = %s"
        found = await self._read(query, (workload, version))
        return found[0] if found else None

    async def reserve(
        self, spec: VersionSpec, ports: Sequence[int], run: int, release: int | None, now: datetime
    ) -> VersionSpec:
        """Write down that a version is about to be started, on the first of these ports that no other version holds.

        A version that stands already keeps its port. Raises Conflict when it stands as something else, or when no
        port is left.
        """
        async with self._database.transaction() as connection:
            await connection.execute("select pg_advisory_xact_lock(%s)", (PORT_LOCK,))
            query: LiteralString = f"select {_COLUMNS} from service_instance where workload = %s and version = %s"
            row = await (await connection.execute(query, (spec.workload, spec.version))).fetchone()
            known = _instance(row) if row is not None else None
            if known is not None and known.stage in ("starting", "running"):
                if known.spec.identity != spec.identity:
                    raise other_files(spec)
                await connection.execute(
                    "update service_instance set run = %s, release = coalesce(%s, release) where workload = %s"
                    " and version = %s",
                    (run, release, spec.workload, spec.version),
                )
                return known.spec
            taken: LiteralString = f"select port from service_instance where {_STANDING}"
            rows = await (await connection.execute(taken)).fetchall()
            port = next((port for port in ports if port not in {row["port"] for row in rows}), None)
            if port is None:
                msg = "no port is free for another version"
                raise Conflict(msg, code="service.ports", fix="stop versions that nobody needs: interlock service list")
            placed = spec.model_copy(update={"port": port})
            await _insert(connection, placed, run, release, now)
        return placed

    async def started(self, workload: str, version: str, address: str) -> None:
        """Where its runtime says that it is reached."""
        await self._change(
            "update service_instance set address = %(address)s where workload = %(workload)s and version = %(version)s",
            {"workload": workload, "version": version, "address": address},
        )

    async def failed(self, workload: str, version: str, reason: str) -> None:
        """Why it did not become healthy; it is stopped next."""
        await self._change(
            """update service_instance set reason = %(reason)s
               where workload = %(workload)s and version = %(version)s and healthy_at is null""",
            {"workload": workload, "version": version, "reason": reason[:2000]},
        )

    async def healthy(self, workload: str, version: str, run: int, now: datetime) -> None:
        """It answers; told once."""
        await self._move(
            """update service_instance set stage = 'running', healthy_at = %(now)s, reason = null
               where workload = %(workload)s and version = %(version)s and stage in ('starting', 'running')
               returning stage, identity, healthy_at""",
            {"workload": workload, "version": version, "run": run, "now": now},
        )

    async def stopping(self, workload: str, version: str, run: int) -> None:
        """It is being ended."""
        await self._change(
            f"""update service_instance set stage = 'stopping', run = %(run)s
                where workload = %(workload)s and version = %(version)s and {_STANDING}""",
            {"workload": workload, "version": version, "run": run},
        )

    async def stopped(self, workload: str, version: str, run: int, now: datetime) -> None:
        """Nothing of it runs any more."""
        await self._move(
            f"""update service_instance set stopped_at = %(now)s, run = %(run)s,
                       stage = case when reason is not null and healthy_at is null then 'failed' else 'stopped' end
                where workload = %(workload)s and version = %(version)s and {_STANDING}
                returning stage, identity, reason""",
            {"workload": workload, "version": version, "run": run, "now": now},
        )

    async def forget(self, before: datetime, keep: int) -> tuple[str, ...]:
        """Drop rows of versions that ended before then, but each workload's newest; returns their names."""
        query = b"""delete from service_instance where (workload, version) in (
                      select workload, version from (
                        select workload, version, stopped_at,
                               row_number() over (partition by workload order by stopped_at desc) as place
                        from service_instance where stage in ('stopped', 'failed')) as ended
                      where place > %(keep)s and stopped_at < %(before)s)
                    returning workload, version"""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(query, {"before": before, "keep": keep})).fetchall()
        return tuple(f"{row['workload']}@{row['version']}" for row in rows)

    async def _read(self, query: LiteralString, parameters: Sequence[Any]) -> tuple[ServiceInstance, ...]:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(query, parameters)).fetchall()
        return tuple(map(_instance, rows))

    async def _change(self, query: LiteralString, parameters: dict[str, Any]) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(query, parameters)

    async def _move(self, query: LiteralString, parameters: dict[str, Any]) -> None:
        """A change of stage, and the event that tells of it."""
        async with self._database.transaction() as connection:
            row = await (await connection.execute(query, parameters)).fetchone()
            if row is None:
                return
            labels = {"workload": parameters["workload"], "version": parameters["version"]}
            data = {"identity": row["identity"], "reason": row.get("reason")}
            await connection.execute(
                "insert into event (kind, labels, data, run) values (%s, %s, %s, %s)",
                (f"service.{row['stage']}", json.dumps(labels), json.dumps(data), parameters["run"]),
            )


def other_files(spec: VersionSpec) -> Conflict:
    """A version that runs was made of something else than what its name now stands for."""
    msg = f"{spec.name} runs already, and was made of something else than what {spec.version} is now"
    return Conflict(msg, code="service.other_files", fix="stop it first, or give what is new a name of its own")


async def _insert(connection: Connection, spec: VersionSpec, run: int, release: int | None, now: datetime) -> None:
    await connection.execute(
        """insert into service_instance (workload, version, identity, spec, port, stage, address, run, release,
                                         started_at)
           values (%(workload)s, %(version)s, %(identity)s, %(spec)s, %(port)s, 'starting', %(address)s, %(run)s,
                   %(release)s, %(now)s)
           on conflict (workload, version) do update set identity = excluded.identity, spec = excluded.spec,
               port = excluded.port, stage = 'starting', address = excluded.address, run = excluded.run,
               release = excluded.release, reason = null, started_at = excluded.started_at, healthy_at = null,
               stopped_at = null""",
        {
            "workload": spec.workload,
            "version": spec.version,
            "identity": spec.identity,
            "spec": spec.model_dump_json(),
            "port": spec.port,
            "address": spec.address,
            "run": run,
            "release": release,
            "now": now,
        },
    )


def _instance(row: dict[str, Any]) -> ServiceInstance:
    return ServiceInstance(**{**row, "spec": VersionSpec.model_validate(row["spec"])})
