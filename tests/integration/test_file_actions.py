"""Files are written whole or not at all, never through a link, and put back when asked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from interlock.adapters.files import FileTargets
from interlock.adapters.resolvers import ResolverSet
from interlock.core.action import PathClass, Ports
from interlock.core.errors import Denied, InterlockError, Invalid, NotFound, Stale, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Plan, Step
from interlock.core.ports import ProcessResult, ProcessSpec
from interlock.core.project import Project, Roots
from interlock.core.run import Run
from interlock.engine.blobs import FileBlobs
from interlock.engine.planner import validate
from interlock.files.actions import FileWrite
from interlock.lib.clock import SystemClock
from interlock.lib.redact import Redactor


class NoRecords:
    """These tests need none of Interlock's own tables."""

    def run(self, number: int) -> Run:
        raise NotFound(str(number))

    def adopted(self) -> tuple[JsonObject, ...]:
        return ()


class Context:
    """A step's context, with a hook at the last moment before the effect."""

    run, key, attempt, cancelled = 1, "1:0", 1, False

    def __init__(self, blobs: FileBlobs, at_last_moment: Callable[[], None] = lambda: None) -> None:
        self.blobs = blobs
        self._at_last_moment = at_last_moment

    def hold(self) -> None:
        self._at_last_moment()

    def execute(self, spec: ProcessSpec) -> ProcessResult:
        raise AssertionError(spec)

    def write_output(self, text: str) -> None:
        raise AssertionError(text)

    def arrange(self, name: str, payload: JsonObject) -> JsonObject:
        raise AssertionError(name)


class Site:
    """A project with one folder that may be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "site").mkdir()
        (folder / "elsewhere").mkdir()
        self.blobs = FileBlobs(folder / "blobs", b"k" * 32)
        project = Project(folder=str(folder), roots=Roots(write=("site",)))
        resolvers = ResolverSet((FileTargets(),))
        redactor = Redactor()
        self.write = FileWrite(
            Ports(lambda: project, resolvers, SystemClock(), NoRecords(), redactor, self._class, self._none)
        )

    def _class(self, path: str) -> PathClass:
        return "secret" if path.endswith(".env") else "rooted"

    def _none(self, name: str) -> FileWrite:
        raise AssertionError(name)

    def plan(self, path: str, content: str = "new\n") -> Plan:
        args = validate(FileWrite.Args, {"path": path, "content": content}, "file.write")
        return self.write.plan(args, self.write.read_facts(args))

    def perform(self, step: Step, at_last_moment: Callable[[], None] = lambda: None) -> str:
        result = self.write.perform(step, Context(self.blobs, at_last_moment))
        assert result.ok
        assert self.write.check(step, Context(self.blobs)).ok
        return result.summary


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(Path(os.path.realpath(tmp_path)))


def undo_of(plan: Plan) -> Step:
    (step,) = plan.steps
    assert step.undo is not None
    return step.undo


def test_a_new_file_is_created_and_its_undo_removes_it(site: Site) -> None:
    plan = site.plan("site/a.txt")
    site.perform(plan.steps[0])
    path = site.folder / "site/a.txt"
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o644
    site.perform(undo_of(plan))
    assert not path.exists()


def test_a_replaced_file_keeps_mode_and_its_undo_puts_the_original_back(site: Site) -> None:
    path = site.folder / "site/a.txt"
    path.write_text("old\n")
    path.chmod(0o640)
    plan = site.plan("site/a.txt")
    assert plan.preview is not None
    assert "-old" in plan.preview
    assert "+new" in plan.preview
    site.perform(plan.steps[0])
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new\n", 0o640)
    site.perform(undo_of(plan))
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("old\n", 0o640)


def test_writing_twice_equals_writing_once(site: Site) -> None:
    plan = site.plan("site/a.txt")
    site.perform(plan.steps[0])
    assert site.perform(plan.steps[0]) == "it was so already"


def test_the_same_world_gives_the_same_plan_and_another_world_another(site: Site) -> None:
    first = site.plan("site/a.txt")
    assert site.plan("site/a.txt").digest == first.digest
    (site.folder / "site/a.txt").write_text("somebody was here\n")
    assert site.plan("site/a.txt").digest != first.digest


def test_a_file_that_changed_since_the_plan_is_not_written(site: Site) -> None:
    plan = site.plan("site/a.txt")
    (site.folder / "site/a.txt").write_text("somebody was here\n")
    with pytest.raises(Stale):
        site.perform(plan.steps[0])
    assert (site.folder / "site/a.txt").read_text() == "somebody was here\n"


def test_a_file_that_changes_at_the_last_moment_is_not_written(site: Site) -> None:
    path = site.folder / "site/a.txt"
    plan = site.plan("site/a.txt")
    with pytest.raises(Stale):
        site.perform(plan.steps[0], lambda: path.write_text("somebody was here\n") and None)
    assert path.read_text() == "somebody was here\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"], "no draft is left behind"


def test_a_lost_lease_at_the_last_moment_leaves_everything_as_it_was(site: Site) -> None:
    def lost() -> None:
        msg = "the lease is over"
        raise Transient(msg, effect_sent=False)

    with pytest.raises(Transient):
        site.perform(site.plan("site/a.txt").steps[0], lost)
    assert list((site.folder / "site").iterdir()) == []


@pytest.mark.parametrize("path", ["elsewhere/a.txt", "../a.txt", "/etc/interlock-test", "site/../elsewhere/a"])
def test_outside_the_roots_nothing_is_written(site: Site, path: str) -> None:
    with pytest.raises(Denied):
        site.plan(path)


def test_a_link_is_followed_before_deciding_and_named_by_where_it_leads(site: Site) -> None:
    (site.folder / "site/link").symlink_to("../elsewhere/a.txt")
    (site.folder / "elsewhere/a.txt").write_text("old\n")
    with pytest.raises(Denied):
        site.plan("site/link")
    (site.folder / "site/real").write_text("old\n")
    (site.folder / "site/inside").symlink_to("real")
    assert site.plan("site/inside").targets[0].id == str(site.folder / "site/real")


def test_a_folder_swapped_for_a_link_after_the_plan_is_noticed(site: Site) -> None:
    (site.folder / "site/sub").mkdir()
    plan = site.plan("site/sub/a.txt")
    (site.folder / "site/sub").rmdir()
    (site.folder / "site/sub").symlink_to("../elsewhere")
    with pytest.raises(Stale):
        site.perform(plan.steps[0])
    assert list((site.folder / "elsewhere").iterdir()) == []


def test_a_file_swapped_for_a_link_after_the_plan_is_noticed(site: Site) -> None:
    secret = site.folder / "elsewhere/secret"
    secret.write_text("precious\n")
    plan = site.plan("site/a.txt")
    (site.folder / "site/a.txt").symlink_to(secret)
    with pytest.raises(Stale):
        site.perform(plan.steps[0])
    assert secret.read_text() == "precious\n"


def test_a_race_of_swapped_folders_never_writes_elsewhere(site: Site) -> None:
    sub, other = site.folder / "site/sub", site.folder / "site/other"
    sub.mkdir()
    other.symlink_to("../elsewhere")
    stop = threading.Event()

    def swap() -> None:
        spare = site.folder / "site/spare"
        while not stop.is_set():
            sub.rename(spare)
            other.rename(sub)
            sub.rename(other)
            spare.rename(sub)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for index in range(300):
            try:
                plan = site.plan(f"site/sub/{index}")
                site.write.perform(plan.steps[0], Context(site.blobs))
            except InterlockError:
                continue  # refused is always right; written elsewhere never is
    finally:
        stop.set()
        thread.join()
    assert list((site.folder / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_regular_file_is_refused(site: Site, kind: str) -> None:
    path = site.folder / "site/odd"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(InterlockError):
        site.plan("site/odd")


def test_a_missing_folder_is_said_so(site: Site) -> None:
    with pytest.raises(NotFound):
        site.plan("site/none/a.txt")


@pytest.mark.parametrize(
    "args",
    [
        {"path": "site/a"},
        {"path": "site/a", "content": "x", "content_base64": "eA=="},
        {"path": "site/a", "content_base64": "***"},
        {"path": "", "content": "x"},
        {"path": "site/a", "content": 7},
        {"path": "site/a", "content": "x", "mode": "0777"},
        {"path": "site/a", "content": "x" * (1024 * 1024 + 1)},
    ],
)
def test_wrong_arguments_are_invalid_with_their_place(args: JsonObject) -> None:
    with pytest.raises(Invalid) as caught:
        validate(FileWrite.Args, args, "file.write")
    assert "file.write" in caught.value.message


def test_a_secret_in_what_is_replaced_does_not_show_in_the_preview(site: Site) -> None:
    (site.folder / "site/a.txt").write_text("DB_PASSWORD=" + "swordfish\n")
    preview = site.plan("site/a.txt").preview
    assert preview is not None
    assert "swordfish" not in preview
