"""Signed notes and keys are what C2SP's signed-note says, and every other text is refused."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest

from interlock.core.checkpoint import Checkpoint, link_of
from interlock.lib.note import BadSignature, NoteError, SigningKey, VerifierKey, open_note, sign_note, signer_names

KEY = SigningKey.generate("log.example/one")
TEXT = "log.example/one\n7\nhello\n"
# RFC 8032 section 7.1, test 1: the secret key's seed and its public key.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_a_note_is_text_an_empty_line_and_a_signature_line() -> None:
    note = sign_note(TEXT, KEY)
    text, _, signature = note.rpartition("\n\n")
    assert text + "\n" == TEXT
    assert signature.startswith("— log.example/one ")
    body = base64.b64decode(signature.split(" ")[2])
    assert body[:4] == KEY.verifier.id
    assert len(body) == 68
    assert KEY.verifier.is_signed(TEXT.encode(), body[4:])


def test_the_key_id_is_made_from_name_algorithm_and_key() -> None:
    verifier = KEY.verifier
    assert verifier.id == sha256(b"log.example/one\n\x01" + verifier.public).digest()[:4]


def test_a_key_signs_as_rfc_8032_says() -> None:
    key = SigningKey("x", SEED)
    assert key.verifier.public == PUBLIC
    expected = (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert key.sign(b"").hex() == expected


def test_keys_survive_being_written_down() -> None:
    assert SigningKey.parse(KEY.encode()) == KEY
    assert VerifierKey.parse(KEY.verifier.encode() + "\n") == KEY.verifier


def test_a_signing_key_does_not_show_itself() -> None:
    secret = KEY.encode().split("+", 4)[4]  # base64 may hold a plus of its own
    assert secret not in repr(KEY)
    assert secret not in str(KEY)


def test_a_note_opens_with_its_key_only() -> None:
    note = sign_note(TEXT, KEY)
    assert open_note(note, KEY.verifier) == TEXT
    assert signer_names(note) == ("log.example/one",)
    with pytest.raises(BadSignature, match="not signed by"):
        open_note(note, SigningKey.generate("log.example/one").verifier)
    with pytest.raises(BadSignature, match="not signed by"):
        open_note(note, SigningKey.generate("log.example/two").verifier)


def test_any_changed_character_is_found() -> None:
    note = sign_note(TEXT, KEY)
    for position in range(len(note)):
        other = "x" if note[position] != "x" else "y"
        with pytest.raises(NoteError):
            open_note(note[:position] + other + note[position + 1 :], KEY.verifier)


def test_other_signatures_beside_ours_are_passed_over() -> None:
    ours, other = sign_note(TEXT, KEY), sign_note(TEXT, SigningKey.generate("witness.example"))
    assert open_note(other + ours.rpartition("\n\n")[2], KEY.verifier) == TEXT


def test_one_bad_signature_of_ours_spoils_the_note() -> None:
    good, bad = sign_note(TEXT, KEY), sign_note("other\n", KEY)
    with pytest.raises(BadSignature, match="does not fit"):
        open_note(good + bad.rpartition("\n\n")[2], KEY.verifier)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text only\n",
        "text\n\nno dash\n",
        "text\n\n— name\n",
        "text\n\n— name !!!!\n",
        "text\n\n— name AAAA\n",
        "text\n\n— name AAAA",
        "a\tb\n\n— name AAAA\n",
        "x" * 70_000,
        "text\n\n" + "— name AAAA\n" * 20,
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(NoteError):
        open_note(note, KEY.verifier)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2028b"])
def test_a_name_that_would_break_the_format_is_refused(name: str) -> None:
    with pytest.raises(NoteError):
        SigningKey.generate(name)


@pytest.mark.parametrize("text", ["no newline", "tab\there\n", "nul\0\n"])
def test_a_text_that_cannot_be_signed_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        sign_note(text, KEY)


@pytest.mark.parametrize(
    "text",
    ["", "name", "name+00000000+AAAA", "name+zz+AAAA", KEY.verifier.encode()[:-2], "other" + KEY.verifier.encode()],
    ids=[
        "empty",
        "a name alone",
        "a short key",
        "no hexadecimal",
        "cut off",
        "another name",
    ],  # the same in each process
)
def test_a_damaged_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(text)
    with pytest.raises(NoteError):
        SigningKey.parse(text)


def test_a_signing_key_with_another_id_is_refused() -> None:
    marker, body = KEY.encode().split("log.example/one")
    with pytest.raises(NoteError, match="does not belong"):
        SigningKey.parse(f"{marker}log.example/two{body}")


def checkpoint(**changes: object) -> Checkpoint:
    fields = {
        "origin": "log.example/one",
        "size": 12,
        "root": "ab" * 32,
        "prev": link_of(None),
        "at": "2026-03-01T09:30:00.123456Z",
        "epoch": 0,
        "home": "7-8-9",
    }
    return Checkpoint.model_validate(fields | changes)


def test_a_checkpoint_begins_as_c2sp_says() -> None:
    lines = checkpoint().text().split("\n")
    assert lines[:3] == ["log.example/one", "12", base64.b64encode(bytes.fromhex("ab" * 32)).decode()]
    assert [line.split(" ")[0] for line in lines[3:]] == ["prev", "at", "epoch", "home", ""]


def test_a_checkpoint_survives_being_written_down() -> None:
    assert Checkpoint.parse(checkpoint().text()) == checkpoint()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n12\n", "\n012\n"),
        ("\n12\n", "\n-1\n"),
        ("epoch 0", "epoch"),
        ("prev ", "prev  "),
        ("7-8-9\n", "7-8-9\nmore x\n"),
    ],
)
def test_a_text_that_is_no_checkpoint_is_refused(old: str, new: str) -> None:
    text = checkpoint().text()
    assert old in text
    with pytest.raises(ValueError, match="not a checkpoint"):
        Checkpoint.parse(text.replace(old, new))


def test_the_link_is_the_hash_of_the_whole_note() -> None:
    note = sign_note(checkpoint().text(), KEY)
    assert link_of(note) == sha256(note.encode()).hexdigest()
    assert link_of(None) == "0" * 64
