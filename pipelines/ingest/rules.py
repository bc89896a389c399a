"""Checks that refuse rows of a source: those of the recipe and those of the contracts, each by a name that `rejected_rows` says.

A row is refused by the first check that fits it.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from sidlake.errors import ContractError
from sidlake.pipelines.ingest.sources import FILE, ROW
from sidlake.pipelines.recipe import Rule
from sidlake.warehouse.contracts import conform

__all__ = ["Check", "apply_checks", "check_rejected", "missing", "places", "rejected_table", "rejections", "rule_checks"]

_RULE, _VALUE = "__rule", "__value"

Check = tuple[str, pl.Expr, pl.Expr]
"""Name, what refuses a row, and the value to show."""


def rule_checks(rules: list[Rule]) -> list[Check]:
    """Return the recipe's rules as checks."""
    return [(rule.name, _predicate(rule), pl.col(rule.column).cast(pl.String)) for rule in rules]


def _predicate(rule: Rule) -> pl.Expr:
    column = pl.col(rule.column)
    if rule.is_null:
        return column.is_null() | (column.cast(pl.String).str.strip_chars() == "")
    if rule.matches is not None:
        return column.cast(pl.String).str.contains(rule.matches).fill_null(value=False)
    return (column <= rule.at_most).fill_null(value=False)


def missing(name: str, column: str) -> Check:
    """Return the check that refuses a null or an empty text."""
    return name, pl.col(column).is_null() | (pl.col(column) == ""), pl.col(column)


def apply_checks(rows: pl.DataFrame, checks: list[Check]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the kept rows and the refused ones, which carry the first check that refused them."""
    broken = pl.coalesce(*(pl.when(e).then(pl.lit(name)) for name, e, _ in checks))
    value = pl.coalesce(*(pl.when(e).then(pl.coalesce(v.cast(pl.String), pl.lit(""))) for _, e, v in checks))
    try:
        judged = rows.with_columns(broken.alias(_RULE), value.alias(_VALUE))
    except pl.exceptions.PolarsError as error:
        why = " ".join(str(error).split("This error occurred")[0].split())
        msg = f"a rule does not fit its column: {why}; change the rule in the recipe, or the column's type"
        raise ContractError(msg) from error
    return judged.filter(pl.col(_RULE).is_null()).drop(_RULE, _VALUE), judged.filter(pl.col(_RULE).is_not_null())


def rejections(rejected: pl.DataFrame, source: str, target: str) -> pl.DataFrame:
    """Return refused rows as `rejected_rows` has them, but for the run."""
    return rejected.select(
        _label(source), pl.lit(target).alias("target"), pl.col(ROW).cast(pl.Int64).alias("row"),
        pl.col(_RULE).alias("rule"), pl.col(_VALUE).str.slice(0, 200).alias("value"),
    ).sort("source", "row")  # fmt: skip


def _label(source: str) -> pl.Expr:
    return pl.when(pl.col(FILE) == "").then(pl.lit(source)).otherwise(pl.lit(source + "/") + pl.col(FILE)).alias("source")


def places(described: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return where described items stand: source and row, as `rejected_rows` spells them."""
    return described.select(_label(source), pl.col(ROW).cast(pl.Int64).alias("row"))


def rejected_table(rejected: list[pl.DataFrame], run_id: str) -> pa.Table:
    """Return rejections as the table of a run."""
    return conform(pl.concat(rejected).with_columns(pl.lit(run_id).alias("run_id")).to_arrow(), "rejected_rows")


def check_rejected(target: str, num_rows: int, rejected: pl.DataFrame, limit: float) -> None:
    """Raise `ContractError` where a larger share than `limit` was refused."""
    share = len(rejected) / max(num_rows, 1)
    if share <= limit:
        return
    counts = rejected["rule"].value_counts(sort=True).head(3)
    worst = ", ".join(f"{rule} {count}" for rule, count in counts.iter_rows())
    msg = (
        f"{target}: {share:.1%} of {num_rows} source rows rejected, allowed {limit:.1%} ({worst}); "
        f"correct the source, or raise max_rejected_share in the recipe's [{target}]"
    )
    raise ContractError(msg, target=target, share=share, limit=limit)
