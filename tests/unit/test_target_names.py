"""Names that are identities, Kubernetes objects, the table of mounts and Compose files: each spelled in one way."""

from __future__ import annotations

from pathlib import Path

import pytest

from interlock.adapters.docker_compose import ComposeFiles, project_name
from interlock.adapters.files import guarded_folders
from interlock.adapters.kubernetes import KubernetesTargets
from interlock.adapters.mounts import other_paths, read_mounts
from interlock.adapters.names import NamedTargets
from interlock.core.errors import Invalid, NotFound

NAMES = NamedTargets(host_names=["shop-1", "shop-1.example.org"])
KUBERNETES = KubernetesTargets(context="prod", namespace="default")


@pytest.mark.parametrize(
    ("kind", "name", "identity"),
    [
        ("host", "LOCALHOST", "localhost"),
        ("host", "127.0.0.1", "localhost"),
        ("host", "::1", "localhost"),
        ("host", "Shop-1.example.org.", "localhost"),
        ("host", "db.example.org", "db.example.org"),
        ("package", "nginx:amd64=1.24-1", "nginx"),
        ("package", "nginx/bookworm", "nginx"),
        ("user", "0", "root"),
        ("group", "0", "root"),
        ("interface", "eth0:1", "eth0"),
        ("setting", "net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("domain", "Example.ORG.", "example.org"),
        ("database", "shop", "shop"),
        ("firewall", "host", "host"),
    ],
)
def test_several_spellings_are_one_identity(kind: str, name: str, identity: str) -> None:
    (target,) = NAMES.resolve(kind, name, {})
    assert (target.kind, target.id) == (kind, identity)
    assert name in (target.id, *target.names) or kind in {"user", "group"}


def test_this_machine_is_known_by_all_its_names() -> None:
    (target,) = NAMES.resolve("host", "localhost", {})
    assert {"shop-1", "shop-1.example.org"} <= set(target.names)


@pytest.mark.parametrize(
    "name", ["", "a\0b", "-rf", "r\u043e\u043et", "roo\u200bt", "x" * 600, "a b", "$(id)", "e\u0301"]
)
@pytest.mark.parametrize("kind", ["host", "package", "user", "interface", "database", "setting"])
def test_a_name_that_could_be_misread_is_refused(kind: str, name: str) -> None:
    with pytest.raises(Invalid):
        NAMES.resolve(kind, name, {})


def test_an_unknown_user_is_not_found() -> None:
    with pytest.raises(NotFound):
        NAMES.resolve("user", "nobody-of-that-name", {})


@pytest.mark.parametrize("spelled", ["deploy/web", "deployment/web", "deployments.apps/web", "deployment.v1.apps/web"])
def test_short_and_long_names_of_a_kind_are_one_object(spelled: str) -> None:
    (target,) = KUBERNETES.resolve("workload", spelled, {"namespace": "shop"})
    assert target.key == "deployment:prod/shop/web"
    assert {"web", "deployment:web", "deployment:shop/web", "namespace:shop", "cluster:prod"} <= set(target.names)


def test_a_bare_workload_may_be_any_kind_of_workload() -> None:
    (target,) = KUBERNETES.resolve("workload", "db", {})
    assert {"deployment:db", "statefulset:db", "daemonset:db", "statefulset:default/db"} <= set(target.names)


def test_a_bare_name_with_its_kind_beside_it_is_that_kind() -> None:
    (target,) = KUBERNETES.resolve("workload", "db", {"kind": "sts"})
    assert target.key == "statefulset:prod/default/db"


def test_another_context_is_another_cluster() -> None:
    (target,) = KUBERNETES.resolve("pod", "web-1", {"context": "staging"})
    assert target.key == "pod:staging/default/web-1"


def test_a_node_has_no_namespace() -> None:
    (target,) = KUBERNETES.resolve("node", "n1", {"namespace": "shop"})
    assert target.key == "node:prod/n1"


@pytest.mark.parametrize("operation", ["node.drain", "kubernetes.delete"])
def test_what_only_the_cluster_knows_is_refused(operation: str) -> None:
    (target,) = KUBERNETES.resolve("node", "n1", {})
    with pytest.raises(Invalid, match="cluster alone"):
        KUBERNETES.pulled_along(target, operation, {})


@pytest.mark.parametrize("name", ["", "../x", "A", "web;rm", "web\0", "deploy/", "/web", "w\u0435b"])
def test_what_is_no_kubernetes_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        KUBERNETES.resolve("workload", name, {})


def test_a_namespace_of_the_context_must_be_one() -> None:
    with pytest.raises(Invalid):
        KUBERNETES.resolve("pod", "web", {"namespace": "shop/../kube-system"})


MOUNTS = read_mounts(
    "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "30 27 254:0 /srv/db /mnt/bound\\040copy rw shared:1 master:2 - ext4 /dev/vda rw\n"
    "31 27 254:9 / /var/lib/data rw - xfs /dev/vdb rw\n"
    "32 27 0:4 net:[4026531840] /run/netns/x rw - nsfs nsfs rw\n"
)


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("/mnt/bound copy/a", {"/srv/db/a"}),
        ("/srv/db/a", {"/mnt/bound copy/a"}),
        ("/srv/db", {"/mnt/bound copy"}),
        ("/srv", {"/mnt/bound copy"}),
        ("/srv/other", set()),
        ("/var/lib/data/x", set()),
    ],
)
def test_a_bind_mount_gives_a_path_its_other_names(path: str, others: set[str]) -> None:
    assert set(other_paths(path, MOUNTS)) == others


@pytest.mark.parametrize("line", ["garbage", "27 1 254:0 / / rw,relatime ext4 /dev/vda rw", "1 2 3 4 5 6 7 8 9 10 -"])
def test_a_table_of_mounts_in_another_form_is_not_guessed_at(line: str) -> None:
    with pytest.raises(ValueError, match="mountinfo"):
        read_mounts(line + "\n")


def test_guarded_folders_are_the_fixed_parts_of_path_patterns() -> None:
    patterns = ["file:/srv/db/**", "file:/srv/*/x", "unit:nginx", "file:/**/.ssh", "*:/etc/ssh/", "file:/srv/db"]
    assert guarded_folders(patterns) == ("/srv/db", "/srv", "/etc/ssh")


def test_a_service_needs_what_it_depends_on_however_that_is_written() -> None:
    files = ComposeFiles(
        [
            {
                "services": {
                    "web": {"depends_on": {"api": {"condition": "service_started"}}},
                    "api": {"depends_on": ["db"], "links": ["cache:redis"]},
                    "db": {},
                    "cache": {"network_mode": "service:vpn"},
                    "vpn": {},
                    "other": {},
                }
            }
        ],
        is_whole=True,
    )
    assert files.needed_by("web") == ("api", "cache", "db", "vpn")
    assert files.needed_by("db") == ()


def test_an_override_adds_to_what_a_service_needs() -> None:
    files = ComposeFiles(
        [{"services": {"web": {"depends_on": ["db"]}, "db": {}}}, {"services": {"web": {"image": "x"}}}], is_whole=True
    )
    assert files.needed_by("web") == ("db",)


def test_a_service_restarts_with_what_it_follows() -> None:
    files = ComposeFiles(
        [{"services": {"web": {"depends_on": {"db": {"restart": True}}}, "job": {"depends_on": ["db"]}, "db": {}}}],
        is_whole=True,
    )
    assert files.following("db") == ("web",)


@pytest.mark.parametrize(
    "body",
    [{"include": ["x.yaml"], "services": {"web": {}}}, {"services": {"web": {"extends": "y"}}}, {"services": []}],
)
def test_a_file_that_leads_elsewhere_leaves_doubt(body: dict[str, object]) -> None:
    assert ComposeFiles([body], is_whole=True).needed_by("web") is None


WHOLE: dict[str, object] = {"services": {"web": {"depends_on": ["db"]}, "db": {}}}


@pytest.mark.parametrize(
    "other",
    [
        {"include": ["more.yaml"]},
        {"services": {"db": {"extends": {"service": "x"}}}},
        {"services": {"web": {"depends_on": ["${STORE}"]}}},
        {"services": {"web": None}},
        {"services": 7},
    ],
)
def test_one_file_in_doubt_puts_all_files_in_doubt(other: dict[str, object]) -> None:
    assert ComposeFiles([WHOLE], is_whole=True).needed_by("web") == ("db",)
    assert ComposeFiles([WHOLE, other], is_whole=True).needed_by("web") is None


@pytest.mark.parametrize("body", [b"services: {web: &a {}}", b"[]", b"a: b: c", b"\xff\xff", None])
def test_a_file_that_cannot_be_read_puts_all_files_in_doubt(body: bytes | None, tmp_path: Path) -> None:
    first, second = tmp_path / "compose.yaml", tmp_path / "override.yaml"
    first.write_text("services: {web: {depends_on: [db]}, db: {}}\n")
    if body is not None:
        second.write_bytes(body)
    assert ComposeFiles.read([str(first)]).needed_by("web") == ("db",)
    assert ComposeFiles.read([str(first), str(second)]).needed_by("web") is None


@pytest.mark.parametrize("value", [7, True, None, [[1]], {"a": 2}, ""])
def test_a_setting_of_another_form_is_no_service(value: object) -> None:
    assert (
        ComposeFiles([{"services": {"web": {"depends_on": value, "links": value}}}], is_whole=True).needed_by("web")
        == ()
    )


def test_an_unknown_service_leaves_doubt() -> None:
    assert ComposeFiles([{"services": {"web": {}}}], is_whole=True).needed_by("wbe") is None


@pytest.mark.parametrize(("folder", "name"), [("/srv/Shop App", "shopapp"), ("/srv/_x-1/", "x-1")])
def test_a_project_is_called_after_its_folder(folder: str, name: str) -> None:
    assert project_name(folder) == name


def test_a_folder_without_letters_names_no_project() -> None:
    with pytest.raises(Invalid):
        project_name("/")
