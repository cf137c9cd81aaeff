"""Where a Run stands, read from its evidence alone; no code is replayed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from interlock.core.evidence import Evidence, EvidenceKind
from interlock.core.model import JsonObject

Direction = Literal["do", "undo"]


@dataclass(frozen=True)
class Open:
    """A step that was started and of which nothing more is known; `performed` when only its check is missing."""

    step: int
    attempt: int
    direction: Direction
    worker: JsonObject
    guards: tuple[JsonObject, ...] = ()
    performed: bool = False


@dataclass
class Progress:
    """What the evidence says: which steps are done, which is open, and whether the Run is on its way back.

    `undo_from` is the step from which it goes back, None while it goes forward. `resolution` is what a person decided
    about the open step and nobody has acted on yet.
    """

    done: set[int] = field(default_factory=set)
    undone: set[int] = field(default_factory=set)
    open: Open | None = None
    undo_from: int | None = None
    undo_reason: str | None = None
    resolution: Literal["repeat", "skip", "undo"] | None = None
    started: bool = False

    @property
    def direction(self) -> Direction:
        """Forward, or on the way back."""
        return "do" if self.undo_from is None else "undo"

    def next_step(self, count: int) -> int | None:
        """The next step to do of `count`, None when all are done."""
        return next((index for index in range(count) if index not in self.done), None)

    def next_undo(self) -> int | None:
        """The next step to take back, in reverse order; None when nothing is left."""
        if self.undo_from is None:
            return None
        touched = self.done | {self.undo_from}
        return max((index for index in touched if index not in self.undone), default=None)

    def disputed(self, count: int) -> int:
        """Of a Run that is unresolved: the step that nobody knows about, or that did not end well, of `count`."""
        if self.open is not None:
            return self.open.step
        index = self.next_step(count) if self.direction == "do" else self.next_undo()
        return count - 1 if index is None else index


def started_data(step: int, attempt: int, direction: Direction, worker: JsonObject) -> JsonObject:
    """What is written down before an effect."""
    return {"step": step, "attempt": attempt, "direction": direction, "worker": worker}


def read_progress(rows: Iterable[Evidence]) -> Progress:
    """Fold a Run's evidence, in order, into where it stands."""
    progress = Progress()
    for row in rows:
        data = cast("dict[str, Any]", json.loads(row.line)["data"])
        _apply(progress, row.kind, data)
    return progress


def _apply(progress: Progress, kind: EvidenceKind, data: dict[str, Any]) -> None:
    if kind is EvidenceKind.STARTED:
        progress.started = True
        progress.resolution = None
        progress.open = Open(data["step"], data["attempt"], data["direction"], data["worker"])
    elif kind in (EvidenceKind.DONE, EvidenceKind.UNDONE):
        if data["ok"] and data.get("to_check") and progress.open is not None:
            progress.open = replace(progress.open, performed=True)
        else:
            _end_step(progress, "do" if kind is EvidenceKind.DONE else "undo", data)
    elif kind is EvidenceKind.CHECKED:
        _end_step(progress, progress.direction, data)
    elif kind is EvidenceKind.NOTED:
        _apply_note(progress, data)


def _end_step(progress: Progress, direction: Direction, data: dict[str, Any]) -> None:
    progress.open = None
    if data["ok"]:
        (progress.done if direction == "do" else progress.undone).add(data["step"])


def _apply_note(progress: Progress, data: dict[str, Any]) -> None:
    note = data["note"]
    if note == "guard" and progress.open is not None:
        progress.open = replace(progress.open, guards=(*progress.open.guards, data["guard"]))
    elif note == "not_started":
        progress.open = None
    elif note == "undoing":
        progress.undo_from, progress.undo_reason = data["step"], data["reason"]
    elif note == "resolved":
        _apply_resolution(progress, data)


def _apply_resolution(progress: Progress, data: dict[str, Any]) -> None:
    progress.resolution = data["resolution"]
    ended = progress.done if progress.direction == "do" else progress.undone
    if data["resolution"] == "repeat":
        ended.discard(data["step"])
        return
    progress.open = None
    if data["resolution"] == "skip":
        ended.add(data["step"])
    elif progress.undo_from is None:
        progress.undo_from = data["step"]
        progress.undo_reason = f"{data['by']} chose to take it back"
