"""What can be read about golden samples of services: what was accepted, by whom, when and why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from interlock.comparison.golden import read_samples
from interlock.core.actor import Actor
from interlock.core.comparison import GoldenSample
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses
from interlock.core.traffic import WorkloadName
from interlock.core.view import View
from interlock.lib.clock import rfc3339


class GoldenArgs(Frozen):
    """A service."""

    workload: WorkloadName


class GoldenView(View):
    """Samples of one service."""

    name: ClassVar[str] = "golden"
    summary: ClassVar[str] = "Golden samples of a service: which requests, who accepted their answers, when and why."
    discloses: ClassVar[Discloses] = "content"
    Args: ClassVar[type[Frozen]] = GoldenArgs

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self, actor: Actor, args: GoldenArgs) -> JsonObject:  # noqa: ARG002
        """By name; a service without any has none. Raises Permanent when one cannot be read."""
        samples = await asyncio.to_thread(read_samples, self._folder, args.workload)
        return {"golden": [_shown(sample) for sample in samples]}


def _shown(sample: GoldenSample) -> JsonObject:
    """Without the answer itself, which may hold what is not for everybody."""
    return {
        "name": sample.name,
        "path": sample.request.target if sample.request is not None else None,
        "status": sample.answer.status if sample.answer is not None else None,
        "noise": [*sample.noise],
        "accepted_by": sample.accepted_by,
        "accepted_at": rfc3339(sample.accepted_at),
        "reason": sample.reason,
        "digest": sample.digest,
    }
