"""Matches an argv against one program's schema: a recognised operation, or the exact place where it is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from interlock.commands.linear import linear_match
from interlock.commands.model import (
    Access,
    Arguments,
    Form,
    Match,
    Operation,
    PathReference,
    Probe,
    Program,
    Refused,
    TargetReference,
    Undo,
    Unknown,
    placeholders,
)
from interlock.commands.values import ValueType, parse_type

NEAREST_MAX = 8
NUMERIC = "-NUM"
_NUMERIC_KEY = "-\0"


@dataclass(frozen=True, slots=True)
class CompiledOption:
    """One option with all its spellings; `value` is None for a switch."""

    name: str
    spellings: tuple[str, ...]
    value: ValueType | None


@dataclass(frozen=True, slots=True)
class Table:
    """What may stand where options stand."""

    exact: dict[str, CompiledOption] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> CompiledOption | None:
        """The option of that name: any spelling, with its dashes."""
        return self.exact.get(_NUMERIC_KEY if name == NUMERIC else name)


@dataclass(frozen=True, slots=True)
class CompiledForm:
    """A form with its table and the types of its positionals.

    `table` holds what may stand after the words, `known` what may have been given anywhere. `separated`: revisions and
    paths are told apart by `--`, which is put between them.
    """

    form: Form
    table: Table
    known: Table
    separated: bool
    positionals: tuple[tuple[str, ValueType], ...]
    required: int
    unbounded: bool
    targets_once: frozenset[str]


@dataclass(slots=True)
class Node:
    """A place in the tree of words: the options valid there, the forms that end there, the words that may follow."""

    table: Table
    forms: list[CompiledForm] = field(default_factory=list)
    words: dict[str, Node] = field(default_factory=dict)
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class CompiledProgram:
    """A program made ready for matching."""

    program: Program
    root: Node
    double_dash: bool


@dataclass(frozen=True, slots=True)
class _Given:
    """An option or positional as found: `index` and `start` are where its value stands in the asked argv."""

    name: str
    text: str
    index: int
    start: int
    access: Access | None


class _Mismatch(Exception):
    """An answer on its way up; never leaves this file."""

    def __init__(self, index: int, why: str, *, refused: bool = False) -> None:
        super().__init__(why)
        self.index = index
        self.why = why
        self.refused = refused


def compile_program(program: Program) -> CompiledProgram:
    """Check what the types alone cannot (names that refer to each other) and build the look-up tables.

    Raises:
        ValueError: A type, set, argument name or spelling does not fit.
    """
    root = Node(_table(program, (program.globals,), program.refused))
    for form in program.forms:
        for words in form.words:
            node, levels = _grow(program, root, words)
            node.forms.append(_compile_form(program, form, levels))
    for phrases, why in program.refused_words.items():
        for phrase in phrases.split(","):
            node, _ = _grow(program, root, tuple(phrase.split()))
            if node.forms or node.words or node is root:
                msg = f"the refused command {phrase!r} is also a known one"
                raise ValueError(msg)
            node.refused = f"{phrase.strip()}: {why}"
    double_dash = program.style == "getopt" if program.double_dash is None else program.double_dash
    return CompiledProgram(program, root, double_dash)


def _grow(program: Program, root: Node, words: tuple[str, ...]) -> tuple[Node, tuple[Arguments, ...]]:
    """The place that `words` lead to, made where it is missing, and the options valid there, innermost first."""
    node, levels = root, [program.globals]
    for position, word in enumerate(words):
        group = program.groups.get(" ".join(words[: position + 1]))
        levels.extend([group] if group else [])
        if word not in node.words:
            node.words[word] = Node(_table(program, tuple(reversed(levels)), program.refused))
        node = node.words[word]
    return node, tuple(reversed(levels))


def _compile_form(program: Program, form: Form, levels: tuple[Arguments, ...]) -> CompiledForm:
    missing = [name for name in form.use if name not in program.sets]
    if missing:
        msg = f"form {form.name}: there is no set {missing[0]!r}"
        raise ValueError(msg)
    own = (form, *(program.sets[name] for name in form.use))
    known = _table(program, (*own, *levels), program.refused)
    table = known if program.globals_anywhere else _table(program, own, program.refused)
    positionals = tuple((name, _type_of(program, spec)) for name, spec in form.positionals.items())
    if sum(kind.cardinality in {"any", "many"} for _, kind in positionals) > 1:
        msg = f"form {form.name}: only one positional may be repeated"
        raise ValueError(msg)
    compiled = CompiledForm(
        form=form,
        table=table,
        known=known,
        separated={"revision", "read"} <= {kind.access for _, kind in positionals},
        positionals=positionals,
        required=sum(kind.cardinality in {"one", "many"} for _, kind in positionals),
        unbounded=any(kind.cardinality in {"any", "many"} for _, kind in positionals),
        targets_once=frozenset(
            option.name
            for rule in form.targets
            for source in rule.context.values()
            if (option := known.find(source)) is not None
        ),
    )
    _check_names(compiled)
    return compiled


def _type_of(program: Program, spec: str) -> ValueType:
    """The type of a positional; the patterns of an adopted script were typed with an ask, and are kept from hanging."""
    kind = parse_type(spec, program.types)
    if program.adopted is None or spec not in program.types:
        return kind
    return replace(kind, accepts=linear_match(program.types[spec]))


def _check_names(compiled: CompiledForm) -> None:
    form = compiled.form
    names = {name for name, _ in compiled.positionals}
    options = [spelling for group in form.requires for spelling in group]
    options += [*form.defaults, *form.replace, *form.replace.values()]
    options += form.follows if isinstance(form.follows, tuple) else ()
    options += form.tree if isinstance(form.tree, tuple) else ()
    templates = [form.summary]
    templates += [rule.source for rule in form.targets if rule.source and rule.source.startswith("-")]
    for probe in (form.check, form.undo, form.undo.only_if if form.undo else None):
        templates += list(probe.argv) if probe else []
    used = [name for template in templates for name in placeholders(template)]
    used += [rule.source for rule in form.targets if rule.source]
    used += [source for rule in form.targets for source in rule.context.values()]
    used += [*form.into, *form.into.values()]
    options += [name for name in used if name.startswith("-")]
    unknown = [name for name in options if compiled.known.find(name) is None]
    unknown += [name for name in used if not name.startswith("-") and name not in names]
    if unknown:
        msg = f"form {form.name}: {unknown[0]!r} is not one of its arguments"
        raise ValueError(msg)


def _table(program: Program, sources: Iterable[Arguments], refused: Mapping[str, str]) -> Table:
    """Sources come in order of precedence: the first that has a spelling wins; within one, twice is an error."""
    table = Table()
    for key, why in refused.items():
        table.refused.update(dict.fromkeys(key.split(), why))
    for source in sources:
        own: dict[str, CompiledOption] = {}
        for switch in source.switches:
            _add(own, CompiledOption(switch, (switch,), None))
        for key, spec in source.options.items():
            spellings = tuple(_NUMERIC_KEY if spelling == NUMERIC else spelling for spelling in key.split())
            _add(own, CompiledOption(spellings[-1], spellings, parse_type(spec, program.types)))
        for spelling, option in own.items():
            table.exact.setdefault(spelling, option)
        for key, why in source.refused.items():
            table.refused.update(dict.fromkeys(key.split(), why))
    for spelling in table.exact:
        table.refused.pop(spelling, None)
    return table


def _add(own: dict[str, CompiledOption], option: CompiledOption) -> None:
    for spelling in option.spellings:
        if spelling in own:
            msg = f"the option {spelling} is declared twice"
            raise ValueError(msg)
        own[spelling] = option


def match_program(compiled: CompiledProgram, argv: tuple[str, ...], candidates: tuple[str, ...] = ()) -> Match:
    """Say what `argv` is, by this program's schema. Pure.

    `argv[0]` is the program's name or an alias, `candidates` where its binary may lie; characters and sizes were
    checked before.
    """
    program = compiled.program
    given: list[_Given] = []
    try:
        _refuse_texts(program, argv)
        node, index = _walk_words(compiled, argv, given)
    except _Mismatch as mismatch:
        return _answer(program, mismatch, compiled.root)
    best: _Mismatch | None = None
    if node.refused is not None:
        return _answer(program, _Mismatch(index - 1, node.refused, refused=True), node)
    for form in node.forms:
        try:
            return _match_form(compiled, form, argv, index, list(given), candidates)
        except _Mismatch as mismatch:
            if best is None or (mismatch.refused, mismatch.index) > (best.refused, best.index):
                best = mismatch
    if best is None:
        word = argv[index] if index < len(argv) else None
        why = f"{program.program} has no known command {word!r}" if word else "a command is missing after the program"
        best = _Mismatch(min(index, len(argv) - 1), why)
    return _answer(program, best, node)


def _refuse_texts(program: Program, argv: tuple[str, ...]) -> None:
    for pattern, why in program.refused_texts.items():
        for index, token in enumerate(argv[1:], start=1):
            if re.search(pattern, token, re.ASCII):
                raise _Mismatch(index, f"{token!r}: {why}", refused=True)


def _answer(program: Program, mismatch: _Mismatch, node: Node) -> Refused | Unknown:
    if mismatch.refused or program.otherwise:
        instead = program.instead or "leave that argument out, or adopt a script that does it (interlock adopt PATH)"
        why = mismatch.why if mismatch.refused else f"{program.otherwise}; here {mismatch.why}"
        return Refused(program=program.program, why=why, instead=instead, index=mismatch.index)
    spellings = {NUMERIC if key == _NUMERIC_KEY else key for form in node.forms for key in form.table.exact}
    nearest = sorted(node.words) or sorted(spellings)
    return Unknown(
        program=program.program, why=mismatch.why, index=mismatch.index, nearest=tuple(nearest[:NEAREST_MAX])
    )


def _walk_words(compiled: CompiledProgram, argv: tuple[str, ...], given: list[_Given]) -> tuple[Node, int]:
    """Follow the leading words; options between them belong to the place where they stand."""
    node, index = compiled.root, 1
    while node.words and index < len(argv):
        token = argv[index]
        if token in node.words:
            node = node.words[token]
            index += 1
        elif token.startswith("-") and token not in {"-", "--"}:
            if node.forms and _option_of(node.table, token) is None:
                break
            index = _take_option(compiled, node.table, argv, index, given)
        else:
            break
    return node, index


def _option_of(table: Table, token: str) -> CompiledOption | None:
    found = table.exact.get(token) or table.exact.get(token.partition("=")[0])
    return found or (None if token.startswith("--") else table.exact.get(token[:2]))


def _match_form(
    compiled: CompiledProgram,
    form: CompiledForm,
    argv: tuple[str, ...],
    begin: int,
    given: list[_Given],
    candidates: tuple[str, ...],
) -> Operation:
    index, count = begin, len(argv)
    loose: list[int] = []
    before_dashes: int | None = None
    table = form.table
    while index < count:
        token = argv[index]
        if before_dashes is not None:
            loose.append(index)
            index += 1
        elif token == "--" and compiled.double_dash:  # noqa: S105 - not a password
            before_dashes = len(loose)
            index += 1
        elif token in table.exact or token in table.refused or (token[:1] == "-" and token != "-"):  # noqa: S105
            if not form.form.interspersed and loose:
                raise _Mismatch(index, f"{token!r} comes after the first positional argument")
            index = _take_option(compiled, table, argv, index, given)
        else:
            loose.append(index)
            index += 1
    _take_positionals(form, argv, loose, given, before_dashes)
    _require(form, given, count)
    order = _order(form, given, begin, count, loose if before_dashes is None else [])
    return _operation(compiled, form, argv, order, given, candidates)


def _order(form: CompiledForm, given: list[_Given], begin: int, count: int, loose: list[int]) -> tuple[int | str, ...]:
    """What follows the words, as places in the asked argv: where revisions and paths may be mixed up, the options come
    first, then the revisions, `--`, and the paths. `loose` are the positionals, if there is no `--` yet."""
    revisions = [item.index for item in given if item.access == "revision"]
    if not form.separated or not revisions or not loose:
        return tuple(range(begin, count))
    options = [index for index in range(begin, count) if index not in loose]
    return (*options, *revisions, "--", *(index for index in loose if index not in revisions))


def _take_option(
    compiled: CompiledProgram, table: Table, argv: tuple[str, ...], index: int, given: list[_Given]
) -> int:
    """Read the option at `index`, with its value; returns the index after it."""
    token = argv[index]
    if token in table.refused:
        raise _Mismatch(index, f"{token}: {table.refused[token]}", refused=True)
    option = table.exact.get(token)
    if option is not None:
        value = option.value
        if value is None or (value.optional and not _is_greedy(value, argv, index)):
            given.append(_Given(option.name, "", index, 0, None))
            return index + 1
        return _take_next(option, argv, index, given)
    if token.startswith("--"):
        return _take_long(table, argv, index, given)
    if _NUMERIC_KEY in table.exact and token[1:].isdigit():
        return _take_attached(table.exact[_NUMERIC_KEY], argv, index, 1, given)
    if compiled.program.style == "words":
        name, equals, _ = token.partition("=")
        if equals and name in table.exact:
            return _take_attached(table.exact[name], argv, index, len(name) + 1, given)
        raise _Mismatch(index, f"{token!r} is not an option known here")
    return _take_cluster(table, argv, index, given)


def _take_long(table: Table, argv: tuple[str, ...], index: int, given: list[_Given]) -> int:
    token = argv[index]
    name, equals, _ = token.partition("=")
    if name in table.refused:
        raise _Mismatch(index, f"{name}: {table.refused[name]}", refused=True)
    option = table.exact.get(name)
    if option is None or not equals:
        raise _Mismatch(index, f"{name!r} is not an option known here; options are never abbreviated")
    return _take_attached(option, argv, index, len(name) + 1, given)


def _take_cluster(table: Table, argv: tuple[str, ...], index: int, given: list[_Given]) -> int:
    token = argv[index]
    for position in range(1, len(token)):
        letter = "-" + token[position]
        if letter in table.refused:
            raise _Mismatch(index, f"{letter} (in {token}): {table.refused[letter]}", refused=True)
        option = table.exact.get(letter)
        if option is None:
            raise _Mismatch(index, f"{letter!r} (in {token!r}) is not an option known here")
        if option.value is not None:
            if position + 1 < len(token):
                return _take_attached(option, argv, index, position + 1, given)
            if not option.value.optional or _is_greedy(option.value, argv, index):
                return _take_next(option, argv, index, given)
        given.append(_Given(option.name, "", index, 0, None))
    return index + 1


def _take_attached(option: CompiledOption, argv: tuple[str, ...], index: int, start: int, given: list[_Given]) -> int:
    if option.value is None:
        raise _Mismatch(index, f"{option.spellings[-1]} takes no value")
    text = argv[index][start:]
    problem = "its value stands apart" if option.value.apart else option.value.problem(text, attached=True)
    if problem:
        raise _Mismatch(index, f"{option.spellings[-1]}: {problem}")
    given.append(_Given(option.name, text, index, start, option.value.access))
    return index + 1


def _is_greedy(value: ValueType, argv: tuple[str, ...], index: int) -> bool:
    """Whether an optional value that may stand apart (journalctl -n 20) does: the next argument looks like one."""
    return value.greedy and index + 1 < len(argv) and value.problem(argv[index + 1]) is None


def _take_next(option: CompiledOption, argv: tuple[str, ...], index: int, given: list[_Given]) -> int:
    value = option.value
    if value is None or index + 1 >= len(argv):
        raise _Mismatch(index, f"{argv[index]} needs a value")
    problem = value.problem(argv[index + 1])
    if problem:
        raise _Mismatch(index + 1, f"{argv[index]}: {problem}")
    given.append(_Given(option.name, argv[index + 1], index + 1, 0, value.access))
    return index + 2


def _take_positionals(
    form: CompiledForm, argv: tuple[str, ...], loose: list[int], given: list[_Given], before_dashes: int | None
) -> None:
    extra = len(loose) - form.required
    if extra < 0:
        raise _Mismatch(len(argv) - 1, f"{form.positionals[-1][0]} is missing")
    place = 0
    for name, kind in form.positionals:
        take = 1 if kind.cardinality in {"one", "many"} else 0
        spare = {"one": 0, "optional": min(extra, 1)}.get(kind.cardinality, extra)
        if kind.access == "revision" and before_dashes is not None:
            spare = max(0, min(spare, before_dashes - place - take))
            if take and place >= before_dashes:
                raise _Mismatch(loose[place], f"{name} comes before --; what follows it is a path")
        extra -= spare
        for index in loose[place : place + take + spare]:
            problem = kind.problem(argv[index], attached=before_dashes is not None)
            if problem:
                raise _Mismatch(index, f"{name}: {problem}")
            given.append(_Given(name, argv[index], index, 0, kind.access))
        place += take + spare
    if place < len(loose):
        raise _Mismatch(loose[place], f"{argv[loose[place]]!r} is one argument too many")


def _require(form: CompiledForm, given: list[_Given], count: int) -> None:
    names = [item.name for item in given]
    for group in form.form.requires:
        if not any(option.name in names for spelling in group if (option := form.known.find(spelling)) is not None):
            raise _Mismatch(count - 1, f"{form.form.name} needs {' or '.join(group)}")
    for name in form.targets_once:
        if names.count(name) > 1:
            raise _Mismatch(count - 1, f"{name} is given twice, so it is not clear what is meant")


def _operation(
    ready: CompiledProgram,
    compiled: CompiledForm,
    argv: tuple[str, ...],
    order: tuple[int | str, ...],
    given: list[_Given],
    candidates: tuple[str, ...],
) -> Operation:
    program, form = ready.program, compiled.form
    names = {item.name for item in given}
    added = list(form.insert)
    for spelling, tokens in form.defaults.items():
        option = compiled.known.find(spelling)
        if option is not None and option.name not in names:
            added.extend(tokens)
    asked = list(argv)
    for item in given:
        if item.name in form.replace:
            asked[item.index] = _replaced(asked[item.index], item.name, form.replace[item.name])
    begin = len(asked) - sum(isinstance(place, int) for place in order)
    tail = [asked[place] if isinstance(place, int) else place for place in order]
    final = (program.executes or argv[0], *program.insert, *asked[1:begin], *added, *tail)
    places: tuple[int | str, ...] = (0, *program.insert, *range(1, begin), *added, *order)
    paths = [
        PathReference(
            text=item.text, access=item.access, name=item.name, index=places.index(item.index), start=item.start
        )
        for item in given
        if item.access is not None
    ]
    if form.working_folder is not None and not any(item.access == form.working_folder for item in given):
        paths.append(PathReference(text=".", access=form.working_folder))
    values: dict[str, list[str]] = {}
    for item in given:
        values.setdefault(item.name, []).append(item.text)
    return Operation(
        program=program.program,
        form=form.name,
        path_candidates=candidates,
        sha256=program.adopted.sha256 if program.adopted else None,
        argv=final,
        summary=_fill_text(form.summary, compiled, values),
        changes=form.changes,
        discloses=form.discloses,
        risk=form.risk,
        operations=form.operations,
        repeatable=(not form.changes) if form.repeatable is None else form.repeatable,
        targets=_targets(compiled, values),
        paths=tuple(paths),
        tree=_applies(compiled, form.tree, names),
        into=form.into,
        check=_fill_probe(form.check, compiled, values),
        undo=_fill_undo(form.undo, compiled, values),
        irreversible=form.irreversible,
        environment=program.environment,
        timeout_seconds=form.timeout_seconds,
        ends_by_timeout=_applies(compiled, form.follows, names),
        answers=form.answers,
    )


def _replaced(token: str, switch: str, other: str) -> str:
    """The argument with one switch exchanged; in a cluster (`-Rn`) its letter, which comes before any value."""
    return other if token == switch else token.replace(switch[1], other[1], 1)


def _applies(compiled: CompiledForm, condition: bool | tuple[str, ...], names: set[str]) -> bool:  # noqa: FBT001
    """Whether a statement of the form holds here: always, never, or when one of these options was given."""
    if isinstance(condition, bool):
        return condition
    return any(option.name in names for name in condition if (option := compiled.known.find(name)) is not None)


def _values(name: str, compiled: CompiledForm, values: Mapping[str, list[str]]) -> list[str]:
    option = compiled.known.find(name) if name.startswith("-") else None
    return values.get(option.name if option else name, [])


def _targets(compiled: CompiledForm, values: Mapping[str, list[str]]) -> tuple[TargetReference, ...]:
    found: list[TargetReference] = []
    for rule in compiled.form.targets:
        context = dict(rule.always)
        for word, source in rule.context.items():
            texts = _values(source, compiled, values)
            if texts:
                context[word] = " ".join(texts)
        names = [rule.name] if rule.name is not None else _values(rule.source or "", compiled, values)
        found.extend(TargetReference(kind=rule.kind, name=name, context=context) for name in names)
    return tuple(found)


def _fill_text(template: str, compiled: CompiledForm, values: Mapping[str, list[str]]) -> str:
    for name in placeholders(template):
        template = template.replace("{" + name + "}", " ".join(_values(name, compiled, values)))
    return template


def _fill_argv(argv: tuple[str, ...], compiled: CompiledForm, values: Mapping[str, list[str]]) -> tuple[str, ...]:
    """`{name}` becomes all its values, `{--option}` the option with its value, or nothing when it was not given."""
    filled: list[str] = []
    for part in argv:
        names = placeholders(part)
        if len(names) == 1 and part == "{" + names[0] + "}":
            for text in _values(names[0], compiled, values):
                filled.extend((names[0], text) if names[0].startswith("-") and text else (text or names[0],))
        else:
            filled.append(_fill_text(part, compiled, values))
    return tuple(filled)


def _fill_probe(probe: Probe | None, compiled: CompiledForm, values: Mapping[str, list[str]]) -> Probe | None:
    return probe and probe.model_copy(update={"argv": _fill_argv(probe.argv, compiled, values)})


def _fill_undo(undo: Undo | None, compiled: CompiledForm, values: Mapping[str, list[str]]) -> Undo | None:
    if undo is None:
        return None
    return Undo(argv=_fill_argv(undo.argv, compiled, values), only_if=_fill_probe(undo.only_if, compiled, values))
