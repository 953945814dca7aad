"""Users, exchange keys, revoked tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", BIG_ID, nullable=False, autoincrement=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("tokens_not_before_s", sa.BigInteger(), nullable=False),
        sa.Column("created_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    op.create_table(
        "exchange_keys",
        sa.Column("user_id", BIG_ID, nullable=False, autoincrement=False),
        sa.Column("api_key", sa.String(128), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("read_only", sa.Boolean(), nullable=True),
        sa.Column("permissions", sa.Text(), nullable=False),
        sa.Column("expires_s", sa.BigInteger(), nullable=True),
        sa.Column("stored_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_exchange_keys"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_exchange_keys_user_id"),
    )
    op.create_table(
        "revoked_tokens",
        sa.Column("token_hash", sa.String(32), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("expires_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_revoked_tokens"),
    )
    op.create_index("ix_revoked_tokens_expires_s", "revoked_tokens", ["expires_s"])


def downgrade() -> None:
    op.drop_table("revoked_tokens")
    op.drop_table("exchange_keys")
    op.drop_table("users")
