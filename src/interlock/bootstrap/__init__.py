"""Puts the parts together: the one place that knows adapters, and the resident process itself."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interlock.bootstrap.assembly import open_installation
    from interlock.bootstrap.database import embedded_server, open_database, remove_database
    from interlock.bootstrap.installation import Installation
    from interlock.bootstrap.project import command_action
    from interlock.bootstrap.resident import serve
    from interlock.bootstrap.restoring import restore

__all__ = [
    "Installation",
    "command_action",
    "embedded_server",
    "open_database",
    "open_installation",
    "remove_database",
    "restore",
    "serve",
]

_MODULES = {
    "Installation": "installation",
    "command_action": "project",
    "embedded_server": "database",
    "open_database": "database",
    "open_installation": "assembly",
    "remove_database": "database",
    "restore": "restoring",
    "serve": "resident",
}


def __getattr__(name: str) -> Any:
    """Import a part when it is first asked for: the door of another machine needs neither database nor worker.

    Raises: AttributeError.
    """
    if name not in _MODULES:
        msg = f"bootstrap has no {name}"
        raise AttributeError(msg)
    return getattr(import_module(f"interlock.bootstrap.{_MODULES[name]}"), name)
