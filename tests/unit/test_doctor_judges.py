"""What the doctor makes of what it sees: every verdict at least once, and each bad one with a reason and a command."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from interlock.adapters.reachability import reach
from interlock.adapters.tool_versions import tool_versions
from interlock.core.http import Http, Tls
from interlock.core.project import Project
from interlock.doctor.clock import judge_future, judge_pace, judge_skew, judge_zones, modified_at
from interlock.doctor.database import judge_database, judge_log, judge_pool
from interlock.doctor.keys import examine_certificate, examine_keys, judge_checkpoint
from interlock.doctor.model import Finding
from interlock.doctor.place import (
    examine_files,
    examine_left_sockets,
    examine_room,
    examine_runtime,
    examine_state,
)
from interlock.doctor.store import DatabaseFacts
from interlock.doctor.targets import declared_places, declared_tools
from interlock.engine.keys import blob_key, signing_key
from interlock.lib.note import SigningKey, sign_note

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FACTS = DatabaseFacts(
    version=160004,
    revision="0009",
    revision_known="0009",
    now=NOW,
    role="interlock_app",
    superuser=False,
    excess=(),
    unguarded=(),
    connections=10,
    connections_max=100,
    unsealed=0,
    sealed_at=NOW,
    note=None,
    newest_evidence_at=NOW,
)


def _levels(found: Iterator[Finding] | list[Finding]) -> list[str]:
    return [each.level for each in found]


def test_what_is_not_ok_has_a_reason_and_a_command() -> None:
    with pytest.raises(ValidationError):
        Finding(level="error", area="x", message="x")


@pytest.mark.parametrize(("wall", "level"), [(0.1, "ok"), (1.0, "warning"), (-3600.0, "warning")])
def test_a_clock_that_jumps_is_seen(wall: float, level: str) -> None:
    assert judge_pace(wall, 0.1).level == level


@pytest.mark.parametrize(("ahead", "level"), [(0.5, "ok"), (-10, "warning"), (10, "warning"), (3600, "error")])
def test_skew_is_judged_against_the_database(ahead: float, level: str) -> None:
    assert judge_skew(NOW + timedelta(seconds=ahead), NOW, NOW).level == level


def test_a_slow_answer_is_not_held_against_the_clock() -> None:
    assert judge_skew(NOW, NOW, NOW + timedelta(seconds=5)).level == "ok"


def test_what_was_written_in_the_future_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "interlock.yaml"
    file.touch()
    os.utime(file, (NOW.timestamp() + 7200, NOW.timestamp() + 7200))
    written = modified_at(file)
    assert written is not None
    assert _levels(judge_future(NOW, [written])) == ["warning"]
    assert _levels(judge_future(NOW + timedelta(hours=3), [written])) == []
    assert modified_at(tmp_path / "no") is None


def test_zones_that_are_not_known_are_named() -> None:
    assert _levels(judge_zones(["UTC", "Europe/Berlin"])) == ["ok"]
    (found,) = judge_zones(["Mars/Base"])
    assert (found.level, "Mars/Base" in found.message) == ("error", True)


@pytest.mark.parametrize(
    ("changes", "separated", "words"),
    [
        ({"version": 140011}, True, "too old"),
        ({"revision": None}, True, "not made yet"),
        ({"revision": "0042"}, True, "0042"),
        ({"superuser": True}, True, "superuser"),
        ({"excess": ("UPDATE on evidence",)}, True, "UPDATE on evidence"),
        ({"excess": ("UPDATE on evidence",)}, False, "one role"),
        ({"unguarded": ("evidence",)}, True, "no trigger"),
        ({"connections": 95}, True, "95 of 100"),
    ],
)
def test_what_is_wrong_with_a_database_is_told(changes: dict[str, object], *, separated: bool, words: str) -> None:
    bad = [each for each in judge_database(replace(FACTS, **changes), separated=separated) if each.level != "ok"]  # type: ignore[arg-type]
    assert len(bad) == 1
    assert words in bad[0].message


def test_a_sound_database_is_sound() -> None:
    assert set(_levels(judge_database(FACTS, separated=True))) == {"ok"}
    assert judge_log(FACTS, NOW + timedelta(days=1)).level == "ok", "nothing happened since"
    assert judge_log(replace(FACTS, unsealed=5), NOW + timedelta(hours=1)).level == "warning"
    assert judge_log(replace(FACTS, sealed_at=None, newest_evidence_at=None), NOW).level == "ok"
    assert judge_pool({"pool_size": 4}).level == "ok"
    assert judge_pool({"pool_size": 20, "requests_waiting": 3}).level == "warning"


def test_keys_that_are_gone_replaced_or_open_are_found_and_none_is_made(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert _levels(examine_keys(keys)[0]) == ["ok"]
    assert not keys.exists(), "the doctor makes nothing"
    key = signing_key(keys, "interlock/shop")
    blob_key(keys)
    found, same = examine_keys(keys)
    assert (_levels(found), same and same.name) == (["ok"], key.name)
    (keys / "blobs.key").chmod(0o644)
    assert _levels(examine_keys(keys)[0]) == ["error"]
    (keys / "blobs.key").unlink()
    assert _levels(examine_keys(keys)[0]) == ["error"]
    assert not (keys / "blobs.key").exists()


def test_a_checkpoint_of_another_key_is_seen() -> None:
    mine, other = SigningKey.generate("interlock/shop-00000001"), SigningKey.generate("interlock/shop-00000002")
    assert judge_checkpoint(None, mine).level == "ok"
    assert judge_checkpoint(sign_note("anything\n", other), mine).level == "error"


def _certificate(folder: Path, days_from: int, days_to: int) -> Http:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "interlock.example")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(NOW + timedelta(days=days_from)).not_valid_after(NOW + timedelta(days=days_to))
    (folder / "c.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "k.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Http(tls=Tls(certificate=f"{folder}/c.pem", key=f"{folder}/k.pem"))


@pytest.mark.parametrize(
    ("start", "end", "level"), [(-9, 90, "ok"), (-9, 5, "warning"), (-9, -1, "error"), (2, 9, "error")]
)
def test_the_validity_of_a_certificate_is_judged(tmp_path: Path, start: int, end: int, level: str) -> None:
    assert _levels(examine_certificate(_certificate(tmp_path, start, end), NOW)) == [level]


def test_a_certificate_of_another_key_or_none_at_all_is_an_error(tmp_path: Path) -> None:
    assert _levels(examine_certificate(Http(), NOW)) == []
    http = _certificate(tmp_path, -1, 90)
    mine = (tmp_path / "c.pem").read_bytes()
    _certificate(tmp_path, -1, 90)
    (tmp_path / "c.pem").write_bytes(mine)
    assert "error" in _levels(examine_certificate(http, NOW))
    (tmp_path / "k.pem").unlink()
    assert _levels(examine_certificate(http, NOW)) == ["error"]


def test_files_and_folders_that_others_may_use_are_found(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert _levels(examine_state(state)) == ["ok"]
    (state / "credentials").mkdir(parents=True)
    for folder in (state, state / "credentials"):
        folder.chmod(0o700)
    secret = state / "credentials" / "shop"
    secret.touch(mode=0o600)
    assert _levels(examine_state(state)) == ["ok"]
    secret.chmod(0o640)
    (found,) = examine_state(state)
    assert found.command == f"chmod go= {secret}"
    file = tmp_path / "interlock.yaml"
    file.touch()
    assert _levels(examine_files((file,))) == ["ok"]
    file.chmod(0o666)
    assert _levels(examine_files((file,))) == ["error"]


def test_sockets_are_told_apart_by_whether_somebody_answers(tmp_path: Path) -> None:
    own = tmp_path / "own"
    door = own / "door.sock"
    assert _levels(examine_runtime(own, door, shared=False, running=False)) == ["ok"]
    own.mkdir(mode=0o700)
    assert _levels(examine_runtime(own, door, shared=False, running=True)) == ["error"]
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(door))
    server.listen()
    assert _levels(examine_runtime(own, door, shared=False, running=True)) == ["ok"]
    assert _levels(examine_left_sockets(tmp_path, tmp_path / "other")) == []
    server.close()
    (stale,) = examine_runtime(own, door, shared=False, running=False)
    assert (stale.level, stale.command) == ("warning", f"rm {door}")
    assert _levels(examine_runtime(own, door, shared=False, running=True)) == ["error"]
    assert _levels(examine_left_sockets(tmp_path, tmp_path / "other")) == ["warning"]
    own.chmod(0o777)
    assert "error" in _levels(examine_runtime(own, door, shared=False, running=False))


def test_a_full_disk_and_the_end_of_inodes_are_seen(tmp_path: Path) -> None:
    assert _levels(examine_room(tmp_path / "not" / "made" / "yet"))[1:] == ["ok"]
    small = tmp_path / "small"
    small.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=64", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False, timeout=10).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        for number in range(63):
            (small / str(number)).touch()
        assert _levels(examine_room(small)) == ["error", "error"]
    finally:
        subprocess.run(["/bin/umount", str(small)], check=True, timeout=10)


def test_places_and_tools_follow_from_what_is_declared() -> None:
    project = Project.model_validate(
        {
            "databases": {
                "one": {"url": "postgresql://db.example:6432/x"},
                "two": {"url": "postgresql:///x"},
                "three": {"url": "postgresql:///x?host=/srv/pg&port=5433"},
            },
            "mcp_servers": {"web": {"url": "https://tracker.example/mcp"}, "own": {"command": ["/bin/true"]}},
            "protected": ["unit:postgresql*", "container:db-*"],
            "contexts": {"kubectl": {}},
        }
    )
    assert {place.name: str(place) for place in declared_places(project)} == {
        "databases.one": "db.example:6432",
        "databases.two": "/var/run/postgresql/.s.PGSQL.5432",
        "databases.three": "/srv/pg/.s.PGSQL.5433",
        "mcp_servers.web": "tracker.example:443",
    }
    assert declared_tools(project).keys() == {"docker", "systemctl", "kubectl"}


def test_many_places_are_tried_side_by_side_and_none_is_waited_for_longer_than_allowed(tmp_path: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(str(tmp_path / "s"))
    silent.listen(0)
    held = socket.socket(socket.AF_UNIX)
    held.connect(str(tmp_path / "s"))
    late = socket.socket(socket.AF_UNIX)
    late.setblocking(False)
    late.connect_ex(str(tmp_path / "s"))
    before = datetime.now(tz=UTC)
    found = reach(
        {
            "up": server.getsockname(),
            "down": ("127.0.0.1", 1),
            "gone": str(tmp_path / "none"),
            **{f"silent{number}": str(tmp_path / "s") for number in range(20)},
        },
        0.5,
    )
    assert (datetime.now(tz=UTC) - before).total_seconds() < 5
    assert found["up"] is None
    assert found["down"] == "Connection refused"
    assert found["gone"] == "No such file or directory"
    assert {found[f"silent{number}"] for number in range(20)} == {"so many wait there that its queue is full"}
    for each in (server, silent, held, late):
        each.close()


def test_a_program_that_is_not_there_is_told_from_one_that_is() -> None:
    found = tool_versions(["openssl", "no-such-program"])
    assert found["no-such-program"] is None
    assert found["openssl"]
