"""Puts the parts together: the one place that knows adapters, and the resident process itself."""

from interlock.bootstrap.assembly import open_installation
from interlock.bootstrap.database import embedded_server, open_database, remove_database
from interlock.bootstrap.installation import Installation
from interlock.bootstrap.project import command_action
from interlock.bootstrap.resident import serve
from interlock.bootstrap.restore import restore

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
