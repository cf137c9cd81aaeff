"""Looks for judges that could not read what they need, for `interlock check`; pure."""

from __future__ import annotations

from collections.abc import Iterable

from interlock.core.errors import InterlockError
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.rollout_judge import RolloutJudge
from interlock.engine.inspection import finding
from interlock.judges.reading import QUERY_PATH, Names, queries_of
from interlock.lib.url import parse_url

EXAMPLE = Names("new", "old")


def inspect_judges(project: Project) -> Iterable[JsonObject]:
    """Destinations that are not declared or not open to it, and selectors that are none."""
    for name, declared in sorted(project.judges.items()):
        for arm, destination, path in _read(declared):
            known = project.http_destinations.get(destination)
            if known is None:
                message = f"judges.{name}: there is no destination {destination!r}"
                yield finding("error", "judges", message, "declare it under `http_destinations`")
                continue
            why_not = known.why_not("GET", parse_url(known.url.rstrip("/") + path))
            if why_not is not None:
                message = f"judges.{name}: {arm} cannot be read at {destination}: {why_not}"
                yield finding("error", "judges", message, f"let its `paths` hold {path}")
        for each in (declared.stable, declared.candidate):
            try:
                queries_of(declared, each, EXAMPLE)
            except InterlockError as error:
                yield finding("error", "judges", f"judges.{name}: {error.message}", error.fix)
                break


def _read(declared: RolloutJudge) -> Iterable[tuple[str, str, str]]:
    """What is read, at which destination, at which path."""
    if declared.prometheus is not None:
        yield "the Prometheus", declared.prometheus, QUERY_PATH
        return
    for arm, each in (("stable", declared.stable), ("candidate", declared.candidate)):
        yield arm, each.destination or "", each.path
