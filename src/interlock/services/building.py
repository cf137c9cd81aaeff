"""The commands that build and examine a version, as programs to run under the guard, in the version's own folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from interlock.core.errors import NotFound
from interlock.core.ports import ProcessSpec
from interlock.core.service_runtime import VersionSpec
from interlock.core.workload import filled

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_spec(argv: tuple[str, ...], spec: VersionSpec, timeout_seconds: float) -> ProcessSpec:
    """One command. Its HOME is the version's folder: what a build keeps for itself goes away with the version.

    Raises NotFound when there is no such program, and Invalid for a place that means nothing here.
    """
    folder = spec.source or "/"
    places = {"version": spec.version, "workload": spec.workload, "source": folder}
    argv = filled(argv, places | ({"configuration": spec.configuration.folder} if spec.configuration else {}))
    environment = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": folder, **spec.declared.environment}
    program = argv[0]
    found = str(Path(folder, program)) if "/" in program else shutil.which(program, path=environment["PATH"])
    if found is None:
        msg = f"there is no program {program} to build {spec.name} with"
        raise NotFound(msg, code="service.program", fix="check `build` and `gates`, and PATH in `environment`")
    return ProcessSpec(path=found, argv=argv, environment=environment, folder=folder, timeout_seconds=timeout_seconds)
