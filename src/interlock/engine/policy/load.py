"""Gathers the layers of policies, refuses what is not sound, and swaps one sound set for the next."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import get_args

from interlock.core.errors import InterlockError, Invalid
from interlock.core.model import JsonObject
from interlock.core.ports import PolicyEngine, PolicyHandle
from interlock.core.project import Preset, Project
from interlock.engine.policy.facts import FactsSource, OwnParts
from interlock.engine.policy.lint import Layer, Rule, read_rules
from interlock.engine.trusted_file import read_trusted
from interlock.lib.canonical import digest_of

Alarm = Callable[[str, JsonObject], None]
"""Called with a constant event name and fields when a policy decision cannot be trusted; it must be loud."""

FILE_BYTES_MAX = 1024 * 1024
FILES_MAX = 500
BUILT_IN = "interlock:"
"""How the names of what comes with Interlock begin."""

GROUPS: dict[str, tuple[str, ...]] = {
    "control": (
        "interlock.break_glass",
        "interlock.freeze",
        "interlock.pause_agents",
        "interlock.resume_agents",
        "interlock.unfreeze",
    ),
    "governance": (
        "interlock.adopt",
        "interlock.break_glass",
        "interlock.pause_agents",
        "interlock.resume_agents",
        "interlock.unfreeze",
        "mcp.accept",
        "policy.apply",
        "token.create",
        "token.revoke",
    ),
    "rollback": ("interlock.undo", "release.abort", "release.pause", "release.rollback"),
}
"""Group -> its actions, besides `run`, which holds all. `control`: they steer Interlock. `governance`: only a person
may ask for them. `rollback`: they take back what was done, or stop it. Policies may name all of these with any
catalogue."""

_ACTION_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_BUILT_IN = resources.files("interlock") / "policies"


@dataclass(frozen=True)
class PolicySource:
    """One file of policies. `name` is how people find it: relative to the project; built-in ones begin `interlock:`."""

    layer: Layer
    name: str
    text: str


@dataclass(frozen=True)
class PolicySet:
    """Everything in force at one moment: a decision is made from one of these and from nothing else.

    `digest` covers the texts, the schema and what the project declares that decisions depend on. `warnings` are
    things that are sound but surely not meant. `pinned`: a Run put it in force, whatever lies on disk.
    """

    handle: PolicyHandle
    digest: str
    rules: dict[str, Rule]
    facts: FactsSource
    sources: tuple[PolicySource, ...]
    warnings: tuple[str, ...]
    pinned: bool = False


class PolicyLoader:
    """Makes a PolicySet of a project.

    Args:
        engine: The policy library.
        action_names: The catalogue's names, users' plug-ins included.
        own: What belongs to Interlock itself on this machine.
        realpath: Follows symbolic links, as `os.path.realpath` does.
        monotonic: Seconds that never go back.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        action_names: Callable[[], Collection[str]],
        own: OwnParts,
        *,
        realpath: Callable[[str], str],
        monotonic: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._action_names = action_names
        self._own = own
        self._realpath = realpath
        self._monotonic = monotonic

    def load(self, project: Project) -> PolicySet:
        """Read, validate and lint all layers.

        Raises:
            Invalid: a file or folder is missing, cannot be trusted or is not sound; the message begins with where.
        """
        sources, warnings = read_layers(project)
        return self.load_sources(project, sources, warnings)

    def load_sources(
        self,
        project: Project,
        sources: tuple[PolicySource, ...],
        warnings: tuple[str, ...] = (),
        *,
        own: OwnParts | None = None,
    ) -> PolicySet:
        """`load` for sources that are already there; `own` instead of what belongs to Interlock on this machine."""
        schema = schema_for(self._action_names())
        handle = self._engine.load([(source.name, source.text) for source in sources], schema)
        rules = read_rules(handle.annotations, {source.name: source.layer for source in sources})
        digest = digest_of(
            {
                "schema": schema,
                "policies": [[source.layer, source.name, source.text] for source in sources],
                "project": _parameters(project),
            }
        )
        facts = FactsSource(project, own or self._own, realpath=self._realpath, monotonic=self._monotonic)
        return PolicySet(handle, digest, rules, facts, sources, (*warnings, *_warnings(project, rules)))


class PolicyBook:
    """The set in force. A reload that fails keeps the old set and is loud; readers see one set or the other."""

    def __init__(self, load: Callable[[], PolicySet], alarm: Alarm) -> None:
        self._load = load
        self._alarm = alarm
        self._current = load()
        self._trouble: InterlockError | None = None

    @property
    def current(self) -> PolicySet:
        """The set in force."""
        return self._current

    @property
    def trouble(self) -> InterlockError | None:
        """Why the last reload failed; None when what is on disk is in force."""
        return self._trouble

    def reload(self) -> PolicySet:
        """Load again and put the new set in force.

        Raises:
            Invalid, NotFound: the new set, or the project, is not sound. The old one stays in force, and the alarm has
                been called.
        """
        try:
            loaded = self._load()
        except InterlockError as error:
            self._trouble = error
            self._alarm("policy_reload_failed", {"message": error.message, "in_force": self._current.digest})
            raise
        self._trouble = None
        self._current = loaded
        return loaded


def schema_for(action_names: Iterable[str]) -> str:
    """The Cedar schema for a catalogue: the fixed part and one declaration for each action.

    Raises:
        Invalid: a name is not dotted lower case, and so cannot be declared.
    """
    names = sorted({*action_names, *(name for members in GROUPS.values() for name in members)})
    declarations = []
    for name in names:
        if not _ACTION_NAME.fullmatch(name):
            msg = f"{name!r} is not the name of an action"
            raise Invalid(msg, code="policy.action_name", fix="Name it in dotted lower case, as in unit.restart.")
        groups = ["run", *(group for group, members in GROUPS.items() if name in members)]
        declarations.append(
            f'action "{name}" in [{", ".join(groups)}] appliesTo '
            "{ principal: [Person, Agent, Service, System], resource: Plan, context: Circumstances };"
        )
    return "\n".join((built_in_text("interlock.cedarschema"), *declarations, ""))


def built_in_text(name: str) -> str:
    """A text that comes with Interlock: `invariants.cedar`, `presets/strict.cedar`, `tests/strict.yaml` ..."""
    return _BUILT_IN.joinpath(*name.split("/")).read_text(encoding="utf-8")


def preset_files(preset: Preset) -> dict[str, str]:
    """What `init` copies into the project's first policies folder: relative name -> text."""
    return {
        f"{preset}.cedar": built_in_text(f"presets/{preset}.cedar"),
        f"tests/{preset}.yaml": built_in_text(f"tests/{preset}.yaml"),
    }


def write_preset(folder: Path, preset: Preset) -> None:
    """Write what `preset_files` gives into a policies folder. Raises OSError."""
    for name, text in preset_files(preset).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def built_in_sources(preset: Preset) -> tuple[PolicySource, ...]:
    """The invariants and a preset as it comes with Interlock."""
    return (
        PolicySource("invariant", "interlock:invariants.cedar", built_in_text("invariants.cedar")),
        PolicySource("project", f"interlock:presets/{preset}.cedar", built_in_text(f"presets/{preset}.cedar")),
    )


def read_layers(project: Project) -> tuple[tuple[PolicySource, ...], tuple[str, ...]]:
    """All policy texts of a project, and warnings. The first folder may permit; further ones only forbid.

    While the first folder holds no policy, the preset is in force as it comes with Interlock.

    Raises:
        Invalid: a file cannot be trusted, a further folder does not exist, or a file is a preset other than the one
            that interlock.yaml names.
    """
    invariants, preset = built_in_sources(project.preset)
    folders = [Path(project.folder, folder) for folder in project.policies]
    own = _read_folder(folders[0], "project", project, needed=False) if folders else []
    require_one_preset(own, project)
    warnings = [] if own else [f"no policy lies in the project: the preset {project.preset} is in force as it comes"]
    further = [source for folder in folders[1:] for source in _read_folder(folder, "further", project, needed=True)]
    return (invariants, *(own or [preset]), *further), tuple(warnings)


def require_one_preset(sources: Iterable[PolicySource], project: Project) -> None:
    """Raises Invalid when a file of the project's first folder is a preset other than the one of interlock.yaml."""
    others = {f"{name}.cedar" for name in get_args(Preset)} - {f"{project.preset}.cedar"}
    for source in sources:
        if source.layer == "project" and not source.name.startswith(BUILT_IN) and Path(source.name).name in others:
            msg = f"interlock.yaml names the preset {project.preset}, and {source.name} is another one"
            fix = f"Remove {source.name}, or write preset: {Path(source.name).stem} in interlock.yaml."
            raise Invalid(msg, code="policy.preset", fix=fix, details={"file": source.name})


def with_project_files(sources: Iterable[PolicySource], files: Iterable[tuple[str, str]]) -> tuple[PolicySource, ...]:
    """The same layers with (name, text) of other files in place of the project's first folder.

    Raises:
        Invalid: there is no file among them.
    """
    own = [PolicySource("project", name, text) for name, text in files]
    if not own:
        msg = "there is no policy file"
        raise Invalid(msg, code="policy.folder", fix="name a folder that holds *.cedar files")
    kept = list(sources)
    before = [source for source in kept if source.layer == "invariant"]
    return (*before, *own, *(source for source in kept if source.layer == "further"))


def _read_folder(folder: Path, layer: Layer, project: Project, *, needed: bool) -> list[PolicySource]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".cedar")
    except FileNotFoundError as error:
        if not needed:
            return []
        msg = f"the policies folder {folder} does not exist"
        fix = "Create it, or remove it from `policies` in interlock.yaml."
        raise Invalid(msg, code="policy.folder", fix=fix, details={"file": str(folder)}) from error
    except OSError as error:
        msg = f"the policies folder {folder} cannot be read: {error.strerror}"
        raise Invalid(msg, code="policy.folder", fix="Mend its rights.", details={"file": str(folder)}) from error
    if len(files) > FILES_MAX:
        msg = f"{folder} holds {len(files)} policy files; at most {FILES_MAX} are read"
        raise Invalid(msg, code="policy.folder", fix="Join small files.", details={"file": str(folder)})
    found = []
    for path in files:
        name = str(path.relative_to(project.folder)) if path.is_relative_to(project.folder) else str(path)
        try:
            text = read_trusted(path, FILE_BYTES_MAX).decode("utf-8")
        except UnicodeDecodeError as error:
            msg = f"{name} is not UTF-8"
            raise Invalid(msg, code="policy.encoding", fix="Save it as UTF-8.", details={"file": name}) from error
        found.append(PolicySource(layer, name, text))
    return found


def _parameters(project: Project) -> JsonObject:
    """What decisions depend on besides policies, plan, actor and moment."""
    dumped = project.model_dump(mode="json", include={"protected", "windows", "isolated", "roles"})
    return {
        **dumped,
        "people": {name: sorted(person.roles) for name, person in project.people.items()},
        "agents": {name: agent.autonomy for name, agent in project.agents.items()},
    }


def _warnings(project: Project, rules: dict[str, Rule]) -> list[str]:
    """Requirements that nobody could ever meet, and policies that let nobody do anything."""
    found = []
    if not any(rule.effect == "permit" for rule in rules.values() if rule.layer == "project"):
        found.append(
            f"no policy permits anything, so everything is denied: the preset {project.preset} counts by itself only "
            "while the folder of policies is empty; `interlock init` in an empty folder writes a copy to lay there"
        )
    if project.preset == "strict" and len(project.people) == 1:
        found.append("strict asks for another person, and interlock.yaml names only one: nobody can change anything")
    for identity, rule in rules.items():
        if rule.requirement is None or not rule.requirement.approvals or not project.people:
            continue
        wanted = set(rule.requirement.roles)
        able = [name for name, person in project.people.items() if not wanted or wanted & set(person.roles)]
        if len(able) < rule.requirement.approvals:
            whose = f" with a role of {', '.join(sorted(wanted))}" if wanted else ""
            found.append(
                f"{rule.file}:{rule.line}: {identity} asks for {rule.requirement.approvals} people{whose}, "
                f"and interlock.yaml names {len(able)}"
            )
    return found
