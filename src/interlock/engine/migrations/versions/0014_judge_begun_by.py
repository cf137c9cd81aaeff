"""Who began to ask a judge about a rollout: nobody else ends it; rows from before are anybody's."""

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
phase = "expand"


def upgrade() -> None:
    """Add the column."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
