"""Tools of outside MCP servers that a person accepted."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
phase = "expand"


def upgrade() -> None:
    """Make the table."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
