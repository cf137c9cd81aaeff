"""The policy sets that were put in force, and what replays came to."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
phase = "expand"


def upgrade() -> None:
    """Make the tables."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
