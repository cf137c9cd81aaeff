"""The verbs about evidence and data: audit show, verify, export and receipt; backup and restore."""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import Conflict, InterlockError, Invalid, NotFound, Permanent, Transient
from interlock.interfaces.cli.answer import Answer, write_note
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.complete import complete_run
from interlock.interfaces.cli.prompt import confirm
from interlock.interfaces.cli.resident import attach
from interlock.interfaces.cli.terminal import visible_json
from interlock.interfaces.cli.verb import verb, verbs
from interlock.interfaces.errors import FAILED, NOTHING_DONE_YET
from interlock.interfaces.messages import say
from interlock.settings import Locations, Settings

if TYPE_CHECKING:
    from interlock.core.model import JsonObject
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()
audit = verbs(
    app,
    "audit",
    summary=say("Evidence: show it, verify it, hand it to somebody else."),
    examples=("interlock audit verify", "interlock audit export evidence.tar.gz"),
)

SINCE_BYTES_MAX = 1024 * 1024

Since = Annotated[
    Path | None, typer.Option(metavar="FILE", help=say("a checkpoint or receipt that was kept elsewhere"))
]
RunNumber = Annotated[
    int, typer.Argument(metavar="N", min=1, autocompletion=complete_run, help=say("the Run's number"))
]
MaybeRun = Annotated[
    int | None, typer.Argument(metavar="N", min=1, autocompletion=complete_run, help=say("only this Run"))
]


@verb(
    audit,
    "show",
    group="audit",
    summary=say("The latest checkpoint, to be kept elsewhere; or the evidence of one Run."),
    examples=("interlock audit show > checkpoint.txt", "interlock audit show 12"),
)
def show(caller: Caller, run: MaybeRun = None) -> Answer:
    """A few lines of text that bind everything before them."""
    if run is not None:
        evidence = caller.view("evidence", run=run)

        def draw(screen: Screen) -> None:
            from interlock.interfaces.cli.show_run import show_evidence

            show_evidence(screen, evidence.records("rows"))

        return Answer(data=dict(evidence.data), show=draw)
    found = caller.call("audit_verify", timeout_seconds=None, patience=say("reading the log"))
    note = found.text("note") or found.text("checkpoint")
    if not note:
        msg = "nothing has been sealed yet, so there is no checkpoint"
        raise NotFound(msg, code="audit.empty", fix="interlock exec -- uptime")

    def write(screen: Screen) -> None:
        for line in note.splitlines():
            screen.line(line)

    return Answer(data={"checkpoint": note, "size": found.number("size")}, show=write)


@verb(
    audit,
    "verify",
    group="audit",
    summary=say("Recompute every chain, the tree and every checkpoint."),
    more=say("Exit code 0: intact. 1: tampered with, and it says where. Anything else: it could not be checked."),
    examples=(
        "interlock audit verify",
        "interlock audit verify --since checkpoint.txt",
        "interlock audit verify evidence.tar.gz --since checkpoint.txt",
    ),
)
def verify(
    caller: Caller,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help=say("an export; without it the log itself")),
    ] = None,
    *,
    since: Since = None,
) -> Answer:
    """Of the whole log, or of an export from anywhere."""
    if file is not None:
        return _verify_export(file, since)
    params: dict[str, object] = {"since": _read_since(since)} if since is not None else {}
    try:
        found = caller.call("audit_verify", params, timeout_seconds=None, patience=say("verifying the log"))
    except (Permanent, Transient) as error:
        # Their own exit code is that of a log which was tampered with, and nobody has found that.
        msg = f"the log could not be checked: {error.message}"
        raise Conflict(msg, code=error.code, fix=error.fix, details=error.details) from error
    intact = found.flag("intact") or found.flag("ok")
    status = "tampered" if not intact else "intact" if found.number("rows") else "empty"

    def draw(screen: Screen) -> None:
        from interlock.interfaces.cli.show_audit import show_verification

        show_verification(screen, found, intact=intact)

    return Answer(status=status, data=dict(found.data), exit_code=0 if intact else FAILED, show=draw)


def _verify_export(file: Path, since: Path | None) -> Answer:
    """What the stand-alone verifier of this installation says; neither a project nor a resident process is needed."""
    from interlock.engine.audit import verify_bundle

    if not file.exists():
        msg = f"there is no file {file}"
        raise NotFound(msg, code="file.missing")
    said = StringIO()
    with redirect_stdout(said):
        code = verify_bundle.main([str(file), *(["--since", str(since)] if since is not None else [])])
    status = {verify_bundle.INTACT: "intact", verify_bundle.TAMPERED: "tampered"}.get(code, "unchecked")
    text = said.getvalue()
    return Answer(
        status=status,
        data={"file": str(file), "intact": code == verify_bundle.INTACT, "report": text.splitlines()},
        exit_code=code,
        show=lambda screen: screen.raw(text.removesuffix("\n")),
    )


@verb(
    audit,
    "export",
    group="audit",
    summary=say("Write an archive of the evidence that verifies offline, without Interlock."),
    examples=(
        "interlock audit export evidence.tar.gz",
        "interlock audit export run-12.tar.gz --run 12",
        "interlock audit export --since checkpoint.txt",
    ),
)
def export(
    caller: Caller,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help=say("where to write it: a new file, or a folder for one of the usual name")
        ),
    ] = None,
    *,
    run: Annotated[int | None, typer.Option(metavar="N", min=1, help=say("only this Run"))] = None,
    since: Since = None,
) -> Answer:
    """All of it, or one Run."""
    params: dict[str, object] = {}
    if run is not None:
        params["run"] = run
    if since is not None:
        params["since"] = _read_since(since)
    return _receive(caller, "audit_export", params, file, say("collecting the evidence"))


@verb(
    audit,
    "receipt",
    group="audit",
    summary=say("A proof about one Run, small enough for a ticket or a mail."),
    examples=("interlock audit receipt 12 > run-12.json", "interlock audit verify --since run-12.json"),
)
def receipt(caller: Caller, run: RunNumber) -> Answer:
    """Its rows, with proofs and a checkpoint."""
    found = caller.call("receipt", {"run": run})
    receipt_json = json.dumps(found.data.get("receipt"), indent=1, sort_keys=True, ensure_ascii=False)
    text = visible_json(receipt_json)

    def write(screen: Screen) -> None:
        screen.raw(text)

    return Answer(data=dict(found.data), show=write)


@verb(
    app,
    "backup",
    summary=say("Write database, keys and bodies into one archive; whoever has it can read everything."),
    examples=("interlock backup", "interlock backup /backup/interlock.tar.gz"),
)
def backup(
    caller: Caller,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help=say("where to write it: a new file, or a folder for one of the usual name")
        ),
    ] = None,
) -> Answer:
    """At one moment, while everything goes on."""
    return _receive(caller, "backup", {}, file, say("making the backup"))


@verb(
    app,
    "restore",
    summary=say("Bring back what a backup holds; Interlock must not be running."),
    more=say("It refuses to write over an installation that has data, unless --replace is given."),
    examples=("interlock stop && interlock restore /backup/interlock.tar.gz",),
)
def restore(
    caller: Caller,
    file: Annotated[Path, typer.Argument(metavar="FILE", help=say("the backup"))],
    *,
    replace: Annotated[bool, typer.Option("--replace", help=say("put what is there aside and restore"))] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=say("do not ask"))] = False,
) -> Answer:
    """Offline, by the account that runs Interlock."""
    if not file.is_file():
        msg = f"there is no file {file}"
        raise NotFound(msg, code="file.missing")
    locations, settings = caller.locations(), caller.settings
    running = attach(locations)
    if running is not None:
        running.connection.close()
        msg = "Interlock is running, and nothing is restored under its feet"
        raise Conflict(msg, code="restore.running", fix="interlock stop")
    if not yes and not (caller.interactive and confirm(say("Restore {file}?", file=file))):
        answer = Answer(status="proposed", exit_code=NOTHING_DONE_YET, warnings=[say("nothing was restored")])
        answer.next = [f"interlock restore {'--replace ' if replace else ''}{file} --yes"]
        return answer
    manifest, aside = _restore(file.absolute(), locations, settings, replace=replace)

    def write(screen: Screen) -> None:
        screen.line(say("restored {file}", file=file))
        if aside is not None:
            screen.quiet(say("what was there before lies in {folder}", folder=aside))

    return Answer(
        data={"manifest": manifest, "aside": str(aside) if aside else None},
        next=["interlock audit verify", "interlock status"],
        show=write,
    )


def _restore(
    archive: Path, locations: Locations, settings: Settings, *, replace: bool
) -> tuple[JsonObject, Path | None]:
    """Restore, and with `replace` put what is there aside; when the restore fails, it is put back.

    Nothing is moved before the whole archive has been unpacked once and found sound.
    """
    from interlock.bootstrap import restore
    from interlock.bootstrap.restoring import carry_over
    from interlock.engine.backup import verify_backup

    aside = None
    if replace and locations.state_folder.exists():
        verify_backup(archive, locations.state_folder.parent)
        aside = _put_aside(locations, settings)
    try:
        manifest = restore(archive, locations, settings.database_url, settings.database_owner_url)
    except BaseException:
        if aside is not None:
            _put_back(aside, locations, settings)
        raise
    if aside is not None:
        carry_over(aside, locations.state_folder)
    return manifest, aside


def _put_back(aside: Path, locations: Locations, settings: Settings) -> None:
    """Undo `_put_aside`: what the failed restore left goes, and what was there stands where it stood.

    Raises: Permanent when that fails as well; the message says where the old state lies.
    """
    from interlock.bootstrap import remove_database

    try:
        if settings.database_url is None:
            remove_database(locations)
        if locations.state_folder.exists():
            shutil.rmtree(locations.state_folder)
        aside.rename(locations.state_folder)
    except (OSError, InterlockError) as error:
        msg = f"the restore failed, and what was there before lies unharmed in {aside}: {error}"
        fix = f"move it back: rm -r {locations.state_folder}; mv {aside} {locations.state_folder}"
        raise Permanent(msg, code="restore.put_back", fix=fix) from error
    write_note(say("the restore failed; what was there before is back in {folder}", folder=locations.state_folder))


def _put_aside(locations: Locations, settings: Settings) -> Path | None:
    """Move what is there out of the way, under a name that is free; its database server is stopped first."""
    from interlock.bootstrap import embedded_server

    state_folder = locations.state_folder
    if not state_folder.exists():
        return None
    if settings.database_url is None:
        embedded_server(locations, write_note).stop()
    names = (state_folder.with_name(f"{state_folder.name}.before-{number}") for number in range(1, 1000))
    aside = next((name for name in names if not name.exists()), None)
    if aside is None:
        msg = f"there are too many folders beside {state_folder} already"
        raise Conflict(msg, code="restore.aside", fix="remove those that nobody needs")
    try:
        return state_folder.rename(aside)
    except OSError as error:
        msg = f"{state_folder} cannot be put aside: {error.strerror or error}"
        raise Permanent(msg, code="restore.aside", fix=f"let this account write {state_folder.parent}") from error


def _read_since(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        msg = f"there is no file {file}"
        raise NotFound(msg, code="file.missing") from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file} cannot be read: {error}"
        raise Invalid(msg, code="file.unreadable") from error
    if len(text) > SINCE_BYTES_MAX:
        msg = f"{file} is too large for a checkpoint or a receipt"
        raise Invalid(msg, code="audit.since")
    return text


def _receive(caller: Caller, method: str, params: dict[str, object], file: Path | None, patience: str) -> Answer:
    """Write an archive that is sent in pieces: 0600, complete or not at all."""
    named = None if file is None or file.is_dir() else file.absolute()
    folder = (named.parent if named is not None else file or Path.cwd()).absolute()
    if named is not None:
        _require_free(named)
    part = folder / f".interlock-{os.getpid()}.part"
    with ExitStack() as undo:
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            msg = f"{folder} cannot be written to: {error.strerror or error}"
            raise Invalid(msg, code="file.unwritable", fix="name another FILE") from error
        undo.callback(part.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as body:
            result = caller.call(method, params, on_progress=_into(body), timeout_seconds=None, patience=patience)
            body.flush()
            os.fsync(body.fileno())
        path = named or folder / Path(result.text("name")).name
        _require_free(path)
        if part.stat().st_size != result.number("bytes"):
            msg = f"{part.stat().st_size} bytes came, and {result.number('bytes')} were announced"
            raise Permanent(msg, code="transfer.size", fix="ask again")
        part.rename(path)
        undo.pop_all()

    def write(screen: Screen) -> None:
        screen.line(str(path))
        screen.quiet(f"{result.number('bytes'):,} bytes, sha256 {result.text('sha256')}")

    return Answer(data={**result.data, "path": str(path)}, show=write)


def _require_free(path: Path) -> None:
    """Raise Conflict where a file, a device or a link of that name is: nothing is written over."""
    if os.path.lexists(path):
        msg = f"{path} exists"
        raise Conflict(msg, code="file.exists", fix="name another FILE, or remove that one")


def _into(body: IO[bytes]) -> Callable[[dict[str, object]], None]:
    def heard(progress: dict[str, object]) -> None:
        chunk = progress.get("chunk")
        if isinstance(chunk, str):
            try:
                body.write(base64.b64decode(chunk, validate=True))
            except binascii.Error as error:
                msg = "a piece of the archive arrived damaged"
                raise Permanent(msg, code="transfer.damaged", fix="ask again") from error

    return heard
