"""An order that nothing may change for a while: targets by pattern, or all agents."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from interlock.core.model import Frozen


class Freeze(Frozen):
    """`scope` `targets`: no change of targets that match `pattern` (`*`: of anything). `agents`: no change by an agent
    whose name matches. `until` None: until somebody lifts it."""

    scope: Literal["targets", "agents"]
    pattern: str
    reason: str
    set_by: str
    until: datetime | None
