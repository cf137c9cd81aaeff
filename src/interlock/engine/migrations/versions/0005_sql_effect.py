"""The table of effects in guarded databases."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
phase = "expand"


def upgrade() -> None:
    """Make the table."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
