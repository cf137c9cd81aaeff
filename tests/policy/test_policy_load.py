"""A policy set that is not sound is refused with file, line and fix, and the old one stays in force."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from interlock.adapters.cedar import CedarEngine
from interlock.core.errors import Invalid
from interlock.core.project import Person, Preset, Project
from interlock.engine.policy.facts import OwnParts
from interlock.engine.policy.load import (
    PolicyBook,
    PolicyLoader,
    PolicySource,
    built_in_sources,
    preset_files,
    read_layers,
    schema_for,
)

from .conftest import Alarms

ALLOW = '@id("org.all") @reason("r") @risk("low") permit (principal, action, resource is Plan);'
HARD = '@reason("why") @risk("low") @effect("forbid")'
SOUND = f'@id("team.x") {HARD} forbid (principal, action, resource is Plan) when {{ resource.own }};\n'


def _write(folder: Path, **texts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name.replace('_', '-')}.cedar").write_text(text, encoding="utf-8")


def _project(folder: Path, *policies: str, preset: Preset = "small-team") -> Project:
    return Project(folder=str(folder), preset=preset, policies=policies or ("policies",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("forbid (principal, action, resource) when { resource.nosuch };", "nosuch"),
        ("forbid (principal, action, resource is Plan) whn { true };", "whn"),
        ('forbid (principal, action, resource is Plan) when { context.hour == "3" };', "not compatible"),
        ('forbid (principal, action == Action::"no.such", resource);', "no.such"),
        ('forbid (principal, action, resource is Plan) when { principal.on_behalf_of == "x" };', "optional attribute"),
        ("forbid (principal == ?principal, action, resource is Plan);", "template"),
        ("forbid (principal, action, resource is Plan)", "semicolon"),
        ('forbid (principal, action, resource is Plan) when { resource.risk == "high };', "quotation mark"),
    ],
)
def test_text_that_cedar_would_not_take_is_refused_with_its_line(loader: PolicyLoader, text: str, message: str) -> None:
    source = PolicySource("further", "org.cedar", f'{SOUND}\n// a comment; with a semicolon\n@id("bad") {text}\n')
    with pytest.raises(Invalid, match=message) as caught:
        loader.load_sources(Project(), (*built_in_sources("small-team"), source))
    assert caught.value.message.startswith("org.cedar:4: ")
    assert caught.value.details["line"] == 4
    assert caught.value.fix


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("", "no @id"),
        ('@id("invariant.own")', "is taken by interlock:invariants.cedar"),
        ('@id("invariant.mine") @reason("r") @risk("low") @effect("forbid")', "are taken"),
        ('@id("Has Spaces") @reason("r") @risk("low") @effect("forbid")', "@id"),
        ('@id("a") @risk("low") @effect("forbid")', "no @reason"),
        ('@id("a") @reason("r") @effect("forbid")', "no @risk"),
        ('@id("a") @reason("r") @risk("huge") @effect("forbid")', "no @risk"),
        ('@id("a") @reason("r") @risk("low")', "no @effect"),
        ('@id("a") @reason("r") @risk("low") @effect("permit")', "no @effect"),
        ('@id("a") @reason("r") @risk("low") @effect("require_approval")', "no @effect"),
        ('@id("a") @reason("r") @risk("low") @effect("forbid") @aproval("1")', "@aproval means nothing"),
        ('@id("a") @reason("r") @risk("low") @effect("forbid") @approvals("1")', "@approvals means nothing"),
        ('@id("a") @reason("r") @risk("low") @effect("forbid") @details("colour")', "unknown"),
        ('@id("a") @reason("r") @risk("low") @effect("forbid") @line("3")', "@line"),
        ('@id("a") @reason("r") @risk("low") @effect("approve") @approvals("1")', "would not step aside"),
    ],
)
def test_a_policy_that_does_not_say_what_it_must_is_refused(
    loader: PolicyLoader, annotations: str, message: str
) -> None:
    text = f"{annotations} forbid (principal, action, resource is Plan) when {{ resource.own }};"
    source = PolicySource("further", "org.cedar", SOUND + text)
    with pytest.raises(Invalid, match=message) as caught:
        loader.load_sources(Project(), (*built_in_sources("small-team"), source))
    assert "org.cedar:2" in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize(
    ("annotations", "condition", "message"),
    [
        ('@effect("approve")', "unless { context.granted }", "how many people"),
        ('@effect("approve") @approvals("0")', "unless { context.granted }", "how many people"),
        ('@effect("approve") @approvals("two")', "unless { context.granted }", "how many people"),
        ('@effect("confirm")', "unless { context.granted }", "how often"),
        ('@effect("approve") @approvals("1") @roles("")', "unless { context.granted }", "@roles"),
        (
            '@effect("approve") @approvals("1") @owner_may_approve("no")',
            "unless { context.granted }",
            "owner_may_approve",
        ),
        ('@effect("approve") @approvals("1")', "when { !context.granted }", "would not step aside"),
        ('@effect("approve") @approvals("1")', "unless { context.granted && resource.own }", "would not step aside"),
        ('@effect("forbid")', "unless { context.granted }", "for soft forbids alone"),
    ],
)
def test_a_soft_forbid_must_step_aside_plainly_and_no_other_policy_may(
    loader: PolicyLoader, annotations: str, condition: str, message: str
) -> None:
    text = f'@id("a") @reason("r") @risk("low") {annotations} forbid (principal, action, resource is Plan) {condition};'
    with pytest.raises(Invalid, match=message):
        loader.load_sources(Project(), (*built_in_sources("small-team"), PolicySource("further", "o.cedar", text)))


def test_a_permit_may_not_look_at_granted(loader: PolicyLoader) -> None:
    text = '@id("a") @reason("r") @risk("low") permit (principal, action, resource is Plan) when { context.granted };'
    sources = (built_in_sources("small-team")[0], PolicySource("project", "policies/x.cedar", text))
    with pytest.raises(Invalid, match="for soft forbids alone"):
        loader.load_sources(Project(), sources)


def test_a_permit_in_a_further_layer_is_refused(loader: PolicyLoader, tmp_path: Path) -> None:
    _write(tmp_path / "policies", small_team=preset_files("small-team")["small-team.cedar"])
    _write(tmp_path / "org", allow=ALLOW)
    with pytest.raises(Invalid, match=r"org/allow\.cedar:1: org\.all: this layer holds forbids only") as caught:
        loader.load(_project(tmp_path, "policies", "org"))
    assert caught.value.details["file"] == "org/allow.cedar"


def test_a_further_layer_may_forbid_and_ask_for_approval(loader: PolicyLoader, tmp_path: Path) -> None:
    _write(tmp_path / "policies", small_team=preset_files("small-team")["small-team.cedar"])
    _write(tmp_path / "org", more=SOUND)
    rules = loader.load(_project(tmp_path, "policies", "org")).rules
    assert rules["team.x"].layer == "further"
    assert rules["change"].layer == "project"
    assert rules["invariant.own"].layer == "invariant"


def test_a_further_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        read_layers(_project(tmp_path, "policies", "org"))


def test_without_an_own_copy_the_named_preset_is_in_force(tmp_path: Path) -> None:
    sources, warnings = read_layers(_project(tmp_path, preset="strict"))
    assert [source.name for source in sources] == ["interlock:invariants.cedar", "interlock:presets/strict.cedar"]
    assert "strict" in warnings[0]


def test_policies_of_which_none_permits_anything_are_a_warning(loader: PolicyLoader, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "team.cedar").write_text(
        '@id("team.x") @reason("r") @risk("low") @effect("forbid")\nforbid (principal is Service, action, resource);\n'
    )
    (warning,) = loader.load(_project(tmp_path, "policies")).warnings
    assert "no policy permits anything" in warning
    (folder / "small-team.cedar").write_text(preset_files("small-team")["small-team.cedar"])
    assert loader.load(_project(tmp_path, "policies")).warnings == ()


def test_a_copy_of_another_preset_than_the_named_one_is_refused(tmp_path: Path) -> None:
    """Otherwise `preset: strict` would stand in interlock.yaml and small-team be in force."""
    _write(tmp_path / "policies", small_team=preset_files("small-team")["small-team.cedar"])
    with pytest.raises(Invalid, match=r"small-team\.cedar is another one"):
        read_layers(_project(tmp_path, preset="strict"))


def test_policies_that_everybody_may_write_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "policies", mine=SOUND)
    (tmp_path / "policies" / "mine.cedar").chmod(0o666)
    with pytest.raises(Invalid, match="every user may write"):
        read_layers(_project(tmp_path))


def test_policies_that_are_not_text_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "policies", mine=SOUND)
    (tmp_path / "policies" / "mine.cedar").write_bytes(b"// \xff\n")
    with pytest.raises(Invalid, match="not UTF-8"):
        read_layers(_project(tmp_path))


def test_a_broken_reload_keeps_the_old_set_and_is_loud(loader: PolicyLoader, tmp_path: Path, alarms: Alarms) -> None:
    _write(tmp_path / "policies", small_team=preset_files("small-team")["small-team.cedar"])
    book = PolicyBook(lambda: loader.load(_project(tmp_path)), alarms)
    old = book.current
    _write(tmp_path / "policies", extra="forbid (principal, action, resource) when { resource.nosuch };")
    with pytest.raises(Invalid):
        book.reload()
    assert book.current is old
    assert book.trouble is not None
    assert alarms == [("policy_reload_failed", {"message": book.trouble.message, "in_force": old.digest})]
    _write(tmp_path / "policies", extra=SOUND)
    assert book.reload() is book.current
    assert book.current is not old
    assert "team.x" in book.current.rules
    assert book.trouble is None


def test_a_broken_project_file_keeps_the_old_set_too(loader: PolicyLoader, alarms: Alarms) -> None:
    projects = iter([Project()])

    def load() -> object:
        for project in projects:
            return loader.load_sources(project, built_in_sources("small-team"))
        msg = "interlock.yaml is broken"
        raise Invalid(msg)

    book = PolicyBook(load, alarms)  # type: ignore[arg-type] # it loads a PolicySet or raises
    with pytest.raises(Invalid):
        book.reload()
    assert "change" in book.current.rules
    assert len(alarms) == 1


def test_the_digest_changes_with_whatever_decisions_depend_on(loader: PolicyLoader) -> None:
    sources = built_in_sources("small-team")
    plain = loader.load_sources(Project(), sources).digest
    assert loader.load_sources(Project(name="other", folder="/elsewhere"), sources).digest == plain
    others = {
        loader.load_sources(Project(protected=("unit:x",)), sources).digest,
        loader.load_sources(Project(people={"alice": Person()}), sources).digest,
        loader.load_sources(Project(isolated=True), sources).digest,
        loader.load_sources(Project(), (*sources, PolicySource("further", "o.cedar", SOUND))).digest,
        loader.load_sources(Project(), (*sources, PolicySource("further", "o.cedar", SOUND + "// more\n"))).digest,
    }
    assert len(others) == 5
    assert plain not in others


def test_the_schema_knows_plug_in_actions_and_refuses_names_that_are_none() -> None:
    assert 'action "acme.deploy" in [run]' in schema_for(["acme.deploy"])
    assert 'action "interlock.unfreeze" in [run, control, governance]' in schema_for([])
    for name in ('x" in [run]; action "y', "NoDots", "a.b c", "", "a..b", "view"):
        with pytest.raises(Invalid):
            schema_for([name])


def test_what_nobody_could_approve_is_a_warning(loader: PolicyLoader) -> None:
    text = (
        '@id("org.lead") @reason("r") @risk("low") @effect("approve") @approvals("1") @roles("sre-lead") '
        "forbid (principal, action, resource is Plan) when { resource.changes } unless { context.granted };"
    )
    sources = (*built_in_sources("small-team"), PolicySource("further", "org.cedar", text))
    assert loader.load_sources(Project(people={"alice": Person(roles=("sre-lead",))}), sources).warnings == ()
    (warning,) = loader.load_sources(Project(people={"alice": Person()}), sources).warnings
    assert warning == "org.cedar:1: org.lead asks for 1 people with a role of sre-lead, and interlock.yaml names 0"


def test_a_protected_folder_behind_a_link_is_protected_where_it_really_lies(tmp_path: Path) -> None:
    """Targets are real paths: without following the link, the same file under its real name would be open."""
    real, link, now = tmp_path / "data", tmp_path / "db", [0.0]
    real.mkdir()
    link.symlink_to(real)
    loader = PolicyLoader(CedarEngine(), tuple, OwnParts(), realpath=os.path.realpath, monotonic=lambda: now[0])
    loaded = loader.load_sources(Project(protected=(f"file:{link}/**",)), built_in_sources("small-team"))
    assert f"file:{real}/**" in loaded.facts.current().protected.texts
    link.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    now[0] = 2.0
    assert f"file:{elsewhere}/**" in loaded.facts.current().protected.texts


def test_loading_the_usual_set_is_quick(loader: PolicyLoader) -> None:
    """It happens at every start and reload; a second would be felt."""
    began = time.process_time()
    loader.load_sources(Project(), built_in_sources("small-team"))
    assert time.process_time() - began < 0.5
