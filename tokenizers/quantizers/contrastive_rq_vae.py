"""RQ-VAE that learns from co-purchases: FORGE's item-to-item loss, its equation 2.

Beside reconstruction, every second step takes pairs (a, b) of items bought together and adds the mean of three symmetric InfoNCE
terms over the batch, each with its own learned temperature: decoded a against decoded b, decoded a against b's vector, decoded a
against a's vector. An item that is in the batch twice is no negative of itself (the paper's code counts it as one).

The window of the events behind the pairs is kept in the artifact: pairs from the time of the evaluation are a leak that nobody
sees in a table of results (FORGE's authors had to be asked for theirs).

FORGE, arXiv 2509.20904. Shape suffixes as in `rq_vae`; P pairs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sidlake.errors import FitError
from sidlake.tokenizers.quantizers.rq_vae import RQVAE, MoreLosses, Training
from sidlake.tokenizers.tokenizer import ItemFacts

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ContrastiveRQVAE"]

_FIRST_SCALE = 1 / 0.07


class ContrastiveRQVAE(RQVAE):
    """A fitted tokenizer; `own` holds ``pairs``, JSON bytes that say how many it learned from, and of which time they are."""

    kind = "contrastive_rq_vae"
    fit_needs = frozenset({"pairs_P2"})

    @classmethod
    def _losses(cls, config: Any, facts: ItemFacts, rows: npt.NDArray[np.int64]) -> MoreLosses:  # noqa: ANN401
        assert facts.pairs_P2 is not None
        if not len(facts.pairs_P2):
            msg = f"{cls.kind} learns from items bought together, and there is no such pair among the {len(rows)} rows of the fit"
            raise FitError(msg, kind=cls.kind, pairs=0)
        return _PairLoss(facts.pairs_P2)

    @classmethod
    def _provenance(cls, facts: ItemFacts) -> dict[str, npt.NDArray[Any]]:
        assert facts.pairs_P2 is not None
        about = json.dumps({"pairs": len(facts.pairs_P2), "window": facts.pairs_window})
        return {"pairs": np.frombuffer(about.encode(), dtype=np.uint8).copy()}

    @property
    def pairs_window(self) -> tuple[str, str] | None:
        """The first and last instant of the events that the pairs came from, as the fit was told."""
        window = json.loads(self.own["pairs"].tobytes())["window"]
        return tuple(window) if window else None


class _PairLoss(MoreLosses):
    def __init__(self, pairs_P2: npt.NDArray[np.int64]) -> None:
        self._pairs_P2 = pairs_P2
        self._scales: list[nn.Parameter] = []

    def parameters(self, training: Training) -> list[nn.Parameter]:
        import torch

        first = torch.tensor(_FIRST_SCALE, device=training.x.device).log()
        self._scales = [torch.nn.Parameter(first.clone()) for _ in range(3)]
        return self._scales

    def __call__(self, training: Training, step: int) -> Tensor:
        import torch

        from sidlake.tokenizers.quantizers.training import info_nce

        if step % 2 == 0:
            return training.x.new_zeros(())
        pairs = torch.from_numpy(self._pairs_P2[training.draw(len(self._pairs_P2)).cpu().numpy()]).to(training.x.device)
        a, b = pairs[:, 0], pairs[:, 1]
        x_a, x_b = training.x[a], training.x[b]
        decoded_a, _, loss_a, _ = training.quantized(x_a)
        decoded_b, _, loss_b, _ = training.quantized(x_b)
        terms = [
            info_nce(decoded_a, decoded_b, self._scales[0], (a, b)),
            info_nce(decoded_a, x_b, self._scales[1], (a, b)),
            info_nce(decoded_a, x_a, self._scales[2], (a, a)),
        ]
        return torch.stack(terms).mean() + (loss_a + loss_b) / 2
