"""Training of residual quantizers by gradient: what RQ-VAE and its relatives share. Torch, one thread on a CPU, seeded.

A `Quantizer` holds a list of codebooks; its forward pass quantizes latents level by level with the straight-through gradient, in
which codebooks are drawn to what they code and latents to their codes (beta times as much). What keeps it from collapsing, each to
be switched off to see what it does: a warm start of the codebooks by k-means on the latents, and revival, which moves codes without
use to residuals of the batch. Assignment in training may be by optimal transport (FORGE: Sinkhorn on standardised distances).

Straight-through: van den Oord et al. 2017, arXiv 1711.00937; residual: Zeghidour et al. 2021, arXiv 2107.03312; revival as in
Dhariwal et al. 2020, arXiv 2005.00341. Shape suffixes: B rows of a batch, E latent dimensions, K codes of a level.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sidlake.tokenizers.numeric.nearest import Float32Array
from sidlake.tokenizers.quantizers.mlp import MLP

__all__ = ["Quantizer", "QuantizerSettings", "info_nce", "made_with", "network", "one_thread", "trained_mlp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizerSettings:
    """How a `Quantizer` learns.

    Attributes:
        beta, revive_every, sinkhorn_iterations: as `rq_vae.RQVAEConfig` says.
        sinkhorn_epsilon: as it says; FORGE's code multiplies by its own: 10 there is 0.1 here.
    """

    beta: float = 0.25
    revive_every: int = 25
    sinkhorn_epsilon: float = 0.0
    sinkhorn_iterations: int = 5


class Quantizer(nn.Module):
    """Codebooks [K, E], one per level, that learn."""

    def __init__(self, codebooks: list[Float32Array], settings: QuantizerSettings) -> None:
        super().__init__()
        self.codebooks = nn.ParameterList([torch.from_numpy(level.copy()) for level in codebooks])
        self.settings = settings
        self._used = [torch.zeros(len(level), dtype=torch.bool) for level in codebooks]
        self._steps = 0

    def forward(self, z_BE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the quantized latents (gradient straight through), the quantization loss, and codes [B, L]."""
        residual, total = z_BE, torch.zeros_like(z_BE)
        loss = z_BE.new_zeros(())
        codes = []
        for level, book in enumerate(self.codebooks):
            code = self._assign(residual.detach(), book.detach())
            chosen = book[code]
            loss = loss + functional.mse_loss(chosen, residual.detach())
            loss = loss + self.settings.beta * functional.mse_loss(residual, chosen.detach())
            self._used[level][code.cpu()] = True
            total = total + chosen
            residual = residual - chosen.detach()
            codes.append(code)
        return z_BE + (total - z_BE).detach(), loss, torch.stack(codes, dim=1)

    @torch.no_grad()
    def revive(self, z_BE: Tensor, generator: torch.Generator) -> None:
        """Every `revive_every` calls move codes unused since the last time to residuals of this batch, drawn by `generator`."""
        self._steps += 1
        if not self.settings.revive_every or self._steps % self.settings.revive_every:
            return
        residual = z_BE.detach()
        for level, book in enumerate(self.codebooks):
            dead = (~self._used[level]).nonzero()[:, 0]
            if len(dead):
                rows = torch.randint(len(residual), (len(dead),), generator=generator)
                book.data[dead.to(book.device)] = residual[rows.to(residual.device)]
            self._used[level].zero_()
            residual = residual - book[self._nearest(residual, book)]

    def _assign(self, residual_BE: Tensor, book_KE: Tensor) -> Tensor:
        if not self.settings.sinkhorn_epsilon or not self.training:
            return self._nearest(residual_BE, book_KE)
        distances = _squared(residual_BE, book_KE)
        scores = -(distances - distances.mean()) / distances.std().clamp_min(1e-12) / self.settings.sinkhorn_epsilon
        for _ in range(self.settings.sinkhorn_iterations):
            scores = scores - scores.logsumexp(dim=0, keepdim=True)
            scores = scores - scores.logsumexp(dim=1, keepdim=True)
        return scores.argmax(dim=1)

    @staticmethod
    def _nearest(residual_BE: Tensor, book_KE: Tensor) -> Tensor:
        return _squared(residual_BE, book_KE).argmin(dim=1)


def info_nce(left_BE: Tensor, right_BE: Tensor, log_scale: Tensor, ids: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return the symmetric InfoNCE of row i of both sides against the batch's other rows, cosine times exp(`log_scale`).

    Rows of the other side with the same id as the positive (`ids`: of left and right) are no negatives.
    """
    scores = functional.normalize(left_BE, dim=1) @ functional.normalize(right_BE, dim=1).T * log_scale.exp().clamp(max=100.0)
    target = torch.arange(len(scores), device=scores.device)
    forth, back = scores, scores.T
    if ids is not None:
        other = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        forth = forth.masked_fill((ids[1][:, None] == ids[1][None]) & other, float("-inf"))
        back = back.masked_fill((ids[0][:, None] == ids[0][None]) & other, float("-inf"))
    return (functional.cross_entropy(forth, target) + functional.cross_entropy(back, target)) / 2


def network(sizes: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers of these sizes with rectifiers between them, initialised by torch's present generator."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def trained_mlp(layers: nn.Sequential) -> MLP:
    """Return what `network` made and training changed, for inference without torch."""
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    weights = [np.ascontiguousarray(layer.weight.detach().cpu().numpy().T) for layer in linear]
    return MLP(weights, [layer.bias.detach().cpu().numpy().copy() for layer in linear])


def made_with(device: str) -> dict[str, str]:
    """Return what beside rows, config and seed decides the bits of a training: the device, the processor's instructions, versions.

    >>> sorted(made_with("cpu"))
    ['device', 'instructions', 'numpy', 'torch']
    """
    is_cpu = device == "cpu"
    about = torch.backends.cpu.get_cpu_capability() if is_cpu else torch.cuda.get_device_name(device)
    return {"device": device, "instructions": about, "numpy": np.__version__, "torch": torch.__version__}


@contextmanager
def one_thread(seed: int) -> Iterator[torch.Generator]:
    """Run the block on one torch thread with torch seeded, and restore both; yields a generator of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield torch.Generator().manual_seed(seed)
    finally:
        torch.set_num_threads(threads)


def _squared(rows_BE: Tensor, book_KE: Tensor) -> Tensor:
    return rows_BE.square().sum(dim=1, keepdim=True) - 2 * rows_BE @ book_KE.T + book_KE.square().sum(dim=1)
