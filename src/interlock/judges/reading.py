"""Reads what both versions counted, from a Prometheus or from an endpoint of each, since it was read last."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import quote

from interlock.core.errors import InterlockError, Invalid, NotFound, Permanent, Transient
from interlock.core.judgement import ExpositionMeasure
from interlock.core.model import JsonObject
from interlock.core.rollout_judge import SESSION_PLACE, STABLE_PLACE, JudgedArm, RolloutJudge
from interlock.core.web import HttpDestination, Web, WebRequest
from interlock.judges.growth import Both, Growth, Tally, grown, is_sound, tally_of
from interlock.judges.scraped import LOOK_BACK_SCRAPES, Series, increase, increase_by_edge, known_until, read_matrix
from interlock.lib.clock import Clock
from interlock.lib.url import parse_url
from interlock.releases.judge.exposition import parse_selector, read_measure
from interlock.releases.judge.state import number, part
from interlock.web.answers import is_expected, retry_after_seconds

QUERY_PATH = "/api/v1/query"
READ_SECONDS_MAX = 5.0
"""Of all requests that one reading takes; a destination may say less for each."""
AHEAD_SECONDS_MIN = 0.5
"""Less than so much that is new is left for the next time."""
GAP_SECONDS_MAX = 3600.0
"""What was missed for longer is not asked for any more: counting begins anew."""
TOO_MANY = 429


class Names(NamedTuple):
    """What whoever asks calls the candidate, and the stable version."""

    session: str
    stable: str | None


class Place(NamedTuple):
    """Until where was read: the moment in the Prometheus's time and in ours, or the endpoints' last counts."""

    until_seconds: float | None = None
    asked_seconds: float | None = None
    before: Both | None = None

    def state(self) -> JsonObject:
        """What `restored` takes."""
        both: JsonObject = {}
        if self.before is not None:
            both = {"stable": self.before.stable.state(), "candidate": self.before.candidate.state()}
        return {"until": self.until_seconds, "asked": self.asked_seconds, "before": both}

    @classmethod
    def restored(cls, state: JsonObject) -> Place:
        """From a `state`. Raises Invalid."""
        until = None if state.get("until") is None else number(state, "until")
        asked = None if state.get("asked") is None else number(state, "asked")
        both = part(state, "before")
        before = Both(*(Tally.restored(part(both, arm)) for arm in Both._fields)) if both else None
        return cls(until, asked, before)


class Read(NamedTuple):
    """What one reading brought: the growth, where there is any yet, and where the next one goes on."""

    growth: Growth | None
    place: Place


class Reader:
    """Reads for one judge and one session.

    Args:
        declared: Where and what.
        destinations: Those that are declared now.
        web: Sends one request.
        clock: The time.
    """

    def __init__(
        self,
        declared: RolloutJudge,
        destinations: Mapping[str, HttpDestination],
        web: Web,
        clock: Clock,
    ) -> None:
        self._declared = declared
        self._destinations = destinations
        self._web = web
        self._clock = clock
        self._deadline = clock.monotonic() + READ_SECONDS_MAX

    def read(self, names: Names, place: Place) -> Read:
        """Read both versions for the same stretch of time, or neither.

        Raises: NotFound (a destination is not declared), Invalid, Permanent (what is answered is none of what is
            needed), Transient (nothing is answered now), and as `Web.exchange` does.
        """
        self._deadline = self._clock.monotonic() + READ_SECONDS_MAX
        if self._declared.prometheus is not None:
            return self._from_prometheus(self._declared.prometheus, names, place)
        return self._from_endpoints(place)

    def _from_prometheus(self, name: str, names: Names, place: Place) -> Read:
        asked, scrape = self._clock.now().timestamp(), self._declared.scrape_seconds
        since = asked - place.asked_seconds if place.asked_seconds is not None else 0.0
        until = place.until_seconds if 0 <= since <= GAP_SECONDS_MAX else None
        range_seconds = round(max(0.0, since) if until is not None else 0.0) + round(2 * LOOK_BACK_SCRAPES * scrape)
        told = [
            [
                self._samples(name, query, range_seconds)
                for query in queries_of(self._declared, getattr(self._declared, arm), names)
            ]
            for arm in Both._fields
        ]
        known = [known_until((each for found in arm for each in found), scrape) for arm in told]
        missing = [arm for arm, moment in zip(Both._fields, known, strict=True) if moment is None]
        if missing:
            msg = f"the Prometheus knows nothing of the {' and the '.join(missing)} version"
            raise Transient(msg, code="judge.unknown_version", fix="try the selectors in its own console")
        newest = min(moment for moment in known if moment is not None)
        following = Place(until_seconds=newest, asked_seconds=asked)
        if until is None:
            return Read(None, following)
        if newest - until < AHEAD_SECONDS_MIN:
            return Read(None, place)
        return Read(Growth(Both(*(_between(arm, until, newest) for arm in told)), newest - until), following)

    def _samples(self, name: str, query: str, range_seconds: int) -> list[Series]:
        return read_matrix(self._get(name, f"{QUERY_PATH}?query={quote(f'{query}[{range_seconds}s]', safe='')}"))

    def _from_endpoints(self, place: Place) -> Read:
        """Both at once: what one of them counts while the other is read would be counted for it alone."""
        asked = self._clock.now().timestamp()
        arms = (self._declared.stable, self._declared.candidate)
        with ThreadPoolExecutor(max_workers=len(arms)) as readers:
            both = Both(*readers.map(self._tally, arms))
        following = Place(asked_seconds=asked, before=both)
        since = asked - place.asked_seconds if place.asked_seconds is not None else -1.0
        if place.before is None or not 0 <= since <= GAP_SECONDS_MAX:
            return Read(None, following)
        pairs = zip(place.before, both, strict=True)
        return Read(Growth(Both(*(grown(before, after) for before, after in pairs)), since), following)

    def _tally(self, arm: JudgedArm) -> Tally:
        declared = self._declared
        body = self._get(arm.destination or "", arm.path)
        plain = ExpositionMeasure(name="requests", bad=declared.errors, total=declared.requests)
        found = read_measure(body, plain)
        if found is None:
            msg = f"{arm.destination} does not tell {declared.requests}"
            raise Permanent(msg, code="judge.metrics", fix="look at what the endpoint answers")
        buckets = {}
        if declared.latency is not None:
            timed = read_measure(body, ExpositionMeasure(name="duration", histogram=declared.latency))
            buckets = dict(timed.buckets) if timed is not None else {}
        tally = tally_of(found.total, found.bad, buckets)
        if not is_sound(tally):
            msg = f"{arm.destination} tells numbers that are no counts"
            raise Permanent(msg, code="judge.metrics", fix="look at what the endpoint answers")
        return tally

    def _get(self, name: str, target: str) -> bytes:
        """The body of a whole answer. Raises what `read` raises."""
        destination = self._destinations.get(name)
        if destination is None:
            msg = f"there is no destination {name!r}"
            raise NotFound(msg, code="judge.destination", fix="declare it under `http_destinations`")
        url = parse_url(destination.url.rstrip("/") + target)
        why_not = destination.why_not("GET", url)
        if why_not is not None:
            msg = f"the destination {name} is not open to GET {url.path}: {why_not}"
            raise Invalid(msg, code="judge.destination", fix="let its `paths` hold it, under `http_destinations`")
        left = self._deadline - self._clock.monotonic()
        if left <= 0:
            msg = f"{name} is too slow: all that is needed did not come within {READ_SECONDS_MAX:g} s"
            raise Transient(msg, code="judge.slow", fix="name fewer series")
        request = WebRequest(
            method="GET",
            url=str(url),
            credential=destination.credential,
            credential_header=destination.credential_header,
            private=destination.private,
            named=_is_number(destination),
            certificate_authority=destination.certificate_authority,
            timeout_seconds=min(destination.timeout_seconds, left),
            connect_timeout_seconds=min(destination.connect_timeout_seconds, left),
            response_bytes_max=destination.response_bytes_max,
        )
        answer = self._web.exchange(request, hold=lambda: None, cancelled=lambda: False)
        if not is_expected(answer.status, ()):
            wait = retry_after_seconds(answer, self._clock.now())
            raise _refusal(name, answer.status, wait)
        if answer.truncated or answer.unreadable is not None:
            why = answer.unreadable or f"more than {destination.response_bytes_max:,} bytes came"
            msg = f"the answer of {name} cannot be read: {why}"
            raise Permanent(msg, code="judge.metrics", fix="raise `response_bytes_max`, or name fewer series")
        return answer.body


def queries_of(declared: RolloutJudge, arm: JudgedArm, names: Names) -> tuple[str, ...]:
    """The selectors of one version: requests, errors, and the buckets of latencies, if any. Raises Invalid."""
    where = (arm.where or "").replace(SESSION_PLACE, names.session).replace(STABLE_PLACE, names.stable or "")
    buckets = () if declared.latency is None else (_selector(declared.latency, where, suffix="_bucket"),)
    return (_selector(declared.requests, where), _selector(declared.errors, where), *buckets)


def _selector(text: str, where: str, suffix: str = "") -> str:
    """The selector, with what further labels must be. Raises Invalid where either is none, alone or together."""
    parse_selector(text)
    metric, _, inner = text.strip().partition("{")
    labels = [each.strip().strip(",").strip() for each in (inner.rpartition("}")[0], where)]
    parse_selector(f"{metric.strip()}{{{labels[1]}}}")
    found = f"{metric.strip()}{suffix}{{{','.join(each for each in labels if each)}}}"
    parse_selector(found)
    return found


def _between(told: list[list[Series]], start: float, end: float) -> Tally:
    requests, errors, *timed = told
    buckets = increase_by_edge(timed[0], start, end) if timed else {}
    return tally_of(increase(requests, start, end), increase(errors, start, end), buckets)


def _refusal(name: str, status: int, wait_seconds: float) -> InterlockError:
    msg = f"{name} answered {status}"
    if status == TOO_MANY or status >= 500:  # noqa: PLR2004 - RFC 9110, 15.6
        return Transient(msg, code="judge.unavailable", fix="ask later", retry_after_seconds=wait_seconds)
    return Permanent(msg, code="judge.refused", fix="look at the destination's path and credential")


def _is_number(destination: HttpDestination) -> bool:
    try:
        ipaddress.ip_address(destination.origin[1])
    except ValueError:
        return False
    return True
