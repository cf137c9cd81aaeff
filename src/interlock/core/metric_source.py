"""Where numbers about versions come from, besides the proxy: endpoints that are asked, and files of thresholds."""

from __future__ import annotations

from typing import Protocol

from interlock.core.outside import OutsideKey


class MetricSource(Protocol):
    """Asks and reads; every call blocks and is bounded in time and size."""

    def fetch(self, url: str) -> bytes:
        """The body of what answers 200 at an http or https URL; redirects are not followed.

        Raises Transient when nobody answers so in time, and Invalid when the URL is none or the answer is too long.
        """
        ...

    def read(self, path: str) -> bytes:
        """The content of a file. Raises NotFound, and Invalid when it is too long."""
        ...


METRIC_SOURCE: OutsideKey[MetricSource] = OutsideKey("endpoints that tell numbers")
