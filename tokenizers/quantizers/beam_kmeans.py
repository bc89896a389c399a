"""Residual k-means whose codes are searched with a beam: a level keeps the best few prefixes, not only the nearest code.

Source: Babenko & Lempitsky 2014 (additive quantization, CVPR) and faiss's `ResidualQuantizer`, whose default keeps five. The
nearest code of a level may leave a residual that later levels describe badly; a beam finds sums of centroids nearer to the vector.
With a beam of one it is `residual_kmeans`. Costs about the beam times as much, and more: scores are exact products in float64
(`exact_product`), so that which prefixes survive depends on the row alone, not on the rows beside it.

Codebooks are fitted as those of residual k-means. Deliberately not done: fitting each level on what the beams leave (faiss), joint
refits of all levels (LSQ).

Shape suffixes: N rows, D dimensions, L levels, K codes of all levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.exact_product import exact_product
from sidlake.tokenizers.numeric.nearest import Float64Array, Int32Array
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.tokenizer import ItemFacts, checked_rows

__all__ = ["BeamKMeans", "BeamKMeansConfig"]

_SEARCH_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamKMeansConfig(ResidualKMeansConfig):
    """How codebooks are fitted: as `ResidualKMeansConfig` says, and searched.

    Attributes:
        beam: prefixes that a level keeps, 1 to 64.
    """

    beam: int = 5


class BeamKMeans(ResidualKMeans):
    """Residual k-means codebooks, searched with a beam."""

    kind = "beam_kmeans"
    config_type = BeamKMeansConfig

    def encode_with_norms(
        self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu"
    ) -> tuple[Int32Array, Float64Array]:
        """Return codes_NL, the least sum of squares the beam finds, and the norms_N of what they leave; always on the CPU.

        `ValueError` for a wrong dimension or a value that is not finite. Both depend on the row alone, bit for bit. Memory: 48
        bytes per code of all levels for each of 4,096 rows.
        """
        from sidlake.tokenizers.numeric import (
            nearest_loops as compiled,  # here, because Numba takes a second that readers need not spend
        )

        x = checked_rows(x_ND, self.dim)
        books_KD = np.concatenate(self.centroids)
        starts_L = np.cumsum([0, *self.widths])
        gram_KK = 2.0 * exact_product(books_KD, books_KD.T)
        codes_NL, squared_N = np.empty((len(x), len(self.widths)), dtype=np.int32), np.empty(len(x))
        for start in range(0, len(x), _SEARCH_ROWS):
            part = slice(start, start + _SEARCH_ROWS)
            scores_BK = gram_KK.diagonal() / 2.0 - 2.0 * exact_product(x[part], books_KD.T)
            compiled.search_beams(scores_BK, gram_KK, starts_L, self.config.beam, codes_NL[part])
            compiled.last_distances(x[part], books_KD, starts_L, codes_NL[part], squared_N[part])
        return codes_NL, np.sqrt(squared_N)

    def encode(self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu") -> Int32Array:
        """Return the codes of `encode_with_norms`."""
        return self.encode_with_norms(x_ND, facts=facts, device=device)[0]
