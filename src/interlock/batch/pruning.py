"""Removes files of batch jobs that nobody needs any more: old comparisons, and what killed runs left behind."""

from __future__ import annotations

import re
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path

DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
LEFT_SECONDS = 2 * 24 * 3600.0
"""A step takes a day at most, so that a folder this old belongs to none."""


def prune_files(folder: Path, now: datetime, keep_days: int) -> tuple[str, ...]:
    """Comparisons of days before the last `keep_days`, and working folders that no step has any more; returns which.

    Golden samples, reports and outputs stay. Raises OSError.
    """
    removed: list[str] = []
    oldest = (now - timedelta(days=keep_days)).date()
    for job in sorted(folder.iterdir()) if folder.is_dir() else ():
        days = [place for place in job.iterdir() if DAY.fullmatch(place.name)] if job.is_dir() else []
        work = [*(job / "work").iterdir()] if (job / "work").is_dir() else []
        old = [place for place in days if date.fromisoformat(place.name) < oldest]
        left = [place for place in work if now.timestamp() - place.stat().st_mtime > LEFT_SECONDS]
        for place in (*old, *left):
            shutil.rmtree(place)
            removed.append(str(place))
    return tuple(removed)
