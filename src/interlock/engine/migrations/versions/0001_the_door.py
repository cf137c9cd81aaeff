"""The tables of the door: runs, targets, evidence, approvals, events, freezes, adopted programs, output."""

from pathlib import Path

from alembic import context, op

revision = "0001"
down_revision = None
phase = "expand"


def upgrade() -> None:
    """Make the tables, and give the app role what it needs of them and no more."""
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
    app_user = context.config.attributes["app_user"]
    if app_user is not None:
        quoted = '"' + app_user.replace('"', '""') + '"'
        for grant in GRANTS:
            op.execute(grant.format(app=quoted))


GRANTS = (
    "grant usage on schema public to {app}",
    "grant usage on all sequences in schema public to {app}",
    "grant select on all tables in schema public to {app}",
    (
        "grant insert on run, run_target, evidence, unsealed, leaf, checkpoint, approval, event, change_freeze,"
        " adopted, output to {app}"
    ),
    "grant update on run, run_target, approval, change_freeze, adopted to {app}",
    "grant delete on run_target, unsealed, event, output, adopted to {app}",
)
