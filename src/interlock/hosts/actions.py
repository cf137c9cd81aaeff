"""`host.add` and `host.remove`: a machine becomes one on which commands may run, or stops being one."""

from __future__ import annotations

import base64
import hashlib
from typing import ClassVar

from pydantic import Field

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, Invalid
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.remote_host import REMOTE_HOSTS, Account, HostAddress, HostKey, HostName, RemoteHost


class AddArgs(Frozen):
    """`host_key` is the machine's public host key, where it is known already; otherwise the machine is asked for it."""

    name: HostName
    user: Account
    address: HostAddress
    port: int = Field(default=22, ge=1, le=65535)
    host_key: HostKey | None = None


class RemoveArgs(Frozen):
    """One host."""

    name: HostName


class HostAdd(Action):
    """Make a machine known."""

    name: ClassVar[str] = "host.add"
    summary: ClassVar[str] = "Make another machine known by its host key, and a key of ours for its small door."
    example: ClassVar[JsonObject] = {"name": "web1", "user": "interlock", "address": "web1.example.com"}
    Args: ClassVar[type[Frozen]] = AddArgs

    def read_facts(self, args: AddArgs) -> JsonObject:
        """The keys that the machine shows, for a person to compare. Raises Transient, Conflict (the name is taken)."""
        hosts = self.ports.outside[REMOTE_HOSTS]
        known = next((host for host in hosts.listed() if host.name == args.name), None)
        keys = (args.host_key,) if args.host_key is not None else hosts.scan(args.address, args.port)
        asked = RemoteHost(name=args.name, user=args.user, address=args.address, port=args.port, host_keys=keys)
        if known is not None and known.model_copy(update={"public_key": ""}) != asked:
            msg = f"another host is known as {args.name}: {known.user}@{known.address}"
            raise Conflict(msg, code="host.taken", fix=f"interlock host remove {args.name}")
        return {"host": asked.model_dump(mode="json"), "known": known is not None}

    def plan(self, args: AddArgs, facts: JsonObject) -> Plan:
        """One step of ours; the other machine is not touched."""
        host = RemoteHost.model_validate(facts["host"])
        target = Target(kind="host", id=host.name, names=(host.address,))
        step = Step(
            verb="add",
            summary=f"make {host.user}@{host.address} port {host.port} known as {host.name}",
            params=host.model_dump(mode="json"),
            targets=(target,),
            risk="medium",
            operations=("host.add",),
            repeatable=True,
            undo=None if facts["known"] else _removal(host, target, None),
            irreversible="it was known before" if facts["known"] else None,
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts=facts,
            preview=_preview(host),
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Write it down, and show what belongs into authorized_keys over there; or take it back."""
        context.hold()
        hosts = self.ports.outside[REMOTE_HOSTS]
        if step.verb == "remove":
            return _remove(self.ports.outside[REMOTE_HOSTS].remove(str(step.params["name"])), step)
        made = hosts.add(RemoteHost.model_validate(step.params))
        context.write_output(
            f"On {made.address}, install Interlock for the account {made.user}, then put this one line into its"
            f" ~/.ssh/authorized_keys:\n\n{made.authorized_line}\n\nThen: interlock host check {made.name}\n"
        )
        return StepResult(ok=True, summary=step.summary, data={"public_key": made.public_key})


class HostRemove(Action):
    """Forget a machine."""

    name: ClassVar[str] = "host.remove"
    summary: ClassVar[str] = "Forget another machine, and destroy the key that opened its door."
    example: ClassVar[JsonObject] = {"name": "web1"}
    Args: ClassVar[type[Frozen]] = RemoveArgs

    def read_facts(self, args: RemoveArgs) -> JsonObject:
        """The machine as it is known. Raises NotFound."""
        return {"host": self.ports.outside[REMOTE_HOSTS].find(args.name).model_dump(mode="json")}

    def plan(self, args: RemoveArgs, facts: JsonObject) -> Plan:
        """One step."""
        host = RemoteHost.model_validate(facts["host"])
        step = _removal(
            host, Target(kind="host", id=host.name, names=(host.address,)), "its key is destroyed; add it again"
        )
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Destroy the key, then forget."""
        context.hold()
        return _remove(self.ports.outside[REMOTE_HOSTS].remove(str(step.params["name"])), step)


def _remove(found: bool, step: Step) -> StepResult:  # noqa: FBT001 - what was found
    return StepResult(ok=True, summary=step.summary if found else "it was not known any more")


def _removal(host: RemoteHost, target: Target, irreversible: str | None) -> Step:
    return Step(
        verb="remove",
        summary=f"forget the host {host.name} ({host.user}@{host.address}) and destroy our key for it",
        params={"name": host.name},
        targets=(target,),
        risk="medium",
        operations=("host.remove",),
        repeatable=True,
        irreversible=irreversible,
    )


def _preview(host: RemoteHost) -> str:
    """What a person compares with what the machine's own console says: ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub."""
    lines = [f"{key.partition(' ')[0]} {fingerprint(key)}" for key in host.host_keys]
    return "\n".join(
        [f"{host.user}@{host.address} port {host.port} says that these are its host keys:", *lines, _COMPARE]
    )


_COMPARE = "Compare on its own console: for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done"


def fingerprint(key: str) -> str:
    """`SHA256:...` as ssh-keygen(1) shows it. Raises Invalid for what is no key."""
    try:
        digest = hashlib.sha256(base64.b64decode(key.partition(" ")[2], validate=True)).digest()
    except ValueError as error:
        msg = "the host key is no base64"
        raise Invalid(msg, code="host.key", fix="copy the whole line of its .pub file") from error
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
