"""What all tables share: the naming convention, column types, ids and times of creation."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, DateTime, MetaData, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = dict[str, Any]


class Table(DeclarativeBase):
    """Root of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        str: Text,
        datetime: DateTime(timezone=True),
        Json: JSONB,
        list[str]: ARRAY(Text),
    }


def primary_id() -> Mapped[UUID]:
    return mapped_column(primary_key=True, default=uuid4)


def creation_time() -> Mapped[datetime]:
    # clock_timestamp, not now(): rows of one transaction keep their order on keyset pages
    return mapped_column(server_default=func.clock_timestamp())


def name_length(length: int = 200) -> CheckConstraint:
    return CheckConstraint(f"length(name) BETWEEN 1 AND {length}", name="name_length")
