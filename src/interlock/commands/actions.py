"""`command.exec` runs one program by its argument vector; `interlock.adopt` makes a script a known program."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shlex
import stat
from pathlib import Path
from typing import IO, Annotated, ClassVar

from pydantic import Field, JsonValue

from interlock.commands.binary import resolve_binary
from interlock.commands.facts import (
    CLEAN_ENVIRONMENT,
    Placed,
    Surroundings,
    context_digest,
    require_kept_paths,
    require_same_paths,
    settings_for,
    why_others_reach,
)
from interlock.commands.library import Library, check_examples, load_library
from interlock.commands.model import Operation, Probe, Program, Refused, Unknown
from interlock.commands.probe import holds
from interlock.commands.remote import remote_facts, remote_perform, remote_step
from interlock.commands.schema import program_of
from interlock.core.action import Action, Ports, StepResult
from interlock.core.errors import Conflict, Denied, InterlockError, Invalid, NotFound, Permanent, Stale, Transient
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import ProcessResult, ProcessSpec, ProgramContext, StepContext
from interlock.core.project import Project
from interlock.core.remote_host import REMOTE_HOSTS, DoorRequest, HostName

ARGUMENTS_MAX = 256
TIMEOUT_SECONDS_MAX = 24 * 3600.0
UNKNOWN_SECONDS = 600.0
PATTERNS_MAX = 32
PATTERN_CHARACTERS_MAX = 500
EXAMPLE_CHARACTERS_MAX = 1000
SCRIPT_BYTES_MAX = 1024 * 1024 * 1024
READ_BYTES = 1024 * 1024
SEARCH_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
SYSTEM_FOLDERS = ("/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/")
STARTED_WITH = ("binary", "argv", "folder", "environment", "program", "context", "sha256")
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class ExecArgs(Frozen):
    """`argv` word for word, without a shell; `folder` is where relative paths begin; `host` is another machine."""

    argv: tuple[str, ...] = Field(min_length=1, max_length=ARGUMENTS_MAX)
    folder: str | None = Field(default=None, max_length=4096)
    timeout_seconds: float | None = Field(default=None, gt=0, le=TIMEOUT_SECONDS_MAX)
    host: HostName | None = None

    @property
    def request(self) -> DoorRequest:
        """The same for the door of another machine."""
        return DoorRequest(
            id="plan", do="plan", argv=self.argv, folder=self.folder, timeout_seconds=self.timeout_seconds
        )


class AdoptArgs(Frozen):
    """`arguments` gives each argument of the script, in order, a regular expression that its whole value must match;
    it knows no look-around and no back-references, so that no value takes long to match.

    `examples` are command lines as they will be asked for; each must fit. Without arguments the name alone is one.
    """

    path: str = Field(min_length=1, max_length=4096)
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)+$", max_length=100)
    summary: str | None = Field(default=None, max_length=200)
    arguments: dict[str, Annotated[str, Field(max_length=PATTERN_CHARACTERS_MAX)]] = Field(
        default={}, max_length=PATTERNS_MAX
    )
    examples: tuple[Annotated[str, Field(max_length=EXAMPLE_CHARACTERS_MAX)], ...] = Field(
        default=(), max_length=PATTERNS_MAX
    )
    reads_only: bool = False
    repeatable: bool = False
    timeout_seconds: float = Field(default=3600.0, gt=0, le=TIMEOUT_SECONDS_MAX)
    folder: str | None = Field(default=None, max_length=4096)


class CommandExec(Action):
    """Run one program."""

    name: ClassVar[str] = "command.exec"
    summary: ClassVar[str] = "Run one program by its argument vector, never through a shell."
    example: ClassVar[JsonObject] = {"argv": ["uptime"]}
    Args: ClassVar[type[Frozen]] = ExecArgs
    guarded: ClassVar[bool] = True

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._declared: tuple[str, ...] | None = None
        self._base: Library | None = None
        self._adopted: tuple[JsonObject, ...] = ()
        self._library: Library | None = None
        self.trouble: InterlockError | None = None
        """Why the project's own programs are not known; None while they are."""

    def load(self, project: Project) -> Library:
        """Read the library's programs and those of `project` anew, and put nothing in force.

        Raises: Invalid when one of them is not sound, or takes the name of an adopted one.
        """
        base = load_library(tuple(Path(project.folder, name) for name in project.programs))
        base.with_programs(_programs_of(self.ports.records.adopted()))
        return base

    def put_in_force(self, project: Project, base: Library) -> None:
        """What `load` returned is what is known from now on."""
        self._base, self._declared, self._library, self.trouble = base, project.programs, None, None

    def library(self) -> Library:
        """The programs known now: the library's, the project's own, and the adopted ones.

        Where the project's own cannot be loaded none of them is known, which refuses more and never less.
        """
        project = self.ports.project()
        if self._base is None or self._declared != project.programs:
            try:
                self.put_in_force(project, self.load(project))
            except InterlockError as error:
                self.put_in_force(project, load_library(()))
                self.trouble = error
        return self._with_adopted(self._base or load_library(()))

    def _with_adopted(self, base: Library) -> Library:
        adopted = self.ports.records.adopted()
        if self._library is None or adopted != self._adopted:
            self._library, self._adopted = base.with_programs(_programs_of(adopted)), adopted
        return self._library

    def read_facts(self, args: ExecArgs) -> JsonObject:
        """What the command is, and what it would touch on this machine.

        Raises: Denied (a wrapper), Invalid (arguments nobody can read), NotFound, Transient.
        """
        if args.host is not None:
            return remote_facts(self.ports.outside[REMOTE_HOSTS], args.host, args.request, self.library())
        library = self.library()
        answer = library.match(args.argv)
        if isinstance(answer, Refused):
            raise _refusal(answer)
        if isinstance(answer, Unknown):
            return self._unknown_facts(args, answer, library)
        surroundings = Surroundings(self.ports.project(), self.ports.resolvers, library)
        placed = surroundings.place(answer, args.folder)
        facts = _facts_of(placed)
        if answer.undo is not None and placed.operation.changes:
            facts["undo"] = self._undo_facts(placed, surroundings, library, args.folder)
        return facts

    def _undo_facts(
        self, placed: Placed, surroundings: Surroundings, library: Library, folder: str | None
    ) -> JsonValue:
        """The command that takes this one back, if the world is as that needs it to be."""
        undo = placed.operation.undo
        if undo is None:
            return None
        if undo.only_if is not None:
            own = settings_for(self.ports.project(), placed.operation.program, placed.context)
            binary = _binary_of(library, undo.only_if)
            true, answer = holds(undo.only_if, binary, placed.folder, {**placed.environment, **own})
            if not true:
                return {"why": f"the state before is not one to go back to ({answer})"}
        back = library.match(undo.argv)
        if not isinstance(back, Operation):
            return {"why": "its undo is not a known command"}
        return {"placed": _facts_of(surroundings.place(back, folder)), "asked": list(undo.argv), "folder": folder}

    def targets_now(self, step: Step) -> tuple[Target, ...]:
        """An undo is a command that calls things by name, and what answers to a name may have changed since."""
        asked, folder = step.params.get("asked"), step.params.get("asked_folder")
        if not isinstance(asked, list):
            return step.targets
        library = self.library()
        answer = library.match(str(word) for word in asked)
        if not isinstance(answer, Operation):
            msg = f"{shlex.join(str(word) for word in asked)} is no longer a known command"
            raise Stale(msg, code="undo.unknown", fix="ask for what mends it")
        surroundings = Surroundings(self.ports.project(), self.ports.resolvers, library)
        return surroundings.place(answer, None if folder is None else str(folder)).targets

    def _unknown_facts(self, args: ExecArgs, answer: Unknown, library: Library) -> JsonObject:
        """An opaque program is pinned by what its file holds now, so that an approval is for that and nothing else."""
        project = self.ports.project()
        name = args.argv[0]
        folder = posixpath.normpath(posixpath.join(project.folder, args.folder or "."))
        if "/" in name:
            binary = os.path.realpath(posixpath.join(folder, name))
        else:
            candidates = tuple(f"{place}/{name}" for place in SEARCH_FOLDERS)
            binary = str(resolve_binary(name, candidates, owners=frozenset({0, os.geteuid()})))
        disguise = library.refuse_disguise(name, binary)
        if disguise is not None:
            raise _refusal(disguise)
        if library.classify_path(binary) == "secret":
            # Its digest would let what it holds be guessed.
            msg = f"{binary} holds secrets; it is no program"
            raise Denied(msg, code="program.secret", fix="name a program")
        context = project.contexts.get(name, ProgramContext())
        return {
            "unknown": {"why": answer.why, "nearest": list(answer.nearest)},
            "binary": binary,
            "sha256": _sha256_of(binary),
            "argv": list(args.argv),
            "folder": folder if args.folder is not None else context.folder,
            "environment": dict(CLEAN_ENVIRONMENT),
            "program": name,
            "context": context_digest(context),
        }

    def plan(self, args: ExecArgs, facts: JsonObject) -> Plan:
        """One step."""
        if args.host is not None:
            step = remote_step(args.request, facts)
        else:
            step = _unknown_step(args, facts) if "unknown" in facts else _step(args, facts)
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={name: value for name, value in facts.items() if name not in ("operation", "environment")},
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Look at the paths once more, then run the program under the guard."""
        params = step.params
        if step.verb == "execute_there":
            return remote_perform(self.ports.outside[REMOTE_HOSTS], step, context)
        moved = require_same_paths(params["paths"])  # type: ignore[arg-type]
        if moved is not None:
            msg = f"{moved} leads elsewhere than when the plan was made; nothing was run"
            raise Stale(msg, code="path.moved", fix="ask again to see the new plan")
        reached = require_kept_paths(params.get("kept_paths", []))  # type: ignore[arg-type]
        if reached is not None:
            msg = f"others can let {reached} lead elsewhere since the plan was made; nothing was run"
            raise Stale(msg, code="path.swappable", fix="ask again to see the new plan")
        result = context.execute(
            ProcessSpec(
                path=str(params["binary"]),
                argv=tuple(str(word) for word in params["argv"]),  # type: ignore[union-attr]
                environment=self._environment(step),
                folder=str(params["folder"]),
                timeout_seconds=step.timeout_seconds,
                sha256=params.get("sha256"),
            )
        )
        return _result(step, result)

    def check(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002
        """Ask the program that knows whether it happened, where there is one."""
        probe = step.params.get("check")
        if probe is None:
            return StepResult(ok=True, summary="the program's own word is all there is")
        wanted = Probe.model_validate(probe)
        binary = _binary_of(self.library(), wanted)
        ok, answer = holds(wanted, binary, str(step.params["folder"]), self._environment(step))
        return StepResult(ok=ok, summary=answer)

    def _environment(self, step: Step) -> dict[str, str]:
        """The clean environment of the plan, with the operator's settings, which no plan tells."""
        own = settings_for(self.ports.project(), str(step.params["program"]), str(step.params["context"]))
        clean: dict[str, str] = step.params["environment"]  # type: ignore[assignment]
        return {**clean, **own}


class Adopt(Action):
    """Make a script a known program."""

    name: ClassVar[str] = "interlock.adopt"
    summary: ClassVar[str] = "Make a script a known program under a name, pinned by its content, with typed arguments."
    example: ClassVar[JsonObject] = {"path": "/usr/local/bin/nightly.sh", "name": "report.nightly"}
    Args: ClassVar[type[Frozen]] = AdoptArgs

    def read_facts(self, args: AdoptArgs) -> JsonObject:
        """The script as it is. Raises Denied when somebody else could change it."""
        path = os.path.realpath(posixpath.join(self.ports.project().folder, args.folder or ".", args.path))
        try:
            found = Path(path).stat()
        except FileNotFoundError:
            msg = f"there is no {path}"
            raise NotFound(msg, code="path.unknown") from None
        if not stat.S_ISREG(found.st_mode) or not found.st_mode & stat.S_IXUSR:
            msg = f"{path} is not a file that can be executed"
            raise Invalid(msg, code="adopt.not_a_program", fix=f"chmod u+x {path}")
        if found.st_mode & OTHERS_MAY_WRITE or found.st_uid not in (0, os.geteuid()):
            msg = f"{path} can be changed by others than its operator"
            raise Denied(msg, code="adopt.writable", fix=f"chown root {path} && chmod go-w {path}")
        base = load_library(())
        disguise = base.refuse_disguise(args.name, path)
        if disguise is not None and path.startswith(SYSTEM_FOLDERS):
            # Under any name it would run what its arguments say.
            raise _refusal(disguise)
        sha256 = _sha256_of(path)
        self._require_sound(args, _schema_of(args, path, sha256), base)
        earlier = next((known for known in self.ports.records.adopted() if known["program"] == args.name), None)
        return {"path": path, "sha256": sha256, "owner": found.st_uid, "earlier": earlier}

    def plan(self, args: AdoptArgs, facts: JsonObject) -> Plan:
        """One step, taken back by what the name stood for before, or by forgetting it."""
        path = str(facts["path"])
        target = Target(kind="program", id=args.name, names=(path,))
        earlier = facts["earlier"]
        if isinstance(earlier, dict):
            undo = _adoption(args.name, earlier, target, None)
        else:
            undo = Step(
                verb="forget",
                summary=f"forget {args.name}",
                params={"name": args.name},
                targets=(target,),
                risk="low",
                operations=("interlock.adopt",),
                repeatable=True,
            )
        step = _adoption(args.name, _schema_of(args, path, str(facts["sha256"])), target, undo)
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )

    def _require_sound(self, args: AdoptArgs, schema: JsonObject, base: Library) -> None:
        """Raises Invalid when the schema is none, the name is taken by the library, or an example does not fit."""
        program = program_of(schema, f"the program {args.name}")
        if args.arguments and not args.examples:
            msg = f"{args.name} takes arguments, so it needs an example of how it is asked for"
            raise Invalid(msg, code="adopt.no_example", fix=f"--example '{args.name} ...'")
        if args.name in base.programs:
            msg = f"{args.name} is the name of a program of the library"
            raise Conflict(msg, code="adopt.name_taken", fix="choose another name")
        check_examples(base.with_programs((program,)), program)

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Write the name down, or strike it out."""
        data = context.arrange(f"program.{step.verb}", step.params)
        return StepResult(ok=True, summary=step.summary, data=data)


def _schema_of(args: AdoptArgs, path: str, sha256: str) -> JsonObject:
    """The program that a script becomes."""
    positionals: JsonObject = {name: f"argument-{name}" for name in args.arguments}
    form: JsonObject = {
        "name": "run",
        "summary": args.summary or f"run {args.name}",
        "positionals": positionals,
        "match": list(args.examples or (args.name,)),
        "changes": not args.reads_only,
        "discloses": "content",
        "risk": "none" if args.reads_only else "medium",
        "operations": [] if args.reads_only else ["program.run"],
        "repeatable": args.repeatable or args.reads_only,
        "timeout_seconds": args.timeout_seconds,
        "targets": [] if args.reads_only else [{"kind": "program", "name": args.name}],
    }
    if not args.reads_only:
        form["irreversible"] = "nobody told Interlock how to take this script back"
    return {
        "program": args.name,
        "summary": args.summary or f"the adopted script {path}",
        "adopted": {"path": path, "sha256": sha256},
        "types": {f"argument-{name}": pattern for name, pattern in args.arguments.items()},
        "forms": [form],
    }


def _adoption(name: str, schema: JsonObject, target: Target, undo: Step | None) -> Step:
    script = schema["adopted"]
    path, sha256 = (script["path"], script["sha256"]) if isinstance(script, dict) else (None, None)
    return Step(
        verb="adopt",
        summary=f"make {path} known as {name}",
        params={"name": name, "path": path, "sha256": sha256, "schema": schema},
        targets=(target,),
        risk="medium",
        operations=("interlock.adopt",),
        repeatable=True,
        undo=undo,
    )


def _facts_of(placed: Placed) -> JsonObject:
    operation = placed.operation
    return {
        "operation": operation.model_dump(mode="json"),
        "form": f"{operation.program} {operation.form}",
        "binary": placed.binary,
        "sha256": operation.sha256,
        "argv": list(placed.argv),
        "folder": placed.folder,
        "environment": dict(placed.environment),
        "program": operation.program,
        "context": placed.context,
        "paths": [list(pair) for pair in placed.paths],
        "kept_paths": [real for _, real in placed.paths if why_others_reach(real) is None],
        "targets": [target.model_dump(mode="json") for target in placed.targets],
    }


def _step(args: ExecArgs, facts: JsonObject) -> Step:
    operation = Operation.model_validate(facts["operation"])
    undo, why = _undo_step(facts)
    params: JsonObject = {name: facts[name] for name in (*STARTED_WITH, "paths", "kept_paths")}
    params["check"] = operation.check.model_dump(mode="json") if operation.check is not None else None
    params["ends_by_timeout"] = operation.ends_by_timeout
    if operation.answers:
        params["answers"] = [*operation.answers]
    listed = facts["targets"]
    return Step(
        verb="execute",
        summary=operation.summary,
        params=params,
        targets=tuple(Target.model_validate(target) for target in (listed if isinstance(listed, list) else [])),
        risk=operation.risk,
        changes=operation.changes,
        operations=operation.operations,
        repeatable=operation.repeatable,
        discloses=operation.discloses,
        precondition={"paths": facts["paths"], "sha256": facts["sha256"]},
        undo=undo,
        irreversible=operation.irreversible or why,
        timeout_seconds=args.timeout_seconds or operation.timeout_seconds,
    )


def _undo_step(facts: JsonObject) -> tuple[Step | None, str | None]:
    undo = facts.get("undo")
    if not isinstance(undo, dict):
        return None, None
    placed = undo.get("placed")
    if not isinstance(placed, dict):
        return None, str(undo.get("why"))
    step = _step(ExecArgs(argv=("undo",)), placed)
    asked: JsonObject = {"asked": undo["asked"], "asked_folder": undo["folder"]}
    return step.model_copy(update={"params": {**step.params, **asked}}), None


def _unknown_step(args: ExecArgs, facts: JsonObject) -> Step:
    unknown = facts["unknown"]
    why = unknown["why"] if isinstance(unknown, dict) else ""
    shown = " ".join(args.argv)
    binary = str(facts["binary"])
    return Step(
        verb="execute",
        summary=f"run {shown[:300]}, and nobody knows what it does: {why}",
        params={**{name: facts[name] for name in STARTED_WITH}, "paths": []},
        targets=(Target(kind="program", id=binary, names=(args.argv[0],)),),
        risk="high",
        changes=True,
        opaque=True,
        operations=("program.run",),
        repeatable=False,
        discloses="content",
        precondition={"sha256": facts["sha256"]},
        irreversible="nobody knows what it does",
        timeout_seconds=args.timeout_seconds or UNKNOWN_SECONDS,
    )


def _result(step: Step, result: ProcessResult) -> StepResult:
    data: JsonObject = {
        "exit_code": result.exit_code,
        "signal": result.signal,
        "output_bytes": result.output_bytes,
        "output_sha256": result.output_sha256,
        "truncated": result.truncated,
        "seconds": round(result.duration_seconds, 3),
    }
    if result.timed_out:
        if step.params.get("ends_by_timeout"):
            return StepResult(
                ok=True, summary=f"ended after {step.timeout_seconds:g} s, as it never ends by itself", data=data
            )
        msg = f"it took longer than {step.timeout_seconds:g} s and was killed"
        raise Permanent(msg, code="step.timed_out")
    if result.signal is not None:
        return StepResult(ok=False, summary=f"it was ended by signal {result.signal}", data=data)
    # The summary is kept for ever and shown to everybody who may see the Run; its output is neither.
    tells = result.exit_code and step.discloses == "nothing" and result.tail.strip()
    last = result.tail.strip().splitlines()[-1][:200] if tells else ""
    summary = f"exit {result.exit_code}" + (f": {last}" if last else "")
    answers = step.params.get("answers")
    ok = result.exit_code == 0 or (isinstance(answers, list) and result.exit_code in answers)
    return StepResult(ok=ok, summary=summary, data=data)


def _programs_of(schemas: tuple[JsonObject, ...]) -> list[Program]:
    return [program_of(schema, f"adopted program {schema.get('program')}") for schema in schemas]


def _binary_of(library: Library, probe: Probe) -> str:
    answer = library.match(probe.argv)
    if not isinstance(answer, Operation) or answer.changes:
        msg = f"{' '.join(probe.argv)} is not a command that only reads"
        raise Permanent(msg, code="probe.not_a_read")
    return str(resolve_binary(answer.program, answer.path_candidates, owners=frozenset({0, os.geteuid()})))


def _refusal(answer: Refused) -> Denied:
    msg = f"{answer.program} is never run through the door: {answer.why}"
    return Denied(msg, code="command.refused", fix=answer.instead)


def _sha256_of(path: str) -> str:
    """The digest of a program's file.

    Raises: Invalid (no plain file, none that can be executed, too large), NotFound, Denied (unreadable), Transient.
    """
    try:
        # Only a plain file is opened to be read: a FIFO would wait for ever, and some devices act when they are opened.
        place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _require_program(path, os.fstat(place))
            descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(place)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  a descriptor has no path
            return _digest_of(path, file)
    except (FileNotFoundError, NotADirectoryError):
        msg = f"there is no {path}"
        raise NotFound(msg, code="program.absent", fix="check the name and the path") from None
    except PermissionError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise Denied(msg, code="program.unreadable", fix=f"let the account that runs Interlock read {path}") from error
    except OSError as error:
        msg = f"{path} could not be read: {error.strerror}"
        raise Transient(msg, code="program.unread", effect_sent=False) from error


def _require_program(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        msg = f"{path} is not a file that holds a program"
        raise Invalid(msg, code="program.not_a_file", fix="name the program's file")
    if not found.st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH):
        msg = f"{path} is not a program: nobody may execute it"
        raise Invalid(msg, code="program.not_executable", fix=f"chmod u+x {path}, if it is one")


def _digest_of(path: str, file: IO[bytes]) -> str:
    """What was really read is counted: a file can grow, and some say that they are empty."""
    digest, left = hashlib.sha256(), SCRIPT_BYTES_MAX
    while part := file.read(min(READ_BYTES, left + 1)):
        left -= len(part)
        if left < 0:
            msg = f"{path} is larger than {SCRIPT_BYTES_MAX:,} bytes"
            raise Invalid(msg, code="program.size", fix="use a program whose file can be pinned")
        digest.update(part)
    return digest.hexdigest()
