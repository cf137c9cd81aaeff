"""Lets a write happen once: its transaction is known before it commits, and the database says what became of it."""

from __future__ import annotations

from interlock.core.databases import Image, SqlDatabases, TransactionIdentity, WriteOutcome
from interlock.core.errors import Permanent, Transient
from interlock.core.model import JsonObject
from interlock.core.ports import StepContext
from interlock.databases.writing import image_json


class Effects:
    """What is known of the effects of one Run, from within one of its steps."""

    def __init__(self, databases: SqlDatabases, context: StepContext) -> None:
        self._databases = databases
        self._context = context

    def intend(self, database: str, key: str, identity: TransactionIdentity, outcome: WriteOutcome) -> None:
        """Called right before the commit: keeps the rows before and after, and which transaction is about to commit.

        Raises Transient (nothing sent) when this worker may not act any more; what it raises rolls back.
        """
        before, after = (
            self._context.blobs.put(image_json(image)) if image is not None else None
            for image in (outcome.before, outcome.after)
        )
        payload: JsonObject = {
            "key": key,
            "database": database,
            "system": identity.system,
            "xid": identity.xid,
            "rows": outcome.rows,
            "before": before,
            "after": after,
        }
        self._context.arrange("sql.intend", payload)
        self._context.hold()

    def is_committed(self, key: str) -> bool:
        """Whether the effect of this key has happened.

        Raises:
            Transient: its transaction is still open; it ends by itself soon after whoever began it is gone.
            Permanent: the database does not know that transaction (any more), so nobody knows.
        """
        found = self._found(key)
        if found is None:
            return False
        identity = TransactionIdentity(xid=str(found["xid"]), system=str(found["system"]))
        fate = self._databases.fate(str(found["database"]), identity)
        if fate == "in progress":
            msg = f"the transaction of {key} is still open in {found['database']}"
            raise Transient(msg, code="sql.in_progress", fix="wait a moment")
        if fate == "unknown":
            msg = (
                f"{found['database']} does not know the transaction of {key} any more: nobody knows whether it happened"
            )
            raise Permanent(msg, code="sql.fate_unknown", fix="look at the rows")
        return fate == "committed"

    def images(self, key: str) -> tuple[Image, Image] | None:
        """The rows before and after an effect that has happened; None when it has not.

        Raises: as `is_committed`; NotFound when retention has pruned them.
        """
        if not self.is_committed(key):
            return None
        found = self._found(key) or {}
        before, after = (
            Image.model_validate_json(self._context.blobs.get(str(found[name]))) for name in ("before", "after")
        )
        return before, after

    def _found(self, key: str) -> JsonObject | None:
        found = self._context.arrange("sql.recall", {"key": key})["found"]
        return found if isinstance(found, dict) else None
