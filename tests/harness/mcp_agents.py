"""An agent program written by hand: JSON-RPC as the Model Context Protocol has it, over stdio or HTTP, and nothing of
the library that the server is made with."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Self

import httpx

from harness.resident import Resident

PATIENCE_SECONDS = 60.0
VERSION = "2025-06-18"


class McpFailure(Exception):
    """A JSON-RPC error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: int = error["code"]
        self.data: dict[str, Any] = error.get("data") or {}


class Agent:
    """What both kinds have in common."""

    def __init__(self) -> None:
        self.last_id = 0

    def exchange(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Send one message and return its answer."""
        raise NotImplementedError

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result. Raises McpFailure."""
        self.last_id += 1
        answer = self.exchange({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        assert answer is not None
        assert answer["id"] == self.last_id
        if "error" in answer:
            raise McpFailure(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def tools(self) -> dict[str, dict[str, Any]]:
        return {tool["name"]: tool for tool in self.ask("tools/list")["tools"]}

    def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """The structured answer, whether it tells of an error or not."""
        result = self.ask("tools/call", name=tool, arguments=arguments)
        answer: dict[str, Any] = result["structuredContent"]
        assert json.loads(result["content"][0]["text"]) == answer, "text and structure say the same"
        assert isinstance(result["isError"], bool)
        return {**answer, "isError": result["isError"]}

    def close(self) -> None:
        """Hang up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StdioAgent(Agent):
    """Starts `interlock mcp` and speaks to it."""

    def __init__(self, resident: Resident, *words: str, greet: bool = True) -> None:
        super().__init__()
        self.process = subprocess.Popen(
            resident.command("mcp", *(words or ("--as", "claude"))),
            env=resident.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if greet:
            client = {"name": "by hand", "version": "1"}
            self.greeting = self.ask("initialize", protocolVersion=VERSION, capabilities={}, clientInfo=client)
            self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message: Any) -> None:
        self.send_bytes(json.dumps(message).encode() + b"\n")

    def send_bytes(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self) -> dict[str, Any] | None:
        """The next message; None at the end."""
        out = self.process.stdout
        assert out is not None
        line = out.readline()
        message: dict[str, Any] | None = json.loads(line) if line else None
        return message

    def exchange(self, message: dict[str, Any]) -> dict[str, Any] | None:
        self.send(message)
        while (answer := self.read()) is not None and answer.get("id") != message["id"]:
            pass
        return answer

    def end(self) -> tuple[int, str]:
        """Close its input; the exit code, and what it said to people."""
        assert self.process.stderr is not None
        out, said = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert not out
        return self.process.returncode, said.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class HttpAgent(Agent):
    """Posts each message by itself."""

    def __init__(self, url: str, token: str | None, **headers: str) -> None:
        super().__init__()
        given = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": VERSION}
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        self.client = httpx.Client(base_url=url, headers={**given, **headers}, timeout=PATIENCE_SECONDS)

    def post(self, body: Any, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        return self.client.post("/mcp", content=content, headers=headers, **options)

    def exchange(self, message: dict[str, Any]) -> dict[str, Any] | None:
        response = self.post(message)
        answer: dict[str, Any] = response.json()
        return answer

    def close(self) -> None:
        self.client.close()
