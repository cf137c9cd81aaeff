"""All known programs together: loaded once, checked against their own examples, asked for every argv."""

from __future__ import annotations

import fnmatch
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import ValidationError

from interlock.commands.match import NEAREST_MAX, CompiledProgram, compile_program, match_program
from interlock.commands.model import (
    FOLDERS,
    Access,
    Match,
    Operation,
    PathRules,
    Program,
    Refused,
    Unknown,
    Wrapper,
    Wrappers,
)
from interlock.commands.schema import FILE_BYTES_MAX, parse_program, parse_yaml
from interlock.commands.values import hidden_character
from interlock.core.errors import Invalid, NotFound
from interlock.engine.trusted_file import read_trusted
from interlock.lib.canonical import digest_of

ARGUMENTS_MAX = 256
ARGUMENT_BYTES_MAX = 8 * 1024
ARGV_BYTES_MAX = 128 * 1024
PROGRAMS_MAX = 2000
ABOUT = frozenset({"--version", "--help"})
"""Standing alone after the name of a described program, these make it tell about itself and do nothing else."""
SHOWN_CHARACTERS_MAX = 60

PathClass = Literal["open", "rooted", "secret"]

_NAME = re.compile(r"[A-Za-z0-9_./+@\[-]{1,4096}", re.ASCII)


class Library:
    """Immutable after construction; safe to share between threads."""

    def __init__(self, programs: Iterable[Program], wrappers: Wrappers, paths: PathRules) -> None:
        """Compile every program.

        Raises:
            Invalid: A schema contradicts itself, or two programs share a name.
        """
        self._wrappers = wrappers
        self._wrapper_names = {name: item for item in wrappers.wrappers for name in item.names}
        self._wrapper_patterns = [
            (re.compile(item.pattern, re.ASCII), item) for item in wrappers.wrappers if item.pattern
        ]
        self._paths = paths
        self._open = frozenset(paths.open)
        self._secret = _any_of(paths.secret)
        self._secret_beside_certificates = _any_of(glob for glob in paths.secret if glob not in paths.certificates)
        self._compiled: dict[str, CompiledProgram] = {}
        self._by_path: dict[str, str] = {}
        self._programs: dict[str, Program] = {}
        for program in programs:
            self._add(program)
        self._candidates = {name: ready.program.candidates(name) for name, ready in self._compiled.items()}
        for program in self._programs.values():
            if program.executes is not None and program.executes not in self._compiled:
                raise _broken(program, f"it executes {program.executes}, which is not described")
        self.digest = digest_of(
            {
                "programs": [self._programs[name].model_dump(mode="json") for name in sorted(self._programs)],
                "wrappers": wrappers.model_dump(mode="json"),
                "paths": paths.model_dump(mode="json"),
            }
        )

    def _add(self, program: Program) -> None:
        try:
            ready = compile_program(program)
        except ValueError as error:
            raise _broken(program, str(error)) from error
        if len(self._programs) >= PROGRAMS_MAX:
            raise _broken(program, f"there are more than {PROGRAMS_MAX} programs")
        self._programs[program.program] = program
        for name in (program.program, *program.aliases):
            if name in self._compiled:
                raise _broken(program, f"the name {name} is taken")
            if self._wrapper(name) is not None:
                raise _broken(program, f"{name} runs other programs, so it can never be a known one")
            self._compiled[name] = ready
            for path in program.candidates(name):
                if self._by_path.setdefault(path, name) != name:
                    raise _broken(program, f"{path} already belongs to {self._by_path[path]}")

    @property
    def programs(self) -> Mapping[str, Program]:
        """Every program by its name, for help and the reference; aliases are not repeated."""
        return MappingProxyType(self._programs)

    @property
    def wrappers(self) -> tuple[Wrapper, ...]:
        """What is refused by name, with what to use instead."""
        return self._wrappers.wrappers

    def with_programs(self, programs: Iterable[Program]) -> Library:
        """A new library with these besides (adopted scripts, the project's own)."""
        return Library((*self._programs.values(), *programs), self._wrappers, self._paths)

    def match(self, argv: Iterable[str]) -> Match:
        """Say what an argv is. Pure; some tens of microseconds.

        Raises:
            Invalid: It is empty, too large, or holds a character that cannot be seen or could be misread.
        """
        asked = tuple(argv)
        require_plain(asked)
        name = asked[0]
        known = self._by_path.get(name) if "/" in name else name
        compiled = self._compiled.get(known) if known is not None else None
        if known is None or compiled is None:
            return self._undescribed(asked)
        candidates = (name,) if "/" in name else self._candidates[known]
        program = compiled.program
        places = self._candidates[program.executes] if program.executes else candidates
        answer = match_program(compiled, (known, *asked[1:]), places)
        if isinstance(answer, Operation):
            return self._with_path_rules(answer) if answer.paths else answer
        if len(asked) == 2 and asked[1] in ABOUT and program.adopted is None:  # noqa: PLR2004 - the name and one option
            return _about(known, asked[1], candidates, program.environment)
        return answer

    def refuse_disguise(self, asked: str, real_path: str) -> Refused | None:
        """Why a program asked for as `asked` must not run when its name leads to `real_path`; None when it may.

        A link does not make another program of it: what is refused by its name is refused by any, and what is known is
        asked by the name it is known by.
        """
        base = real_path.rsplit("/", 1)[-1]
        wrapper = self._wrapper(base)
        if wrapper is not None:
            return Refused(program=base, why=wrapper.why, instead=wrapper.instead)
        known = self._by_path.get(real_path)
        if known is None or asked.rsplit("/", 1)[-1] in (known, base):
            return None
        why = f"{asked} is {real_path}, which is known as {known}"
        return Refused(program=asked, why=why, instead=f"ask for {known} by its own name")

    def classify_path(self, real_path: str, access: Access = "read") -> PathClass:
        """How a resolved path may be read: `open` to everybody, `secret` to nobody at once, `rooted` in the roots.

        A file that may hold a key or a certificate is no secret to a program that shows certificates alone.
        """
        secret = self._secret_beside_certificates if access == "certificate" else self._secret
        if secret.match(real_path):
            return "secret"
        return "open" if real_path in self._open else "rooted"

    def _wrapper(self, base: str) -> Wrapper | None:
        found = self._wrapper_names.get(base)
        if found is None:
            found = next((item for pattern, item in self._wrapper_patterns if pattern.fullmatch(base)), None)
        return found

    def _undescribed(self, argv: tuple[str, ...]) -> Match:
        name = argv[0]
        base = name.rsplit("/", 1)[-1]
        wrapper = self._wrapper(base)
        if wrapper is not None:
            candidates = tuple(f"{folder}/{base}" for folder in FOLDERS)
            if len(argv) == 2 and argv[1] in wrapper.reads and (name == base or name in candidates):  # noqa: PLR2004
                shown = candidates if name == base else (name,)
                return _about(base, argv[1], shown, wrapper.environment)
            return Refused(program=base, why=wrapper.why, instead=wrapper.instead)
        if base in self._compiled:
            places = ", ".join(self._candidates[base][:3])
            why = f"{name} is not where {base} lies ({places}): it could be another program of that name"
            return Unknown(program=name, why=why, nearest=(base,))
        nearest = tuple(sorted(known for known in self._compiled if known[:3] == base[:3]))[:NEAREST_MAX]
        return Unknown(program=name, why=f"{base} is not a program the library describes", nearest=nearest)

    def _with_path_rules(self, operation: Operation) -> Operation:
        """A path that names a secret by its very text discloses one, before anything is resolved."""
        for reference in operation.paths:
            shown = _files_of(reference.text) if reference.access == "revision" else (_plain_path(reference.text),)
            if reference.access != "write" and any(
                self.classify_path(path, reference.access) == "secret" for path in shown
            ):
                return operation.disclosing("secret")
        return operation


def _any_of(globs: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs))


def _files_of(revision: str) -> tuple[str, ...]:
    """The file that `REV:PATH` or `:STAGE:PATH` may name; a path may hold colons too."""
    parts = revision.split(":")
    return tuple(_plain_path("/" + ":".join(parts[index:])) for index in range(1, len(parts)))


def _plain_path(text: str) -> str:
    """Without dots and doubled slashes; two leading ones are one to Linux."""
    path = posixpath.normpath(text)
    return path[1:] if path.startswith("//") else path


def _about(program: str, option: str, candidates: tuple[str, ...], environment: Mapping[str, str]) -> Operation:
    return Operation(
        program=program,
        form="about",
        path_candidates=candidates,
        argv=(program, option),
        summary=f"what {program} tells about itself",
        changes=False,
        discloses="nothing",
        risk="none",
        environment=dict(environment),
    )


def _broken(program: Program, why: str) -> Invalid:
    msg = f"program {program.program}: {why}"
    return Invalid(msg, code="program.schema", fix="mend the schema of that program")


def require_plain(argv: tuple[str, ...]) -> None:
    """Refuse what no reader could judge.

    Raises:
        Invalid: No argument, too many, too long, a hidden character, or a program name that is not plain ASCII.
    """
    if not argv:
        msg = "there is no command"
        raise Invalid(msg, code="command.empty", fix="name a program and its arguments")
    if len(argv) > ARGUMENTS_MAX:
        msg = f"{len(argv)} arguments are more than {ARGUMENTS_MAX}"
        raise Invalid(msg, code="command.size", fix="pass fewer arguments, or adopt a script")
    total = 0
    for index, text in enumerate(argv):
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        total += size + 1
        if size > ARGUMENT_BYTES_MAX or total > ARGV_BYTES_MAX:
            msg = f"argument {index} makes the command too large ({size} bytes; {ARGUMENT_BYTES_MAX} each, "
            msg += f"{ARGV_BYTES_MAX} together)"
            raise Invalid(msg, code="command.size", fix="put the content into a file and name that file")
        hidden = hidden_character(text)
        if hidden is not None:
            shown = ascii(text)[1:-1][:SHOWN_CHARACTERS_MAX]
            msg = f"argument {index} ({shown}) holds {hidden}, which cannot be seen or can be misread"
            raise Invalid(msg, code="command.character", fix="type the argument again in plain characters")
    if not _NAME.fullmatch(argv[0]):
        msg = f"{argv[0][:SHOWN_CHARACTERS_MAX]!r} is not the name of a program"
        raise Invalid(
            msg,
            code="command.program",
            fix="give the program and each argument separately: a whole command line in one text is never split",
        )


def check_examples(library: Library, program: Program) -> None:
    """Hold a program's own examples against it: each `match` is that form, no `not_match` is.

    The commands of checks and undos must themselves be known: a check and an `only_if` only read, an undo is a form
    that changes something.

    Raises:
        Invalid: Names the first example that does not hold.
    """
    for form in program.forms:
        for line in form.match:
            answer = library.match(_words_of(program, form.name, line))
            if not isinstance(answer, Operation) or answer.form != form.name:
                raise _unfit(program, form.name, f"`{line}` should match but {_told(answer)}")
            _check_follow_ups(library, program, answer)
        for line in form.not_match:
            try:
                answer = library.match(_words_of(program, form.name, line))
            except Invalid:
                continue
            if isinstance(answer, Operation) and answer.form == form.name:
                raise _unfit(program, form.name, f"`{line}` should not match but it does")


def _words_of(program: Program, form: str, line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise _unfit(program, form, f"`{line}` is not a command line: {error}") from error


def _check_follow_ups(library: Library, program: Program, operation: Operation) -> None:
    reads = [probe.argv for probe in (operation.check, operation.undo and operation.undo.only_if) if probe]
    for argv in reads:
        answer = library.match(argv)
        if not isinstance(answer, Operation) or answer.changes:
            raise _unfit(program, operation.form, f"its check {shlex.join(argv)!r} is not a known read")
    if operation.undo is not None:
        answer = library.match(operation.undo.argv)
        if not isinstance(answer, Operation) or not answer.changes:
            raise _unfit(program, operation.form, f"its undo {shlex.join(operation.undo.argv)!r} is not a known change")


def _told(answer: Match) -> str:
    return f"is {answer.form}" if isinstance(answer, Operation) else f"is not: {answer.why}"


def _unfit(program: Program, form: str, why: str) -> Invalid:
    msg = f"program {program.program}, form {form}: {why}"
    return Invalid(msg, code="program.example", fix="mend the form or the example")


def load_library(extra: tuple[Path, ...] = ()) -> Library:
    """Read the built-in programs and those in `extra` (YAML files, or folders of them), and check every example.

    Raises:
        Invalid: A file is not a schema, contradicts itself or its examples, or names a known program.
    """
    folder = resources.files("interlock.commands")
    built_in = sorted(
        (item for item in folder.joinpath("programs").iterdir() if item.name.endswith(".yaml")),
        key=lambda item: item.name,
    )
    programs = [parse_program(item.read_bytes(), f"programs/{item.name}") for item in built_in]
    for path in extra:
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        programs += [parse_program(_read(file), str(file)) for file in files]
    wrappers = parse_yaml(folder.joinpath("wrappers.yaml").read_bytes(), "wrappers.yaml")[0]
    paths = parse_yaml(folder.joinpath("paths.yaml").read_bytes(), "paths.yaml")[0]
    try:
        library = Library(programs, Wrappers.model_validate(wrappers), PathRules.model_validate(paths))
    except ValidationError as error:
        msg = f"the built-in wrappers or paths are broken: {error}"
        raise Invalid(msg, code="program.schema", fix="install Interlock again") from error
    for program in library.programs.values():
        check_examples(library, program)
    return library


def _read(path: Path) -> bytes:
    """A file that says which commands only read: whoever writes it decides what runs at once."""
    try:
        return read_trusted(path, FILE_BYTES_MAX)
    except NotFound as error:
        msg = f"{path} cannot be read: there is no such file"
        raise Invalid(msg, code="program.schema", fix="mend `programs:` in interlock.yaml") from error
