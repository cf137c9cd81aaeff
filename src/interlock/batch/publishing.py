"""Puts what an invocation wrote where users look for it, as a whole, and keeps what lay there before."""

from __future__ import annotations

import shutil
from pathlib import Path

from interlock.comparison.outputs import leads_out, listed
from interlock.core.errors import Denied, Transient
from interlock.core.ports import StepContext

USERS_MAY = 0o755


def publish(output: Path, place: Path, before: Path, context: StepContext) -> bool:
    """Let `output` take the place of `place`; what lay there goes to `before`, where an earlier one is removed.

    Beside the place first, so that nobody ever finds half of it there. Returns whether something lay there.

    Raises: Denied when a link in it leads out of it: users would be shown what no version wrote, and what can be
    anything later. Transient when the disk is full; then what lay there lies there still.
    """
    out = next((path for path in listed(output) if leads_out(output, path)), None)
    if out is not None:
        msg = f"the link {out} leads out of what the version wrote, and is not published"
        raise Denied(msg, code="batch.link", fix="let the version write a file in its place")
    new = place.with_name(f".{place.name}.new-{context.run}")
    context.hold()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(output, new, symlinks=True)
        new.chmod(place.parent.stat().st_mode & USERS_MAY)
        there = place.is_dir()
        if there:
            keep(place, before)
        new.rename(place)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if not place.exists() and before.is_dir() and not new.exists():
            shutil.copytree(before, place, symlinks=True)
        msg = f"what it wrote cannot be put into {place}: {error.strerror or error}"
        raise Transient(msg, code="batch.publish", fix="make room there, and check who may write there") from error
    return there


def keep(place: Path, before: Path) -> None:
    """Move what lies there aside. Raises OSError."""
    shutil.rmtree(before, ignore_errors=True)
    before.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(place, before, symlinks=True)
    shutil.rmtree(place)


def restore(place: Path, before: Path, context: StepContext) -> bool:
    """Put back what lay there before; nothing happens where nothing is kept. Raises Transient."""
    if not before.is_dir():
        return False
    context.hold()
    try:
        new = place.with_name(f".{place.name}.back-{context.run}")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(before, new, symlinks=True)
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)
    except OSError as error:
        msg = f"what lay in {place} before cannot be put back: {error.strerror or error}"
        raise Transient(msg, code="batch.publish", fix="make room there, and check who may write there") from error
    return True
