"""Which version is meant by half a name, what then changes, and how a change of a configuration is shown."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from interlock.core.errors import Conflict, Invalid
from interlock.core.service_runtime import VersionSpec
from interlock.core.source_layout import LaidSource, SourceFiles
from interlock.core.workload import BatchWorkload, ServiceWorkload
from interlock.lib.redact import Redactor
from interlock.releases.configuration_diff import LINES_MAX, configuration_diff
from interlock.releases.versions import changes, require_kept, wanted_version
from interlock.services.configuration import built_with, joined, parts_of, short

PLAIN: dict[str, Any] = {
    "command": ["{source}/web"],
    "source": {"folder": "/srv/web/{version}"},
    "traffic": {"listen": "127.0.0.1:8080"},
}
CONFIGURED = {**PLAIN, "configuration": {"folder": "/etc/web/{version}"}}
BOTH, ALONE = ServiceWorkload.model_validate(CONFIGURED), ServiceWorkload.model_validate(PLAIN)


def laid(version: str, letter: str, workload: str = "web") -> LaidSource:
    folder = f"/state/{workload}/{version}"
    return LaidSource(
        workload=workload,
        version=version,
        source=BOTH.source,
        origin=f"/srv/{version}",
        identity=f"sha256:{letter * 64}",
        folder=folder,
        own=True,
    )


def spec(version: str, code: str, configuration: str | None) -> VersionSpec:
    name = version.rpartition("+")[2]
    made = laid(name, configuration, "web+configuration") if configuration is not None else None
    return VersionSpec(
        workload="web",
        version=version,
        declared=BOTH if configuration is not None else ALONE,
        identity=joined(f"sha256:{code * 64}", made.identity if made is not None else None),
        configuration=made,
        port=20_000,
    )


@pytest.mark.parametrize(
    ("asked", "stable", "wanted"),
    [
        ("v1.4+c7", None, "v1.4+c7"),
        ("+c8", "v1.4+c7", "v1.4+c8"),
        ("v1.5", "v1.4+c7", "v1.5+c7"),
        ("v1.5+c8", "v1.4+c7", "v1.5+c8"),
        ("+c8", "v1.4", "v1.4+c8"),
        ("v1+build5+c8", "v1.4+c7", "v1+build5+c8"),
        ("+c8", "v1+build5+c7", "v1+build5+c8"),
    ],
)
def test_what_is_not_named_stays(asked: str, stable: str | None, wanted: str) -> None:
    assert wanted_version("web", asked, BOTH, stable).name == wanted


@pytest.mark.parametrize(("asked", "stable"), [("v1.4", None), ("+c7", None), ("v1.5", "v1.4")])
def test_where_nothing_could_stay_both_are_named(asked: str, stable: str | None) -> None:
    with pytest.raises(Invalid) as caught:
        wanted_version("web", asked, BOTH, stable)
    assert "+c7" in caught.value.fix


def test_without_a_configuration_a_plus_is_part_of_the_name() -> None:
    assert wanted_version("web", "v1+build5", ALONE, "v1").name == "v1+build5"
    assert parts_of("web", "v1+build5", ALONE) == ("v1+build5", None)
    with pytest.raises(Invalid, match="declares no configuration"):
        wanted_version("web", "+c8", ALONE, "v1")


def test_what_is_kept_is_what_users_have() -> None:
    before = spec("v1+c1", "a", "b")
    keeps_code = wanted_version("web", "+c2", BOTH, "v1+c1")
    keeps_configuration = wanted_version("web", "v2", BOTH, "v1+c1")
    require_kept("web", keeps_code, before, spec("v1+c2", "a", "c"))
    require_kept("web", keeps_configuration, before, spec("v2+c1", "d", "b"))
    with pytest.raises(Conflict, match="the code v1 is not what users"):
        require_kept("web", keeps_code, before, spec("v1+c2", "d", "c"))
    with pytest.raises(Conflict, match="the configuration c1 is not what users"):
        require_kept("web", keeps_configuration, before, spec("v2+c1", "d", "c"))
    require_kept("web", wanted_version("web", "v1+c2", BOTH, "v1+c1"), before, spec("v1+c2", "d", "c"))


def test_the_plan_says_what_stays_and_what_changes() -> None:
    before = spec("v1+c1", "a", "b")
    assert changes(before, spec("v1+c2", "a", "c")) == [("code", "v1 stays"), ("configuration", "c1 -> c2")]
    assert changes(before, spec("v2+c1", "d", "b")) == [("code", "v1 -> v2"), ("configuration", "c1 stays")]
    assert changes(before, spec("v1+c1", "d", "b"))[0] == ("code", "v1, which is not what it was")
    assert changes(before, spec("v1+c2", "a", "b"))[1] == ("configuration", "c1 -> c2, which is the same")
    assert changes(None, before) == [("code", "v1, the first"), ("configuration", "c1, the first")]
    assert changes(spec("v1", "a", None), before) == [("code", "v1 stays"), ("configuration", "c1, the first")]
    assert changes(spec("v1", "a", None), spec("v2", "b", None)) == []


def test_a_secret_is_in_no_diff_even_where_only_its_middle_changed() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n"
    old = {"key.pem": key.format("\n".join(f"line{n}of{'x' * 20}" for n in range(40))), "a.env": "port=1\n"}
    new = {"key.pem": old["key.pem"].replace("line20of", "LINE20OF"), "a.env": "port=2\npassword=hunter2hunter2\n"}
    shown = configuration_diff(SourceFiles(old, 0), SourceFiles(new, 0), Redactor())
    assert "key.pem: changed only in what is kept secret" in shown
    assert "line" not in shown.replace("how its lines end", "").lower()
    assert "hunter2" not in shown
    assert {"-port=1", "+port=2", "+password=[redacted]"} <= set(shown.splitlines())


def test_files_that_come_and_go_are_shown_and_no_diff_is_endless() -> None:
    old = SourceFiles({"gone": "1\n", "same": "x", "logo": "\0a"}, 1)
    new = SourceFiles({"come": "".join(f"{n}\n" for n in range(LINES_MAX * 2)), "same": "x", "logo": "\0b"}, 0)
    lines = configuration_diff(old, new, Redactor()).splitlines()
    assert len(lines) == LINES_MAX + 1
    assert "--- /dev/null" in lines
    assert lines[-1].endswith("more lines)")
    lines = configuration_diff(old, SourceFiles({"same": "x", "logo": "\0b"}, 0), Redactor()).splitlines()
    assert "+++ /dev/null" in lines
    assert "logo: changed; it is no text" in lines
    assert lines[-1] == "(1 files are too many or too large to be compared here)"


def test_a_build_that_reads_the_configuration_has_a_folder_for_each() -> None:
    code, configuration = laid("v1", "a"), laid("c1", "b", "web+configuration")
    assert built_with(code, configuration, BOTH) == code
    reads = BOTH.model_copy(update={"build": (("make", "CONFIG={configuration}"),)})
    assert built_with(code, configuration, reads).folder == "/state/web/v1+bbbbbbbbbbbb"


def test_both_identities_are_told() -> None:
    assert short(joined("commit:0123456789abcdef", f"sha256:{'a' * 64}")) == "commit 0123456789ab + sha256 aaaaaaaaaaaa"
    assert short("image:sha256:0123456789abcdef") == "image 0123456789ab"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({**CONFIGURED, "command": None, "systemd": {"template": "web@.service", "environment_file": "/x"}}, "Compose"),
        ({**PLAIN, "configuration": {"image": "web"}}, "not in an image"),
        ({**PLAIN, "command": ["web", "{configuration}"]}, "say with `configuration`"),
        ({**PLAIN, "release": {"gates": [{"name": "a", "command": ["x", "{configuration}"]}]}}, "say with"),
        ({**PLAIN, "release": {"gates": [{"name": "a", "command": ["x"]}] * 2}}, "two gates have one name"),
    ],
)
def test_a_declaration_that_could_not_work_is_refused(made: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ServiceWorkload.model_validate(made)


def test_a_batch_job_has_no_configuration_of_its_own() -> None:
    made = {"kind": "batch", "command": ["report", "{configuration}"], "source": {"folder": "/srv/{version}"}}
    with pytest.raises(ValidationError, match="configuration"):
        BatchWorkload.model_validate(made)
    assert BatchWorkload.model_validate({**made, "parameters": {"configuration": "[a-z]+"}})
