"""One more law of a release, of numbers and not of tables: codes decode to the vector of the item that has them.

`warehouse.laws` sees that SIDs are unique, complete and spelled right; a table in which SIDs were dealt to other items is all of
that. Here items, vectors and codes are read again from storage, and the distance between an item's vector and what its codes (and
its raw codes) stand for must be the one that was stored. So codes that changed places are found, and vectors that another encoder
wrote over the ones that were quantized. Items whose content changed after they got their SID are left out: they keep it, by law.

Above `_MOST_ITEMS` a sample by item hash is taken (above `_MOST_IMPLICIT` where a network makes the codes' vectors, one prefix at a
time): a shuffled table is found all the same, a handful of rows may not be.
Memory: 8 * D bytes per item looked at. Not seen: vectors and distances that were both made wrong alike, before they were stored.

Shapes: N items, L levels, D dimensions, E of the latent space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sidlake.errors import ArtifactError, LawBroken, StorageError
from sidlake.tokenizers.artifact import codebook_hash, load_codebook
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.tokenizer import Tokenizer
from sidlake.warehouse.embeddings import as_codes, matrix_for
from sidlake.warehouse.tables import Warehouse

__all__ = ["ONE_VECTOR", "SAME_DISTANCE", "verify_stored_codes"]

ONE_VECTOR = "every item has one vector that its codes were made of"
SAME_DISTANCE = "codes lie as far from their item's vector as was stored"

_MOST_ITEMS = 200_000
_MOST_IMPLICIT = 2_000
_OF_LENGTH, _OF_DISTANCE = 1e-4, 1e-3  # float32 sums differ by 1e-6 of the length between machines, neighbours by 0.1 of it
_NUM_EXAMPLES = 5
_BATCH = 16_384
_COLUMNS = ["item_id", "codes", "raw_codes", "move_cost", "residual_norm", "assigned_at"]


def verify_stored_codes(
    warehouse: Warehouse, tables: Mapping[str, int], *, generation: str, encoders: Mapping[str, Any], digest: str
) -> int:
    """Return the number of items whose codes were compared with their vectors.

    `encoders` and `digest` are the release's: the id of the fused vectors, the hash of the codebooks. Raises `LawBroken` with rule,
    count and examples, `ArtifactError` where the codebooks are not the release's, `StorageError` for files that cannot be read.
    """
    try:
        return _verify(warehouse, tables, generation, str(encoders["fused"]), digest)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:  # a damaged footer panics
        msg = f"re-reading {warehouse.url} failed: {error}; restore the damaged file or write the table again"
        raise StorageError(msg, rule="every file can be read", path=warehouse.url) from error


def _verify(warehouse: Warehouse, tables: Mapping[str, int], generation: str, fused_id: str, digest: str) -> int:
    model = _codebooks(warehouse, generation, digest)
    rows = _sample(_comparable(warehouse, tables, generation), _MOST_IMPLICIT if model.implicit else _MOST_ITEMS)
    if rows.is_empty():
        return 0
    items = (
        rows.select("item_id", "content_hash").to_arrow().cast(pa.schema([("item_id", pa.string()), ("content_hash", pa.string())]))
    )
    embeddings = warehouse.scan("item_embeddings", version=tables["item_embeddings"])
    _check_one_vector(items, embeddings, fused_id)
    x_ND, _ = matrix_for(items, embeddings, "fused", fused_id)
    wrong = [
        row + start
        for start in range(0, len(rows), _BATCH)
        for row in _wrong_rows(model, x_ND[start : start + _BATCH], rows[start : start + _BATCH])
    ]
    if wrong:
        raise _broken(SAME_DISTANCE, rows["item_id"].gather(wrong).to_list(), of=len(rows))
    return len(rows)


def _codebooks(warehouse: Warehouse, generation: str, digest: str) -> Tokenizer:
    path = warehouse.fetched(warehouse.artifacts_dir / generation / "codebook.safetensors", digest)
    model = load_codebook(path)
    found = codebook_hash(model)
    if found != digest:
        msg = f"codebook {path}: its hash is {found}, the release names {digest}; restore the file from a backup or run retrain"
        raise ArtifactError(msg, path=str(path))
    return model


def _comparable(warehouse: Warehouse, tables: Mapping[str, int], generation: str) -> pl.DataFrame:
    """Return the items with their codes, in item_id order, whose content is what it was when they got them."""
    sids = warehouse.scan("semantic_ids", version=tables["semantic_ids"]).filter(pl.col("generation") == generation)
    items = warehouse.scan("items", version=tables["items"]).select("item_id", "content_hash", "updated_at")
    kept = sids.select(_COLUMNS).join(items, on="item_id").filter(pl.col("updated_at") <= pl.col("assigned_at"))
    return kept.sort("item_id").collect()


def _sample(rows: pl.DataFrame, num: int) -> pl.DataFrame:
    if len(rows) <= num:
        return rows
    return rows[np.sort(np.argsort(item_hashes(rows["item_id"].to_list()), kind="stable")[:num])]


def _check_one_vector(items: pa.Table, embeddings: pl.LazyFrame, fused_id: str) -> None:
    wanted = pl.from_arrow(items)
    assert isinstance(wanted, pl.DataFrame)
    fused = embeddings.filter((pl.col("modality") == "fused") & (pl.col("encoder_id") == fused_id))
    counts = fused.group_by("item_id", "content_hash").agg(pl.len().alias("num"))
    found = wanted.lazy().join(counts, on=["item_id", "content_hash"], how="left").collect()
    wrong = found.filter(pl.col("num").fill_null(0) != 1).sort("item_id")
    if len(wrong):
        raise _broken(ONE_VECTOR, wrong["item_id"].to_list(), of=len(wanted))


def _wrong_rows(model: Tokenizer, x_ND: npt.NDArray[np.float32], rows: pl.DataFrame) -> list[int]:
    """Return the rows whose distance to their codes, or to their raw codes, is not the stored one."""
    z_NE = model.latents(x_ND).astype(np.float64)
    stored_N = rows["residual_norm"].to_numpy().astype(np.float64)
    cost_N = rows["move_cost"].to_numpy().astype(np.float64)
    allowed_N = _OF_LENGTH * np.linalg.norm(z_NE, axis=1) + _OF_DISTANCE * np.abs(stored_N) + 1e-6
    wrong_N = np.zeros(len(rows), bool)
    for column, expected_N in (("codes", stored_N), ("raw_codes", stored_N - cost_N)):
        codes_NL = as_codes(rows[column].to_arrow())
        wrong_N |= np.abs(np.linalg.norm(z_NE - _latents_of(model, codes_NL), axis=1) - expected_N) > allowed_N
    return [int(row) for row in np.flatnonzero(wrong_N)]


def _latents_of(model: Tokenizer, codes_NL: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return what the codes add up to in the latent space; a network is asked once for each different prefix."""
    sums_NE = np.zeros((len(codes_NL), model.increments(()).shape[1]))
    for level in range(codes_NL.shape[1]):
        if not model.implicit:
            sums_NE += model.increments([0] * level)[codes_NL[:, level]]
            continue
        prefixes_PL, group_N = np.unique(codes_NL[:, :level], axis=0, return_inverse=True)
        for group, prefix in enumerate(prefixes_PL):
            rows = np.flatnonzero(group_N.reshape(-1) == group)
            sums_NE[rows] += model.increments(prefix.tolist())[codes_NL[rows, level]]
    return sums_NE


def _broken(rule: str, item_ids: list[str], *, of: int) -> LawBroken:
    examples = item_ids[:_NUM_EXAMPLES]
    msg = (
        f"law broken: {rule}: {len(item_ids)} of {of} items not, such as {examples}. Codes or vectors were changed after they were "
        "made; nothing was published: run retrain, or restore the tables from a backup"
    )
    broken = {"rule": rule, "count": len(item_ids), "examples": examples}
    return LawBroken(msg, **broken, broken=[broken])
