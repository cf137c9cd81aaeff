"""Folders of outputs are compared file by file, each by its kind; what the stable version's noise explains is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from interlock.batch.model import verdict_of
from interlock.comparison.outputs import compare_outputs
from interlock.comparison.outputs_model import OutputComparison, OutputTask
from interlock.core.comparison import ComparisonRules, FieldRule
from interlock.core.project import Project

CSV = "id,amount,at\n" + "".join(f"{number},{number}.50,2026-01-01\n" for number in range(500))


class Sides:
    """Writes outputs of the two versions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for side in ("stable", "candidate", "again", "work", "differences"):
            (folder / side).mkdir()

    def write(self, name: str, stable: str | bytes, candidate: str | bytes, again: str | bytes | None = None) -> None:
        for side, text in (("stable", stable), ("candidate", candidate), ("again", stable if again is None else again)):
            path = self.folder / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def task(self, rules: ComparisonRules, *, again: bool = False) -> OutputTask:
        return OutputTask(
            stable=str(self.folder / "stable"),
            candidate=str(self.folder / "candidate"),
            again=str(self.folder / "again") if again else None,
            rules=rules,
            work=str(self.folder / "work"),
            today=date(2026, 3, 1),
            differences=str(self.folder / "differences"),
            result=str(self.folder / "result.json"),
        )

    def compare(self, rules: ComparisonRules | None = None, *, again: bool = False) -> OutputComparison:
        (self.folder / "work").rename(self.folder / f"work-{len(list(self.folder.iterdir()))}")
        (self.folder / "work").mkdir()
        return compare_outputs(self.task(rules or ComparisonRules(), again=again))


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def test_equal_folders_agree_and_prove_it_by_their_rows(sides: Sides) -> None:
    sides.write("report.csv", CSV, CSV)
    sides.write("sub/summary.json", '{"total": 1.0}', '{"total": 1.00}')
    found = sides.compare(ComparisonRules(keys=("id",)))
    assert (found.blocks, found.warns, found.pairs, found.disagreeing) == ((), (), 501, 0)
    assert found.agreement_bound > 0.99


def test_a_wrong_column_names_its_file(sides: Sides) -> None:
    sides.write("report.csv", CSV, CSV.replace("7.50,", "7.05,"))
    found = sides.compare(ComparisonRules(keys=("id",), key_fields=("amount",)))
    assert found.blocks == ("report.csv: amount differs in 50 of 500 rows (it is a key field)",)
    assert found.fields == ("report.csv: amount",)
    assert "changed,amount" in (sides.folder / "differences" / "differences-1.csv").read_text()


def test_a_file_that_is_gone_blocks_and_a_new_one_warns(sides: Sides) -> None:
    sides.write("a.txt", "x", "x")
    (sides.folder / "candidate/a.txt").rename(sides.folder / "candidate/b.txt")
    found = sides.compare()
    assert (found.blocks, found.warns) == (("a.txt is missing",), ("b.txt is new",))


def test_nothing_at_all_is_no_agreement(sides: Sides) -> None:
    assert sides.compare().blocks == ("neither version wrote anything",)


def test_a_document_is_compared_by_field(sides: Sides) -> None:
    sides.write("r.json", '{"items": [{"price": 1}], "at": 5}', '{"items": [{"price": 2}], "at": 5}')
    found = sides.compare(ComparisonRules(key_fields=("$.items[*].price",)))
    assert found.fields == ("r.json: $.items[*].price",)
    assert len(found.blocks) == 1


def test_a_text_shows_a_bounded_diff(sides: Sides) -> None:
    sides.write("r.txt", "a\nb\nc\n", "a\nB\nc\n")
    found = sides.compare(ComparisonRules(key_fields=("$body",)))
    assert found.blocks
    assert "-b\n+B" in (found.files[0].diff or "")
    sides.write("r.txt", "\n".join(f"a{n}" for n in range(5000)), "\n".join(f"b{n}" for n in range(5000)))
    assert len((sides.compare().files[0].diff or "").splitlines()) == 201


def test_bytes_are_compared_by_digest(sides: Sides) -> None:
    sides.write("r.bin", b"\x00\x01", b"\x00\x02")
    found = sides.compare(ComparisonRules(key_fields=("$body",)))
    assert (found.files[0].kind, len(found.blocks)) == ("binary", 1)
    assert found.files[0].stable_sha256 != found.files[0].candidate_sha256


def test_a_broken_table_is_compared_as_text_and_said(sides: Sides) -> None:
    sides.write("r.csv", "id,a\n1,2\n", "id,a\n1\n")
    found = sides.compare(ComparisonRules(keys=("id",)))
    assert any("cannot be read as a table" in sentence for sentence in found.warns)
    assert found.files[0].differences


def test_links_are_not_followed_and_pipes_are_refused(sides: Sides) -> None:
    for side, target in (("stable", "/etc/hostname"), ("candidate", "/etc/passwd")):
        (sides.folder / side / "link.csv").symlink_to(target)
        os.mkfifo(sides.folder / side / "pipe.csv")
    found = sides.compare()
    assert found.blocks == (
        "link.csv: it leads to /etc/passwd, which is out of the output",
        "pipe.csv: it is a pipe, socket or device, which is not compared",
    )
    assert "root:" not in found.model_dump_json()


def test_a_link_to_another_file_of_the_output_is_compared_by_where_it_leads(sides: Sides) -> None:
    for name in ("a.txt", "b.txt"):
        sides.write(name, "x", "x")
    for side, target in (("stable", "a.txt"), ("candidate", "b.txt")):
        (sides.folder / side / "link").symlink_to(target)
    found = sides.compare()
    assert not found.blocks
    assert found.warns == ("link: it leads to b.txt, and to a.txt in the stable version's output",)


@pytest.mark.parametrize("target", ["/etc/passwd", "../stable/r.txt", "deep/../../stable"])
def test_a_new_link_that_leads_out_of_the_output_blocks(sides: Sides, target: str) -> None:
    sides.write("r.txt", "x", "x")
    (sides.folder / "candidate" / "link").symlink_to(target)
    assert sides.compare().blocks == ("link is new, and leads out of the output",)


def test_a_file_name_that_is_no_text_is_said_and_blocks(sides: Sides) -> None:
    sides.write("r.txt", "x", "x")
    (sides.folder / "candidate" / os.fsdecode(b"\xff.txt")).write_text("x")
    found = sides.compare()
    assert found.blocks == ("nothing was compared: the name \\xff.txt of a file is not UTF-8",)
    assert verdict_of(found, ComparisonRules())[0] == "no_go"
    OutputComparison.model_validate_json(found.model_dump_json())


def test_more_files_than_can_be_compared_block(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interlock.comparison.outputs.FILES_MAX", 3)
    for number in range(4):
        (sides.folder / "candidate" / f"{number}.txt").write_text("x")
    found = sides.compare()
    assert found.blocks == ("nothing was compared: candidate holds more than 3 files",)
    assert verdict_of(found, ComparisonRules())[0] == "no_go"


def test_a_second_run_of_the_stable_version_that_cannot_be_listed_teaches_nothing_and_is_told(sides: Sides) -> None:
    sides.write("r.txt", "x", "x")
    (sides.folder / "again" / os.fsdecode(b"\xff.txt")).write_text("x")
    found = sides.compare(again=True)
    assert found.blocks == ()
    assert found.warns[0].startswith("the stable version's second run taught nothing: the name \\xff.txt")


def test_what_was_declared_and_is_nowhere_blocks(sides: Sides) -> None:
    sides.write("r.csv", CSV, CSV)
    found = sides.compare(ComparisonRules(keys=("id",), key_fields=("amuont",), control_totals=("ammount",)))
    assert found.blocks == (
        "the key field amuont is in no output",
        "the control total ammount is a column of no output",
    )


def test_keys_and_totals_are_those_of_the_table_that_has_them(sides: Sides) -> None:
    sides.write("r.csv", CSV, CSV)
    sides.write("other.csv", "code,n\na,1\n", "code,n\na,1\n")
    found = sides.compare(ComparisonRules(keys=("id",), key_fields=("amount",), control_totals=("amount",)))
    assert found.blocks == ()


def test_noise_of_the_stable_version_is_told_and_excused_and_a_rule_proposed(sides: Sides) -> None:
    sides.write("r.csv", CSV, CSV.replace("2026-01-01", "b"), CSV.replace("2026-01-01", "c"))
    rules = ComparisonRules(keys=("id",), key_fields=("at", "amount"))
    found = sides.compare(rules, again=True)
    assert found.blocks == ()
    assert "the stable version differs from itself in 500" in found.warns[0]
    proposed = yaml.safe_load(found.proposed_rules or "")
    declared = Project.model_validate(
        {"workloads": {"report": {"kind": "batch", "command": ["x"], "source": {"folder": "/v/{version}"}, **proposed}}}
    ).workloads["report"]
    assert [each for each in sides.compare(declared.comparison, again=True).warns if "guessed" not in each] == []


def test_rare_noise_does_not_excuse_what_differs_everywhere(sides: Sides) -> None:
    sides.write("r.csv", CSV, CSV.replace("2026-01-01", "b"), CSV.replace("7,7.50,2026-01-01", "7,7.50,c"))
    found = sides.compare(ComparisonRules(keys=("id",), key_fields=("at",)), again=True)
    assert len(found.blocks) == 1


def test_the_program_writes_what_it_found(sides: Sides) -> None:
    sides.write("r.csv", CSV, CSV.replace("7.50,", "7.05,"))
    task = sides.folder / "task.json"
    rules = ComparisonRules(keys=("id",), rules=(FieldRule(path="amount"),))
    task.write_text(sides.task(rules).model_dump_json())
    command = [sys.executable, "-m", "interlock.comparison.outputs_process", str(task)]
    subprocess.run(command, check=True, timeout=60)
    found = OutputComparison.model_validate(json.loads((sides.folder / "result.json").read_text()))
    assert len(found.blocks) == 1
    task.write_text("{}")
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 2
