"""Decides: permit, forbid, or needs-approval; any doubt is a refusal."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from interlock.core.actor import Actor
from interlock.core.approval import Approval, missing
from interlock.core.decision import Decision, Outcome, Reason, Requirement
from interlock.core.model import JsonObject
from interlock.core.plan import Discloses, Plan
from interlock.core.ports import PolicyAnswer
from interlock.core.role import code_of_view
from interlock.engine.policy.codes import bounds_of, lacking, require_code
from interlock.engine.policy.instead import detail_of, instead_of
from interlock.engine.policy.lint import Rule
from interlock.engine.policy.load import Alarm, PolicyBook, PolicySet
from interlock.engine.policy.request import DecisionContext, is_declared, plan_request, view_request, with_granted

DEFAULT_DENY = Reason(policy="default-deny", reason="no policy permits this", effect="forbid")
POLICY_ERROR = "policy-error"

GUESSES_MAX = 1024

Entities = tuple[JsonObject, ...]


@dataclass(frozen=True)
class Verdict:
    """What a policy set says to one request, before approvals are counted.

    `blocking` are the rules that stand in the way now, `permitting` those that permit or would permit. `trouble` says
    why nothing of it may be trusted.
    """

    outcome: Outcome
    blocking: tuple[Rule, ...] = ()
    permitting: tuple[Rule, ...] = ()
    trouble: tuple[str, ...] = ()


class _Asked(NamedTuple):
    """What was given to the policy engine."""

    request: JsonObject
    entities: Entities


_NOTHING = _Asked({}, ())
"""While it was not even possible to say it."""


class Guesses:
    """Whether an ask will need the second question as well: a guess that saves time and decides nothing.

    To ask both at once costs half a question more, and so does asking the second one late. Asks that look alike to the
    policies share a guess, and it is given up when two of them in a row say otherwise: one odd ask among many, or two
    sorts of asks that take turns, do not upset it.
    """

    def __init__(self) -> None:
        self._guesses: dict[Hashable, bool] = {}
        self._doubted: set[Hashable] = set()

    def __len__(self) -> int:
        """How many sorts are remembered."""
        return len(self._guesses)

    def is_likely(self, alike: Hashable) -> bool:
        """Whether asks of this sort needed it lately."""
        return self._guesses.get(alike, False)

    def learn(self, alike: Hashable, *, needed: bool) -> None:
        """Take note of an ask of this sort."""
        guess = self._guesses.get(alike)
        if guess == needed:
            self._doubted.discard(alike)
        elif guess is not None and alike not in self._doubted:
            self._doubted.add(alike)
        else:
            if len(self._guesses) >= GUESSES_MAX:
                self._guesses.clear()
                self._doubted.clear()
            self._guesses[alike] = needed
            self._doubted.discard(alike)


class Judge:
    """The one decision point. Decisions depend on the arguments, the set in force and nothing else."""

    def __init__(self, book: PolicyBook, alarm: Alarm) -> None:
        self.book = book
        self._alarm = alarm
        self._guesses = Guesses()

    def decide(
        self, actor: Actor, plan: Plan, context: DecisionContext, approvals: Sequence[Approval] = ()
    ) -> Decision:
        """Decide on a plan, given the verified verdicts for its Run.

        Requirements are gathered from all soft forbids that are hit, afresh each time; those of the answer are what
        is still missing. Never raises: whatever goes wrong is a refusal, and the alarm is called.
        """
        policies = self.book.current
        asked = _NOTHING
        try:
            facts = policies.facts.current()
            asked = _Asked(*plan_request(actor, plan, context, facts))
            alike = _sort_of(actor, asked)
            verdict = judge(policies, asked.request, asked.entities, at_once=self._guesses.is_likely(alike))
            self._guesses.learn(alike, needed=verdict.outcome == "needs_approval")
            requirements: tuple[Requirement, ...] = ()
            if verdict.outcome == "needs_approval":
                people = facts.project.people
                counted = [each for each in approvals if is_declared(each.approver.removeprefix("person:"), people)]
                requirements = _still_missing(verdict.blocking, counted, actor, context)
                if not requirements:
                    return _decision("permit", (*verdict.blocking, *verdict.permitting), policies, asked)
            if verdict.outcome == "permit":
                return _decision("permit", verdict.permitting, policies, asked)
            if not verdict.trouble:
                return _decision(
                    verdict.outcome,
                    verdict.blocking,
                    policies,
                    asked,
                    requirements=requirements,
                    instead=instead_of(actor, plan, verdict.blocking, verdict.outcome),
                    detail=lambda word: detail_of(word, plan, facts, context.now),
                )
        except Exception as error:  # noqa: BLE001 - any doubt is a refusal, and it is loud
            verdict = Verdict("forbid", trouble=(f"{type(error).__name__}: {error}",))
        return self._refuse_in_doubt(verdict.trouble, actor, plan.action, policies, asked)

    def decide_view(self, actor: Actor, name: str, discloses: Discloses, now: datetime) -> Decision:
        """Decide on reading one of Interlock's own tables. A view makes no Run, so that nothing can wait for an
        approval: what would need one is forbidden. Never raises."""
        policies = self.book.current
        asked = _NOTHING
        try:
            asked = _Asked(*view_request(actor, name, discloses, now, policies.facts.current().project))
            verdict = judge(policies, asked.request, asked.entities)
        except Exception as error:  # noqa: BLE001 - any doubt is a refusal, and it is loud
            verdict = Verdict("forbid", trouble=(f"{type(error).__name__}: {error}",))
        if verdict.trouble:
            return self._refuse_in_doubt(verdict.trouble, actor, f"view {name}", policies, asked)
        if verdict.outcome == "permit":
            return _decision("permit", verdict.permitting, policies, asked)
        code = code_of_view(name)
        return _decision(
            "forbid", verdict.blocking, policies, asked, detail=lambda word: code if word == "code" else ""
        )

    def require_code(self, actor: Actor, code: str) -> None:
        """For what is neither an ask nor a view. Raises Denied, naming the code, where the actor is kept to others."""
        require_code(actor, self.book.current.facts.current().project, code)

    def lacks_code(self, actor: Actor, code: str) -> bool:
        """Whether the actor is kept to codes that do not cover this one."""
        return bool(lacking(bounds_of(actor, self.book.current.facts.current().project), code))

    def _refuse_in_doubt(
        self, trouble: tuple[str, ...], actor: Actor, what: str, policies: PolicySet, asked: _Asked
    ) -> Decision:
        self._alarm(
            "policy_error", {"errors": [*trouble], "actor": actor.id, "what": what, "policy_set": policies.digest}
        )
        text = "the policies could not be evaluated, and any doubt is a refusal: " + "; ".join(trouble)
        return Decision(
            outcome="forbid",
            reasons=(Reason(policy=POLICY_ERROR, reason=text, effect="forbid", risk="high"),),
            request=asked.request,
            entities=asked.entities,
            policy_set=policies.digest,
        )


def judge(policies: PolicySet, request: JsonObject, entities: Entities, *, at_once: bool = False) -> Verdict:
    """What the policies say to a request, whose `granted` is False. Pure, given the set.

    Only where nothing but soft forbids stand in the way is it asked a second time, as if all that they ask for were
    there: then a permit must remain and nothing else object. `at_once` asks both questions together, which is cheaper
    when the second will be needed and changes nothing else.
    """
    questions = [request, with_granted(request)] if at_once else [request]
    now, *more = policies.handle.ask(questions, entities)
    first = _checked(policies, now)
    if first.trouble:
        return Verdict("forbid", trouble=first.trouble)
    if first.allowed:
        return Verdict("permit", permitting=first.rules)
    if not first.rules or first.rules[0].requirement is None:
        return Verdict("forbid", blocking=first.rules)
    (best,) = more or policies.handle.ask([with_granted(request)], entities)
    second = _checked(policies, best)
    if second.trouble:
        return Verdict("forbid", trouble=second.trouble)
    if not second.allowed:
        return Verdict("forbid", blocking=second.rules)
    return Verdict("needs_approval", blocking=first.rules, permitting=second.rules)


class _Checked(NamedTuple):
    """An answer with the rules it names, hard forbids first; `trouble` when it does not hold together."""

    allowed: bool
    rules: tuple[Rule, ...]
    trouble: tuple[str, ...]


def _checked(policies: PolicySet, answer: PolicyAnswer) -> _Checked:
    known = policies.rules
    trouble = answer.errors or tuple([f"unknown policy {name}" for name in answer.policies if name not in known])
    found = [known[name] for name in answer.policies if name in known]
    if len(found) > 1:
        found.sort(key=_is_soft)
    if answer.allowed and not found:
        trouble = (*trouble, "allowed by no policy")
    for rule in found:
        if (rule.effect == "permit") != answer.allowed:
            trouble = (*trouble, f"allowed is {answer.allowed}, and it names {', '.join(answer.policies)}")
            break
    return _Checked(answer.allowed, tuple(found), trouble)


def _sort_of(actor: Actor, asked: _Asked) -> Hashable:
    """What most policies look at; asks that are the same in it mostly meet the same ones."""
    attributes = asked.entities[1]["attrs"]
    if not isinstance(attributes, dict):
        msg = "a plan without attributes"
        raise TypeError(msg)
    return actor.kind, attributes["risk_level"], attributes["protected"], str(attributes["operations"])


def _is_soft(rule: Rule) -> bool:
    return rule.requirement is not None


def _still_missing(
    blocking: tuple[Rule, ...], approvals: Sequence[Approval], actor: Actor, context: DecisionContext
) -> tuple[Requirement, ...]:
    """What the soft forbids still ask for. Whom an agent works for counts as another person only where a policy says
    so."""
    left: list[Requirement] = []
    for rule in blocking:
        if rule.requirement is not None:
            left += missing(
                (rule.requirement,),
                tuple(approvals),
                run=context.run,
                digest=context.digest,
                asker=actor.id,
                asker_principals=frozenset({actor.id}) if rule.owner_may_approve else actor.principals,
                now=context.now,
            )
    return tuple(left)


def _decision(
    outcome: Outcome,
    rules: tuple[Rule, ...],
    policies: PolicySet,
    asked: _Asked,
    *,
    requirements: tuple[Requirement, ...] = (),
    instead: tuple[str, ...] = (),
    detail: Callable[[str], str] | None = None,
) -> Decision:
    # Every part was made here and is of its type; validating all of it again would take as long as evaluating it.
    return Decision.model_construct(
        outcome=outcome,
        reasons=tuple([_reason(rule, detail) for rule in rules]) or (DEFAULT_DENY,),
        requirements=requirements,
        request=asked.request,
        entities=asked.entities,
        policy_set=policies.digest,
        instead=instead,
    )


def _reason(rule: Rule, detail: Callable[[str], str] | None) -> Reason:
    """A rule's reason, with the facts that its @details asks for."""
    more = detail(rule.details) if detail and rule.details else ""
    return rule.reason.model_copy(update={"reason": f"{rule.reason.reason}: {more}"}) if more else rule.reason
