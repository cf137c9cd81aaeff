"""Where the golden samples of services lie: requests whose answers a person accepted."""

from __future__ import annotations

from pathlib import Path

from interlock.core.outside import OutsideKey

GOLDEN_FOLDER: OutsideKey[Path] = OutsideKey("golden samples of services")
