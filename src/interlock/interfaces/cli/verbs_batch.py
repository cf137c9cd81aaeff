"""The verbs about versions of batch jobs, under `release`: run, shadow, cutover, rollback, golden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import Invalid
from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.asking import CONFIRM_HERE, Asking, ask
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.verb import BARE_CONFIRM, verb, verbs
from interlock.interfaces.cli.verbs_ask import Confirm, Reason, Wait
from interlock.interfaces.errors import FAILED
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

GROUP = "release"

Job = Annotated[str, typer.Argument(metavar="REPORT", help=say("a batch job under `workloads` in interlock.yaml"))]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[VERSION] [--PARAMETER VALUE]...", help=say("a version, and the job's own parameters")),
]
Values = Annotated[
    list[str] | None, typer.Argument(metavar="[--PARAMETER VALUE]...", help=say("the job's own parameters"))
]
Against = Annotated[
    str | None, typer.Option(metavar="VERSION", help=say("held against this version, and not the one in force"))
]
Percent = Annotated[
    float, typer.Option("--percent", metavar="PERCENT", help=say("which share of the invocations gets it; 100 is all"))
]
Unproven = Annotated[bool, typer.Option("--unproven", help=say("although no comparison says GO"))]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help=say("why; it stands in the report"))]
PutBack = Annotated[bool, typer.Option("--restore-outputs", help=say("also put back what lay where it wrote"))]


def add_batch_verbs(release: typer.Typer) -> None:
    """Register all of them under `release`."""
    _add_run(release)
    _add_shadow(release)
    _add_cutover(release)
    _add_rollback(release)
    _add_golden(release)


def _add_run(release: typer.Typer) -> None:
    @verb(
        release,
        "run",
        group=GROUP,
        summary=say("Run a batch job with the version that this invocation gets."),
        more=say("Which one depends on the parameters alone, so that the same invocation always gets the same."),
        examples=("interlock release run monthly-report --target-month 202602 --confirm",),
        takes_parameters=True,
    )
    def run(
        caller: Caller,
        workload: Job,
        values: Values = None,
        *,
        reason: Reason = None,
        confirm: Confirm = None,
        wait: Wait = True,
    ) -> Answer:
        """`batch.run`."""
        words = ["release", "run", workload, *(values or [])]
        args: dict[str, object] = {"workload": workload, "arguments": parameters(values or [])}
        return _order(caller, "batch.run", args, words, confirm, wait=wait, reason=reason)


def _add_shadow(release: typer.Typer) -> None:
    @verb(
        release,
        "shadow",
        group=GROUP,
        summary=say("Run two versions of a batch job on one input, kept from any effect, and compare what they wrote."),
        more=say("Ends with 0 unless something stops the version. Without VERSION it is the one that has a share."),
        examples=(
            "interlock release shadow monthly-report v2 --target-month 202602 --confirm",
            "interlock release shadow monthly-report v2 --against v1 --target-month 202602 --confirm",
        ),
        takes_parameters=True,
    )
    def shadow(
        caller: Caller,
        workload: Job,
        words: Words = None,
        *,
        against: Against = None,
        reason: Reason = None,
        confirm: Confirm = None,
    ) -> Answer:
        """`batch.shadow`, and what it found."""
        version, values = _version_apart(words or [])
        args: dict[str, object] = {"workload": workload, "arguments": parameters(values)}
        args |= {"version": version} if version is not None else {}
        args |= {"against": against} if against is not None else {}
        typed = ["release", "shadow", workload, *(words or []), *(["--against", against] if against else [])]
        answer = _order(caller, "batch.shadow", args, typed, confirm, wait=True, reason=reason)
        return _found(caller, workload, answer) if answer.status == "succeeded" else answer


def _add_cutover(release: typer.Typer) -> None:
    @verb(
        release,
        "cutover",
        group=GROUP,
        summary=say("Give a share of a batch job's invocations to a version; with 100 it is the one in force."),
        more=say("Refused unless comparisons say GO. Two failures in a row send it back by themselves."),
        examples=(
            "interlock release cutover monthly-report v2 --percent 20 --confirm",
            "interlock release cutover monthly-report --percent 100 --confirm",
        ),
    )
    def cutover(
        caller: Caller,
        workload: Job,
        version: Annotated[str | None, typer.Argument(metavar="VERSION", help=say("the one on its way"))] = None,
        *,
        percent: Percent = 20.0,
        unproven: Unproven = False,
        reason: Reason = None,
        confirm: Confirm = None,
    ) -> Answer:
        """`batch.cutover`."""
        args: dict[str, object] = {"workload": workload, "percent": percent, "unproven": unproven, "reason": reason}
        args |= {"version": version} if version is not None else {}
        words = ["release", "cutover", workload, *([version] if version else []), "--percent", f"{percent:g}"]
        words += ["--unproven"] if unproven else []
        return _order(caller, "batch.cutover", args, words, confirm, wait=True, reason=reason)


def _add_rollback(release: typer.Typer) -> None:
    @verb(
        release,
        "rollback",
        group=GROUP,
        summary=say("Give all invocations of a batch job to the version before again, at once; in a freeze too."),
        examples=('interlock release rollback monthly-report --reason "output_mismatch"',),
    )
    def rollback(
        caller: Caller,
        workload: Job,
        *,
        reason: Why = "rolled back by hand",
        restore_outputs: PutBack = False,
        confirm: Confirm = None,
    ) -> Answer:
        """`batch.rollback`: whoever types it means it."""
        return roll_back(caller, workload, reason, confirm, restore_outputs=restore_outputs)


def _add_golden(release: typer.Typer) -> None:
    golden = verbs(
        release,
        "golden",
        summary=say("Inputs whose outputs a person accepted: keep them, list them, check a version against them."),
        examples=("interlock release golden check monthly-report v2 --confirm",),
    )

    _add_accept(golden)
    _add_list(golden)
    _add_check(golden)
    _add_remove(golden)


def _add_accept(golden: typer.Typer) -> None:
    @verb(
        golden,
        "accept",
        group=f"{GROUP} golden",
        summary=say("Keep an input and what a version writes for it; whoever asks is who accepts it."),
        more=say("Of a service: a path, with --path, and what a running version answers."),
        examples=(
            'interlock release golden accept web price-of-7 --path /items/7 --reason "as in the price list"',
            'interlock release golden accept monthly-report february --reason "as in the ledger" --target-month 202602',
        ),
        takes_parameters=True,
    )
    def accept(
        caller: Caller,
        workload: Job,
        name: Annotated[str, typer.Argument(metavar="NAME", help=say("what the sample is called"))],
        values: Values = None,
        *,
        reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help=say("why this output is right"))],
        version: Annotated[
            str | None, typer.Option(metavar="VERSION", help=say("run this version, and not the one in force"))
        ] = None,
        path: Annotated[str | None, typer.Option(metavar="PATH", help=say("what a service is asked for"))] = None,
        confirm: Confirm = None,
    ) -> Answer:
        """`batch.accept`, or `golden.accept` of a service."""
        args: dict[str, object] = {"workload": workload, "name": name, "reason": reason}
        args |= {"path": path} if path is not None else {"arguments": parameters(values or [])}
        args |= {"version": version} if version is not None else {}
        words = ["release", "golden", "accept", workload, name, *(values or []), "--reason", reason]
        words += ["--version", version] if version is not None else []
        words += ["--path", path] if path is not None else []
        action = "batch.accept" if path is None else "golden.accept"
        return _order(caller, action, args, words, confirm, wait=True)


def _add_list(golden: typer.Typer) -> None:
    @verb(
        golden,
        "list",
        group=f"{GROUP} golden",
        summary=say("The golden samples of a workload, and who accepted them."),
        examples=("interlock release golden list monthly-report",),
    )
    def listing(caller: Caller, workload: Job) -> Answer:
        """From the view."""
        batches = caller.view("batches", workload=workload).records("batches")
        found = batches[0] if batches else caller.view("golden", workload=workload)

        def show(screen: Screen) -> None:
            from interlock.interfaces.cli.show_batch import show_golden

            show_golden(screen, found)

        return Answer(data={"golden": found.data.get("golden", [])}, show=show)


def _add_check(golden: typer.Typer) -> None:
    @verb(
        golden,
        "check",
        group=f"{GROUP} golden",
        summary=say("Run a version on all golden samples; ends with 1 when one comes out otherwise than accepted."),
        examples=("interlock release golden check monthly-report v2 --confirm",),
    )
    def check(
        caller: Caller,
        workload: Job,
        version: Annotated[str | None, typer.Argument(metavar="VERSION", help=say("not the one in force"))] = None,
        *,
        confirm: Confirm = None,
    ) -> Answer:
        """`batch.check`, or `golden.check` of a service."""
        args: dict[str, object] = {"workload": workload, **({"version": version} if version is not None else {})}
        words = ["release", "golden", "check", workload, *([version] if version else [])]
        action = "batch.check" if caller.view("batches", workload=workload).records("batches") else "golden.check"
        return _order(caller, action, args, words, confirm, wait=True)


def _add_remove(golden: typer.Typer) -> None:
    @verb(
        golden,
        "remove",
        group=f"{GROUP} golden",
        summary=say("Keep a golden sample of a service no longer."),
        examples=("interlock release golden remove web price-of-7 --confirm",),
    )
    def remove(
        caller: Caller,
        workload: Job,
        name: Annotated[str, typer.Argument(metavar="NAME", help=say("what the sample is called"))],
        *,
        confirm: Confirm = None,
    ) -> Answer:
        """`golden.remove`."""
        args: dict[str, object] = {"workload": workload, "name": name}
        return _order(
            caller, "golden.remove", args, ["release", "golden", "remove", workload, name], confirm, wait=True
        )


def roll_back(
    caller: Caller, workload: str, reason: str, confirm: str | None, *, restore_outputs: bool = False
) -> Answer:
    """`batch.rollback`, also behind `interlock rollback`."""
    args: dict[str, object] = {"workload": workload, "reason": reason, "restore_outputs": restore_outputs}
    words = ["release", "rollback", workload, "--reason", reason]
    words += ["--restore-outputs"] if restore_outputs else []
    return _order(caller, "batch.rollback", args, words, confirm or BARE_CONFIRM, wait=True)


def parameters(words: list[str]) -> dict[str, str]:
    """`--target-month 202602` or `--target-month=202602` as `target_month`. Raises Invalid."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--") or (not equals and (not rest or rest[0].startswith("--"))):
            msg = f"{word!r} is neither --PARAMETER VALUE nor an option"
            raise Invalid(msg, code="batch.parameters", fix="write --target-month 202602")
        found[name.removeprefix("--").replace("-", "_")] = value if equals else rest.pop(0)
    return found


def batch_answer(caller: Caller, workload: str) -> Answer | None:
    """All there is about a batch job; None where it is none."""
    found = caller.view("batches", workload=workload).records("batches")
    if not found:
        return None

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_batch import show_batch

        show_batch(screen, found[0])

    return Answer(data=dict(found[0].data), show=show)


def batch_report(caller: Caller, workload: str) -> Answer:
    """How a batch job fares, as Markdown."""
    data = caller.view("batch_report", workload=workload)

    def show(screen: Screen) -> None:
        screen.raw(data.text("text"))

    return Answer(data=dict(data.data), show=show)


def _batch(caller: Caller, workload: str) -> Record:
    found = caller.view("batches", workload=workload).records("batches")
    if not found:
        msg = f"interlock.yaml declares no batch job {workload!r}"
        raise Invalid(msg, code="workload.unknown", fix="declare it under `workloads` with `kind: batch`")
    return found[0]


def _version_apart(words: list[str]) -> tuple[str | None, list[str]]:
    """The first word that is neither an option nor the value of one, and the others."""
    for at, word in enumerate(words):
        follows = at > 0 and words[at - 1].startswith("--") and "=" not in words[at - 1]
        if not word.startswith("--") and not follows:
            return word, [*words[:at], *words[at + 1 :]]
    return None, words


def _found(caller: Caller, workload: str, answer: Answer) -> Answer:
    """What the newest comparison says, after the Run that made it."""
    found = _batch(caller, workload)
    newest = found.records("comparisons")[0]
    stopped = newest.text("verdict") == "no_go"

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_batch import show_comparison

        show_comparison(screen, newest)

    version = newest.text("candidate").split(" ", maxsplit=1)[0]
    going_on = [] if stopped else [f"interlock release cutover {workload} {version} --percent 20"]
    return Answer(
        status=newest.text("verdict"),
        exit_code=FAILED if stopped else answer.exit_code,
        data={"comparison": dict(newest.data), "run": answer.data},
        next=[f"less {newest.text('folder')}/summary.md", *going_on],
        show=show,
    )


def _order(
    caller: Caller,
    action: str,
    args: dict[str, object],
    words: list[str],
    confirm: str | None,
    *,
    wait: bool,
    reason: str | None = None,
) -> Answer:
    told = reason or args.get("reason")
    words = [*words, *(["--reason", reason] if reason is not None else []), CONFIRM_HERE]
    params: dict[str, object] = {"ask": {"action": action, "args": args, "reason": told}}
    return ask(caller, Asking("submit", params, words, confirm=confirm, wait=wait))
