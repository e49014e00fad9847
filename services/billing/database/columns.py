"""What all tables are made of."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Text,
    func,
)

metadata = MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


def words(name: str, *, primary_key: bool = False) -> Column[str]:
    """Text that is always there."""
    return Column(name, Text, primary_key=primary_key, nullable=False)


def micros(name: str, *, nullable: bool = False) -> Column[int]:
    """An amount of money."""
    return Column(name, BigInteger, CheckConstraint(f"{name} >= 0", name=name), nullable=nullable)


def moment(name: str) -> Column[object]:
    """A time that is always there."""
    return Column(name, DateTime(timezone=True), nullable=False)


def made() -> Column[object]:
    """When a row was made."""
    return Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now())


def serial() -> Column[int]:
    """A number of its own for every row."""
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


def of_tenant(*, primary_key: bool = False) -> Column[str]:
    """The tenant a row belongs to."""
    return Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=primary_key, nullable=False)


def count(name: str) -> Column[int]:
    """A number of things."""
    return Column(name, Integer, nullable=False)
