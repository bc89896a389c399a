"""Rows of the events' source into `interactions`: events of one user, item and instant are one event whose weights add up.

The recipe's rules are tried first, then the contract's own: identifiers and times that are missing or cannot be read, times in the
future or before the recipe's `earliest`, weights that are not above 0, items that the catalogue does not have.

Memory: about 100 bytes per event.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC as ZERO
from datetime import datetime
from pathlib import Path

import polars as pl

from sidlake.errors import ContractError
from sidlake.pipelines.ingest.columns import Converted, as_identifier, as_number, as_time, identifiers, spelling
from sidlake.pipelines.ingest.lists import as_sequence
from sidlake.pipelines.ingest.numbers import UTC
from sidlake.pipelines.ingest.rejected import check_rejected
from sidlake.pipelines.ingest.rules import (
    FILE,
    ROW,
    Check,
    apply_checks,
    judged_by_rules,
    missing,
    rejections,
    unreadable,
    worst_rules,
)
from sidlake.pipelines.ingest.source_rows import SourceRows, read_files
from sidlake.pipelines.recipe import InteractionsConfig, Recipe, Rule

__all__ = ["INTERACTIONS", "check_events", "last_events", "read_events", "same_events"]

INTERACTIONS: dict[str, pl.DataType | type[pl.DataType]] = {
    "user_id": pl.String, "item_id": pl.String, "ts": UTC, "event": pl.String, "weight": pl.Float32, "day": pl.String,
}  # fmt: skip


def read_events(
    recipe: Recipe, config: InteractionsConfig, files: Mapping[str, Path], known: pl.Series, now: datetime
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Return the events of `files` on items that are `known`, the refused rows, and the rows of each file.

    Raises:
        SourceError: a file is missing, damaged or lacks a column. ContractError: a column's type cannot be what it is used for.
    """
    source = recipe.sources[config.source]
    rules = [rule for rule in source.rules if "interactions" in rule.rejects]
    columns = {config.user_id, config.item_id, *(rule.column for rule in rules)}
    columns |= {name for name in (config.ts, config.weight) if name is not None}
    checks = _checks(config, known, now)
    kept, refused, counts = [], [], {}
    uppercase = config.uppercase_ids or recipe.items.uppercase_ids
    for name, rows in read_files(files, source, columns):
        events = _events(rows, config, rules, uppercase=uppercase).with_columns(pl.lit(name).alias(FILE))
        counts[name] = events.height
        good, bad = apply_checks(events, checks)
        refused.append(rejections(bad, config.source, "interactions"))
        kept.append(good.select("user_id", "item_id", "ts", "weight"))
    weight = pl.col("weight").cast(pl.Float64).sort().sum().cast(pl.Float32)  # in one order, however threads share the groups
    summed = pl.concat(kept).group_by("user_id", "item_id", "ts").agg(weight)
    dated = summed.with_columns(pl.lit(config.event).alias("event"), pl.col("ts").dt.strftime("%Y-%m-%d").alias("day"))
    return dated.select(list(INTERACTIONS)).sort("user_id", "ts", "item_id"), pl.concat(refused).sort("source", "row"), counts


def check_events(
    recipe: Recipe, config: InteractionsConfig, num_kept: int, rejected: pl.DataFrame, rows_of: Mapping[str, int]
) -> None:
    """Raise `ContractError` where too large a share was refused, or nothing is left."""
    check_rejected("interactions", config.source, rows_of, rejected, config.max_rejected_share)
    if num_kept == 0:
        path = recipe.source_place(config.source)
        msg = (
            f"source {path}: no interaction left of {sum(rows_of.values())} rows ({worst_rules(rejected)}); "
            "leave [interactions] out for a catalogue without behaviour"
        )
        raise ContractError(msg, path=path, rows=sum(rows_of.values()))


def last_events(events: pl.DataFrame, before: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return item_id and ``last``, the time of its last event, of `events` and of what this has returned `before` of others."""
    new = events.group_by("item_id").agg(pl.col("ts").max().alias("last"))
    both = new if before is None else pl.concat([before, new])
    return both.group_by("item_id").agg(pl.col("last").max()).sort("item_id")


def same_events(known: pl.LazyFrame | None, events: pl.DataFrame) -> bool:
    """Return whether an event is of the user, item and instant of a known one, so that their weights add up."""
    if known is None or events.is_empty():
        return False
    keys = ["user_id", "item_id", "ts"]
    same_days = known.filter(pl.col("day").is_in(events["day"].unique().implode()))
    return not same_days.select(keys).join(events.lazy().select(keys), on=keys, how="semi").head(1).collect().is_empty()


def _events(rows: SourceRows, config: InteractionsConfig, rules: list[Rule], *, uppercase: bool) -> pl.DataFrame:
    """Return one row per event, or per entry of a sequence, with what could not be read beside."""
    judged = judged_by_rules(rows, rules)
    users = as_identifier(rows, config.user_id)
    weight = as_number(rows, config.weight) if config.weight is not None else Converted.of(pl.repeat(1.0, len(rows), eager=True))
    said = (
        spelling(rows.column(config.weight), rows, config.weight)
        if config.weight is not None
        else pl.repeat("", len(rows), eager=True)
    )
    values = {
        "user_id": users.values, "weight": weight.values.cast(pl.Float32), "__user_id": users.unreadable, "__weight": said,
        ROW: pl.int_range(len(rows), eager=True),
    }  # fmt: skip
    if not config.sequences:
        assert config.ts is not None
        items, times = as_identifier(rows, config.item_id, uppercase=uppercase), as_time(rows, config.ts)
        values |= {"item_id": items.values, "__item_id": items.unreadable, "ts": times.values, "__ts": times.unreadable}
        return pl.DataFrame(values).with_columns(*judged)
    lists = as_sequence(rows, config.item_id)
    frame = pl.DataFrame(values | {"__item": lists}).with_columns(*judged)
    frame = frame.with_columns(pl.int_ranges(pl.col("__item").list.len()).alias("__position"))
    frame = frame.explode("__item", "__position", empty_as_null=True)
    items = identifiers(rows, config.item_id, frame["__item"], uppercase=uppercase)
    return frame.drop("__item").with_columns(
        items.values.alias("item_id"), items.unreadable.alias("__item_id"), pl.from_epoch("__position", "s").cast(UTC).alias("ts"),
        pl.lit(None, pl.String).alias("__ts"),
    )  # fmt: skip


def _checks(config: InteractionsConfig, known: pl.Series, now: datetime) -> list[Check]:
    earliest = datetime.fromisoformat(config.earliest)
    earliest = earliest if earliest.tzinfo else earliest.replace(tzinfo=ZERO)
    good_weight = pl.col("weight").is_finite() & (pl.col("weight") > 0)
    too_early = ("implausible_timestamp", pl.col("ts") < pl.lit(earliest).cast(UTC), pl.col("ts").cast(pl.String))
    return [
        unreadable("unreadable_user_id", "__user_id"),
        missing("missing_user_id", "user_id"),
        unreadable("unreadable_item_id", "__item_id"),
        missing("missing_item_id", "item_id"),
        unreadable("unreadable_timestamp", "__ts"),
        ("missing_timestamp", pl.col("ts").is_null(), pl.col("ts").cast(pl.String)),
        ("future_timestamp", pl.col("ts") > pl.lit(now).cast(UTC), pl.col("ts").cast(pl.String)),
        *([] if config.sequences else [too_early]),
        ("bad_weight", ~good_weight.fill_null(value=False), pl.col("__weight")),
        ("unknown_item", ~pl.col("item_id").is_in(known.implode()), pl.col("item_id")),
    ]
