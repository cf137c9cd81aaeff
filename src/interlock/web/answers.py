"""What an answer means: done, try again, refused, or look elsewhere."""

from __future__ import annotations

import json
import re
from datetime import datetime
from email.utils import parsedate_to_datetime

from interlock.core.errors import Denied, InterlockError, Invalid, Permanent, Transient
from interlock.core.web import READS, HttpDestination, Method, WebAnswer
from interlock.lib.url import Url, UrlFault, follow

REDIRECTS_MAX = 5

_KEEPS_METHOD = frozenset({307, 308})  # RFC 9110, 15.4
_MOVED = frozenset({301, 302, 303, 307, 308})
_TOO_MANY, _UNAVAILABLE, _TOO_SLOW = 429, 503, 408  # RFC 6585, 4; RFC 9110, 15.6.4 and 15.5.9
_NEVER_BEGUN = frozenset({501, 505})
_SERVER_FAULT = 500
_DIGITS = re.compile(r"[0-9]{1,9}")


def is_expected(status: int, expect: tuple[int, ...]) -> bool:
    """Without an expectation any 2xx is what was asked for."""
    return status in expect if expect else 200 <= status < 300  # noqa: PLR2004 - RFC 9110, 15.3


def redirected(
    answer: WebAnswer, method: Method, url: Url, name: str, declared: dict[str, HttpDestination]
) -> tuple[str, Url] | None:
    """Where an answer leads to, as a destination and an address; None when it leads nowhere.

    Reading may lead to another declared destination, whose output discloses no more; a change stays where it was
    decided on, and is only sent anew when the server says that it did nothing (307, 308).

    Raises: Denied when it leads where nothing was declared.
    """
    location = answer.header("location")
    if location is None or answer.status not in (_MOVED if method in READS else _KEEPS_METHOD):
        return None
    try:
        there = follow(url, location)
    except UrlFault as fault:
        msg = f"{name} leads to an address that is none, {fault}"
        raise Denied(msg, code="http.redirect", fix="ask whoever runs it") from fault
    if there.scheme != url.scheme and there.scheme == "http":
        msg = f"{name} leads from https to plain http"
        raise Denied(msg, code="http.redirect", fix="ask whoever runs it")
    open_to = [name, *sorted(declared)] if method in READS else [name]
    for known in open_to:
        if _is_no_wider(declared[known], declared[name]) and declared[known].why_not(method, there) is None:
            return known, there
    msg = f"{name} leads to {there.scheme}://{there.authority}{there.path}, which is not open to {method}"
    raise Denied(msg, code="http.redirect", fix="a person declares it under `http_destinations`, in interlock.yaml")


def _is_no_wider(other: HttpDestination, first: HttpDestination) -> bool:
    """A service outside leads to none inside, and to none that discloses something else."""
    return other.discloses == first.discloses and other.private <= first.private


def retry_after_seconds(answer: WebAnswer, now: datetime) -> float:
    """How long to wait (RFC 9110, 10.2.3); 0 where the server does not say."""
    told = (answer.header("retry-after") or "").strip()
    if _DIGITS.fullmatch(told):
        return float(told)
    try:
        moment = parsedate_to_datetime(told)
    except ValueError:
        return 0.0
    return max(0.0, (moment - now).total_seconds()) if moment.tzinfo is not None else 0.0


def failure(answer: WebAnswer, method: Method, name: str, wait_seconds: float) -> InterlockError:
    """What an answer that was not expected means for the Run.

    A refusal (4xx) had no effect. 429 is one that may be asked again. Everything else of the server's own (5xx) leaves
    open what happened: reading is repeated, and so is what may be repeated; the rest is for a person to look at.
    """
    status = answer.status
    msg = f"{name} answered {method} with {status}"
    output = "what it says is in the output"
    if status == _TOO_MANY:
        return Transient(
            f"{msg}: too many requests",
            code="http.limited",
            fix=f"ask in {wait_seconds:.0f} s" if wait_seconds else "ask later",
            effect_sent=False,
            retry_after_seconds=wait_seconds,
        )
    if status in {_TOO_SLOW, _UNAVAILABLE}:
        return Transient(msg, code="http.unavailable", fix="ask later", retry_after_seconds=wait_seconds)
    if status in _NEVER_BEGUN or 400 <= status < _SERVER_FAULT:  # noqa: PLR2004 - RFC 9110, 15.5
        return Invalid(f"{msg}; {output}", code="http.refused", fix="mend the request")
    if status >= _SERVER_FAULT:
        return Transient(f"{msg}; {output}", code="http.failed", fix="look whether it happened")
    return Permanent(f"{msg}, which was not expected; {output}", code="http.unexpected", fix="look whether it happened")


def shown(answer: WebAnswer) -> str:
    """The answer for people: the line of its status, its type, and its body where it is text."""
    kind = (answer.header("content-type") or "").strip()
    head = f"{answer.status} {kind}".strip() + "\n"
    if answer.unreadable is not None:
        return f"{head}[the body is not shown: {answer.unreadable}]\n"
    # A letter that was cut in two at the end is no reason to show nothing.
    text = answer.body.decode("utf-8", "ignore" if answer.truncated else "replace")
    if "\0" in text or text.count("\ufffd") > len(text) // 20:
        return f"{head}[{len(answer.body):,} bytes that are no text]\n"
    if "json" in kind.lower() and not answer.truncated:
        try:
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            text = f"[it says JSON and is none]\n{text}"
    return f"{head}{text}\n" + ("[cut]\n" if answer.truncated else "")
