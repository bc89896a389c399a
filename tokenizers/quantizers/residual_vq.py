"""Residual vector quantization learned by gradient, without encoder or decoder: GRID's R-VQ.

Codebooks start as k-means centroids and learn with the straight-through gradient, all levels at once, with revival of unused codes.
Residuals are true residuals: GRID normalises before each level, after which centroids do not add up to a reconstruction; and GRID
trains level by level. The input has nothing to learn here, so the commitment term has no effect and the rest is a k-means in small
steps.

GRID: Ju et al. 2025, arXiv 2507.22224. Shape suffixes as in `tokenizer`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.fit_input import check_trained, fit_rows
from sidlake.tokenizers.numeric.mean_square import mean_square
from sidlake.tokenizers.numeric.nearest import Float32Array
from sidlake.tokenizers.quantizers.additive import AdditiveTokenizer
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.settings import check_settings
from sidlake.tokenizers.tokenizer import ItemFacts

__all__ = ["ResidualVQ", "ResidualVQConfig"]

_SAMPLE_ROWS_PER_CODE = 16
_START_ITERATIONS = 3
_FAR = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualVQConfig:
    """How codebooks are trained: steps of Adam on batches, after a few iterations of k-means on a sample.

    Attributes:
        num_steps: training steps of Adam.
        batch_size: rows of a training step.
        learning_rate: of Adam.
        revive_every: training steps after which unused codes move; 0 never.
    """

    widths: tuple[int, ...]
    seed: int = 0
    max_fit_rows: int = 1_000_000
    num_steps: int = 1000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    revive_every: int = 25
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self)


class ResidualVQ(AdditiveTokenizer):
    """Fitted codebooks; encoding and decoding are those of every residual quantizer."""

    kind = "residual_vq"
    farthest = 1000.0  # one number scales all rows
    config_type = ResidualVQConfig

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike, config: ResidualVQConfig, *, facts: ItemFacts | None = None) -> Self:
        """Return trained codebooks; deterministic on a CPU. Errors of every tokenizer's fit.

        Memory: 5 bytes per value of the rows; 9 where they are a sample, or not float32.
        """
        import torch

        from sidlake.tokenizers.quantizers.training import Quantizer, QuantizerSettings, made_with, one_thread

        x, _ = fit_rows(x_ND, config, cls)
        sample = max(_SAMPLE_ROWS_PER_CODE * max(config.widths), max(config.widths))
        start = ResidualKMeansConfig(widths=config.widths, seed=config.seed, max_iterations=_START_ITERATIONS, max_fit_rows=sample)
        centre_D = _far_centre(x)
        x = x - centre_D if centre_D.any() else x
        scale = math.sqrt(mean_square(x)) or 1.0  # steps of Adam have a size of their own
        first = [level / np.float32(scale) for level in ResidualKMeans.fit(x, start).centroids]
        with one_thread(config.seed) as generator:
            quantizer = Quantizer(first, QuantizerSettings(revive_every=config.revive_every)).to(config.device)
            rows = torch.from_numpy(x / np.float32(scale)).to(config.device)
            optimizer = torch.optim.Adam(quantizer.parameters(), lr=config.learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.num_steps)
            for step in range(config.num_steps):
                batch = rows[torch.randint(len(rows), (config.batch_size,), generator=generator).to(config.device)]
                _, loss, _ = quantizer(batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                if step < 0.8 * config.num_steps:
                    quantizer.revive(batch, generator)
        centroids = [(level.detach().cpu().numpy() * np.float32(scale)).astype(np.float32) for level in quantizer.codebooks]
        centroids[0] = centroids[0] + centre_D
        check_trained(cls.kind, *centroids)
        codes_NL = cls(centroids, [np.zeros(width, np.int64) for width in config.widths], config).encode(x)
        counts = [np.bincount(codes_NL[:, level], minlength=width) for level, width in enumerate(config.widths)]
        model = cls(centroids, counts, config)
        model.made_with = made_with(config.device)
        return model


def _far_centre(x_ND: Float32Array) -> Float32Array:
    """Return mean_D of rows that are 1,000 times as far from the origin as they spread, else zeros.

    Steps of Adam have the size of the rows, which far from the origin is that of the offset: at 1e6 the error was 83 times the
    variance. The first level's centroids take the mean back.
    """
    mean_D = x_ND.mean(axis=0, dtype=np.float64)
    spread = mean_square(x_ND, mean_D)
    far = float(np.square(mean_D).mean()) > _FAR**2 * spread
    return mean_D.astype(np.float32) if far else np.zeros_like(mean_D, dtype=np.float32)
