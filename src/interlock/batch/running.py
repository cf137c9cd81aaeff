"""Runs versions of a batch job in folders of their own: confined for a trial, as they are for an invocation."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from interlock.batch import confine
from interlock.batch.model import placed
from interlock.comparison.outputs import listed, sha256_of
from interlock.core.action import Ports
from interlock.core.batch import BATCHES, VersionPin
from interlock.core.errors import Invalid, NotFound, Permanent, Stale, Transient
from interlock.core.ports import ProcessResult, ProcessSpec, StepContext
from interlock.core.source_layout import SOURCE_LAYOUTS, LaidSource
from interlock.core.workload import BatchWorkload, filled
from interlock.services.gates import GateResult, run_gates

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILD_SECONDS = 1800.0
LAY_OUT_SECONDS = 900.0
INPUT_FILES_MAX = 10_000
SAID_CHARACTERS_MAX = 300
OPEN = ("open", "everywhere")
"""How words of the confining program begin that say what it could not take."""


class Trial(NamedTuple):
    """One run of one version: its folder of outputs, how it ended, and what it was kept from."""

    pin: VersionPin
    output: Path
    seconds: float
    ok: bool
    words: str
    kept_from: dict[str, str]


class BatchRuns:
    """The runs of one step. `root` is a folder of this step alone, removed when the step is over."""

    def __init__(
        self, ports: Ports, context: StepContext, name: str, declared: BatchWorkload, arguments: Mapping[str, str]
    ) -> None:
        self._ports = ports
        self._context = context
        self._name = name
        self._declared = declared
        self._arguments = arguments
        folder = ports.outside[BATCHES].folder(name)
        self.root = folder / "work" / f"{context.run}-{context.attempt}"

    def __enter__(self) -> Self:
        """Raises Transient when the disk is full."""
        self._context.hold()
        try:
            for left in self.root.parent.glob(f"{self._context.run}-*"):  # of attempts that were killed
                shutil.rmtree(left, ignore_errors=True)
            self.root.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise disk(error) from error
        return self

    def __exit__(self, *ended: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def lay_out(self, laid: LaidSource) -> None:
        """Put a version's files there and build them. Raises Stale, Transient, Permanent (its build failed)."""
        layouts = self._ports.outside[SOURCE_LAYOUTS]
        if not layouts.lay_out(laid, self._context):
            return
        for command in self._declared.build:
            spec = self._in_source(laid, command, BUILD_SECONDS)
            self._context.write_output(f"$ {' '.join(spec.argv)}\n")
            result = self._context.execute(spec)
            if result.exit_code != 0:
                msg = f"the build of {self._name} {laid.version} failed: {how_ended(result)}"
                raise Permanent(msg, code="batch.build", fix="see the output of this Run")
        layouts.finish(laid)

    def examine(self, laid: LaidSource) -> tuple[GateResult, ...]:
        """What the gates say of a version that was laid out, up to the first that fails. Raises NotFound."""
        gates = self._declared.release.gates
        return run_gates(gates, lambda command, seconds: self._in_source(laid, command, seconds), self._context)

    def _in_source(self, laid: LaidSource, command: tuple[str, ...], seconds: float) -> ProcessSpec:
        places = {"version": laid.version, "workload": self._name, "source": laid.folder, "work": laid.folder}
        argv, environment = filled(command, places), self._environment(Path(laid.folder))
        return ProcessSpec(
            path=program(argv[0], environment, Path(laid.folder)),
            argv=argv,
            environment=environment,
            folder=laid.folder,
            timeout_seconds=seconds,
        )

    def input(self) -> Path | None:
        """Where the declared input lies. Raises NotFound."""
        if self._declared.input is None:
            return None
        return input_of(self._declared, self._arguments, self._ports.project().folder)

    def pinned_input(self) -> tuple[Path | None, str]:
        """A copy of the input that no version can write to, and its digest. Raises NotFound, Stale, Transient."""
        found = self.input()
        if found is None:
            return None, digest_of_files({})
        self._context.hold()
        place = self.root / "input" / found.name
        try:
            place.parent.mkdir(mode=0o700)
            if found.is_dir():
                shutil.copytree(found, place, symlinks=True)
            else:
                shutil.copyfile(found, place)
        except OSError as error:
            raise disk(error) from error
        return place, digest_of(place)

    def try_version(self, laid: LaidSource, part: str, given: Path | None) -> Trial:
        """Run a version confined, on this input, in an empty folder."""
        report = self.root / f"{part}.kept.json"
        spec = self._spec(laid, part, given, self._declared.shadow_environment)
        work, output = self.root / part / "work", self.root / part / "output"
        words = ("-I", "-S", confine.__file__, str(report), str(work), str(output), "--", spec.path, *spec.argv[1:])
        confined = spec.model_copy(update={"path": sys.executable, "argv": (sys.executable, *words)})
        self._context.write_output(f"{laid.version} ({part}):\n")
        return self._trial(laid, confined, output, report)

    def invoke(self, laid: LaidSource, part: str) -> Trial:
        """Run a version as it is, on the input itself."""
        spec = self._spec(laid, part, self.input(), {})
        self._context.write_output(f"{laid.version}:\n")
        return self._trial(laid, spec, self.root / part / "output", None)

    def _trial(self, laid: LaidSource, spec: ProcessSpec, output: Path, report: Path | None) -> Trial:
        result = self._context.execute(spec)
        ok = result.exit_code == 0
        words = f"{laid.version} {how_ended(result)}"
        if ok and not listed(output):
            ok, words = False, f"{laid.version} ended well and wrote nothing into {{output}}"
        pin = VersionPin(version=laid.version, identity=laid.identity)
        return Trial(pin, output, result.duration_seconds, ok, words, _kept_from(report))

    def _spec(self, laid: LaidSource, part: str, given: Path | None, further: Mapping[str, str]) -> ProcessSpec:
        work, output = self.root / part / "work", self.root / part / "output"
        self._context.hold()
        try:
            for folder in (work, output):
                folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise disk(error) from error
        places = {
            **self._arguments,
            "version": laid.version,
            "workload": self._name,
            "source": laid.folder,
            "work": str(work),
            "output": str(output),
            "input": str(given) if given is not None else "",
        }
        argv = filled(self._declared.command, places)
        environment = {"PYTHONDONTWRITEBYTECODE": "1", **self._environment(work), **further}
        return ProcessSpec(
            path=program(argv[0], environment, Path(laid.folder)),
            argv=argv,
            environment=environment,
            folder=str(work),
            timeout_seconds=self._declared.timeout_seconds,
        )

    def _environment(self, work: Path) -> dict[str, str]:
        base = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(work), "TMPDIR": str(work)}
        return {**base, **self._declared.environment}


def input_of(declared: BatchWorkload, arguments: Mapping[str, str], base: str) -> Path:
    """The declared input with the values of parameters. Raises NotFound."""
    path = Path(os.path.realpath(Path(base, placed(declared.input or "", arguments))))
    if not path.exists():
        msg = f"there is no input {path}"
        raise NotFound(msg, code="batch.input", fix="check `input`, and the values of the parameters")
    return path


def program(name: str, environment: Mapping[str, str], folder: Path) -> str:
    """The program's absolute path: as PATH finds it, or below the version's folder. Raises NotFound."""
    found = str(folder / name) if "/" in name else shutil.which(name, path=environment["PATH"])
    if found is None or not Path(found).exists():
        msg = f"there is no program {name}"
        raise NotFound(msg, code="batch.program", fix="check `command`, and PATH in `environment`")
    return found


def digest_of(path: Path) -> str:
    """SHA-256 over all that a file or folder holds. Raises Invalid when it holds too many files, or is none."""
    if path.is_dir():
        return digest_of_files(dict(_digests(path)))
    return digest_of_files({"": sha256_of(path)})


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for name, found in listed(folder).items():
        if stat.S_ISLNK(found.st_mode):
            yield name, f"link {(folder / name).readlink()}"
        elif stat.S_ISREG(found.st_mode):
            yield name, sha256_of(folder / name)
        else:
            msg = f"{name} is a pipe, socket or device"
            raise Invalid(msg, code="batch.strange_file", fix="keep plain files and links there")


def digest_of_files(files: Mapping[str, str]) -> str:
    """One digest over names and digests."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def require_unchanged(given: Path | None, digest: str) -> None:
    """Raises Stale when a version changed its input, so that the next one was not given the same."""
    if given is not None and digest_of(given) != digest:
        msg = "a version changed its input while it ran, so the versions were not given the same"
        raise Stale(msg, code="batch.input_changed", fix="let it copy what it wants to change into {work}")


def how_ended(result: ProcessResult) -> str:
    """In words, with the end of what it said where it went wrong."""
    if result.exit_code == 0:
        return f"ended well after {result.duration_seconds:.2f} s"
    how = "took too long" if result.timed_out else f"ended with {result.exit_code}"
    if result.signal is not None and not result.timed_out:
        how = f"was ended by signal {result.signal}"
    said = " ".join(result.tail.split())[-SAID_CHARACTERS_MAX:]
    return f"{how}: {said}" if said else how


def _kept_from(report: Path | None) -> dict[str, str]:
    """What the confining program says it took; a trial that ended before it could say was kept from nothing."""
    if report is None:
        return {}
    try:
        found = json.loads(report.read_bytes())
    except (OSError, ValueError):
        return {"writes": "everywhere: nothing was reported", "network": "open: nothing was reported"}
    return {str(name): str(words) for name, words in found.items()} if isinstance(found, dict) else {}


def disk(error: OSError) -> Transient:
    """A full disk, most likely."""
    msg = f"the folders of this run cannot be made: {error.strerror or error}"
    return Transient(msg, code="batch.disk", fix="make room on the disk of the state folder")
