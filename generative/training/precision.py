"""Whether matrix products run in bfloat16: asked of the instruction set, never of a stopwatch, so that a machine's answer is one.

On a processor with AMX tiles bfloat16 is several times as fast as float32, with AVX-512 BF16 or less it is not worth its loss
(measured here: docs/log.md). Weights, sums and softmax stay float32 (autocast).
"""

from __future__ import annotations

import torch

__all__ = ["has_fast_bfloat16"]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether products on `device` should run in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
