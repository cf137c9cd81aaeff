"""Requests made up from the OpenAPI description find no fault of ours: no 5xx, and only answers that it describes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from harness.http_front import HttpFront, http_front
from interlock.interfaces.http.app import described

EXAMPLES = 8
"""For each route; the seed is always the same, so that a build does not depend on luck."""

NOT_HERE = ("systemd.", "host.")
"""Codes of outside systems that the examples of Actions name and a machine for tests does not have: 503 is right."""

schema = schemathesis.openapi.from_dict(described())


@pytest.fixture(scope="module")
def front(postgres_endpoint: Any) -> Iterator[HttpFront]:
    with http_front(postgres_endpoint, "permissive") as made:
        with made.client() as client:
            assert made.write(client, "first.txt", "x\n").status_code == 200
        yield made
        assert "http.bug" not in made.resident.log
        assert "request.bug" not in made.resident.log
        assert made.resident.ask("audit_verify")["intact"] is True


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_no_request_that_the_description_allows_finds_a_fault(front: HttpFront, case: Any) -> None:
    if isinstance(case.body, dict) and "wait" in case.body:
        case.body["wait"] = 0  # what waits is a test of patience
    answer = case.call(
        base_url=front.url, headers={"Authorization": f"Bearer {front.bearer('person:alice')}"}, timeout=30
    )
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    if not (answer.status_code == 503 and str(answer.json().get("code")).startswith(NOT_HERE)):
        checks.insert(0, not_a_server_error)
    case.validate_response(answer, checks=checks)
