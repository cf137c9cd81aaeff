"""Machines that are reached over the system's ssh, each with a pinned host key and a key of ours for it alone."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from interlock.adapters.ssh_relay import Lost, NotSent, converse
from interlock.core.errors import Conflict, InterlockError, NotFound, Permanent, Transient
from interlock.core.model import JsonObject
from interlock.core.ports import ProcessSpec
from interlock.core.remote_host import DoorRequest, RemoteHost
from interlock.core.remote_step import refusal_there

SSH = "/usr/bin/ssh"
KEYSCAN = "/usr/bin/ssh-keyscan"
SCAN_SECONDS = 10
CONNECT_SECONDS = 10
PLAN_SECONDS = 45.0
MARGIN_SECONDS = 20.0
HOSTS_MAX = 500

_LINE = re.compile(r"\S+ (?P<key>\S+ \S+)")


class SshHosts:
    """Implements `core.remote_host.RemoteHosts`.

    Args:
        folder: Where each machine has a folder of its own: its key, its pinned host keys, and how it is reached.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def scan(self, address: str, port: int) -> tuple[str, ...]:
        """As the Protocol says."""
        # An address never begins with a dash.
        command = [KEYSCAN, "-T", str(SCAN_SECONDS), "-p", str(port), "-t", "ed25519,ecdsa,rsa", address]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={"PATH": "/usr/bin:/bin", "LANG": "C"},
                cwd="/",
                timeout=SCAN_SECONDS * 2,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            msg = f"ssh-keyscan did not answer: {type(error).__name__}"
            raise Transient(
                msg, code="host.scan", fix="look whether ssh-keyscan is there", effect_sent=False
            ) from error
        lines = done.stdout.decode("ascii", "replace").splitlines()
        found = sorted({line["key"] for text in lines if not text.startswith("#") and (line := _LINE.fullmatch(text))})
        if not found:
            msg = f"nobody at {address} port {port} shows a host key"
            raise Transient(msg, code="host.unreachable", fix="look whether sshd runs there", effect_sent=False)
        return tuple(found)

    def listed(self) -> tuple[RemoteHost, ...]:
        """As the Protocol says."""
        places = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return tuple(self._read(place) for place in places if not place.name.startswith("."))

    def find(self, name: str) -> RemoteHost:
        """As the Protocol says."""
        place = self._folder / name
        if name.startswith(".") or "/" in name or not place.is_dir():
            known = ", ".join(host.name for host in self.listed())
            msg = f"there is no host {name}"
            fix = f"there is {known}" if known else f"interlock host add {name} USER@ADDRESS"
            raise NotFound(msg, code="host.unknown", fix=fix)
        return self._read(place)

    def add(self, host: RemoteHost) -> RemoteHost:
        """As the Protocol says; all of it is there at once, or nothing."""
        place = self._folder / host.name
        if place.is_dir():
            return self._same(host, self._read(place))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if len(self.listed()) >= HOSTS_MAX:
            msg = f"{HOSTS_MAX} hosts are known, which is all there may be"
            raise Conflict(msg, code="host.many", fix="interlock host remove NAME")
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        made = host.model_copy(update={"public_key": f"{public.decode()} interlock-{host.name}"})
        draft = self._folder / f".{host.name}.{secrets.token_hex(6)}"
        draft.mkdir(mode=0o700)
        _write(draft / "key", private)
        pinned = "".join(f"{_alias(host.name)} {each}\n" for each in host.host_keys)
        _write(draft / "known_hosts", pinned.encode())
        _write(draft / "host.json", made.model_dump_json().encode())
        try:
            draft.rename(place)
        except OSError:
            # Another attempt of the same Run was quicker.
            shutil.rmtree(draft)
            return self._same(host, self.find(host.name))
        return made

    def remove(self, name: str) -> bool:
        """As the Protocol says."""
        place, gone = self._folder / name, self._folder / f".{name}.{secrets.token_hex(6)}"
        try:
            place.rename(gone)
        except FileNotFoundError:
            return False
        shutil.rmtree(gone)
        return True

    def plan(self, name: str, request: DoorRequest) -> JsonObject:
        """As the Protocol says."""
        frame = self._ask(name, request)
        plan = frame.get("plan")
        if not isinstance(plan, dict):
            raise error_there(name, frame)
        return plan

    def original(self, name: str, request: DoorRequest) -> bytes | None:
        """As the Protocol says."""
        frame = self._ask(name, request.model_copy(update={"do": "read"}))
        if "original" not in frame:
            raise error_there(name, frame)
        if frame["original"] is None:
            return None
        try:
            return base64.b64decode(str(frame["original"]), validate=True)
        except binascii.Error as error:
            raise error_there(name, {}) from error

    def _ask(self, name: str, request: DoorRequest) -> JsonObject:
        """What is answered to a request that changes nothing."""
        host = self.find(name)
        try:
            return converse(self._ssh(host), request.model_dump(mode="json"), lambda _: None, PLAN_SECONDS)
        except (NotSent, Lost) as error:
            msg = f"the host {name} does not answer: {error}"
            fix = "see that it is up, and that its line is in authorized_keys there: interlock host list --output json"
            raise Transient(msg, code="host.unreachable", fix=fix, effect_sent=False) from error

    def relay(self, name: str, request: DoorRequest, timeout_seconds: float) -> ProcessSpec:
        """As the Protocol says."""
        answer = self._answer_file(name, request)
        answer.unlink(missing_ok=True)
        given = {
            "answer": str(answer),
            "ssh": self._ssh(self.find(name)),
            "request": request.model_dump(mode="json"),
            "timeout_seconds": timeout_seconds + MARGIN_SECONDS,
        }
        return ProcessSpec(
            path=sys.executable,
            argv=(sys.executable, "-I", "-m", "interlock.adapters.ssh_relay"),
            environment={"PATH": "/usr/bin:/bin", "LANG": "C"},
            stdin=json.dumps(given).encode(),
            timeout_seconds=timeout_seconds + 2 * MARGIN_SECONDS,
        )

    def answer(self, name: str, request: DoorRequest) -> JsonObject:
        """As the Protocol says."""
        file = self._answer_file(name, request)
        try:
            frame = json.loads(file.read_bytes())
        except (OSError, ValueError):
            return {}
        file.unlink()
        return frame if isinstance(frame, dict) else {}

    def _answer_file(self, name: str, request: DoorRequest) -> Path:
        """In the folder of the host, which is ours alone."""
        return self._folder / name / f"answer-{hashlib.sha256(request.id.encode()).hexdigest()[:32]}"

    def _read(self, place: Path) -> RemoteHost:
        try:
            return RemoteHost.model_validate_json((place / "host.json").read_bytes())
        except (OSError, ValidationError) as error:
            msg = f"what is written down of the host {place.name} cannot be read"
            raise Permanent(msg, code="host.broken", fix=f"interlock host remove {place.name}, then add it") from error

    @staticmethod
    def _same(host: RemoteHost, known: RemoteHost) -> RemoteHost:
        if known.model_copy(update={"public_key": host.public_key}) != host:
            msg = f"another host is known as {host.name}: {known.user}@{known.address}"
            raise Conflict(msg, code="host.taken", fix=f"interlock host remove {host.name}")
        return known

    def _ssh(self, host: RemoteHost) -> list[str]:
        """ssh(1) with nothing of anybody's configuration, for one connection that can do one thing."""
        place = self._folder / host.name
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(place / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": _alias(host.name),
            "CheckHostIP": "no",
            "UpdateHostKeys": "no",
            "IdentityFile": str(place / "key"),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
            "ControlMaster": "no",
            "ControlPath": "none",
            "ProxyCommand": "none",
            "ForwardAgent": "no",
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "EscapeChar": "none",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "LogLevel": "ERROR",
        }
        said = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [SSH, "-F", "none", "-T", *said, "-p", str(host.port), "-l", host.user, "--", host.address]


def error_there(name: str, frame: JsonObject) -> InterlockError:
    """What the door of another machine refused, as an error of ours; what it says is cut short."""
    error = frame.get("error")
    if not isinstance(error, dict):
        msg = f"the door of {name} said something that is no answer"
        return Permanent(msg, code="host.garbage", fix="install the same version of Interlock there")
    return refusal_there(name, error, f"see interlock host check {name}")


def _alias(name: str) -> str:
    """What the pinned keys are filed under, whatever address the machine has."""
    return f"interlock-{name}"


def _write(path: Path, body: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(descriptor)
