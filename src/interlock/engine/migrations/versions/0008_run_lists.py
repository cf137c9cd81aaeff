"""The indexes of the lists of Runs."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
phase = "expand"


def upgrade() -> None:
    """Add the indexes."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
