"""What looks like a secret is found in arguments and blotted out of output."""

from __future__ import annotations

import time

import pytest

from interlock.lib.redact import BLOT, LINE_BYTES_MAX, Redactor, StreamRedactor

SECRETS = [
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "ghp_" + "a" * 36,
    "glpat-" + "b" * 20,
    "xoxb-" + "1234567890-abc",
    "sk-" + "proj-" + "c" * 24,
    "postgres://app:" + "hunter22" + "@db/shop",
    "Authorization: Bearer " + "abcdef123456",
    "--password=" + "correct-horse",
    'api_key: "' + "0123456789abcdef" + '"',
    "DB_PASSWORD=" + "swordfish",
    "token " + "eyJ" + "a" * 10 + ".eyJ" + "b" * 10 + "." + "c" * 10,
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_found_and_blotted(text: str) -> None:
    redactor = Redactor()
    assert redactor.find(text) is not None
    cleaned = redactor.redact(f"before {text} after")
    assert BLOT in cleaned
    assert redactor.find(cleaned) is None


@pytest.mark.parametrize(
    "text",
    [
        "systemctl restart nginx",
        "password: ${DB_PASSWORD}",
        "password=***",
        "the password is wrong",
        "https://example.com/a?b=c",
        "secret: true",
        "sha256:" + "a" * 64,
        "tokens used: 123456",
        "ssh-ed25519 AAAAC3Nza",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor().find(text) is None


def test_a_projects_own_pattern_counts() -> None:
    redactor = Redactor([r"CUST-\d{6}"])
    assert redactor.redact("id CUST-123456") == f"id {BLOT}"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_a_secret_on_the_edge_of_two_pieces_is_blotted(size: int) -> None:
    raw = b"one\nDB_PASSWORD=swordfish\ntwo\n"
    stream = StreamRedactor(Redactor())
    shown = "".join(stream.feed(raw[start : start + size]) for start in range(0, len(raw), size)) + stream.finish()
    assert shown == f"one\nDB_PASSWORD={BLOT}\ntwo\n"


def test_a_private_key_is_blotted_line_by_line() -> None:
    begin, end = "-----BEGIN " + "OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
    stream = StreamRedactor(Redactor())
    shown = (
        "".join(stream.feed(f"{line}\n".encode()) for line in ("a", begin, "MIIE", "xyz", end, "b")) + stream.finish()
    )
    assert shown == f"a\n{BLOT}\nb\n"


def test_a_line_without_an_end_is_cut_and_memory_stays_bounded() -> None:
    stream = StreamRedactor(Redactor())
    shown = [stream.feed(b"x" * 1000) for _ in range(100)]
    assert max(len(piece) for piece in shown) <= LINE_BYTES_MAX + 1000
    assert "".join(shown) + stream.finish() == "x" * 100_000


def test_bytes_that_are_not_text_become_replacement_characters() -> None:
    stream = StreamRedactor(Redactor())
    assert stream.feed(b"\xff\xfe\n") == "\ufffd\ufffd\n"


@pytest.mark.parametrize("unit", ["eyJ-", "eyJaaaaaaaaaa-", "sk-a-", "a-", "password ", "ab://a", "github_pat_"])
def test_hostile_text_is_searched_in_a_moment(unit: str) -> None:
    text = unit * (512 * 1024 // len(unit)) + "!"
    begun = time.process_time()
    Redactor().redact(text)
    assert time.process_time() - begun < 5
