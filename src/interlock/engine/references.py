"""Looks whether the files that interlock.yaml refers to are there, and closed to others where they hold a secret."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interlock.core.errors import InterlockError
from interlock.core.model import JsonObject
from interlock.core.secret_reference import Secrets
from interlock.engine.inspection import OTHERS, finding
from interlock.engine.project_file import ReadProject
from interlock.engine.yaml_model import written
from interlock.lib.strict_yaml import Path as YamlPath


def inspect_references(read: ReadProject, secrets: Secrets) -> Iterator[JsonObject]:
    """Credentials, certificates, programs and folders that are named; each finding has `file`, `line` and `path`."""
    sound = 0
    for path, reference in _credentials(read.project.model_dump(mode="json", by_alias=True), ()):
        try:
            secrets.read(reference)
        except InterlockError as error:
            yield _at(read, path, "credentials", error.message, error.fix)
        else:
            sound += 1
    if sound:
        yield finding("ok", "credentials", f"{sound} credentials are there, and closed to others")
    yield from _certificates(read)
    for name, server in read.project.mcp_servers.items():
        program = server.command[0] if server.command else None
        if program is not None and not os.access(program, os.X_OK):
            message = f"{program} is not a program that can be started here"
            yield _at(read, ("mcp_servers", name, "command"), "mcp_servers", message, "install it, or mend its path")
    for name, database in read.project.databases.items():
        if database.migrations is not None and not Path(read.project.folder, database.migrations).is_dir():
            folder = Path(read.project.folder, database.migrations)
            path = ("databases", name, "migrations")
            yield _at(read, path, "databases", f"there is no folder {folder}", f"mkdir -p {folder}")


def _certificates(read: ReadProject) -> Iterator[JsonObject]:
    tls = read.project.http.tls
    for name, text in (("certificate", tls.certificate), ("key", tls.key)) if tls is not None else ():
        try:
            mode = Path(text).stat().st_mode
        except OSError as error:
            message = f"{text} cannot be read: {error.strerror}"
            yield _at(read, ("http", "tls", name), "http", message, f"put the {name} there, as PEM")
            continue
        if name == "key" and mode & OTHERS & ~stat.S_IRGRP:
            yield _at(read, ("http", "tls", name), "http", f"others may read {text}", f"chmod 600 {text}")


def _credentials(value: Any, path: YamlPath) -> Iterator[tuple[YamlPath, str]]:
    """Every reference to a secret: the keys that are called so."""
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if isinstance(inner, str) and (key == "credential" or key.endswith("_credential")):
            yield (*path, key), inner
        else:
            yield from _credentials(inner, (*path, key))


def _at(read: ReadProject, path: YamlPath, area: str, message: str, fix: str | None) -> JsonObject:
    file = read.document.file_of(path) or str(read.file)
    line = read.document.line_of(path)
    where = f"{file}:{line}: {written(path)}: {message}"
    return {**finding("error", area, where, fix), "file": file, "line": line, "path": written(path)}
