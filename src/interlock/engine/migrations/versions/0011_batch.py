"""Batch jobs: which version invocations get, what comparisons of versions found, how invocations ended."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
phase = "expand"


def upgrade() -> None:
    """Make the tables."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
