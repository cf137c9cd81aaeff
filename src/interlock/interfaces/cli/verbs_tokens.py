"""The verbs about who comes in: tokens create, list and revoke; actors."""

from __future__ import annotations

import re
import secrets
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import Conflict, NotFound
from interlock.core.token import ENTROPY_BYTES, make_token
from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.asking import CONFIRM_HERE, Asking, ask
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.verb import verb, verbs
from interlock.interfaces.cli.verbs_ask import Confirm, Reason
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()
tokens = verbs(
    app,
    "tokens",
    summary=say("Tokens: ways in for programs and for people who are elsewhere."),
    examples=("interlock tokens create ci --actor service:deploy --days 30", "interlock tokens list"),
)

IDENTITY = re.compile(r"[a-z2-7]{12}")
_RECORDED = frozenset({"succeeded", "waiting", "queued", "running"})


@verb(
    tokens,
    "create",
    group="tokens",
    summary=say("Make a token for somebody whom interlock.yaml declares, and show it once."),
    more=say(
        "The secret is made here: only its SHA-256 is sent and kept. Without --scope the token may do all that its"
        " actor may; with scopes it may do only what both name."
    ),
    examples=(
        "interlock tokens create ci --actor service:deploy --days 30",
        "interlock tokens create phone --scope 'view:*' --scope approve:low",
        "interlock tokens create ci --actor service:deploy --confirm --output json",
    ),
)
def create(
    caller: Caller,
    name: Annotated[str, typer.Argument(help=say("what you call it: where it is used"))],
    *,
    actor: Annotated[
        str | None, typer.Option(metavar="KIND:NAME", help=say("whom it stands for; otherwise yourself"))
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help=say("all that it may be used for: run:command.exec"))
    ] = None,
    days: Annotated[int, typer.Option(metavar="N", min=1, max=366, help=say("good for so long"))] = 90,
    on_behalf_of: Annotated[
        str | None, typer.Option(metavar="person:NAME", help=say("the person a service or agent works for"))
    ] = None,
    reason: Reason = None,
    confirm: Confirm = None,
) -> Answer:
    """`token.create`; the secret leaves this process only as its answer."""
    made = make_token(secrets.token_bytes(ENTROPY_BYTES))
    whose = actor or _own_id(caller)
    args: dict[str, object] = {"id": made.id, "name": name, "actor": whose, "hash": made.sha256, "days": days}
    args |= {"scopes": scope} if scope else {}
    args |= {"on_behalf_of": on_behalf_of} if on_behalf_of else {}
    params: dict[str, object] = {"ask": {"action": "token.create", "args": args, "reason": reason}}
    answer = ask(caller, Asking("submit", params, ["tokens", "create", CONFIRM_HERE], confirm=confirm))
    if answer.status in _RECORDED:
        return _with_token(caller, answer, made.id, made.text)
    if answer.status == "proposed":
        # Each ask has a secret of its own, so that the digest of a plan that was shown never comes again.
        words = ["tokens", "create", name, "--actor", whose, "--days", str(days)]
        words += [word for code in scope or [] for word in ("--scope", code)]
        words += ["--on-behalf-of", on_behalf_of] if on_behalf_of else []
        words += ["--reason", reason] if reason else []
        answer.next = [shlex.join(["interlock", *words, "--confirm"])]
    return answer


def _own_id(caller: Caller) -> str:
    own = caller.call("hello").record("actor")
    return f"{own.text('kind')}:{own.text('name')}"


def _with_token(caller: Caller, answer: Answer, identity: str, text: str) -> Answer:
    answer.warnings.append(say("this token is shown once; keep it where only its bearer can read it"))
    if answer.status != "succeeded":
        answer.warnings.append(say("it opens nothing before that Run has succeeded"))
    if caller.table:
        answer.show = lambda screen: screen.raw(text)
    else:
        answer.data = {**(answer.data if isinstance(answer.data, dict) else {}), "id": identity, "token": text}
    return answer


@verb(
    tokens,
    "list",
    group="tokens",
    summary=say("The tokens there are: whom each stands for, what for, until when, when it was used last."),
    examples=("interlock tokens list", "interlock tokens list --actor service:deploy --all"),
)
def list_tokens(
    caller: Caller,
    *,
    actor: Annotated[str | None, typer.Option(metavar="KIND:NAME", help=say("only those of this actor"))] = None,
    every: Annotated[bool, typer.Option("--all", help=say("also those that expired or were revoked"))] = False,
) -> Answer:
    """Never a secret, nor its hash."""
    data = caller.view("tokens", actor=actor, state="all" if every else "good")

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_access import show_tokens

        show_tokens(screen, data.records("tokens"))

    return Answer(data=dict(data.data), show=show)


@verb(
    tokens,
    "revoke",
    group="tokens",
    summary=say("Let a token open nothing any more, at once."),
    examples=("interlock tokens revoke abcdefgh2345", 'interlock tokens revoke ci --reason "it was in a log"'),
)
def revoke(
    caller: Caller,
    token: Annotated[str, typer.Argument(metavar="ID|NAME", help=say("its id, or its name where only one has it"))],
    *,
    reason: Reason = None,
    confirm: Confirm = None,
) -> Answer:
    """`token.revoke`."""
    identity = _identity(caller, token)
    params: dict[str, object] = {"ask": {"action": "token.revoke", "args": {"id": identity}, "reason": reason}}
    words = ["tokens", "revoke", identity, *(("--reason", reason) if reason else ()), CONFIRM_HERE]
    return ask(caller, Asking("submit", params, words, confirm=confirm))


def _identity(caller: Caller, token: str) -> str:
    """Raises NotFound, Conflict (several have that name)."""
    found = caller.view("tokens").records("tokens")
    named = [each.text("id") for each in found if each.text("name") == token]
    if IDENTITY.fullmatch(token) and token not in named:
        return token
    if not named:
        msg = f"no good token is called {token}"
        raise NotFound(msg, code="token.unknown", fix="interlock tokens list --all")
    if len(named) > 1:
        msg = f"{len(named)} tokens are called {token}"
        raise Conflict(msg, code="token.ambiguous", fix=f"interlock tokens revoke {named[0]}")
    return named[0]


@verb(
    app,
    "actors",
    summary=say("Who may come in: people, services and agents, with their roles, codes and tokens."),
    examples=("interlock actors", "interlock actors --output json"),
)
def actors(caller: Caller) -> Answer:
    """As interlock.yaml declares them."""
    data = caller.view("actors")

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_access import show_actors

        show_actors(screen, data.records("actors"))

    return Answer(data=dict(data.data), show=show)
