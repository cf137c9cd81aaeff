"""Which other machines are known."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from interlock.core.actor import Actor
from interlock.core.model import Frozen, JsonObject
from interlock.core.remote_host import RemoteHosts
from interlock.core.view import View
from interlock.hosts.actions import fingerprint


class NoArguments(Frozen):
    """None."""


class HostsView(View):
    """The machines."""

    name: ClassVar[str] = "hosts"
    summary: ClassVar[str] = "Other machines on which commands may run: how each is reached, and by which host keys."
    Args: ClassVar[type[Frozen]] = NoArguments

    def __init__(self, hosts: RemoteHosts) -> None:
        self._hosts = hosts

    async def read(self, actor: Actor, args: NoArguments) -> JsonObject:  # noqa: ARG002
        """By name."""
        return {
            "hosts": [
                {
                    "name": host.name,
                    "user": host.user,
                    "address": host.address,
                    "port": host.port,
                    "host_keys": [f"{key.partition(' ')[0]} {fingerprint(key)}" for key in host.host_keys],
                    "authorized_line": host.authorized_line,
                }
                for host in await asyncio.to_thread(self._hosts.listed)
            ]
        }
