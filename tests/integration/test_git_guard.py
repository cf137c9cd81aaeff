"""Commits and pushes of real repositories, hostile ones too: exactly what was shown, and nothing of theirs is run."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.action_worlds import new_folder
from harness.databases import database
from harness.engine import ALICE, BOB, CLAUDE, Engine, open_engine, write_project
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Denied, InterlockError, Invalid, Stale
from interlock.core.git import GIT
from interlock.core.ports import ProcessSpec
from interlock.core.run import Run, RunState
from interlock.engine.proposal import Proposal

GIT_BINARY = shutil.which("git") or "git"
MESSAGE = "Raise the time-out"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.org",
}


def git(folder: Path, *words: str, check: bool = True) -> str:
    """Git as a person would run it."""
    done = subprocess.run(
        [GIT_BINARY, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


class Shop:
    """A work tree with one commit on `main`, its bare remote, and the engine that guards it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.data = new_folder(engine.parts.locations.project_folder)
        self.remote, self.top = self.data / "remote.git", self.data / "app"
        git(self.data, "init", "-q", "--bare", "-b", "main", str(self.remote))
        git(self.data, "init", "-q", "-b", "main", str(self.top))
        git(self.top, "config", "user.name", "Ann")
        git(self.top, "config", "user.email", "ann@example.org")
        git(self.top, "remote", "add", "origin", str(self.remote))
        self.write("a.txt", "one\n")
        git(self.top, "add", ".")
        git(self.top, "commit", "-qm", "first")
        git(self.top, "push", "-q", "origin", "main")

    def write(self, name: str, text: str) -> Path:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def stage(self, name: str = "a.txt", text: str = "two\n") -> None:
        self.write(name, text)
        git(self.top, "add", name)

    def commit_by_hand(self, text: str = "two\n", message: str = "second") -> str:
        self.stage(text=text)
        git(self.top, "commit", "-qm", message)
        return self.at()

    def at(self, ref: str = "HEAD", folder: Path | None = None) -> str:
        return git(folder or self.top, "rev-parse", "--verify", "-q", ref, check=False)

    def remote_at(self, ref: str = "refs/heads/main") -> str:
        return self.at(ref, self.remote)

    async def propose(self, action: str, **args: Any) -> Proposal:
        return await self.engine.door.propose(ALICE, self.ask(action, **args))

    def ask(self, action: str, **args: Any) -> Ask:
        more = {"message": MESSAGE} if action == "git.commit" else {}
        return Ask(action=action, args={"repository": str(self.top), **more, **args}, confirmed=True)

    async def do(self, action: str, actor: Any = ALICE, **args: Any) -> Run:
        run = await self.engine.door.submit(actor, self.ask(action, **args))
        assert isinstance(run, Run)
        return await self.engine.rest(run.number)


in_one_loop = pytest.mark.asyncio(loop_scope="module")
ROOTS: dict[str, Any] = {"roots": {"read": ["data"], "write": ["data"]}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine_of_all(postgres_endpoint: Any) -> AsyncIterator[Engine]:
    """One for all shops: each has a folder of its own."""
    with (
        database(postgres_endpoint) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        async with open_engine(app, owner, write_project(Path(folder), **ROOTS)) as opened:
            yield opened


@pytest.fixture
def shop(engine_of_all: Engine) -> Shop:
    return Shop(engine_of_all)


# Commit.


@in_one_loop
async def test_exactly_what_is_staged_is_committed_and_can_be_taken_back(shop: Shop) -> None:
    first = shop.at()
    shop.stage()
    shop.write("a.txt", "three, and not staged\n")
    proposal = await shop.propose("git.commit")
    assert "+two" in (proposal.plan.preview or "")
    assert "three" not in (proposal.plan.preview or "")
    run = await shop.do("git.commit")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert git(shop.top, "show", "HEAD:a.txt") == "two"
    assert git(shop.top, "log", "-1", "--format=%an <%ae> %s %P") == f"Ann <ann@example.org> {MESSAGE} {first}"
    assert git(shop.top, "status", "--porcelain") == "M a.txt"
    git(shop.top, "fsck", "--strict")
    undo = await shop.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
    assert isinstance(undo, Run)
    assert (await shop.engine.rest(undo.number)).state is RunState.SUCCEEDED
    assert shop.at() == first
    assert git(shop.top, "diff", "--cached", "--name-only") == "a.txt"


@in_one_loop
async def test_the_first_commit_of_all_is_made_and_taken_back(shop: Shop) -> None:
    git(shop.top, "checkout", "-q", "--orphan", "fresh")
    run = await shop.do("git.commit")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert git(shop.top, "rev-list", "--count", "HEAD") == "1"
    undo = await shop.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
    assert isinstance(undo, Run)
    assert (await shop.engine.rest(undo.number)).state is RunState.SUCCEEDED
    assert shop.at("refs/heads/fresh") == ""


@in_one_loop
async def test_a_commit_that_others_built_on_is_not_taken_back(shop: Shop) -> None:
    shop.stage()
    run = await shop.do("git.commit")
    later = shop.commit_by_hand("later\n")
    undo = await shop.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
    assert isinstance(undo, Run)
    assert (await shop.engine.rest(undo.number)).state is not RunState.SUCCEEDED
    assert shop.at() == later


async def test_an_approval_to_commit_holds_for_the_difference_that_was_shown(opened: Callable[..., Any]) -> None:
    people = {"people": {"alice": {"roles": ["operator"]}, "bob": {"roles": ["operator"]}}, "agents": {"claude": {}}}
    shop = Shop(await opened(policy="small-team", project={**ROOTS, **people}))
    first = shop.at()
    shop.stage()
    run = await shop.do("git.commit", actor=CLAUDE)
    assert run.state is RunState.WAITING, run.state_reason
    shop.stage(text="something else\n")
    await shop.engine.approvals.decide(BOB, run.number, verdict=True, reason="as shown")
    left = await shop.engine.rest(run.number)
    assert left.state is RunState.STALE
    assert shop.at() == first
    again = await shop.do("git.commit", actor=CLAUDE)
    await shop.engine.approvals.decide(BOB, again.number, verdict=True, reason="as shown")
    assert (await shop.engine.rest(again.number)).state is RunState.SUCCEEDED
    assert git(shop.top, "show", "HEAD:a.txt") == "something else"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.txt", "token = ghp_" + "a1" * 20),
        ("key.txt", "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nabc\n"),
        (".env", "HARMLESS=1\n"),
        ("blob.bin", "\0\1\2 AKIA" + "ABCDEFGHIJKLMNOP" + " \0"),
    ],
)
@in_one_loop
async def test_a_secret_is_not_committed_and_not_told(shop: Shop, name: str, text: str) -> None:
    shop.stage(name, text)
    with pytest.raises(Invalid) as caught:
        await shop.propose("git.commit")
    assert caught.value.code in {"git.secret", "git.secret_file"}
    assert text.strip() not in caught.value.message


@in_one_loop
async def test_nothing_staged_nobody_named_and_no_branch_are_refused(shop: Shop) -> None:
    with pytest.raises(Invalid, match="nothing is staged"):
        await shop.propose("git.commit")
    shop.stage()
    git(shop.top, "config", "--unset", "user.name")
    with pytest.raises(Invalid, match="author"):
        await shop.propose("git.commit")
    assert (await shop.propose("git.commit", author="Bo <bo@example.org>")).plan.steps
    git(shop.top, "checkout", "-q", "--detach")
    for action in ("git.commit", "git.push"):
        with pytest.raises(Invalid, match="no branch"):
            await shop.propose(action)


@in_one_loop
async def test_names_in_any_script_are_shown_as_they_are(shop: Shop) -> None:
    shop.stage("报告/überblick \t名.txt", "内容\n")
    plan = (await shop.propose("git.commit")).plan
    assert plan.facts["paths"] == ["报告/überblick \t名.txt"]
    assert (await shop.do("git.commit")).state is RunState.SUCCEEDED
    shop.write("新.txt", "x")
    with pytest.raises(Conflict, match="新"):
        await shop.propose("git.push")


# Push.


@in_one_loop
async def test_a_clean_branch_is_pushed_and_the_plan_shows_its_commits(shop: Shop) -> None:
    commit = shop.commit_by_hand()
    plan = (await shop.propose("git.push")).plan
    assert plan.facts["commits"] == [f"{commit[:7]} Ann: second"]
    assert {target.key for target in plan.targets} == {
        f"repository:{shop.top}",
        f"branch:{shop.remote}/main",
        f"remote:{shop.remote}",
    }
    assert plan.risk == "medium"
    run = await shop.do("git.push")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert shop.remote_at() == commit
    with pytest.raises(Invalid, match="already"):
        await shop.propose("git.push")
    with pytest.raises(Invalid, match="cannot be taken back"):
        await shop.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))


@in_one_loop
async def test_a_branch_that_is_new_there_is_pushed(shop: Shop) -> None:
    git(shop.top, "switch", "-qc", "feature/报告")
    git(shop.top, "branch", "-m", "feature/x")
    commit = shop.commit_by_hand()
    assert len((await shop.propose("git.push")).plan.facts["commits"]) == 1  # type: ignore[arg-type]
    assert (await shop.do("git.push")).state is RunState.SUCCEEDED
    assert shop.remote_at("refs/heads/feature/x") == commit


@pytest.mark.parametrize("kind", ["changed", "staged", "untracked", "deleted", "conflict"])
@in_one_loop
async def test_a_dirty_work_tree_is_not_pushed_and_the_files_are_named(shop: Shop, kind: str) -> None:
    shop.commit_by_hand()
    if kind == "changed":
        shop.write("a.txt", "changed\n")
    elif kind == "staged":
        shop.stage(text="staged\n")
    elif kind == "untracked":
        shop.write("b.txt", "forgotten\n")
    elif kind == "deleted":
        (shop.top / "a.txt").unlink()
    else:
        git(shop.top, "switch", "-qc", "other", "HEAD~1")
        shop.commit_by_hand("other\n")
        git(shop.top, "merge", "main", check=False)
    with pytest.raises(Conflict) as caught:
        await shop.propose("git.push")
    assert caught.value.code == "git.dirty"
    assert caught.value.details["paths"] == ["b.txt" if kind == "untracked" else "a.txt"]
    if kind == "untracked":
        assert (await shop.do("git.push", allow_untracked=True)).state is RunState.SUCCEEDED


@in_one_loop
async def test_ignored_files_are_no_dirt(shop: Shop) -> None:
    (shop.top / ".git" / "info" / "exclude").write_text("local.txt\n")
    shop.stage(".gitignore", "*.log\n")
    shop.commit_by_hand()
    shop.write("x.log", "x")
    shop.write("local.txt", "x")
    assert (await shop.do("git.push")).state is RunState.SUCCEEDED


@in_one_loop
async def test_what_the_remote_has_more_is_lost_only_by_force_and_never_what_came_since(shop: Shop) -> None:
    other = shop.data / "other"
    git(shop.data, "clone", "-q", str(shop.remote), str(other))
    (other / "a.txt").write_text("theirs\n")
    git(other, "commit", "-qam", "theirs")
    git(other, "push", "-q", "origin", "main")
    ours = shop.commit_by_hand("ours\n")
    with pytest.raises(Conflict) as caught:
        await shop.propose("git.push")
    assert caught.value.code == "git.not_ahead"
    plan = (await shop.propose("git.push", force=True)).plan
    assert plan.risk == "high"
    assert "git.force_push" in plan.operations
    assert (await shop.do("git.push", force=True)).state is RunState.SUCCEEDED
    assert shop.remote_at() == ours


@pytest.mark.parametrize("side", ["here", "there", "dirt"])
async def test_what_changed_between_plan_and_push_stops_it(opened: Callable[..., Any], side: str) -> None:
    shop = Shop(await opened(project=ROOTS, work=False, fast=False))
    before = shop.commit_by_hand()
    run = await shop.engine.door.submit(ALICE, shop.ask("git.push"))
    assert isinstance(run, Run)
    if side == "here":
        shop.commit_by_hand("more\n")
    elif side == "there":
        other = shop.data / "other"
        git(shop.data, "clone", "-q", str(shop.remote), str(other))
        git(other, "commit", "-q", "--allow-empty", "-m", "theirs")
        git(other, "push", "-q", "origin", "main")
    else:
        shop.write("a.txt", "dirt\n")
    at = shop.remote_at()
    await shop.engine.runner.start()
    try:
        left = await shop.engine.rest(run.number)
    finally:
        await shop.engine.runner.stop(5.0)
    assert left.state is RunState.STALE, left.state_reason
    assert shop.remote_at() == at != before


@pytest.mark.parametrize("pattern", ["branch:app/main", "branch:remote/main", "branch:*/main", "remote:*"])
async def test_a_protected_branch_is_not_pushed_by_whatever_name(opened: Callable[..., Any], pattern: str) -> None:
    shop = Shop(await opened(project={**ROOTS, "protected": [pattern]}))
    shop.commit_by_hand()
    run = await shop.do("git.push")
    assert run.state is RunState.DENIED
    git(shop.top, "switch", "-qc", "feature")
    shop.commit_by_hand("three\n")
    expected = RunState.DENIED if pattern == "remote:*" else RunState.SUCCEEDED
    assert (await shop.do("git.push")).state is expected


def _perform(spec: ProcessSpec) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(spec.argv, executable=spec.path, env=spec.environment, check=False, capture_output=True)


class Refusing:
    """The context of a step that must not come to an effect."""

    run, key, attempt, cancelled = 1, "1:0", 1, False

    def hold(self) -> None:
        return

    def execute(self, spec: Any) -> Any:
        msg = f"it came to {spec.argv}"
        raise AssertionError(msg)


@pytest.mark.parametrize("change", ["staged", "here", "branch"])
@in_one_loop
async def test_a_commit_whose_world_changed_right_before_it_is_not_made(shop: Shop, change: str) -> None:
    shop.stage()
    plan = (await shop.propose("git.commit")).plan
    if change == "staged":
        shop.stage(text="something else\n")
    elif change == "here":
        shop.commit_by_hand("other\n")
        shop.stage(text="two\n")
    else:
        git(shop.top, "switch", "-qc", "other")
    action = shop.engine.parts.catalog.action("git.commit")
    at = shop.at()
    with pytest.raises(Stale):
        await asyncio.to_thread(action.perform, plan.steps[0], Refusing())  # type: ignore[arg-type]
    assert shop.at() == at


@pytest.mark.parametrize("change", ["here", "there", "dirt"])
@in_one_loop
async def test_a_push_whose_world_changed_right_before_it_is_not_made(shop: Shop, change: str) -> None:
    shop.commit_by_hand()
    plan = (await shop.propose("git.push")).plan
    if change == "here":
        shop.commit_by_hand("more\n")
    elif change == "there":
        git(shop.remote, "update-ref", "-d", "refs/heads/main")
    else:
        shop.write("a.txt", "dirt\n")
    action = shop.engine.parts.catalog.action("git.push")
    with pytest.raises((Stale, Conflict)):
        await asyncio.to_thread(action.perform, plan.steps[0], Refusing())  # type: ignore[arg-type]


@in_one_loop
async def test_the_push_itself_holds_the_other_side_to_what_was_seen(shop: Shop) -> None:
    """Between the last look and the push somebody else may push: then git refuses, forced or not."""
    first, ours = shop.remote_at(), shop.commit_by_hand("ours\n")
    adapter = shop.engine.parts.catalog.action("git.push").ports.outside[GIT]
    place = adapter.place(str(shop.top))
    for seen in (ours, None, "1" * 40):
        with adapter.effects(place) as effects:
            spec = effects.push(str(shop.remote), "refs/heads/main", ours, seen)
            done = _perform(spec)
        assert done.returncode != 0, done.stdout
        assert shop.remote_at() == first


@in_one_loop
async def test_a_secret_in_any_commit_is_not_pushed_even_where_a_later_one_takes_it_out(shop: Shop) -> None:
    shop.stage("b.txt", "password = hunter2hunter2\n")
    git(shop.top, "commit", "-qm", "oops")
    shop.stage("b.txt", "nothing\n")
    git(shop.top, "commit", "-qm", "taken out")
    with pytest.raises(Invalid) as caught:
        await shop.propose("git.push")
    assert caught.value.code == "git.secret"


@in_one_loop
async def test_addresses_that_hold_passwords_run_programs_or_hooks_are_refused(shop: Shop) -> None:
    shop.commit_by_hand()
    for url in (
        "ext::sh -c touch% /tmp/never",
        "fd::3",
        "https://ann:hunter2hunter2@example.org/x.git",
        "-oProxyCommand=touch",
        "git://example.org/x",
        "http://example.org/x",
    ):
        git(shop.top, "config", "remote.origin.url", url)
        with pytest.raises(InterlockError) as caught:
            await shop.propose("git.push")
        assert caught.value.code in {"git.address", "git.secret"}, url
    git(shop.top, "config", "remote.origin.url", str(shop.remote))
    hook = shop.remote / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch hooked\n")
    hook.chmod(0o755)
    with pytest.raises(Invalid) as caught_hook:
        await shop.propose("git.push")
    assert caught_hook.value.code == "git.remote_hooks"


# Hostile repositories.


def hostile(shop: Shop) -> Path:
    """Everything in a repository that could run a program leaves a mark when it does."""
    mark = shop.data / "mark"
    run = f"touch {mark}; cat"
    for key, value in {
        "core.fsmonitor": f"touch {mark}",
        "core.sshCommand": f"touch {mark}",
        "core.pager": run,
        "core.editor": f"touch {mark}",
        "core.askPass": f"touch {mark}",
        "core.gitProxy": f"touch {mark}",
        "core.alternateRefsCommand": f"touch {mark}",
        "core.worktree": "/etc",
        "credential.helper": f"!touch {mark}",
        "diff.external": f"touch {mark}",
        "diff.evil.textconv": run,
        "diff.evil.command": f"touch {mark}",
        "filter.evil.clean": run,
        "filter.evil.smudge": run,
        "filter.evil.process": f"touch {mark}",
        "merge.evil.driver": f"touch {mark}",
        "gpg.program": f"touch {mark}",
        "commit.gpgSign": "true",
        "log.showSignature": "true",
        "remote.origin.receivepack": f"touch {mark}; git-receive-pack",
        "remote.origin.uploadpack": f"touch {mark}; git-upload-pack",
        "url./etc/.insteadOf": "/",
        "uploadpack.packObjectsHook": f"touch {mark};",
        "submodule.sub.update": f"!touch {mark}",
        "alias.status": f"!touch {mark}",
        "include.path": "/nonexistent/evil",
        "protocol.ext.allow": "always",
    }.items():
        git(shop.top, "config", key, value)
    (shop.top / ".git" / "info" / "attributes").write_text("* filter=evil diff=evil merge=evil\n")
    for name in ("pre-commit", "commit-msg", "prepare-commit-msg", "post-commit", "pre-push", "reference-transaction",
                 "post-index-change", "post-rewrite", "fsmonitor-watchman", "pre-auto-gc"):  # fmt: skip
        hook = shop.top / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
        hook.chmod(0o755)
    return mark


@in_one_loop
async def test_nothing_that_a_hostile_repository_brings_is_run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.stage(".gitattributes", "* filter=evil diff=evil merge=evil\n")
    shop.stage()
    mark = hostile(shop)
    for name in ("GIT_DIR", "GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GIT_EXEC_PATH"):
        monkeypatch.setenv(name, f"touch {mark}")
    run = await shop.do("git.commit")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert (await shop.do("git.push")).state is RunState.SUCCEEDED
    undo = await shop.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
    assert isinstance(undo, Run)
    assert (await shop.engine.rest(undo.number)).state is RunState.SUCCEEDED
    assert not mark.exists()
    monkeypatch.undo()
    git(shop.top, "status", check=False)
    assert mark.exists(), "git as everybody runs it does run what the repository brings"


@in_one_loop
async def test_nothing_that_a_hostile_remote_of_this_machine_brings_is_run(shop: Shop) -> None:
    mark = shop.data / "mark"
    beside = shop.data / "beside"
    git(shop.data, "clone", "-q", str(shop.remote), str(beside))
    git(shop.top, "config", "remote.origin.url", str(beside))
    git(beside, "config", "receive.denyCurrentBranch", "updateInstead")
    for kind in ("smudge", "clean", "process"):
        git(beside, "config", f"filter.evil.{kind}", f"touch {mark}; cat")
    (beside / ".git" / "info" / "attributes").write_text("* filter=evil\n")
    shop.commit_by_hand()
    run = await shop.do("git.push")
    assert not mark.exists()
    assert run.state is not RunState.SUCCEEDED, "a work tree of others is not touched"
    assert (beside / "a.txt").read_text() == "one\n"


@in_one_loop
async def test_a_remote_of_this_machine_cannot_have_files_read_out(shop: Shop, tmp_path: Path) -> None:
    secret = tmp_path / "shadow"
    secret.write_text("root:hashofthepassword:1:2:3\n")
    for key, value in {"receive.fsckObjects": "true", "receive.fsck.skipList": str(secret)}.items():
        git(shop.remote, "config", key, value)
    shop.commit_by_hand()
    run = await shop.do("git.push")
    assert run.state is RunState.SUCCEEDED, f"{run.state_reason}: git stopped at what it read"


@in_one_loop
async def test_a_folder_outside_the_roots_is_not_pushed_to(shop: Shop, tmp_path: Path) -> None:
    git(shop.data, "clone", "-q", "--bare", str(shop.remote), str(tmp_path / "out.git"))
    (shop.data / "bait.git").symlink_to(tmp_path / "out.git")
    shop.commit_by_hand()
    for url in (str(tmp_path / "out.git"), f"file://{tmp_path}/out.git", str(shop.data / "bait.git")):
        git(shop.top, "config", "remote.origin.url", url)
        with pytest.raises(Denied, match="outside"):
            await shop.propose("git.push")
    (shop.data / "pointed").mkdir()
    (shop.data / "pointed" / ".git").write_text(f"gitdir: {tmp_path}/out.git\n")
    (shop.data / "beside").mkdir()
    (shop.data / "beside.git").symlink_to(tmp_path / "out.git")
    for name in ("pointed", "beside"):
        git(shop.top, "config", "remote.origin.url", str(shop.data / name))
        with pytest.raises(Invalid) as caught:
            await shop.propose("git.push")
        assert caught.value.code == "git.address"
    git(shop.top, "config", "remote.origin.url", str(shop.remote))
    (shop.remote / "logs" / "refs" / "heads").mkdir(parents=True)
    (shop.remote / "logs" / "refs" / "heads" / "main").symlink_to(tmp_path / "any-file")
    with pytest.raises(Denied, match="outside"):
        await shop.propose("git.push")


@in_one_loop
async def test_replaced_and_grafted_objects_do_not_change_what_is_shown(shop: Shop) -> None:
    honest = shop.commit_by_hand("password-free\n")
    git(shop.top, "replace", "--graft", honest)
    assert len((await shop.propose("git.push")).plan.facts["commits"]) == 1  # type: ignore[arg-type]


@in_one_loop
async def test_a_work_tree_a_link_and_a_submodule_are_seen_for_what_they_are(shop: Shop) -> None:
    linked = shop.data / "linked"
    git(shop.top, "worktree", "add", "-q", "-b", "wt", str(linked))
    (linked / "a.txt").write_text("in the work tree\n")
    git(linked, "add", ".")
    main = shop.at()
    run = await shop.do("git.commit", repository=str(linked))
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert (shop.at(), shop.at("wt") != main) == (main, True)
    (shop.top / ".git").rename(shop.data / "elsewhere")
    (shop.top / ".git").symlink_to(shop.data / "elsewhere")
    shop.stage()
    assert (await shop.do("git.commit")).state is RunState.SUCCEEDED
    git(shop.top, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(shop.remote), "sub")
    assert (await shop.do("git.commit")).state is RunState.SUCCEEDED
    sub = shop.top / "sub"
    mark = shop.data / "mark"
    git(sub, "config", "core.fsmonitor", f"touch {mark}")
    (sub / "a.txt").write_text("within\n")
    git(sub, "add", ".")
    inner = await shop.do("git.commit", repository=str(sub), author="Bo <bo@example.org>")
    assert inner.state is RunState.SUCCEEDED, inner.state_reason
    mark.unlink(missing_ok=True)  # our own `git add` was the one to run it
    with pytest.raises(Conflict, match="sub"):
        await shop.propose("git.push")
    assert not mark.exists()


@in_one_loop
async def test_a_repository_outside_the_roots_or_one_that_leads_there_is_refused(shop: Shop, tmp_path: Path) -> None:
    git(shop.data, "clone", "-q", str(shop.remote), str(tmp_path / "out"))
    (tmp_path / "out" / "a.txt").write_text("two\n")
    git(tmp_path / "out", "add", ".")
    with pytest.raises(Denied, match="outside"):
        await shop.propose("git.commit", repository=str(tmp_path / "out"))
    (shop.data / "bait").mkdir()
    (shop.data / "bait" / ".git").write_text(f"gitdir: {tmp_path}/out/.git\n")
    with pytest.raises(Denied, match="outside"):
        await shop.propose("git.commit", repository=str(shop.data / "bait"))
    shop.stage()
    (shop.top / ".git" / "objects").rename(tmp_path / "objects")
    (shop.top / ".git" / "objects").symlink_to(tmp_path / "objects")
    with pytest.raises(Denied, match="outside"):
        await shop.propose("git.commit")


@in_one_loop
@pytest.mark.parametrize("way", ["alternates", "through another", "pack", "object"])
async def test_objects_of_a_repository_outside_the_roots_are_not_read_through_one_inside(
    shop: Shop, tmp_path: Path, way: str
) -> None:
    private = tmp_path / "private"
    git(tmp_path, "init", "-q", "-b", "main", str(private))
    (private / "plan.txt").write_text("nobody knows of this\n")
    git(private, "add", ".")
    git(private, "commit", "-qm", "kept to ourselves")
    blob, theirs, ours = git(private, "rev-parse", "HEAD:plan.txt"), private / ".git/objects", shop.top / ".git/objects"
    if way == "alternates":
        (ours / "info" / "alternates").write_text(f"{theirs}\n")
    elif way == "through another":
        other = shop.data / "other"
        (other / "info").mkdir(parents=True)
        (other / "info" / "alternates").write_text(f"{theirs}\n")
        (ours / "info" / "alternates").write_text(f"# of all\n{other}\n")
    elif way == "pack":
        git(private, "gc", "-q")
        for path in (theirs / "pack").iterdir():
            (ours / "pack" / path.name).symlink_to(path)
    else:
        (ours / blob[:2]).mkdir(exist_ok=True)
        (ours / blob[:2] / blob[2:]).symlink_to(theirs / blob[:2] / blob[2:])
    git(shop.top, "update-index", "--add", "--cacheinfo", f"100644,{blob},plan.txt")
    with pytest.raises(Denied, match="outside"):
        await shop.propose("git.commit")
    with pytest.raises(Denied, match="outside"):
        await shop.propose("git.push")


@in_one_loop
async def test_objects_may_be_shared_within_the_roots(shop: Shop) -> None:
    git(shop.data, "clone", "-q", "--shared", str(shop.remote), str(shop.data / "second"))
    (shop.data / "second" / "a.txt").write_text("two\n")
    git(shop.data / "second", "add", ".")
    assert (await shop.propose("git.commit", repository=str(shop.data / "second"), author="Ann <a@b.c>")).plan.steps


@in_one_loop
async def test_planning_changes_nothing_in_the_repository(shop: Shop) -> None:
    shop.stage()

    def files() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in sorted(shop.top.rglob("*"))
            if path.is_file()
        }

    before = files()
    await shop.propose("git.commit")
    with pytest.raises(Conflict):
        await shop.propose("git.push")
    assert files() == before


@in_one_loop
async def test_a_reflog_that_leads_elsewhere_is_not_written_and_a_branch_that_does_is_refused(
    shop: Shop, tmp_path: Path
) -> None:
    victim = tmp_path / "authorized_keys"
    victim.write_text("keys\n")
    for log in ("logs/HEAD", "logs/refs/heads/main"):
        (shop.top / ".git" / log).unlink()
        (shop.top / ".git" / log).symlink_to(victim)
    shop.stage()
    assert (await shop.do("git.commit")).state is RunState.SUCCEEDED
    assert victim.read_text() == "keys\n"
    git(shop.top, "symbolic-ref", "HEAD", "refs/heads/deep/x")
    (shop.top / ".git" / "refs" / "heads" / "deep").symlink_to(tmp_path)
    with pytest.raises(Denied, match="outside"):
        await shop.propose("git.commit")


@in_one_loop
async def test_a_branch_whose_commit_is_packed_is_moved_and_kept_in_step(shop: Shop) -> None:
    git(shop.top, "pack-refs", "--all")
    git(shop.top, "gc", "-q")
    shop.stage()
    run = await shop.do("git.commit")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert git(shop.top, "log", "-1", "--format=%s") == MESSAGE
    undo = await shop.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
    assert isinstance(undo, Run)
    assert (await shop.engine.rest(undo.number)).state is RunState.SUCCEEDED
    assert git(shop.top, "log", "-1", "--format=%s") == "first"


@in_one_loop
async def test_two_commits_at_the_same_moment_do_not_lose_one(shop: Shop) -> None:
    adapter = shop.engine.parts.catalog.action("git.commit").ports.outside[GIT]
    first, second = shop.at(), shop.commit_by_hand()
    place = adapter.place(str(shop.top))
    with adapter.effects(place) as effects:
        assert _perform(effects.move("refs/heads/main", first, first)).returncode != 0
    assert shop.at() == second
