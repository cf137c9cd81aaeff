"""Golden samples of a batch job: an input whose output a person accepted, kept with all its bytes, by their digests."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from interlock.comparison.golden import pin
from interlock.comparison.outputs import listed, sha256_of
from interlock.core.comparison import GoldenFiles, GoldenSample
from interlock.core.errors import Invalid, Permanent

BYTES_MAX = 256 * 1024 * 1024
"""Of one sample, input and output together."""
OBJECTS = "objects"
FOLDER = "input/"
"""Before the names of files of an input that is a folder; an input that is one file has its own name alone."""


def keep(
    folder: Path,
    workload: str,
    name: str,
    *,
    given: Path | None,
    output: Path,
    arguments: Mapping[str, str],
    accepted_by: str,
    accepted_at: datetime,
    reason: str,
) -> GoldenSample:
    """Keep the bytes of input and output, and then the sample that names them.

    Raises Invalid when it is too large, or holds what is no plain file; OSError when the disk is full.
    """
    objects = folder / OBJECTS
    objects.mkdir(mode=0o700, parents=True, exist_ok=True)
    inputs = {} if given is None else _input_files(given)
    outputs = _files(output)
    if sum(path.stat().st_size for path in (*inputs.values(), *outputs.values())) > BYTES_MAX:
        msg = f"input and output together are larger than {BYTES_MAX // 1024 // 1024} MB"
        raise Invalid(msg, code="golden.too_large", fix="accept a sample of a smaller input")
    sample = GoldenSample(
        workload=workload,
        name=name,
        input=GoldenFiles(files=_kept(objects, inputs), arguments=dict(arguments)),
        output=GoldenFiles(files=_kept(objects, outputs)),
        accepted_by=accepted_by,
        accepted_at=accepted_at,
        reason=reason,
    )
    pin(folder, sample)
    return sample


def lay_out(folder: Path, files: GoldenFiles, place: Path) -> None:
    """Put kept files into an empty folder. Raises Permanent when one is gone or is not what it was."""
    place.mkdir(mode=0o700, parents=True)
    for name, digest in files.files.items():
        target = place / name
        if not target.resolve().is_relative_to(place.resolve()):
            msg = f"{name} of a golden sample leads out of its folder"
            raise Permanent(msg, code="golden.damaged", fix="accept the sample anew")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        source = folder / OBJECTS / digest
        if not source.is_file() or sha256_of(source) != digest:
            msg = f"what was kept of {name} is gone, or is not what it was"
            raise Permanent(msg, code="golden.damaged", fix="accept the sample anew")
        shutil.copyfile(source, target)


def input_place(files: GoldenFiles, place: Path) -> Path | None:
    """What {input} stands for once the files lie there: the folder of all, or the one file; None without an input."""
    names = list(files.files)
    if not names:
        return None
    return place / FOLDER if names[0].startswith(FOLDER) else place / names[0]


def _input_files(given: Path) -> dict[str, Path]:
    if given.is_file():
        return {given.name: given}
    return {FOLDER + name: path for name, path in _files(given).items()}


def _files(folder: Path) -> dict[str, Path]:
    found = {}
    for name, state in listed(folder).items():
        if not stat.S_ISREG(state.st_mode):
            msg = f"{name} is no plain file, and cannot be kept"
            raise Invalid(msg, code="golden.strange_file", fix="accept outputs of plain files")
        found[name] = folder / name
    return found


def _kept(objects: Path, files: Mapping[str, Path]) -> dict[str, str]:
    return {name: _keep_one(objects, path) for name, path in files.items()}


def _keep_one(objects: Path, path: Path) -> str:
    digest = sha256_of(path)
    place = objects / digest
    if not place.exists():
        draft = objects / f".{digest}.{os.getpid()}.draft"
        shutil.copyfile(path, draft)
        draft.chmod(0o600)
        draft.replace(place)
    return digest
