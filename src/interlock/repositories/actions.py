"""`git.commit` and `git.push`: exactly what was shown, while the repository and the remote stand as they stood."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, ClassVar

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, Invalid, Permanent, Stale, Transient
from interlock.core.git import GIT, GitPlace, GitRepositories
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import ProcessResult, ProcessSpec, StepContext
from interlock.repositories.model import (
    PATHS_SHOWN_MAX,
    CommitArgs,
    PushArgs,
    branch_target,
    commit_object,
    is_identity,
    listed,
    object_id,
    require_within,
    says,
    shown,
)

COMMIT_SECONDS = 90.0
PUSH_SECONDS = 360.0
WRITTEN = ("objects", "refs", "refs/heads", "packed-refs")


class _OfRepository(Action):
    """What commits and pushes share."""

    @property
    def git(self) -> GitRepositories:
        """Git on this machine."""
        return self.ports.outside[GIT]

    def _place(self, asked: str) -> tuple[GitPlace, Target]:
        """The repository, within what may be written. Raises NotFound, Denied."""
        (target,) = self.ports.resolvers.resolve("repository", asked, {"folder": self.ports.project().folder})
        place = self.git.place(target.id)
        self._require_within(place.top, place.own, place.common, *(f"{place.common}/{name}" for name in WRITTEN))
        self._require_readable(place)
        return place, target

    def _require_within(self, *paths: str) -> None:
        """What git writes goes where these lead, which the repository says itself. Raises Denied."""
        roots = self._roots(self.ports.project().roots.write)
        for path in paths:
            require_within(os.path.realpath(path), roots)

    def _require_readable(self, place: GitPlace) -> None:
        """What git shows and sends comes from these, which the repository says itself. Raises Denied."""
        declared = self.ports.project().roots
        roots = self._roots((*declared.read, *declared.write))
        for path in self.git.read_from(place):
            require_within(path, roots)

    def _roots(self, declared: tuple[str, ...]) -> tuple[str, ...]:
        folder = self.ports.project().folder
        return tuple(os.path.realpath(Path(folder, each)) for each in declared)

    def _require_no_secret(self, place: GitPlace, paths: tuple[str, ...], added: str) -> None:
        """Raises Invalid, without telling the secret."""
        secret = next((path for path in paths if self.ports.path_class(f"{place.top}/{path}") == "secret"), None)
        if secret is not None:
            msg = f"{secret} is a file that holds secrets"
            raise Invalid(msg, code="git.secret_file", fix=f"git rm --cached {secret}, and add it to .gitignore")
        kind = self.ports.redactor.find(added)
        if kind is not None:
            msg = f"what is added looks like it holds a secret ({kind})"
            raise Invalid(msg, code="git.secret", fix="take it out, and name where it is kept instead")

    def _run(self, context: StepContext, spec: ProcessSpec, what: str) -> ProcessResult:
        """Raises Transient when it did not end well; nobody knows then what came of it."""
        result = context.execute(spec)
        if result.exit_code != 0:
            msg = f"git could not {what}: {result.tail.strip()[-300:] or 'it said nothing'}"
            raise Transient(msg, code="git.failed", fix="git status")
        return result


def _place_of(step: Step) -> GitPlace:
    return GitPlace.model_validate(step.params["place"])


def _targets(facts: JsonObject) -> list[Target]:
    found = facts["targets"]
    return [Target.model_validate(each) for each in found] if isinstance(found, list) else []


class Commit(_OfRepository):
    """What is staged."""

    name: ClassVar[str] = "git.commit"
    summary: ClassVar[str] = "Commit exactly what is staged, as it was shown."
    example: ClassVar[JsonObject] = {"repository": "/srv/app", "message": "Raise the time-out"}
    Args: ClassVar[type[Frozen]] = CommitArgs

    def read_facts(self, args: CommitArgs) -> JsonObject:
        """Branch, parent, tree and difference. Raises Invalid where nothing, or a secret, is staged."""
        place, target = self._place(args.repository)
        head = self.git.head(place)
        self._require_within(f"{place.common}/{head.ref}")
        staged = self.git.staged(place, head.commit)
        if not staged.paths:
            msg = f"nothing is staged in {place.top}"
            raise Invalid(msg, code="git.nothing_staged", fix="git add FILE")
        self._require_no_secret(place, staged.paths, staged.added)
        author = args.author or self.git.identity(place)
        if author is None or not is_identity(author):
            msg = f"nobody says who the author is in {place.top}"
            raise Invalid(msg, code="git.author", fix="give author: Name <address>")
        targets = (target, branch_target(place.top, head.ref))
        return {
            "place": place.model_dump(mode="json"),
            "ref": head.ref,
            "parent": head.commit,
            "tree": staged.tree,
            "author": author,
            "diff_sha256": hashlib.sha256(staged.diff.encode()).hexdigest(),
            "paths": [*staged.paths[:PATHS_SHOWN_MAX]],
            "path_count": len(staged.paths),
            "diff": shown(staged.diff),
            "targets": [each.model_dump(mode="json") for each in targets],
        }

    def plan(self, args: CommitArgs, facts: JsonObject) -> Plan:
        """One step; its undo lets the branch lead to the parent again, and what was committed is staged as before."""
        branch = str(facts["ref"]).removeprefix("refs/heads/")
        kept = ("place", "ref", "parent", "tree", "author", "diff_sha256")
        params: JsonObject = {**{name: facts[name] for name in kept}, "message": args.message}
        common: dict[str, Any] = {
            "params": params,
            "targets": tuple(_targets(facts)),
            "repeatable": True,
            "timeout_seconds": COMMIT_SECONDS,
        }
        files = "1 staged file" if facts["path_count"] == 1 else f"{facts['path_count']} staged files"
        step = Step(
            verb="commit",
            summary=f"commit {files} to {branch}: {args.message.splitlines()[0][:200]}",
            risk="low",
            operations=("git.commit",),
            discloses="content",
            precondition={"parent": facts["parent"], "tree": facts["tree"]},
            undo=Step(
                verb="take_back",
                summary=f"take the commit off {branch} again, its files stay staged",
                risk="low",
                operations=("git.reset",),
                **common,
            ),
            **common,
        )
        shown_facts = {name: value for name, value in facts.items() if name != "diff"}
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts=shown_facts,
            preview=str(facts["diff"]),
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Make the commit, or take it off the branch; what is so already is left so."""
        place = _place_of(step)
        head = self.git.head(place)
        self._require_within(f"{place.common}/objects", f"{place.common}/{head.ref}")
        self._require_readable(place)
        if head.ref != step.params["ref"]:
            msg = f"{head.ref} is checked out now, and {step.params['ref']} was then; nothing was done"
            raise Stale(msg, code="git.moved", fix="ask again to see the new plan")
        made = head.commit is not None and says(self.git.commit_body(place, head.commit), step.params)
        if step.verb == "take_back":
            return self._take_back(place, step, context, head.commit if made else None, at=head.commit)
        if made:
            return StepResult(ok=True, summary="it was committed already", data={"commit": head.commit})
        if head.commit != step.params["parent"]:
            msg = f"{head.ref} is at another commit than when the plan was made; nothing was done"
            raise Stale(msg, code="git.moved", fix="ask again to see the new plan")
        return self._commit(place, step, context)

    def _commit(self, place: GitPlace, step: Step, context: StepContext) -> StepResult:
        params = step.params
        parent = str(params["parent"]) if params["parent"] is not None else None
        body = commit_object(
            str(params["tree"]), parent, str(params["author"]), str(params["message"]), self.ports.clock.now()
        )
        commit = object_id(body)
        with self.git.effects(place) as effects:
            if effects.tree() != params["tree"]:
                msg = "what is staged is no longer what was shown; nothing was committed"
                raise Stale(msg, code="git.staged_changed", fix="ask again to see the new plan")
            context.hold()
            self._run(context, effects.write_tree(), "keep the tree")
            self._run(context, effects.write_commit(body), "keep the commit")
            self._run(context, effects.move(str(params["ref"]), commit, parent), "move the branch")
        return StepResult(ok=True, summary=f"committed as {commit[:12]}", data={"commit": commit})

    def _take_back(
        self, place: GitPlace, step: Step, context: StepContext, ours: str | None, *, at: str | None
    ) -> StepResult:
        params = step.params
        parent = str(params["parent"]) if params["parent"] is not None else None
        if at == parent:
            return StepResult(ok=True, summary="it was taken back already", data={"commit": at})
        if ours is None:
            msg = f"{params['ref']} has moved on since that commit; nothing was taken back"
            raise Conflict(msg, code="git.moved", fix="git revert")
        with self.git.effects(place) as effects:
            context.hold()
            self._run(context, effects.move(str(params["ref"]), parent, ours), "move the branch")
        return StepResult(ok=True, summary=f"{params['ref']} is back at {parent or 'no commit'}", data={"was": ours})

    def check(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002
        """Where the branch leads now."""
        place = _place_of(step)
        head = self.git.head(place)
        if step.verb == "take_back":
            ok = head.commit == step.params["parent"]
        else:
            ok = head.commit is not None and says(self.git.commit_body(place, head.commit), step.params)
        return StepResult(ok=ok, summary=f"{head.ref} is at {(head.commit or 'no commit')[:12]}")


class Push(_OfRepository):
    """What was committed."""

    name: ClassVar[str] = "git.push"
    summary: ClassVar[str] = "Push the commits of the branch that is checked out, from a clean work tree."
    example: ClassVar[JsonObject] = {"repository": "/srv/app", "remote": "origin"}
    Args: ClassVar[type[Frozen]] = PushArgs

    def read_facts(self, args: PushArgs) -> JsonObject:
        """Both sides. Raises Conflict for a dirty work tree, and where the remote has what is not here."""
        place, target = self._place(args.repository)
        head = self.git.head(place)
        if head.commit is None:
            msg = f"{head.ref} has no commit yet"
            raise Invalid(msg, code="git.empty", fix="commit first")
        self._require_clean(place, head.commit, untracked=args.allow_untracked)
        url = self.git.remote_url(place, args.remote)
        if self.ports.redactor.find(url) is not None:
            msg = f"the address of {args.remote} holds a password"
            raise Invalid(msg, code="git.secret", fix=f"git remote set-url {args.remote}, without it")
        ref = f"refs/heads/{args.branch}" if args.branch is not None else head.ref
        self._require_within(*self.git.written_at(url, ref))
        heads = self.git.remote_heads(url)
        old = heads.get(ref)
        if old == head.commit:
            msg = f"{ref} is at {old[:12]} there already"
            raise Invalid(msg, code="git.nothing_to_push", fix="commit first")
        forced = old is not None and not self.git.has_ancestor(place, head.commit, old)
        if forced and not args.force:
            msg = f"{ref} has commits there that are not in {head.ref}"
            raise Conflict(msg, code="git.not_ahead", fix="git pull --rebase; or force, which loses them")
        outgoing = self.git.outgoing(place, head.commit, tuple(sorted(set(heads.values()))))
        self._require_no_secret(place, outgoing.paths, outgoing.added)
        remote = Target(kind="remote", id=url, names=(f"remote:{args.remote}",))
        targets = (target, branch_target(place.top, ref, url), remote)
        return {
            "place": place.model_dump(mode="json"),
            "url": url,
            "source": head.ref,
            "ref": ref,
            "new": head.commit,
            "old": old,
            "forced": forced,
            "commits": [*outgoing.commits],
            "targets": [each.model_dump(mode="json") for each in targets],
        }

    def _require_clean(self, place: GitPlace, commit: str, *, untracked: bool) -> None:
        dirty = self.git.dirty(place, commit, untracked=not untracked)
        if dirty:
            msg = f"the work tree {place.top} is not clean: {listed(dirty)}"
            raise Conflict(
                msg,
                code="git.dirty",
                fix="commit, stash or ignore them, then ask again; allow_untracked=true passes files nobody added",
                details={"paths": [*dirty]},
            )

    def plan(self, args: PushArgs, facts: JsonObject) -> Plan:
        """One step; a push cannot be taken back, because others may have fetched it."""
        commits = [str(each) for each in facts["commits"]] if isinstance(facts["commits"], list) else []
        branch = str(facts["ref"]).removeprefix("refs/heads/")
        lost = f", losing what {str(facts['old'])[:12]} holds" if facts["forced"] else ""
        kept = ("place", "url", "source", "ref", "new", "old")
        what = "1 commit" if len(commits) == 1 else f"{len(commits)} commits"
        step = Step(
            verb="push",
            summary=f"push {what} to {branch} at {facts['url']}{lost}",
            params={**{name: facts[name] for name in kept}, "allow_untracked": args.allow_untracked},
            targets=tuple(_targets(facts)),
            risk="high" if facts["forced"] else "medium",
            operations=("git.force_push", "git.push") if facts["forced"] else ("git.push",),
            repeatable=True,
            discloses="content",
            precondition={"new": facts["new"], "old": facts["old"]},
            irreversible="others may have fetched it; push a commit that reverts it",
            timeout_seconds=PUSH_SECONDS,
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts=facts,
            preview="\n".join(commits),
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Send it, if both sides are as they were."""
        place, params = _place_of(step), step.params
        url, ref, new = str(params["url"]), str(params["ref"]), str(params["new"])
        old = str(params["old"]) if params["old"] is not None else None
        self._require_within(*self.git.written_at(url, ref))
        self._require_readable(place)
        there = self.git.remote_heads(url).get(ref)
        if there == new:
            return StepResult(ok=True, summary="it was there already", data={"commit": new})
        if there != old:
            msg = f"{ref} has moved there since the plan was made; nothing was pushed"
            raise Stale(msg, code="git.remote_moved", fix="ask again to see the new plan")
        head = self.git.head(place)
        if head.ref != params["source"] or head.commit != new:
            msg = f"{params['source']} has moved here since the plan was made; nothing was pushed"
            raise Stale(msg, code="git.moved", fix="ask again to see the new plan")
        self._require_clean(place, new, untracked=params["allow_untracked"] is True)
        with self.git.effects(place) as effects:
            context.hold()
            result = context.execute(effects.push(url, ref, new, old))
        if result.exit_code != 0:
            msg = f"the push was refused or broke off: {result.tail.strip()[-300:] or 'git said nothing'}"
            raise Permanent(msg, code="git.push_failed", fix="see what the other side says")
        return StepResult(ok=True, summary=f"{ref} is at {new[:12]} there", data={"commit": new, "was": old})

    def check(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002
        """Ask the other side."""
        there = self.git.remote_heads(str(step.params["url"])).get(str(step.params["ref"]))
        return StepResult(ok=there == step.params["new"], summary=f"it is at {(there or 'no commit')[:12]} there")
