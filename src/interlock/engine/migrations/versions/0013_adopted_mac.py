"""What binds an adopted program to Interlock's own hand; rows from before have none, and are adopted anew."""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
phase = "expand"


def upgrade() -> None:
    """Add the column."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
