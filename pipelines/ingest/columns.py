"""Columns of a source as values of the contracts: identifiers, text, prices, instants, each of the type that the contract wants.

Expressions of Polars; nothing is read here. A column of another type is an error that names it.
"""

from __future__ import annotations

import polars as pl

from sidlake.errors import ContractError
from sidlake.pipelines.ingest.sources import FILE, ROW
from sidlake.pipelines.recipe import Column

__all__ = [
    "UTC",
    "as_text",
    "cast_column",
    "category",
    "identifier",
    "picture",
    "require_lists",
    "select_columns",
    "tidy",
    "timestamp",
    "with_columns",
]

UTC = pl.Datetime("us", "UTC")
"""Type of every instant."""


def select_columns(frame: pl.LazyFrame, columns: set[str], item_id: str, *, upper: bool) -> pl.LazyFrame:
    """Return row number, file, the named columns, and the identifier as `item_id`."""
    schema = frame.collect_schema()
    spelled = identifier(item_id, schema)
    spelled = spelled.str.to_uppercase() if upper else spelled
    return frame.select(FILE, ROW, *sorted(columns)).with_columns(spelled.alias("item_id"))


def identifier(column: str, schema: pl.Schema | pl.DataFrame) -> pl.Expr:
    """Return an identifier as text without blanks around it; `ContractError` for a column that is neither text nor integer."""
    kind = (schema.schema if isinstance(schema, pl.DataFrame) else schema)[column]
    if not (kind == pl.String or kind.is_integer()):
        msg = f"column {column!r} holds {kind}; an identifier is a string or an integer: convert it, or name another column"
        raise ContractError(msg, column=column, type=str(kind))
    return pl.col(column).cast(pl.String).str.strip_chars()


def timestamp(column: str, rows: pl.DataFrame) -> pl.Expr:
    """Return instants in UTC; `ContractError` for a column that holds none."""
    kind = rows.schema[column]
    if not kind.is_temporal() or kind == pl.Time or isinstance(kind, pl.Duration):
        msg = (
            f"column {column!r} holds {kind}; a timestamp column is a date or a datetime (taken as UTC without a zone): convert it"
        )
        raise ContractError(msg, column=column, type=str(kind))
    if isinstance(kind, pl.Datetime) and kind.time_zone:
        return pl.col(column).dt.convert_time_zone("UTC").cast(UTC)
    return pl.col(column).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def cast_column(column: Column | None, kind: pl.DataType | type[pl.DataType], rows: pl.DataFrame) -> pl.Expr:
    """Return a column as `kind`, nulls where there is none; `ContractError` for another type."""
    if column is None:
        return pl.lit(None, kind)
    if kind == UTC:
        return timestamp(column.column, rows)
    if not rows.schema[column.column].is_numeric():
        msg = f"column {column.column!r} holds {rows.schema[column.column]}; a price is a number: convert it, or leave price out"
        raise ContractError(msg, column=column.column)
    return pl.col(column.column).cast(kind)


def require_lists(column: str, schema: pl.Schema) -> None:
    """Return when `column` holds lists, as a recipe with `sequences` says; else `ContractError`."""
    if not isinstance(schema[column], pl.List):
        msg = f"column {column!r} holds {schema[column]}, sequences = true needs lists of items: the column has the wrong type"
        raise ContractError(f"{msg}; convert it, or leave sequences out", column=column, type=str(schema[column]))


def with_columns(rows: pl.DataFrame, *, user_id: pl.Expr, ts: pl.Expr, weight: pl.Expr) -> pl.DataFrame:
    """Return the rows with the three columns of an event; `ContractError` where a column has another type."""
    try:
        return rows.with_columns(user_id.alias("user_id"), ts.alias("ts"), weight.alias("weight"))
    except pl.exceptions.PolarsError as error:
        msg = f"interactions: a column has the wrong type: {str(error).splitlines()[0]}; convert it, or name another column"
        raise ContractError(msg) from error


def tidy(column: pl.Expr) -> pl.Expr:
    """Return text with single blanks, none at its ends."""
    return column.cast(pl.String).str.replace_all(r"\s+", " ").str.strip_chars()


def as_text(name: str, kind: pl.DataType) -> pl.Expr:
    """Return a column as tidy text, lists joined by commas, null where it is empty."""
    column = pl.col(name).cast(pl.List(pl.String)).list.join(", ") if isinstance(kind, pl.List) else pl.col(name)
    return pl.when(tidy(column) != "").then(tidy(column))


def category(name: str | None, rows: pl.DataFrame) -> pl.Expr:
    """Return a category path, nulls where the source has none."""
    if name is None:
        return pl.lit(None, pl.List(pl.String))
    column = pl.col(name) if isinstance(rows.schema[name], pl.List) else pl.concat_list(pl.col(name))
    return column.cast(pl.List(pl.String)).list.drop_nulls()


def picture(column: str | None, rows: pl.DataFrame, kind: type[pl.DataType]) -> pl.Expr:
    """Return the picture column where the source holds it as `kind`: bytes, or the place of a file."""
    if column is None or rows.schema[column] != kind:
        return pl.lit(None, kind)
    return pl.col(column)
