"""Attention of `transformers`' bodies in float32 on a processor, whatever the rest runs in.

torch's fused attention in bfloat16 on a CPU is slow backwards: 78 ms against 12 ms in float32 for 33 rows of 128 positions, 41 % of
a training step (torch 2.13). The way can go when that is mended.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["ATTENTION"]

ATTENTION = "sidlake_sdpa"
"""The name of this attention, as `attn_implementation`."""


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,  # noqa: ANN401  what transformers passes on is its own affair
) -> tuple[Tensor, None]:
    if query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    with torch.autocast("cpu", enabled=False):
        result, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **kwargs)
    return result.to(query.dtype), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
