"""Statements of Core and ORM as people write them: guarded, each gives what it gives without a guard."""

from __future__ import annotations

import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy
from sqlalchemy import (
    JSON,
    DateTime,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    Numeric,
    String,
    any_,
    bindparam,
    case,
    cast,
    column,
    delete,
    distinct,
    exists,
    extract,
    func,
    insert,
    literal,
    not_,
    select,
    text,
    true,
    tuple_,
    update,
    values,
)  # fmt: skip
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)  # fmt: skip


class Base(DeclarativeBase):
    pass


class Sale(Base):
    __tablename__ = "sales"
    id: Mapped[int] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(String(20))
    amount: Mapped[int | None]
    lines: Mapped[list[Line]] = relationship(back_populates="sale", cascade="all, delete-orphan")


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    sale_id: Mapped[int] = mapped_column(ForeignKey("sales.id"))
    what: Mapped[str]
    sale: Mapped[Sale] = relationship(back_populates="lines")


class Person(Base):
    __tablename__ = "hr"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    pay: Mapped[int]


class Peeking(Base):
    __tablename__ = "peeking"
    id: Mapped[int] = mapped_column(primary_key=True)
    peek: Mapped[int] = mapped_column(default=select(Person.pay).scalar_subquery())


class Mood(enum.Enum):
    glad = 1
    sad = 2


class Kept(Base):
    """A column of each type."""

    __tablename__ = "kept"
    id: Mapped[int] = mapped_column(primary_key=True)
    string: Mapped[str | None]
    whole: Mapped[int | None] = mapped_column(sqlalchemy.BigInteger)
    yes: Mapped[bool | None]
    floating: Mapped[float | None]
    exact: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    inexact: Mapped[float | None] = mapped_column(Numeric(10, 2, asdecimal=False))
    rounded: Mapped[Decimal | None] = mapped_column(Float(asdecimal=True))
    day: Mapped[date | None]
    moment: Mapped[datetime | None]
    aware: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    clock: Mapped[time | None]
    span: Mapped[timedelta | None]
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    doc: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    key: Mapped[UUID | None]
    mood: Mapped[Mood | None]


_other = aliased(Sale)
_totals = select(Sale.region, func.sum(Sale.amount).label("total")).group_by(Sale.region).cte("totals")
_counts = select(Line.sale_id, func.count().label("n")).group_by(Line.sale_id).subquery()
_first = select(literal(1).label("n")).cte("numbers", recursive=True)
_numbers = _first.union_all(select(_first.c.n + 1).where(_first.c.n < 5))
_lines = select(Line.what).where(Line.sale_id == Sale.id).lateral()

# On both.
STATEMENTS: list[Any] = [
    select(Sale.id, func.row_number().over(partition_by=Sale.region, order_by=Sale.amount.desc())),
    select(func.sum(Sale.amount).over(order_by=Sale.id, rows=(None, 0))),
    select(_totals).where(_totals.c.total > 1).order_by(_totals.c.region),
    select(_numbers),
    select(Sale.region).union(select(Line.what)).order_by("region"),
    select(Sale.id).except_(select(Line.id + 1)),
    select(Sale.id).where(exists().where(Line.sale_id == Sale.id)),
    select(Sale).where(Sale.lines.any(Line.what == "pears")),
    select(Line).where(Line.sale.has(Sale.region == "eu")),
    select(Sale.id).where(Sale.id.not_in([2, 3])),
    select(Sale.id).where(Sale.id.in_([])),
    select(Sale.id).where(tuple_(Sale.id, Sale.region).in_([(1, "eu")])),
    select(Sale.id, _other.id).join(_other, _other.region == Sale.region).order_by(Sale.id),
    select(Sale.id, Line.what).outerjoin(Line).order_by(Sale.id, Line.id),
    select(Sale.id, Line.what).outerjoin(Line, full=True).order_by(Sale.id, Line.id),
    select(Sale).options(joinedload(Sale.lines)),
    select(Sale).options(subqueryload(Sale.lines)),
    select(Sale).options(selectinload(Sale.lines)),
    select(Sale).join(Sale.lines).options(contains_eager(Sale.lines)),
    select(Sale.id, _counts.c.n).outerjoin(_counts, _counts.c.sale_id == Sale.id).order_by(Sale.id),
    select(Sale.region, func.count()).group_by(Sale.region).having(func.count() > 0).order_by(Sale.region),
    select(func.lower(Sale.region).label("r"), func.count()).group_by("r").order_by("r"),
    select(case((Sale.amount > 5, "big"), else_="small")),
    select(cast(Sale.amount, String), cast("1", Integer), func.coalesce(Sale.amount, 0), func.nullif(Sale.amount, 0)),
    select(func.lower(Sale.region) + "x", func.length(Sale.region), func.substr(Sale.region, 1, 1), func.replace(Sale.region, "e", "f")),
    select(Sale.id).where(Sale.region.ilike("E%"), Sale.region.contains("u"), Sale.region.startswith("e", autoescape=True)),
    select(Sale.id).where(Sale.amount.between(1, 5), Sale.amount.is_distinct_from(3)),
    select(Sale.amount / 2, Sale.amount // 2, Sale.amount % 2, -Sale.amount, func.abs(Sale.amount), Sale.amount.bitwise_and(1)),
    select(func.max(Sale.amount), func.avg(Sale.amount), func.count(distinct(Sale.region)), func.count().filter(Sale.amount > 5)),
    select(Sale.region).distinct().order_by(Sale.region),
    select(Sale.id).order_by(Sale.amount.nulls_last()).limit(1).offset(1),
    select(extract("year", Kept.day), extract("month", Kept.moment)),
    select(func.current_date()),
    select(Sale.id, select(func.count(Line.id)).where(Line.sale_id == Sale.id).scalar_subquery()),
    select(Kept.doc["a"], Kept.doc["b"].as_string(), Kept.doc["c", "d"].as_float(), Kept.doc["a"][0].as_integer()),
    select(Kept.id).where(Kept.doc["b"].as_string() == "x"),
    select(Kept.id).where(Kept.yes, not_(Kept.yes.is_(False))),
    select(literal("x"), literal(1.5), literal(True), literal(None), literal(Decimal("1.5")), literal(date(2026, 1, 1))),
    select(func.aggregate_strings(Sale.region, ",")),
    select(Sale.id).with_for_update(),
    insert(Line).from_select(["sale_id", "what"], select(Sale.id, Sale.region)),
    insert(Sale).values([{"region": "a"}, {"region": "b"}]),
    insert(Sale).values(id=90, region="r").returning(Sale.id, Sale.region),
    insert(Kept),
    update(Sale).values(amount=select(func.count(Line.id)).where(Line.sale_id == Sale.id).scalar_subquery()),
    update(Line).values(what=Sale.region).where(Line.sale_id == Sale.id),
    update(Sale).values(amount=Sale.amount + 1).returning(Sale),
    delete(Line).where(Line.sale_id.in_(select(Sale.id).where(Sale.region == "eu"))),
    delete(Line).where(Line.id == 1).returning(Line.what),
]  # fmt: skip

ON_SQLITE: list[Any] = [
    sqlite.insert(Sale).values(id=1, region="x").on_conflict_do_update(index_elements=["id"], set_={"region": "x"}),
    select(func.strftime("%Y", Kept.day), func.date("2026-01-01"), func.julianday("2026-01-01")),
    select(func.json_each('[1, "x"]').table_valued("value")),
    select(func.group_concat(Sale.region)),
]

ON_POSTGRESQL: list[Any] = [
    select(values(column("a", Integer), name="v").data([(1,), (2,)])),
    postgresql.insert(Sale).values(id=1, region="x").on_conflict_do_update(index_elements=["id"], set_={"region": "x"}),
    postgresql.insert(Sale).values(id=1, region="x").on_conflict_do_nothing(),
    select(func.date_trunc("day", Kept.moment), Kept.moment + timedelta(days=1), Kept.moment - Kept.moment),
    select(postgresql.array([1, 2]), func.array_agg(Sale.id)),
    select(func.unnest(postgresql.array([1, 2])), func.generate_series(1, 3)),
    select(Sale.id).where(Sale.id == any_(postgresql.array([1, 2]))),
    select(Sale.id).where(Sale.id == func.any(bindparam("x", [1, 2], type_=postgresql.ARRAY(Integer)))),
    select(cast(Kept.doc, postgresql.JSONB).contains({"b": "x"}), cast(Kept.doc, postgresql.JSONB).has_key("a")),
    select(func.json_build_object("a", Sale.id), func.to_char(Kept.day, "YYYY")).join(Kept, true()),
    select(Sale.id).where(Sale.region.regexp_match("e.")),
    select(func.percentile_cont(0.5).within_group(Sale.amount)),
    select(Sale.region, func.sum(Sale.amount)).group_by(func.rollup(Sale.region)).order_by(Sale.region),
    select(Kept.id).where(Kept.mood == Mood.sad),
    select(Sale.id).where(Sale.region.match("eu")),
    select(Sale.id, _lines.c.what).join(_lines, true()).order_by(Sale.id, _lines.c.what),
    text("select region from sales where id = 1"),
]
