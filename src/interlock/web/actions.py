"""`http.request`: one request to a declared HTTP service, by a method and to a path that are open there."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from typing import ClassVar

from interlock.core.action import Action, StepResult
from interlock.core.errors import Permanent, Stale
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.web import READS, WEB, HttpDestination, WebAnswer, WebRequest
from interlock.lib.canonical import digest_of
from interlock.lib.url import Url, parse_url
from interlock.web.answers import (
    REDIRECTS_MAX,
    failure,
    is_expected,
    redirected,
    retry_after_seconds,
    shown,
)
from interlock.web.model import PlannedRequest, RequestArgs, choose, settled_headers

PREVIEW_CHARACTERS_MAX = 8000
MARGIN_SECONDS = 30.0


class HttpRequest(Action):
    """A call of an HTTP service."""

    name: ClassVar[str] = "http.request"
    summary: ClassVar[str] = "Send one request to a declared HTTP service, by a method and to a path open there."
    example: ClassVar[JsonObject] = {
        "method": "POST",
        "url": "https://api.example.com/v1/invoices",
        "data": {"customer": 7, "amount": 1200},
    }
    Args: ClassVar[type[Frozen]] = RequestArgs

    def read_facts(self, args: RequestArgs) -> JsonObject:
        """Which destination takes it, and what the project says of that one; nothing is sent.

        Raises: NotFound, Invalid.
        """
        declared = self.ports.project().http_destinations
        name = choose(args, declared)
        settled_headers(args, declared[name])
        return {"destination": name, "declared": declared[name].model_dump(mode="json")}

    def plan(self, args: RequestArgs, facts: JsonObject) -> Plan:
        """One request; its credential is named and not held."""
        destination = HttpDestination.model_validate(facts["declared"])
        name, url, changes = str(facts["destination"]), args.whole_url, args.method not in READS
        planned = PlannedRequest(
            destination=name,
            declared=destination.digest,
            method=args.method,
            url=str(url),
            headers=settled_headers(args, destination),
            content=args.content,
            expect=args.expect,
        )
        step = Step(
            verb="request",
            summary=f"{args.method} {url.path} at {name}"[:500],
            params=planned.model_dump(mode="json"),
            targets=(Target(kind="http", id=f"{name}{url.path}", names=(f"{url.host}{url.path}",)),),
            risk=destination.risk if changes else "none",
            changes=changes,
            operations=(f"http.{args.method.lower()}",),
            repeatable=destination.is_repeatable(args.method),
            discloses=destination.discloses,
            precondition={"declared": destination.digest},
            irreversible="what a service of others did, only it can take back" if changes else None,
            timeout_seconds=destination.timeout_seconds + MARGIN_SECONDS,
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts=facts,
            preview=self._preview(planned, destination),
        )

    def _preview(self, planned: PlannedRequest, destination: HttpDestination) -> str:
        """The request as it will be sent, with the name of its credential."""
        lines = [f"{planned.method} {planned.url}", *(f"{name}: {value}" for name, value in planned.headers)]
        if destination.credential is not None:
            lines.append(f"{destination.credential_header.partition(':')[0]}: [{destination.credential}]")
        if planned.content:
            lines += ["", planned.content[:PREVIEW_CHARACTERS_MAX]]
            if len(planned.content) > PREVIEW_CHARACTERS_MAX:
                lines.append(f"[{len(planned.content) - PREVIEW_CHARACTERS_MAX:,} more characters]")
        return self.ports.redactor.redact("\n".join(lines))

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Send it, follow where it may be followed, and show what came back.

        Raises: Stale (declared otherwise since), and as `Web.exchange` and `answers.failure`.
        """
        planned = PlannedRequest.model_validate(step.params)
        context.hold()
        declared = self.ports.project().http_destinations
        if planned.destination not in declared or declared[planned.destination].digest != planned.declared:
            msg = f"the destination {planned.destination} is declared otherwise than when this was planned"
            raise Stale(msg, code="http.declared_anew", fix="ask again")
        answer, hosts = self._follow(planned, declared, context)
        context.write_output(shown(answer))
        data: JsonObject = {
            "status": answer.status,
            "address": answer.address,
            "hosts": [*hosts],
            "bytes": len(answer.body),
            "truncated": answer.truncated,
            "sha256": hashlib.sha256(answer.body).hexdigest(),
        }
        if is_expected(answer.status, planned.expect):
            return StepResult(ok=True, summary=f"{planned.destination} answered {answer.status}", data=data)
        wait_seconds = retry_after_seconds(answer, self.ports.clock.now())
        raise failure(answer, planned.method, planned.destination, wait_seconds)

    def _follow(
        self, planned: PlannedRequest, declared: dict[str, HttpDestination], context: StepContext
    ) -> tuple[WebAnswer, list[str]]:
        """The last answer, and the hosts that were asked on the way."""
        name, url, hosts = planned.destination, parse_url(planned.url), list[str]()
        end = time.monotonic() + declared[name].timeout_seconds
        while True:
            hosts.append(url.host)
            request = self._request(planned, declared[name], url, context.key)
            if len(hosts) > 1:
                seconds = max(0.1, min(request.timeout_seconds, end - time.monotonic()))
                request = request.model_copy(update={"timeout_seconds": seconds})
            if name != planned.destination:
                # Neither the first one's credential nor the other's own: who redirects must not spend either.
                request = request.model_copy(update={"credential": None})
            answer = self.ports.outside[WEB].exchange(request, hold=context.hold, cancelled=lambda: context.cancelled)
            following = None
            if not is_expected(answer.status, planned.expect):
                following = redirected(answer, planned.method, url, name, declared)
            if following is None:
                return answer, hosts
            if len(hosts) > REDIRECTS_MAX:
                msg = f"{planned.destination} led from one address to the next more than {REDIRECTS_MAX} times"
                raise Permanent(msg, code="http.redirect", fix="ask whoever runs it")
            name, url = following

    @staticmethod
    def _request(planned: PlannedRequest, destination: HttpDestination, url: Url, key: str) -> WebRequest:
        headers = planned.headers
        if destination.sends_key(planned.method):
            # The number of a Run is unique in one installation only; what is sent tells two of them apart.
            unique = f"{key}:{digest_of(planned.model_dump(mode='json'))[:16]}"
            headers = (*headers, ("Idempotency-Key", unique))
        return WebRequest(
            method=planned.method,
            url=str(url),
            headers=headers,
            body=planned.content.encode(),
            credential=destination.credential,
            credential_header=destination.credential_header,
            private=destination.private,
            named=_is_number(destination),
            certificate_authority=destination.certificate_authority,
            timeout_seconds=destination.timeout_seconds,
            connect_timeout_seconds=destination.connect_timeout_seconds,
            response_bytes_max=destination.response_bytes_max,
        )


def _is_number(destination: HttpDestination) -> bool:
    try:
        ipaddress.ip_address(destination.origin[1])
    except ValueError:
        return False
    return True
