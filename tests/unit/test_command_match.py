"""The matcher: what an argv becomes, and where exactly it stops being understood."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from interlock.commands.binary import resolve_binary
from interlock.commands.library import Library, check_examples, load_library
from interlock.commands.match import compile_program, match_program
from interlock.commands.model import Operation, PathRules, Refused, Unknown, Wrappers
from interlock.commands.schema import FILE_BYTES_MAX, parse_program, parse_yaml
from interlock.core.errors import Denied, Invalid, NotFound
from interlock.lib.reach import FileStatus

TOOL = r"""
program: tool
summary: An example
instead: use show
types: {colour: red|green}
insert: [--quiet]
globals:
  options: {-n --namespace: word, --colour: colour}
refused: {--exec: it runs a program}
refused_words: {"shell, open shell": it opens a shell}
forms:
  - name: show
    words: [show, sh]
    summary: show {names}
    switches: -a -b --all
    options:
      -l --lines: integer 1..100
      -w --when: optional always|never
      -m: maybe count
      -f --file: path read
      -u: apart word
      -NUM: count
    positionals: {first: word, names: word *, last: "path read"}
    insert: [--once]
    defaults: {-l: [-l, "10"]}
    changes: false
    discloses: content
    match: [tool show a b]
  - name: stop
    words: stop
    summary: stop {names} in {--namespace}
    positionals: {names: word +}
    changes: true
    discloses: nothing
    risk: medium
    operations: [thing.stop]
    targets: [{kind: unit, from: names, context: {namespace: --namespace}, always: {way: soft}}]
    check: {argv: [tool, show, "{names}", "{--namespace}", x]}
    undo: {argv: [tool, stop, "{names}"]}
    match: [tool stop a]
  - name: watch
    words: watch
    summary: watch
    switches: -f -F
    replace: {-F: -f}
    follows: [-f, -F]
    working_folder: read
    changes: false
    discloses: nothing
    match: [tool watch]
"""


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library()


def ask(*argv: str) -> Operation | Unknown | Refused:
    return match_program(compile_program(parse_program(TOOL.encode(), "tool.yaml")), ("tool", *argv))


def known(*argv: str) -> Operation:
    answer = ask(*argv)
    assert isinstance(answer, Operation), answer
    return answer


def unknown(*argv: str) -> Unknown:
    answer = ask(*argv)
    assert isinstance(answer, Unknown), answer
    return answer


def test_the_argv_that_is_executed_holds_what_was_added() -> None:
    assert known("show", "a", "/x").argv == ("tool", "--quiet", "show", "--once", "-l", "10", "a", "/x")
    assert known("show", "-l5", "a", "/x").argv == ("tool", "--quiet", "show", "--once", "-l5", "a", "/x")


def test_references_point_at_the_argument_that_is_executed() -> None:
    """The caller puts the real path exactly there."""
    answer = known("-n", "x", "show", "-abf/in", "a", "--file=/two", "/last")
    placed = [(answer.argv[path.index or 0][path.start :], path.text) for path in answer.paths]
    assert placed == [("/in", "/in"), ("/two", "/two"), ("/last", "/last")]


def test_positionals_fill_from_both_ends() -> None:
    assert known("show", "a", "b", "c", "/x").summary == "show b c"
    assert [path.text for path in known("show", "a", "b", "c", "/x").paths] == ["/x"]
    assert "last is missing" in unknown("show", "a").why


@pytest.mark.parametrize(
    ("argv", "index", "why"),
    [
        (("show", "--al", "a", "x"), 2, "never abbreviated"),
        (("show", "-abz", "a", "x"), 2, "'-z' (in '-abz')"),
        (("show", "--all=yes", "a", "x"), 2, "takes no value"),
        (("show", "--lines", "0", "a", "x"), 3, "from 1 to 100"),
        (("show", "--lines=101", "a", "x"), 2, "from 1 to 100"),
        (("show", "-l", "-5", "a", "x"), 3, "begins with a dash"),
        (("show", "-l"), 2, "needs a value"),
        (("show", "--when=later", "a", "x"), 2, "one of always, never"),
        (("show", "-uname", "a", "x"), 2, "stands apart"),
        (("show", "a", "-"), 3, "begins with a dash"),
        (("show", "a b", "x"), 2, "not a plain word"),
        (("--colour", "blue", "show"), 2, "colour"),
        (("dance",), 1, "no known command 'dance'"),
        ((), 0, "command is missing"),
        (("watch", "x"), 2, "one argument too many"),
        (("stop", "-n", "a", "-n", "b", "c"), 6, "given twice"),
    ],
)
def test_a_mismatch_names_its_place(argv: tuple[str, ...], index: int, why: str) -> None:
    answer = unknown(*argv)
    assert answer.index == index
    assert why in answer.why


def test_an_optional_value_is_only_taken_attached_and_a_greedy_one_when_it_looks_like_one() -> None:
    assert unknown("show", "--when", "always").why.startswith("last is missing")
    assert known("show", "--when", "a", "/x").paths[0].text == "/x"
    assert known("show", "-walways", "a", "/x").summary == "show "
    assert known("show", "-m", "5", "a", "/x").summary == "show "
    assert known("show", "-m", "five", "a", "/x").summary == "show a"


def test_after_two_dashes_everything_is_a_positional() -> None:
    answer = known("show", "a", "--", "-x")
    assert answer.paths[0].text == "-x"
    assert isinstance(ask("show", "--", "-a", "/x"), Unknown)


def test_two_dashes_as_a_value_do_not_end_the_options() -> None:
    assert "begins with a dash" in unknown("show", "-f", "--", "a", "x").why


def test_a_number_with_a_dash_is_an_option_of_its_own_and_its_placeholder_is_not() -> None:
    assert known("show", "-20", "a", "/x")
    assert isinstance(ask("show", "-NUM", "5", "a", "/x"), Unknown)


def test_what_is_refused_stays_refused_wherever_it_stands() -> None:
    for argv in (("show", "--exec=x", "a", "b"), ("--exec", "show"), ("show", "a", "--exec", "x"), ("shell",)):
        answer = ask(*argv)
        assert isinstance(answer, Refused), argv
        assert answer.instead == "use show"
    assert isinstance(ask("open", "shell", "x"), Refused)


def test_targets_check_and_undo_are_filled_in() -> None:
    answer = known("stop", "a", "b", "-n", "prod")
    assert [(target.kind, target.name, target.context) for target in answer.targets] == [
        ("unit", "a", {"way": "soft", "namespace": "prod"}),
        ("unit", "b", {"way": "soft", "namespace": "prod"}),
    ]
    assert answer.check is not None
    assert answer.check.argv == ("tool", "show", "a", "b", "--namespace", "prod", "x")
    assert answer.undo is not None
    assert answer.undo.argv == ("tool", "stop", "a", "b")
    assert answer.summary == "stop a b in prod"
    assert not answer.repeatable
    without = known("stop", "a").check
    assert without is not None
    assert without.argv == ("tool", "show", "a", "x")


def test_following_a_replaced_switch_and_the_working_folder() -> None:
    assert known("watch", "-F").argv[-1] == "-f"
    assert known("watch", "-F").ends_by_timeout
    assert not known("watch").ends_by_timeout
    assert known("watch").paths[0].index is None


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a: 1\na: 2\n", 2, "twice"),
        ("a: &x [1]\nb: *x\n", 1, "aliases"),
        ("a: !!python/object:os.system x\n", 1, "tag"),
        ("a: !t {b: 1}\n", 1, "tag"),
        ("a: {<<: {b: 1}}\n", 1, "plain text"),
        ("a: [1\n", 2, "not YAML"),
        ("", 1, "empty"),
        ("[" * 14 + "]" * 14, 1, "too deep"),
        ("[" * 5000, 1, ""),
        ("a: 1\n---\nb: 2\n", 2, "not YAML"),
    ],
)
def test_yaml_that_could_surprise_is_refused_with_its_line(text: str, line: int, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_yaml(text.encode(), "x.yaml")
    assert caught.value.message.startswith(f"x.yaml:{line}:") or not why
    assert why in caught.value.message
    assert caught.value.fix


def test_a_yaml_bomb_and_a_huge_file_are_refused_at_once() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    started = time.perf_counter()
    for text in (bomb.encode(), b"a: " + b"x" * FILE_BYTES_MAX, b"- x\n" * 30_000):
        with pytest.raises(Invalid):
            parse_yaml(text, "x.yaml")
    assert time.perf_counter() - started < 2


def test_yaml_words_are_texts_unless_they_are_plain_json() -> None:
    data, _ = parse_yaml(b"a: [on, no, 1:30, 0o7, 1, 1.5, true, 2020-01-01, '1', ~]\n", "x.yaml")
    assert data == {"a": ["on", "no", "1:30", "0o7", 1, 1.5, True, "2020-01-01", "1", None]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("program: tool", "program: bad name"), "program"),
        (("changes: true", "changes: false"), "changes nothing"),
        (("risk: medium", "risk: none"), "risk"),
        (('    undo: {argv: [tool, stop, "{names}"]}\n', ""), "irreversible"),
        (("word *", "wurd *"), "no type"),
        (("from: names", "from: nomes"), "not one of its arguments"),
        (("follows: [-f, -F]", "follows: [-q]"), "not one of its arguments"),
        (("name: watch", "name: show"), "declared twice"),
        (("-l --lines", "-a --lines"), "declared twice"),
        (("match: [tool watch]", "match: []"), "match"),
        (("discloses: nothing", "discloses: nothing\n    colour: red"), "colour"),
        (("types: {colour: red|green}", "types: {colour: '('}"), "regular expression"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused(change: tuple[str, str], why: str) -> None:
    with pytest.raises((Invalid, ValueError), match=why):
        compile_program(parse_program(TOOL.replace(*change).encode(), "tool.yaml"))


@pytest.mark.parametrize(
    "change",
    [
        ("match: [tool stop a]", "match: [tool stop]"),
        ("match: [tool stop a]", "match: [tool show a b]"),
        ("match: [tool stop a]", "match: [tool stop a]\n    not_match: [tool stop b]"),
        ("match: [tool stop a]", 'match: ["tool stop \'a"]'),
        ("undo: {argv: [tool, stop", "undo: {argv: [tool, watch"),
        ("check: {argv: [tool, show", "check: {argv: [tool, stop"),
    ],
)
def test_examples_checks_and_undos_are_held_against_the_library(change: tuple[str, str]) -> None:
    assert change[0] in TOOL
    for text, holds in ((TOOL, True), (TOOL.replace(*change), False)):
        program = parse_program(text.encode(), "tool.yaml")
        alone = Library([program], Wrappers(wrappers=()), PathRules(open=(), secret=("/x",)))
        if holds:
            check_examples(alone, program)
        else:
            with pytest.raises(Invalid):
                check_examples(alone, program)


def test_a_project_brings_its_own_programs(tmp_path: Path) -> None:
    (tmp_path / "tool.yaml").write_text(TOOL)
    assert "tool" in load_library((tmp_path,)).programs
    (tmp_path / "tool.yaml").write_text(TOOL.replace("match: [tool stop a]", "match: [tool stop]"))
    with pytest.raises(Invalid):
        load_library((tmp_path / "tool.yaml",))
    with pytest.raises(Invalid, match="cannot be read"):
        load_library((tmp_path / "absent.yaml",))


def test_programs_that_others_could_write_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tool.yaml"
    file.write_text(TOOL)
    for place, mode in ((file, 0o666), (tmp_path, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        with pytest.raises(Invalid, match="every user may write it"):
            load_library((tmp_path,))
        place.chmod(before)
    assert "tool" in load_library((tmp_path,)).programs


@pytest.mark.parametrize("name", ["df", "bash", "python3.12", "sudo"])
def test_no_further_program_takes_a_known_or_refused_name(library: Library, name: str) -> None:
    text = TOOL.replace("program: tool", f"program: {name}")
    with pytest.raises(Invalid):
        library.with_programs([parse_program(text.encode(), "x.yaml")])


def test_no_further_program_takes_a_known_path(library: Library) -> None:
    text = TOOL.replace("insert: [--quiet]", "paths: [/usr/bin/df]")
    with pytest.raises(Invalid, match="belongs to"):
        library.with_programs([parse_program(text.encode(), "x.yaml")])


def test_an_adopted_script_is_known_by_name_and_by_path(library: Library) -> None:
    text = TOOL.replace("program: tool", "program: report.nightly").replace(
        "insert: [--quiet]", f"adopted: {{path: /srv/bin/report.sh, sha256: '{'a' * 64}'}}"
    )
    wider = library.with_programs([parse_program(text.encode(), "adopted")])
    for name in ("report.nightly", "/srv/bin/report.sh"):
        answer = wider.match([name, "watch"])
        assert isinstance(answer, Operation)
        assert answer.path_candidates == ("/srv/bin/report.sh",)
        assert answer.sha256 == "a" * 64
    assert isinstance(wider.match(["report.nightly", "--version"]), Unknown)
    assert isinstance(library.match(["report.nightly", "watch"]), Unknown)
    assert wider.digest != library.digest


def test_paths_are_open_secret_or_held_to_the_roots(library: Library) -> None:
    assert library.classify_path("/etc/os-release") == "open"
    assert library.classify_path("/srv/app/log") == "rooted"
    for path in ("/etc/shadow", "/proc/1/environ", "/srv/app/.env", "/home/x/.ssh/id_rsa", "/srv/tls/site.key"):
        assert library.classify_path(path) == "secret", path


def test_matching_takes_microseconds(library: Library) -> None:
    """Best of several rounds, so that a busy machine does not matter."""
    argv = ["journalctl", "-u", "nginx", "--since", "1 hour ago", "-n", "200", "-o", "short-iso", "-p", "err", "-xe"]
    rounds = []
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(50):
            library.match(argv)
        rounds.append((time.perf_counter() - started) / 50)
    assert min(rounds) < 100e-6


def disk(**files: FileStatus) -> dict[str, FileStatus]:
    folders = {path: FileStatus(0o040755, 0) for path in ("/", "/usr", "/usr/bin", "/opt", "/opt/x")}
    return folders | {path.replace("__", "/"): status for path, status in files.items()}


def test_a_binary_is_found_through_links_of_the_operator() -> None:
    files = disk(
        __bin=FileStatus(0o120777, 0, "usr/bin"),
        __usr__bin__df=FileStatus(0o120777, 0, "../../opt/x/df"),
        __opt__x__df=FileStatus(0o100755, 0),
    )
    assert resolve_binary("df", ["/nowhere/df", "/bin/df"], status=files.get) == Path("/opt/x/df")


@pytest.mark.parametrize(
    "planted",
    [
        {"__usr__bin__df": FileStatus(0o100757, 0)},
        {"__usr__bin__df": FileStatus(0o100775, 0)},
        {"__usr__bin__df": FileStatus(0o100755, 1000)},
        {"__usr__bin": FileStatus(0o040777, 0), "__usr__bin__df": FileStatus(0o100755, 0)},
        {"__usr__bin": FileStatus(0o040755, 1000), "__usr__bin__df": FileStatus(0o100755, 0)},
        {"__usr__bin__df": FileStatus(0o120777, 1000, "/opt/x/df"), "__opt__x__df": FileStatus(0o100755, 0)},
        {"__usr__bin__df": FileStatus(0o120777, 0, "/opt/x/df"), "__opt__x__df": FileStatus(0o100755, 1000)},
        {"__usr__bin__df": FileStatus(0o120777, 0, "df")},
    ],
)
def test_a_binary_that_could_be_planted_is_denied(planted: dict[str, FileStatus]) -> None:
    with pytest.raises(Denied):
        resolve_binary("df", ["/usr/bin/df", "/opt/x/df"], status=disk(**planted).get)


def test_a_missing_binary_is_not_found() -> None:
    with pytest.raises(NotFound):
        resolve_binary("df", ["/usr/bin/df"], status=disk().get)
    with pytest.raises(NotFound):
        resolve_binary("df", ["/usr/bin/df"], status=disk(__usr__bin__df=FileStatus(0o100644, 0)).get)


def test_an_operator_of_his_own_may_own_binaries() -> None:
    files = disk(__usr__bin__df=FileStatus(0o100755, 1000))
    assert resolve_binary("df", ["/usr/bin/df"], owners=frozenset({0, 1000}), status=files.get) == Path("/usr/bin/df")
