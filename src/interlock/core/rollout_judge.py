"""Judges of rollouts that others drive: where the counts of both versions are read, and what counts as worse."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from interlock.core.judgement import JudgeSettings, Selector
from interlock.core.model import Frozen
from interlock.core.web import DestinationName

JudgeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=63)]
"""As it stands in addresses, and in the code `view:judge.NAME`."""
SessionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$")]
"""What tells one rollout from the next: a pod template hash, a checksum. It comes from outside and goes into queries,
so it holds nothing that means anything in PromQL: neither quotes nor dots, braces or backslashes."""

SESSION_PLACE = "{session}"
STABLE_PLACE = "{stable}"
APPLICABLE = frozenset(
    {
        *("false_alarm", "false_go", "error_ratio_allowed", "error_ratio_max", "error_share_harmless"),
        *("latency_increase_max", "latency_increase_harmless_seconds", "latency_quantiles", "certified_quantiles"),
        "requests_together_max",
    }
)
"""Of the settings of a judge, those that say anything where only counters and histograms are known."""

_PLACE = re.compile(r"\{([a-z]*)\}")


class JudgedArm(Frozen):
    """Where one of the two versions is found: by its labels in a Prometheus, or at an endpoint of its own."""

    where: str | None = Field(default=None, min_length=1, max_length=500)
    """In a Prometheus: what its labels must be besides, as `pod_template_hash="{session}"`. `{session}` and `{stable}`
    stand for what whoever asks calls the two."""
    destination: DestinationName | None = None
    """Without a Prometheus: which of `http_destinations` tells its metrics. One process, or something that adds up
    all of them: behind a balancer each answer would be another process's."""
    path: str = Field(default="/metrics", pattern=r"^/[A-Za-z0-9._~/-]{0,200}$")
    """Where there."""


class RolloutJudge(Frozen):
    """One judge of a rollout that Argo Rollouts, Flagger or anybody else drives.

    The counts of both versions come from a Prometheus (`prometheus`, and `where` for each version) or from an endpoint
    of each (`destination`). Selectors are written as in PromQL: a metric, and what its labels must be.
    """

    prometheus: DestinationName | None = None
    """Which of `http_destinations` is the Prometheus. It must be allowed to GET `/api/v1/query`."""
    stable: JudgedArm
    """The version that users had before."""
    candidate: JudgedArm
    """The version that is judged."""
    requests: Selector
    """The counter of all requests."""
    errors: Selector
    """The counter of those that failed."""
    latency: Selector | None = None
    """The histogram of how long they took, in seconds: its name without _bucket."""
    every_seconds: float = Field(default=5.0, ge=1, le=300)
    """How often it reads."""
    scrape_seconds: float = Field(default=15.0, ge=1, le=300)
    """How often the Prometheus scrapes: what it knows is that old, and counts between two scrapes are interpolated."""
    idle_seconds: int = Field(default=3600, ge=60, le=7 * 86_400)
    """A session that nobody asks about for so long is over."""
    lifetime_seconds: int = Field(default=86_400, ge=60, le=30 * 86_400)
    """A session is over after so long, whoever asks."""
    settings: JudgeSettings = JudgeSettings()
    """When the candidate is worse, and when it is proven to be no worse than allowed."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, arm in (("stable", self.stable), ("candidate", self.candidate)):
            if (self.prometheus is None) == (arm.destination is None):
                msg = f"give `prometheus`, or `destination` under both versions ({name} has it otherwise)"
                raise ValueError(msg)
            if (self.prometheus is None) != (arm.where is None):
                msg = f"`where` goes with `prometheus`, and both versions need one ({name} has it otherwise)"
                raise ValueError(msg)
            unknown = set(_PLACE.findall(arm.where or "")) - {"session", "stable"}
            if unknown:
                msg = f"{name}.where: {{{min(unknown)}}} stands for nothing; there are {SESSION_PLACE}, {STABLE_PLACE}"
                raise ValueError(msg)
        if self.stable == self.candidate:
            msg = "both versions are read at the same place; they could never differ"
            raise ValueError(msg)
        useless = self.settings.model_fields_set - APPLICABLE
        if useless:
            msg = f"settings.{min(useless)} says nothing here; there are {', '.join(sorted(APPLICABLE))}"
            raise ValueError(msg)
        return self

    @property
    def needs_stable(self) -> bool:
        """Whether whoever asks must say what the stable version is called."""
        return any(STABLE_PLACE in (arm.where or "") for arm in (self.stable, self.candidate))

    @property
    def destinations(self) -> tuple[str, ...]:
        """Those that it reads from."""
        if self.prometheus is not None:
            return (self.prometheus,)
        return tuple(arm.destination for arm in (self.stable, self.candidate) if arm.destination is not None)
