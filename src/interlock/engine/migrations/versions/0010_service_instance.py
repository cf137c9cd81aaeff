"""The versions of services that were started here, each with the port that it holds."""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
phase = "expand"


def upgrade() -> None:
    """Make the table."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
