"""Attention over texts that lie one after the other without padding: each attends to its own tokens only.

transformers lets a project register an attention of its own under a name (its `AttentionInterface`); the model around it stays
transformers'. Texts of one length are one batched product, plain softmax attention in between (Vaswani et al. 2017, 1706.03762).
A call without `runs` (sentence-transformers' own ``encode``) is left to torch's scaled dot product attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidlake.encoders.text.packed_batches import Run

__all__ = ["NAME", "packed_attention", "register"]

NAME = "sidlake_packed"


def register() -> None:
    """Make the attention known to transformers under `NAME`; again is harmless."""
    from transformers import AttentionInterface, AttentionMaskInterface  # seconds to import: only who embeds pays
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_attention(
    module: torch.nn.Module,
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    runs: Sequence[Run] | None = None,
    **others: Any,  # noqa: ANN401  what other attentions take
) -> tuple[Tensor, None]:
    """Return the attended values [1, T, H, D] of texts that lie at `runs`, zero at unused places; queries are [1, H, T, D]."""
    if runs is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query_BHTD, key_BHTD, value_BHTD, attention_mask, scaling=scaling, **others)
    query_HTD, key_HTD, value_HTD = query_BHTD[0], key_BHTD[0], value_BHTD[0]
    num_heads, num_tokens, dim = query_HTD.shape
    attended_THD = query_HTD.new_zeros(num_tokens, num_heads, dim)
    for run in runs:
        query_GLD, key_GLD, value_GLD = (_texts(values, run) for values in (query_HTD, key_HTD, value_HTD))
        scores_GLL = torch.bmm(query_GLD, key_GLD.transpose(1, 2)).mul_(scaling)
        shares_GLL = scores_GLL.softmax(-1, dtype=torch.float32).to(value_GLD.dtype)
        rows_HTD = torch.bmm(shares_GLL, value_GLD).view(num_heads, -1, dim)
        attended_THD[run.start : run.end] = rows_HTD.transpose(0, 1)
    return attended_THD[None], None


def _texts(values_HTD: Tensor, run: Run) -> Tensor:
    """Return the values of a run's texts, a head's texts side by side: [heads * texts, length, D]."""
    return values_HTD[:, run.start : run.end].reshape(-1, run.length, values_HTD.shape[2])
