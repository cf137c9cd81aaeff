"""A report released at the command line: what people type, what they read, and with which code it ends."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import interlock
from harness.resident import Resident, resident

SHOP = Path(interlock.__file__).parent / "examples" / "shop"
MONTH = ("--target-month", "202602")
DECLARED = {
    "kind": "batch",
    "command": [
        sys.executable,
        "{source}/settlement.py",
        *("--orders", "{input}", "--month", "{target_month}"),
        "--output",
        "{output}",
    ],
    "source": {"folder": "reports/{version}"},
    "parameters": {"target_month": "20[0-9]{4}"},
    "input": "data/orders-{target_month}.csv",
    "output": "out/{target_month}",
    "comparison": {"keys": ["order_id"], "key_fields": ["fee"], "control_totals": ["fee"]},
}


@pytest.fixture
def shop(postgres_endpoint: Any) -> Iterator[Resident]:
    with resident(postgres_endpoint, workloads={"settlement": DECLARED}) as made:
        shutil.copytree(SHOP / "reports", made.folder / "project" / "reports")
        shutil.copyfile(SHOP / "data" / "orders-202602.csv", made.data / "orders-202602.csv")
        made.start()
        yield made


def test_from_a_wrong_column_to_the_way_back(shop: Resident) -> None:
    def release(*words: str, code: int = 0) -> str:
        done = shop.run("release", *words)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    release("cutover", "settlement", "v1", "--percent", "100", "--confirm")
    assert "nothing was done" in release("shadow", "settlement", "v2", *MONTH, code=8)
    said = release("shadow", "settlement", "v2", *MONTH, "--confirm", code=1)
    assert "NO-GO" in said
    assert "settlement.csv: fee differs in 294 of 600 rows (it is a key field)" in said
    assert "--unproven" in release("cutover", "settlement", "v2", "--percent", "20", "--confirm", code=4)
    found = json.loads(release("shadow", "settlement", *MONTH, "v3", "--confirm", "--output", "json"))
    assert (found["status"], found["data"]["comparison"]["verdict"]) == ("go", "go")
    release("cutover", "settlement", "v3", "--percent", "20", "--confirm")
    assert "20.0 % of the invocations" in release("status", "settlement")
    release("run", "settlement", *MONTH, "--confirm")
    assert (shop.folder / "project" / "out" / "202602" / "settlement.csv").exists()
    release("cutover", "settlement", "--percent", "100", "--confirm")
    release("golden", "accept", "settlement", "february", "--reason", "as in the ledger", *MONTH, "--confirm")
    assert "february" in release("golden", "list", "settlement")
    release("golden", "check", "settlement", "v1", "--confirm")
    release("golden", "check", "settlement", "v2", "--confirm", code=1)
    assert "# settlement: baseline" in release("report", "settlement")
    assert "settlement" in release("status")
    assert shop.run("rollback", "settlement", "--reason", "output_mismatch").returncode == 0
    assert "v1" in release("status", "settlement").splitlines()[1]
    assert "takes no parameter" in release("run", "settlement", *MONTH, "--confrim", "x", code=2)
