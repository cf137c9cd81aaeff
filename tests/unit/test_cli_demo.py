"""What the demo tells a person to type works in the shell that he has."""

from __future__ import annotations

from pathlib import Path

from interlock.interfaces.cli.demo import _way_there


def test_the_way_to_the_shop_makes_the_program_known_where_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "interlock").touch()
    shop = Path("/home/ann/my shop")
    assert _way_there(shop, tmp_path, None) == f"export PATH={tmp_path}:\"$PATH\"; cd '/home/ann/my shop'"
    assert _way_there(shop, tmp_path, "/usr/bin/interlock") == "cd '/home/ann/my shop'"
