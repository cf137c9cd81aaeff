"""Counts what differed, field by field, and says which fields the candidate is to blame for and how far it agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from interlock.comparison.answers import Comparison, Found
from interlock.comparison.evidence import (
    Counts,
    agreement_lower_bound,
    log_budget_evidence,
    log_paired_evidence,
    log_repeated_evidence,
    log_threshold,
)
from interlock.comparison.rules import ReadyRules
from interlock.core.comparison import Difference, Grade, Kind
from interlock.core.model import Frozen

FIELDS_MAX = 500
"""So many fields are counted one by one; all others together."""
OTHER_FIELDS = "**"
FALSE_ALARM = 0.01
"""Probability of ever blaming a candidate that differs no more often than the stable version from itself."""
EXAMPLES_MAX = 20
"""So many differences of one field are kept whole."""
ASKED_AGAIN_MAX = 3
"""So many differing requests of one field are asked again."""
ALL_ASKED_AGAIN_MAX = 200
"""And so many of all fields together."""
NOISE_SHARE_MAX = 0.1
"""Where the stable version differs from itself more often than so, nothing can be shown about agreement."""


class FieldCount(Frozen):
    """What was seen of one field, in one grade."""

    field: str
    grade: Grade
    kinds: tuple[Kind, ...] = ()
    reason: str | None = None
    budget_percent: float = 0.0
    rank: int = Field(ge=1)
    """It was the so-manyth of its grade to differ."""
    candidate_only: int = 0
    noise_only: int = 0
    both: int = 0
    first_was: tuple[bool, bool] = (False, False)
    """Whether in the first triple that differed here the candidate's did, and the second stable one's."""
    repeated: int = 0
    """Of the requests that were asked again: so many showed the difference each time."""
    unrepeated: int = 0
    log_evidence_max: float = 0.0
    """The most that was ever proven, as a natural logarithm."""
    example: Difference | None = None

    @property
    def counts(self) -> tuple[int, int, int]:
        """Candidate only, noise only, both."""
        return self.candidate_only, self.noise_only, self.both

    @property
    def noise(self) -> int:
        """How often the stable version differed from itself here."""
        return self.noise_only + self.both

    @property
    def differing(self) -> int:
        """In how many triples the candidate's answer differed."""
        return self.candidate_only + self.both

    @property
    def is_proven(self) -> bool:
        """The candidate differs here more often than the stable version from itself, and than the budget allows."""
        return self.log_evidence_max >= log_threshold(self.rank, FALSE_ALARM)

    def is_open(self, pairs: int) -> bool:
        """The candidate alone differed, or more often than its budget, and that is neither proven nor seen as noise."""
        if self.is_proven:
            return False
        if self.budget_percent:
            return 100 * (self.candidate_only - self.noise_only) > self.budget_percent * pairs
        return self.candidate_only > 0 and self.noise == 0 and self.unrepeated == 0


class Agreement(Frozen):
    """How far the candidate's answers agree: in all that blocks, or in one key field."""

    field: str | None
    """The key field; None for all differences that block."""
    pairs: int = 0
    candidate_only: int = 0
    noise_only: int = 0
    both: int = 0

    @property
    def counts(self) -> Counts:
        """As the formulas want it."""
        return Counts(self.pairs, self.candidate_only, self.noise_only, self.both)

    def lower_bound_percent(self, confidence_percent: float) -> float:
        """In which percentage of the answers it agrees, at least, beyond the stable version's own noise."""
        return 100 * agreement_lower_bound(self.counts, confidence_percent / 100)

    @property
    def is_noisy(self) -> bool:
        """The stable version differs from itself so often that nothing can be shown."""
        return self.counts.noise > NOISE_SHARE_MAX * self.pairs


class TallyState(Frozen):
    """All that a tally knows, to be written down and gone on from."""

    pairs: int = 0
    fields: tuple[FieldCount, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    untold: int = 0
    """Differences beyond those that are kept of one answer."""


@dataclass
class _Row:
    """A FieldCount that still changes."""

    seen: FieldCount
    example: Difference | None
    kinds: set[Kind] = field(default_factory=set)
    candidate_only: int = 0
    noise_only: int = 0
    both: int = 0
    repeated: int = 0
    unrepeated: int = 0
    asked_again: int = 0
    log_evidence_max: float = 0.0

    @classmethod
    def of(cls, seen: FieldCount) -> _Row:
        asked = seen.repeated + seen.unrepeated
        return cls(
            seen,
            seen.example,
            set(seen.kinds),
            *seen.counts,
            seen.repeated,
            seen.unrepeated,
            asked,
            seen.log_evidence_max,
        )

    def add(self, *, candidate: bool, noise: bool) -> None:
        self.candidate_only += candidate and not noise
        self.noise_only += noise and not candidate
        self.both += candidate and noise

    def look(self, pairs: int) -> None:
        """Compute what is proven by now; the first difference, which gave the field its rank, is left out."""
        candidate, noise = self.seen.first_was
        alone = self.candidate_only - (candidate and not noise)
        other = self.noise_only - (noise and not candidate)
        if self.seen.budget_percent:  # the triples before it differed first only speak for the candidate
            evidence = log_budget_evidence(Counts(pairs, alone, other), self.seen.budget_percent / 100)
        else:
            evidence = log_paired_evidence(alone + other, alone)
            evidence += self.repeated * log_repeated_evidence(repeated=True)
            evidence += self.unrepeated * log_repeated_evidence(repeated=False)
        self.log_evidence_max = max(self.log_evidence_max, evidence)

    def frozen(self) -> FieldCount:
        return self.seen.model_copy(
            update={
                "kinds": tuple(sorted(self.kinds)),
                "candidate_only": self.candidate_only,
                "noise_only": self.noise_only,
                "both": self.both,
                "repeated": self.repeated,
                "unrepeated": self.unrepeated,
                "log_evidence_max": self.log_evidence_max,
                "example": self.example,
            }
        )


@dataclass
class _Differed:
    """What one triple says of one row; fields beyond `FIELDS_MAX` share one, and count once."""

    row: _Row
    candidate: bool = False
    noise: bool = False


class Tally:
    """Adds up triples: the stable version's answer, its answer to the same request again, and the candidate's.

    What differs between the first two is noise. A field in two grades (gone: block; changed: warn) is two rows. Memory
    is bounded by `FIELDS_MAX` rows.
    """

    def __init__(
        self,
        rules: ReadyRules,
        state: TallyState | None = None,
        tell: Callable[[Found], Difference] = Found.told,
    ) -> None:
        """`state` is gone on from. `tell` makes of a difference what is kept of it: the place to blot out secrets."""
        state = state or TallyState()
        self._tell = tell
        self.pairs = state.pairs
        self.untold = state.untold
        self._rows = {(row.field, row.grade): _Row.of(row) for row in state.fields}
        self._noisy = {place for place, row in self._rows.items() if row.seen.noise}
        known = {agreement.field: agreement.counts for agreement in state.agreements}
        self._names: tuple[str | None, ...] = (None, *(pattern.text for pattern in rules.keys))
        self._agreements = [known.get(name, Counts()) for name in self._names]

    def add(self, candidate: Comparison, noise: Comparison, keys: Iterable[int]) -> tuple[Difference, ...]:
        """Count one triple; `keys` are the key fields that the stable answer has.

        Returns: the differences of the candidate that are new or few enough to be worth keeping with a way to see them
        again; never those that the stable version has with itself in this very triple.
        """
        self.pairs += 1
        self.untold += candidate.more
        here, there = _by_field(candidate.found), _by_field(noise.found)
        differed: dict[str, _Differed] = {}
        worth = []
        for place in {**here, **there}:
            was = place in here, place in there
            row = self._row(place, (here.get(place) or there[place])[0], was)
            row.kinds.update(each.kind for each in here.get(place, ()))
            now = differed.setdefault(f"{row.seen.grade} {row.seen.field}", _Differed(row))
            now.candidate |= was[0]
            now.noise |= was[1]
            if was == (True, False) and row.candidate_only < EXAMPLES_MAX:
                worth.append(self._tell(here[place][0]))
                row.example = worth[-1] if row.example is None else row.example
            elif was[0] and row.example is None:
                row.example = self._tell(here[place][0])
        for now in differed.values():
            now.row.add(candidate=now.candidate, noise=now.noise)
        self._agree(candidate.found, noise.found, keys)
        self._noisy |= there.keys()
        return tuple(worth)

    def _row(self, place: tuple[str, Grade], first: Found, was: tuple[bool, bool]) -> _Row:
        row = self._rows.get(place)
        if row is not None:
            return row
        name, grade = place
        if len(self._rows) >= FIELDS_MAX:
            name = OTHER_FIELDS
            if (name, grade) in self._rows:
                return self._rows[name, grade]
        seen = FieldCount(
            field=name,
            grade=grade,
            reason=first.reason,
            budget_percent=first.way.budget_percent,
            rank=sum(known == grade for _, known in self._rows) + 1,
            first_was=was,
        )
        row = self._rows[name, grade] = _Row(seen, None)
        return row

    def _agree(self, candidate: Sequence[Found], noise: Sequence[Found], keys: Iterable[int]) -> None:
        here, there = _keys_of(candidate), _keys_of(noise)
        self._agreements[0] = self._agreements[0].plus(candidate=self._blocks(candidate), noise=self._blocks(noise))
        for key in here | there | set(keys):
            counts = self._agreements[key + 1]
            self._agreements[key + 1] = counts.plus(candidate=key in here, noise=key in there)

    def _blocks(self, found: Sequence[Found]) -> bool:
        """Whether anything differs that blocks. What has a budget is held against that; what is known as noise (from
        earlier triples, and never from this one: else chance would choose what counts) is for the paired test.
        """
        return any(
            each.grade == "block" and not each.way.budget_percent and (each.field, each.grade) not in self._noisy
            for each in found
        )

    def wants_asking_again(self, difference: Difference) -> bool:
        """Whether this difference stops a release and is not proven by now: then the request is to be asked again."""
        row = self._rows.get((difference.field or difference.path, difference.grade))
        if row is None or difference.grade != "block" or row.seen.budget_percent or row.asked_again >= ASKED_AGAIN_MAX:
            return False
        if sum(each.asked_again for each in self._rows.values()) >= ALL_ASKED_AGAIN_MAX:
            return False
        row.look(self.pairs)
        if row.log_evidence_max >= log_threshold(row.seen.rank, FALSE_ALARM):
            return False
        row.asked_again += 1
        return True

    def asked_again(self, difference: Difference, *, repeated: bool) -> None:
        """What came of it: whether it differed each time, while the stable version agreed with itself each time."""
        row = self._rows.get((difference.field or difference.path, difference.grade))
        if row is not None:
            row.repeated += repeated
            row.unrepeated += not repeated

    def not_asked_again(self, difference: Difference) -> None:
        """The sides could not be asked: it may be tried with another request."""
        row = self._rows.get((difference.field or difference.path, difference.grade))
        if row is not None:
            row.asked_again -= 1

    def state(self) -> TallyState:
        """All of it, with what is proven by now."""
        for row in self._rows.values():
            row.look(self.pairs)
        return TallyState(
            pairs=self.pairs,
            fields=tuple(row.frozen() for row in self._rows.values()),
            agreements=tuple(
                Agreement(field=name, **counts._asdict())
                for name, counts in zip(self._names, self._agreements, strict=True)
            ),
            untold=self.untold,
        )


def _by_field(found: Sequence[Found]) -> dict[tuple[str, Grade], list[Found]]:
    places: dict[tuple[str, Grade], list[Found]] = {}
    for each in found:
        if each.grade != "ignore":
            places.setdefault((each.field, each.grade), []).append(each)
    return places


def _keys_of(found: Sequence[Found]) -> set[int]:
    return {key for each in found for key in each.way.keys}
