"""Run by Alembic inside the transaction that ``database.upgrade`` has begun and locked."""

from alembic import context

from pushserver.accounts.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
