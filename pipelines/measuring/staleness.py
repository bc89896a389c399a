"""How far published SIDs have fallen behind their items (`quality.metrics.staleness`), read from the warehouse.

A growing share says that a new generation is due; the recipe's section ``drift`` says from which share on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sidlake.pipelines.fit_inputs.item_facts import facts_of_rows, with_facts
from sidlake.pipelines.run import RunContext
from sidlake.quality.gates import Metric
from sidlake.quality.metrics.staleness import staleness
from sidlake.tokenizers.tokenizer import Tokenizer
from sidlake.warehouse.embeddings import as_codes

__all__ = ["staleness_metrics"]

_BATCH = 32_768


def staleness_metrics(
    ctx: RunContext, model: Tokenizer, items: pa.Table, x_ND: npt.NDArray[np.float32], sids: pa.Table
) -> list[Metric]:
    """Return the metrics of `staleness` for `items` (item_id, content_hash), their fused vectors and `semantic_ids`, in one order.

    Memory: 4 * (L + 1) bytes per item beside what is given, and the vectors of the stale ones.
    """
    stored_NL = as_codes(sids.column("raw_codes"))
    rows = with_facts(ctx, items, model.encode_needs)
    found = [
        model.encode(x_ND[start : start + _BATCH], facts=facts_of_rows(rows.slice(start, _BATCH)))
        for start in range(0, len(items), _BATCH)
    ]
    return staleness(model, x_ND, stored_NL, np.concatenate(found))
