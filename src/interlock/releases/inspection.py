"""Looks for what would keep a release from going its way, for `interlock check`."""

from __future__ import annotations

from collections.abc import Iterable

from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.workload import CanaryStep, ServiceWorkload, ShadowStep
from interlock.engine.inspection import finding
from interlock.engine.policy.load import PolicySet
from interlock.releases.plan_text import pairs_wanted

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
    count = "1 service" if len(services) == 1 else f"{len(services)} services"
    yield finding("ok", AREA, f"{count} can be released")


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
    for step in release.steps:
        if isinstance(step, ShadowStep):
            yield from _pairs(name, step, service)
    if release.irreversible:
        yield finding(
            "warning", AREA, f"workloads.{name}: what goes wrong freezes a release where it is (irreversible)", None
        )


def _pairs(name: str, step: ShadowStep, service: ServiceWorkload) -> Iterable[JsonObject]:
    """A number of comparisons that cannot be enough."""
    rules, wanted = service.comparison, pairs_wanted(step, service.comparison)
    if wanted is None:
        message = f"workloads.{name}: no number of answers proves {rules.agreement_percent:g} % agreement"
        yield finding("warning", AREA, message, "set `comparison.agreement_percent` to 99.9, or less")
    elif wanted > step.pairs:
        message = (
            f"workloads.{name}: a shadow step says `pairs: {step.pairs}`, and {rules.agreement_percent:g} % agreement"
            f" at {rules.confidence_percent:g} % confidence takes {wanted}"
        )
        fix = f"set `pairs: {wanted}`, or a lower `comparison.agreement_percent`: as it stands {wanted} are compared"
        yield finding("warning", AREA, message, fix)
