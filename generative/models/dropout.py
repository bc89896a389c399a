"""Dropout whose masks cost an eighth of torch's on a processor: eight elements from each 64-bit draw of torch's generator.

torch draws one number an element, which took a third of a training step here (docs/log.md). The rate is rounded to 1/256, and what
stays is scaled by the rate in force, so expectations are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ByteDropout", "drop", "replace_dropouts"]


def drop(x: Tensor, rate: float) -> Tensor:
    """Return `x` with about `rate` of its elements set to zero and the others scaled up, by torch's global generator."""
    cut = min(round(rate * 256), 255)
    if cut == 0:
        return x
    draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= cut
    return x * (kept * (256.0 / (256 - cut))).to(x.dtype)


class ByteDropout(nn.Dropout):
    """`drop` while training."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `input`, dropped while training."""
        return drop(input, self.p) if self.training else input


def replace_dropouts(module: nn.Module) -> None:
    """Put a `ByteDropout` of the same rate in the place of every `nn.Dropout` within `module`."""
    for name, child in module.named_children():
        if isinstance(child, nn.Dropout):
            setattr(module, name, ByteDropout(child.p))
        else:
            replace_dropouts(child)
