"""What every policy must say about itself, and what each layer may hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from interlock.core.decision import Effect, Reason, Requirement
from interlock.core.errors import Invalid
from interlock.core.model import JsonObject
from interlock.core.plan import RISKS, Risk

Layer = Literal["invariant", "project", "further"]
"""`invariant`: built in. `project`: the preset as the project edited it. `further`: an organisation, an environment."""

APPROVALS_MAX = 10
CONFIRMATIONS_MAX = 5
REASON_CHARACTERS_MAX = 300

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_COMMON = frozenset({"id", "reason", "risk", "instead"})
_ALLOWED = {
    "permit": _COMMON,
    "forbid": _COMMON | {"effect", "details"},
    "approve": _COMMON | {"effect", "details", "approvals", "roles", "owner_may_approve"},
    "confirm": _COMMON | {"effect", "details", "confirmations"},
}
DETAILS = frozenset({"protected", "own", "opaque", "window", "code"})
"""What @details may ask the engine to add to the reason: which target, which step, which window, which code."""


@dataclass(frozen=True)
class Rule:
    """What the engine knows about one policy, ready to be put into a Decision.

    `owner_may_approve`: the person whom the asking agent works for counts as another person.
    """

    effect: Effect
    reason: Reason
    requirement: Requirement | None
    owner_may_approve: bool
    details: str
    instead: str
    layer: Layer
    file: str
    line: int


@dataclass(frozen=True)
class Finding:
    """One thing that must be mended before a policy set is taken."""

    policy: str
    file: str
    line: int
    message: str
    fix: str


def read_rules(annotations: Mapping[str, Mapping[str, str]], layers: Mapping[str, Layer]) -> dict[str, Rule]:
    """The rules of a loaded set, by policy id; `layers` maps each file to its layer.

    Raises:
        Invalid: some policy does not say what it must; `details["findings"]` holds all complaints.
    """
    findings = [finding for words in annotations.values() for finding in lint(words, layers[words["file"]])]
    if findings:
        first = findings[0]
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        shown: list[JsonObject] = [dict(vars(finding)) for finding in findings]
        msg = f"{first.file}:{first.line}: {first.policy}: {first.message}{more}"
        raise Invalid(
            msg,
            code="policy.lint",
            fix=first.fix,
            details={"file": first.file, "line": first.line, "findings": shown},
        )
    return {identity: _rule(words, layers[words["file"]]) for identity, words in annotations.items()}


def lint(words: Mapping[str, str], layer: Layer) -> list[Finding]:
    """Everything wrong with one policy's annotations (as `PolicyHandle.annotations` gives them) in its layer."""
    return [
        Finding(policy=words["id"], file=words["file"], line=int(words["line"]), message=message, fix=fix)
        for message, fix in (*_common_faults(words), *_effect_faults(words), *_layer_faults(words, layer))
    ]


def _common_faults(words: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    if not _ID.fullmatch(words["id"]):
        yield "its @id is not a short lower-case name", 'Write it as @id("team.what-it-is-about").'
    if not 0 < len(words.get("reason", "")) <= REASON_CHARACTERS_MAX:
        yield "it has no @reason (1 to 300 characters)", 'Add @reason("why, in words for the one who is refused").'
    if words.get("risk") not in RISKS:
        yield "it has no @risk", f"Add @risk with one of {', '.join(RISKS)}."


def _effect_faults(words: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    forbids = words["effect_word"] == "forbid"
    effect = words.get("effect", "") if forbids else "permit"
    if effect not in _ALLOWED or forbids == (effect == "permit"):
        yield "it forbids and has no @effect", 'Add @effect("forbid"), @effect("approve") or @effect("confirm").'
        return
    for unknown in sorted(words.keys() - _ALLOWED[effect] - {"effect_word", "file", "line", "granted"}):
        yield f"@{unknown} means nothing here", f"Remove it; known here: {', '.join(sorted(_ALLOWED[effect]))}."
    yield from _value_faults(words, effect)
    soft = effect in {"approve", "confirm"}
    if soft and words["granted"] != "unless":
        yield (
            "it asks for a yes but would not step aside once it is there",
            "Add, as a condition of its own: unless { context.granted }",
        )
    if not soft and words["granted"]:
        yield (
            "it looks at context.granted, which is for soft forbids alone",
            'Remove it, or make the policy @effect("approve") with unless { context.granted }.',
        )


def _value_faults(words: Mapping[str, str], effect: str) -> Iterable[tuple[str, str]]:
    if words.get("details", "protected") not in DETAILS:
        yield f"@details({words['details']}) is unknown", f"Use one of {', '.join(sorted(DETAILS))}."
    if words.get("owner_may_approve", "true") != "true":
        yield "@owner_may_approve is true or absent", 'Write @owner_may_approve("true"), or remove it.'
    if effect == "approve" and not _is_count(words.get("approvals"), APPROVALS_MAX):
        yield "it does not say how many people must approve", f'Add @approvals("1"), at most {APPROVALS_MAX}.'
    if effect == "confirm" and not _is_count(words.get("confirmations"), CONFIRMATIONS_MAX):
        yield "it does not say how often the asker confirms", f'Add @confirmations("1"), at most {CONFIRMATIONS_MAX}.'
    if "roles" in words and not all(_ROLE.fullmatch(role) for role in _roles(words)):
        yield "its @roles are not names", 'Write @roles("operator,sre-lead").'


def _layer_faults(words: Mapping[str, str], layer: Layer) -> Iterable[tuple[str, str]]:
    if words["effect_word"] == "permit" and layer != "project":
        yield (
            "this layer holds forbids only, and this policy permits",
            "Write it as a forbid; what is permitted is decided in the project's first policies folder.",
        )
    if layer == "invariant" and words.get("effect") != "forbid":
        yield "an invariant is a hard forbid", 'Write @effect("forbid").'
    if layer != "invariant" and words["id"].startswith("invariant."):
        yield "ids that begin with `invariant.` are taken", "Choose another @id."


def _rule(words: Mapping[str, str], layer: Layer) -> Rule:
    effect = _EFFECTS[words.get("effect", "permit")]
    requirement = None
    if effect in {"approve", "confirm"}:
        requirement = Requirement(
            policy=words["id"],
            approvals=int(words.get("approvals", "0")),
            confirmations=int(words.get("confirmations", "0")),
            roles=tuple(_roles(words)),
        )
    return Rule(
        effect=effect,
        reason=Reason(policy=words["id"], reason=words["reason"], effect=effect, risk=_RISKS[words["risk"]]),
        requirement=requirement,
        owner_may_approve=words.get("owner_may_approve") == "true",
        details=words.get("details", ""),
        instead=words.get("instead", ""),
        layer=layer,
        file=words["file"],
        line=int(words["line"]),
    )


def _roles(words: Mapping[str, str]) -> list[str]:
    return [role.strip() for role in words["roles"].split(",")] if "roles" in words else []


def _is_count(text: str | None, most: int) -> bool:
    return text is not None and text.isascii() and text.isdecimal() and 1 <= int(text) <= most


_EFFECTS: dict[str, Effect] = {"permit": "permit", "forbid": "forbid", "approve": "approve", "confirm": "confirm"}
_RISKS: dict[str, Risk] = {risk: risk for risk in RISKS}
