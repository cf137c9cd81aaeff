"""An environment belongs to an installation: recorded when it starts, shown, in every Run's evidence."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Shop


@pytest.fixture(scope="module")
def shop(make_shop: Callable[[], Shop]) -> Shop:
    made = make_shop()
    made.set_up()
    (made.folder / "interlock.dev.yaml").write_text("name: playground\n")
    (made.folder / "interlock.prod.yaml").write_text("limits: {waiting_per_agent_max: 1}\n")
    return made


def _in_prod(shop: Shop) -> None:
    """What is recorded is `prod`, where a test before left something else."""
    record = shop.folder / ".interlock" / "environment"
    if record.exists() and record.read_text() == "prod\n":
        return
    assert shop.run("stop").returncode == 0
    record.unlink(missing_ok=True)
    started = shop.json("status", INTERLOCK_ENVIRONMENT="prod")["data"]["resident"]["project"]
    assert started["environment"] == "prod"


def _asked(shop: Shop, number: int) -> dict[str, Any]:
    shown = shop.json("show", str(number))["data"]
    row: dict[str, Any] = next(row["line"]["data"] for row in shown["evidence"] if row["line"]["kind"] == "asked")
    return row


def test_the_first_start_records_it_and_everybody_is_held_to_it(shop: Shop) -> None:
    _in_prod(shop)
    assert shop.json("status")["data"]["resident"]["project"]["environment"] == "prod", "who says nothing takes it"
    assert " · prod · " in shop.run("status").stdout
    refused = shop.json("status", code=5, INTERLOCK_ENVIRONMENT="dev")["data"]["error"]
    assert refused["code"] == "environment.other"
    assert shop.run("stop").returncode == 0
    again = shop.json("status", code=5, INTERLOCK_ENVIRONMENT="dev")["data"]["error"]
    assert again["code"] == "environment.other", "a process that starts on demand does not change it either"
    assert shop.json("status")["data"]["resident"]["project"]["environment"] == "prod"


def test_each_run_keeps_the_digest_of_the_configuration_that_was_in_force(shop: Shop) -> None:
    _in_prod(shop)
    first = _asked(shop, shop.json("exec", "--", "uptime")["data"]["run"]["number"])
    second = _asked(shop, shop.json("exec", "--", "uptime")["data"]["run"]["number"])
    assert first["environment"] == "prod"
    assert first["configuration"] == second["configuration"]
    (shop.folder / "interlock.prod.yaml").write_text("limits: {waiting_per_agent_max: 2}\n")
    assert shop.run("policy", "reload").returncode == 0
    run = shop.json("exec", "--", "uptime")["data"]["run"]
    third = _asked(shop, run["number"])
    assert third["configuration"] != first["configuration"]
    assert third["configuration"][:12] in shop.run("show", str(run["number"])).stdout
    assert run["decision"]["policy_set"][:12] in shop.run("show", str(run["number"])).stdout
    assert shop.json("audit", "verify")["ok"]


def test_a_backup_holds_the_overlays_and_which_of_them_was_in_force(shop: Shop) -> None:
    _in_prod(shop)
    archive = shop.folder / "backup.tar.gz"
    assert shop.run("backup", str(archive)).returncode == 0
    with tarfile.open(archive, "r:gz") as tar:
        assert {"project/interlock.yaml", "project/interlock.prod.yaml", "project/interlock.dev.yaml"} <= set(
            tar.getnames()
        )
        record = tar.extractfile("state/environment")
        assert record is not None
        assert record.read() == b"prod\n"


def test_the_key_does_not_change_the_environment_of_a_process_that_runs(shop: Shop) -> None:
    """What was recorded counts more than the key; without a record a changed key waits for a restart."""
    _in_prod(shop)
    file = shop.folder / "interlock.yaml"
    text = file.read_text()
    file.write_text(text + "environment: dev\n")
    assert shop.run("policy", "reload").returncode == 0
    assert shop.json("status")["data"]["resident"]["project"]["environment"] == "prod"
    file.write_text(text)
    assert shop.run("stop").returncode == 0
    (shop.folder / ".interlock" / "environment").unlink()
    assert "environment" not in shop.json("status")["data"]["resident"]["project"]
    file.write_text(text + "environment: dev\n")
    refused = shop.json("policy", "reload", code=5)["data"]["error"]
    assert refused["code"] == "environment.changed"
    assert shop.run("stop").returncode == 0
    assert shop.json("status")["data"]["resident"]["project"]["name"] == "playground"
    file.write_text(text)
    assert shop.run("stop").returncode == 0


def test_whoever_starts_it_himself_may_choose_another(shop: Shop) -> None:
    assert shop.run("stop").returncode == 0
    process = shop.start("serve", "--no-http", "--environment", "dev")
    try:
        told = process.stderr.readline() if process.stderr else ""
        while "stop it with" not in told:
            assert process.poll() is None
            told = process.stderr.readline() if process.stderr else ""
        assert shop.json("status")["data"]["resident"]["project"]["environment"] == "dev"
    finally:
        assert shop.run("stop").returncode == 0
        process.communicate(timeout=30)
    assert shop.json("status", INTERLOCK_ENVIRONMENT="dev")["data"]["resident"]["project"]["name"] == "playground"
    assert shop.run("stop").returncode == 0


def test_an_overlay_that_is_missing_keeps_it_from_starting_and_says_which_there_are(shop: Shop) -> None:
    assert shop.run("stop").returncode == 0
    refused = shop.json("serve", "--environment", "prd", code=3)["data"]["error"]
    assert refused["code"] == "project.environment"
    assert "dev, prod" in refused["fix"]


def test_an_overlay_is_interlocks_own_and_is_not_changed_through_the_door(shop: Shop) -> None:
    _in_prod(shop)
    target = shop.folder / "interlock.prod.yaml"
    done = shop.json("exec", "--confirm", "--reason", "x", "--", "rm", str(target), code=4)
    assert done["status"] == "denied"
    assert target.exists()
