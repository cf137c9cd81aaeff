"""A project of its own, driven through the real command line and a real resident process."""

from __future__ import annotations

import json
import os
import pty
import secrets
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

ANSWER_SECONDS = 60.0


@dataclass
class Shop:
    """A project folder and how to speak to it. `environment` is all that a command is given."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """`interlock WORDS...` in the project's folder, without a terminal."""
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment | environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS,
        )

    def json(self, *words: str, code: int | None = 0, **environment: str) -> dict[str, Any]:
        """The envelope of a verb, which must end with the exit code `code` (None: any)."""
        place = 2 if words[0] in {"audit", "config", "policy"} else 1
        done = self.run(*words[:place], "--output", "json", *words[place:], **environment)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        envelope: dict[str, Any] = json.loads(done.stdout)
        return envelope

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """`interlock WORDS...` without waiting for it."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def on_terminal(self, *words: str, answers: dict[str, str], **environment: str) -> tuple[int, str]:
        """`interlock WORDS...` on a terminal, whose questions (recognised by a word of them) are answered once each."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.environment | {"TERM": "xterm", "COLUMNS": "80"} | environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        seen, left = "", dict(answers)
        try:
            while select.select([master], [], [], ANSWER_SECONDS)[0]:
                try:
                    piece = os.read(master, 4096)
                except OSError:  # the other side is closed: Linux answers EIO
                    break
                seen += piece.decode(errors="replace")
                for question in [question for question in left if question in seen]:
                    os.write(master, (left.pop(question) + "\n").encode())
            return process.wait(ANSWER_SECONDS), seen.replace("\r\n", "\n")
        finally:
            os.close(master)
            process.kill()
            process.wait()

    @staticmethod
    def command(*words: str) -> list[str]:
        """The words behind this Python."""
        return [sys.executable, "-m", "interlock", *words]

    def set_up(self, **changes: str) -> None:
        """`init`, and a project in which `data/` may be written."""
        (self.folder / "data").mkdir()
        done = self.run("init", "--yes")
        assert done.returncode == 0, done.stderr
        file = self.folder / "interlock.yaml"
        text = file.read_text().replace("  write: []", f"  write: [{self.folder}/data]")
        for old, new in changes.items():
            text = text.replace(old, new)
        file.write_text(text)


@pytest.fixture(scope="module")
def make_shop(postgres_endpoint: Any) -> Iterator[Callable[[], Shop]]:
    """Makes projects on databases of their own in the server of the whole session; they are stopped at the end."""
    with ExitStack() as stack:

        def make() -> Shop:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="il-shop-", dir="/tmp")))
            name = f"interlock_test_{secrets.token_hex(6)}"
            stack.callback(_drop, postgres_endpoint.owner_conninfo, name)
            shop = Shop(
                folder,
                {
                    "PATH": os.environ["PATH"],
                    "HOME": str(folder),
                    "INTERLOCK_RUNTIME_FOLDER": str(folder / "run"),
                    "INTERLOCK_DATABASE_URL": make_conninfo(postgres_endpoint.app_conninfo, dbname=name),
                    "INTERLOCK_DATABASE_OWNER_URL": make_conninfo(postgres_endpoint.owner_conninfo, dbname=name),
                },
            )
            _create(postgres_endpoint, name)
            stack.callback(shop.run, "stop")
            return shop

        yield make


def _create(server: Any, name: str) -> None:
    with psycopg.connect(server.owner_conninfo, autocommit=True) as connection:
        database, app = sql.Identifier(name), sql.Identifier(server.app_user)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(database))
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, app))


def _drop(owner_conninfo: str, name: str) -> None:
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
