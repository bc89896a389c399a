"""What a release records of the rows its codebooks were fitted on, so that a training set can be told again, and checked."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["trained_on"]

_BATCH_SIZE = 65_536


def trained_on(items: pa.Table, *, fused: str, seed: int, max_fit_rows: int) -> dict[str, object]:
    """Return number and digest of the rows (item_id, content_hash) of `items`, the encoder of their vectors, seed and sample size.

    Content and encoder decide a vector, so the digest stands for the vectors; rows count in their order, however they are chunked.
    Memory: one batch.

    >>> rows = pa.table({"item_id": ["a", "b"], "content_hash": ["1", "2"]})
    >>> about = trained_on(rows, fused="pca:12", seed=0, max_fit_rows=1)
    >>> about["items"], about["sample"], about["sha256"][:8]
    (2, 1, '0f41829a')
    """
    parts = {name: (hashlib.sha256(), hashlib.sha256()) for name in ("item_id", "content_hash")}
    for batch in items.select(list(parts)).to_batches(_BATCH_SIZE):
        for name, (lengths, content) in parts.items():
            values = batch.column(name).cast(pa.large_binary())
            lengths.update(pc.binary_length(values).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
            content.update(b"".join(values.to_pylist()))
    digests = [part.hexdigest() for pair in parts.values() for part in pair]
    return {
        "items": items.num_rows,
        "sample": min(items.num_rows, max_fit_rows),
        "sha256": hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        "vectors": fused,
        "seed": seed,
    }
