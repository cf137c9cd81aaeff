"""The guard as one compiled program in memory, so that the guard which runs is the one this worker was started with.

A guard must start fast and must not depend on what lies on the disk now: an upgrade may have replaced the files, the
asker may be able to write where Python looks for modules. Its modules are compiled once, when the worker first needs
them, into one program in an anonymous file, which the interpreter is given by its path under /proc.
"""

from __future__ import annotations

import functools
import importlib.util
import marshal
import os
import sys
import tempfile
from collections.abc import Sequence
from types import ModuleType

from interlock.engine.guard import effect, process, process_tree
from interlock.lib import reach

MODULES = (reach, process_tree, effect, process)  # each after what it imports
PYC_HEADER_PADDING = bytes(12)  # flags, time and size of a source file: PEP 552; there is none to compare with
# Seeding sys.modules lets the modules import each other by their names although no package of that name is there.
LOADER = """
import marshal, sys
for name, code in marshal.loads({image!r}):
    module = sys.modules[name] = type(sys)(name)
    exec(code, module.__dict__)
module.main(sys.argv[1:])
"""


def compiled_program(modules: Sequence[ModuleType], name: str) -> bytes:
    """Modules, each after what it imports, as the content of one .pyc file that calls `main` of the last one."""
    image = marshal.dumps([(module.__name__, _code_of(module.__name__)) for module in modules])
    code = compile(LOADER.format(image=image), f"<interlock {name}>", "exec")
    return importlib.util.MAGIC_NUMBER + PYC_HEADER_PADDING + marshal.dumps(code)


def guard_program() -> bytes:
    """The guard's modules."""
    return compiled_program(MODULES, "guard")


def _code_of(name: str) -> object:
    loader = sys.modules[name].__loader__
    if loader is None or not hasattr(loader, "get_code"):
        msg = f"the code of {name} cannot be read"
        raise ImportError(msg)
    return loader.get_code(name)


def anonymous_file(content: bytes) -> int:
    """A descriptor, at its beginning, of a file without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("interlock")
    else:  # absent where Python was built against an old C library
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@functools.cache
def guard_descriptor() -> int:
    """The program's file, open for as long as this process lives."""
    return anonymous_file(guard_program())
