"""Cedar as the policy engine, through cedarpy; nothing it says in doubt is ever taken for a yes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy
from pydantic_core import to_json

from interlock.adapters.cedar_bounds import Size, require_bounded_set
from interlock.adapters.cedar_slices import Slices
from interlock.core.errors import Invalid
from interlock.core.model import JsonObject
from interlock.core.ports import PolicyAnswer

ERROR_CHARACTERS_MAX = 400
MESSAGE_CHARACTERS_MAX = 1000
"""Of what Cedar says of a text that it does not take: it may repeat much of it."""

SET_BYTES_MAX = 8 * 1024 * 1024
PIECE_OPERATORS_MAX = 200
PIECE_ELEMENTS_MAX = 2_000
PIECE_POLICIES_MAX = 200
"""How much is checked at once: Cedar lets no other thread of this process run meanwhile, a quarter of a second here."""

RESERVED_ANNOTATIONS = frozenset({"effect_word", "file", "line", "granted"})

_SYNTAX_FIX = "Mend the policy that begins on this line; every policy ends with a semicolon."
_TOKEN = re.compile(r'//[^\n\r]*|"(?:\\.|[^"\\])*"|;|[^;"/\s]+|/|"', re.DOTALL)
_GRANTED = {".": {"left": {"Var": "context"}, "attr": "granted"}}


@dataclass(frozen=True)
class _Statement:
    """One policy of one file, with the line (from 1) on which it begins."""

    file: str
    line: int
    text: str
    size: Size


class CedarEngine:
    """Loads Cedar policies; fulfils `core.ports.PolicyEngine`."""

    def load(self, policies: Sequence[tuple[str, str]], schema: str) -> CedarHandle:
        """Parse and validate (file name, text) pairs against a schema in Cedar's own syntax.

        Raises:
            Invalid: something is over a bound (and was shown to no library), does not parse or validate, a policy has
                no @id or one that is taken, or is a template. `details` holds `file` and `line` where they are known.
        """
        if sum(len(text) for _, text in policies) > SET_BYTES_MAX:
            msg = f"the policies are over {SET_BYTES_MAX} characters together"
            raise Invalid(msg, code="policy.size", fix="Remove policies; generated ones belong into facts, not texts.")
        parsed_schema = _parse_schema(schema)
        statements = [statement for file, text in policies for statement in _statements(file, text)]
        require_bounded_set(statement.size for statement in statements)
        whole = "\n".join(statement.text for statement in statements)
        parsed = _parse(whole, statements)
        digest = hashlib.sha256(json.dumps([schema, list(policies)]).encode()).hexdigest()
        in_order = [policy for piece in _pieces(statements) for policy in _checked(piece, parsed_schema)]
        annotations = _annotations(in_order, statements)
        return CedarHandle(parsed, parsed_schema, annotations, digest, [each.text for each in statements], in_order)


class CedarHandle:
    """A parsed, validated policy set; fulfils `core.ports.PolicyHandle`."""

    def __init__(
        self,
        policies: cedarpy.PolicySet,
        schema: cedarpy.Schema,
        annotations: dict[str, dict[str, str]],
        digest: str,
        texts: Sequence[str],
        written: Sequence[dict[str, Any]],
    ) -> None:
        self.annotations = annotations
        self.digest = digest
        self._policies = policies
        self._schema = schema
        self._slices = Slices(policies, texts, written, cedarpy.PolicySet.from_str, self._scopes_that_hold)

    def ask(self, requests: Sequence[JsonObject], entities: Sequence[JsonObject]) -> tuple[PolicyAnswer, ...]:
        """Answer several requests over the same entities. Whatever goes wrong comes back in `errors`.

        Cedar skips a policy whose evaluation fails, a forbid as well; the caller must refuse when there are errors.
        """
        try:
            asked = self._slices.of(requests, entities)
            answers = self._answers(asked, requests, entities)
            if asked is not self._policies and any(answer.errors for answer in answers):
                # An error calls a policy by its number in the whole set.
                answers = self._answers(self._policies, requests, entities)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of the binding is a BaseException, and a refusal as well
            return (_failed(f"{type(error).__name__}: {error}"),) * len(requests)
        if len(answers) != len(requests):
            return (_failed(f"{len(answers)} answers to {len(requests)} requests"),) * len(requests)
        return answers

    def _answers(
        self, policies: cedarpy.PolicySet, requests: Sequence[JsonObject], entities: Sequence[JsonObject]
    ) -> tuple[PolicyAnswer, ...]:
        # Given as values, contexts and entities would be written by json.dumps, at several times the cost.
        told = [{**request, "context": to_json(request["context"]).decode()} for request in requests]
        results = cedarpy.is_authorized_batch(told, policies, to_json(entities).decode(), self._schema)
        return tuple(_answer(result) for result in results)

    def _scopes_that_hold(self, scopes: Sequence[JsonObject], request: JsonObject) -> frozenset[int] | None:
        """As `Slices` asks: each scope is a permit of its own, and an answer names every permit that holds."""
        numbered = {str(number): scope for number, scope in enumerate(scopes)}
        text = json.dumps({"staticPolicies": numbered, "templates": {}, "templateLinks": []})
        told = {**request, "context": to_json(request["context"]).decode()}
        (result,) = cedarpy.is_authorized_batch([told], cedarpy.PolicySet.from_json_str(text), "[]", self._schema)
        if result.diagnostics.errors or result.decision is cedarpy.Decision.NoDecision:
            return None
        return frozenset(int(number) for number in result.diagnostics.reasons)


def _answer(result: cedarpy.AuthzResult) -> PolicyAnswer:
    diagnostics = result.diagnostics
    errors = tuple([str(error)[:ERROR_CHARACTERS_MAX] for error in diagnostics.errors])
    named = diagnostics.id_annotations_by_reason
    decision = result.decision
    if decision is cedarpy.Decision.NoDecision and not errors:
        errors = ("no decision",)
    if len(named) != len(diagnostics.reasons):
        errors = (*errors, "a policy without @id took part")
    return PolicyAnswer(
        allowed=decision is cedarpy.Decision.Allow and not errors,
        policies=tuple(sorted(named.values())),
        errors=errors,
    )


def _failed(message: str) -> PolicyAnswer:
    return PolicyAnswer(allowed=False, policies=(), errors=(message[:ERROR_CHARACTERS_MAX],))


def _parse_schema(schema: str) -> cedarpy.Schema:
    try:
        return cedarpy.Schema.from_str(schema)
    except ValueError as error:
        msg = f"the policy schema is not valid: {error}"
        raise Invalid(
            msg, code="policy.schema", fix="Reinstall Interlock, or mend the action that was added."
        ) from error


def _statements(file: str, text: str) -> list[_Statement]:
    """Cut a file into its policies, so that a complaint can name a line; Cedar itself names none.

    Raises:
        Invalid: the text does not end with a semicolon, a quotation mark is not closed, or a policy is over a bound.
    """
    found: list[_Statement] = []
    start: int | None = None
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word.startswith("//"):
            continue
        if start is None:
            start = token.start()
        if word == '"':
            message = "a quotation mark is not closed"
            raise _refused(message, file, _line(text, token.start()), code="policy.syntax")
        if word == ";":
            found.append(_statement(file, _line(text, start), text[start : token.end()]))
            start = None
    if start is not None:
        message = "the last policy does not end with a semicolon"
        raise _refused(message, file, _line(text, start), code="policy.syntax")
    return found


def _statement(file: str, line: int, text: str) -> _Statement:
    size = Size.of(text)
    for message, fix in size.faults():
        raise _refused(message, file, line, code="policy.size", fix=fix)
    return _Statement(file, line, text, size)


def _pieces(statements: Sequence[_Statement]) -> Iterator[list[_Statement]]:
    """The statements in order, cut so that each piece is checked soon; a single policy is never over the bounds."""
    piece: list[_Statement] = []
    operators = elements = 0
    for statement in statements:
        operators, elements = operators + statement.size.operators, elements + statement.size.elements
        full = operators > PIECE_OPERATORS_MAX or elements > PIECE_ELEMENTS_MAX or len(piece) == PIECE_POLICIES_MAX
        if piece and full:
            yield piece
            piece, operators, elements = [], statement.size.operators, statement.size.elements
        piece.append(statement)
    if piece:
        yield piece


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _parse(whole: str, statements: Sequence[_Statement]) -> cedarpy.PolicySet:
    try:
        parsed = cedarpy.PolicySet.from_str(whole)
    except ValueError as error:
        for statement in statements:
            try:
                cedarpy.PolicySet.from_str(statement.text)
            except ValueError as cause:
                raise _refused(str(cause), statement.file, statement.line, code="policy.syntax") from error
        msg = f"the policies do not parse: {error}"
        raise Invalid(msg, code="policy.syntax", fix=_SYNTAX_FIX) from error
    if parsed.templates() or len(parsed) != len(statements):
        for statement in statements:
            if len(cedarpy.PolicySet.from_str(statement.text)) != 1:
                message = "templates (?principal, ?resource) are not used here"
                raise _refused(message, statement.file, statement.line, code="policy.template")
        msg = f"{len(statements)} policies were read and {len(parsed)} parsed"
        raise Invalid(msg, code="policy.syntax", fix=_SYNTAX_FIX)
    return parsed


def _checked(piece: Sequence[_Statement], schema: cedarpy.Schema) -> list[dict[str, Any]]:
    """Each policy in Cedar's JSON form. Raises Invalid when one does not fit the schema."""
    text = "\n".join(statement.text for statement in piece)
    _validate(text, schema, piece)
    written = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    return [written[f"policy{index}"] for index in range(len(piece))]


def _validate(whole: str, schema: cedarpy.Schema, statements: Sequence[_Statement]) -> None:
    result = cedarpy.validate_policies(whole, schema)
    if result.validation_passed:
        return
    for error in result.errors:
        statement = statements[int(error.policy_id.removeprefix("policy"))] if error.policy_id else None
        message = error.error.removeprefix(f"for policy `{error.policy_id}`, ")
        file, line = (statement.file, statement.line) if statement else (None, None)
        raise _refused(message, file, line, code="policy.schema_mismatch")
    msg = "the policies do not fit the schema"
    raise Invalid(msg, code="policy.schema_mismatch", fix="Compare them with interlock.cedarschema.")


def _annotations(written: Sequence[dict[str, Any]], statements: Sequence[_Statement]) -> dict[str, dict[str, str]]:
    """What each policy says about itself, by @id, with `effect_word`, `file`, `line` and `granted`."""
    found: dict[str, dict[str, str]] = {}
    for policy, statement in zip(written, statements, strict=True):
        annotations = {key: value or "" for key, value in policy.get("annotations", {}).items()}
        identity = annotations.get("id", "")
        if not identity:
            message = "a policy has no @id"
            raise _refused(message, statement.file, statement.line, code="policy.id")
        if identity in found:
            first = found[identity]
            message = f"@id({json.dumps(identity)}) is taken by {first['file']}:{first['line']}"
            raise _refused(message, statement.file, statement.line, code="policy.id")
        if taken := RESERVED_ANNOTATIONS & annotations.keys():
            message = f"@{min(taken)} is a word of ours and cannot be an annotation"
            raise _refused(message, statement.file, statement.line, code="policy.annotation")
        found[identity] = annotations | {
            "effect_word": policy["effect"],
            "file": statement.file,
            "line": str(statement.line),
            "granted": _use_of_granted(policy["conditions"]),
        }
    return found


def _use_of_granted(conditions: list[dict[str, Any]]) -> str:
    """`unless` when the policy steps aside exactly by `unless { context.granted }`, `used` for any other mention."""
    others = [each for each in conditions if not (each["kind"] == "unless" and each["body"] == _GRANTED)]
    if '"granted"' in json.dumps(others):
        return "used"
    return "unless" if len(others) < len(conditions) else ""


def _refused(message: str, file: str | None, line: int | None, *, code: str, fix: str | None = None) -> Invalid:
    fixes = {
        "policy.syntax": _SYNTAX_FIX,
        "policy.template": "Write the policy for all and name the principal in its condition.",
        "policy.schema_mismatch": "Use the names and types of interlock.cedarschema; write `resource is Plan`.",
        "policy.id": 'Give it an @id("team.what-it-is-about") that no other policy has.',
        "policy.annotation": "Remove the annotation.",
    }
    where = f"{file}:{line}: " if file else ""
    shown = message if len(message) <= MESSAGE_CHARACTERS_MAX else f"{message[:MESSAGE_CHARACTERS_MAX]}..."
    return Invalid(f"{where}{shown}", code=code, fix=fix or fixes[code], details={"file": file, "line": line})
