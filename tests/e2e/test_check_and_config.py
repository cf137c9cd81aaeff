"""`interlock check` finds everything at once, with or without a resident process; `config` answers without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Shop

FAULTS = """
presset: strict
windows: [{name: n, from: "10:00", to: "11:00", timezone: Mars/Base}]
databases:
  shop: {url: "postgresql:///shop", read_user: reader, read_credential: "credential:shop", migrations: nowhere}
mcp_servers:
  tracker: {command: [/nowhere/tracker]}
"""


@pytest.fixture(scope="module")
def shop(make_shop: Callable[[], Shop]) -> Shop:
    made = make_shop()
    made.set_up()
    return made


@pytest.fixture(autouse=True)
def _written_back(shop: Shop) -> Iterator[None]:
    """Each test finds the project as `init` wrote it."""
    file = shop.folder / "interlock.yaml"
    text = file.read_text()
    yield
    file.write_text(text)
    for name in ("interlock.prod.yaml", "policies/tests/own.yaml", ".interlock/credentials/shop"):
        (shop.folder / name).unlink(missing_ok=True)


def _errors(shop: Shop, code: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop.json("check", code=code)["data"]["findings"]
    return [finding for finding in found if finding["level"] == "error"]


def test_all_faults_of_all_files_are_told_at_once_with_file_line_path_and_fix(shop: Shop) -> None:
    file = shop.folder / "interlock.yaml"
    text = file.read_text()
    first = len(text.splitlines()) + 1
    file.write_text(text + FAULTS)
    (shop.folder / "interlock.prod.yaml").write_text("people: {nobody: null}\n")
    errors = _errors(shop)  # a process that serves the project tells of its policies and roots as well
    found = {(each["file"].rpartition("/")[2], each["line"], each["path"]) for each in errors if "file" in each}
    assert ("interlock.yaml", first + 1, "presset") in found
    assert ("interlock.yaml", first + 2, "windows[0].timezone") in found
    assert ("interlock.prod.yaml", 1, "people.nobody") in found
    assert all(each["fix"] for each in errors)


def test_what_is_referred_to_is_looked_for_by_the_resident_process_too(shop: Shop) -> None:
    file = shop.folder / "interlock.yaml"
    text = file.read_text()
    assert _errors(shop, 0) == []
    sections = FAULTS.partition("databases:")
    file.write_text(text + sections[1] + sections[2])
    assert {each["path"] for each in _errors(shop)} == {
        "databases.shop.read_credential",
        "databases.shop.migrations",
        "mcp_servers.tracker.command",
    }
    secret = shop.folder / ".interlock" / "credentials" / "shop"
    secret.parent.mkdir(mode=0o700, exist_ok=True)
    secret.write_text("hunter2hunter2\n")
    secret.chmod(0o644)
    exposed = next(each for each in _errors(shop) if each["path"] == "databases.shop.read_credential")
    assert "chmod 600" in exposed["fix"]
    assert "hunter2" not in str(_errors(shop))


def test_tables_that_do_not_come_true_and_tokens_without_an_actor_are_found(shop: Shop) -> None:
    table = shop.folder / "policies" / "tests" / "own.yaml"
    table.write_text(
        "rows:\n  - {name: wrong, actor: person:root, plan: {action: command.exec, targets: []}, expect: forbid}\n"
    )
    assert [each["area"] for each in _errors(shop)] == ["tables"]
    table.unlink()
    file = shop.folder / "interlock.yaml"
    text = file.read_text()
    file.write_text(text + "services: {deploy: {roles: [viewer]}}\n")
    assert shop.run("policy", "reload").returncode == 0
    assert shop.run("tokens", "create", "ci", "--actor", "service:deploy", "--days", "3", "--confirm").returncode == 0
    file.write_text(text)
    assert shop.run("policy", "reload").returncode == 0
    found = shop.json("check")["data"]["findings"]
    (token,) = [each for each in found if each["area"] == "tokens"]
    assert token["level"] == "warning"
    assert "tokens revoke" in token["fix"]


def test_config_answers_from_the_command_line(shop: Shop) -> None:
    (shop.folder / "interlock.prod.yaml").write_text("limits: {runs_at_once_max: 16}\n")
    told = shop.json("config", "explain", "runs_at_once_max", "--environment", "prod")["data"]
    assert (told["value"], told["source"], told["line"]) == (16, "overlay", 1)
    assert shop.json("config", "explain", "runs_at_once_max")["data"]["source"] == "default"
    assert shop.json("config", "explain", "nonsense", code=3)["data"]["error"]["code"] == "config.unknown"
    assert "interlock.prod.yaml:1" in shop.run("config", "show", "--origin", "--environment", "prod").stdout
    assert shop.json("config", "drift", "base", "prod", code=1)["data"]["values"]
    assert shop.json("config", "drift", "prod", "prod")["data"]["same"]
    url = shop.run("config", "explain", "INTERLOCK_DATABASE_URL")
    assert "(hidden)" in url.stdout
    assert shop.environment["INTERLOCK_DATABASE_URL"] not in url.stdout
    schema = shop.run("config", "schema").stdout
    assert schema == (shop.folder / "interlock.schema.json").read_text()
    assert (shop.folder / "interlock.yaml").read_text().startswith("# yaml-language-server: $schema=")
