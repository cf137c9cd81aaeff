"""Rollouts that others drive and that are judged here: what each judge knows, and until where was read."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
phase = "expand"


def upgrade() -> None:
    """Make the table."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
