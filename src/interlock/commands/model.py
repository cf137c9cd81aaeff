"""The frozen types of the program schema, and what matching an argv against it may answer."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from interlock.core.model import Frozen
from interlock.core.plan import DISCLOSURES, RISKS, Discloses, Risk

Access = Literal["read", "write", "trust", "repository", "revision", "certificate"]
"""What a path is used for. `trust`: the program takes settings from that folder or file which can run code or name
other files, so the form keeps its promise only where nobody but the operator can write. `repository`: the same for the
git repository found from that folder upwards, which must be there. `revision`: no path, and refused where it could be
read as one; `REV:PATH` names a file. `certificate`: it is read, and only public certificates in it come out."""

Style = Literal["getopt", "words"]
"""`getopt`: clustered short options, `--long=value`. `words`: each option is one exact word (find, ip)."""

PROGRAM_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"
OPERATION_NAME = r"^[a-z][a-z0-9]*(\.[a-z][a-z0-9_]*)+$"
FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin")
"""Where binaries are looked for, in this order: what the distribution installed comes before what was added."""

_PLACEHOLDER = re.compile(r"(?<!\{)\{-{0,2}[a-z][a-z_-]*\}(?!\})")


def _split(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


def _alone(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _is_spelling(value: str) -> str:
    if (
        not value.isascii()
        or not value.isprintable()
        or " " in value
        or value in {"-", "--"}
        or "=" in value.lstrip("!=")
    ):
        msg = f"{value!r} is not the exact spelling of an option, such as -n or --lines"
        raise ValueError(msg)
    return value


def _is_regular_expression(value: str) -> str:
    try:
        re.compile(value, re.ASCII)
    except re.error as error:
        msg = f"{value!r} is not a regular expression: {error}"
        raise ValueError(msg) from error
    return value


Spelling = Annotated[str, AfterValidator(_is_spelling)]
Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Spellings = Annotated[tuple[Spelling, ...], BeforeValidator(_split)]
WordLists = Annotated[tuple[Words, ...], BeforeValidator(_alone)]
RegularExpression = Annotated[str, AfterValidator(_is_regular_expression)]


class Arguments(Frozen):
    """Options that belong together.

    `switches` are spellings that take no value. `options` maps spellings of one option (`-n --lines`) to the type of
    its value; the spelling `-NUM` stands for `-20`. `refused` maps spellings to the reason why no approval opens them
    here; `instead` says what to use.
    """

    switches: Spellings = ()
    options: dict[str, str] = {}
    refused: dict[str, str] = {}


class Probe(Frozen):
    """A read-only command and what its answer must be. `output` is searched in its standard output."""

    argv: tuple[str, ...] = Field(min_length=1)
    exit_codes: tuple[int, ...] = (0,)
    output: RegularExpression | None = None


class Undo(Frozen):
    """The command that takes a change back; only where `only_if`, read before the change, was true."""

    argv: tuple[str, ...] = Field(min_length=1)
    only_if: Probe | None = None


class TargetRule(Frozen):
    """Which argument names a target. `source` (`from`) is a positional or option; `name` a fixed identity instead.

    `context` maps a word the resolver understands (`namespace`) to the argument that gives it; `always` adds fixed
    words.
    """

    kind: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    source: str | None = Field(default=None, alias="from")
    name: str | None = None
    context: dict[str, str] = {}
    always: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_source(self) -> TargetRule:
        if (self.source is None) == (self.name is None):
            msg = "a target needs either `from` (an argument) or `name` (a fixed identity)"
            raise ValueError(msg)
        return self


class Form(Arguments):
    """One way to call a program, and everything that is known about it.

    Args:
        name: Unique within the program.
        words: The leading words that select it (`compose logs`), with all their aliases; none for a plain program.
        summary: One line for people; `{argument}` is replaced.
        use: Names of the program's `sets` of options to accept as well.
        positionals: Name -> type, then `?` (may be absent), `*` (any number) or `+` (one or more).
        requires: Options that must be given; alternatives are separated by spaces.
        defaults: Option -> the arguments to add when it is absent.
        insert: Arguments always added after the words.
        replace: Switch -> the switch that is executed in its place, alone or in a cluster.
        interspersed: False where the first positional ends the options.
        working_folder: How the working folder is used when no path is named.
        tree: Whether the content of everything beneath the folders it reads (or in the repository) comes out, or is
            copied; options that make it so.
        into: Positional -> positional: where the first is a folder, it writes in it what the second is called.
        follows: It runs until it is stopped, so that reaching the time-out is its normal end; options that make it so.
        answers: Exit codes besides 0 that are an answer and no failure (`grep` without a hit); of forms that only read.
        match, not_match: Command lines that must and must not be this form, checked when the library is loaded.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")
    words: WordLists = ((),)
    summary: str
    use: Words = ()
    positionals: dict[str, str] = {}
    requires: Annotated[tuple[Spellings, ...], BeforeValidator(_alone)] = ()
    defaults: dict[str, tuple[str, ...]] = {}
    insert: tuple[str, ...] = ()
    replace: dict[str, Spelling] = {}
    interspersed: bool = True
    working_folder: Access | None = None
    tree: bool | Spellings = False
    into: dict[str, str] = {}
    follows: bool | Spellings = False
    answers: tuple[Annotated[int, Field(ge=1, le=125)], ...] = ()
    changes: bool
    discloses: Discloses
    risk: Risk = "none"
    operations: tuple[Annotated[str, Field(pattern=OPERATION_NAME)], ...] = ()
    repeatable: bool | None = None
    targets: tuple[TargetRule, ...] = ()
    check: Probe | None = None
    undo: Undo | None = None
    irreversible: str | None = None
    timeout_seconds: float = Field(default=30.0, gt=0, le=6 * 3600)
    match: tuple[str, ...] = Field(min_length=1)
    not_match: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _effects_are_whole(self) -> Form:
        if self.changes and self.answers:
            msg = "only a form that changes nothing has exit codes that are answers"
            raise ValueError(msg)
        if not self.changes and (self.operations or self.undo or self.check or self.risk in {"medium", "high"}):
            msg = "a form that changes nothing has no operations, check, undo or risk above low"
            raise ValueError(msg)
        if self.changes and (self.risk == "none" or not self.operations):
            msg = "a form that changes something says its risk and its operations"
            raise ValueError(msg)
        if self.changes and (self.undo is None) == (self.irreversible is None):
            msg = "a form that changes something has either an undo or the reason why it is irreversible"
            raise ValueError(msg)
        return self


class Adopted(Frozen):
    """A script that was taken in as a program of its own: its place and the digest it must have when it runs."""

    path: str = Field(pattern=r"^/", max_length=4096)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Program(Frozen):
    """One program: its options, its forms, and how it must be started.

    Args:
        globals: Options accepted before the words.
        groups: Options accepted after a first word (`compose`).
        globals_anywhere: Whether both are accepted after the words too, where the form does not spell them otherwise.
        types: Regular expressions for values of this program alone.
        refused: Options that no approval opens here, with the reason.
        refused_words: Commands (separated by commas) that no approval opens here, with the reason.
        refused_texts: Regular expressions that no argument may hold anywhere, with the reason.
        instead: What to use in place of what is refused.
        otherwise: Why everything but the forms is refused rather than unknown: the program runs what it is told.
        executes: The program that is started in its place (`cat` for a pager).
        environment: Added to the clean one.
        insert: Arguments that follow the program's name.
    """

    program: str = Field(pattern=PROGRAM_NAME)
    summary: str
    aliases: Words = ()
    paths: tuple[Annotated[str, Field(pattern=r"^/")], ...] = ()
    style: Style = "getopt"
    double_dash: bool | None = None
    environment: dict[str, str] = {}
    insert: tuple[str, ...] = ()
    types: dict[str, RegularExpression] = {}
    sets: dict[str, Arguments] = {}
    globals: Arguments = Arguments()
    groups: dict[str, Arguments] = {}
    globals_anywhere: bool = True
    refused: dict[str, str] = {}
    refused_words: dict[str, str] = {}
    refused_texts: dict[RegularExpression, str] = {}
    instead: str | None = None
    otherwise: str | None = None
    executes: str | None = Field(default=None, pattern=PROGRAM_NAME)
    adopted: Adopted | None = None
    forms: tuple[Form, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Program:
        names = [form.name for form in self.forms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"the form {twice[0]!r} is declared twice"
            raise ValueError(msg)
        return self

    def candidates(self, name: str) -> tuple[str, ...]:
        """The absolute paths at which the binary called `name` (the program or an alias) may lie, best first."""
        if self.adopted is not None:
            return (self.adopted.path,)
        return self.paths or tuple(f"{folder}/{name}" for folder in FOLDERS)


class Wrapper(Frozen):
    """Programs that run other programs, refused by name or by `pattern` whatever their arguments are.

    `reads` are the exceptions: an argument that, standing alone, only makes the program tell something (`--version`).
    """

    names: Words = ()
    reads: Words = ()
    environment: dict[str, str] = {}
    pattern: RegularExpression | None = None
    why: str
    instead: str


class Wrappers(Frozen):
    """The content of wrappers.yaml."""

    wrappers: tuple[Wrapper, ...]


class PathRules(Frozen):
    """The content of paths.yaml: files that tell nothing confidential, and glob patterns of those that hold secrets.

    `certificates` are those of the secret ones under which certificates lie too: secret because a key could be in them.
    """

    open: tuple[str, ...]
    secret: tuple[str, ...]
    certificates: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _certificates_are_secret(self) -> PathRules:
        unknown = sorted(set(self.certificates) - set(self.secret))
        if unknown:
            msg = f"{unknown[0]!r} is no pattern of `secret`"
            raise ValueError(msg)
        return self


class PathReference(Frozen):
    """A path in an argv that the caller has to resolve and hold against the roots. `name` is the argument's.

    `index` is the place in `Operation.argv` and `start` the offset within that argument (`--file=/x`: 7); `index` None
    means the working folder itself.
    """

    text: str
    access: Access
    name: str = ""
    index: int | None = None
    start: int = 0


class TargetReference(Frozen):
    """A target as it was named; a resolver turns it into identities."""

    kind: str
    name: str
    context: dict[str, str] = {}


class Operation(Frozen):
    """An argv that was recognised, with all that is known about its effect.

    `argv` is what will be executed, word for word; `argv[0]` is the program's name and the binary is one of
    `path_candidates`. `tree` and `into` are as in the form. `ends_by_timeout`: reaching the time-out is success.
    `answers`: exit codes that are success as well.
    """

    program: str
    form: str
    path_candidates: tuple[str, ...]
    sha256: str | None = None
    argv: tuple[str, ...]
    summary: str
    changes: bool
    discloses: Discloses
    risk: Risk
    operations: tuple[str, ...] = ()
    repeatable: bool = True
    targets: tuple[TargetReference, ...] = ()
    paths: tuple[PathReference, ...] = ()
    tree: bool = False
    into: dict[str, str] = {}
    check: Probe | None = None
    undo: Undo | None = None
    irreversible: str | None = None
    environment: dict[str, str] = {}
    timeout_seconds: float = 30.0
    ends_by_timeout: bool = False
    answers: tuple[int, ...] = ()

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing and discloses no secret: what policy may let run at once."""
        return not self.changes and self.discloses != "secret"

    def untrusted(self) -> Operation:
        """What it is worth when a path with access `trust` can be written by others: it may run their code."""
        return self.model_copy(
            update={
                "changes": True,
                "risk": RISKS[max(RISKS.index("low"), RISKS.index(self.risk))],
                "operations": tuple(sorted({*self.operations, "code.repository"})),
                "repeatable": False,
                "irreversible": self.irreversible
                or (None if self.undo else "settings that others can write may run code"),
            }
        )

    def disclosing(self, discloses: Discloses) -> Operation:
        """The same operation, disclosing at least this much (a path turned out to hold secrets)."""
        worst = DISCLOSURES[max(DISCLOSURES.index(discloses), DISCLOSURES.index(self.discloses))]
        return self.model_copy(update={"discloses": worst})


class Unknown(Frozen):
    """Nobody knows what it would do: a program or an argument that the library does not describe.

    `index` is the place in the argv; `nearest` the known forms or options that come closest.
    """

    program: str
    why: str
    index: int = 0
    nearest: tuple[str, ...] = ()


class Refused(Frozen):
    """Never through this door, whoever approves: it would run something else than what it shows."""

    program: str
    why: str
    instead: str
    index: int = 0


Match = Operation | Unknown | Refused


def placeholders(template: str) -> tuple[str, ...]:
    """The names in braces: `{units}` gives `units`, `{--namespace}` gives `--namespace`."""
    return tuple(found[1:-1] for found in _PLACEHOLDER.findall(template))
