"""LETTER's tokenizer: an RQ-VAE whose quantized latents agree with collaborative vectors and whose codes are spread.

Beside reconstruction: an InfoNCE over the batch between an item's quantized latent, mapped linearly, and its collaborative vector
(weight `alignment`; items without behaviour take no part); and a diversity loss (weight `diversity`) by which a code is drawn, in
a cross-entropy over all codes of its level, to another code of its group. Groups are equal-sized clusters of the level's codes,
made anew every `regroup_every` steps (the paper: every epoch).

Wang et al. 2024, arXiv 2405.07314. Shape suffixes as in `rq_vae`; C dimensions of collaborative vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.balanced_prices import balanced_prices, equal_sizes
from sidlake.tokenizers.numeric.kmeans import fit_kmeans
from sidlake.tokenizers.numeric.nearest import Float32Array, squared_distances_f64
from sidlake.tokenizers.quantizers.rq_vae import RQVAE, MoreLosses, RQVAEConfig, Training
from sidlake.tokenizers.tokenizer import ItemFacts

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Letter", "LetterConfig"]

_FIRST_SCALE = 1 / 0.07


@dataclass(frozen=True, kw_only=True)
class LetterConfig(RQVAEConfig):
    """An RQ-VAE's settings with LETTER's.

    Attributes:
        alignment: weight of the loss by which latents agree with collaborative vectors.
        diversity: weight of the loss by which codes of a group attract each other.
        num_groups: groups of equal size that the codes of a level are clustered into.
        regroup_every: steps after which groups are made anew.
    """

    alignment: float = 0.02
    diversity: float = 1e-4
    num_groups: int = 10
    regroup_every: int = 100


class Letter(RQVAE):
    """A fitted tokenizer."""

    kind = "letter"
    config_type = LetterConfig
    fit_needs = frozenset({"collaborative_NC"})

    @classmethod
    def _losses(cls, config: Any, facts: ItemFacts, rows: npt.NDArray[np.int64]) -> MoreLosses:  # noqa: ANN401
        assert facts.collaborative_NC is not None
        return _LetterLoss(np.ascontiguousarray(facts.collaborative_NC[rows], dtype=np.float32), config)


class _LetterLoss(MoreLosses):
    def __init__(self, collaborative_NC: Float32Array, config: LetterConfig) -> None:
        import torch

        self._config = config
        self._collaborative = torch.from_numpy(collaborative_NC).to(config.device)
        self._known = self._collaborative.square().sum(dim=1) > 0
        self._groups: list[npt.NDArray[np.int64]] = []

    def parameters(self, training: Training) -> list[nn.Parameter]:
        import torch

        shape = (self._config.latent_dim, self._collaborative.shape[1])
        self._map = torch.nn.Linear(*shape, bias=False).to(self._config.device)
        self._scale = torch.nn.Parameter(torch.tensor(_FIRST_SCALE, device=self._config.device).log())
        return [*self._map.parameters(), self._scale]

    def __call__(self, training: Training, step: int) -> Tensor:
        from sidlake.tokenizers.quantizers.training import info_nce

        rows = training.draw(len(training.x))
        _, z_q_BE, _, codes_BL = training.quantized(training.x[rows])
        with_behaviour = self._known[rows]
        loss = training.x.new_zeros(())
        if int(with_behaviour.sum()) > 1:
            items = rows[with_behaviour]
            aligned = info_nce(self._map(z_q_BE[with_behaviour]), self._collaborative[items], self._scale, (items, items))
            loss = loss + self._config.alignment * aligned
        return loss + self._config.diversity * self._spread(training, codes_BL, step)

    def _spread(self, training: Training, codes_BL: Tensor, step: int) -> Tensor:
        """Return the diversity loss, summed over levels."""
        import torch
        from torch.nn import functional

        books = list(training.quantizer.codebooks)
        if step % self._config.regroup_every == 0:
            groups = [min(self._config.num_groups, len(book)) for book in books]
            self._groups = [_equal_groups(book.detach().cpu().numpy(), num) for book, num in zip(books, groups, strict=True)]
        loss = training.x.new_zeros(())
        for level, book in enumerate(books):
            codes = codes_BL[:, level].cpu().numpy()
            other = torch.from_numpy(_other_of_group(self._groups[level], codes, training.generator)).to(book.device)
            scores = book[codes_BL[:, level]] @ book.T
            loss = loss + functional.cross_entropy(scores, other)
        return loss


def _equal_groups(book_KE: Float32Array, num_groups: int) -> npt.NDArray[np.int64]:
    """Return group_K, clusters of codes whose sizes differ by at most one."""
    start = fit_kmeans(book_KE, num_groups, rng=np.random.default_rng(0), max_iterations=10, tolerance=1e-4)
    costs = squared_distances_f64(book_KE, start.centroids_KD)
    return balanced_prices(costs, equal_sizes(len(book_KE), num_groups))[1]


def _other_of_group(group_K: npt.NDArray[np.int64], codes_B: npt.NDArray[np.int64], generator: Any) -> npt.NDArray[np.int64]:  # noqa: ANN401
    """Return for each code another one of its group, drawn by `generator`; the code itself where it is alone."""
    import torch

    order = np.argsort(group_K, kind="stable")
    position = np.argsort(order, kind="stable")
    sizes = np.bincount(group_K)
    first = np.cumsum(sizes) - sizes
    own, size = group_K[codes_B], sizes[group_K[codes_B]]
    drawn = torch.rand(len(codes_B), generator=generator).numpy()
    shift = 1 + (drawn * (size - 1)).astype(np.int64)
    place = (position[codes_B] - first[own] + np.where(size > 1, shift, 0)) % size
    other: npt.NDArray[np.int64] = order[first[own] + place]
    return other
