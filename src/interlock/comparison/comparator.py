"""The comparator: asks the stable version, the stable version again and the candidate, and writes down what differs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import JsonValue, ValidationError

from interlock.comparison.answers import Answer, Comparison, Found, compare_answers, keys_in, unanswered
from interlock.comparison.evidence import ASKED_AGAIN
from interlock.comparison.exchange import Unanswered, Version
from interlock.comparison.receiver import Headers
from interlock.comparison.rules import ReadyRules
from interlock.comparison.safe_request import SAFE_METHODS, SafeRequest, safe_request, without_secret_parameters
from interlock.comparison.shadow import DIFFERENCES_NAME, SUMMARY_NAME, ComparatorTask, ShadowSummary, read_summary
from interlock.comparison.tally import Tally
from interlock.comparison.written import Journal, replace_file
from interlock.core.comparison import Difference
from interlock.core.errors import Permanent
from interlock.lib.clock import Clock, rfc3339
from interlock.lib.redact import Redactor

DIFFERENCES_BYTES_MAX = 8 * 1024 * 1024
"""Of the file of differences; the one before it is kept."""
WAITED_SECONDS_MAX = 5.0
"""A copy that waited longer is dropped: the world it asked about is another one by now."""
ASKING_AGAIN = 2
"""So many requests are asked again at once; each is `ASKED_AGAIN` requests to each side, one after another."""
AGAIN_WAITING_MAX = 32

_WORDS: Final = {
    "timeout": "no answer in time",
    "refused": "the connection was refused",
    "broke_off": "the connection broke off",
    "garbage": "what came is no HTTP answer",
}


class _Waiting(NamedTuple):
    request: SafeRequest
    since_seconds: float


class _Again(NamedTuple):
    request: SafeRequest
    difference: Difference


class Comparator:
    """Compares what it is given; all of it on one event loop, every queue and every wait bounded.

    Raises OSError when the folder cannot be written.
    """

    def __init__(self, task: ComparatorTask, folder: Path, clock: Clock, *, pid: int) -> None:
        self._task = task
        self._folder = folder
        self._clock = clock
        self._redactor = Redactor(task.secrets)
        self._rules = ReadyRules(task.rules, clock.now().date())
        self._begin(pid)
        self._journal = Journal(folder / DIFFERENCES_NAME, DIFFERENCES_BYTES_MAX)
        self._stable = self._version(task.stable)
        self._candidate = self._version(task.candidate)
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(task.waiting_max)
        self._again: asyncio.Queue[_Again] = asyncio.Queue(AGAIN_WAITING_MAX)

    def _version(self, address: str) -> Version:
        return Version(
            address,
            timeout_seconds=self._task.timeout_seconds,
            body_bytes_max=self._task.body_bytes_max,
            idle_max=2 * self._task.in_flight_max,
            monotonic=self._clock.monotonic,
        )

    def _begin(self, pid: int) -> None:
        """Go on from what a comparator of the same task wrote down, or begin at nothing."""
        now = self._clock.now()
        for draft in self._folder.glob(f".{SUMMARY_NAME}.*.draft"):
            draft.unlink(missing_ok=True)  # whoever was killed while writing it does not come back
        try:
            before = read_summary(self._folder)
        except Permanent:
            before = None  # nothing is claimed that cannot be read: counted anew
        if before is None or before.task != self._task.digest:
            before = ShadowSummary(
                task=self._task.digest,
                **self._task.model_dump(include={"release", "workload", "stable_version", "candidate_version"}),
                pid=pid,
                started_at=now,
                updated_at=now,
            )
        self._summary = before.model_copy(update={"pid": pid})
        self._received = before.received
        self._unwritten = before.unwritten
        self._shed = Counter(before.shed)
        self._failures = Counter(before.stable_failures), Counter(before.candidate_failures)
        self._tally = Tally(self._rules, before.tally, self._told)

    def accept(self, method: str, target: str, headers: Headers) -> None:
        """Take in a copy of a request, or shed it and count why. Never blocks."""
        self._received += 1
        if method not in SAFE_METHODS:
            self._shed["unsafe"] += 1
            return
        request = safe_request(method, target, headers)
        if request is None:
            self._shed["malformed"] += 1
            return
        try:
            self._queue.put_nowait(_Waiting(request, self._clock.monotonic()))
        except asyncio.QueueFull:
            self._shed["queue"] += 1

    def refuse(self) -> None:
        """Count what was no request at all."""
        self._received += 1
        self._shed["malformed"] += 1

    def workers(self) -> list[asyncio.Task[None]]:
        """Begin to compare; none of them ever ends by itself. Called once."""
        comparing = [asyncio.create_task(self._work()) for _ in range(self._task.in_flight_max)]
        return comparing + [asyncio.create_task(self._ask_again()) for _ in range(ASKING_AGAIN)]

    async def _work(self) -> None:
        while True:
            waiting = await self._queue.get()
            if self._clock.monotonic() - waiting.since_seconds > WAITED_SECONDS_MAX:
                self._shed["late"] += 1
            elif self._stable.is_away():
                self._shed["stable_away"] += 1
            elif self._candidate.is_away():
                self._shed["candidate_away"] += 1
            else:
                await self._compare(waiting.request)

    async def _compare(self, request: SafeRequest) -> None:
        """One triple. When the stable version does not answer first nothing is compared: nobody is to blame."""
        first, again, candidate = await asyncio.gather(
            self._ask(self._stable, request), self._ask(self._stable, request), self._ask(self._candidate, request)
        )
        if isinstance(candidate, Unanswered):
            self._failures[1][candidate.why] += 1
        if isinstance(first, Unanswered):
            self._failures[0][first.why] += 1
            return
        differing, noise = self._held_against(first, candidate), self._held_against(first, again)
        worth = self._tally.add(differing, noise, keys_in(first, self._rules))
        for difference in worth:
            self._write(request, difference)
            if not self._again.full() and self._tally.wants_asking_again(difference):
                self._again.put_nowait(_Again(request, difference))

    async def _ask(self, version: Version, request: SafeRequest) -> Answer | Unanswered:
        try:
            return await version.ask(request)
        except Unanswered as nothing:
            return nothing

    def _held_against(self, first: Answer, other: Answer | Unanswered) -> Comparison:
        if isinstance(other, Unanswered):
            return unanswered(first, _WORDS[other.why], self._rules)
        return compare_answers(first, other, self._rules)

    async def _ask_again(self) -> None:
        """See whether differences that stop a release repeat, as often as it takes to be sure."""
        while True:
            again = await self._again.get()
            wanted = True
            while wanted:
                repeated = await self._repeats(again)
                if repeated is None:
                    self._tally.not_asked_again(again.difference)
                else:
                    self._tally.asked_again(again.difference, repeated=repeated)
                wanted = bool(repeated) and self._tally.wants_asking_again(again.difference)

    async def _repeats(self, again: _Again) -> bool | None:
        """Whether all fresh answers of the stable version agree there, and all of the candidate's differ from them.

        None when the stable version gives no first answer. Both are asked side by side each time, so that both meet the
        same world; it ends as soon as the answer is no.
        """
        request, difference = again
        first: Answer | None = None
        for _ in range(ASKED_AGAIN):
            stable, candidate = await asyncio.gather(
                self._ask(self._stable, request), self._ask(self._candidate, request)
            )
            if first is None:
                if isinstance(stable, Unanswered):
                    return None
                first = stable
            if self._differs(first, stable, difference) or not self._differs(first, candidate, difference):
                return False
        return True

    def _differs(self, first: Answer, other: Answer | Unanswered, difference: Difference) -> bool:
        found = self._held_against(first, other).found
        return any(each.field == difference.field and each.grade == difference.grade for each in found)

    def _told(self, found: Found) -> Difference:
        """The form in which a difference is kept, with what looks like a secret blotted out of its values."""
        told = found.told()
        name = str(found.parts[-1])
        return told.model_copy(
            update={
                "path": self._redactor.redact(told.path),  # rows are named by their keys
                "stable": self._blotted(name, told.stable),
                "candidate": self._blotted(name, told.candidate),
            }
        )

    def _blotted(self, name: str, value: JsonValue) -> JsonValue:
        """A field that is named like a secret holds one, whatever it looks like."""
        label, text = f"{name}=", value if isinstance(value, str) else json.dumps(value)
        blotted = self._redactor.redact(label + text).removeprefix(label)
        return value if blotted == text else blotted

    def _write(self, request: SafeRequest, difference: Difference) -> None:
        target = self._redactor.redact(without_secret_parameters(request.target))
        blotted = target if target != request.target else None
        shown = request._replace(headers=tuple((name, self._redactor.redact(value)) for name, value in request.headers))
        line = {
            "at": rfc3339(self._clock.now()),
            "release": self._task.release,
            "request": {"method": request.method, "target": target, "id": request.id, "blotted": blotted is not None},
            "difference": difference.model_dump(mode="json"),
            "replay": {
                self._task.stable_version: shown.replayed(self._task.stable, blotted),
                self._task.candidate_version: shown.replayed(self._task.candidate, blotted),
            },
        }
        try:
            self._journal.add(json.dumps(line, ensure_ascii=False).encode())
        except OSError:
            self._unwritten += 1

    def has_news(self) -> bool:
        """Whether anything came or was compared since the last summary."""
        return (self._received, self._tally.pairs) != (self._summary.received, self._summary.pairs)

    def write_summary(self) -> None:
        """Write down all that is known, as a whole. Raises OSError."""
        now = self._clock.now()
        if now.date() != self._rules.today:  # what expires today no longer counts
            self._rules = ReadyRules(self._task.rules, now.date())
        self._summary = self._summary.model_copy(
            update={
                "updated_at": now,
                "received": self._received,
                "shed": dict(self._shed),
                "stable_failures": dict(self._failures[0]),
                "candidate_failures": dict(self._failures[1]),
                "tally": self._tally.state(),
                "expired_rules": tuple(rule.path for rule in self._rules.expired),
                "unwritten": self._unwritten,
            }
        )
        replace_file(self._folder / SUMMARY_NAME, self._summary.model_dump_json().encode())

    def close(self) -> None:
        """Let go of connections and files."""
        self._stable.close()
        self._candidate.close()
        self._journal.close()


def read_task(path: Path) -> ComparatorTask:
    """What the process is told to do. Raises Permanent."""
    try:
        return ComparatorTask.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        msg = f"the task of the comparator at {path} cannot be read: {str(error).splitlines()[0]}"
        raise Permanent(msg, code="shadow.task", fix="start the release anew") from error
