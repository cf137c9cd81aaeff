"""The judge where only counters and histograms are known: go, no-go or not yet from what both versions counted; pure.

It makes the bets of `releases.judge.board`, which hold for whoever drives the rollout and however traffic is shared.
Users are not known here, so requests are counted, and `requests_together_max` of them are thought to fail together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from interlock.core.errors import Invalid
from interlock.core.judgement import Judgement, MeasureJudgement, Verdict
from interlock.core.model import JsonObject
from interlock.core.rollout_judge import RolloutJudge
from interlock.judges.growth import Growth, inside
from interlock.lib.canonical import digest_of
from interlock.releases.judge.board import Board, Counts, Evidence, Rule
from interlock.releases.judge.latency import Edges, LatencyWatch
from interlock.releases.judge.measures import ERRORS_WEIGHT, quantile_name
from interlock.releases.judge.readings import Brought
from interlock.releases.judge.sentences import Figures, duration, measure_sentence, summary
from interlock.releases.judge.state import Floats, from_json, invalid_state, number, part, texts, to_json

STABLE, CANDIDATE = "stable", "candidate"
RATE_HALF_LIFE_SECONDS = 60.0
"""Over which time the traffic is averaged that says how long GO still takes."""
SILENCE_SECONDS = 30.0
"""From here on it is said that nobody comes."""
ELAPSED_SECONDS_MAX = 3600.0
LOG_MAX = 690.0
"""Evidence beyond 10^299 is told as that: JSON knows no infinity."""
FRESH_SECONDS_MIN = 60.0
"""GO counts no longer than so without new counts, or four times as long as they usually take to come."""


def fresh_seconds(declared: RolloutJudge) -> float:
    """How old the newest counts may be for GO to count."""
    scrape = declared.scrape_seconds if declared.prometheus is not None else 0.0
    return max(FRESH_SECONDS_MIN, 4 * (declared.every_seconds + scrape))


def rules_of(declared: RolloutJudge) -> tuple[Rule, ...]:
    """Errors, then the latencies where there is a histogram; the weights sum up to 1."""
    settings = declared.settings
    quantiles = settings.latency_quantiles if declared.latency is not None else ()
    errors = Rule(
        "errors",
        weight=ERRORS_WEIGHT if quantiles else 1.0,
        ratio_allowed=settings.error_ratio_allowed,
        ratio_max=settings.error_ratio_max,
        harmless=settings.error_share_harmless,
    )
    share = (1 - ERRORS_WEIGHT) / max(1, len(quantiles))
    return errors, *(
        Rule(quantile_name(each), weight=share, required=each in settings.certified_quantiles) for each in quantiles
    )


class CountsJudge:
    """Says of a candidate what can be said, after every tick; reads no clock and nothing else.

    Args:
        declared: What counts as worse, and whether latencies are known.
        state: Of an earlier judge of the same session, to go on where it was; one of other settings begins anew, and
            says so.
    """

    def __init__(self, declared: RolloutJudge, state: JsonObject | None = None) -> None:
        self._declared = declared
        self._settings = declared.settings
        self._forgot = False
        self._begin()
        if state is not None:
            try:
                self._restore(state)
            except Invalid:
                self._begin()
                self._forgot = True

    def _begin(self) -> None:
        settings = self._settings
        self._board = Board(rules_of(self._declared), false_alarm=settings.false_alarm, false_go=settings.false_go)
        self._edges: tuple[float, ...] = ()
        self._watch: LatencyWatch | None = None
        self._last_at: float | None = None
        self._heard_at: float | None = None
        self._silent = [0.0, 0.0]
        self._rate_counts = np.zeros((2, len(self._board.rules)))
        self._rate_seconds = 0.0
        self._condemned: list[str] = []
        self._odd_buckets = False

    def tick(self, at_seconds: float, growth: Growth | None) -> Judgement:
        """Take what both versions counted since the last time; None where that is not known now."""
        before, self._last_at = self._last_at, at_seconds
        passed = 0.0 if before is None else min(max(0.0, at_seconds - before), ELAPSED_SECONDS_MAX)
        if growth is None:
            self._silent = [min(seconds + passed, 1e9) for seconds in self._silent]
        else:
            self._heard_at = at_seconds
            for arm, tally in enumerate(growth.both):
                self._silent[arm] = 0.0 if tally.requests else min(self._silent[arm] + growth.seconds, 1e9)
            counts = self._counts(growth)
            self._board.tick(counts, growth.seconds)
            kept = 0.5 ** (growth.seconds / RATE_HALF_LIFE_SECONDS)
            self._rate_counts = self._rate_counts * kept + np.stack([counts.stable_seen, counts.candidate_seen])
            self._rate_seconds = self._rate_seconds * kept + growth.seconds
        return self._judgement(at_seconds)

    def state(self) -> JsonObject:
        """All that it knows."""
        return {
            "of": self._of(),
            "last_at": self._last_at,
            "heard_at": self._heard_at,
            "silent": [*self._silent],
            "rate_counts": to_json(self._rate_counts),
            "rate_seconds": self._rate_seconds,
            "condemned": [*self._condemned],
            "forgot": self._forgot,
            "board": self._board.state(),
            "edges": [*self._edges],
            "watch": {} if self._watch is None else self._watch.state(),
        }

    def _of(self) -> str:
        """What the state belongs to: how often is read does not change what was seen."""
        read = {"every_seconds", "scrape_seconds", "idle_seconds", "lifetime_seconds"}
        return digest_of(self._declared.model_dump(mode="json", exclude=read))

    def _restore(self, state: JsonObject) -> None:
        of = "of"
        if state.get(of) != self._of():
            raise invalid_state(of)
        self._last_at = None if state.get("last_at") is None else number(state, "last_at")
        self._heard_at = None if state.get("heard_at") is None else number(state, "heard_at")
        self._silent = from_json(state, "silent", (2,)).tolist()
        self._rate_counts = from_json(state, "rate_counts", self._rate_counts.shape)
        self._rate_seconds = number(state, "rate_seconds")
        self._condemned = texts(state, "condemned")
        self._forgot = state.get("forgot") is True
        self._board.restore(part(state, "board"))
        found = state.get("edges")
        edges = from_json(state, "edges", (len(found) if isinstance(found, list) else 0,))
        if edges.size:
            self._open(tuple(edges.tolist())).restore(part(state, "watch"))

    def _open(self, edges: tuple[float, ...]) -> LatencyWatch:
        self._edges = edges
        settings = self._settings
        margin = Edges(np.array(edges), settings.latency_increase_max, settings.latency_increase_harmless_seconds)
        self._watch = LatencyWatch(margin, self._settings.latency_quantiles)
        return self._watch

    def _counts(self, growth: Growth) -> Counts:
        stable, candidate = growth.both
        rows = [Brought(stable.errors, stable.requests, candidate.errors, candidate.errors, candidate.requests)]
        rows += self._exceeded(growth)
        table = np.array(rows, dtype=np.float64) / self._settings.requests_together_max
        return Counts(*(table[:, Brought._fields.index(name)] for name in Counts._fields))

    def _exceeded(self, growth: Growth) -> list[Brought]:
        """How many took longer than the stable version's quantiles, for each of them."""
        if self._declared.latency is None:
            return []
        edges, stable = inside(growth.both.stable.buckets)
        other, candidate = inside(growth.both.candidate.buckets)
        self._odd_buckets = edges != other and bool(edges) and bool(other)
        if not edges or edges != other:
            return [Brought()] * len(self._settings.latency_quantiles)
        watch = self._watch if self._watch is not None and edges == self._edges else self._open(edges)
        found = watch.tick(np.array(stable), np.array(candidate), growth.seconds)
        columns: list[Floats] = [
            *(found.stable, found.stable_seen, found.candidate, found.candidate_margin, found.candidate_seen)
        ]
        return [Brought(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]

    def _expected(self) -> Counts:
        """What one second brings if the versions are equal and traffic stays as it was in the last minutes."""
        stable_seen, candidate_seen = self._rate_counts / max(self._rate_seconds, 1.0)
        totals = self._board.totals
        share = (totals.stable_bad + 0.5) / (totals.stable_seen + 1.0)  # never quite nothing: tomorrow may bring one
        share_margin = share.copy()
        if self._watch is not None:
            share[1:], share_margin[1:] = self._watch.expected_shares()
        return Counts(
            stable_bad=stable_seen * share,
            stable_seen=stable_seen,
            candidate_bad=candidate_seen * share,
            candidate_bad_margin=candidate_seen * share_margin,
            candidate_seen=candidate_seen,
        )

    def _judgement(self, at_seconds: float) -> Judgement:
        measures = self._measures()
        required = [each for each in measures if each.required_for_go]
        told = [each.seconds_to_go for each in required if each.seconds_to_go is not None]
        seconds_to_go = max(told, default=0.0) if len(told) == len(required) else None
        heard = self._heard_at is not None and 0 <= at_seconds - self._heard_at <= fresh_seconds(self._declared)
        verdict: Verdict = "not_yet"
        if self._condemned:
            verdict = "no_go"
        elif heard and all(each.verdict == "go" for each in required):
            verdict = "go"
        silent = max(self._silent)
        words = _not_yet(measures, seconds_to_go, self._silent, heard=heard)
        if verdict != "not_yet":
            reasons = self._condemned
            words = summary(
                verdict, measures, candidate=CANDIDATE, seconds_to_go=None, reasons=reasons, silent_seconds=silent
            )
        return Judgement(
            at_seconds=at_seconds,
            verdict=verdict,
            summary=words,
            measures=tuple(measures),
            seconds_to_go=seconds_to_go,
            silent_seconds=silent,
            notes=self._notes(),
        )

    def _measures(self) -> list[MeasureJudgement]:
        """One for each rule; what is worse than allowed is remembered with the words for it."""
        board = self._board
        evidence = board.evidence()
        needed = board.seconds_needed(evidence, self._expected()).tolist()
        blocked, certified = board.sent_back(evidence).tolist(), board.certified(evidence).tolist()
        found = []
        for index, rule in enumerate(board.rules):
            figures = self._figures(index, evidence, needed[index], blocked=blocked[index], certified=certified[index])
            sentence = measure_sentence(figures, STABLE, CANDIDATE, self._settings)
            found.append(MeasureJudgement(**figures._asdict(), sentence=sentence))
            if rule.grade == "block" and blocked[index] and not self._condemned:
                self._condemned.append(sentence)
        return found

    def _figures(self, index: int, evidence: Evidence, seconds: float, *, blocked: bool, certified: bool) -> Figures:
        board, rule = self._board, self._board.rules[index]
        against, worse, good = (math.exp(min(float(values[index]), LOG_MAX)) for values in evidence)
        needed_against = float(np.exp(board.log_needed_against[index]))
        stable_bad, stable_seen, plain, margin, candidate_seen = (float(values[index]) for values in board.totals)
        candidate_bad = margin if index else plain
        threshold = math.nan if not index or self._watch is None else float(self._watch.thresholds()[index - 1])
        known = bool(candidate_seen and stable_seen and stable_bad)
        return Figures(
            name=rule.name,
            verdict="no_go" if blocked else "go" if certified else "not_yet",
            grade=rule.grade,
            warning=not blocked and max(against, worse) >= needed_against,
            stable_bad=stable_bad,
            stable_seen=stable_seen,
            candidate_bad=candidate_bad,
            candidate_seen=candidate_seen,
            ratio=(candidate_bad / candidate_seen) / (stable_bad / stable_seen) if known else None,
            ratio_low=None,
            ratio_high=None,
            threshold_seconds=None if math.isnan(threshold) else threshold,
            evidence_against=against,
            needed_against=needed_against,
            evidence_for=good,
            needed_for=float(np.exp(board.log_needed_for[index])),
            required_for_go=rule.required,
            seconds_to_go=seconds if math.isfinite(seconds) else None,
        )

    def _notes(self) -> tuple[str, ...]:
        together = self._settings.requests_together_max
        found = [f"users are not known: each request counts as 1/{together} of one"] if together > 1 else []
        found += [
            f"the {arm} version had no request for {duration(seconds)}"
            for arm, seconds in zip((STABLE, CANDIDATE), self._silent, strict=True)
            if seconds >= SILENCE_SECONDS
        ]
        if self._odd_buckets:
            found.append("the buckets of both versions differ: their latencies cannot be compared")
        if self._forgot:
            found.append("began anew: what was seen before was of other settings")
        return tuple(found)


def _not_yet(
    measures: Sequence[MeasureJudgement], seconds_to_go: float | None, silent: Sequence[float], *, heard: bool
) -> str:
    if not heard:
        return "not yet: neither version's counts are known now, and silence decides nothing"
    nobody = [arm for arm in (STABLE, CANDIDATE) if not _seen(measures[0], arm)]
    if nobody:
        longest = duration(max(silent))
        return f"not yet: the {' and the '.join(nobody)} version had no request for {longest}; silence decides nothing"
    warned = [each.name for each in measures if each.warning]
    said = f"; worse in {', '.join(warned)}, though not by more than is allowed" if warned else ""
    if seconds_to_go is None:
        waiting = [each.name for each in measures if each.required_for_go and each.seconds_to_go is None]
        return f"not yet{said}; at this traffic it cannot be told when GO is certain ({', '.join(waiting)})"
    return f"not yet{said}; at this traffic an equal version needs about {duration(seconds_to_go)} more for GO"


def _seen(errors: MeasureJudgement, arm: str) -> bool:
    return (errors.stable_seen if arm == STABLE else errors.candidate_seen) > 0
