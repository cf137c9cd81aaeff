"""A secret is read from a file that nobody else may read, and stands nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from interlock.adapters.secret_files import SecretFiles
from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.errors import InterlockError
from interlock.core.secret_reference import SecretReference

REFERENCE: TypeAdapter[str] = TypeAdapter(SecretReference)


def put(path: Path, body: bytes = b"hunter22\n", mode: int = 0o600) -> Path:
    path.write_bytes(body)
    path.chmod(mode)
    return path


def test_a_secret_is_read_by_path_or_by_name_and_anew_each_time(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path)
    path = put(tmp_path / "shop")
    assert files.read(f"file:{path}") == files.read("credential:shop") == "hunter22"
    put(path, b"another")
    assert files.read("credential:shop") == "another"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    refuse(SecretFiles(tmp_path), f"file:{put(tmp_path / 'shop', mode=mode)}", "secret.exposed")


@pytest.mark.parametrize("body", [b"", b"\n", b"\xff\xfe", b"a\0b", b"x" * 20_000])
def test_what_is_no_secret_is_refused_and_not_shown(tmp_path: Path, body: bytes) -> None:
    refuse(SecretFiles(tmp_path), f"file:{put(tmp_path / 'shop', body)}", "secret.malformed")


def test_links_folders_pipes_and_what_is_missing_are_refused(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path)
    (tmp_path / "link").symlink_to(put(tmp_path / "shop"))
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    refuse(files, "credential:link", "secret.unreadable")
    refuse(files, "credential:folder", "secret.exposed")
    refuse(files, "credential:pipe", "secret.exposed")
    refuse(files, "credential:missing", "secret.unknown")


def refuse(files: SecretFiles, reference: str, code: str) -> None:
    with pytest.raises(InterlockError) as caught:
        files.read(reference)
    assert caught.value.code == code
    assert caught.value.fix
    assert "hunter22" not in str(caught.value.to_json())


@pytest.mark.parametrize(
    "text", ["hunter22", "env:PASSWORD", "file:relative", "credential:../x", "credential:A B", "file:/a\nb"]
)
def test_what_is_no_reference_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        REFERENCE.validate_python(text)
    assert text not in caught.value.errors(include_input=False, include_url=False)[0]["msg"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "postgresql://me:hunter22@db/shop"},
        {"url": "postgresql://me@db/shop"},
        {"url": "postgresql://db/shop?password=hunter22"},
        {"url": "postgresql://db/shop?passfile=/etc/x"},
        {"url": "postgresql://db/shop?options=-csearch_path%3Devil"},
        {"url": "postgresql://db/shop?service=x"},
        {"url": "postgresql://db"},
        {"url": "host=db dbname=shop"},
        {"url": "postgresql://db/shop", "schemas": []},
        {"url": "postgresql://db/shop", "schemas": ["pg_catalog"]},
        {"url": "postgresql://db/shop", "schemas": ['a"b']},
        {"url": "postgresql://db/shop", "read_credential": "hunter22"},
        {"url": "postgresql://db/shop", "functions": ["net_price"]},
        {"url": "postgresql://db/shop", "password": "hunter22"},
    ],
)
def test_a_database_is_declared_without_any_secret(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DatabaseDeclaration.model_validate(wrong)
    assert DatabaseDeclaration.model_validate({"url": "postgresql:///shop?host=/run/postgresql&port=5433"})
