"""Something that happened, with labels; written in the transaction that made it true."""

from __future__ import annotations

from interlock.core.model import Frozen, JsonObject


class Event(Frozen):
    """`kind` is a dotted past tense (`run.succeeded`); labels are short strings that routing matches on."""

    kind: str
    labels: dict[str, str]
    data: JsonObject = {}
