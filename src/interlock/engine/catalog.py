"""Finds every Action and View there is, so that nobody edits a list."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterable
from importlib.metadata import entry_points

from interlock.core.action import Action, Ports
from interlock.core.errors import NotFound, Permanent
from interlock.core.view import View

ENTRY_POINT_GROUP = "interlock.actions"
NEAREST_SHOWN = 3


def find_action_classes(package: str = "interlock") -> tuple[type[Action], ...]:
    """Every Action class in the `actions` modules of the capability folders, and of installed plug-ins.

    Raises: Permanent when two have one name.
    """
    root = importlib.import_module(package)
    modules = [
        f"{package}.{folder.name}.actions"
        for folder in pkgutil.iter_modules(root.__path__)
        if folder.ispkg and importlib.util.find_spec(f"{package}.{folder.name}.actions") is not None
    ]
    found: dict[str, type[Action]] = {}
    for candidate in (*_classes(modules), *(point.load() for point in entry_points(group=ENTRY_POINT_GROUP))):
        known = found.setdefault(candidate.name, candidate)
        if known is not candidate:
            msg = f"two actions are called {candidate.name}: {known.__module__} and {candidate.__module__}"
            raise Permanent(msg, code="action.twice", fix="uninstall one of them")
    return tuple(found[name] for name in sorted(found))


def find_view_classes(package: str = "interlock") -> tuple[type[View], ...]:
    """Every View class in the `views` modules of the folders, by name. Raises: Permanent when two have one name."""
    root = importlib.import_module(package)
    found: dict[str, type[View]] = {}
    for folder in pkgutil.iter_modules(root.__path__):
        name = f"{package}.{folder.name}.views"
        if not folder.ispkg or importlib.util.find_spec(name) is None:
            continue
        for _, member in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if not issubclass(member, View) or inspect.isabstract(member) or member.__module__ != name:
                continue
            if found.setdefault(member.name, member) is not member:
                msg = f"two views are called {member.name}: {found[member.name].__module__} and {name}"
                raise Permanent(msg, code="view.twice", fix="rename one of them")
    return tuple(found[name] for name in sorted(found))


def _classes(modules: Iterable[str]) -> Iterable[type[Action]]:
    """What is abstract, or called with an underscore, is what several Actions share."""
    for name in modules:
        module = importlib.import_module(name)
        for called, member in inspect.getmembers(module, inspect.isclass):
            shared = called.startswith("_") or inspect.isabstract(member)
            if issubclass(member, Action) and not shared and member.__module__ == name:
                yield member


class Catalog:
    """All Actions, made once with their ports."""

    def __init__(self, classes: Iterable[type[Action]]) -> None:
        self._classes = tuple(classes)
        self._actions: dict[str, Action] = {}

    def connect(self, ports: Ports) -> None:
        """Make the Actions."""
        self._actions = {cls.name: cls(ports) for cls in self._classes}

    def action(self, name: str) -> Action:
        """Raises NotFound, naming what comes close."""
        try:
            return self._actions[name]
        except KeyError:
            near = [known for known in self.names if name.split(".", maxsplit=1)[0] in known][:NEAREST_SHOWN]
            fix = f"did you mean {', '.join(near)}?" if near else "interlock actions"
            msg = f"there is no action {name!r}"
            raise NotFound(msg, code="action.unknown", fix=fix) from None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all Actions, sorted."""
        return tuple(sorted(cls.name for cls in self._classes))

    @property
    def classes(self) -> tuple[type[Action], ...]:
        """The classes, in order of name."""
        return self._classes
