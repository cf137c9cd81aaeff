"""What the resident process says, in the reader's language: by its code where it names things, else by its text."""

from __future__ import annotations

from interlock.interfaces.messages import is_english, translated

CODES: dict[str, str] = {
    "action.unknown": "there is no action of that name",
    "actor.agent_undeclared": "interlock.yaml declares no agent of that name",
    "actor.as_person": "nobody acts as another person",
    "actor.unknown": "this account is nobody to this installation",
    "approval.again": "this person has already spoken on the Run",
    "approval.digest": "the digest is not that of the plan",
    "approval.does_not_count": "your yes does not count for this Run",
    "approval.not_a_person": "only people decide",
    "approval.own_ask": "it is your own ask: it needs another person",
    "approval.role": "it needs a person with another role",
    "args.invalid": "the arguments are not what is expected",
    "args.secret": "the ask seems to hold a secret; nothing was recorded",
    "cancel.not_yours": "the Run belongs to somebody else",
    "code.missing": "a role or a scope does not name the code that this needs",
    "command.program": "that is not the name of a program",
    "command.refused": "this program is never run through the door",
    "config.ambiguous": "several keys end so",
    "config.unknown": "there is no key of that name",
    "confirm.digest": "that is no digest",
    "context.changed": "the program's settings changed since the plan was made; nothing was run",
    "database.busy": "no database connection was free",
    "database.unreachable": "the database does not answer",
    "denied.policy": "policy forbids this Run, whoever says yes",
    "disk.full": "the disk is full",
    "door.busy": "the door does not open now",
    "door.closed": "this account may not use the door",
    "door.impostor": "the process behind the door belongs to an account that is not trusted",
    "file.changed": "the file changed at the last moment; nothing was written",
    "file.exists": "the file is there already",
    "file.missing": "there is no such file",
    "file.outside_roots": "the file lies outside the folders that may be written",
    "file.permission": "this account may not do that with the file",
    "git.dirty": "the work tree is not clean",
    "git.not_ahead": "the remote has commits that are not here",
    "git.nothing_staged": "nothing is staged",
    "git.nothing_to_push": "there is nothing to push",
    "git.outside_roots": "the repository lies outside the folders that may be written",
    "host.unknown": "no machine of that name is known",
    "host.unreachable": "that machine does not answer",
    "http.destination_unknown": "no such HTTP service is declared",
    "http.not_open": "that method or path is not open at the service",
    "mcp.not_accepted": "nobody has accepted that tool",
    "mcp.server_unknown": "interlock.yaml declares no MCP server of that name",
    "mcp.tool_changed": "the tool is no longer the one that was accepted",
    "mcp.tool_unknown": "the MCP server has no tool of that name",
    "mcp.unreachable": "the MCP server does not answer as it should",
    "operator.only": "only a person with the account that runs Interlock may do that",
    "path.swappable": "others could let the path lead elsewhere",
    "path.unknown": "there is no such path",
    "plan.changed": "the plan is not the one you read",
    "plan.slow": "the plan could not be made in time; nothing was done",
    "policy.folder": "no policies lie there",
    "policy.lockout": "after this nobody could put other policies in force",
    "policy.syntax": "the policies do not parse",
    "policy.table_failed": "a row of the decision tables does not come true",
    "program.absent": "the program is not installed",
    "program.unsafe": "somebody could have planted this program",
    "environment.changed": "the environment does not change while Interlock runs",
    "environment.other": "Interlock runs here as another environment",
    "project.environment": "no overlay lies there for that environment",
    "project.invalid": "interlock.yaml is not sound",
    "project.missing": "there is no project",
    "reason.secret": "the reason seems to hold a secret; nothing was recorded",
    "resident.gone": "the resident process went away before it answered",
    "resident.running": "Interlock runs here already",
    "resident.silent": "the resident process does not answer",
    "resident.slow": "the resident process is not ready yet",
    "restore.running": "Interlock is running, and nothing is restored under its feet",
    "run.denied_before": "this very plan was denied; it may not be asked again yet",
    "run.expired": "the Run has expired",
    "run.key_reused": "the key already stands for another ask",
    "run.not_cancellable": "there is nothing to cancel",
    "run.not_retriable": "only a Run that did not go well is asked again",
    "run.not_undoable": "only what succeeded can be taken back",
    "run.not_unresolved": "the Run is not unresolved",
    "run.not_waiting": "the Run does not wait for anybody",
    "run.nothing_to_undo": "the Run changed nothing",
    "run.too_many_waiting": "too many asks of this agent wait for a person already",
    "run.unknown": "there is no such Run",
    "schedule.far": "that is too far ahead",
    "schedule.name": "there is a schedule of that name already",
    "schedule.past": "that moment has passed",
    "schedule.unknown": "there is no such schedule",
    "sql.locked": "somebody else holds a lock on what is needed",
    "sql.login": "the database does not let Interlock in",
    "sql.no_table": "there is no such table, or not for this role",
    "sql.nothing_to_migrate": "every migration was applied already",
    "sql.refused": "this statement is not let through",
    "sql.rejected": "PostgreSQL does not accept the statement",
    "sql.timeout": "the statement took longer than is allowed",
    "sql.unknown_database": "no database of that name is declared",
    "sql.unreachable": "the guarded database does not answer",
    "step.no_undo": "a step of the Run cannot be taken back",
    "target.unknown": "there is no such target",
    "token.refused": "the token is not valid",
    "token.unknown": "there is no such token",
    "unit.unknown": "there is no such unit",
    "usage": "the command line is not understood",
}
"""What an error's code means, without the names and numbers that its message has."""

TEXTS: tuple[str, ...] = (
    "Interlock's own records may be read where they disclose no secret",
    "a code is missing",
    "a person may read a secret",
    "a person may see all of Interlock's own records",
    "a service without the role `operator` needs one person for a change, and each service for a high-risk one",
    "agents are paused: they may read, and change nothing",
    "changes are possible for everybody, under the conditions below",
    (
        "only a person unfreezes, resumes agents, makes a program or an outside tool known, gives and takes tokens, or"
        " changes the policies"
    ),
    "to write more rows than write_rows_without_approval says needs another person",
    "a person confirms a high-risk change, or one that nobody knows the effect of, a second time",
    "a person confirms his own change after seeing the plan",
    "a person confirms that he wants to see a secret",
    "a protected resource is never changed through the door",
    "agents are paused",
    "an agent holds no credential and reads no secret",
    "an agent's change needs one person",
    "changes are frozen",
    "changes are not allowed at this hour",
    "every change needs another person",
    "interlock.yaml keeps this agent to reading (autonomy: read)",
    "interlock.yaml names the people who may change something, and this one is not among them",
    "Interlock does not change itself, nor show what is its alone",
    "nobody knows what this does, and a protected resource can be reached from it",
    "only a person changes a firewall",
    "only a person changes who may log in: sshd, accounts, keys, sudo",
    "only a person deletes or empties a volume",
    "only a person removes recursively",
    "only a person stops, restarts, recreates or removes a database, or touches its files",
    "reading is allowed where it discloses no secret",
    "this project only observes",
    "the world changed since the plan was made",
    "ask a person",
    "check the path",
    "check the path; there is no shell here, which would expand it",
    "do not ask again; tell the person you work for that this waits for an approval",
    "name the secret to a person; never ask for its value",
    "tell the person you work for what you would have done",
    "try again",
    "everything about it",
    "take it back",
    "ask the same again, planned anew",
    "say yes",
    "say no",
    "withdraw it",
    "confirm it",
    "watch it",
    "stop it",
    "allowed instead",
    "what it printed",
    "what decided, and what would change it",
    "it did not happen: do it again",
    "it did happen: go on behind it",
)
"""Reasons of the built-in policies and of Runs, and advice: said as they are, perhaps followed by details."""


def error_in_words(code: str | None, message: str) -> str:
    """The message of an error. In another language than English its meaning comes first, then the English text with
    the names and numbers that only it has."""
    meaning = CODES.get(code or "")
    if meaning is None or is_english():
        return message
    return f"{translated(meaning)} ({message})"


def text_in_words(text: str) -> str:
    """A reason or an advice; one that is not known here, of a project's own policy say, stays as it is."""
    if is_english():
        return text
    heads = (known for known in TEXTS if text == known or text.startswith((f"{known}: ", f"{known} ", f"{known}; ")))
    known = max(heads, key=len, default=None)
    if known is None:
        return text
    rest = text.removeprefix(known)
    return translated(known) + (f"; {text_in_words(rest[2:])}" if rest.startswith("; ") else rest)
