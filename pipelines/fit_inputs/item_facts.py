"""What tokenizers may know of items beside their vectors: dates, categories, co-purchases, behaviour (`ItemFacts`).

Pairs and behaviour come from training events only, like behaviour embeddings: no held-out event reaches a SID. The instants of the
first and the last event that a pair came from go with the pairs, because a window that reaches into the evaluation is the leak
that nobody sees in a table of results. Only what a tokenizer asks for is read.

Memory: 16 bytes per pair, and 4 * C bytes per item for vectors of behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sidlake.pipelines.fit_inputs.split import ordered_events, training_events
from sidlake.pipelines.run import RunContext
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.tokenizer import ItemFacts
from sidlake.warehouse.embeddings import matrix_for

__all__ = ["FACT_COLUMNS", "TrainingPairs", "co_purchases", "facts_for_fit", "facts_of_rows", "training_pairs", "with_facts"]

FACT_COLUMNS = {"first_seen_N": "first_seen", "categories_N": "category"}
"""Facts that `encode` may need, and the column of staged rows that carries each."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingPairs:
    """Pairs of rows that users took together, how many positions apart, and the first and last instant of training."""

    pairs_P2: npt.NDArray[np.int64]
    gaps_P: npt.NDArray[np.int64]
    window: tuple[str, str]


def facts_for_fit(ctx: RunContext, items: pa.Table, needs: frozenset[str]) -> ItemFacts:
    """Return the facts named in `needs` for the rows of `items` (item_id, content_hash); what the catalogue lacks is None."""
    facts = facts_of_rows(with_facts(ctx, items, needs))
    found = training_pairs(ctx, items) if "pairs_P2" in needs else None
    return ItemFacts(
        item_hashes_N=facts.item_hashes_N,
        first_seen_N=facts.first_seen_N,
        categories_N=facts.categories_N,
        pairs_P2=found.pairs_P2 if found else None,
        pairs_window=found.window if found else None,
        collaborative_NC=_collaborative(ctx, items) if "collaborative_NC" in needs else None,
    )


def with_facts(ctx: RunContext, items: pa.Table, needs: frozenset[str]) -> pa.Table:
    """Return `items` with the columns of `FACT_COLUMNS` that `needs` names and the catalogue fills, to be staged for `encode`."""
    for name, column in FACT_COLUMNS.items():
        if name in needs:
            values = _column(ctx, items, column)
            if values.null_count < len(values):
                items = items.append_column(column, values)
    return items


def facts_of_rows(rows: pa.Table) -> ItemFacts:
    """Return the facts that staged rows carry; an item without a date counts as the latest, one without a category has none."""
    first_seen = categories = None
    if "first_seen" in rows.column_names:
        first_seen = rows.column("first_seen").cast(pa.int64()).fill_null(np.iinfo(np.int64).max).to_numpy()
    if "category" in rows.column_names:
        categories = [path or [] for path in rows.column("category").to_pylist()]
    hashes = item_hashes(rows.column("item_id").to_pylist())
    return ItemFacts(item_hashes_N=hashes, first_seen_N=first_seen, categories_N=categories)


def co_purchases(
    users_N: npt.NDArray[np.int64], rows_N: npt.NDArray[np.int64], *, window: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return pairs_P2, two different items that a user took within `window` positions, and gaps_P, how many positions apart.

    Events are sorted by user and time.

    >>> pairs, gaps = co_purchases(np.array([0, 0, 0, 1]), np.array([5, 6, 7, 9]), window=2)
    >>> pairs.tolist(), gaps.tolist()
    ([[5, 6], [6, 7], [5, 7]], [1, 1, 2])
    """
    found: list[npt.NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    for gap in range(1, min(window, len(users_N) - 1) + 1):
        together = (users_N[gap:] == users_N[:-gap]) & (rows_N[gap:] != rows_N[:-gap])
        found.append(np.stack([rows_N[:-gap][together], rows_N[gap:][together]], axis=1))
    return np.concatenate(found), np.repeat(np.arange(len(found)), [len(pairs) for pairs in found])


def training_pairs(ctx: RunContext, items: pa.Table) -> TrainingPairs | None:
    """Return pairs of rows of `items` from training events; None without events."""
    events = _training(ctx)
    if events is None or events.is_empty():
        return None
    rows = pa.compute.index_in(events["item_id"].to_arrow().cast(pa.string()), value_set=items.column("item_id"))
    users_N, rows_N = events["user_id"].rle_id().to_numpy().astype(np.int64), rows.fill_null(-1).to_numpy().astype(np.int64)
    known = rows_N >= 0
    pairs_P2, gaps_P = co_purchases(users_N[known], rows_N[known], window=ctx.recipe.split.pair_window)
    first, last = events["ts"].min(), events["ts"].max()
    window = (first.isoformat(), last.isoformat())  # type: ignore[union-attr]
    return TrainingPairs(pairs_P2=pairs_P2, gaps_P=gaps_P, window=window)


def _collaborative(ctx: RunContext, items: pa.Table) -> npt.NDArray[np.float32] | None:
    encoder_id = ctx.state.encoders.get("behaviour")
    if encoder_id is None:
        return None
    embeddings = ctx.warehouse.scan("item_embeddings", version=ctx.tables["item_embeddings"])
    return matrix_for(items, embeddings, "behaviour", encoder_id, by=["item_id"])[0]


def _column(ctx: RunContext, items: pa.Table, column: str) -> pa.ChunkedArray:
    """Return the column of `items` in the rows' order; without dates of its own an item was first seen at its first event."""
    values = _looked_up(ctx.read("items", ["item_id", column]), items, column)
    if column != "first_seen" or values.null_count < len(values):
        return values
    events = _training(ctx)
    if events is None:
        return values
    return _looked_up(events.group_by("item_id").agg(pl.col("ts").min().alias("first_seen")).to_arrow(), items, column)


def _looked_up(table: pa.Table, items: pa.Table, column: str) -> pa.ChunkedArray:
    ids: Sequence[pa.Array] = table.column("item_id").cast(pa.string())
    where = pa.compute.index_in(items.column("item_id"), value_set=ids)
    return table.column(column).combine_chunks().take(where.combine_chunks() if isinstance(where, pa.ChunkedArray) else where)


def _training(ctx: RunContext) -> pl.DataFrame | None:
    if ctx.recipe.interactions is None:
        return None
    return training_events(ordered_events(ctx.read("interactions", ["user_id", "item_id", "ts"])), ctx.recipe.split)
