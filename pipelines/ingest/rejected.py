"""How much of a source may be refused, judged over all of it and per file, and where the refused rows of a failed run are kept.

A day's file that is refused as a whole drowns among the good rows of a year, so each file has the limit of the whole. Files of
fewer than `LEAST_ROWS` rows are judged with the whole only: of three rows one is a third. What a run that fails here refused is in
no release; it lies in ``rejected/`` of the warehouse, the newest `_KEPT` runs of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.errors import ContractError, NotFoundError
from sidlake.pipelines.ingest.rules import rejected_table, worst_rules
from sidlake.warehouse.tables import Warehouse

__all__ = ["LEAST_ROWS", "check_rejected", "keep_rejected", "rejected_of"]

LEAST_ROWS = 10
_KEPT = 20


def check_rejected(target: str, source: str, rows_of: Mapping[str, int], rejected: pl.DataFrame, limit: float) -> None:
    """Raise `ContractError` where a larger share than `limit` was refused of all rows or of one file's.

    `rows_of` has the rows of each file by name (``""`` for a source of one file), `rejected` the refused ones of all of them. The
    error's ``rejected`` is what was refused.
    """
    _check(target, sum(rows_of.values()), rejected, limit)
    refused_of = dict(rejected["source"].value_counts().iter_rows())
    for name, num_rows in rows_of.items():
        label = f"{source}/{name}" if name else source
        if num_rows >= LEAST_ROWS and refused_of.get(label, 0) > limit * num_rows:
            _check(f"{target} of {label}", num_rows, rejected.filter(pl.col("source") == label), limit)


def _check(what: str, num_rows: int, rejected: pl.DataFrame, limit: float) -> None:
    share = len(rejected) / max(num_rows, 1)
    if share <= limit:
        return
    target = what.split()[0]
    msg = (
        f"{what}: {share:.1%} of {num_rows} source rows rejected, allowed {limit:.1%} ({worst_rules(rejected)}); "
        f"correct the source, or raise max_rejected_share in the recipe's [{target}]"
    )
    raise ContractError(msg, target=target, share=share, limit=limit, rejected=rejected)


def keep_rejected(warehouse: Warehouse, run_id: str, error: ContractError) -> ContractError:
    """Return the error with where to read what the run refused, after writing that; as it is where it has no refused rows."""
    rejected = error.details.get("rejected")
    if not isinstance(rejected, pl.DataFrame):
        return error
    path = _path(warehouse, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rejected_table([rejected], run_id), path)
    warehouse.keep(path)
    for old in sorted(path.parent.glob("*.parquet"))[:-_KEPT]:
        old.unlink(missing_ok=True)
    about = {name: value for name, value in error.details.items() if name != "rejected"}
    return ContractError(f"{error.message}; all {len(rejected)} of them: sidlake rejected {run_id}", **about, run_id=run_id)


def rejected_of(warehouse: Warehouse, run_id: str) -> pa.Table:
    """Return what a run refused, as rows of `rejected_rows`: a failed one's from its file, else what the table has of it.

    Raises `NotFoundError` where neither has a row of the run.
    """
    path = warehouse.fetched(_path(warehouse, run_id))
    if path.is_file():
        return pq.read_table(path)
    if warehouse.exists("rejected_rows"):
        rows = warehouse.scan("rejected_rows").filter(pl.col("run_id") == run_id).collect().to_arrow()
        if len(rows):
            return rows
    msg = f"no rejected rows of a run {run_id!r} in {warehouse.url}; a run that fails for its rows says its id"
    raise NotFoundError(msg, run_id=run_id)


def _path(warehouse: Warehouse, run_id: str) -> Path:
    return warehouse.root / "rejected" / f"{run_id}.parquet"
