"""Output that cannot be written is one line and exit code 1, never a traceback."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest


@pytest.mark.parametrize("words", ["log >/dev/full", "log --output json >/dev/full", "log >&-"])
def test_output_that_cannot_be_written_is_said_in_one_line(make_shop: Any, words: str) -> None:
    shop = make_shop()
    (shop.folder / "interlock.yaml").write_text("version: 1\nname: shop\npreset: observe\n")
    assert shop.run("log").returncode == 0
    line = f"{' '.join(shop.command())} {words}"
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=shop.folder, env=shop.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "cannot be written" in done.stderr
