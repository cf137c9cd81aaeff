"""`file.write`, `file.remove` and `file.restore`: one file, replaced whole, with its original kept."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import ClassVar, cast

from pydantic import JsonValue

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, Invalid, NotFound, Stale
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses, Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.remote_host import REMOTE_HOSTS
from interlock.core.remote_step import facts_there
from interlock.files.disk import Attributes, FileState, read_file, remove_file, replace_file
from interlock.files.model import ABSENT, RemoveArgs, RestoreArgs, WriteArgs, absolute, preview, require_root
from interlock.files.remote import VERBS, perform_there, request_for, step_there

WRITE_SECONDS = 60.0


def _digest(state: FileState | None) -> str:
    return ABSENT if state is None else state.sha256


def _attributes(params: JsonObject) -> Attributes | None:
    """Mode, user and group of a file that comes back, as the plan says."""
    listed = params.get("attributes")
    return Attributes(*(int(str(number)) for number in listed)) if isinstance(listed, list) else None


class _FileAction(Action):
    """What writing, removing and restoring share: one step, its precondition, and how it is performed."""

    def read_facts(self, args: WriteArgs | RemoveArgs) -> JsonObject:
        """Where the path leads, and what is there now."""
        if args.host is not None:
            return facts_there(self.ports.outside[REMOTE_HOSTS], args.host, request_for(args))
        return self._facts(absolute(args.path, args.folder, self.ports.project()))

    def _plan_there(self, args: WriteArgs | RemoveArgs, facts: JsonObject) -> Plan:
        """One step of another machine, with the difference that it shows."""
        step = step_there(request_for(args), facts, self.ports.path_class(args.path))
        preview_there = Plan.model_validate(facts["there"]).preview
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={name: facts[name] for name in ("host", "at", "host_keys")},
            preview=None if preview_there is None else self.ports.redactor.redact(preview_there),
        )

    def _facts(self, asked: str) -> JsonObject:
        project = self.ports.project()
        (target,) = self.ports.resolvers.resolve("file", asked, {"folder": project.folder})
        require_root(target.id, tuple(os.path.realpath(Path(project.folder, root)) for root in project.roots.write))
        if not Path(target.id).parent.is_dir():
            msg = f"there is no folder {Path(target.id).parent}"
            raise NotFound(msg, code="file.no_folder", fix="make the folder first")
        before = read_file(target.id)
        return {
            "path": target.id,
            "names": list(target.names),
            "before": _digest(before),
            "discloses": self._discloses(target.id, before),
            "attributes": list(before.attributes) if before else None,
            "body": before.body.hex() if before else None,
        }

    def _discloses(self, path: str, before: FileState | None) -> Discloses:
        """What the plan's difference tells: the content that is there now, which may be a secret."""
        if before is None:
            return "nothing"
        return "secret" if self.ports.path_class(path) == "secret" else "content"

    def _step(self, facts: JsonObject, after: str, params: JsonObject) -> Step:
        path = str(facts["path"])
        before = str(facts["before"])
        names: list[JsonValue] = facts["names"] if isinstance(facts["names"], list) else []
        target = Target(kind="file", id=path, names=tuple(str(name) for name in names))
        undo = Step(
            verb="put_back",
            summary=f"remove {path}" if before == ABSENT else f"put {path} back as it was",
            params={"path": path, "digest": before, "attributes": facts["attributes"]},
            targets=(target,),
            risk="low",
            operations=("file.remove",) if before == ABSENT else ("file.write",),
            repeatable=True,
            precondition={"sha256": after},
            timeout_seconds=WRITE_SECONDS,
        )
        verb = str(params["verb"])
        return Step(
            verb=verb,
            summary=f"{'create' if before == ABSENT else 'replace'} {path}" if after != ABSENT else f"remove {path}",
            params={name: value for name, value in params.items() if name != "verb"},
            targets=(target,),
            risk="low" if before == ABSENT else "medium",
            operations=("file.remove",) if after == ABSENT else ("file.write",),
            repeatable=True,
            discloses=cast("Discloses", facts["discloses"]),
            precondition={"sha256": before},
            undo=undo,
            timeout_seconds=WRITE_SECONDS,
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Replace the file, unless it already is as it should be; keep what was there."""
        if step.verb in VERBS:
            return perform_there(self.ports.outside[REMOTE_HOSTS], step, context)
        path = str(step.params["path"])
        after = self._wanted(step)
        before = read_file(path)
        if _digest(before) == after:
            return StepResult(ok=True, summary="it was so already", data={"path": path, "after": after})
        expected = (step.precondition or {}).get("sha256")
        if _digest(before) != expected:
            msg = f"{path} is not what it was when the plan was made; nothing was written"
            raise Stale(msg, code="file.changed", fix="ask again to see the new plan")
        if before is not None:
            context.blobs.put(before.body)
        if after != ABSENT:
            replace_file(path, self._body(step, context), before, context.hold, _attributes(step.params))
        elif before is not None:
            remove_file(path, before, context.hold)
        data: JsonObject = {"path": path, "before": _digest(before), "after": after}
        return StepResult(ok=True, summary=f"{step.summary}: done", data=data)

    def _wanted(self, step: Step) -> str:
        """The digest of what the file is to hold."""
        if step.verb == "write":
            return hashlib.sha256(WriteArgs.model_validate(step.params["args"]).body).hexdigest()
        return str(step.params["digest"])

    def _body(self, step: Step, context: StepContext) -> bytes:
        if step.verb == "write":
            return WriteArgs.model_validate(step.params["args"]).body
        return context.blobs.get(str(step.params["digest"]))

    def check(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002
        """Read the file again and compare it with what the plan said; another machine's door did so itself."""
        if step.verb in VERBS:
            return StepResult(ok=True, summary="the door over there looked")
        path = str(step.params["path"])
        found = _digest(read_file(path))
        ok = found == self._wanted(step)
        return StepResult(
            ok=ok, summary="the file is as planned" if ok else "the file is something else", data={"sha256": found}
        )


class FileWrite(_FileAction):
    """Write one file."""

    name: ClassVar[str] = "file.write"
    summary: ClassVar[str] = "Write one file whole; the plan shows the difference and the original is kept."
    example: ClassVar[JsonObject] = {"path": "site/banner.txt", "content": "open on Sunday\n"}
    Args: ClassVar[type[Frozen]] = WriteArgs

    def plan(self, args: WriteArgs, facts: JsonObject) -> Plan:
        """One step, with the difference as preview."""
        if args.host is not None:
            return self._plan_there(args, facts)
        path = str(facts["path"])
        body = facts["body"]
        before = None if body is None else bytes.fromhex(str(body))
        after = hashlib.sha256(args.body).hexdigest()
        content: JsonObject = args.model_dump(mode="json")
        step = self._step(facts, after, {"verb": "write", "path": path, "args": content})
        return Plan(
            action=self.name,
            args=content,
            summary=step.summary,
            steps=(step,),
            facts={name: facts[name] for name in ("path", "names", "before", "attributes")},
            preview=preview(path, before, args.body, self.ports.redactor),
        )


class FileRemove(_FileAction):
    """Remove one file."""

    name: ClassVar[str] = "file.remove"
    summary: ClassVar[str] = "Remove one file; its original is kept, and undo puts it back."
    example: ClassVar[JsonObject] = {"path": "site/old-banner.txt"}
    Args: ClassVar[type[Frozen]] = RemoveArgs

    def read_facts(self, args: WriteArgs | RemoveArgs) -> JsonObject:
        """What is there now. Raises NotFound when nothing is."""
        facts = super().read_facts(args)
        if facts.get("before") == ABSENT:
            msg = f"there is no file {facts['path']}"
            raise NotFound(msg, code="file.absent", fix="look where it lies")
        return facts

    def plan(self, args: RemoveArgs, facts: JsonObject) -> Plan:
        """One step, with what is lost as preview."""
        if args.host is not None:
            return self._plan_there(args, facts)
        step = self._step(facts, ABSENT, {"verb": "remove", "path": facts["path"], "digest": ABSENT})
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={name: facts[name] for name in ("path", "names", "before", "attributes")},
            preview=preview(str(facts["path"]), bytes.fromhex(str(facts["body"])), None, self.ports.redactor),
        )


class FileRestore(_FileAction):
    """Put a file back."""

    name: ClassVar[str] = "file.restore"
    summary: ClassVar[str] = "Put a file back as it was before a Run wrote to it."
    example: ClassVar[JsonObject] = {"run": 1}
    Args: ClassVar[type[Frozen]] = RestoreArgs

    def read_facts(self, args: RestoreArgs) -> JsonObject:  # type: ignore[override] # each action has its own Args
        """What the Run wrote, and what is there now."""
        run = self.ports.records.run(args.run)
        if run.action not in (FileWrite.name, FileRemove.name, self.name):
            msg = f"Run {args.run} did not write a file: it is {run.action}"
            raise Invalid(msg, code="file.not_a_write", fix="interlock log --action file.write")
        written = run.plan.steps[0]
        if written.verb in VERBS:
            msg = f"Run {args.run} wrote on another machine"
            raise Invalid(msg, code="file.elsewhere", fix=f"interlock undo {args.run}")
        if not run.state.is_final:
            msg = f"Run {args.run} is not over"
            raise Conflict(msg, code="run.open", fix=f"interlock show {args.run}")
        digest = str((written.precondition or {})["sha256"])
        kept = written.undo.params.get("attributes") if written.undo is not None else None
        return {**self._facts(str(written.params["path"])), "digest": digest, "original": kept}

    def plan(self, args: RestoreArgs, facts: JsonObject) -> Plan:
        """One step that puts the kept original back."""
        digest = str(facts["digest"])
        params = {"verb": "put_back", "path": facts["path"], "digest": digest, "attributes": facts["original"]}
        step = self._step(facts, digest, params)
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=f"{step.summary}, as it was before Run {args.run}",
            steps=(step,),
            facts={name: facts[name] for name in ("path", "names", "before", "attributes", "digest", "original")},
        )
