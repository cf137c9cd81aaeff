"""The tables of the door: runs, targets, evidence, approvals, events, freezes, adopted programs, output."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
phase = "expand"


def upgrade() -> None:
    """Make the tables."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
