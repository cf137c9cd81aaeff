"""What holds for every program of the library, whoever adds one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import resources

import pytest

from interlock.commands.library import Library, load_library
from interlock.commands.model import Form, Operation, Program
from interlock.commands.schema import parse_program

RUNS_CODE = {"exec", "execdir", "ok", "okdir", "command", "eval", "plugin", "hook", "post-renderer", "modprobe"}


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library()


def forms(library: Library) -> Iterator[tuple[Program, Form]]:
    return ((program, form) for program in library.programs.values() for form in program.forms)


def examples(library: Library) -> Iterator[tuple[Program, Form, list[str], Operation]]:
    for program, form in forms(library):
        for line in form.match:
            answer = library.match(shlex.split(line))
            assert isinstance(answer, Operation), line
            yield program, form, shlex.split(line), answer


def test_the_library_is_large_enough_and_loads_twice_alike(library: Library) -> None:
    assert len(library.programs) >= 60
    assert load_library().digest == library.digest


def test_a_program_lies_in_the_file_of_its_name(library: Library) -> None:
    folder = resources.files("interlock.commands").joinpath("programs")
    named = {
        file.name.removesuffix(".yaml"): parse_program(file.read_bytes(), file.name).program
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    }
    assert all(name == program for name, program in named.items())
    assert set(named) == set(library.programs)


def test_binaries_lie_in_folders_of_the_system(library: Library) -> None:
    for name, program in library.programs.items():
        assert all(path.startswith(("/usr/", "/bin/", "/sbin/")) for path in program.candidates(name)), name
        assert program.summary, name


def test_no_option_names_something_to_run(library: Library) -> None:
    for name, program in library.programs.items():
        for part in (program.globals, *program.sets.values(), *program.groups.values(), *program.forms):
            for spellings in (*part.options, *part.switches):
                assert not {spelling.lstrip("-") for spelling in spellings.split()} & RUNS_CODE, f"{name} {spellings}"


def test_a_change_names_what_it_touches_and_a_read_ends(library: Library) -> None:
    for program, form in forms(library):
        if form.changes:
            assert form.targets, f"{program.program} {form.name} changes something and names no target"
        else:
            assert form.timeout_seconds <= 3600, f"{program.program} {form.name}"


def test_the_argv_that_is_executed_is_understood_itself(library: Library) -> None:
    """Asked again, it is the same form with the same argv, where nothing was added."""
    for program, form, argv, first in examples(library):
        if not (program.insert or form.insert or form.defaults or program.executes):
            again = library.match(first.argv)
            assert isinstance(again, Operation), argv
            assert (again.form, again.argv) == (first.form, first.argv)


def test_every_path_lies_where_its_reference_says(library: Library) -> None:
    for _, _, argv, answer in examples(library):
        for path in answer.paths:
            assert path.index is None or answer.argv[path.index][path.start :] == path.text, argv


def test_an_undeclared_option_is_never_swallowed(library: Library) -> None:
    """Added to any example of any form, before or behind, it makes the command unknown or refused."""
    for _, _, argv, _ in examples(library):
        for option in ("--no-such-option", "--exec=x", "-\x7e"):
            assert not isinstance(library.match([argv[0], option, *argv[1:]]), Operation), argv
            if "--" not in argv:
                assert not isinstance(library.match([*argv, option]), Operation), argv


def test_added_environment_makes_nothing_load_or_run(library: Library) -> None:
    for name, program in library.programs.items():
        for key in program.environment:
            assert not key.startswith(("LD_", "PYTHONPATH", "PERL", "BASH_ENV")), f"{name} {key}"
            assert key != "PATH", name


def test_no_program_is_also_a_wrapper(library: Library) -> None:
    refused = {name for wrapper in library.wrappers for name in wrapper.names}
    described = {name for program in library.programs.values() for name in (program.program, *program.aliases)}
    assert not refused & described
