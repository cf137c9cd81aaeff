"""Holds the rows of the Run and approval tables against the evidence: what people are shown must be what was sealed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from interlock.core.plan import RISKS
from interlock.core.run import FINAL_STATES
from interlock.engine.audit.chain import RunTale
from interlock.engine.audit.findings import Findings
from interlock.engine.record import never_changed
from interlock.lib.canonical import digest_of

_FINAL = frozenset(state.value for state in FINAL_STATES)
_ASKED = ("action", "key", "reason", "undo_of", "retry_of")
_VERDICT = ("approver", "asker", "digest", "kind", "verdict", "reason", "roles")
_SHORT_FLOAT = 1e15
_QUICK = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)
_SENTENCES = {
    "action": "the Run table names another action than what was asked",
    "key": "the Run table has another key than what was asked",
    "reason": "the Run table gives another reason than what was asked",
    "undo_of": "the Run table says that it takes back another Run than what was asked",
    "retry_of": "the Run table says that it repeats another Run than what was asked",
}

Add = Callable[[str, str], None]
Row = Mapping[str, Any]


def compare_run(findings: Findings, tale: RunTale, row: Row | None, verdicts: Sequence[Row] = ()) -> None:
    """Hold a Run's row, and the verdicts on it, against what its evidence says.

    `row` has the columns of `audit_store.RUN_FACTS`, `verdicts` those of `audit_store.VERDICTS`.
    """

    def add(code: str, message: str) -> None:
        findings.add(code, f"Run {tale.run}: {message}", run=tale.run)

    if row is None:
        add("run.lost", "there is evidence of it, and no row in the Run table")
        return
    if tale.asked:
        _compare_ask(add, tale.asked, row)
        _compare_plan(add, tale.asked, row)
    if tale.asked and tale.rows > 1:
        _compare_decision(add, tale.decided, row)
    _compare_end(add, tale, row)
    _compare_verdicts(add, tale.verdicts, verdicts)


def _number(text: str) -> float:
    """A number as the canonical form writes it: a whole one without a fraction."""
    number = float(text)
    return int(number) if abs(number) < _SHORT_FLOAT and number.is_integer() else number


_NUMBERS = json.JSONDecoder(parse_float=_number)
_DOUBLES = json.JSONDecoder(parse_int=float)


def _compare_ask(add: Add, asked: Mapping[str, Any], row: Row) -> None:
    actor = _object(row["actor"])
    told = f"{actor.get('kind')}:{actor.get('name')}"
    if (told, row["actor_id"]) != (asked.get("actor"), asked.get("actor")):
        add("run.actor", f"the Run table says {told!r} ({row['actor_id']!r}) asked, asked has {asked.get('actor')!r}")
    if actor.get("on_behalf_of") != asked.get("on_behalf_of"):
        add("run.on_behalf_of", "the Run table says that it was asked for somebody else than the evidence says")
    for name in _ASKED:
        if row[name] != asked.get(name):
            add(f"run.{name}", _SENTENCES[name])
    if not _is_same_row(actor, row, asked.get("row_digest")):
        add("run.row", "roles, timeout or digest of the ask in the Run table are not what was asked with")
    if row["digest"] != asked.get("digest"):
        add("run.digest", "the Run table has another plan's digest than what was asked")
    if not _is_same_moment(row["created_at"], asked.get("at")):
        add("run.created_at", "the Run table says that it was asked at another time")


def _object(text: str) -> dict[str, Any]:
    """The JSON object; an empty one when it is anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_same_row(actor: dict[str, Any], row: Row, digest: object) -> bool:
    try:
        return _has_digest(never_changed(actor, row["ask_digest"], row["timeout_seconds"]), digest)
    except (ValueError, RecursionError):
        return False


def _compare_plan(add: Add, asked: Mapping[str, Any], row: Row) -> None:
    """The plan has the digest that was asked for, and the columns beside it are what follows from it."""
    plan = _exact(row["plan"], asked.get("digest"))
    if plan is None:
        add("run.plan", "the plan in the Run table is not the one that was asked for")
        return
    try:
        steps = plan["steps"]
        expected = {
            "action": plan["action"],
            "summary": plan["summary"],
            "risk": RISKS[max(RISKS.index(step["risk"]) for step in steps)],
            "changes": any(step["changes"] for step in steps),
            "targets": sorted({f"{target['kind']}:{target['id']}" for step in steps for target in step["targets"]}),
        }
        same_args = _has_digest(plan["args"], asked.get("args_digest"))
    except (KeyError, TypeError, ValueError) as error:
        add("run.plan", f"what the Run table has for a plan is none ({type(error).__name__})")
        return
    for name, value in expected.items():
        if row[name] != value:
            add(f"run.{name}", f"the column {name!r} of the Run table is not what follows from the plan")
    if not same_args:
        add("run.args", "the plan's arguments are not those that were asked with")


def _compare_decision(add: Add, decided: Mapping[str, Any], row: Row) -> None:
    decision = _exact(row["decision"], decided.get("decision_digest"))
    if not isinstance(decision, dict) or decision.get("outcome") != decided.get("outcome"):
        add("run.decision", "the decision in the Run table is not the one that was made")


def _exact(text: str, digest: object) -> Any:
    """The JSON value when it has this digest, else None.

    A number that PostgreSQL wrote out as an integer beyond 2^53 had been a double: then every number is read as one.
    """
    for decoder in (_NUMBERS, _DOUBLES):
        try:
            value = decoder.decode(text)
            if _has_digest(value, digest):
                return value
        except (ValueError, RecursionError):
            continue
    return None


def _has_digest(value: object, digest: object) -> bool:
    """Quickly where the C encoder gives the canonical form; where it does not, the exact one is tried."""
    quick = sha256(_QUICK.encode(value).encode("utf-8", "replace")).hexdigest()
    return quick == digest or digest_of(value) == digest


def _compare_end(add: Add, tale: RunTale, row: Row) -> None:
    """State, reason, code, time and canceller of a closed Run; an open one has no end yet."""
    closed, state = tale.closed, row["state"]
    if closed is None:
        if state in _FINAL:
            add("run.state", f"the Run table says {state!r}, and no evidence closes it")
        elif row["closed_at"] is not None:
            add("run.closed_at", "the Run table gives the time of an end that no evidence tells of")
        return
    if state != closed.get("state"):
        add("run.state", f"the Run table says {state!r}, its evidence was closed as {closed.get('state')!r}")
    if (row["state_reason"], row["state_code"]) != (closed.get("reason"), closed.get("code")):
        add("run.state_reason", "the Run table says that it ended for another reason than its evidence")
    if not _is_same_moment(row["closed_at"], closed.get("at")):
        add("run.closed_at", "the Run table says that it ended at another time than its evidence")
    if row["cancelled_by"] != closed.get("cancelled_by"):
        add("run.cancelled_by", "the Run table says that somebody else cancelled it than its evidence")


def _compare_verdicts(add: Add, sealed: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> None:
    """None is missing, none was added, each says the same."""
    if not sealed and not rows:
        return
    left = Counter(_key(verdict) for verdict in sealed)
    left.subtract(_key(row) for row in rows)
    if any(count < 0 for count in left.values()):
        add("approval.added", "the approval table holds a verdict that no evidence tells of")
    if any(count > 0 for count in left.values()):
        add("approval.missing", "a verdict that the evidence tells of is not in the approval table")


def _key(verdict: Mapping[str, Any]) -> str:
    """A verdict as text, the same for evidence and for a row; times are compared as moments."""
    told = {name: verdict.get(name) for name in _VERDICT}
    moments = [_moment(verdict.get(name)) for name in ("at", "expires_at")]
    return json.dumps([told, moments], sort_keys=True)


def _is_same_moment(told: object, sealed: object) -> bool:
    """The table's text of a moment is nearly always that of the evidence without its Z."""
    return (sealed == f"{told}Z" and _is_moment(sealed)) or _moment(told) == _moment(sealed)


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _moment(value: object) -> str:
    """The same moment as the same text; the tables give UTC without saying so."""
    try:
        moment = datetime.fromisoformat(str(value))
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return f"no time: {value}"
