"""The verb that looks at everything: doctor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from interlock import __version__
from interlock.core.errors import InterlockError
from interlock.interfaces.cli.answer import Answer, write_note
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.patience import Patience
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.resident import Resident, attach
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.errors import FAILED, NOTHING_DONE_YET
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()


@verb(
    app,
    "doctor",
    summary=say("Look at everything that may be wrong with machine and installation; each finding names its command."),
    more=say("Nothing is changed. Exit code 1 when something is wrong. It needs no resident process, and starts none."),
    examples=("interlock doctor", "interlock doctor --output json", "interlock doctor --remove-orphans"),
)
def doctor(
    caller: Caller,
    *,
    remove_orphans: Annotated[
        bool, typer.Option("--remove-orphans", help=say("delete embedded databases whose project is gone; asks first"))
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=say("do not ask"))] = False,
) -> Answer:
    """Tools, rights, clock, disk, database, policies, keys, log, HTTP, reach, versions, sockets, clusters."""
    if remove_orphans:
        return _remove_orphans(caller, sure=yes)
    findings = _examined(caller)
    wrong = any(finding.text("level") == "error" for finding in findings)
    data = {"findings": [dict(finding.data) for finding in findings], "version": __version__}

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_doctor import show_examination

        show_examination(screen, findings)

    return Answer(status="failed" if wrong else "ok", data=data, exit_code=FAILED if wrong else 0, show=show)


def _examined(caller: Caller) -> list[Record]:
    try:
        resident = attach(caller.locations())
    except InterlockError as error:
        why = say("no other verb works from here while this is so")
        found = [_finding("error", "resident", error.message, why, error.fix or "interlock status")]
        return [*found, *_without_resident(caller)]
    if resident is None:
        return _without_resident(caller)
    # Not as other verbs ask: those would replace an older process first, and this one changes nothing.
    try:
        with Patience(say("looking")):
            answer = resident.connection.call("doctor", acting_as=caller.acting_as)
    except InterlockError as error:
        if error.code != "method.unknown":
            raise
        return [_versions(resident), *_without_resident(caller)]
    finally:
        resident.connection.close()
    return [_versions(resident), *Record(answer).records("findings")]


def _without_resident(caller: Caller) -> list[Record]:
    from interlock.bootstrap.doctor import examine_machine
    from interlock.interfaces.cli.verbs_config import chosen_environment

    settings = caller.settings
    with Patience(say("looking")):
        found = examine_machine(
            caller.locations(),
            chosen_environment(caller, None)[0],
            settings.database_url,
            settings.database_owner_url,
        )
    return [
        _finding("ok", "resident", say("Interlock does not run here")),
        *(Record(each.model_dump()) for each in found),
    ]


def _versions(resident: Resident) -> Record:
    theirs = resident.hello.text("version")
    if theirs == __version__:
        return _finding("ok", "resident", say("Interlock {version} runs here", version=theirs))
    message = say("Interlock {theirs} still runs here, and this is {ours}", theirs=theirs, ours=__version__)
    why = say("what was mended since is not in force yet")
    return _finding("warning", "resident", message, why, "interlock stop; interlock status")


def _finding(level: str, area: str, message: str, why: str = "", command: str | None = None) -> Record:
    return Record({"level": level, "area": area, "message": message, "why": why, "command": command})


def _remove_orphans(caller: Caller, *, sure: bool) -> Answer:
    """Shows what would be deleted, asks, and deletes what is an orphan still."""
    from interlock.bootstrap.doctor import orphaned_clusters, remove_cluster
    from interlock.interfaces.cli.prompt import confirm

    found = orphaned_clusters()
    idle = [cluster for cluster in found if not cluster.running]
    data: dict[str, object] = {
        "orphans": [
            {
                "folder": str(cluster.folder),
                "origin": str(cluster.origin),
                "bytes": cluster.bytes,
                "running": cluster.running,
            }
            for cluster in found
        ],
        "removed": [],
    }
    if os.geteuid() != 0 or not idle:
        write_note(say("no embedded database is without its project"))
        return Answer(data=data)
    for cluster in idle:
        size = cluster.bytes // 2**20
        write_note(
            say("{folder} ({size} MiB), made for {origin}", folder=cluster.folder, size=size, origin=cluster.origin)
        )
    write_note(say("A project that was moved or is not mounted looks the same: start it once, and it is not listed."))
    if not sure and not (caller.interactive and confirm(say("Delete them for good?"))):
        return Answer(
            status="proposed",
            data=data,
            exit_code=NOTHING_DONE_YET,
            warnings=[say("nothing was deleted")],
            next=["interlock doctor --remove-orphans --yes"],
        )
    removed = []
    for cluster in idle:
        remove_cluster(cluster.folder)
        removed.append(str(cluster.folder))
    data["removed"] = removed
    return Answer(status="removed", data=data)
