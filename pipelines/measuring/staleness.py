"""How far published SIDs have fallen behind their items: one that changes keeps its SID, and this measures the price.

Within a generation no SID moves, also where a new description gives its item another vector. An item is stale where the nearest
codes of its vector are no longer the nearest codes that its SID was made from. A growing share says that a new generation is due;
the recipe's section ``drift`` says from which share on (`drift`). Items that never changed are not stale: codes depend on the row
alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sidlake.pipelines.fit_inputs.item_facts import facts_of_rows, with_facts
from sidlake.pipelines.run import RunContext
from sidlake.quality.gates import Metric
from sidlake.tokenizers.tokenizer import Tokenizer
from sidlake.warehouse.embeddings import as_codes

__all__ = ["staleness", "staleness_metrics"]

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


def staleness(
    model: Tokenizer, x_ND: npt.NDArray[np.float32], stored_NL: npt.NDArray[np.int32], now_NL: npt.NDArray[np.int32]
) -> list[Metric]:
    """Return staleness_share, the share of items whose nearest codes are not the stored ones, also per level, and staleness_growth.

    The growth is the mean over stale items of ‖x − dec(stored)‖ − ‖x − dec(now)‖, Euclidean, in the space that is quantized: how
    much nearer a code would be that the vectors of today choose; 0 where none is stale.
    """
    stale_N = np.any(stored_NL != now_NL, axis=1)
    growth = 0.0
    if stale_N.any():
        x_MD = x_ND[stale_N].astype(np.float64)
        stored_M, now_M = (np.linalg.norm(x_MD - model.decode(codes_NL[stale_N]), axis=1) for codes_NL in (stored_NL, now_NL))
        growth = float(np.mean(stored_M - now_M))
    levels = np.mean(stored_NL != now_NL, axis=0) if len(stored_NL) else np.zeros(stored_NL.shape[1])
    return [
        Metric(metric="staleness_share", value=float(stale_N.mean()) if len(stale_N) else 0.0),
        Metric(metric="staleness_growth", value=growth),
        *(Metric(metric="staleness_level_share", level=level, value=float(share)) for level, share in enumerate(levels)),
    ]
