"""The environment, where a project is found, and whose folders are believed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from interlock.core.errors import Denied, Invalid, NotFound, Permanent
from interlock.settings import AGENT_MARKS, VARIABLES, Settings, find_project_file, language_of_locale, locate

OTHER_UID = 54321


def _project(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "interlock.yaml"
    file.write_text("version: 1\n")
    return file


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("C", "en"),
        ("en_GB.UTF-8", "en"),
        ("de_DE", "en"),
        ("zh_CN.UTF-8", "zh_Hans"),
        ("zh", "zh_Hans"),
        ("zh_SG", "zh_Hans"),
        ("zh_TW.Big5", "zh_Hant"),
        ("zh-HK", "zh_Hant"),
        ("zh_Hant_CN", "zh_Hant"),
        ("zh-Hans", "zh_Hans"),
        ("zh_MO@x", "zh_Hant"),
    ],
)
def test_a_locale_is_resolved_by_its_script_or_region(locale: str, language: str) -> None:
    assert language_of_locale(locale) == language


def test_the_language_of_interlock_comes_before_that_of_the_shell() -> None:
    settings = Settings.from_environment({"LANG": "zh_TW.UTF-8", "LC_ALL": "en_US.UTF-8", "INTERLOCK_LANG": "zh-CN"})
    assert settings.language == "zh_Hans"
    assert Settings.from_environment({"LANG": "zh_TW.UTF-8", "LC_MESSAGES": "C"}).language == "en"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_environment({variable.name: "" for variable in VARIABLES}) == Settings.from_environment({})


@pytest.mark.parametrize("mark", AGENT_MARKS, ids=lambda mark: mark.variable)
def test_a_coding_agents_shell_gives_itself_away(mark: tuple[str, str]) -> None:
    found = Settings.from_environment({mark[0]: "1"}).agent_mark
    assert found is not None
    assert found.agent == mark[1]


def test_the_resident_process_is_given_nothing_of_ones_shells_mood() -> None:
    environment = {"HOME": "/home/a", "CLAUDECODE": "1", "INTERLOCK_AS": "x", "LD_PRELOAD": "x", "PATH": "/tmp/evil"}
    environment |= {"INTERLOCK_DATABASE_URL": "postgresql:///x", "PYTHONPATH": "/tmp/evil"}
    given = dict(Settings.from_environment(environment).resident_environment)
    assert given.keys() == {"HOME", "PATH", "INTERLOCK_DATABASE_URL"}
    assert "/tmp/evil" not in given["PATH"]


def test_a_project_is_found_upwards(tmp_path: Path) -> None:
    file = _project(tmp_path)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_project_file(None, Settings(), below, os.geteuid()) == file


def test_a_named_project_comes_first(tmp_path: Path) -> None:
    _project(tmp_path / "here")
    named, of_environment = _project(tmp_path / "named"), _project(tmp_path / "environment")
    settings = Settings(project=of_environment.parent)
    uid = os.geteuid()
    assert find_project_file(None, settings, tmp_path / "here", uid) == of_environment
    assert find_project_file(named, settings, tmp_path / "here", uid) == named
    assert find_project_file(named.parent, settings, tmp_path / "here", uid) == named


def test_a_project_that_is_not_there_is_not_found_and_the_fix_makes_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        find_project_file(tmp_path / "no", Settings(), tmp_path, os.geteuid())
    assert "interlock init" in str(caught.value.fix)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_project_of_another_user_is_refused_on_the_way_up_and_taken_when_named(tmp_path: Path) -> None:
    file = _project(tmp_path)
    os.chown(file, OTHER_UID, OTHER_UID)
    with pytest.raises(Denied, match="another user"):
        find_project_file(None, Settings(), tmp_path, 0)
    with pytest.raises(Denied, match="another user"):
        find_project_file(None, Settings(), tmp_path, 1000)
    assert find_project_file(None, Settings(), tmp_path, OTHER_UID) == file
    assert find_project_file(file, Settings(), tmp_path, 0) == file


def test_one_project_has_one_door_by_whatever_path_it_is_reached(tmp_path: Path) -> None:
    file = _project(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    uid = os.geteuid()
    assert locate(file, Settings(), uid) == locate(tmp_path / "link" / "interlock.yaml", Settings(), uid)


def test_a_client_looks_for_the_door_of_whoever_owns_the_state(tmp_path: Path) -> None:
    file = _project(tmp_path)
    (tmp_path / ".interlock").mkdir(mode=0o700)
    owner = os.geteuid()
    assert locate(file, Settings(), owner).door_socket == locate(file, Settings(), OTHER_UID).door_socket


def test_an_ordinary_users_door_does_not_vanish_at_logout(tmp_path: Path) -> None:
    locations = locate(_project(tmp_path), Settings.from_environment({"XDG_RUNTIME_DIR": "/run/user/54321"}), OTHER_UID)
    assert str(locations.runtime_folder).startswith(f"/tmp/interlock-{OTHER_UID}/")
    assert not locations.shared


def test_folders_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    settings = Settings(runtime_folder=tmp_path / "run" / "x")
    locations = locate(_project(tmp_path / "p"), settings, OTHER_UID)
    locations.make_folders()
    locations.make_folders()
    for folder in (locations.state_folder, locations.runtime_folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_was_opened_to_others_is_closed_again(tmp_path: Path) -> None:
    settings = Settings(runtime_folder=tmp_path / "run" / "x")
    locations = locate(_project(tmp_path / "p"), settings, OTHER_UID)
    locations.make_folders()
    locations.state_folder.chmod(0o777)
    locations.make_folders()
    assert stat.S_IMODE(locations.state_folder.stat().st_mode) == 0o700


def test_a_link_in_the_place_of_the_runtime_folder_is_refused(tmp_path: Path) -> None:
    settings = Settings(runtime_folder=tmp_path / "run" / "x")
    locations = locate(_project(tmp_path / "p"), settings, os.geteuid())
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    locations.runtime_folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Permanent, match="link"):
        locations.make_folders()
    with pytest.raises(Permanent, match="link"):
        locations.trusted_uids()


def test_a_folder_above_that_others_may_write_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    settings = Settings(runtime_folder=tmp_path / "run" / "x")
    locations = locate(_project(tmp_path / "p"), settings, os.geteuid())
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(Permanent):
        locations.make_folders()
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_runtime_folder_of_somebody_else_speaks_for_nobody(tmp_path: Path) -> None:
    settings = Settings(runtime_folder=tmp_path / "run" / "x")
    locations = locate(_project(tmp_path / "p"), settings, 0)
    locations.make_folders()
    (tmp_path / "run").chmod(0o777)
    os.chown(locations.runtime_folder, OTHER_UID, OTHER_UID)
    with pytest.raises(Permanent, match="somebody else"):
        locations.trusted_uids()


def test_a_socket_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    locations = locate(_project(tmp_path), Settings(runtime_folder=tmp_path / ("x" * 100)), os.geteuid())
    with pytest.raises(Invalid, match="too long"):
        locations.make_folders()


def test_the_version_is_told_without_importing_anything_heavy() -> None:
    script = "import sys; sys.argv=['interlock','--version']; from interlock.__main__ import main; main();"
    script += "print(sorted({'typer','rich','pydantic','yaml','asyncio'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert told.stdout.splitlines()[1] == "[]"


def test_asking_for_a_program_imports_neither_models_nor_drawing_nor_the_engine() -> None:
    script = "import sys; import interlock.interfaces.cli.verbs_ask, interlock.interfaces.cli.app;"
    script += "print([name for name in sys.modules if name.split('.')[0] in ('rich','yaml','psycopg','asyncio')"
    script += " or name.startswith(('interlock.engine', 'interlock.bootstrap'))])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert told.stdout.strip() == "[]"
