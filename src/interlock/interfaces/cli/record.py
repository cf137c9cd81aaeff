"""Reads what the resident process answers without trusting its shape: it may be older or newer than this program."""

from __future__ import annotations

from collections.abc import Mapping


class Record:
    """One JSON object. What is missing or of another type reads as empty."""

    def __init__(self, data: object) -> None:
        self.data: Mapping[str, object] = data if isinstance(data, Mapping) else {}

    def __bool__(self) -> bool:
        return bool(self.data)

    def __contains__(self, name: str) -> bool:
        return self.data.get(name) is not None

    def text(self, name: str) -> str:
        """A text; a number as text."""
        value = self.data.get(name)
        return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""

    def number(self, name: str) -> int:
        """A whole number, otherwise 0."""
        value = self.data.get(name)
        return int(value) if isinstance(value, int | float) else 0

    def flag(self, name: str) -> bool:
        """Whether it is true."""
        return self.data.get(name) is True

    def record(self, name: str) -> Record:
        """An object inside."""
        return Record(self.data.get(name))

    def records(self, name: str) -> list[Record]:
        """A list of objects inside."""
        value = self.data.get(name)
        return [Record(item) for item in value] if isinstance(value, list) else []

    def texts(self, name: str) -> list[str]:
        """A list of texts inside."""
        value = self.data.get(name)
        return [str(item) for item in value] if isinstance(value, list) else []

    def who(self, name: str) -> str:
        """An actor, `agent:claude`, whether it is written as its id or as an object."""
        value = self.data.get(name)
        return value if isinstance(value, str) else Record(value).text("id")
