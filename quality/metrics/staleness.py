"""How far codes have fallen behind vectors: the share of items that would get other codes today, and what that costs.

Within a generation no SID moves, also where a new description gives its item another vector. An item is stale where the nearest
codes of its vector are no longer the nearest codes that its SID was made from. Items that never changed are not stale: codes depend
on the row alone.

Shapes: N items (M stale ones), L levels, D dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidlake.quality.gates import Metric
from sidlake.tokenizers.tokenizer import Tokenizer

__all__ = ["staleness"]


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
