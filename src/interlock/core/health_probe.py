"""One cheap question to one address over HTTP: whether somebody is there who can answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey

GOOD_STATUS = range(200, 300)


class ProbeAnswer(Frozen):
    """What came back. `status` is None when nothing did; `reason` then says why, and is empty for a good answer."""

    status: int | None
    reason: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """2xx, whole, in time. A redirect is not good: it is not followed."""
        return self.status in GOOD_STATUS and not self.reason


class HealthProbe(Protocol):
    """Asks from this machine. Never raises for what the other side does."""

    def ask(
        self, address: str, path: str, *, timeout_seconds: float, headers: Mapping[str, str] | None = None
    ) -> ProbeAnswer:
        """GET one path at HOST:PORT, without following anything; the body is read up to a small bound and dropped.

        `timeout_seconds` is for all of it together, however slowly it comes.
        """
        ...

    def is_free(self, port: int) -> bool:
        """Whether nobody listens on this port of 127.0.0.1, or of all addresses."""
        ...


HEALTH_PROBE: OutsideKey[HealthProbe] = OutsideKey("the probe of services")
