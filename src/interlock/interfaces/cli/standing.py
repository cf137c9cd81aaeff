"""Reads how all workloads stand: which version of each is in force, what is on its way, and what happened last."""

from __future__ import annotations

from dataclasses import dataclass, field

from interlock.core.errors import Denied
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.record import Record

RELEASES_MAX = 200
NEEDS_SOMEBODY = frozenset({"paused", "frozen"})


@dataclass(frozen=True)
class Standing:
    """One workload. `in_force` is empty before its first version; with several it says the share of each.

    `active` is the release that is on its way and `last` the newest of all, each as the view `releases` has it, and
    empty where there is none. Of a batch job `on_its_way` says version and share; a service says it by `active`.
    """

    workload: str
    kind: str
    in_force: str
    active: Record = field(default_factory=lambda: Record({}))
    last: Record = field(default_factory=lambda: Record({}))
    on_its_way: str = ""

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "workload": self.workload,
            "kind": self.kind,
            "in_force": self.in_force or None,
            "on_its_way": self.active.text("candidate") or self.on_its_way or None,
            "release": self.active.data.get("number"),
            "last_release": self.last.data.get("number"),
            "last_state": self.last.data.get("state"),
        }


@dataclass(frozen=True)
class Standings:
    """All workloads by name, and the newest releases."""

    workloads: tuple[Standing, ...]
    releases: tuple[Record, ...]

    @property
    def active(self) -> list[Record]:
        """Releases on their way, those that need somebody among them."""
        return [each for each in self.releases if not each.flag("over")]

    def of_run(self, run: Record) -> Record:
        """The release that a Run began; empty where it began none that is known here."""
        if run.text("action") != "release.start":
            return Record({})
        number = run.number("number")
        return next((each for each in self.releases if each.number("run") == number), Record({}))


def read_standings(caller: Caller) -> Standings:
    """Of services from what is in force at the proxies, of batch jobs from their own routing."""
    releases = caller.view("releases", limit=RELEASES_MAX).records("releases")
    found = [_service(each, releases) for each in caller.view("traffic").records("traffic")]
    found += [_batch(each) for each in caller.view("batches").records("batches")]
    return Standings(tuple(sorted(found, key=lambda each: each.workload)), tuple(releases))


def standings_where_allowed(caller: Caller) -> Standings:
    """For the front page, which is for everybody: nothing where policy keeps this caller from looking."""
    try:
        return read_standings(caller)
    except Denied:
        return Standings((), ())


def _service(traffic: Record, releases: list[Record]) -> Standing:
    name = traffic.text("workload")
    arms = [(arm.text("version"), arm.text("share_percent")) for arm in traffic.records("arms")]
    shares = [(version, percent.removesuffix(".0")) for version, percent in arms if float(percent or 0)]
    in_force = shares[0][0] if len(shares) == 1 else ", ".join(f"{version} {share} %" for version, share in shares)
    own = [each for each in releases if each.text("workload") == name]
    active = next((each for each in own if not each.flag("over")), Record({}))
    return Standing(name, "service", in_force, active, own[0] if own else Record({}))


def _batch(batch: Record) -> Standing:
    routing = batch.record("routing")
    candidate = routing.text("candidate")
    share = f"{candidate} {routing.text('percent').removesuffix('.0')} %" if candidate else ""
    return Standing(batch.text("workload"), "batch", routing.text("stable"), on_its_way=share)
