"""Makes the demo's project: a small shop with a site, a nightly report, and data that nobody may touch."""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

from interlock.core.errors import Conflict
from interlock.engine.policy.load import write_preset
from interlock.interfaces.cli.demo_releases import make_versions
from interlock.interfaces.messages import say

MARK = ".made-by-interlock-demo"
DEFAULT_FOLDER = "interlock-demo"
LINKS = {"site/latest.csv": "../data/customers.csv"}


def is_ours(folder: Path) -> bool:
    """Whether an earlier demo made the folder, so that this one may replace it."""
    return (folder / MARK).is_file()


def make_shop(folder: Path, account: str, address: str) -> None:
    """Write the shop into a folder that is new, empty, or an earlier demo's. Its users come to `address`.

    Raises: Conflict when it holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not is_ours(folder):
        msg = say("{folder} is not empty, and no demo made it", folder=folder)
        raise Conflict(msg, code="demo.folder", fix=say("name another folder: interlock demo FOLDER"))
    if folder.exists():
        shutil.rmtree(folder)
    with resources.as_file(resources.files("interlock") / "examples" / "shop") as source:
        shutil.copytree(source, folder)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)
    (folder / "out").mkdir()
    project = folder / "interlock.yaml"
    text = project.read_text(encoding="utf-8")
    for place, found in {"YOU": account, "ADDRESS": address, "PYTHON": sys.executable}.items():
        text = text.replace(place, found)
    project.write_text(text, encoding="utf-8")
    make_versions(folder)
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
    write_preset(folder / "policies", "small-team")
    (folder / MARK).write_text("The next `interlock demo` may replace this folder.\n", encoding="utf-8")
