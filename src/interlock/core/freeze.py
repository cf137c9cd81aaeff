"""An order that stands for a while: nothing may change some targets, agents are paused, or a glass is broken."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from interlock.core.model import Frozen


class Freeze(Frozen):
    """`scope` `targets`: no change of targets that match `pattern` (`*`: of anything). `agents`: no change by an agent
    whose name matches. `glass`: the one exception, by which `set_by` may change protected targets that match
    `pattern`. `until` None: until somebody lifts it."""

    scope: Literal["targets", "agents", "glass"]
    pattern: str
    reason: str
    set_by: str
    until: datetime | None
