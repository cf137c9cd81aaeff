"""Whatever argv is thrown at the gate: it answers, it answers alike, and it never lets a path or option slip by."""

from __future__ import annotations

import shlex
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.commands.library import load_library
from interlock.commands.model import Operation, Refused, Unknown
from interlock.core.errors import Invalid

LIBRARY = load_library()
EXAMPLES = sorted(
    {tuple(shlex.split(line)) for program in LIBRARY.programs.values() for form in program.forms for line in form.match}
)
READS = [argv for argv in EXAMPLES if isinstance(found := LIBRARY.match(argv), Operation) and found.only_reads]
WORDS = sorted({word for argv in EXAMPLES for word in argv[1:]})
ODD = [
    "--",
    "-",
    "",
    "-o",
    "-f",
    "-fs",
    "--output=/etc/x",
    "--exec",
    "-exec",
    ";",
    "@/etc/shadow",
    "=x",
    "--=",
    "-\u0435",
    "+x",
]
tokens = st.one_of(st.sampled_from(WORDS), st.sampled_from(ODD), st.text(max_size=12))


@given(st.lists(st.one_of(tokens, st.text(max_size=300)), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_argv_gets_an_answer_or_is_invalid(argv: list[str]) -> None:
    try:
        answer = LIBRARY.match(argv)
    except Invalid:
        return
    assert isinstance(answer, Operation | Unknown | Refused)
    assert answer == LIBRARY.match(tuple(argv))


@given(st.sampled_from(EXAMPLES), st.lists(tokens, max_size=3), st.integers(min_value=0, max_value=12))
@settings(max_examples=600, deadline=None)
def test_what_is_accepted_is_executed_word_for_word(example: tuple[str, ...], more: list[str], place: int) -> None:
    """Every asked argument is in the argv, in order, but for declared stand-ins; every path reference is exact.

    Where revisions and paths are told apart by a `--` that was not asked for, the options come first.
    """
    argv = [*example[: 1 + place], *more, *example[1 + place :]]
    try:
        answer = LIBRARY.match(argv)
    except Invalid:
        return
    if not isinstance(answer, Operation):
        return
    for path in answer.paths:
        if path.index is not None:
            assert answer.argv[path.index][path.start :] == path.text
    form = next((each for each in LIBRARY.programs[answer.program].forms if each.name == answer.form), None)
    if "--" in answer.argv and "--" not in argv:
        assert Counter(argv[1:]) + Counter(["--"]) <= Counter(answer.argv)
    elif form is not None and not form.replace:
        left = iter(answer.argv[1:])
        assert all(any(word == other for other in left) for word in argv[1:])


@given(st.sampled_from(READS), st.sampled_from(["/etc/cron.d/x", "$(id)", "`id`", "|id", ";id", ">x", "&&id", "*"]))
@settings(max_examples=400, deadline=None)
def test_an_added_word_is_a_path_under_judgement_or_harmless_text(argv: tuple[str, ...], word: str) -> None:
    """A further word never turns a read into an unnoticed write: what still reads shows its paths as read or trust."""
    try:
        answer = LIBRARY.match((*argv, word))
    except Invalid:
        return
    if isinstance(answer, Operation) and answer.only_reads:
        assert all(path.access != "write" for path in answer.paths)


@given(st.sampled_from(READS), st.data())
@settings(max_examples=400, deadline=None)
def test_a_long_option_is_never_abbreviated(argv: tuple[str, ...], data: st.DataObject) -> None:
    """Cutting a long option short gives another declared option or nothing."""
    long = [index for index, word in enumerate(argv) if word.startswith("--") and len(word.partition("=")[0]) > 4]
    if not long:
        return
    index = data.draw(st.sampled_from(long))
    name, equals, value = argv[index].partition("=")
    cut = name[: data.draw(st.integers(min_value=3, max_value=len(name) - 1))]
    program = LIBRARY.programs.get(argv[0])
    if program is None:
        return
    declared = {
        spelling
        for part in (program.globals, *program.sets.values(), *program.groups.values(), *program.forms)
        for spelling in (*part.switches, *(each for key in part.options for each in key.split()))
    }
    if cut not in declared:
        assert not isinstance(LIBRARY.match((*argv[:index], cut + equals + value, *argv[index + 1 :])), Operation)
