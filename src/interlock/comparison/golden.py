"""Golden samples: requests whose answers a person accepted, pinned in files and held against each later version."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError

from interlock.comparison.answers import Answer, compare_answers
from interlock.comparison.exchange import Unanswered, Version
from interlock.comparison.rules import ReadyRules
from interlock.comparison.safe_request import SafeRequest, safe_request
from interlock.comparison.written import replace_file
from interlock.core.comparison import (
    GOLDEN_BODY_BYTES_MAX,
    ComparisonRules,
    Difference,
    FieldRule,
    GoldenAnswer,
    GoldenRequest,
    GoldenSample,
)
from interlock.core.errors import Invalid, NotFound, Permanent, Transient
from interlock.core.traffic import Address
from interlock.lib.field_path import PATH_CHARACTERS_MAX

SAMPLES_MAX = 1_000
SAMPLE_BYTES_MAX = 4 * 1024 * 1024
TIMEOUT_SECONDS = 10.0
AT_ONCE_MAX = 4
ASKED_TO_LEARN_NOISE = 3
"""So often the accepted version is asked: what differs between its own answers is noise."""
_KEPT_HEADERS = frozenset({"content-type"})

Outcome = Literal["same", "differs", "no_answer"]


class GoldenResult(NamedTuple):
    """What came of one sample. It passes when nothing differs that blocks; budgets do not apply to single samples."""

    name: str
    outcome: Outcome
    differences: tuple[Difference, ...]
    words: str

    @property
    def passes(self) -> bool:
        """Whether a release may go on."""
        return self.outcome == "same"


def sample_path(folder: Path, workload: str, name: str) -> Path:
    """Where a sample lies: FOLDER/WORKLOAD/NAME.json, 0600; the bytes of files are kept by whoever compares files."""
    return folder / workload / f"{name}.json"


def pin(folder: Path, sample: GoldenSample) -> Path:
    """Keep a sample; one of the same name is replaced as a whole. Raises OSError."""
    path = sample_path(folder, sample.workload, sample.name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, sample.model_dump_json(indent=1).encode())
    return path


def unpin(folder: Path, workload: str, name: str) -> None:
    """Keep it no longer. Raises NotFound."""
    try:
        sample_path(folder, workload, name).unlink()
    except FileNotFoundError:
        msg = f"{workload} has no golden sample {name}"
        raise NotFound(msg, code="golden.unknown", fix="see what there is with `interlock release golden`") from None


def read_samples(folder: Path, workload: str) -> tuple[GoldenSample, ...]:
    """All samples of a workload, by name. Raises Permanent when one cannot be read: none is left out in silence."""
    place = folder / workload
    if not place.is_dir():
        return ()
    paths = sorted(path for path in place.glob("*.json") if not path.name.startswith("."))
    if len(paths) > SAMPLES_MAX:
        msg = f"{workload} has {len(paths):,} golden samples, more than {SAMPLES_MAX:,}"
        raise Permanent(msg, code="golden.many", fix="unpin those that say the same")
    return tuple(_read(path) for path in paths)


def _read(path: Path) -> GoldenSample:
    try:
        with path.open("rb") as file:
            sample = GoldenSample.model_validate_json(file.read(SAMPLE_BYTES_MAX))
    except (OSError, ValidationError) as error:
        msg = f"the golden sample at {path} cannot be read: {str(error).splitlines()[0]}"
        raise Permanent(msg, code="golden.unreadable", fix="pin it again, or unpin it") from error
    if (sample.workload, f"{sample.name}.json") != (path.parent.name, path.name):
        msg = f"the golden sample at {path} says that it is {sample.name} of {sample.workload}"
        raise Permanent(msg, code="golden.unreadable", fix="pin it again, or unpin it")
    return sample


def accepted(
    workload: str,
    name: str,
    request: GoldenRequest,
    address: Address,
    rules: ReadyRules,
    *,
    by: str,
    at: datetime,
    reason: str,
    monotonic: Callable[[], float],
) -> GoldenSample:
    """A sample of what the version at this address answers now, with the fields that differ each time as noise.

    Whoever accepts it has looked at it. Raises Invalid for a request that may not be sent, Transient without an answer,
    Permanent for an answer that is too large to keep.
    """
    safe = _safe(request)
    first, *others = asyncio.run(_answers([safe] * ASKED_TO_LEARN_NOISE, address, monotonic))
    if isinstance(first, Unanswered):
        msg = f"{address} gives no answer to {safe.method} {safe.target}: {first.why}"
        raise Transient(msg, code="golden.unanswered", fix="start the version first", effect_sent=False)
    if first.is_cut:
        msg = f"the answer to {safe.method} {safe.target} is larger than {GOLDEN_BODY_BYTES_MAX:,} bytes"
        raise Permanent(msg, code="golden.large", fix="pin a request with a smaller answer")
    again = [answer for answer in others if isinstance(answer, Answer)]
    noise = {found.field for answer in again for found in compare_answers(first, answer, rules).found}
    return GoldenSample(
        workload=workload,
        name=name,
        request=GoldenRequest(method=request.method, target=safe.target, headers=dict(safe.headers)),
        answer=GoldenAnswer(
            status=first.status,
            headers={header: value for header, value in first.headers.items() if header in _KEPT_HEADERS},
            body=base64.b64encode(first.body).decode(),
        ),
        noise=tuple(sorted(name for name in noise if len(name) <= PATH_CHARACTERS_MAX)),
        accepted_by=by,
        accepted_at=at,
        reason=reason,
    )


def replay(
    samples: Iterable[GoldenSample],
    address: Address,
    rules: ComparisonRules,
    *,
    today: date,
    monotonic: Callable[[], float],
) -> tuple[GoldenResult, ...]:
    """Send all requests to the version at this address and hold its answers against the accepted ones.

    Blocks, `TIMEOUT_SECONDS` for each request at most. Samples of batch jobs are passed over: they are for whoever runs
    those. Raises Invalid for a request that may not be sent.
    """
    asked = [(sample, _safe(sample.request)) for sample in samples if sample.request is not None]
    answers = asyncio.run(_answers([request for _, request in asked], address, monotonic))
    return tuple(check(sample, answer, rules, today=today) for (sample, _), answer in zip(asked, answers, strict=True))


def check(sample: GoldenSample, answer: Answer | Unanswered, rules: ComparisonRules, *, today: date) -> GoldenResult:
    """Hold one answer against the accepted one. Raises Invalid when the sample holds no answer that can be read."""
    if isinstance(answer, Unanswered):
        return GoldenResult(sample.name, "no_answer", (), f"{sample.name}: no answer ({answer.why})")
    found = compare_answers(_accepted_answer(sample), answer, _with_noise(rules, sample, today)).found
    told = tuple(each.told() for each in found)
    blocking = [each for each in told if each.grade == "block"]
    if blocking:
        first = blocking[0]
        more = f" and {len(blocking) - 1} more" if len(blocking) > 1 else ""
        words = (
            f"{sample.name}: {first.path} was {first.stable!r} when {sample.accepted_by} accepted it on"
            f" {sample.accepted_at:%Y-%m-%d}, and is {first.candidate!r}{more}"
        )
        return GoldenResult(sample.name, "differs", told, words)
    return GoldenResult(sample.name, "same", told, f"{sample.name}: as accepted by {sample.accepted_by}")


def _with_noise(rules: ComparisonRules, sample: GoldenSample, today: date) -> ReadyRules:
    """Noise comes last and so counts most, save for key fields, which have none."""
    noise = tuple(FieldRule(path=path, grade="ignore", reason="differs each time") for path in sample.noise)
    return ReadyRules(rules.model_copy(update={"rules": (*rules.rules, *noise)}), today)


def _accepted_answer(sample: GoldenSample) -> Answer:
    try:
        if sample.answer is not None:
            body = base64.b64decode(sample.answer.body, validate=True)
            return Answer(sample.answer.status, sample.answer.headers, body)
    except binascii.Error:
        pass  # told below, as for a sample without an answer
    msg = f"the golden sample {sample.name} of {sample.workload} holds no answer"
    raise Invalid(msg, code="golden.unreadable", fix="pin it again, or unpin it")


def _safe(request: GoldenRequest) -> SafeRequest:
    safe = safe_request(request.method, request.target, list(request.headers.items()))
    if safe is None:
        msg = f"{request.method} {request.target[:200]} is no request that may be sent again"
        raise Invalid(msg, code="golden.request", fix="use GET or HEAD and plain headers")
    return safe


async def _answers(
    requests: list[SafeRequest], address: Address, monotonic: Callable[[], float]
) -> list[Answer | Unanswered]:
    version = Version(
        address,
        timeout_seconds=TIMEOUT_SECONDS,
        body_bytes_max=GOLDEN_BODY_BYTES_MAX,
        idle_max=AT_ONCE_MAX,
        monotonic=monotonic,
    )
    gate = asyncio.Semaphore(AT_ONCE_MAX)

    async def ask(request: SafeRequest) -> Answer | Unanswered:
        async with gate:
            try:
                return await version.ask(request)
            except Unanswered as nothing:
                return nothing

    try:
        return await asyncio.gather(*(ask(request) for request in requests))
    finally:
        version.close()
