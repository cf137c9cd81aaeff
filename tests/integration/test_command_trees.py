"""What lies beneath the folders that a command names is looked at too: secrets, links to elsewhere, repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from interlock.adapters.files import FileTargets
from interlock.adapters.names import NamedTargets
from interlock.adapters.resolvers import ResolverSet
from interlock.commands import trees
from interlock.commands.facts import Placed, Surroundings
from interlock.commands.library import Library, load_library
from interlock.commands.model import Operation
from interlock.commands.repository import find_repository
from interlock.core.errors import Denied, NotFound
from interlock.core.project import Project, Roots

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="git is not installed")


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library()


class Place:
    """A project with one folder to read, one to write and one that is nobody's business."""

    def __init__(self, folder: Path, library: Library) -> None:
        self.folder, self.library = folder, library
        for name in ("drop/tree/sub", "site/tree/sub", "private"):
            (folder / name).mkdir(parents=True)
        (folder / "private/precious").write_text("precious\n")
        (folder / "drop/latest.csv").write_text("new\n")
        (folder / "drop/tree/sub/page").write_text("new\n")
        (folder / "site/index.html").write_text("hello\n")
        project = Project(folder=str(folder), roots=Roots(read=("drop",), write=("site",)))
        self.surroundings = Surroundings(project, ResolverSet((FileTargets(), NamedTargets())), library)

    def place(self, *argv: str, folder: str | None = None) -> Placed:
        operation = self.library.match(argv)
        assert isinstance(operation, Operation), operation
        return self.surroundings.place(operation, folder)

    def discloses(self, *argv: str, folder: str | None = None) -> str:
        return self.place(*argv, folder=folder).operation.discloses

    def git(self, *argv: str) -> None:
        settings = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main")
        subprocess.run([GIT or "git", *settings, *argv], cwd=self.folder / "site", check=True, capture_output=True)

    def said(self, *argv: str) -> str:
        done = subprocess.run(
            [GIT or "git", *argv], cwd=self.folder / "site", check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def repository(self) -> None:
        self.git("init")
        self.git("add", "index.html")
        self.git("commit", "-m", "first")


@pytest.fixture
def here(tmp_path: Path, library: Library) -> Place:
    return Place(Path(os.path.realpath(tmp_path)), library)


SEARCHES = [("grep", "-rn", ".", "site"), ("grep", "-r", "-e", "x", "site"), ("diff", "-rN", "site", "drop")]


@pytest.mark.parametrize("argv", SEARCHES)
@pytest.mark.parametrize("name", [".env", "tree/server.key", "tree/sub/id_rsa"])
def test_a_folder_with_a_secret_in_it_is_a_secret_to_read_whole(here: Place, argv: tuple[str, ...], name: str) -> None:
    assert here.discloses(*argv) == "content"
    (here.folder / "site" / name).write_text("TOKEN=1\n")
    assert here.discloses(*argv) == "secret"


def test_one_level_of_a_comparison_is_read_too(here: Place) -> None:
    (here.folder / "site/.env").write_text("TOKEN=1\n")
    assert here.discloses("diff", "site", "drop") == "secret"


def test_names_beneath_a_folder_are_no_secret(here: Place) -> None:
    (here.folder / "site/.env").write_text("TOKEN=1\n")
    assert here.discloses("ls", "-lR", "site") == "nothing"
    assert here.discloses("grep", "x", "site/index.html") == "content"


def test_what_is_too_much_to_look_at_counts_as_a_secret(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ENTRIES_MAX", 2)
    assert here.discloses("grep", "-r", "x", "site") == "secret"
    with pytest.raises(Denied):
        here.place("cp", "-r", "drop", "site")


def test_a_walk_ends_when_its_time_is_up(here: Place) -> None:
    seconds = iter((0.0, 1.0, 3.0))
    with pytest.raises(trees.Unbounded):
        list(trees.walk(str(here.folder), monotonic=lambda: next(seconds)))


def test_a_link_beneath_is_named_and_not_followed(here: Place) -> None:
    (here.folder / "drop/out").symlink_to(here.folder / "private")
    assert "out/precious" not in set(trees.walk(str(here.folder / "drop")))


@pytest.mark.parametrize("argv", [("cp", "drop/latest.csv", "site"), ("cp", "-a", "drop/latest.csv", "site")])
def test_what_a_copy_overwrites_in_a_folder_is_where_its_link_leads(here: Place, argv: tuple[str, ...]) -> None:
    precious = here.folder / "private/precious"
    (here.folder / "site/latest.csv").symlink_to(precious)
    placed = here.place(*argv)
    assert f"file:{precious}" in {target.key for target in placed.targets}
    assert "file.outside_roots" in placed.operation.operations
    assert (str(here.folder / "site/latest.csv"), str(precious)) in placed.paths


def test_a_copy_of_a_tree_overwrites_what_links_beneath_lead_to(here: Place) -> None:
    precious = here.folder / "private/precious"
    (here.folder / "site/tree/sub/page").symlink_to(precious)
    placed = here.place("cp", "-r", "drop/tree", "site")
    assert f"file:{precious}" in {target.key for target in placed.targets}
    assert "file.outside_roots" in placed.operation.operations


def test_a_copied_tree_discloses_the_secrets_in_it(here: Place) -> None:
    (here.folder / "drop/tree/.env").write_text("TOKEN=1\n")
    assert here.discloses("cp", "-r", "drop/tree", "site") == "secret"


def test_a_copy_from_outside_the_roots_discloses_like_a_read(here: Place) -> None:
    assert here.discloses("cp", "drop/latest.csv", "site") == "content"
    assert here.discloses("cp", "private/precious", "site/copy") == "secret"


@pytest.mark.parametrize("argv", [("mv", "site/a", "site/tree"), ("ln", "-s", "drop/a", "site/tree")])
def test_moves_and_links_into_a_folder_name_what_they_replace(here: Place, argv: tuple[str, ...]) -> None:
    for name in ("site/a", "drop/a", "site/tree/a"):
        (here.folder / name).write_text("old\n")
    assert f"file:{here.folder}/site/tree/a" in {target.key for target in here.place(*argv).targets}


def test_a_copy_to_a_new_name_touches_that_name_alone(here: Place) -> None:
    placed = here.place("cp", "drop/latest.csv", "site/new.csv")
    assert {target.id for target in placed.targets} == {f"{here.folder}/site/new.csv"}


@needs_git
def test_outside_of_a_repository_git_compares_nothing(here: Place) -> None:
    (here.folder / "site/a").write_text("a\n")
    for argv in (("git", "diff", "zzz", "a"), ("git", "status"), ("git", "-C", str(here.folder / "site"), "log")):
        with pytest.raises(NotFound) as caught:
            here.place(*argv, folder="site")
        assert caught.value.code in {"repository.absent", "path.unknown"}


@needs_git
def test_a_revision_that_is_also_a_path_is_refused(here: Place) -> None:
    here.repository()
    (here.folder / "site/up").symlink_to("/etc")
    for text in ("index.html", "up/shadow", "tree"):
        for argv in (("git", "diff", text), ("git", "show", text), ("git", "log", text), ("git", "checkout", text)):
            with pytest.raises(Denied) as caught:
                here.place(*argv, folder="site")
            assert caught.value.code == "revision.is_path"


@needs_git
def test_a_revision_is_looked_for_where_git_will_stand(here: Place) -> None:
    here.repository()
    folder = str(here.folder / "site")
    for argv in (("-C", "site"), ("-C", "drop", "-C", folder)):
        with pytest.raises((Denied, NotFound)) as caught:
            here.place("git", *argv, "diff", "index.html")
        assert caught.value.code == "revision.is_path"


@needs_git
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_repository_of_another_account_is_no_read(here: Place) -> None:
    here.repository()
    os.chown(here.folder / "site/.git", 65534, 65534)
    assert here.place("git", "status", folder="site").operation.changes


@needs_git
def test_revisions_and_paths_are_told_apart(here: Place) -> None:
    here.repository()
    path = str(here.folder / "site/index.html")
    for argv in (["diff", "HEAD", "index.html", "-w"], ["diff", "-w", "HEAD", "--", "index.html"]):
        assert here.place("git", *argv, folder="site").argv[-4:] == ("-w", "HEAD", "--", path)
    assert here.place("git", "diff", "--", "index.html", folder="site").argv[-2:] == ("--", path)
    assert here.place("git", "log", "HEAD", "--oneline", folder="site").argv[-3:] == ("--oneline", "HEAD", "--")


@needs_git
def test_a_repository_is_found_from_within_as_git_finds_it(here: Place) -> None:
    here.repository()
    found = find_repository(str(here.folder / "site/tree/sub"))
    assert found is not None
    assert found.top == str(here.folder / "site")
    assert here.place("git", "status", folder="site/tree").operation.only_reads
    assert find_repository(str(here.folder / "drop")) is None


@needs_git
@pytest.mark.parametrize("place", ["site", "site/.git", "site/.git/config", "site/.git/hooks", "site/tree"])
def test_a_repository_that_others_can_write_is_no_read(here: Place, place: str) -> None:
    here.repository()
    (here.folder / place).chmod(0o777)
    assert here.place("git", "status", folder="site/tree").operation.changes


@needs_git
def test_a_repository_that_lies_elsewhere_is_no_read(here: Place) -> None:
    here.repository()
    (here.folder / "site/.git").rename(here.folder / "private/git")
    (here.folder / "site/.git").write_text(f"gitdir: {here.folder}/private/git\n")
    assert here.place("git", "status", folder="site").operation.changes


CONTENT = [("show", "HEAD"), ("diff",), ("log", "-p"), ("log", "-S", "x"), ("stash", "list", "-p")]


@needs_git
@pytest.mark.parametrize("argv", CONTENT)
def test_the_content_of_a_repository_with_a_secret_in_it_is_one(here: Place, argv: tuple[str, ...]) -> None:
    here.repository()
    assert here.discloses("git", *argv, folder="site/tree") == "content"
    (here.folder / "site/.env").write_text("TOKEN=1\n")
    assert here.discloses("git", *argv, folder="site/tree") == "secret"
    for harmless in (("log", "--oneline"), ("diff", "--stat"), ("rev-parse", "HEAD")):
        assert here.discloses("git", *harmless, folder="site") == "content"


@pytest.mark.parametrize("text", ["HEAD:.env", "HEAD:./conf/server.key", ":0:.env", "main~3:a/.env"])
def test_a_secret_named_within_a_revision_is_one(library: Library, text: str) -> None:
    answer = library.match(["git", "show", text])
    assert isinstance(answer, Operation)
    assert answer.discloses == "secret"


def test_any_object_of_a_repository_may_be_a_secret(library: Library) -> None:
    answer = library.match(["git", "cat-file", "-p", "0123abcd"])
    assert isinstance(answer, Operation)
    assert answer.discloses == "secret"


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_a_compose_project_that_others_can_write_is_no_read(here: Place) -> None:
    file = here.folder / "site/compose.yml"
    file.write_text("services: {}\n")
    argv = ("docker-compose", "-f", "site/compose.yml", "ps")
    assert here.place(*argv).operation.only_reads
    file.chmod(0o666)
    assert here.place(*argv).operation.changes


@pytest.mark.parametrize("program", ["docker compose", "docker-compose"])
def test_compose_reads_what_its_files_name_so_they_must_be_the_operators(library: Library, program: str) -> None:
    for line in (f"{program} ps", f"{program} -f a.yml ps", f"{program} -f a.yml up -d"):
        answer = library.match(line.split())
        assert isinstance(answer, Operation)
        assert {path.access for path in answer.paths} == {"trust"}


@needs_git
def test_a_secret_of_another_commit_or_branch_is_one(here: Place) -> None:
    here.repository()
    here.git("checkout", "-b", "other")
    (here.folder / "site/.env").write_text("TOKEN=x\n")
    here.git("add", ".env")
    here.git("commit", "-m", "second")
    here.git("tag", "-a", "v1", "-m", "tagged")
    number = here.said("rev-parse", "other:.env")
    here.git("checkout", "main")
    for line in (
        *("show other", "show v1", f"show {number}", f"show {number[:9]}", "show --oneline -w other"),
        *("log -p other", "log -p --all", "log -p -5 --graph --stat other", "diff main..other", "grep x other"),
    ):
        assert here.discloses("git", *line.split(), folder="site") == "secret", line
    for line in (
        *("show main", "log -p", "log -p -1 main", "log other", "diff", "diff HEAD", "diff --stat main..other"),
        *("grep x", "grep x main"),
    ):
        assert here.discloses("git", *line.split(), folder="site") == "content", line
    assert here.discloses("git", "show", "nosuch", folder="site") == "content"
    assert here.discloses("git", "ls-tree", "-p", "main", folder="site") == "secret"
    (here.folder / "site/.env").write_text("TOKEN=x\n")
    here.git("stash", "--include-untracked")
    (here.folder / "site/index.html").write_text("changed\n")
    here.git("stash")
    assert here.discloses("git", "show", "stash@{1}^3", folder="site") == "secret"


@pytest.mark.parametrize("path", ["/proc/net/dev", "/proc/net/tcp", "/proc/meminfo", "/proc/mounts"])
def test_what_the_kernel_tells_everybody_is_no_secret_where_it_really_lies(here: Place, path: str) -> None:
    """/proc/net is a link to the reader's own."""
    assert here.discloses("cat", path) == "content"
