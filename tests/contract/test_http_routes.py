"""What every HTTP route promises, whichever routes there are: a token, problems from the one table, safe headers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from harness.http_front import PREFIX, HttpFront, http_front
from interlock.core.errors import ERRORS
from interlock.engine.catalog import find_action_classes, find_view_classes
from interlock.interfaces.errors import ERROR_CODES, HTTP_STATUS_OF_CODE
from interlock.interfaces.http.app import described
from interlock.interfaces.http.problems import TITLES, answer_problem

DESCRIBED = described()
ROUTES = [(method.upper(), path) for path, methods in DESCRIBED["paths"].items() for method in methods]
OPEN = {"/livez", "/readyz"}
GUARDED = [(method, path) for method, path in ROUTES if path not in OPEN]
UNKNOWN = "ilk_aaaaaaaaaaaa_" + "A" * 43


@pytest.fixture(scope="module")
def front(postgres_endpoint: Any) -> Iterator[HttpFront]:
    with http_front(postgres_endpoint) as made:
        with made.client() as client:
            assert made.write(client, "first.txt", "x\n").json()["run"]["number"] == 1
        yield made
        assert "http.bug" not in made.resident.log
        assert "request.bug" not in made.resident.log
        assert "Traceback" not in made.resident.log


def _problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert set(problem) >= {"type", "title", "status", "detail", "instance", "code", "fix", "place", "kind"}
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"urn:interlock:error:{problem['code']}"
    return problem


def _path(path: str) -> str:
    return path.replace("{number}", "1")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_is_described(method: str, path: str) -> None:
    operation = DESCRIBED["paths"][path][method.lower()]
    assert re.fullmatch(r"[a-z_]+", operation["operationId"])
    assert operation["summary"]
    assert operation["description"].endswith((".", "?"))


def test_operation_ids_are_all_different() -> None:
    names = [operation["operationId"] for methods in DESCRIBED["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_every_view_is_a_route_with_its_arguments_as_parameters() -> None:
    for cls in find_view_classes():
        operation = DESCRIBED["paths"][f"{PREFIX}/views/{cls.name}"]["get"]
        named = {each["name"] for each in operation["parameters"]}
        assert named >= set(cls.Args.model_fields) or "args" in named


def test_every_action_is_an_example_of_an_ask() -> None:
    body = DESCRIBED["paths"][f"{PREFIX}/runs"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["examples"]) == {cls.name for cls in find_action_classes()}
    for name, example in body["examples"].items():
        assert example["value"]["action"] == name


def test_the_description_is_the_one_that_is_served(front: HttpFront) -> None:
    with front.client() as client:
        assert client.get(f"{PREFIX}/openapi.json").json() == json.loads(json.dumps(DESCRIBED))


def test_every_view_can_be_read(front: HttpFront) -> None:
    with front.client() as client:
        for cls in find_view_classes():
            args = {"run": 1} if "run" in cls.Args.model_fields else {}
            answer = client.get(f"{PREFIX}/views/{cls.name}", params=args)
            assert answer.status_code in {200, 422}, (cls.name, answer.text)
            assert "data" in answer.json() or _problem(answer)["place"].startswith("query.")


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_route_wants_a_token(front: HttpFront, method: str, path: str) -> None:
    with front.client(None) as client:
        answer = client.request(method, _path(path), json={} if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert _problem(answer)["code"] == "token.missing"


def test_the_description_wants_a_token_too(front: HttpFront) -> None:
    with front.client(None) as client:
        assert client.get(f"{PREFIX}/openapi.json").status_code == 401


def test_a_token_that_is_none_of_ours_is_refused(front: HttpFront) -> None:
    with front.client(None, headers={"Authorization": f"Bearer {UNKNOWN}"}) as client:
        answer = client.get(f"{PREFIX}/status")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert _problem(answer)["code"] == "token.refused"
    assert UNKNOWN not in answer.text


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer x", f"Token {UNKNOWN}", "Bearer ilk_a_b"])
def test_what_is_no_token_is_missing(front: HttpFront, header: str) -> None:
    with front.client(None, headers={"Authorization": header}) as client:
        assert _problem(client.get(f"{PREFIX}/status"))["code"] == "token.missing"


def test_health_says_up_and_no_more_to_who_has_no_right(front: HttpFront) -> None:
    with front.client(None) as client:
        assert client.get("/livez").json() == {"alive": True}
        assert client.get("/readyz").json() == {"ready": True}
        answer = client.get("/readyz", headers={"Authorization": f"Bearer {UNKNOWN}"})
        assert answer.json() == {"ready": True}
    with front.client() as client:
        assert client.get("/readyz").json()["components"]["resident"]["ready"] is True


def test_answers_keep_browsers_from_mischief(front: HttpFront) -> None:
    with front.client() as client:
        origin = {"Origin": "https://example.org"}
        for path in ("/livez", f"{PREFIX}/status", f"{PREFIX}/nothing", f"{PREFIX}/runs/1/output"):
            answer = client.get(path, headers=origin)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["server"] == "interlock"
            assert answer.headers["cache-control"] == "no-store"
        assert client.options(f"{PREFIX}/runs", headers=origin).status_code == 405


def test_another_name_is_refused(front: HttpFront) -> None:
    with front.client() as client:
        for host in ("example.org", "127.0.0.1.example.org:80", "", "localhost.example.org"):
            answer = client.get("/livez", headers={"Host": host})
            assert answer.status_code in {400, 421}
        for host in ("localhost", "localhost:1", "127.0.0.1", "[::1]:80"):
            assert client.get("/livez", headers={"Host": host}).status_code == 200


def test_each_kind_of_error_is_a_problem_with_its_own_status(front: HttpFront) -> None:
    """Those that can be brought about from outside; the table below has the others."""
    with front.client() as client, front.client("agent:claude") as agent:
        invalid = _problem(client.post(f"{PREFIX}/runs", json={"action": "file.write", "args": {"path": 7}}))
        assert (invalid["status"], invalid["kind"], invalid["place"]) == (422, "invalid", "body.args.path")
        found = _problem(client.get(f"{PREFIX}/runs/4000"))
        assert (found["status"], found["kind"], found["code"]) == (404, "not_found", "run.unknown")
        denied = _problem(agent.post(f"{PREFIX}/runs", json=_secret(), headers={"Interlock-As": "somebody"}))
        assert (denied["status"], denied["kind"]) == (403, "denied")
        key = {"Idempotency-Key": "one"}
        assert front.write(client, "key.txt", "x\n", headers=key).status_code == 200
        conflict = _problem(front.write(client, "key.txt", "y\n", headers=key))
        assert (conflict["status"], conflict["kind"], conflict["code"]) == (409, "conflict", "run.key_reused")
        stale = _problem(front.write(client, "stale.txt", "x\n", digest="0" * 64))
        assert (stale["status"], stale["kind"], stale["code"]) == (412, "stale", "plan.changed")


def _secret() -> dict[str, Any]:
    return {"action": "file.write", "args": {"path": "/etc/shadow", "content": "x"}, "confirmed": True}


@pytest.mark.parametrize("kind", ERRORS)
def test_the_table_has_a_status_and_a_title_for_every_kind(kind: str) -> None:
    error = ERRORS[kind]("as told", code="x.y", fix="do that", details={"place": "body.x"})  # type: ignore[index]
    answer = answer_problem(error, "/here")
    told = json.loads(bytes(answer.body))
    assert answer.status_code == told["status"] == ERROR_CODES[kind].http_status
    assert told["title"] == TITLES[kind]
    assert (told["detail"], told["fix"], told["place"], told["instance"]) == ("as told", "do that", "body.x", "/here")
    assert ("retry-after" in answer.headers) == (kind == "transient")


def test_a_code_with_a_status_of_its_own_has_it_whatever_its_kind() -> None:
    for code, status in HTTP_STATUS_OF_CODE.items():
        answer = answer_problem(ERRORS["invalid"]("as told", code=code))
        assert answer.status_code == status
        assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize(
    ("path", "params", "place"),
    [
        ("/runs", {"limit": "0"}, "query.limit"),
        ("/runs", {"limit": "many"}, "query.limit"),
        ("/runs", {"state": "gone"}, "query.state"),
        ("/runs", {"cursor": "nonsense"}, "query.cursor"),
        ("/runs", {"cursor": "YmVmb3JlOi0x"}, "query.cursor"),
        ("/runs/0", {}, "path.number"),
        ("/runs/x", {}, "path.number"),
        ("/runs/99999999999999999999999", {}, "path.number"),
        ("/views/runs", {"unheard": "of"}, "query.unheard"),
        ("/views/run", {}, "query.run"),
    ],
)
def test_what_is_wrong_is_named(front: HttpFront, path: str, params: dict[str, str], place: str) -> None:
    with front.client() as client:
        problem = _problem(client.get(PREFIX + path, params=params))
    assert problem["status"] == 422
    assert problem["place"] == place


def test_other_paths_and_methods_are_problems_too(front: HttpFront) -> None:
    with front.client() as client:
        assert _problem(client.get("/"))["code"] == "api.path"
        assert _problem(client.get(f"{PREFIX}/views/nothing"))["code"] == "api.path"
        answer = client.delete(f"{PREFIX}/runs")
        assert _problem(answer)["code"] == "api.method"
        assert answer.headers["allow"]
