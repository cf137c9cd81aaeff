"""What is left out of a question to the policy engine never mattered: the whole set answers the same."""

from __future__ import annotations

import json
from itertools import product

import cedarpy
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from interlock.adapters import cedar_slices
from interlock.adapters.cedar import CedarEngine, CedarHandle
from interlock.adapters.cedar_slices import needs_of
from interlock.core.errors import Invalid
from interlock.core.model import JsonObject
from interlock.engine.policy.load import schema_for

ACTIONS = ("unit.restart", "file.write")
SCHEMA = schema_for(ACTIONS)
TEXTS = ("a", "b", 'c"\\', "unit:é")
ATTRIBUTES = ("targets", "operations")
PADDING = [
    f'@id("padding-{number}") forbid (principal, action, resource is Plan) '
    f'when {{ resource.targets.contains("never-{number}") }};'
    for number in range(60)
]
"""So many that it is always worth while to leave some out."""

SCOPES_OF_PRINCIPALS = (
    "principal",
    "principal is Agent",
    "principal is Person",
    'principal == Agent::"x"',
    'principal == Person::"x"',
    'principal in Role::"operator"',
    'principal is Person in Role::"operator"',
)
SCOPES_OF_ACTIONS = (
    "action",
    'action == Action::"unit.restart"',
    'action == Action::"file.write"',
    'action == Action::"view"',
    'action in Action::"run"',
    'action in Action::"control"',
    'action in [Action::"governance", Action::"file.write"]',
    'action in [Action::"rollback"]',
)
SCOPES_OF_RESOURCES = ("resource", "resource is Plan", "resource is View", 'resource == View::"runs"')
PRINCIPALS = st.sampled_from(SCOPES_OF_PRINCIPALS)
ACTION_SCOPES = st.sampled_from(SCOPES_OF_ACTIONS)
PLAN_ATOMS = st.sampled_from(
    [
        "resource.changes",
        "!resource.changes",
        "context.frozen",
        "resource has own",
        "principal is Agent",
        'principal is Person in Role::"operator"',
        'principal.name == "x"',
        'principal.roles.contains("operator")',
        'principal has via && principal.via == "t"',
        "resource.risk_level >= 2",
        'resource.risk == "low"',
        '["low", "none"].contains(resource.risk)',
        "resource.targets.isEmpty()",
        'resource.targets.containsAll(["a", "b"])',
        'resource.targets == ["a"]',
        'if resource.opaque then resource.targets.contains("a") else resource.operations.contains("b")',
        'action in [Action::"control", Action::"unit.restart"]',
        # These fail when they are evaluated.
        "resource.risk_level + 9223372036854775807 > 5",
        "resource.risk_level * 9223372036854775807 > 5",
    ]
)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


CONTAINS = st.builds(
    lambda name, text: f"resource.{name}.contains({_quoted(text)})", st.sampled_from(ATTRIBUTES), st.sampled_from(TEXTS)
)
CONTAINS_ANY = st.builds(
    lambda name, texts: f"resource.{name}.containsAny([{', '.join(map(_quoted, texts))}])",
    st.sampled_from(ATTRIBUTES),
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3),
)
EXPRESSIONS = st.recursive(
    CONTAINS | CONTAINS_ANY | CONTAINS | PLAN_ATOMS,
    lambda inner: (
        st.builds("({} && {})".format, inner, inner)
        | st.builds("({} || {})".format, inner, inner)
        | st.builds("!({})".format, inner)
    ),
    max_leaves=6,
)
CONDITIONS = st.lists(
    st.builds("{} {{ {} }}".format, st.sampled_from(["when", "when", "unless"]), EXPRESSIONS), max_size=3
)
PLAN_POLICIES = st.builds(
    lambda effect, principal, action, conditions: (
        f"{effect} ({principal}, {action}, resource is Plan) {' '.join(conditions)};"
    ),
    st.sampled_from(["permit", "forbid"]),
    PRINCIPALS,
    ACTION_SCOPES,
    CONDITIONS,
)
VIEW_POLICIES = st.builds(
    "{} ({}, {}, resource{});".format,
    st.sampled_from(["permit", "forbid"]),
    PRINCIPALS,
    st.sampled_from(["action", 'action == Action::"view"']),
    st.sampled_from(["", " is View", ' == View::"runs"']),
)
POLICIES = st.lists(PLAN_POLICIES | PLAN_POLICIES | PLAN_POLICIES | VIEW_POLICIES, min_size=1, max_size=6)


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[JsonObject], list[JsonObject]]:
    """Requests and entities as ours are, of which some are broken."""
    principal = {"type": draw(st.sampled_from(["Agent", "Person", "Service"])), "id": draw(st.sampled_from(["x", "y"]))}
    roles = draw(st.sampled_from([[], ["operator"]]))
    attributes: JsonObject = {
        "kind": "agent",
        "name": principal["id"],
        "roles": [*roles],
        "autonomy": "ask",
        "declared": True,
    }
    moment: JsonObject = {"hour": 1, "minute": 2, "weekday": "monday"}
    if draw(st.integers(0, 4)) == 0:
        resource, action, context = {"type": "View", "id": "runs"}, "view", moment
        seen: JsonObject = {"name": "runs", "discloses": "content"}
    else:
        resource, action = {"type": "Plan", "id": "p"}, draw(st.sampled_from([*ACTIONS, "interlock.freeze"]))
        names = ("granted", "break_glass", "frozen", "agents_paused", "held", "in_block_window", "outside_allow_window")
        context = {**moment, **dict.fromkeys(names, False), "frozen": draw(st.booleans())}
        seen = draw(plan_attributes())
    requests: list[JsonObject] = [
        {
            "principal": {**principal},
            "action": {"type": "Action", "id": action},
            "resource": {**resource},
            "context": context,
        }
    ]
    if draw(st.booleans()):
        requests.append({**requests[0], "context": {**context, **({"granted": True} if "granted" in context else {})}})
    entities: list[JsonObject] = [
        {"uid": {**principal}, "attrs": attributes, "parents": [{"type": "Role", "id": role} for role in roles]},
        {"uid": {**resource}, "attrs": seen, "parents": []},
    ]
    missing = draw(st.sampled_from([None, None, None, None, 0, 1]))
    if missing is not None:
        del entities[missing]
    return requests, entities


@st.composite
def plan_attributes(draw: st.DrawFn) -> JsonObject:
    """What a policy sees of a plan, whole or not."""
    texts = st.lists(st.sampled_from([*TEXTS, "never-3", "else"]), max_size=3, unique=True)
    found: JsonObject = {
        **{name: [] for name in ("target_kinds", "target_classes", "operation_kinds")},
        **{name: [*draw(texts)] for name in ATTRIBUTES},
        "risk": "low",
        "risk_level": draw(st.sampled_from([0, 1, 2])),
        "discloses": "content",
        **dict.fromkeys(("opaque", "undoable", "protected", "reaches_protected", "own"), False),
        "changes": draw(st.booleans()),
    }
    fault = draw(st.sampled_from(["", "", "", "", "missing", "a number", "no list"]))
    if fault == "missing":
        del found[draw(st.sampled_from(["changes", *ATTRIBUTES]))]
    elif fault:
        found["targets"] = [7] if fault == "a number" else "a"
    return found


def _loaded(policies: list[str]) -> CedarHandle:
    numbered = [f'@id("p{number}") {text}' for number, text in enumerate(policies)]
    return CedarEngine().load([("generated.cedar", "\n".join([*numbered, *PADDING]))], SCHEMA)


def _plan_question(**attributes: JsonValue) -> tuple[list[JsonObject], list[JsonObject]]:
    context: JsonObject = {"hour": 1, "minute": 2, "weekday": "monday"}
    names = ("granted", "break_glass", "frozen", "agents_paused", "held", "in_block_window", "outside_allow_window")
    context |= dict.fromkeys(names, False)
    principal: JsonObject = {"type": "Agent", "id": "x"}
    resource: JsonObject = {"type": "Plan", "id": "p"}
    seen: JsonObject = {
        **{name: [] for name in (*ATTRIBUTES, "target_kinds", "target_classes", "operation_kinds")},
        **dict.fromkeys(("opaque", "undoable", "protected", "reaches_protected", "own", "changes"), False),
        "risk": "low",
        "risk_level": 1,
        "discloses": "content",
        **attributes,
    }
    told: JsonObject = {"kind": "agent", "name": "x", "roles": [], "autonomy": "ask", "declared": True}
    action: JsonObject = {"type": "Action", "id": "unit.restart"}
    request: JsonObject = {"principal": principal, "action": action, "resource": resource, "context": context}
    return [request], [
        {"uid": principal, "attrs": told, "parents": []},
        {"uid": resource, "attrs": seen, "parents": []},
    ]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(POLICIES, st.lists(questions(), min_size=1, max_size=5))
@example(
    [
        'permit (principal, action in Action::"run", resource is Plan);',
        'forbid (principal, action, resource is Plan) when { resource.targets.contains("a") || resource.changes };',
    ],
    [_plan_question(changes=True)],
)
def test_the_slice_answers_as_the_whole_set(
    policies: list[str], asked: list[tuple[list[JsonObject], list[JsonObject]]]
) -> None:
    """One after another to the same handle, because slices are kept."""
    try:
        handle = _loaded(policies)
    except Invalid:
        return  # it does not fit the schema, and could not come into force
    for requests, entities in asked:
        assert handle.ask(requests, entities) == handle._answers(handle._policies, requests, entities)


ATOMS = (
    'resource.targets.contains("a")',
    'resource.operations.containsAny(["a", "b"])',
    "resource.risk_level + 9223372036854775807 > 5",  # fails
    "resource.changes",
    'principal.name == "x"',
    "context.frozen",
)


def _small_conditions() -> list[str]:
    """Every way in which two of the atoms, or three of the first four, can stand together."""
    both, bodies = list(product(ATOMS, repeat=2)), []
    for one, other in both:
        bodies += [f"{no}({one}) {sign} ({other})" for no in ("", "!") for sign in ("&&", "||")]
    for first, second, third in product(ATOMS[:4], repeat=3):
        for inner, outer in product(("&&", "||"), repeat=2):
            bodies.append(f"(({first}) {inner} ({second})) {outer} ({third})")
            bodies.append(f"({first}) {inner} (({second}) {outer} ({third}))")
    words = list(product(("when", "unless"), repeat=2))
    return [
        *(f"when {{ {body} }}" for body in bodies),
        *(f"{word} {{ {one} }} {last} {{ {other} }}" for one, other in both for word, last in words),
    ]


def test_every_small_condition_answers_as_in_the_whole_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """One policy by itself: where a set holds one that fails, nothing can be told of the others."""
    monkeypatch.setattr(cedar_slices, "LEFT_OUT_MIN", 0)
    engine, left_out = CedarEngine(), 0
    asked = [
        _plan_question(targets=[*targets], operations=[*operations], changes=changes)
        for targets, operations, changes in product(((), ("a",)), ((), ("b",)), (False, True))
    ]
    for condition in _small_conditions():
        text = f'@id("p0") permit (principal, action, resource is Plan) {condition};'
        handle = engine.load([("generated.cedar", text)], SCHEMA)
        for requests, entities in asked:
            whole = handle._answers(handle._policies, requests, entities)
            assert handle.ask(requests, entities) == whole, (condition, entities)
            left_out += not len(handle._slices.of(requests, entities))
    assert left_out > len(asked) * 50


def test_every_scope_answers_as_in_the_whole_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar_slices, "LEFT_OUT_MIN", 0)
    scopes = product(SCOPES_OF_PRINCIPALS, SCOPES_OF_ACTIONS, SCOPES_OF_RESOURCES)
    permits = [f"permit ({', '.join(scope)});" for scope in scopes]
    fitting = [text for text in permits if _fits(text)]
    assert len(fitting) > 50
    handle = _loaded(fitting)
    requests, entities = _plan_question()
    view: JsonObject = {"type": "View", "id": "runs"}
    moment: JsonObject = {"hour": 1, "minute": 2, "weekday": "monday"}
    for kind, name, action in product(("Agent", "Person"), ("x", "y"), (*ACTIONS, "interlock.freeze", "view")):
        principal: JsonObject = {"type": kind, "id": name}
        request: JsonObject = {**requests[0], "principal": principal, "action": {"type": "Action", "id": action}}
        seen: list[JsonObject] = [
            {**entities[0], "uid": principal, "parents": [{"type": "Role", "id": "operator"}]},
            entities[1],
        ]
        if action == "view":
            request |= {"resource": view, "context": moment}
            seen[1] = {"uid": view, "attrs": {"name": "runs", "discloses": "content"}, "parents": []}
        answers = handle.ask([request], seen)
        assert answers == handle._answers(handle._policies, [request], seen)
        assert answers[0].policies
        assert len(handle._slices.of([request], seen)) < len(handle._policies) / 2


def _fits(text: str) -> bool:
    try:
        CedarEngine().load([("generated.cedar", f'@id("p") {text}')], SCHEMA)
    except Invalid:
        return False
    return True


def test_the_rules_of_other_targets_are_left_out() -> None:
    """Else all of this would be for nothing: the property holds of a slicer that leaves nothing out."""
    handle = _loaded(['permit (principal, action in Action::"run", resource is Plan);'])
    assert handle.ask(*_plan_question())[0].policies == ("p0",)
    assert handle.ask(*_plan_question(targets=["never-7"]))[0].policies == ("padding-7",)
    assert [len(handle._slices.of(*_plan_question(targets=[*names]))) for names in ((), ("never-7",))] == [1, 2]
    assert handle._slices.of(*_plan_question(targets=["never-1", "never-2", "never-3", "never-4"])) is handle._policies


@pytest.mark.parametrize("bound", ["KINDS_MAX", "KEPT_POLICIES_MAX", "SLICE_POLICIES_MAX"])
def test_where_there_is_no_room_for_a_slice_the_whole_set_is_asked(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar_slices, bound, 0 if bound.startswith("SLICE") else 1)
    permit = 'permit (principal is {}, action in Action::"run", resource is Plan);'
    handle = _loaded([permit.format(kind) for kind in ("Agent", "Person")])
    requests, entities = _plan_question()
    sizes = []
    for kind in ("Agent", "Person", "Agent"):
        principal: JsonObject = {"type": kind, "id": "x"}
        asked = [{**requests[0], "principal": principal}], [{**entities[0], "uid": principal}, entities[1]]
        assert handle.ask(*asked)[0].allowed
        sizes.append(len(handle._slices.of(*asked)))
    assert sizes == ([62, 62, 62] if bound.startswith("SLICE") else [1, 62, 1])


@pytest.mark.parametrize(
    ("conditions", "needs"),
    [
        ('when { resource.targets.contains("a") }', {("targets", "a")}),
        ('when { resource.targets.containsAny(["a", "b"]) }', {("targets", "a"), ("targets", "b")}),
        (
            'when { resource.targets.contains("a") || resource.operations.contains("b") }',
            {("targets", "a"), ("operations", "b")},
        ),
        ('when { resource.changes && resource.targets.contains("a") }', {("targets", "a")}),
        ('unless { context.granted } when { resource.targets.contains("a") }', {("targets", "a")}),
        ('when { resource.targets.contains("a") && resource.risk_level + 1 > 2 }', {("targets", "a")}),
        ('when { resource.targets.contains("a") || resource.changes }', None),
        ('when { !resource.targets.contains("a") }', None),
        ('unless { resource.targets.contains("a") }', None),
        ('when { resource.risk_level + 1 > 2 && resource.targets.contains("a") }', None),
        ('when { resource.risk_level + 1 > 2 } when { resource.targets.contains("a") }', None),
        ('unless { principal.name == "x" } when { resource.targets.contains("a") }', None),
        ('when { principal.roles.contains("a") }', None),
        ('when { ["a"].contains(resource.risk) }', None),
        ("", None),
    ],
)
def test_what_a_condition_needs(conditions: str, needs: set[tuple[str, str]] | None) -> None:
    text = f"forbid (principal, action, resource is Plan) {conditions};"
    policy = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]
    assert needs_of(policy["conditions"]) == needs
