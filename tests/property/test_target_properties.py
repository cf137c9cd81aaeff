"""Whatever names and answers come in, adapters resolve or refuse them; paths are walked as the kernel walks them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.adapters import docker_identity, systemd
from interlock.adapters.docker_compose import ComposeFiles, locate_project
from interlock.adapters.files import FileTargets, follow
from interlock.adapters.kubernetes import KubernetesTargets
from interlock.adapters.mounts import Mount, other_paths
from interlock.adapters.names import NamedTargets
from interlock.adapters.processes import ProcessTargets
from interlock.core.errors import InterlockError, Invalid, Permanent, Transient
from interlock.core.plan import Target
from interlock.lib.canonical import digest_of

HOSTILE = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="ab/.-_*?[]:@\\\0\n\u200b\u202e\u0430\ud800 ", max_size=20),
    st.sampled_from(
        ["/dev/stdin", "/proc/self/exe", "/proc/1/root/etc/shadow", "/" * 5000, "~root", "//x", "a/../../b"]
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "Id",
                        "Name",
                        "Config",
                        "HostConfig",
                        "Labels",
                        "Mounts",
                        "Image",
                        "Env",
                        "Cmd",
                        "Volumes",
                        "Ports",
                    ),
                    *("NetworkSettings", "Networks", "PortBindings", "RW", "Type", "Source", "Path", "ExposedPorts"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
PARTS = st.sampled_from(["a", "b", "c", "..", "."])


def _require_recordable(targets: tuple[Target, ...]) -> None:
    for target in targets:
        assert digest_of(target.model_dump(mode="json"))
        assert target.id.isprintable()


@given(kind=st.sampled_from(NamedTargets.kinds), name=HOSTILE)
def test_any_name_is_an_identity_or_refused(kind: str, name: str) -> None:
    try:
        _require_recordable(NamedTargets().resolve(kind, name, {}))
    except InterlockError:
        return


@given(name=HOSTILE, folder=HOSTILE)
def test_any_path_is_a_file_or_refused(name: str, folder: str) -> None:
    try:
        found = FileTargets(lambda: ["file:/etc/ssh"]).resolve("file", name, {"folder": folder})
    except (Invalid, Permanent):
        return
    _require_recordable(found)
    (target,) = found
    assert target.id.startswith("/")
    assert not {"..", "."} & set(target.id.split("/"))


@given(kind=st.sampled_from(KubernetesTargets.kinds), name=HOSTILE, namespace=HOSTILE)
def test_any_object_is_named_or_refused(kind: str, name: str, namespace: str) -> None:
    try:
        _require_recordable(KubernetesTargets().resolve(kind, name, {"namespace": namespace}))
    except Invalid:
        return


@settings(max_examples=30, deadline=None)
@given(name=HOSTILE)
def test_any_process_name_is_found_or_refused(name: str) -> None:
    try:
        _require_recordable(ProcessTargets().resolve("process", name, {}))
    except InterlockError:
        return


@given(name=HOSTILE, folder=HOSTILE)
def test_any_project_is_located_or_refused(name: str, folder: str) -> None:
    try:
        _require_recordable((locate_project(name, {"folder": folder}).target,))
    except Invalid:
        return


@given(body=JSON)
def test_any_answer_of_an_engine_is_a_container_or_refused(body: object) -> None:
    whole = {**body, "Id": "a" * 64} if isinstance(body, dict) else body
    try:
        _require_recordable((docker_identity.container_target(whole, [], lambda path: (path,)),))
    except Transient:
        return


@given(body=JSON)
def test_any_compose_file_is_understood_or_doubtful(body: object) -> None:
    services = json.loads(json.dumps(body))
    found = ComposeFiles([{"services": {"web": services}}], is_whole=True).needed_by("web")
    assert found is None or isinstance(found, tuple)


@given(text=st.text(alphabet="Id=Names\nLoadState.ActiveState \0x", max_size=120))
def test_any_answer_of_systemctl_is_units_or_refused(text: str) -> None:
    try:
        units = systemd._parse(text)
    except Transient:
        return
    assert all(unit.id for unit in units)


@settings(max_examples=60, deadline=None)
@given(
    links=st.dictionaries(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["x", "y", "z"])),
        st.lists(st.sampled_from(["a", "b", "c", "x", "y", "z", ".."]), min_size=1, max_size=3),
        max_size=6,
    ),
    asked=st.lists(st.sampled_from(["a", "b", "x", "y", "z", ".", ".."]), max_size=5),
)
def test_links_are_followed_as_the_kernel_follows_them(
    links: dict[tuple[str, str], list[str]], asked: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = os.path.realpath(name)
        for folder in ("a", "b", "c", "a/b", "b/a"):
            Path(root, folder).mkdir()
        for (folder, link), leads_to in links.items():
            Path(root, folder, link).symlink_to("/".join(leads_to))
        path = "/".join((root, *asked))
        try:
            found = follow(path)
        except InterlockError:
            return
        assert found == os.path.realpath(path)


@given(
    path=st.lists(st.sampled_from("abc"), max_size=4),
    mounts=st.lists(
        st.tuples(st.lists(st.sampled_from("abc"), max_size=2), st.lists(st.sampled_from("abc"), max_size=2)),
        max_size=4,
    ),
)
def test_two_paths_to_one_place_know_each_other(path: list[str], mounts: list[tuple[list[str], list[str]]]) -> None:
    table = [Mount("/", "/", "1:1", "ext4")]
    table += [
        Mount("/m" + "".join(f"/{part}" for part in point), "/" + "/".join(root), "1:1", "ext4")
        for point, root in mounts
    ]
    real = "/" + "/".join(path)
    for other in other_paths(real, table):
        back = {real, *other_paths(other, table)}
        assert any(
            real == found or real.startswith(found.rstrip("/") + "/") or found.startswith(real) for found in back
        )
