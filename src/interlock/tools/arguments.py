"""Checks arguments against the JSON schema that a tool's description holds; a hostile schema cannot hang or fetch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from pydantic import JsonValue
from referencing import Registry
from referencing.exceptions import Unresolvable

from interlock.core.errors import Invalid
from interlock.core.model import JsonObject

STEPS_MAX = 20_000
PROBLEMS_SHOWN = 5
LEFT_TO_THE_SERVER = frozenset({"pattern", "format"})
"""Expressions of others can take for ever to match, so these two are for the server to look at."""

REFUSED = frozenset({"patternProperties", "$dynamicRef", "$recursiveRef"})
"""What cannot be looked at safely, or by these means."""


class _TooMuch(Exception):
    """The schema asks for more work than arguments of any size should need."""


def require_usable(schema: JsonObject) -> None:
    """Refuse a schema against which arguments could not be checked.

    Raises: Invalid.
    """
    found = sorted(_keywords(schema) & REFUSED)
    if found or schema.get("type") != "object":
        msg = f"the tool's schema cannot be used: it has {', '.join(found) or 'another type than object'}"
        raise Invalid(msg, code="mcp.schema", fix="ask whoever makes that server for a plainer schema")
    try:
        Draft202012Validator.check_schema(schema)
        _check({}, schema)
    except (SchemaError, RecursionError, _TooMuch, Unresolvable) as error:
        msg = f"the tool's schema cannot be used: {type(error).__name__}"
        raise Invalid(msg, code="mcp.schema", fix="ask whoever makes that server to mend it") from error


def require_fitting(args: JsonObject, schema: JsonObject, where: str) -> None:
    """Refuse arguments that the schema does not allow; names that it does not list are not allowed either.

    Raises: Invalid, naming each place and never the value.
    """
    closed = {**schema, "additionalProperties": schema.get("additionalProperties", False)}
    try:
        problems = _check(args, closed)
    except (RecursionError, _TooMuch, Unresolvable) as error:
        msg = f"{where}: the arguments cannot be checked against the tool's schema: {type(error).__name__}"
        raise Invalid(msg, code="mcp.schema", fix="ask whoever makes that server for a plainer schema") from error
    if problems:
        msg = f"{where}: {'; '.join(problems)}"
        fix = "see what was accepted: interlock tools --output json, or the view outside_tools"
        raise Invalid(msg, code="args.invalid", fix=fix, details={"problems": list(problems)})


def _check(args: JsonObject, schema: JsonObject) -> tuple[str, ...]:
    left = [STEPS_MAX]

    def counted(rule: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
        def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            left[0] -= 1
            if left[0] < 0:
                raise _TooMuch
            yield from rule(validator, value, instance, schema) or ()

        return check

    rules = {name: counted(rule) for name, rule in Draft202012Validator.VALIDATORS.items()}
    rules |= {**dict.fromkeys(LEFT_TO_THE_SERVER, _nothing), "uniqueItems": counted(_unique)}
    # An empty registry: a `$ref` that leads elsewhere is not followed.
    validator = extend(Draft202012Validator, rules)(schema, registry=Registry())
    found: list[str] = []
    for error in validator.iter_errors(args):
        place = "args" + "".join(f".{part}" for part in error.absolute_path)
        found.append(f"{place}: {_in_words(error)}")
        if len(found) == PROBLEMS_SHOWN:
            break
    return tuple(found)


def _in_words(error: ValidationError) -> str:
    """What is wrong, by the schema's words alone: the value may be a secret."""
    rule, wanted = str(error.validator), error.validator_value
    if rule == "type":
        return f"should be of type {wanted if isinstance(wanted, str) else ' or '.join(wanted)}"
    if rule == "required":
        return f"some of {', '.join(map(str, wanted))} is missing"
    if rule == "additionalProperties":
        known = ", ".join(error.schema.get("properties", {})) or "none"
        return f"has a name that the tool does not know; it knows {known}"
    return f"does not meet {rule}"[:200]


def _nothing(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:  # noqa: ARG001
    return iter(())


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:  # noqa: ARG001
    """In one pass: the library compares each value with every other one, and arguments may hold very many."""
    if wanted is True and isinstance(instance, list) and len(set(map(_plain, instance))) < len(instance):
        yield ValidationError("some are the same")


def _plain(value: JsonValue) -> str:
    """Equal for what JSON schema calls equal: 1 and 1.0, and objects in whatever order."""
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list) else value


def _keywords(value: JsonValue) -> set[str]:
    """Every name in a schema, to whatever depth. The names of properties are among them, and do no harm."""
    found: set[str] = set()
    waiting: list[JsonValue] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            found |= each.keys()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return found
