"""The parser of SQL lives in processes that may die of it: each death is a refusal, and the next ask is answered."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from interlock.adapters.sql_parser import ParserProcess, ProcessParser
from interlock.core.errors import Invalid


@pytest.fixture(scope="module")
def parser() -> Iterator[ProcessParser]:
    made = ProcessParser()
    yield made
    made.close()


def test_names_are_what_the_text_means_and_not_what_it_looks_like(parser: ProcessParser) -> None:
    shape = parser.parse('select U&"pg_\\0073leep"(1), a.b from "Public".T a /* ; */ -- ;')
    assert shape.functions == (("pg_sleep",),)
    assert shape.relations == (("Public", "t"),)
    assert shape.attributes == ("b",)
    assert shape.text.startswith("select U&")


def test_operators_that_have_no_sign_of_their_own_are_named(parser: ProcessParser) -> None:
    shape = parser.parse(
        "select a between 1 and 2, b in (1), c like 'x', case d when 1 then 2 end from t join u using (e)"
    )
    assert set(shape.operators) == {(">=",), ("<=",), ("=",), ("~~",)}


@pytest.mark.parametrize("sql", ["select 1; select 2", "", ";", "-- x", "selec", "select 1\0", "select '\ud800'"])
def test_what_is_not_one_statement_is_refused(parser: ProcessParser, sql: str) -> None:
    with pytest.raises(Invalid) as caught:
        parser.parse(sql)
    assert caught.value.fix


def test_more_than_16_kib_never_reach_the_parser(parser: ProcessParser) -> None:
    with pytest.raises(Invalid) as caught:
        parser.parse("select " + "+".join(["1"] * 8193))
    assert caught.value.code == "sql.too_long"


def test_an_expression_that_overflows_its_stack_ends_the_process_and_nothing_else() -> None:
    process = ParserProcess()
    try:
        assert process.ask({"sql": "select " + "+".join(["1"] * 200_000)}) is None
    finally:
        process.close()


def test_a_parser_that_dies_is_replaced(parser: ProcessParser) -> None:
    for number in range(3):
        assert parser.parse(f"select {number}").kind == "select"
        process = parser._idle.queue[-1]
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.wait()
        assert parser.parse(f"select {number}, 'afterwards'").kind == "select"


def test_a_parser_that_hangs_is_killed_and_the_statement_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interlock.adapters.sql_parser.PARSE_SECONDS", 0.2)
    parser = ProcessParser()
    try:
        parser.parse("select 1")
        process = parser._idle.queue[-1]
        os.kill(process._process.pid, signal.SIGSTOP)
        with pytest.raises(Invalid) as caught:
            parser.parse("select 2")
        assert caught.value.code == "sql.too_complex"
        assert parser.parse("select 3").kind == "select"
    finally:
        parser.close()


def test_a_script_is_told_apart_by_the_grammar(parser: ProcessParser) -> None:
    script = "create table a (b text default ';'); do $x$ begin perform 1; end $x$;\n-- the end;"
    assert [each.root for each in parser.split(script)] == ["create_stmt", "do_stmt"]
