"""Checks that refuse rows of a source: those of the recipe and those of the contracts, each by a name that `rejected_rows` says.

A row is refused by the first check that fits it. The recipe's rules look at the source's own values under its own names, before
anything is made of them, and come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa

from sidlake.errors import ContractError
from sidlake.pipelines.ingest.columns import as_number, as_time, spelling, type_error
from sidlake.pipelines.ingest.source_rows import SourceRows
from sidlake.pipelines.settings.sources import Rule
from sidlake.warehouse.contracts import conform

__all__ = [
    "FILE",
    "ROW",
    "RULE",
    "SHOWN",
    "VALUE",
    "Check",
    "apply_checks",
    "judged_by_rules",
    "missing",
    "places",
    "rejected_table",
    "rejections",
    "unreadable",
    "worst_rules",
]

ROW = "__row"
"""Number of a row, from 0, within its file."""
FILE = "__file"
"""Which file a row is from."""
RULE, VALUE = "__rule", "__value"
SHOWN = 200
"""Characters of a refused value that `rejected_rows` shows."""

Check = tuple[str, pl.Expr, pl.Expr]
"""Name, what refuses a row, and the value to show."""

_HINTS = {
    "unreadable_timestamp": (
        "a timestamp column is a date or a datetime, or says in the recipe's source how it is written: "
        "types = { COLUMN = { format = '%m/%d/%Y %H:%M' } }, or { unit = 's' } for epoch numbers"
    ),
    "unreadable_order_by": "order_by needs times or numbers: types = { COLUMN = { format = '%m/%d/%Y' } }, or COLUMN = 'number'",
    "unreadable_first_seen": (
        "a timestamp column is a date or a datetime, or says how it is written: types = { COLUMN = { format = '%m/%d/%Y' } }"
    ),
    "unreadable_price": "a price is a number: say decimal = '.' or ',' in the recipe's source",
    "bad_weight": "a weight is a number above 0: say decimal = '.' or ',' in the recipe's source, or refuse such rows by a rule",
    "implausible_timestamp": "is that the unit of the numbers? types = { COLUMN = { unit = 'ms' } }; or set earliest",
    "unreadable_category": "types says that it is a list of JSON",
}


def judged_by_rules(rows: SourceRows, rules: Sequence[Rule]) -> pl.DataFrame:
    """Return `RULE` and `VALUE` of each row: the first of the recipe's rules that refuses it and the source's value, else null.

    Raises:
        ContractError: a rule does not fit its column, or its pattern is no regular expression.
    """
    judged = pl.DataFrame({RULE: _nulls(len(rows)), VALUE: _nulls(len(rows))})
    for rule in rules:
        column = rows.column(rule.column)
        try:
            refused = _refused(rows, rule, column)
        except pl.exceptions.PolarsError as error:
            why = " ".join(str(error).split("This error occurred")[0].split())
            msg = f"rule {rule.name} does not fit its column {rule.column!r}: {why}; change the rule, or the column's type"
            raise ContractError(msg, rule=rule.name) from error
        shown = pl.repeat("", len(rows), eager=True) if rule.is_null else spelling(column, rows, rule.column).fill_null("")
        frame = judged.with_columns(refused.fill_null(value=False).alias("__now"), shown.alias("__shown"))
        first = pl.col("__now") & pl.col(RULE).is_null()
        judged = frame.select(
            pl.when(first).then(pl.lit(rule.name)).otherwise(pl.col(RULE)).alias(RULE),
            pl.when(first).then(pl.col("__shown")).otherwise(pl.col(VALUE)).alias(VALUE),
        )
    return judged


def _refused(rows: SourceRows, rule: Rule, column: pl.Series) -> pl.Series:
    if rule.is_null:
        return column.is_null() | (column.str.strip_chars() == "") if column.dtype == pl.String else column.is_null()
    limit = rule.at_most if rule.at_most is not None else rule.at_least
    if limit is not None:
        if column.dtype == pl.Boolean or column.dtype.is_temporal() or column.dtype.is_nested() or column.dtype == pl.Binary:
            raise type_error(rows, rule.column, f"rule {rule.name} does not fit its column: a number is needed")
        number = as_number(rows, rule.column)
        values = column if column.dtype.is_numeric() else number.values
        broken = values <= limit if rule.at_most is not None else values >= limit
        return broken.fill_null(value=False) | number.unreadable.is_not_null()
    if rule.before is not None or rule.after is not None:
        time = as_time(rows, rule.column)
        broken = time.values < _instant(rule.before) if rule.before is not None else time.values > _instant(rule.after or "")
        return broken.fill_null(value=False) | time.unreadable.is_not_null()
    text = spelling(column, rows, rule.column)
    return _text_refused(rule, text) & (text.is_not_null() & (text != ""))


def _text_refused(rule: Rule, text: pl.Series) -> pl.Series:
    if rule.matches is not None:
        return text.str.contains(rule.matches)
    if rule.not_matches is not None:
        return ~text.str.contains(rule.not_matches)
    if rule.accepted:
        return ~text.is_in(list(rule.accepted))
    if rule.shorter_than is not None:
        return text.str.len_chars() < rule.shorter_than
    assert rule.longer_than is not None
    return text.str.len_chars() > rule.longer_than


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def missing(name: str, column: str) -> Check:
    """Return the check that refuses a null or an empty text."""
    return name, pl.col(column).is_null() | (pl.col(column) == ""), pl.col(column)


def unreadable(name: str, column: str) -> Check:
    """Return the check that refuses a row whose value of `column` could not be read; the text stands in `column`."""
    return name, pl.col(column).is_not_null(), pl.col(column)


def apply_checks(rows: pl.DataFrame, checks: Sequence[Check]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the kept rows and the refused ones, which carry the first check that refused them; rows may carry one already."""
    has_rule = RULE in rows.columns
    known = [pl.col(RULE)] if has_rule else []
    broken = pl.coalesce(*known, *(pl.when(e).then(pl.lit(name)) for name, e, _ in checks))
    value = pl.coalesce(
        *([pl.when(pl.col(RULE).is_not_null()).then(pl.coalesce(VALUE, pl.lit("")))] if has_rule else []),
        *(pl.when(e).then(pl.coalesce(v.cast(pl.String), pl.lit(""))) for _, e, v in checks),
    )
    judged = rows.with_columns(broken.alias(RULE), value.alias(VALUE))
    return judged.filter(pl.col(RULE).is_null()).drop(RULE, VALUE), judged.filter(pl.col(RULE).is_not_null())


def rejections(rejected: pl.DataFrame, source: str, target: str) -> pl.DataFrame:
    """Return refused rows as `rejected_rows` has them, but for the run."""
    return rejected.select(
        _label(source), pl.lit(target).alias("target"), pl.col(ROW).cast(pl.Int64).alias("row"),
        pl.col(RULE).alias("rule"), pl.col(VALUE).str.slice(0, SHOWN).alias("value"),
    ).sort("source", "row")  # fmt: skip


def _label(source: str) -> pl.Expr:
    return pl.when(pl.col(FILE) == "").then(pl.lit(source)).otherwise(pl.lit(source + "/") + pl.col(FILE)).alias("source")


def places(described: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return where described items stand: source and row, as `rejected_rows` spells them."""
    return described.select(_label(source), pl.col(ROW).cast(pl.Int64).alias("row"))


def rejected_table(rejected: list[pl.DataFrame], run_id: str) -> pa.Table:
    """Return rejections as the table of a run."""
    return conform(pl.concat(rejected).with_columns(pl.lit(run_id).alias("run_id")).to_arrow(), "rejected_rows")


def worst_rules(rejected: pl.DataFrame) -> str:
    """Return the three rules that refused most, how many rows each, with an example and what to do where that is known."""
    counts = rejected["rule"].value_counts().sort("count", "rule", descending=[True, False]).head(3)
    told = []
    for rule, count in counts.iter_rows():
        values = rejected.filter((pl.col("rule") == rule) & (pl.col("value") != ""))["value"]
        example = f", such as {values[0]!r}" if len(values) else ""
        hint = f": {_HINTS[rule]}" if rule in _HINTS else ""
        told.append(f"{rule} {count}{example}{hint}")
    return ", ".join(told) or "no row was refused"


def _nulls(count: int) -> pl.Series:
    return pl.Series("none", [None], pl.String).new_from_index(0, count)
