"""How long to wait before the next attempt: exponential, capped, with full jitter."""

from __future__ import annotations

from random import Random

FIRST_SECONDS = 0.2
WAIT_SECONDS_MAX = 30.0
SHARE_MIN = 0.5


def wait_seconds(attempt: int, random: Random) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1).

    Doubles with each attempt up to `WAIT_SECONDS_MAX`; the jitter takes away at most half, so that many callers do not
    come back at once and none comes back at once.
    """
    ceiling = min(WAIT_SECONDS_MAX, FIRST_SECONDS * 2.0 ** min(attempt - 1, 30))
    return float(ceiling * (SHARE_MIN + (1 - SHARE_MIN) * random.random()))
