"""A report in several versions: a wrong column is stopped by its name, a good one is cut over, a bad one goes back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import interlock
from harness.engine import ALICE, Engine
from interlock.batch.red_lines import RedLines
from interlock.batch.store import BatchStore
from interlock.batch.views import BatchesArgs, BatchesView
from interlock.core.ask import Ask
from interlock.core.batch import BATCHES, BatchRouting
from interlock.core.errors import Conflict, Denied, Invalid, NotFound
from interlock.core.evidence import EvidenceKind
from interlock.core.model import JsonObject
from interlock.core.run import Run, RunState

SHOP = Path(interlock.__file__).parent / "examples" / "shop"
MONTH: JsonObject = {"target_month": "202602"}

CRASHES = "import sys\nsys.exit('boom')\n"
NOISY = """
import csv, pathlib, sys, time, os
out = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
(out / "r.csv").write_text("order_id,fee,made\\n" + "".join(f"{n},1.00,{os.urandom(4).hex()}\\n" for n in range(500)))
"""
LINKS = """
import pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
(out / "settlement.csv").write_text("order_id,fee\\n1,2\\n")
(out / "passwd").symlink_to("/etc/passwd")
"""
EVIL = """
import os, pathlib, socket, sys
out = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
orders = pathlib.Path(sys.argv[sys.argv.index("--orders") + 1])
said = []
for name, work in {
    "elsewhere": lambda: pathlib.Path("PROJECT/evil").write_text("x"),
    "input": lambda: orders.write_text("x"),
    "network": lambda: socket.create_connection(("127.0.0.1", PORT), 2),
    "local": lambda: socket.socket(socket.AF_UNIX),
    "signal": lambda: os.kill(os.getppid(), 0),
}.items():
    try:
        work()
        said.append(f"{name},yes")
    except OSError as error:
        said.append(f"{name},no")
status = pathlib.Path("/proc/self/status").read_text().splitlines()
rights = [line.split()[1] for line in status if line.startswith(("CapInh", "CapPrm", "CapEff", "CapAmb"))]
rights += [line.split()[1] for line in status if line.startswith("CapBnd") and os.geteuid() == 0]
said.append("capabilities," + ("yes" if any(int(right, 16) for right in rights) else "no"))
said.append(f"secret,{os.environ.get('HOME_SECRET', 'unset')}")
said.append(f"dry,{os.environ.get('DRY_RUN', 'unset')}")
(out / "settlement.csv").write_text("order_id,fee\\n" + "\\n".join(said) + "\\n")
"""


class Reports:
    """A project with the shop's settlement report, and short words for what the tests ask."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.project = engine.parts.locations.project_folder
        self.records = engine.parts.catalog.action("batch.run").ports.outside[BATCHES]

    def version(self, name: str, text: str) -> None:
        folder = self.project / "reports" / name
        folder.mkdir()
        (folder / "settlement.py").write_text(text)

    async def ask(self, action: str, **args: Any) -> Run:
        """As alice, who confirms it."""
        run = await self.engine.door.submit(
            ALICE, Ask(action=action, args={"workload": "settlement", **args}, confirmed=True)
        )
        assert isinstance(run, Run)
        return await self.engine.rest(run.number, 60)

    async def succeed(self, action: str, **args: Any) -> Run:
        run = await self.ask(action, **args)
        assert run.state is RunState.SUCCEEDED, run.state_reason
        return run

    async def first(self) -> None:
        """v1 is in force."""
        await self.succeed("batch.cutover", version="v1", percent=100.0)

    async def comparison(self) -> Any:
        return (await asyncio.to_thread(self.records.comparisons, "settlement"))[0]

    async def routing(self) -> BatchRouting:
        found = await asyncio.to_thread(self.records.routing, "settlement")
        assert found is not None
        return found

    async def view(self) -> JsonObject:
        store = BatchStore(self.engine.database)
        view = BatchesView(
            store, self.engine.parts.project, self.engine.parts.locations.state_folder / "releases" / "batch"
        )
        found: Any = await view.read(ALICE, BatchesArgs(workload="settlement"))
        return found["batches"][0]

    @property
    def published(self) -> Path:
        return self.project / "out" / "202602"


def declared(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "batch",
        "command": [
            sys.executable,
            "{source}/settlement.py",
            "--orders",
            "{input}",
            "--month",
            "{target_month}",
            "--output",
            "{output}",
        ],
        "source": {"folder": "reports/{version}"},
        "parameters": {"target_month": "20[0-9]{4}"},
        "input": "data/orders-{target_month}.csv",
        "output": "out/{target_month}",
        "timeout_seconds": 30,
        "shadow_environment": {"DRY_RUN": "1"},
        "comparison": {"keys": ["order_id"], "key_fields": ["fee"], "control_totals": ["fee"]},
        **changes,
    }


@pytest.fixture
async def reports(opened: Callable[..., Any]) -> Reports:
    engine: Engine = await opened(project={"workloads": {"settlement": declared()}})
    found = Reports(engine)
    for name in ("reports", "data"):
        shutil.copytree(SHOP / name, found.project / name)
    return found


def closed_to_others(folder: Path) -> bool:
    return folder.stat().st_mode & 0o077 == 0


async def test_a_wrong_column_is_stopped_in_shadow_with_its_name(reports: Reports) -> None:
    await reports.first()
    run = await reports.succeed("batch.shadow", version="v2", arguments=MONTH)
    done = [row for row in await reports.engine.data(run.number, EvidenceKind.DONE) if "verdict" in str(row)]
    assert "no_go" in str(done[0])
    found = await reports.comparison()
    assert (found.verdict, found.pairs, found.disagreeing) == ("no_go", 601, 294)
    assert found.fields[0] == "settlement.csv: fee"
    assert any(sentence.startswith("settlement.csv: the control total of fee is") for sentence in found.blocks)
    folder = Path(found.folder)
    assert "| fee | block | 294 of 600 |" in (folder / "summary.md").read_text()
    assert "changed,fee" in (folder / "differences.csv").read_text()
    assert json.loads((folder / "summary.json").read_text())["disagreeing"] == 294
    assert "NO-GO" in (folder.parent / "summary.md").read_text()
    assert closed_to_others(folder)
    with pytest.raises(Denied, match="nothing says GO"):
        await reports.ask("batch.cutover", version="v2", percent=20.0)
    assert not reports.published.exists(), "a shadow publishes nothing"


async def test_a_good_version_is_cut_over_by_share_and_then_fully(reports: Reports) -> None:
    await reports.first()
    with pytest.raises(Denied, match="nothing was compared"):
        await reports.ask("batch.cutover", version="v3", percent=20.0)
    await reports.succeed("batch.shadow", version="v3", arguments=MONTH)
    assert (await reports.comparison()).verdict == "go"
    await reports.succeed("batch.cutover", version="v3", percent=20.0)
    routing = await reports.routing()
    assert (routing.candidate.version if routing.candidate else None, routing.share) == ("v3", 2000)
    assert routing.snapshot["configuration"]
    await reports.succeed("batch.cutover", percent=100.0)
    routing = await reports.routing()
    assert (routing.stable.version, routing.candidate, routing.previous.version if routing.previous else None) == (
        "v3",
        None,
        "v1",
    )
    await reports.succeed("batch.run", arguments=MONTH)
    assert (reports.published / "settlement.csv").read_text().startswith("order_id,merchant,gross,fee,net")
    invocation = (await asyncio.to_thread(reports.records.invocations, "settlement"))[0]
    assert (invocation.version, invocation.ok, invocation.output) == ("v3", True, str(reports.published))


async def test_an_invocation_gets_the_same_version_each_time(reports: Reports) -> None:
    """With half of the share, keys that have the candidate keep it as the share rises."""
    for month in range(10, 30):
        shutil.copyfile(reports.project / "data/orders-202602.csv", reports.project / f"data/orders-2026{month}.csv")
    await reports.first()
    await reports.succeed("batch.shadow", version="v3", arguments=MONTH)
    action = reports.engine.parts.catalog.action("batch.run")

    def parts() -> dict[str, str]:
        months = [f"2026{month}" for month in range(10, 30)]
        asked = [
            action.Args.model_validate({"workload": "settlement", "arguments": {"target_month": each}})
            for each in months
        ]
        return {month: str(action.read_facts(args)["part"]) for month, args in zip(months, asked, strict=True)}

    await reports.succeed("batch.cutover", version="v3", percent=30.0)
    before = await asyncio.to_thread(parts)
    assert set(before.values()) == {"stable", "candidate"}
    assert await asyncio.to_thread(parts) == before
    await reports.succeed("batch.cutover", version="v3", percent=60.0)
    after = await asyncio.to_thread(parts)
    assert all(after[month] == "candidate" for month, part in before.items() if part == "candidate")
    assert list(after.values()).count("candidate") > list(before.values()).count("candidate")


async def cut_over_unproven(reports: Reports, version: str) -> None:
    """With 99.99 %, which any key gets."""
    await reports.first()
    await reports.succeed("batch.cutover", version=version, percent=99.99, unproven=True)


async def test_two_failures_in_a_row_send_a_version_back_by_themselves(reports: Reports) -> None:
    reports.version("v9", CRASHES)
    await cut_over_unproven(reports, "v9")
    first = await reports.succeed("batch.run", arguments=MONTH)
    assert (reports.published / "settlement.csv").exists(), "the stable version did it instead"
    invocation = (await asyncio.to_thread(reports.records.invocations, "settlement"))[0]
    assert (invocation.fell_back, invocation.version, "boom" in invocation.words) == (True, "v1", True)
    assert (await reports.routing()).failures == 1
    await reports.succeed("batch.run", arguments=MONTH)
    routing = await reports.routing()
    assert routing.crossed
    facts = reports.engine.parts.catalog.action("batch.run")
    asked = facts.Args.model_validate({"workload": "settlement", "arguments": MONTH})
    assert (await asyncio.to_thread(facts.read_facts, asked))["part"] == "stable", "from this very moment"
    red_lines = RedLines(BatchStore(reports.engine.database), reports.engine.door)
    await red_lines.work()
    await red_lines.work()
    runs = await reports.engine.query("select number, actor from run where action = 'batch.rollback'")
    assert len(runs) == 1
    ended = await reports.engine.rest(runs[0]["number"])
    assert ended.state is RunState.SUCCEEDED, ended.state_reason
    after = await reports.routing()
    assert (after.stable.version, after.candidate, after.share, after.failures) == ("v1", None, 0, 0)
    report = reports.records.folder("settlement") / f"rollback-{runs[0]['number']}" / "rollback_report.md"
    text = report.read_text()
    assert "2 key failures in a row" in text
    assert "- [ ] find out why v9 of settlement was not good enough" in text
    assert f"Run {first.number}" in text
    events = await reports.engine.query("select data from event where kind = 'batch.rolled_back'")
    assert events[0]["data"]["follow_up"].startswith("find out why v9")


async def test_a_candidate_that_differs_is_never_published_while_it_has_a_share(reports: Reports) -> None:
    await cut_over_unproven(reports, "v2")
    await reports.succeed("batch.run", arguments=MONTH)
    invocation = (await asyncio.to_thread(reports.records.invocations, "settlement"))[0]
    assert (invocation.version, invocation.fell_back) == ("v1", True)
    assert "v2 differs from v1: settlement.csv: fee differs" in invocation.words
    assert (await reports.routing()).failures == 1


async def test_a_success_between_two_failures_begins_anew(reports: Reports) -> None:
    reports.version(
        "v9",
        "import os, sys\nif os.path.exists('PROJECT/bad'): sys.exit(1)\n".replace("PROJECT", str(reports.project))
        + (SHOP / "reports/v1/settlement.py").read_text().replace('"""Settles a month', '"""Settles', 1),
    )
    await cut_over_unproven(reports, "v9")
    bad = reports.project / "bad"
    counts = []
    for there in (True, False, True):
        bad.touch() if there else bad.unlink()
        await reports.succeed("batch.run", arguments=MONTH)
        counts.append((await reports.routing()).failures)
    assert counts == [1, 0, 1]


async def test_a_version_that_took_over_goes_back_to_the_one_before(reports: Reports) -> None:
    reports.version("v9", CRASHES)
    await reports.first()
    await reports.succeed("batch.cutover", version="v9", percent=100.0, unproven=True)
    for _ in range(2):
        await reports.succeed("batch.run", arguments=MONTH)
    assert (await reports.routing()).crossed
    await reports.succeed("batch.run", arguments=MONTH)
    await reports.succeed("batch.rollback", reason="it crashes")
    assert (await reports.routing()).stable.version == "v1"
    with pytest.raises(Conflict, match="no version to go back to"):
        await reports.ask("batch.rollback", reason="again")


async def test_when_both_versions_fail_nothing_is_published_and_nobody_is_blamed(reports: Reports) -> None:
    reports.version("v9", CRASHES)
    await cut_over_unproven(reports, "v9")
    await reports.succeed("batch.run", arguments=MONTH)
    kept = (reports.published / "settlement.csv").read_bytes()
    (reports.project / "data/orders-202602.csv").write_text("no,orders\n1,2\n")
    run = await reports.ask("batch.run", arguments=MONTH)
    assert run.state is not RunState.SUCCEEDED
    assert (reports.published / "settlement.csv").read_bytes() == kept
    assert (await reports.routing()).failures == 1


async def test_a_trial_is_kept_from_effects(reports: Reports) -> None:
    listener = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    reports.version("v7", EVIL.replace("PROJECT", str(reports.project)).replace("PORT", str(port)))
    await reports.succeed("batch.cutover", version="v7", percent=100.0)
    os.environ["HOME_SECRET"] = "leaks"
    try:
        await reports.succeed("batch.shadow", version="v7", arguments=MONTH)
        await reports.succeed("batch.accept", name="evil", reason="look", arguments=MONTH)
    finally:
        del os.environ["HOME_SECRET"]
        listener.close()
    folder = reports.records.folder("settlement") / "golden" / "objects"
    seen = next(text for path in folder.iterdir() if (text := path.read_text()).startswith("order_id,fee\n"))
    assert dict(line.split(",") for line in seen.splitlines()[1:]) == {
        "elsewhere": "no",
        "input": "no",
        "network": "no",
        "local": "no",
        "signal": "no",
        "capabilities": "no",
        "secret": "unset",
        "dry": "1",
    }
    assert not (reports.project / "evil").exists()
    text = (Path((await reports.comparison()).folder) / "summary.md").read_text()
    assert "| trial: network | cut off |" in text
    assert "| trial: capabilities | none |" in text


async def test_noise_of_the_stable_version_is_learned_and_a_rule_proposed(reports: Reports) -> None:
    reports.version("n1", NOISY)
    reports.version("n2", NOISY + "#\n")
    await reports.succeed("batch.cutover", version="n1", percent=100.0)
    await reports.succeed("batch.shadow", version="n2", arguments=MONTH)
    found = await reports.comparison()
    assert found.verdict == "go"
    proposed = yaml.safe_load((Path(found.folder) / "proposed_rules.yaml").read_text())
    assert [rule["path"] for rule in proposed["comparison"]["rules"]] == ["made"]


async def test_a_candidate_that_fails_or_writes_nothing_is_no_go(reports: Reports) -> None:
    reports.version("v9", CRASHES)
    reports.version("v8", "print('done')\n")
    await reports.first()
    for version, words in (("v9", "v9 ended with 1: boom"), ("v8", "v8 ended well and wrote nothing")):
        await reports.succeed("batch.shadow", version=version, arguments=MONTH)
        found = await reports.comparison()
        assert (found.verdict, found.blocks[0].startswith(words)) == ("no_go", True)


async def test_a_stable_version_that_fails_is_no_finding_about_the_candidate(reports: Reports) -> None:
    reports.version("v9", CRASHES)
    await reports.succeed("batch.cutover", version="v9", percent=100.0)
    run = await reports.ask("batch.shadow", version="v1", arguments=MONTH)
    assert run.state is RunState.FAILED
    assert "the stable version itself fails" in (run.state_reason or "")
    assert await asyncio.to_thread(reports.records.comparisons, "settlement") == ()


async def test_a_candidate_that_hangs_is_ended(opened: Callable[..., Any]) -> None:
    engine: Engine = await opened(project={"workloads": {"settlement": declared(timeout_seconds=1)}})
    reports = Reports(engine)
    for name in ("reports", "data"):
        shutil.copytree(SHOP / name, reports.project / name)
    reports.version("v9", "import time\ntime.sleep(60)\n")
    await reports.first()
    await reports.succeed("batch.shadow", version="v9", arguments=MONTH)
    assert "v9 took too long" in (await reports.comparison()).blocks[0]


async def test_golden_samples_are_checked_against_a_version(reports: Reports) -> None:
    await reports.first()
    with pytest.raises(NotFound, match="no golden sample"):
        await reports.ask("batch.check", version="v2")
    await reports.succeed("batch.accept", name="february", reason="checked against the ledger", arguments=MONTH)
    shown = await reports.view()
    assert shown["golden"] == [
        {"name": "february", "accepted_by": "person:alice", "accepted_at": shown["golden"][0]["accepted_at"]}
    ]  # type: ignore[index,call-overload]
    (reports.project / "data/orders-202602.csv").unlink()
    await reports.succeed("batch.check", version="v3")
    run = await reports.ask("batch.check", version="v2")
    assert run.state is not RunState.SUCCEEDED
    assert "february: settlement.csv: fee differs in 294 of 600 rows" in (run.state_reason or "")


async def test_a_version_whose_files_changed_is_not_what_was_let_in(reports: Reports) -> None:
    await reports.first()
    script = reports.project / "reports/v1/settlement.py"
    script.write_text(script.read_text() + "#\n")
    with pytest.raises(Conflict, match="was pinned as"):
        await reports.ask("batch.run", arguments=MONTH)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "needs a value for target_month"),
        ({"target_month": "202602", "more": "1"}, "takes no parameter more"),
        ({"target_month": "../../etc/passwd"}, "does not match"),
        ({"target_month": "202602\n"}, "does not match"),
    ],
)
async def test_parameters_are_those_that_were_declared(reports: Reports, arguments: JsonObject, why: str) -> None:
    await reports.first()
    with pytest.raises(Invalid, match=why):
        await reports.ask("batch.run", arguments=arguments)


async def test_two_candidates_at_once_would_be_two_truths(reports: Reports) -> None:
    await cut_over_unproven(reports, "v3")
    with pytest.raises(Conflict, match="is on its way"):
        await reports.ask("batch.cutover", version="v2", percent=10.0, unproven=True)


async def test_a_link_that_leads_out_of_what_was_written_is_not_published(reports: Reports) -> None:
    reports.version("v9", LINKS)
    await reports.first()
    await reports.succeed("batch.run", arguments=MONTH)
    good = (reports.published / "settlement.csv").read_bytes()
    await reports.succeed("batch.cutover", version="v9", percent=100.0, unproven=True)
    run = await reports.ask("batch.run", arguments=MONTH)
    assert run.state is not RunState.SUCCEEDED
    assert "leads out" in (run.state_reason or "")
    assert (reports.published / "settlement.csv").read_bytes() == good
    assert not (reports.published / "passwd").is_symlink()


async def test_what_lay_there_before_can_be_put_back(reports: Reports) -> None:
    reports.version("v9", (SHOP / "reports/v2/settlement.py").read_text() + "#\n")
    await reports.first()
    await reports.succeed("batch.run", arguments=MONTH)
    good = (reports.published / "settlement.csv").read_bytes()
    await reports.succeed("batch.cutover", version="v9", percent=100.0, unproven=True)
    await reports.succeed("batch.run", arguments=MONTH)
    assert (reports.published / "settlement.csv").read_bytes() != good
    await reports.succeed("batch.rollback", reason="output_mismatch", restore_outputs=True)
    assert (reports.published / "settlement.csv").read_bytes() == good
