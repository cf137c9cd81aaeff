"""A command is placed on this machine before it is decided on: binary, paths behind links, what it discloses."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from interlock.adapters.files import FileTargets
from interlock.adapters.names import NamedTargets
from interlock.adapters.processes import ProcessTargets
from interlock.adapters.resolvers import ResolverSet
from interlock.commands.actions import Adopt, CommandExec
from interlock.commands.facts import require_same_paths
from interlock.commands.model import Operation
from interlock.control.actions import require_same_targets
from interlock.core.action import Action, PathClass, Ports
from interlock.core.errors import Conflict, Denied, Invalid, NotFound, Stale
from interlock.core.model import JsonObject
from interlock.core.plan import Plan, Target
from interlock.core.ports import ProcessResult, ProcessSpec, ProgramContext
from interlock.core.project import Project, Roots
from interlock.core.run import Run
from interlock.engine.blobs import FileBlobs
from interlock.engine.planner import validate
from interlock.lib.clock import SystemClock
from interlock.lib.redact import Redactor


class Records:
    """Only adopted programs."""

    def __init__(self) -> None:
        self.programs: tuple[JsonObject, ...] = ()

    def run(self, number: int) -> Run:
        raise NotFound(str(number))

    def adopted(self) -> tuple[JsonObject, ...]:
        return self.programs


class NeverRuns:
    """A context in which running anything is the failure."""

    run, key, attempt, cancelled = 1, "1:0", 1, False

    def __init__(self, folder: Path) -> None:
        self.blobs = FileBlobs(folder / "blobs", b"k" * 32)

    def hold(self) -> None:
        raise AssertionError

    def execute(self, spec: ProcessSpec) -> ProcessResult:
        raise AssertionError(spec)

    def write_output(self, text: str) -> None:
        raise AssertionError(text)

    def arrange(self, name: str, payload: JsonObject) -> JsonObject:
        raise AssertionError((name, payload))


class Shop:
    """A project with one folder to read and one to write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("logs", "site", "private"):
            (folder / name).mkdir()
        (folder / "logs/app.log").write_text("one\ntwo\n")
        (folder / "private/key").write_text("precious\n")
        self.project = Project(folder=str(folder), roots=Roots(read=("logs",), write=("site",)))
        self.records = Records()
        self.look_with(FileTargets())

    def look_with(self, files: FileTargets) -> None:
        """Use this resolver of files."""
        resolvers = ResolverSet((files, NamedTargets(), ProcessTargets()))
        ports = Ports(lambda: self.project, resolvers, SystemClock(), self.records, Redactor(), self._class, self._none)
        self.exec, self.adopt = CommandExec(ports), Adopt(ports)

    def _class(self, path: str) -> PathClass:
        raise AssertionError(path)

    def _none(self, name: str) -> Action:
        raise AssertionError(name)

    def plan(self, *argv: str) -> Plan:
        args = validate(CommandExec.Args, {"argv": list(argv)}, "command.exec")
        return self.exec.plan(args, self.exec.read_facts(args))

    def plan_adoption(self, **given: object) -> Plan:
        args = validate(Adopt.Args, {**given}, "interlock.adopt")  # type: ignore[arg-type]
        return self.adopt.plan(args, self.adopt.read_facts(args))

    def script(self, text: str = "#!/bin/sh\necho hi\n", mode: int = 0o755) -> Path:
        path = self.folder / "nightly.sh"
        path.write_text(text)
        path.chmod(mode)
        return path


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(Path(os.path.realpath(tmp_path)))


def test_a_read_inside_the_roots_changes_nothing_and_discloses_content(shop: Shop) -> None:
    plan = shop.plan("tail", "-n", "1", "logs/app.log")
    assert (plan.changes, plan.discloses, plan.opaque) == (False, "content", False)
    assert str(shop.folder / "logs/app.log") in plan.steps[0].params["argv"]  # type: ignore[operator]


@pytest.mark.parametrize("path", ["private/key", "logs/link", "/etc/shadow", "logs/../private/key"])
def test_a_read_outside_the_roots_counts_as_a_secret_by_whatever_name(shop: Shop, path: str) -> None:
    (shop.folder / "logs/link").symlink_to("../private/key")
    assert shop.plan("cat", path).discloses == "secret"


def test_names_and_sizes_may_be_seen_anywhere(shop: Shop) -> None:
    assert shop.plan("df", "-h", "/").discloses == "nothing"
    assert shop.plan("ls", "-l", str(shop.folder / "private")).discloses == "nothing"


def test_a_path_that_leads_elsewhere_since_the_plan_is_not_read(shop: Shop) -> None:
    link = shop.folder / "logs/current"
    link.symlink_to("app.log")
    (step,) = shop.plan("cat", "logs/current").steps
    link.unlink()
    link.symlink_to("../private/key")
    with pytest.raises(Stale):
        shop.exec.perform(step, NeverRuns(shop.folder))


def test_a_path_is_compared_with_where_it_led(shop: Shop) -> None:
    asked, real = str(shop.folder / "logs/app.log"), str(shop.folder / "logs/app.log")
    assert require_same_paths([[asked, real]]) is None
    assert require_same_paths([[asked, "/elsewhere"]]) == asked


@pytest.fixture
def drop(shop: Shop) -> Path:
    """A folder inside the roots in which others may put what they like."""
    shop.project = shop.project.model_copy(update={"roots": Roots(read=("logs", "drop"), write=("site", "drop"))})
    folder = shop.folder / "drop"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "r.txt").write_text("harmless\n")
    return folder


def test_what_others_can_let_lead_elsewhere_is_read_as_a_secret_and_says_why(shop: Shop, drop: Path) -> None:
    plan = shop.plan("cat", "drop/r.txt")
    assert plan.discloses == "secret"
    assert "others could put a link" in plan.summary
    assert shop.plan("ls", "-l", "drop").discloses == "nothing", "names and sizes may be seen anywhere"
    drop.chmod(0o755)
    assert shop.plan("cat", "drop/r.txt").discloses == "content"


def test_a_program_never_changes_a_file_that_others_can_swap(shop: Shop, drop: Path) -> None:
    with pytest.raises(Denied) as caught:
        shop.plan("chmod", "666", "drop/r.txt")
    assert caught.value.code == "path.swappable"
    drop.chmod(0o755)
    assert shop.plan("chmod", "666", "drop/r.txt").changes


@pytest.mark.parametrize("argv", [("cat", "drop/r.txt"), ("chmod", "666", "drop/r.txt")])
def test_a_path_that_came_into_others_reach_since_the_plan_is_not_opened(
    shop: Shop, drop: Path, argv: tuple[str, ...]
) -> None:
    drop.chmod(0o755)
    (step,) = shop.plan(*argv).steps
    drop.chmod(0o777)
    with pytest.raises(Stale) as caught:
        shop.exec.perform(step, NeverRuns(shop.folder))
    assert caught.value.code == "path.swappable"


class Flips(FileTargets):
    """The resolver while somebody lets a link lead elsewhere after the first look."""

    def __init__(self, link: Path, leads_to: str) -> None:
        super().__init__()
        self.link, self.leads_to = link, leads_to

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        found = super().resolve(kind, name, context)
        if name.startswith(str(self.link)):
            self.link.unlink()
            self.link.symlink_to(self.leads_to)
        return found


@pytest.mark.parametrize("argv", [("chmod", "666", "site/link/f"), ("cp", "logs/f", "site/link")])
def test_what_is_decided_on_is_what_will_be_executed_though_a_link_flips(shop: Shop, argv: tuple[str, ...]) -> None:
    for name in ("site/one/f", "site/two/f", "logs/f"):
        (shop.folder / name).parent.mkdir(exist_ok=True)
        (shop.folder / name).touch()
    link = shop.folder / "site/link"
    link.symlink_to("one")
    shop.look_with(Flips(link, "two"))
    (step,) = shop.plan(*argv).steps
    executed = str(step.params["argv"][-1])  # type: ignore[index]
    assert executed.startswith(str(shop.folder / "site/one"))
    assert str(shop.folder / "site/one/f") in {target.id for target in step.targets}
    assert f"file:{shop.folder / argv[-1]}" in {name for target in step.targets for name in target.names}


def test_an_unknown_program_is_opaque_risky_and_pinned_by_its_content(shop: Shop) -> None:
    path = shop.script()
    plan = shop.plan(str(path), "now")
    (step,) = plan.steps
    assert (step.opaque, step.changes, step.risk, step.repeatable) == (True, True, "high", False)
    shop.script("#!/bin/sh\necho something else\n")
    assert shop.plan(str(path), "now").digest != plan.digest


@pytest.mark.parametrize("argv", [["bash", "-c", "id"], ["sudo", "id"], ["env", "A=b", "id"], ["xargs", "rm"]])
def test_a_wrapper_is_refused_and_the_answer_says_what_to_use(shop: Shop, argv: list[str]) -> None:
    with pytest.raises(Denied) as caught:
        shop.plan(*argv)
    assert caught.value.code == "command.refused"
    assert caught.value.fix


@pytest.mark.parametrize("program", ["/bin/bash", "/usr/bin/env", "/proc/self/exe"])
def test_a_wrapper_is_refused_under_any_name_that_leads_to_it(shop: Shop, program: str) -> None:
    (shop.folder / "report-tool").symlink_to(program)
    for name in (str(shop.folder / "report-tool"), "./report-tool", program):
        with pytest.raises(Denied) as caught:
            shop.plan(name, "x")
        assert caught.value.code == "command.refused"


def test_a_known_program_is_asked_by_its_own_name(shop: Shop) -> None:
    (shop.folder / "report-tool").symlink_to("/bin/cat")
    with pytest.raises(Denied) as caught:
        shop.plan("./report-tool", "/etc/shadow")
    assert caught.value.fix == "ask for cat by its own name"
    assert shop.plan("cat", "--unheard-of").opaque


def test_what_is_no_plain_file_is_never_opened_as_a_program(shop: Shop) -> None:
    fifo = shop.folder / "pipe"
    os.mkfifo(fifo, 0o755)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(shop.folder / "door"))
        for path in (str(fifo), str(shop.folder / "door"), "/dev/zero", "/dev/tty", str(shop.folder)):
            with pytest.raises(Invalid) as caught:
                shop.plan(path)
            assert caught.value.code == "program.not_a_file", path


def test_a_file_that_says_it_is_empty_is_read_only_so_far(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interlock.commands.actions.SCRIPT_BYTES_MAX", 10)
    with pytest.raises(Invalid) as caught:
        shop.plan(str(shop.script()))
    assert caught.value.code == "program.size"


@pytest.mark.parametrize(("name", "mode", "code"), [(".env", 0o755, "program.secret"), ("pin", 0o644, "")])
def test_no_digest_of_a_secret_is_told(shop: Shop, name: str, mode: int, code: str) -> None:
    path = shop.folder / name
    path.write_text("1234")
    path.chmod(mode)
    with pytest.raises((Denied, Invalid)) as caught:
        shop.plan(str(path))
    assert caught.value.code == (code or "program.not_executable")


class Fails(NeverRuns):
    """A context in which every program fails and says why in its last line."""

    def execute(self, spec: ProcessSpec) -> ProcessResult:
        return ProcessResult(
            exit_code=1,
            signal=None,
            timed_out=False,
            output_bytes=9,
            truncated=False,
            output_sha256="0" * 64,
            tail="one\nprecious\n",
            duration_seconds=0.1,
        )


@pytest.mark.parametrize(
    ("argv", "summary"),
    [(("cat", "logs/app.log"), "exit 1"), (("ls", "-l", "logs"), "exit 1: precious")],
)
def test_the_last_line_is_kept_only_of_what_discloses_nothing(shop: Shop, argv: tuple[str, ...], summary: str) -> None:
    (step,) = shop.plan(*argv).steps
    result = shop.exec.perform(step, Fails(shop.folder))
    assert (result.ok, result.summary) == (False, summary)


def test_the_operators_settings_reach_the_program_and_no_plan(shop: Shop) -> None:
    own = ProgramContext(environment={"KUBECONFIG": "/etc/own/kubeconfig"})
    shop.project = shop.project.model_copy(update={"contexts": {"uptime": own}})
    plan = shop.plan("uptime")
    assert "kubeconfig" not in plan.model_dump_json()
    shop.project = shop.project.model_copy(update={"contexts": {}})
    with pytest.raises(Stale):
        shop.exec.perform(plan.steps[0], NeverRuns(shop.folder))


def test_a_script_becomes_a_known_program_pinned_by_its_content(shop: Shop) -> None:
    path = shop.script()
    plan = shop.plan_adoption(path=str(path), name="report.nightly", repeatable=True)
    (step,) = plan.steps
    shop.records.programs = (step.params["schema"],)  # type: ignore[assignment]
    (run,) = shop.plan("report.nightly").steps
    assert (run.opaque, run.repeatable, run.params["binary"]) == (False, True, str(path))
    assert run.params["sha256"] == step.params["sha256"]


def test_an_adopted_scripts_arguments_are_held_to_their_patterns(shop: Shop) -> None:
    given = {"arguments": {"month": "[0-9]{6}"}, "examples": ["report.month 202602"]}
    plan = shop.plan_adoption(path=str(shop.script()), name="report.month", **given)
    shop.records.programs = (plan.steps[0].params["schema"],)  # type: ignore[assignment]
    assert not shop.plan("report.month", "202602").opaque


@pytest.mark.parametrize("bad", [["x"], ["2026022"], ["202602", "more"], ["--help"], []])
def test_an_argument_that_does_not_fit_is_never_a_known_ask(shop: Shop, bad: list[str]) -> None:
    given = {"arguments": {"month": "[0-9]{6}"}, "examples": ["report.month 202602"]}
    plan = shop.plan_adoption(path=str(shop.script()), name="report.month", **given)
    shop.records.programs = (plan.steps[0].params["schema"],)  # type: ignore[assignment]
    assert not isinstance(shop.exec.library().match(["report.month", *bad]), Operation)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_script_that_others_can_change_is_not_adopted(shop: Shop, mode: int) -> None:
    with pytest.raises(Denied):
        shop.plan_adoption(path=str(shop.script(mode=mode)), name="report.nightly")


def test_a_script_with_arguments_needs_an_example_that_fits(shop: Shop) -> None:
    path = str(shop.script())
    with pytest.raises(Invalid):
        shop.plan_adoption(path=path, name="report.month", arguments={"month": "[0-9]{6}"})
    with pytest.raises(Invalid):
        shop.plan_adoption(path=path, name="a.b", arguments={"month": "[0-9]{6}"}, examples=["a.b june"])


def test_a_pattern_that_could_be_matched_for_ever_is_matched_at_once(shop: Shop) -> None:
    given = {"name": "report.month", "arguments": {"month": "(a+)+"}}
    plan = shop.plan_adoption(path=str(shop.script()), examples=["report.month aaa"], **given)
    assert plan.steps[0].verb == "adopt"
    with pytest.raises(Invalid, match="should match"):
        shop.plan_adoption(path=str(shop.script()), examples=[f"report.month {'a' * 60}b"], **given)


@pytest.mark.parametrize("pattern", ["(?!x)[a-z]+", r"(a)\1", "a)|(?:b", "(?=a)a"])
def test_a_pattern_that_needs_more_than_linear_time_is_refused(shop: Shop, pattern: str) -> None:
    with pytest.raises(Invalid):
        shop.plan_adoption(
            path=str(shop.script()), name="report.month", arguments={"month": pattern}, examples=["report.month a"]
        )


@pytest.mark.parametrize("path", ["/bin/sh", "/bin/bash", "/usr/bin/env", "/usr/bin/cat"])
def test_a_wrapper_or_a_known_program_is_not_adopted_under_another_name(shop: Shop, path: str) -> None:
    with pytest.raises(Denied) as caught:
        shop.plan_adoption(
            path=path, name="report.any", arguments={"c": ".*", "text": ".*"}, examples=["report.any -c id"]
        )
    assert caught.value.code == "command.refused"


def test_a_script_may_be_called_like_a_wrapper(shop: Shop) -> None:
    path = shop.script().rename(shop.folder / "watch")
    assert shop.plan_adoption(path=str(path), name="report.watch").steps[0].verb == "adopt"


def test_an_adopted_name_looks_like_no_program_of_the_library(shop: Shop) -> None:
    for name in ("df", "Report", "a b", "../x", "report"):
        with pytest.raises((Invalid, Conflict)):
            shop.plan_adoption(path=str(shop.script()), name=name)


def test_an_undo_that_would_touch_something_else_by_now_is_refused(shop: Shop) -> None:
    for name in ("a", "b"):
        (shop.folder / "site" / name).write_text(name)
    link = shop.folder / "site/current"
    link.symlink_to("a")
    done, back = (shop.plan("chmod", mode, "site/current") for mode in ("600", "644"))
    asked = {"asked": ["chmod", "644", "site/current"], "asked_folder": None}
    undo = back.steps[0].model_copy(update={"params": {**back.steps[0].params, **asked}})
    plan = done.model_copy(update={"steps": (done.steps[0].model_copy(update={"undo": undo}),)})
    run = Run.model_construct(number=7, plan=plan)
    require_same_targets(run, shop.exec)
    link.unlink()
    link.symlink_to("b")
    with pytest.raises(Stale, match=r"would now touch file:.*/site/b") as caught:
        require_same_targets(run, shop.exec)
    assert caught.value.code == "undo.other_target"


def test_the_undo_of_a_command_says_how_it_was_asked_for(shop: Shop) -> None:
    (shop.folder / "site/old").mkdir()
    undo = shop.plan("rmdir", "site/old").steps[0].undo
    assert undo is not None
    assert undo.params["asked"] == ["mkdir", "site/old"]
    (target,) = shop.exec.targets_now(undo)
    assert target.key == f"file:{shop.folder}/site/old"
