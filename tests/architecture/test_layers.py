"""The import direction that ARCHITECTURE.md promises is the one that is enforced, and it holds."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _contracts() -> dict[str, dict[str, object]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["id"]: contract for contract in project["tool"]["importlinter"]["contracts"]}


def _words(line: str) -> list[str]:
    return re.findall(r"[a-z]+", line)


def test_architecture_names_the_layers_that_are_enforced() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^interfaces > .*$", text, flags=re.MULTILINE)
    layers = _contracts()["layers"]["layers"]
    assert isinstance(layers, list)
    assert [_words(layer) for layer in line.split(" > ")] == [_words(layer) for layer in layers]


def test_no_layer_may_be_missing() -> None:
    """Parentheses would make the contract silent about a folder that was renamed."""
    assert "(" not in str(_contracts()["layers"]["layers"])


def test_the_import_contracts_hold() -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_folder_has_a_place_in_the_layers() -> None:
    known = {word for layer in _contracts()["layers"]["layers"] for word in _words(layer)} | {"adapters"}  # type: ignore[attr-defined]
    folders = {path.parent.name for path in (ROOT / "src" / "interlock").glob("*/__init__.py")}
    assert folders <= known
