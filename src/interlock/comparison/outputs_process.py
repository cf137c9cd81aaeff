"""The program that compares outputs: python -m interlock.comparison.outputs_process TASK_FILE.

A process of its own under the guard, because it reads files that a version under trial wrote, and a reader of tables
written in C++ that goes wrong must not take Interlock with it.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from pydantic import ValidationError

from interlock.comparison.outputs import compare_outputs
from interlock.comparison.outputs_model import OutputTask
from interlock.core.errors import InterlockError

NICENESS = 10
DESCRIPTORS_MAX = 256


def main() -> int:
    """0 when it was compared, whatever was found; 1 when it could not be; 2 for a task that cannot be read."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MAX, DESCRIPTORS_MAX))
    os.umask(0o077)
    os.nice(NICENESS)
    try:
        task = OutputTask.model_validate_json(Path(sys.argv[1]).read_bytes())
    except (OSError, ValidationError, IndexError) as error:
        sys.stderr.write(f"the task cannot be read: {error}\n")
        return 2
    try:
        found = compare_outputs(task)
    except InterlockError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    made = Path(f"{task.result}.new")
    made.write_text(found.model_dump_json(), encoding="utf-8")
    made.replace(task.result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
