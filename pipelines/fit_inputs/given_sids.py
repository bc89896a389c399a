"""SIDs that somebody else made, as a generation like any other: their codes are given, what is fitted is what each code stands for.

The codebooks are the additive ones whose sums lie nearest the items' fused vectors (`quality.metrics.refit`), so that the codes can
be held against vectors, and items that come later take the nearest free ones. Given codes need not be the nearest ones of their
item: `staleness_share` is high then and says nothing of the items. Memory: 16 * D bytes per item while the codebooks are fitted.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.quality.assignment import Assignment
from sidlake.quality.imported import require_known_ids
from sidlake.quality.metrics.refit import refit_codebooks
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig

__all__ = ["codes_of", "digest_of_given", "model_of_given"]


def digest_of_given(given: Assignment | None) -> str | None:
    """Return what identifies the SIDs that a run was given; None where it makes its own."""
    if given is None:
        return None
    order = np.argsort(np.asarray(given.item_ids.to_pylist(), dtype=object))
    ids = "\n".join(given.item_ids.take(pa.array(order)).to_pylist())
    codes = np.ascontiguousarray(given.codes_NL[order]).tobytes()
    return hashlib.sha256(f"{given.widths}\n{ids}\n".encode() + codes).hexdigest()


def codes_of(given: Assignment, item_ids: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Return the given codes of `item_ids`, int32 [N, L]; a row of -1 for an item without."""
    rows = pc.index_in(item_ids, value_set=given.item_ids).to_numpy()
    found_NL = np.full((len(item_ids), given.num_levels), -1, dtype=np.int32)
    has_N = ~np.isnan(rows.astype(np.float64))
    found_NL[has_N] = given.codes_NL[rows[has_N].astype(np.int64)]
    return found_NL


def model_of_given(given: Assignment, items: pa.Table, x_ND: npt.NDArray[np.float32]) -> ResidualKMeans:
    """Return a tokenizer whose codes are the given ones, fitted to the vectors of the items that have one.

    Raises `ContractError` where a given SID is of an item that `items` does not have.
    """
    require_known_ids(given, items.column("item_id"))
    codes_NL = codes_of(given, items.column("item_id"))
    has_N = codes_NL[:, 0] >= 0
    codes_ML, x_MD = codes_NL[has_N], x_ND[has_N]
    fitted = refit_codebooks(codes_ML, given.widths, x_MD)
    counts = [np.bincount(codes_ML[:, level], minlength=width) for level, width in enumerate(given.widths)]
    centroids = [codebook.astype(np.float32) for codebook in fitted.codebooks]
    return ResidualKMeans(centroids, counts, ResidualKMeansConfig(widths=tuple(given.widths)))
