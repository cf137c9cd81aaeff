"""Looks for what would keep a release from going its way, for `interlock check`."""

from __future__ import annotations

from collections.abc import Iterable

from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.workload import CanaryStep, ServiceWorkload, ShadowStep
from interlock.engine.inspection import finding
from interlock.engine.policy.load import PolicySet

AREA = "releases"
NEEDED = ("release.step", "release.rollback")


def inspect_releases(project: Project, policies: PolicySet) -> Iterable[JsonObject]:
    """Steps that make no sense, and policies of one's own that know nothing of releases."""
    services = {name: each for name, each in project.workloads.items() if isinstance(each, ServiceWorkload)}
    if not services:
        return
    texts = [source.text for source in policies.sources if source.layer != "invariant"]
    missing = [word for word in NEEDED if not any(word in text for text in texts)]
    if missing and project.preset != "observe":
        yield finding(
            "warning",
            AREA,
            f"no policy speaks of {' or '.join(missing)}: each step of a release, and each way back, needs an approval",
            "take over what the preset says of releases: interlock policy diff",
        )
    for name, service in services.items():
        yield from _steps(name, service)
    yield finding("ok", AREA, f"{len(services)} services can be released")


def _steps(name: str, service: ServiceWorkload) -> Iterable[JsonObject]:
    release = service.release
    weights = [step.weight_percent for step in release.steps if isinstance(step, CanaryStep)]
    if weights != sorted(weights):
        yield finding(
            "warning", AREA, f"workloads.{name}: a step has fewer users than the one before it", "order the steps"
        )
    canary = [index for index, step in enumerate(release.steps) if isinstance(step, CanaryStep)]
    if canary and any(isinstance(step, ShadowStep) for step in release.steps[canary[0] :]):
        yield finding(
            "warning", AREA, f"workloads.{name}: a shadow comes after users have it", "put the shadow step first"
        )
    if release.irreversible:
        yield finding(
            "warning", AREA, f"workloads.{name}: what goes wrong freezes a release where it is (irreversible)", None
        )
