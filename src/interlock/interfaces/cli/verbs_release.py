"""The verbs about releases: deploy, rollback, and `release` with what looks at one and what steers it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import InterlockError, Permanent, Transient
from interlock.interfaces.cli.answer import Answer, write_note
from interlock.interfaces.cli.asking import CONFIRM_HERE, Asking, ask
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.verb import BARE_CONFIRM, verb, verbs
from interlock.interfaces.cli.verbs_ask import Confirm, Reason
from interlock.interfaces.cli.verbs_batch import add_batch_verbs, batch_answer, batch_report, roll_back
from interlock.interfaces.errors import FAILED, NOT_FOUND, NOTHING_DONE_YET, SUCCEEDED, UNRESOLVED
from interlock.interfaces.local.client import Disconnected
from interlock.interfaces.messages import say
from interlock.interfaces.resident_words import error_in_words

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

EXIT_OF_STATE = {"released": SUCCEEDED, "paused": NOTHING_DONE_YET, "frozen": UNRESOLVED}
"""By the state that a release ended or stopped in; `rolled_back`, `failed` and `aborted` count as failed."""
BACK = frozenset({"rolled_back", "failed", "aborted"})
"""What whoever goes back wants."""
LOOK_SECONDS = 10
RESUMES_MAX = 5
LISTED = 20
RESTS = frozenset({"released", "rolled_back", "failed", "aborted", "paused", "frozen"})

app = typer.Typer()
release_app = verbs(
    app,
    "release",
    summary=say("New versions on their way: plan, look, pause, promote, abort."),
    examples=("interlock release plan web v1.4", "interlock release status", "interlock release watch web"),
)

Workload = Annotated[str, typer.Argument(metavar="WORKLOAD", help=say("its name under `workloads` in interlock.yaml"))]
Version = Annotated[str, typer.Argument(metavar="VERSION", help=say("a git ref, a folder's name, a tag or a digest"))]
AtOnce = Annotated[bool, typer.Option("--at-once", help=say("no steps: all users get it when it is healthy"))]
Follow = Annotated[bool, typer.Option("--wait/--no-wait", help=say("stay until it has ended"))]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help=say("why; it stands in the timeline"))]
OfRelease = Annotated[
    int | None, typer.Option("--release", metavar="N", min=1, help=say("not the newest, but this one"))
]


@verb(
    app,
    "deploy",
    summary=say("Release a version of a service step by step, under the judge; anything bad goes back by itself."),
    more=say("The plan says who gets it when, what is watched and how it goes back. Nothing happens until --confirm."),
    examples=(
        "interlock deploy web v1.4",
        "interlock deploy web v1.4 --confirm --no-wait",
        "interlock deploy web v1.4 --at-once --confirm --reason 'nobody comes at night'",
    ),
)
def deploy(
    caller: Caller,
    workload: Workload,
    version: Version,
    *,
    at_once: AtOnce = False,
    reason: Reason = None,
    confirm: Confirm = None,
    wait: Follow = True,
) -> Answer:
    """`release.start`, and then its way."""
    return _start(caller, ["deploy"], workload, version, at_once, reason, confirm, wait=wait)


@verb(
    app,
    "rollback",
    summary=say("Give all users the version before again, at once; in a freeze too."),
    more=say("Works while a release is on its way, and after it for as long as the version before is kept running."),
    examples=("interlock rollback web", 'interlock rollback web --reason "customers cannot check out"'),
)
def rollback(
    caller: Caller,
    workload: Workload,
    *,
    reason: Why = "rolled back by hand",
    accept_irreversible: Annotated[
        bool, typer.Option("--accept-irreversible", help=say("although the project says that there is no way back"))
    ] = False,
    confirm: Confirm = None,
    wait: Follow = True,
) -> Answer:
    """`release.rollback`: whoever types it means it, unless there is no way back that anybody promised."""
    if batch_answer(caller, workload) is not None:
        return roll_back(caller, workload, reason, confirm)
    args: dict[str, object] = {"workload": workload, "reason": reason}
    words = ["rollback", workload, "--reason", reason]
    if accept_irreversible:
        args["accept_irreversible"] = True
        words.append("--accept-irreversible")
    elif confirm is None:
        confirm = BARE_CONFIRM
    known = caller.view("releases", workload=workload).records("timeline")
    after = max((line.number("id") for line in known), default=0)
    return _order(caller, "release.rollback", args, words, confirm, wait=wait, after=after, wanted=BACK)


@verb(
    release_app,
    "plan",
    group="release",
    summary=say("What releasing a version would do; nothing is done."),
    examples=("interlock release plan web v1.4",),
)
def plan(caller: Caller, workload: Workload, version: Version, *, at_once: AtOnce = False) -> Answer:
    """`release.start`, unconfirmed."""
    params: dict[str, object] = {"ask": {"action": "release.start", "args": _args(workload, version, at_once)}}
    _tell_of_disk(caller)
    result = caller.call("propose", params)
    proposal = result.record("proposal") or result

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.plan import show_plan

        show_plan(screen, proposal)

    return Answer(data={"proposal": dict(proposal.data)}, next=[f"interlock deploy {workload} {version}"], show=show)


@verb(
    release_app,
    "start",
    group="release",
    summary=say("The same as `deploy`, without staying."),
    examples=("interlock release start web v1.4 --confirm",),
)
def start(
    caller: Caller,
    workload: Workload,
    version: Version,
    *,
    at_once: AtOnce = False,
    reason: Reason = None,
    confirm: Confirm = None,
) -> Answer:
    """`release.start`."""
    return _start(caller, ["release", "start"], workload, version, at_once, reason, confirm, wait=False)


@verb(
    release_app,
    "status",
    group="release",
    summary=say("Where releases stand: all workloads, or one with its timeline."),
    examples=("interlock release status", "interlock release status web", "interlock release status web --output json"),
)
def status(
    caller: Caller,
    workload: Annotated[str | None, typer.Argument(metavar="WORKLOAD", help=say("only this one"))] = None,
    *,
    release: OfRelease = None,
) -> Answer:
    """Newest first."""
    batch = batch_answer(caller, workload) if workload is not None else None
    if batch is not None:
        return batch
    if workload is None and release is None:
        return _standings(caller)
    data = caller.view("releases", workload=workload, release=release)
    found = data.records("releases")
    if not found:
        caller.view("traffic", workload=workload)  # says that there is no such workload

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_release import show_release

        show_release(screen, data)

    following = [f"interlock release watch {found[0].text('workload')}"] if found and not found[0].flag("over") else []
    return Answer(data=dict(data.data), next=following, show=show)


@verb(
    release_app,
    "watch",
    group="release",
    summary=say("Follow a release until it has ended, or waits for a person."),
    more=say("Ends with 0 when it was released, 8 when it waits, 20 when it is frozen, otherwise with 1."),
    examples=("interlock release watch web",),
)
def watch(caller: Caller, workload: Workload, *, release: OfRelease = None) -> Answer:
    """The newest one of a workload."""
    return _follow(caller, workload, release)


@verb(
    release_app,
    "pause",
    group="release",
    summary=say("Stop a release where it is; what is bad still goes back by itself."),
    examples=('interlock release pause web --reason "looking at an odd log"',),
)
def pause(caller: Caller, workload: Workload, *, reason: Why = "paused by hand", confirm: Confirm = None) -> Answer:
    """`release.pause`."""
    return _steer(caller, "pause", workload, reason, confirm if confirm is not None else BARE_CONFIRM)


@verb(
    release_app,
    "resume",
    group="release",
    summary=say("Let a release that was paused or frozen go on from where it stands."),
    examples=('interlock release resume web --reason "the log was harmless"',),
)
def resume(caller: Caller, workload: Workload, *, reason: Why = "resumed by hand", confirm: Confirm = None) -> Answer:
    """`release.resume`."""
    return _steer(caller, "resume", workload, reason, confirm)


@verb(
    release_app,
    "promote",
    group="release",
    summary=say("Take a release to its next step now, whatever the judge still waits for."),
    examples=("interlock release promote web", 'interlock release promote web --full --reason "cannot wait"'),
)
def promote(
    caller: Caller,
    workload: Workload,
    *,
    full: Annotated[bool, typer.Option("--full", help=say("to all users"))] = False,
    reason: Why = "promoted by hand",
    confirm: Confirm = None,
) -> Answer:
    """`release.promote`."""
    return _steer(caller, "promote", workload, reason, confirm, full=full)


@verb(
    release_app,
    "abort",
    group="release",
    summary=say("End a release that is on its way; all users have the version before."),
    examples=('interlock release abort web --reason "superseded"',),
)
def abort(caller: Caller, workload: Workload, *, reason: Why = "aborted by hand", confirm: Confirm = None) -> Answer:
    """`release.abort`: whoever types it means it."""
    return _steer(caller, "abort", workload, reason, confirm if confirm is not None else BARE_CONFIRM)


@verb(
    release_app,
    "report",
    group="release",
    summary=say("What was seen, when, and with what evidence."),
    examples=("interlock release report web", "interlock release report web --release 7 > report.md"),
)
def report(caller: Caller, workload: Workload, *, release: OfRelease = None) -> Answer:
    """As Markdown."""
    if batch_answer(caller, workload) is not None:
        return batch_report(caller, workload)
    data = caller.view("release_report", workload=workload, release=release)
    files = data.texts("files")

    def show(screen: Screen) -> None:
        screen.raw(data.text("text"))

    kept = [say("kept as {path}", path=path) for path in files[:1]] if caller.table else []
    return Answer(data=dict(data.data), warnings=kept, show=show)


@verb(
    release_app,
    "compare",
    group="release",
    summary=say("Both versions beside each other: requests, errors, latency, and answers that differ."),
    examples=("interlock release compare web",),
)
def compare(caller: Caller, workload: Workload, *, release: OfRelease = None) -> Answer:
    """Over the whole release."""
    batch = batch_answer(caller, workload)
    if batch is not None:
        return batch
    data = caller.view("release_compare", workload=workload, release=release)

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_release import show_comparison

        show_comparison(screen, data)

    return Answer(data=dict(data.data), show=show)


add_batch_verbs(release_app)


def _standings(caller: Caller) -> Answer:
    """All workloads, a line each, and the newest releases."""
    from interlock.interfaces.cli.standing import read_standings

    found = read_standings(caller)

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_release import show_releases, show_workloads

        show_workloads(screen, found)
        if found.releases:
            screen.blank()
            show_releases(screen, [*found.releases][:LISTED])

    data = {
        "workloads": [each.to_json() for each in found.workloads],
        "releases": [dict(each.data) for each in found.releases[:LISTED]],
    }
    following = [f"interlock release watch {each.text('workload')}" for each in found.active]
    return Answer(data=data, next=following, show=show)


def _args(workload: str, version: str, at_once: bool) -> dict[str, object]:
    return {"workload": workload, "version": version, **({"at_once": True} if at_once else {})}


def _start(
    caller: Caller,
    verb_words: list[str],
    workload: str,
    version: str,
    at_once: bool,
    reason: str | None,
    confirm: str | None,
    *,
    wait: bool,
) -> Answer:
    words = [*verb_words, workload, version, *(["--at-once"] if at_once else [])]
    words += ["--reason", reason] if reason is not None else []
    args = _args(workload, version, at_once)
    return _order(caller, "release.start", args, words, confirm, wait=wait, reason=reason)


def _steer(
    caller: Caller, order: str, workload: str, reason: str, confirm: str | None, *, full: bool = False
) -> Answer:
    args: dict[str, object] = {"workload": workload, "reason": reason, **({"full": True} if full else {})}
    words = ["release", order, workload, "--reason", reason, *(["--full"] if full else [])]
    return _order(caller, f"release.{order}", args, words, confirm, wait=False)


def _order(
    caller: Caller,
    action: str,
    args: dict[str, object],
    words: list[str],
    confirm: str | None,
    *,
    wait: bool,
    reason: str | None = None,
    after: int = 0,
    wanted: frozenset[str] = frozenset(),
) -> Answer:
    """Ask; when that was done and somebody stays, follow the release."""
    told = reason or args.get("reason")
    params: dict[str, object] = {"ask": {"action": action, "args": args, "reason": told}}
    workload = str(args["workload"])
    begins = action == "release.start"
    if begins:
        _tell_of_disk(caller)
    try:
        answer = ask(caller, Asking("submit", params, [*words, CONFIRM_HERE], confirm=confirm, closing=not begins))
    except Disconnected as error:
        return _lost(caller, workload, error)
    if answer.status != "succeeded":
        return answer
    if begins:
        _tell_beginning(caller, workload)
    if not wait:
        answer.next = [f"interlock release watch {workload}", f"interlock release status {workload}"]
        return answer
    return _follow(caller, workload, None, after, wanted)


def _tell_of_disk(caller: Caller) -> None:
    """Before anything is asked: what is released is what is in force, whatever interlock.yaml says by now."""
    from interlock.interfaces.cli.on_disk import words_about_disk

    for warning in words_about_disk(caller):
        write_note(warning)


def _tell_beginning(caller: Caller, workload: str) -> None:
    """That a Run succeeded which only records the release would be read as if the release had."""
    found = _view(caller, "releases", {"workload": workload}).records("releases")
    if caller.table and found:
        sys.stdout.flush()
        number, version, run = found[0].number("number"), found[0].text("candidate"), found[0].number("run")
        write_note(
            say(
                "release {number} of {name} to {version} began (Run {run})",
                number=number,
                name=workload,
                version=version,
                run=run,
            )
        )


def _lost(caller: Caller, workload: str, error: InterlockError, number: int | None = None) -> Answer:
    """Nobody answers any more. What was begun goes on, or stands where it stood, once Interlock runs again."""
    caller.close()
    told = (
        say("release {number} of {name} goes on when it runs again", number=number, name=workload)
        if number is not None
        else say("whether the release began is not known here")
    )
    return Answer(
        status="unknown",
        exit_code=NOTHING_DONE_YET,
        data=None if caller.table else {"error": error.to_json()},
        warnings=[error_in_words(error.code, error.message), told],
        next=[f"interlock release watch {workload}", f"interlock release status {workload}"],
    )


def _follow(
    caller: Caller, workload: str, number: int | None, after: int = 0, wanted: frozenset[str] = frozenset()
) -> Answer:
    """Its timeline as it grows, behind the line `after`, until it rests; `wanted` are ends that are no failure."""
    try:
        return _followed(caller, workload, number, after, wanted)
    except (Transient, Permanent) as error:
        return _lost(caller, workload, error, caller.release[1] if caller.release is not None else number)


def _followed(caller: Caller, workload: str, number: int | None, after: int, wanted: frozenset[str]) -> Answer:
    """Raises Transient or Permanent when the resident process went away and does not come back."""
    from interlock.interfaces.cli.show_release import Progress

    args: dict[str, object] = {"workload": workload, **({"release": number} if number is not None else {})}
    data = _view(caller, "releases", args)
    if not data.records("releases"):
        return Answer(
            status="not_found", exit_code=NOT_FOUND, warnings=[say("{name} was never released", name=workload)]
        )
    found = data.records("releases")[0]
    number = found.number("number")
    caller.release = (workload, number)
    lines: list[object] = []
    with Progress(shown=caller.table, colour=caller.colour) as progress:
        while True:
            since: dict[str, object] = {"release": number, "after": after, "wait_seconds": LOOK_SECONDS}
            told = _view(caller, "release_timeline", since)
            found = told.record("release")
            for line in told.records("lines"):
                after = line.number("id")
                lines.append(dict(line.data))
                progress.say(line)
            progress.stand(found)
            if found.text("state") in RESTS:
                break
    caller.release = None
    return _ended(caller, found, lines, wanted)


def _view(caller: Caller, name: str, args: dict[str, object]) -> Record:
    """A view while somebody follows; a resident process that went away and is started anew is asked again."""
    patience = say("following release {number}", number=str(args.get("release") or ""))
    for _ in range(RESUMES_MAX):
        try:
            return caller.call("view", {"name": name, "args": args}, patience=patience).record("data")
        except Disconnected:
            caller.close()
    return caller.call("view", {"name": name, "args": args}, patience=patience).record("data")


def _ended(caller: Caller, found: Record, lines: list[object], wanted: frozenset[str]) -> Answer:
    state, workload = found.text("state"), found.text("workload")
    following = {
        "paused": [f"interlock release resume {workload}", f"interlock release abort {workload}"],
        "frozen": [f"interlock release report {workload}", f"interlock release promote {workload}"],
        "released": [
            f"interlock rollback {workload}" if found.text("stable") else f"interlock release report {workload}"
        ],
    }.get(state, [f"interlock release report {workload}"])
    code = (SUCCEEDED if state in wanted else FAILED) if wanted else EXIT_OF_STATE.get(state, FAILED)
    answer = Answer(status=state, exit_code=code, next=following)
    if not caller.table:
        answer.data = {"release": dict(found.data), "timeline": lines}
    return answer
