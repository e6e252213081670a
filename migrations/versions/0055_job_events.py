"""what happens to jobs, written by a trigger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0055"
down_revision = "0070"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
# A trigger, since states and progress change in several places and none of them may forget it.
FUNCTION = """
CREATE FUNCTION record_job_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.state IS DISTINCT FROM OLD.state THEN
        INSERT INTO job_events (job_id, project_id, kind, body)
        VALUES (NEW.id, NEW.project_id, 'state', jsonb_build_object(
            'state', NEW.state, 'attempt', NEW.attempt, 'max_attempts', NEW.max_attempts,
            'error', CASE WHEN NEW.error_code IS NULL THEN NULL
                ELSE jsonb_build_object('code', NEW.error_code, 'detail', NEW.error_detail) END));
    END IF;
    IF jsonb_typeof(NEW.progress) = 'object'  -- none is written as the null of JSON, too
        AND (TG_OP = 'INSERT' OR NEW.progress IS DISTINCT FROM OLD.progress) THEN
        INSERT INTO job_events (job_id, project_id, kind, body)
        VALUES (NEW.id, NEW.project_id, 'progress', NEW.progress);
    END IF;
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER record_job_event AFTER INSERT OR UPDATE OF state, progress ON jobs FOR EACH ROW
EXECUTE FUNCTION record_job_event()
"""


def upgrade() -> None:
    op.create_table(
        "job_events",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint("kind IN ('state', 'progress')", name=op.f("ck_job_events_kind_known")),
        sa.ForeignKeyConstraint(
            ["project_id", "job_id"],
            ["jobs.project_id", "jobs.id"],
            name=op.f("fk_job_events_project_id_job_id_jobs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
    )
    op.create_index(op.f("ix_job_events_job_id_id"), "job_events", ["job_id", "id"])
    op.create_index(op.f("ix_job_events_created_at"), "job_events", ["created_at"])
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER record_job_event ON jobs")
    op.execute("DROP FUNCTION record_job_event()")
    op.drop_table("job_events")
