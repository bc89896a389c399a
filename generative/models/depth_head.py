"""The next item's codes one after the other, given the state: the small depth decoder of RQ-Transformer (arXiv 2203.01941).

Level l is asked for by the state plus the embeddings of the codes before it, through one residual layer of its own; logits are
products with the embeddings of the level's codes, which are those that make item vectors. It reads no earlier item: the body has.

Shape suffixes: T states, L levels, P codes so far, K codes of a level, D model width.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from sidlake.generative.config import DecoderConfig
from sidlake.generative.models.dropout import ByteDropout

__all__ = ["DepthHead", "DepthScorer"]


class DepthHead(nn.Module):
    """Scores the codes of the next item; `codes` everywhere is the table of code embeddings (all levels, D)."""

    def __init__(self, widths: tuple[int, ...], config: DecoderConfig) -> None:
        super().__init__()
        self.widths = widths
        self.starts = tuple(accumulate(widths[:-1], initial=0))
        self.layers = nn.ModuleList(_Residual(config.d_model, config.dropout) for _ in widths)

    def level_logits(self, states_TD: Tensor, prefix_TP: Tensor, codes: Tensor) -> Tensor:
        """Return the logits (T, K) over the codes of level P, float32, after the codes `prefix_TP`, numbered over all levels."""
        level = prefix_TP.shape[1]
        asked_TD = states_TD if level == 0 else states_TD + functional.embedding(prefix_TP, codes).sum(dim=1)
        start = self.starts[level]
        return functional.linear(self.layers[level](asked_TD), codes[start : start + self.widths[level]]).float()

    def loss(self, states_TD: Tensor, target_TL: Tensor, codes: Tensor) -> Tensor:
        """Return the cross-entropy of the codes `target_TL` (numbered over all levels), averaged over levels and states."""
        losses = [
            functional.cross_entropy(self.level_logits(states_TD, target_TL[:, :level], codes), target_TL[:, level] - start)
            for level, start in enumerate(self.starts)
        ]
        return torch.stack(losses).mean()


class DepthScorer:
    """Log-probabilities of codes for the beam search after the states of a batch of users (`beam_search.CodeScorer`).

    Tokens are codes numbered over all levels.
    """

    def __init__(self, head: DepthHead, states_BD: Tensor, codes: Tensor) -> None:
        self.num_users, self.device = len(states_BD), states_BD.device
        self._head, self._states_BD, self._codes = head, states_BD, codes

    def log_probs(self, prefix_BWP: Tensor) -> Tensor:
        """Return the log-probabilities (B, W, K) over the codes of level P, float32."""
        num_beams, level = prefix_BWP.shape[1:]
        states = self._states_BD.repeat_interleave(num_beams, dim=0)
        logits_XK = self._head.level_logits(states, prefix_BWP.flatten(0, 1), self._codes)
        return logits_XK.log_softmax(dim=-1).view(self.num_users, num_beams, self._head.widths[level])


class _Residual(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), ByteDropout(dropout), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x_TD: Tensor) -> Tensor:
        result: Tensor = self.norm(x_TD + self.inner(x_TD))
        return result
