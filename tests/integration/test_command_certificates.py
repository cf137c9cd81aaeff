"""A program that shows certificates alone may read files that hold keys as well, and shows none of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from interlock.adapters.files import FileTargets
from interlock.adapters.names import NamedTargets
from interlock.adapters.resolvers import ResolverSet
from interlock.commands.facts import CLEAN_ENVIRONMENT, Placed, Surroundings
from interlock.commands.library import Library, load_library
from interlock.commands.model import Operation
from interlock.core.project import Project, Roots

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate, its key, and a file that holds both, key first."""
    here = Path(os.path.realpath(tmp_path_factory.mktemp("tls")))
    words = "req -x509 -newkey rsa:2048 -nodes -keyout privkey.pem -out cert.pem -subj /CN=shop -days 2"
    subprocess.run([OPENSSL or "openssl", *words.split()], cwd=here, check=True, capture_output=True)
    (here / "both.pem").write_text((here / "privkey.pem").read_text() + (here / "cert.pem").read_text())
    shutil.copy(here / "privkey.pem", here / "site.key")
    (here / "site.crt").symlink_to("site.key")
    return here


def _place(folder: Path, library: Library, *argv: str) -> Placed:
    operation = library.match(argv)
    assert isinstance(operation, Operation), operation
    project = Project(folder=str(folder), roots=Roots(read=("elsewhere",)))
    return Surroundings(project, ResolverSet((FileTargets(), NamedTargets())), library).place(operation, None)


@pytest.mark.parametrize("name", ["cert.pem", "both.pem", "privkey.pem"])
def test_a_certificate_is_no_secret_and_the_same_file_read_whole_is_one(
    folder: Path, library: Library, name: str
) -> None:
    assert _place(folder, library, "openssl", "x509", "-in", name, "-noout", "-text").operation.only_reads
    assert _place(folder, library, "openssl", "verify", name).operation.only_reads
    for argv in (("cat", name), ("head", "-n", "1", name), ("grep", "-c", "x", name)):
        assert _place(folder, library, *argv).operation.discloses == "secret"


@pytest.mark.parametrize("name", ["site.key", "site.crt"])
def test_what_only_keys_are_called_stays_a_secret_by_whatever_name(folder: Path, library: Library, name: str) -> None:
    assert _place(folder, library, "openssl", "x509", "-in", name, "-noout", "-text").operation.discloses == "secret"


@pytest.mark.parametrize("name", ["both.pem", "privkey.pem"])
@pytest.mark.parametrize("options", [("-text", "-pubkey", "-modulus"), ("-noout", "-text"), ("-fingerprint",)])
def test_no_key_comes_out_of_a_file_that_holds_one(
    folder: Path, library: Library, name: str, options: tuple[str, ...]
) -> None:
    placed = _place(folder, library, "openssl", "x509", "-in", name, *options)
    done = subprocess.run(
        placed.argv, executable=placed.binary, env=placed.environment, capture_output=True, text=True, check=False
    )
    key = (folder / "privkey.pem").read_text().splitlines()
    assert "PRIVATE" not in done.stdout + done.stderr
    assert not any(line in done.stdout + done.stderr for line in key[1:-1])


def test_no_program_can_make_itself_a_home() -> None:
    """Not even as root: what only looks leaves no settings, caches or histories behind."""
    with pytest.raises(OSError, match="Not a directory"):
        Path(CLEAN_ENVIRONMENT["HOME"], "made").mkdir(parents=True)
