"""Judges what the database says: version, schema, rights, connections, and how far the log is sealed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from interlock.doctor.model import Finding, doubtful, sound, wrong
from interlock.doctor.store import DatabaseFacts, too_old

SEAL_LAG_SECONDS_GOOD = 15 * 60
CONNECTIONS_SHARE_GOOD = 0.9

_WHY_APPEND = "evidence that can be changed proves nothing"
_OWNER = "INTERLOCK_DATABASE_OWNER_URL"


def judge_database(facts: DatabaseFacts, *, separated: bool) -> Iterator[Finding]:
    """`separated`: another role owns the tables, so that this one should have few rights."""
    version = f"PostgreSQL {facts.version // 10000}.{facts.version % 10000}"
    if too_old(facts):
        why = "Interlock uses what only newer servers have, and does not start on this one"
        yield wrong("database", f"{version} is too old", why, "pg_upgradecluster --help   # to 15 or newer")
    else:
        yield sound("database", f"{version} answers as {facts.role}")
    yield _judge_schema(facts)
    yield from _judge_rights(facts, separated=separated)
    share = facts.connections / facts.connections_max
    text = f"{facts.connections} of {facts.connections_max} connections are in use"
    if share > CONNECTIONS_SHARE_GOOD:
        why = "who finds no connection waits, and is then refused"
        command = 'psql "$INTERLOCK_DATABASE_OWNER_URL" -c "select usename, count(*) from pg_stat_activity group by 1"'
        yield doubtful("database", text, why, command)
    else:
        yield sound("database", text)


def _judge_schema(facts: DatabaseFacts) -> Finding:
    if facts.revision is None:
        why = "without its tables nothing can be recorded"
        return doubtful("database", "the tables are not made yet", why, "interlock status   # makes them")
    if facts.revision != facts.revision_known:
        text = f"the schema is at {facts.revision}, and this program knows {facts.revision_known}"
        why = "a program writes wrongly into tables that it does not know"
        return wrong("database", text, why, "interlock stop; interlock status   # brings the schema up to date")
    return sound("database", f"the schema is current ({facts.revision})")


def _judge_rights(facts: DatabaseFacts, *, separated: bool) -> Iterator[Finding]:
    if facts.unguarded:
        text = f"no trigger guards {', '.join(facts.unguarded)} against changes"
        yield wrong("database", text, _WHY_APPEND, "interlock audit verify; interlock restore --help")
    if facts.superuser:
        text = f"the role {facts.role} is a superuser"
        command = f'psql "${_OWNER}" -c "alter role {facts.role} nosuperuser"'
        yield wrong("database", text, "a superuser gets past every right and every trigger", command)
    elif facts.excess and separated:
        text = f"the role {facts.role} has {', '.join(facts.excess)}"
        tables = ", ".join(sorted({each.rpartition(" ")[2] for each in facts.excess}))
        command = f'psql "${_OWNER}" -c "revoke update, delete, truncate on {tables} from {facts.role}"'
        yield wrong("database", text, _WHY_APPEND, command)
    elif facts.excess:
        text = "one role owns the tables and works with them: triggers alone keep the evidence append-only"
        command = f"interlock stop; {_OWNER}=postgresql://OWNER@HOST/DATABASE interlock status"
        yield doubtful("database", text, "the owner of a table can take its triggers away", command)
    else:
        yield sound("database", f"the role {facts.role} cannot change evidence")


def judge_pool(statistics: Mapping[str, int]) -> Finding:
    """The resident process's own connections."""
    waiting, size = statistics.get("requests_waiting", 0), statistics.get("pool_size", 0)
    if waiting:
        why = "every ask and every answer needs a connection for a moment"
        return doubtful("database", f"{waiting} wait for one of {size} connections", why, "interlock status")
    return sound("database", f"the pool has {size} connections, and nobody waits")


def judge_log(facts: DatabaseFacts, now: datetime) -> Finding:
    """Whether the evidence is sealed soon after it is written."""
    if facts.revision is None or (facts.sealed_at is None and not facts.unsealed):
        return sound("log", "no evidence yet")
    since = facts.sealed_at or facts.newest_evidence_at or now
    lag = (now - since).total_seconds()
    if facts.unsealed and lag > SEAL_LAG_SECONDS_GOOD:
        text = f"{facts.unsealed} rows of evidence wait for a checkpoint, the last one was made {lag / 60:.0f} min ago"
        why = "what no checkpoint covers could still be changed without a trace"
        return doubtful("log", text, why, "interlock audit verify   # seals, and says what keeps it from that")
    return sound("log", f"sealed; {facts.unsealed} rows wait for the next checkpoint")
