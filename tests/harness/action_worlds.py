"""A small world for each Action: arguments that mean something in it, and a way to change what the plan depends on."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from harness import outside_mcp, shop_service
from harness.engine import ALICE, Engine
from harness.guarded_database import Shop
from harness.web_server import WebServer
from interlock.core.ask import Ask
from interlock.core.keeper import KEEPER, Keeper
from interlock.core.model import JsonObject
from interlock.core.run import Run, RunState
from interlock.core.token import ENTROPY_BYTES, make_token
from interlock.core.traffic import ENVOY, WHOLE, DataPlane
from interlock.core.workload import ServiceWorkload

UNREFERRED = {"objects", "logs"}
"""Folders of git that keep what no branch leads to any more."""


async def nothing_to_do(number: int) -> None:
    """Most Runs need nobody while they run."""


@dataclass(frozen=True)
class World:
    """`disturb` changes something that the plan depends on; None where it depends on its arguments alone.

    `attend` does what a Run needs of the outside while it runs.
    """

    args: JsonObject
    disturb: Callable[[], object] | None
    attend: Callable[[int], Awaitable[None]] = nothing_to_do


@dataclass(frozen=True)
class Stage:
    """An engine, a folder of this world alone, which may be written, and a guarded database, declared as `shop`."""

    engine: Engine
    folder: Path
    shop: Shop

    @property
    def word(self) -> str:
        """A name that nobody else has."""
        return self.folder.name

    async def perform(self, action: str, args: JsonObject, world: World | None = None) -> Run:
        """The Run when it has come to rest."""
        run = await self.engine.door.submit(ALICE, Ask(action=action, args=args, confirmed=True))
        assert isinstance(run, Run)
        if world is not None:
            await world.attend(run.number)
        return await self.engine.rest(run.number)

    async def succeed(self, action: str, args: JsonObject) -> int:
        """The number of a Run that went well."""
        run = await self.perform(action, args)
        assert run.state is RunState.SUCCEEDED, run.state_reason
        return run.number

    def file(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def linked_folder(self) -> Callable[[], None]:
        """`link` leads to `one`; what is returned lets it lead to `two`."""
        for name in ("one", "two"):
            (self.folder / name).mkdir()
        (self.folder / "link").symlink_to("one")

        def lead_elsewhere() -> None:
            (self.folder / "link").unlink()
            (self.folder / "link").symlink_to("two")

        return lead_elsewhere

    @property
    def envoy(self) -> DataPlane:
        """The proxy of all worlds."""
        return self.engine.parts.catalog.action("traffic.route").ports.outside[ENVOY]

    @property
    def keeper(self) -> Keeper:
        """What keeps the versions of all worlds running."""
        return self.engine.parts.catalog.action("service.start").ports.outside[KEEPER]

    @property
    def golden_folder(self) -> Path:
        """Where the golden samples of this world's service lie."""
        return self.engine.parts.locations.state_folder / "golden" / self.word

    def kept(self) -> list[str]:
        """The versions of this world that run."""
        names = [state.process.name for state in self.keeper.states()]
        return [name for name in names if name.startswith(f"{self.word}@")]

    def stop_versions(self) -> None:
        """Nothing of this world goes on."""
        for name in self.kept():
            self.keeper.stop(name)

    def rows(self) -> list[tuple[Any, ...]]:
        """What stands in this world's own table of the guarded database, where it has one."""
        (found,) = self.shop.execute(f"select to_regclass('{self.word}') is not null")
        return self.shop.execute(f"select * from {self.word} order by 1") if found[0] else []

    async def batches(self) -> list[Any]:
        """Which version the invocations of this world's report get, what was compared and run, what files it has."""
        routing = await self.engine.query("select document from batch_routing where workload = %s", self.word)
        told = "select run from {} where workload = %s order by run"
        runs = [
            await self.engine.query(told.format(name), self.word) for name in ("batch_comparison", "batch_invocation")
        ]
        folder = self.engine.parts.locations.state_folder / "releases" / "batch" / self.word
        return [routing, runs, sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))]

    async def snapshot(self) -> dict[str, Any]:
        """All that these Actions can change: files with their modes, standing orders, known programs."""
        files = {
            str(path.relative_to(self.folder)): (
                path.lstat().st_mode,
                path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None,
            )
            for path in sorted(self.folder.rglob("*"))
            if not UNREFERRED & set(path.parts)
        }
        orders = await self.engine.query(
            "select scope, pattern, reason, set_by from change_freeze"
            " where lifted_at is null and (until is null or until > now()) order by run, scope, pattern"
        )
        programs = await self.engine.query("select name, path, sha256, program from adopted order by name")
        schedules = await self.engine.query(
            "select name, spec, paused_by, paused_reason from schedule where declared order by name"
        )
        tools = await self.engine.query("select server, tool, digest from outside_tool order by server, tool")
        tokens = await self.engine.query("select id, name, kind, actor from token where revoked_at is null order by id")
        releases = await self.engine.query("select name, state, step, reason from releases order by number")
        return {
            "files": files,
            "releases": releases,
            "orders": orders,
            "programs": programs,
            "tokens": tokens,
            "schedules": schedules,
            "rows": self.rows(),
            "hosts": sorted(path.name for path in (self.engine.parts.locations.state_folder / "hosts").glob("*")),
            "tools": tools,
            "versions": self.kept(),
            "batches": await self.batches(),
            "golden": sorted(each.name for each in self.golden_folder.glob("*.json")),
            "routing": self.envoy.current(self.word),
            "policies": self.engine.parts.book.current.digest,
        }


async def _write_new(stage: Stage) -> World:
    lead_elsewhere = stage.linked_folder()
    return World({"path": str(stage.folder / "link" / "new.txt"), "content": "new\n"}, lead_elsewhere)


async def _write_over(stage: Stage) -> World:
    path = stage.file("kept.txt", "old\n", 0o600)
    return World({"path": str(path), "content": "new\n"}, lambda: path.write_text("somebody was here\n"))


async def _remove(stage: Stage) -> World:
    path = stage.file("kept.txt", "old\n", 0o640)
    return World({"path": str(path)}, lambda: path.write_text("somebody was here\n"))


async def _restore_replaced(stage: Stage) -> World:
    path = stage.file("kept.txt", "old\n", 0o640)
    number = await stage.succeed("file.write", {"path": str(path), "content": "new\n"})
    return World({"run": number}, lambda: path.write_text("somebody was here\n"))


async def _restore_created(stage: Stage) -> World:
    path = stage.folder / "made.txt"
    number = await stage.succeed("file.write", {"path": str(path), "content": "new\n"})
    path.chmod(0o600)
    return World({"run": number}, lambda: path.write_text("somebody was here\n"))


async def _command(stage: Stage) -> World:
    lead_elsewhere = stage.linked_folder()
    for name in ("one", "two"):
        (stage.folder / name / "empty").mkdir(mode=0o755)
    return World({"argv": ["rmdir", str(stage.folder / "link" / "empty")]}, lead_elsewhere)


async def _unknown_command(stage: Stage) -> World:
    path = stage.file("script.sh", "#!/bin/sh\necho hi > made\n", 0o755)
    args: JsonObject = {"argv": [str(path)], "folder": str(stage.folder)}
    return World(args, lambda: path.write_text("#!/bin/sh\necho another\n"))


async def _adopt(stage: Stage) -> World:
    path = stage.file("nightly.sh", "#!/bin/sh\necho hi\n", 0o755)
    args: JsonObject = {"path": str(path), "name": f"job.{stage.word}"}
    return World(args, lambda: path.write_text("#!/bin/sh\necho another\n"))


async def _adopt_again(stage: Stage) -> World:
    earlier = stage.file("earlier.sh", "#!/bin/sh\necho earlier\n", 0o755)
    await stage.succeed("interlock.adopt", {"path": str(earlier), "name": f"job.{stage.word}"})
    return await _adopt(stage)


async def _freeze(stage: Stage) -> World:
    lead_elsewhere = stage.linked_folder()
    return World({"pattern": f"file:{stage.folder}/link/**", "reason": "a release"}, lead_elsewhere)


async def _freeze_again(stage: Stage) -> World:
    world = await _freeze(stage)
    await stage.succeed("interlock.freeze", {**world.args, "reason": "somebody else's release"})
    return world


async def _unfreeze(stage: Stage) -> World:
    world = await _freeze(stage)
    await stage.succeed("interlock.freeze", world.args)
    return World({"pattern": world.args["pattern"]}, world.disturb)


async def _pause(stage: Stage) -> World:
    return World({"name": stage.word, "reason": "a strange change", "minutes": 60}, None)


async def _resume(stage: Stage) -> World:
    await stage.succeed("interlock.pause_agents", {"name": stage.word, "reason": "a strange change"})
    return World({"name": stage.word}, None)


async def _break_glass(stage: Stage) -> World:
    lead_elsewhere = stage.linked_folder()
    return World({"pattern": f"file:{stage.folder}/link/**", "reason": "the disk fails, moving data"}, lead_elsewhere)


async def _undo(stage: Stage) -> World:
    path = stage.file("kept.txt", "old\n", 0o640)
    args: JsonObject = {"path": str(path), "content": "new\n"}
    return World({"run": await stage.succeed("file.write", args)}, None)


async def _hold(stage: Stage) -> World:
    lead_elsewhere = stage.linked_folder()
    holds = stage.engine.parts.holds

    async def run_command(number: int) -> None:
        holds.attach(number)
        holds.ended(number, 0)

    args: JsonObject = {"target": f"file:{stage.folder}/link", "command": ["./migrate.sh"]}
    return World(args, lead_elsewhere, run_command)


async def _once(stage: Stage) -> World:
    lead_elsewhere = stage.linked_folder()
    args: JsonObject = {"path": str(stage.folder / "link" / "new.txt"), "content": "new\n"}
    at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    return World({"name": stage.word, "action": "file.write", "args": args, "at": at}, lead_elsewhere)


async def _cancel(stage: Stage) -> World:
    await stage.succeed("schedule.once", (await _once(stage)).args)
    return World({"name": stage.word}, None)


async def _pause_schedule(stage: Stage) -> World:
    await _cancel(stage)
    return World({"name": stage.word, "reason": "the disk is full", "minutes": 60}, None)


async def _pause_again(stage: Stage) -> World:
    world = await _pause_schedule(stage)
    await stage.succeed("schedule.pause", {**world.args, "reason": "somebody else's reason"})
    return world


async def _resume_schedule(stage: Stage) -> World:
    world = await _pause_schedule(stage)
    await stage.succeed("schedule.pause", world.args)
    return World({"name": stage.word}, None)


async def _sql_read(stage: Stage) -> World:
    view = f"public.{stage.word}"
    stage.shop.execute(f"set role owner; create view {view} as select 1 as a; grant select on {view} to reader")
    args: JsonObject = {"database": "shop", "sql": f"select * from {stage.word}"}
    return World(args, lambda: stage.shop.execute(f"set role owner; drop view {view}; create table {view} (a int)"))


def outside_servers(folder: Path) -> JsonObject:
    """What interlock.yaml says of the MCP server that all worlds share; each has tools of its own there."""
    outside = folder / "outside"
    outside.mkdir()
    command: list[Any] = [sys.executable, outside_mcp.__file__, str(outside)]
    return {"outside": {"command": command, "tools": {"put": {"repeatable": True, "risk": "low"}}}}


def _words(stage: Stage, tool: str, words: str) -> None:
    """What the server says of its tool from now on."""
    folder = stage.engine.parts.locations.project_folder.parent / "outside"
    outside_mcp.add_tool(folder, tool, "append", words)


def _another_was_accepted(stage: Stage, tool: str) -> None:
    with psycopg.connect(stage.engine.parts.address.owner, autocommit=True) as connection:
        connection.execute("update outside_tool set digest = repeat('0', 64) where tool = %s", (tool,))


async def _accept_tool(stage: Stage) -> World:
    _words(stage, stage.word, "does something")
    return World({"server": "outside", "tool": stage.word}, lambda: _words(stage, stage.word, "does something else"))


async def _accept_tool_again(stage: Stage) -> World:
    world = await _accept_tool(stage)
    await stage.succeed("mcp.accept", world.args)
    _words(stage, stage.word, "does it better")
    return world


async def _call_tool(stage: Stage) -> World:
    world = await _accept_tool(stage)
    await stage.succeed("mcp.accept", world.args)
    args: JsonObject = {**world.args, "args": {"text": "hi", "folder": str(stage.folder)}}
    return World(args, lambda: _another_was_accepted(stage, stage.word))


async def _call_repeatable_tool(stage: Stage) -> World:
    args: JsonObject = {"server": "outside", "tool": "put"}
    await stage.succeed("mcp.accept", args)
    given: JsonObject = {"text": "hi", "folder": str(stage.folder)}
    return World({**args, "args": given}, lambda: _another_was_accepted(stage, "put"))


def _host_args(stage: Stage) -> JsonObject:
    """The host key is known, so that nobody needs to be asked for it."""
    key = f"ssh-ed25519 {base64.b64encode(stage.word.encode() * 4).decode()}"
    return {"name": stage.word, "user": "ops", "address": "192.0.2.7", "host_key": key}


async def _host_add(stage: Stage) -> World:
    return World(_host_args(stage), None)


async def _host_add_again(stage: Stage) -> World:
    await stage.succeed("host.add", _host_args(stage))
    await stage.succeed("host.remove", {"name": stage.word})
    return World(_host_args(stage), None)


async def _host_remove(stage: Stage) -> World:
    await stage.succeed("host.add", _host_args(stage))
    return World({"name": stage.word}, None)


def outside_web(server: WebServer) -> JsonObject:
    """What interlock.yaml says of the HTTP service that all worlds share."""
    methods: list[Any] = ["POST", "PUT"]
    declared: JsonObject = {"url": server.url, "private": True, "methods": methods, "paths": ["/write/*"]}
    return {"outside": {**declared, "repeatable_methods": ["PUT"]}}


async def _request(stage: Stage, method: str) -> World:
    source = stage.engine.parts.project

    def declare_anew() -> None:
        declared = source.current.http_destinations["outside"]
        other = declared.model_copy(update={"timeout_seconds": declared.timeout_seconds + 1})
        source.current = source.current.model_copy(update={"http_destinations": {"outside": other}})

    url = f"{source.current.http_destinations['outside'].url}/write/{stage.word}"
    to = str(stage.folder / "written")
    return World({"url": url, "method": method, "query": {"to": to}, "body": "hi\n"}, declare_anew)


async def _http_post(stage: Stage) -> World:
    return await _request(stage, "POST")


async def _http_put(stage: Stage) -> World:
    return await _request(stage, "PUT")


def _token_args(stage: Stage) -> JsonObject:
    made = make_token(os.urandom(ENTROPY_BYTES))
    return {"id": made.id, "name": stage.word, "actor": "service:nightly", "hash": made.sha256, "scopes": ["view:runs"]}


async def _create_token(stage: Stage) -> World:
    return World(_token_args(stage), None)


async def _revoke_token(stage: Stage) -> World:
    args = _token_args(stage)
    await stage.succeed("token.create", args)
    return World({"id": args["id"]}, None)


def _own_table(stage: Stage, columns: str = "id int primary key, n int") -> str:
    stage.shop.execute(
        f"set role owner; create table {stage.word} ({columns}); grant all on {stage.word} to writer;"
        f" insert into {stage.word} values (1, 10), (2, 20)"
    )
    return stage.word


async def _sql_update(stage: Stage) -> World:
    table = _own_table(stage)
    args: JsonObject = {"database": "shop", "sql": f"update {table} set n = n + $1", "parameters": [1]}
    return World(args, lambda: stage.shop.execute(f"update {table} set n = 7 where id = 2"))


async def _sql_insert(stage: Stage) -> World:
    table = _own_table(stage, "id int generated by default as identity (start 3) primary key, n int")
    args: JsonObject = {"database": "shop", "sql": f"insert into {table} (n) select sum(n) from {table}"}
    return World(args, lambda: stage.shop.execute(f"update {table} set n = 7 where id = 2"))


async def _sql_delete(stage: Stage) -> World:
    table = _own_table(stage)
    args: JsonObject = {"database": "shop", "sql": f"delete from {table} where n > 10"}
    return World(args, lambda: stage.shop.execute(f"update {table} set n = 7 where id = 2"))


async def _sql_write_without_key(stage: Stage) -> World:
    table = _own_table(stage, "id int, n int")
    args: JsonObject = {"database": "shop", "sql": f"delete from {table} where n > 10"}
    return World(args, lambda: stage.shop.execute(f"update {table} set n = 7 where id = 2"))


def _migration(stage: Stage) -> Path:
    """A new migration of this world, the only one there is; it makes the table that carries the world's name."""
    folder = stage.engine.parts.locations.project_folder / "migrations"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    stage.shop.execute("drop table if exists interlock_migrations")
    path = folder / f"1_{stage.word}.sql"
    path.write_text(f"create table {stage.word} (a int); insert into {stage.word} values (1)")
    return path


async def _migrate(stage: Stage) -> World:
    path = _migration(stage)
    return World({"database": "shop"}, lambda: path.write_text(f"create table {stage.word} ()"))


async def _migrate_and_back(stage: Stage) -> World:
    path = _migration(stage)
    path.with_suffix(".down.sql").write_text(f"drop table {stage.word}")
    return World({"database": "shop"}, lambda: path.with_suffix(".down.sql").write_text("select 1"))


def _git(folder: Path, *words: str) -> str:
    identity = [word for name in ("user.name=Ann", "user.email=ann@example.org") for word in ("-c", name)]
    command = [shutil.which("git") or "git", *identity, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


async def _git_commit(stage: Stage) -> World:
    _git(stage.folder, "init", "-q", "-b", "main")
    stage.file("first.txt", "one\n")
    _git(stage.folder, "add", "first.txt")
    _git(stage.folder, "commit", "-qm", "first")
    stage.file("first.txt", "two\n")
    _git(stage.folder, "add", "first.txt")

    def stage_more() -> None:
        stage.file("more.txt", "more\n")
        _git(stage.folder, "add", "more.txt")

    args: JsonObject = {"repository": str(stage.folder), "message": "second", "author": "Ann <ann@example.org>"}
    return World(args, stage_more)


async def _git_push(stage: Stage) -> World:
    top = stage.folder / "app"
    _git(stage.folder, "init", "-q", "--bare", "remote.git")
    _git(stage.folder, "init", "-q", "-b", "main", "app")
    _git(top, "commit", "-q", "--allow-empty", "-m", "first")
    _git(top, "remote", "add", "origin", str(stage.folder / "remote.git"))
    return World({"repository": str(top)}, lambda: _git(top, "commit", "-q", "--allow-empty", "-m", "second"))


def _policy(stage: Stage, words: str) -> None:
    """A policy of this world alone, that hinders nobody."""
    folder = stage.engine.parts.locations.project_folder / "policies"
    text = f'@id("world.{stage.word}") @reason("{words}") @risk("low") @effect("forbid")\nforbid'
    (folder / f"{stage.word}.cedar").write_text(f'{text} (principal == Person::"nobody", action, resource is Plan);\n')


async def _apply(stage: Stage) -> World:
    _policy(stage, "first")
    return World({}, lambda: _policy(stage, "second"))


async def _apply_again(stage: Stage) -> World:
    world = await _apply(stage)
    await stage.succeed("policy.apply", {})
    _policy(stage, "third")
    return world


def _service(stage: Stage) -> JsonObject:
    """A service of this world alone is declared; what is returned routes it."""
    source = stage.engine.parts.project
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    made = {"command": ["/bin/true"], "source": {"folder": "/srv/{version}"}, "traffic": {"listen": listen}}
    workloads = {**source.current.workloads, stage.word: ServiceWorkload.model_validate(made)}
    source.current = source.current.model_copy(update={"workloads": workloads})
    return {"workload": stage.word, "shares": {"v1": WHOLE}, "addresses": {"v1": "127.0.0.1:9"}}


async def _route(stage: Stage) -> World:
    return World(_service(stage), None)


async def _route_again(stage: Stage) -> World:
    first = _service(stage)
    await stage.succeed("traffic.route", first)
    plane = stage.envoy

    def route_by_other_hands() -> None:
        now = plane.current(stage.word)
        assert now is not None
        plane.apply(now.model_copy(update={"salt": "another"}))

    addresses: JsonObject = {"v1": "127.0.0.1:9", "v2": "127.0.0.1:10"}
    return World({**first, "shares": {"v1": 9500, "v2": 500}, "addresses": addresses}, route_by_other_hands)


async def _forget_route(stage: Stage) -> World:
    world = await _route_again(stage)
    return World({"workload": stage.word}, world.disturb)


def _shop(stage: Stage) -> Path:
    """A service of this world alone is declared that can be started; its version v1 lies where it is returned."""
    source = stage.engine.parts.project
    folder = stage.folder / "v1"
    folder.mkdir()
    shutil.copyfile(shop_service.__file__, folder / "shop.py")
    made = {
        "command": [sys.executable, "-S", "{source}/shop.py", "--port", "{port}", "--version", "{version}"],
        "source": {"folder": str(stage.folder / "{version}")},
        "health": {"interval_seconds": 0.05, "deadline_seconds": 20},
        "traffic": {"listen": "127.0.0.1:9"},
    }
    workloads = {**source.current.workloads, stage.word: ServiceWorkload.model_validate(made)}
    source.current = source.current.model_copy(update={"workloads": workloads})
    return folder


async def start_version(stage: Stage) -> World:
    folder = _shop(stage)
    return World({"workload": stage.word, "version": "v1"}, lambda: (folder / "more.py").write_text("more = 1\n"))


async def stop_version(stage: Stage) -> World:
    args = (await start_version(stage)).args
    await stage.succeed("service.start", args)

    def started_by_other_hands() -> None:
        with psycopg.connect(stage.engine.parts.address.owner, autocommit=True) as connection:
            connection.execute(
                "update service_instance set spec = jsonb_set(spec, '{identity}', '\"sha256:0123456789\"')"
                " where workload = %s",
                (stage.word,),
            )

    return World(args, started_by_other_hands)


async def _restart_version(stage: Stage) -> World:
    world = await stop_version(stage)
    return World({"workload": stage.word}, world.disturb)


WORLDS: dict[str, tuple[Callable[[Stage], Awaitable[World]], ...]] = {
    "command.exec": (_command, _unknown_command),
    "file.remove": (_remove,),
    "file.restore": (_restore_replaced, _restore_created),
    "file.write": (_write_new, _write_over),
    "git.commit": (_git_commit,),
    "git.push": (_git_push,),
    "host.add": (_host_add, _host_add_again),
    "host.remove": (_host_remove,),
    "http.request": (_http_post, _http_put),
    "interlock.adopt": (_adopt, _adopt_again),
    "interlock.break_glass": (_break_glass,),
    "interlock.freeze": (_freeze, _freeze_again),
    "interlock.pause_agents": (_pause,),
    "interlock.resume_agents": (_resume,),
    "interlock.undo": (_undo,),
    "interlock.unfreeze": (_unfreeze,),
    "policy.apply": (_apply, _apply_again),
    "schedule.cancel": (_cancel,),
    "schedule.once": (_once,),
    "schedule.pause": (_pause_schedule, _pause_again),
    "schedule.resume": (_resume_schedule,),
    "service.restart": (_restart_version,),
    "service.start": (start_version,),
    "service.stop": (stop_version,),
    "sql.migrate": (_migrate, _migrate_and_back),
    "sql.read": (_sql_read,),
    "sql.write": (_sql_update, _sql_insert, _sql_delete, _sql_write_without_key),
    "mcp.accept": (_accept_tool, _accept_tool_again),
    "mcp.call": (_call_tool, _call_repeatable_tool),
    "target.hold": (_hold,),
    "token.create": (_create_token,),
    "token.revoke": (_revoke_token,),
    "traffic.forget": (_forget_route,),
    "traffic.route": (_route, _route_again),
}


def new_folder(project_folder: Path) -> Path:
    """A folder that no other world has; its name is a word that fits everywhere."""
    folder = Path(os.path.realpath(project_folder)) / "data" / f"w{secrets.token_hex(6)}"
    folder.mkdir(parents=True)
    return folder
