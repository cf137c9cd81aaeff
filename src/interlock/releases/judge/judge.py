"""The judge of one release: takes what the proxy and the metrics say tick by tick, and says go, no-go, or not yet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from interlock.core.errors import Invalid
from interlock.core.judgement import Judgement, JudgeSettings, MeasureJudgement, ThresholdMeasure, Verdict
from interlock.core.model import JsonObject
from interlock.core.traffic import Sample
from interlock.lib.canonical import digest_of
from interlock.releases.judge.alone import SILENCE_SECONDS, Alone
from interlock.releases.judge.board import Board, Counts, Evidence
from interlock.releases.judge.counting import Counter, TickCounts
from interlock.releases.judge.crowd import Crowd
from interlock.releases.judge.latency import Edges, Exceedances, LatencyWatch
from interlock.releases.judge.measures import Declared, declared_measures, quantile_name, rules
from interlock.releases.judge.ratio_interval import RatioInterval
from interlock.releases.judge.readings import Brought, HistogramPair, Readings
from interlock.releases.judge.sentences import Figures, duration, measure_sentence, summary
from interlock.releases.judge.state import from_json, invalid_state, number, part, texts, whole
from interlock.releases.judge.thresholds import ThresholdReading, ThresholdWatch

ELAPSED_SECONDS_MAX = 600.0
"""A longer time between two ticks is a clock that jumped or a machine that slept; it counts as so much."""
RATE_HALF_LIFE_SECONDS = 60.0
"""Over which time the traffic is averaged that says how long GO still takes."""
RHO_TOLD = 0.1
"""From which correlation of two answers to the same user on it is said."""
CROWD_MIN = 0.5
"""When fewer of the users who come are still counted, it is said."""


class Judge:
    """Says of a candidate what can be said, after every tick, from counts alone.

    Pure: it reads no clock and nothing else. One tick takes well under a millisecond, and memory is bounded.

    Args:
        settings: What counts as worse.
        stable: The arm whose users are compared with.
        candidate: The arm that is judged.
        state: Of an earlier judge of the same release, to go on where it was. When it is of other settings or versions
            the judge begins anew and says so: a release must not stand still because somebody edited its settings.
    """

    def __init__(self, settings: JudgeSettings, stable: str, candidate: str, state: JsonObject | None = None) -> None:
        self._settings = settings
        self._stable = stable
        self._candidate = candidate
        self._forgot = False
        self._begin()
        if state is not None:
            try:
                self._restore(state)
            except Invalid:
                self._begin()
                self._forgot = True

    def _begin(self) -> None:
        """Know nothing yet."""
        settings, stable, candidate = self._settings, self._stable, self._candidate
        self._counter = Counter(stable, candidate, requests_together_max=settings.requests_together_max)
        self._edges = Edges.logarithmic(
            settings.latency_increase_max, harmless_seconds=settings.latency_increase_harmless_seconds
        )
        self._latency = LatencyWatch(self._edges, settings.latency_quantiles)
        self._declared: tuple[Declared, ...] = declared_measures(settings)
        self._thresholds = {
            measure.name: ThresholdWatch(measure)
            for measure in settings.measures
            if isinstance(measure, ThresholdMeasure)
        }
        self._board = Board(rules(settings), false_alarm=settings.false_alarm, false_go=settings.false_go)
        self._interval = RatioInterval(settings.false_alarm)
        self._alone = Alone(
            ratio=settings.error_ratio_alone, harmless=settings.error_share_harmless, alpha=settings.false_alarm
        )
        self._crowd = Crowd(len(settings.latency_quantiles))
        self._came = np.zeros(2)
        """Users who came in the last minutes, and those of them who were still counted."""
        self._last_at: float | None = None
        self._silent = {stable: 0.0, candidate: 0.0}
        self._rate_counts = np.zeros((2, len(self._board.rules)))
        self._rate_seconds = 0.0
        self._condemned: list[str] = []
        self._jumps = 0

    def tick(
        self,
        at_seconds: float,
        samples: Iterable[Sample],
        readings: Mapping[str, Readings | ThresholdReading] | None = None,
        *,
        problems: Iterable[str] = (),
    ) -> Judgement:
        """Take what happened since the last tick, and say what is known now.

        Args:
            at_seconds: The time of the tick, since 1970.
            samples: What the proxy saw, of any arm; only the two that are compared are looked at.
            readings: By the name of the declared measure: what was read of it this time, if it was.
            problems: What could not be read, in words; told among the notes.
        """
        elapsed = self._elapsed(at_seconds)
        counts = self._counter.count(samples)
        brought = self._take(counts, readings or {}, elapsed)
        self._board.tick(brought, elapsed)
        self._interval.tick(
            stable_bad=counts.stable.errors,
            stable_seen=counts.stable.seen,
            candidate_bad=counts.candidate.errors,
            candidate_seen=counts.candidate.seen,
        )
        self._remember_rates(counts, brought, elapsed)
        self._alone.tick(
            stable_bad=float(self._board.totals.stable_bad[0]),
            stable_seen=float(self._board.totals.stable_seen[0]),
            silent_seconds=self._silent[self._stable],
            candidate_bad=counts.candidate.errors,
            candidate_seen=counts.candidate.seen,
        )
        return self._judgement(at_seconds, tuple(problems))

    def state(self) -> JsonObject:
        """All that it knows, as JSON: a judge that is made from it goes on as if nothing had happened."""
        return {
            "of": self._of(),
            "last_at": self._last_at,
            "silent": {**self._silent},
            "rate_counts": [*self._rate_counts.ravel().tolist()],
            "rate_seconds": self._rate_seconds,
            "condemned": [*self._condemned],
            "jumps": self._jumps,
            "forgot": self._forgot,
            "counter": self._counter.state(),
            "latency": self._latency.state(),
            "board": self._board.state(),
            "interval": self._interval.state(),
            "alone": self._alone.state(),
            "crowd": self._crowd.state(),
            "came": [*self._came.tolist()],
            "declared": {each.name: each.source.state() for each in self._declared},
            "thresholds": {name: watch.state() for name, watch in self._thresholds.items()},
        }

    def _of(self) -> str:
        """What the state belongs to."""
        return digest_of(
            {"settings": self._settings.model_dump(mode="json"), "stable": self._stable, "candidate": self._candidate}
        )

    def _restore(self, state: JsonObject) -> None:
        of = "of"
        if state.get(of) != self._of():
            raise invalid_state(of)
        self._last_at = None if state.get("last_at") is None else number(state, "last_at")
        silent = part(state, "silent")
        self._silent = {arm: number(silent, arm) for arm in self._silent}
        self._rate_counts = from_json(state, "rate_counts", self._rate_counts.shape)
        self._rate_seconds = number(state, "rate_seconds")
        self._condemned = texts(state, "condemned")
        self._jumps = whole(state, "jumps")
        self._forgot = state.get("forgot") is True
        self._counter.restore(part(state, "counter"))
        self._latency.restore(part(state, "latency"))
        self._board.restore(part(state, "board"))
        self._interval.restore(part(state, "interval"))
        self._alone.restore(part(state, "alone"))
        self._crowd.restore(part(state, "crowd"))
        self._came = from_json(state, "came", (2,))
        declared, thresholds = part(state, "declared"), part(state, "thresholds")
        for each in self._declared:
            each.source.restore(part(declared, each.name))
        for name, watch in self._thresholds.items():
            watch.restore(part(thresholds, name))

    def _elapsed(self, at_seconds: float) -> float:
        """Seconds since the last tick, never negative and never very many: clocks are set, machines sleep."""
        before, self._last_at = self._last_at, at_seconds
        if before is None:
            return self._settings.tick_seconds
        elapsed = at_seconds - before
        if not 0 <= elapsed <= ELAPSED_SECONDS_MAX:
            self._jumps += 1
            return 0.0 if elapsed < 0 else ELAPSED_SECONDS_MAX
        return elapsed

    def _take(self, counts: TickCounts, readings: Mapping[str, Readings | ThresholdReading], elapsed: float) -> Counts:
        """The counts of all measures, in the order of the board's rules."""
        stable, candidate = counts
        rows = [Brought(stable.errors, stable.seen, candidate.errors, candidate.errors, candidate.seen)]
        if self._settings.refusals != "ignore":
            refused = candidate.refusals
            rows.append(Brought(stable.refusals, stable.asked, refused, refused, candidate.asked))
        rows += _per_quantile(self._exceeded(counts, elapsed))
        together = self._settings.requests_together_max
        for name, source in self._declared:
            reading = readings.get(name)
            found = source.take(reading if isinstance(reading, Readings) else Readings(), elapsed)
            rows.append(Brought(*(value / together for value in found)))
        for name, watch in self._thresholds.items():
            told = readings.get(name)
            watch.take(told if isinstance(told, ThresholdReading) else None, elapsed)
        table = np.array(rows, dtype=np.float64)
        return Counts(*(table[:, Brought._fields.index(name)] for name in Counts._fields))

    def _exceeded(self, counts: TickCounts, elapsed: float) -> Exceedances:
        """Latencies beyond the thresholds, another answer to the same user counting as much as it tells."""
        weights = [self._crowd.take(arm.keys, arm.weights) for arm in counts]
        stable, answers = self._edges.count(counts.stable.latencies, weights[0], counts.stable.weights)
        (candidate,) = self._edges.count(counts.candidate.latencies, weights[1])
        thresholds = self._latency.thresholds()
        exceeded = self._latency.tick(stable, candidate, elapsed, answers=answers)
        self._crowd.learn(counts.stable.keys, counts.stable.latencies, thresholds)
        return exceeded

    def _remember_rates(self, counts: TickCounts, brought: Counts, elapsed: float) -> None:
        kept = 0.5 ** (elapsed / RATE_HALF_LIFE_SECONDS)
        self._rate_counts = self._rate_counts * kept + np.stack([brought.stable_seen, brought.candidate_seen])
        self._rate_seconds = self._rate_seconds * kept + elapsed
        arms = (counts.stable, counts.candidate)
        self._came = self._came * kept + np.array([sum(each.came for each in arms), sum(each.seen for each in arms)])
        for arm, seen in ((self._stable, counts.stable), (self._candidate, counts.candidate)):
            self._silent[arm] = 0.0 if seen.came else min(self._silent[arm] + elapsed, 1e9)

    def _expected(self) -> Counts:
        """What one second brings if the versions are equal and traffic stays as it was in the last minutes."""
        stable_seen, candidate_seen = self._rate_counts / max(self._rate_seconds, self._settings.tick_seconds)
        totals = self._board.totals
        share = (totals.stable_bad + 0.5) / (totals.stable_seen + 1.0)  # never quite nothing: tomorrow may bring one
        share_margin = share.copy()
        latencies = len(self._settings.latency_quantiles)
        first = len(share) - latencies - len(self._declared)
        share[first : first + latencies], share_margin[first : first + latencies] = self._latency.expected_shares()
        for index, (_, source) in enumerate(self._declared, start=first + latencies):
            if isinstance(source, HistogramPair):
                share[index], share_margin[index] = source.expected_shares()
        return Counts(
            stable_bad=stable_seen * share,
            stable_seen=stable_seen,
            candidate_bad=candidate_seen * share,
            candidate_bad_margin=candidate_seen * share_margin,
            candidate_seen=candidate_seen,
        )

    def _judgement(self, at_seconds: float, problems: tuple[str, ...]) -> Judgement:
        measures = [*self._measures(self._board.evidence()), *self._measure_alone()]
        breaches = tuple(f"{name}: {watch.breach}" for name, watch in self._thresholds.items() if watch.breach)
        missing = [each.seconds_to_go for each in measures if each.required_for_go]
        told = [seconds for seconds in missing if seconds is not None]
        seconds_to_go = max(told, default=0.0) if len(told) == len(missing) else None
        verdict: Verdict = "not_yet"
        if breaches or self._condemned:
            verdict = "no_go"
        elif self._certified(measures):
            verdict = "go"
        silent = min(self._silent.values())
        return Judgement(
            at_seconds=at_seconds,
            verdict=verdict,
            summary=summary(
                verdict,
                measures,
                candidate=self._candidate,
                seconds_to_go=seconds_to_go,
                reasons=[*breaches, *self._condemned],
                silent_seconds=silent,
            ),
            measures=tuple(measures),
            seconds_to_go=seconds_to_go,
            silent_seconds=silent,
            breaches=breaches,
            notes=(*self._notes(), *problems),
        )

    def _certified(self, measures: list[MeasureJudgement]) -> bool:
        required = [each.verdict == "go" for each in measures if each.required_for_go]
        return all(required) and all(watch.clear for watch in self._thresholds.values())

    def _measures(self, evidence: Evidence) -> list[MeasureJudgement]:
        """One for each rule; what is worse than allowed is remembered with the words for it."""
        board = self._board
        columns = (
            board.sent_back(evidence),
            board.certified(evidence),
            *np.exp(evidence),
            board.needed_against,
            board.needed_for,
            board.seconds_needed(evidence, self._expected()),
            *board.totals,
        )
        thresholds = self._threshold_seconds()
        low, high = self._interval.bounds()
        found: list[MeasureJudgement] = []
        for rule, row in zip(board.rules, zip(*(column.tolist() for column in columns), strict=True), strict=True):
            blocked, certified, against, worse, good, needed_against, needed_for, seconds, *totals = row
            stable_bad, stable_seen, plain, margin, candidate_seen = totals
            candidate_bad = margin if rule.name in thresholds else plain
            figures = Figures(
                name=rule.name,
                verdict="no_go" if blocked else "go" if certified else "not_yet",
                grade=rule.grade,
                warning=not blocked and max(against, worse) >= needed_against,
                stable_bad=stable_bad,
                stable_seen=stable_seen,
                candidate_bad=candidate_bad,
                candidate_seen=candidate_seen,
                ratio=_ratio(candidate_bad, candidate_seen, stable_bad, stable_seen),
                ratio_low=None if found else low,
                ratio_high=None if found else high,
                threshold_seconds=thresholds.get(rule.name),
                evidence_against=against,
                needed_against=needed_against,
                evidence_for=good,
                needed_for=needed_for,
                required_for_go=rule.required,
                seconds_to_go=seconds if math.isfinite(seconds) else None,
            )
            sentence = measure_sentence(figures, self._stable, self._candidate, self._settings)
            found.append(MeasureJudgement(**figures._asdict(), sentence=sentence))
            if blocked and not self._condemned:
                self._condemned.append(sentence)
        return found

    def _measure_alone(self) -> list[MeasureJudgement]:
        """The candidate's errors since the stable version is silent, if it is."""
        alone, limit = self._alone, self._alone.limit
        if limit is None:
            return []
        blocked = alone.log_evidence >= alone.log_needed
        share = alone.bad / alone.seen
        sentence = (
            f"errors of {self._candidate} alone: {alone.bad:,.0f} of {alone.seen:,.0f} ({share * 100:.2f} %), where "
            f"{self._stable}'s past allows {limit * 100:.2f} %"
        )
        if blocked and not self._condemned:
            self._condemned.append(sentence)
        return [
            MeasureJudgement(
                name="errors alone",
                verdict="no_go" if blocked else "not_yet",
                grade="block",
                warning=False,
                stable_bad=0.0,
                stable_seen=0.0,
                candidate_bad=alone.bad,
                candidate_seen=alone.seen,
                ratio=None,
                evidence_against=math.exp(alone.log_evidence),
                needed_against=math.exp(alone.log_needed),
                evidence_for=1.0,
                needed_for=1 / self._settings.false_go,
                required_for_go=False,
                seconds_to_go=None,
                sentence=sentence,
            )
        ]

    def _threshold_seconds(self) -> dict[str, float | None]:
        """Of each measure that is a time."""
        told = self._latency.thresholds().tolist()
        found: dict[str, float | None] = {
            quantile_name(quantile): None if math.isnan(seconds) else seconds
            for quantile, seconds in zip(self._settings.latency_quantiles, told, strict=True)
        }
        for name, source in self._declared:
            if isinstance(source, HistogramPair):
                found[name] = source.threshold_seconds
        return found

    def _notes(self) -> tuple[str, ...]:
        found = []
        counter = self._counter
        if counter.anonymous:
            together = self._settings.requests_together_max
            found.append(f"{counter.anonymous:,} requests had no known user; each counts as 1/{together} of one")
        if counter.halvings:
            found.append(f"one user of {2**counter.halvings} is counted: more are not remembered")
        rho = self._crowd.rho
        if self._crowd.learnt and rho > RHO_TOLD:
            found.append(f"users differ in speed (correlation {rho:.2f}): another answer to the same user tells little")
        came, counted = self._came.tolist()
        if counted < CROWD_MIN * came:
            found.append(f"only {counted / came:.0%} of the users who come met no error before and are still counted")
        found += [
            f"{arm} had no request for {duration(seconds)}"
            for arm, seconds in self._silent.items()
            if seconds >= SILENCE_SECONDS
        ]
        if self._forgot:
            found.append("began anew: what was seen before was of other settings or versions")
        if self._jumps:
            found.append(f"the clock jumped, or the judge did not run, {self._jumps} times")
        for name, watch in self._thresholds.items():
            if watch.missing:
                found.append(f"{name}: nobody told {', '.join(watch.missing)}")
            elif not watch.clear and watch.breach is None:
                found.append(f"{name}: not yet inside its thresholds, or not yet told")
        return tuple(found)


def _per_quantile(exceeded: Exceedances) -> list[Brought]:
    columns = (
        exceeded.stable,
        exceeded.stable_seen,
        exceeded.candidate,
        exceeded.candidate_margin,
        exceeded.candidate_seen,
    )
    return [Brought(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def _ratio(bad: float, seen: float, stable_bad: float, stable_seen: float) -> float | None:
    """How many times the stable version's share; None where no number says it."""
    if not (seen and stable_seen):
        return None
    share, stable_share = bad / seen, stable_bad / stable_seen
    ratio = share / stable_share if stable_share > 0 else math.inf
    return ratio if math.isfinite(ratio) else None
