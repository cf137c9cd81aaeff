"""YAML that people write, read into a model; what is wrong comes back with file, line, path and what to do."""

from __future__ import annotations

import difflib
import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from interlock.core.errors import InterlockError, Invalid
from interlock.core.model import JsonObject
from interlock.engine.model_places import Place, meant
from interlock.lib.strict_yaml import Document, YamlFault, read_yaml
from interlock.lib.strict_yaml import Path as YamlPath

SHOWN_CHARACTERS_MAX = 60

Model = TypeVar("Model", bound=BaseModel)

_YAML_1_1_BOOLEANS = frozenset({"yes", "no", "on", "off", "y", "n"})


def read_document(body: bytes, file: str, code: str) -> Document:
    """The data and its lines.

    Raises:
        Invalid: it is not plain YAML, or not a mapping. An empty text is an empty mapping.
    """
    try:
        document = read_yaml(body)
    except YamlFault as fault:
        raise invalid(file, [fault_at((), fault.line, fault.message, fault.fix)], code) from fault
    if document.data is None:
        return Document(data={}, lines=document.lines)
    if not isinstance(document.data, dict):
        raise invalid(
            file, [fault_at((), 1, "a mapping of keys to values is expected", "Begin with `key: value`.")], code
        )
    return document


def to_model(model: type[Model], document: Document, file: str, code: str, more: JsonObject | None = None) -> Model:
    """What a document says, as a model; `more` is added to its top level.

    Raises:
        Invalid: it does not fit. `details` holds `file`, `line` and `path` of the first fault, and `faults` with all.
    """
    try:
        # Strict on scalars, so that a number is never silently taken for text; in JSON a list may become a tuple.
        return model.model_validate_json(json.dumps({**document.data, **(more or {})}), strict=True)
    except ValidationError as error:
        faults = Faults(document)
        for place, detail in meant(model, document.data, error.errors(include_url=False)):
            _add_detail(faults, place, detail)
        raise invalid(file, faults.found, code) from error


class Faults:
    """What was found wrong so far, each with its line."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.found: list[JsonObject] = []

    def add(self, path: YamlPath, message: str, fix: str) -> None:
        """Note one fault at a path."""
        line, file = self.document.line_of(path), self.document.file_of(path)
        self.found.append(fault_at(path, line, message, fix, file))


def fault_at(path: YamlPath, line: int | None, message: str, fix: str, file: str | None = None) -> JsonObject:
    """One fault as it is shown; with its `file` where several were laid over each other."""
    fault: JsonObject = {"path": written(path), "line": line, "message": message, "fix": fix}
    return fault if file is None else {"file": file, **fault}


def written(path: YamlPath) -> str:
    """`windows[0].from`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def invalid(file: str, faults: list[JsonObject], code: str) -> Invalid:
    """The error that tells the first fault and carries all of them."""
    first = faults[0]
    file = str(first.get("file") or file)
    line = f":{first['line']}" if first["line"] else ""
    where = f" {first['path']}:" if first["path"] else ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Invalid(
        f"{file}{line}:{where} {first['message']}{more}",
        code=code,
        fix=str(first["fix"]),
        details={"file": file, "line": first["line"], "path": first["path"], "faults": faults},
    )


def faults_of(error: InterlockError) -> list[JsonObject]:
    """The faults that an error carries, if it is one of `invalid`."""
    found = error.details.get("faults")
    return [fault for fault in found if isinstance(fault, dict)] if isinstance(found, list) else []


def _add_detail(faults: Faults, place: Place, detail: ErrorDetails) -> None:
    """One complaint of the model, in our words."""
    path = place.path
    kind = detail["type"]
    given = detail["input"]
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        _add_tag(faults, path, detail)
    elif kind == "extra_forbidden":
        known = place.keys
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        fix = f"Did you mean `{near[0]}`?" if near else f"Known here: {', '.join(known) or 'nothing'}."
        faults.add(path, f"unknown key `{path[-1]}`", fix)
    elif kind == "missing":
        faults.add(path, f"`{path[-1]}` is missing", f"Add `{path[-1]}: ...`.")
    elif kind == "string_type":
        faults.add(path, f"this is {_shown(given)}, and text is expected", "Put it in quotes if it is meant as text.")
    elif kind == "bool_type" and str(given).lower() in _YAML_1_1_BOOLEANS:
        faults.add(path, f"`{given}` is text here", "Write true or false.")
    elif kind in {"tuple_type", "list_type"}:
        faults.add(path, f"this is {_shown(given)}, and a list is expected", "Write it as a list: [a, b].")
    else:
        message = detail["msg"].removeprefix("Value error, ")
        faults.add(path, message[:1].lower() + message[1:], f"Change the value of `{written(path)}`.")


def _shown(given: object) -> str:
    text = json.dumps(given, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}..."


def _add_tag(faults: Faults, path: YamlPath, detail: ErrorDetails) -> None:
    """The key that says which of several models is meant is missing, or says none of them."""
    told = detail.get("ctx", {})
    key = str(told.get("discriminator", "kind")).strip("'")
    allowed = [word.strip("' ") for word in str(told.get("expected_tags", "")).split(",") if word.strip("' ")]
    if not allowed:
        faults.add((*path, key), f"`{key}` is missing", f"Add `{key}: ...`.")
        return
    given = str(told.get("tag"))
    near = difflib.get_close_matches(given, allowed, n=1)
    fix = f"Did you mean `{near[0]}`? " if near else ""
    faults.add((*path, key), f"`{given}` is no {key}", f"{fix}Allowed: {', '.join(allowed)}.")
