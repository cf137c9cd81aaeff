"""How interlock.yaml declares a database that is guarded: where it is, as whom Interlock comes, and its bounds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from interlock.core.model import Frozen
from interlock.core.secret_reference import SecretReference

URL_PARAMETERS = frozenset({"host", "port", "sslmode", "sslrootcert", "connect_timeout"})
"""What may stand behind the `?` of a URL: nothing that holds, or leads to, a secret."""

_URL = re.compile(r"postgresql://(?P<place>[^/?#\s]*)/(?P<database>[^/?#\s]+)(\?(?P<query>[^#\s]*))?")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")


def _url(value: str) -> str:
    found = _URL.fullmatch(value)
    if found is None:
        msg = "write postgresql://HOST/DATABASE, or postgresql:///DATABASE?host=/socket/folder"
        raise ValueError(msg)
    if "@" in found["place"]:
        msg = "leave user and password out of the URL: write read_user, and read_credential: file:/path/of/the/password"
        raise ValueError(msg)
    given = {setting.partition("=")[0] for setting in (found["query"] or "").split("&") if setting}
    if given - URL_PARAMETERS:
        msg = f"only {', '.join(sorted(URL_PARAMETERS))} may stand behind the ? of the URL"
        raise ValueError(msg)
    return value


def _identifier(value: str) -> str:
    if not _IDENTIFIER.fullmatch(value):
        msg = f"{value!r} is not a plain PostgreSQL name"
        raise ValueError(msg)
    return value


DatabaseUrl = Annotated[str, AfterValidator(_url)]
Identifier = Annotated[str, AfterValidator(_identifier)]
QualifiedName = Annotated[str, Field(pattern=r"^[^.\s]{1,63}\.[^.\s]{1,63}$")]


class DatabaseDeclaration(Frozen):
    """One PostgreSQL database (15 or newer) that is reached through `sql.*`. Interlock's own database is never one.

    Three roles, each less dangerous than the next: `read_user` for `sql.read`, `write_user` for `sql.write`,
    `migrate_user` for `sql.migrate`; an action whose role is not declared is refused. Each `_credential` is a
    reference to the role's password, left out where the server knows us otherwise (peer, certificate).

    `schemas` are those whose tables may be named. `functions` are the database's own functions (`schema.name`) that
    its owner vouches for: they may be called when they are not volatile, and triggers that run them count as known.
    `secret` are patterns of `schema.table`; reading such a table discloses a secret. `migrations` is the folder of
    numbered .sql files.
    """

    url: DatabaseUrl
    read_user: Identifier | None = None
    read_credential: SecretReference | None = None
    write_user: Identifier | None = None
    write_credential: SecretReference | None = None
    migrate_user: Identifier | None = None
    migrate_credential: SecretReference | None = None
    schemas: tuple[Identifier, ...] = Field(default=("public",), min_length=1, max_length=50)
    functions: tuple[QualifiedName, ...] = Field(default=(), max_length=500)
    secret: tuple[str, ...] = Field(default=(), max_length=500)
    migrations: str | None = None
    statement_timeout_seconds: float = Field(default=10.0, ge=0.1, le=3600)
    lock_timeout_seconds: float = Field(default=1.0, ge=0.05, le=60)
    connect_timeout_seconds: int = Field(default=5, ge=2, le=60)
    connections_max: int = Field(default=4, ge=1, le=64)
    rows_max: int = Field(default=1000, ge=1, le=100_000)
    bytes_max: int = Field(default=1024 * 1024, ge=1024, le=8 * 1024 * 1024)
    cell_bytes_max: int = Field(default=64 * 1024, ge=64, le=1024 * 1024)
    write_rows_without_approval: int = Field(default=100, ge=0, le=1_000_000)
    write_rows_max: int = Field(default=100_000, ge=1, le=10_000_000)
    pre_image_rows_max: int = Field(default=10_000, ge=0, le=100_000)
    pre_image_bytes_max: int = Field(default=16 * 1024 * 1024, ge=1024, le=48 * 1024 * 1024)

    @model_validator(mode="after")
    def _plain_schemas(self) -> DatabaseDeclaration:
        if any(schema.startswith("pg_") or schema == "information_schema" for schema in self.schemas):
            msg = "`schemas` names the database's own schemas, not those of PostgreSQL"
            raise ValueError(msg)
        return self
