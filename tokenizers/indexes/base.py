"""What the index baselines share: codes that are spelled from what is known of an item, not chosen by distance (arXiv 2305.06569).

"How to Index Item IDs for Recommendation Foundation Models" (P5) names items by chance, by time, by category or by co-occurrence.
Such codes cost little and show what a codebook is worth. To serve where codebooks do, each code gets a vector: the mean of what the
codes before it leave of its rows in the fit, so that a SID decodes to what its codes say on average, which for codes by chance is
next to nothing. Codes without rows get the mean of all rows. Uniqueness strategies then move items to codes with near means.

Fits take rows in the order of their items' hashes: shuffling rows changes nothing, unless `max_fit_rows` takes a sample of them.

Shape suffixes: N rows, D dimensions, L levels, K codes of a level.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.fit_input import check_facts, check_fit, fit_rows, pairs_among
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array, Int32Array, Int64Array
from sidlake.tokenizers.quantizers.additive import AdditiveTokenizer, code_means
from sidlake.tokenizers.settings import check_settings
from sidlake.tokenizers.tokenizer import ItemFacts, checked_rows

__all__ = ["Hashes", "IndexConfig", "ItemIndex", "hashed_codes"]

Hashes = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """How codes are spelled.

    Attributes:
        widths: Codes per level, coarse to fine.
        seed: Decides all that is left to chance.
        max_fit_rows: Rows to fit on at most; beyond it a seeded sample is taken, by position in the order given.
        device: Where nearest means are searched, ``cpu`` or ``cuda[:n]``; changes the speed, never the result.
    """

    widths: tuple[int, ...]
    seed: int = 0
    max_fit_rows: int = 1_000_000
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self)


class ItemIndex(AdditiveTokenizer):
    """Codes by rule, and the mean of each.

    Attributes:
        learned: What the rule took from the fit's items, by name.
    """

    farthest = 20.0  # codes are by rule, but a far row decides the mean of its codes, and so what they say of all others
    encode_needs = frozenset({"item_hashes_N"})
    fit_needs = frozenset({"item_hashes_N"})
    config_type: ClassVar[type[Any]] = IndexConfig

    def __init__(
        self,
        centroids: Sequence[Float32Array],
        counts: Sequence[Int64Array],
        learned: Mapping[str, npt.NDArray[Any]],
        config: Any,  # noqa: ANN401  each kind has its own
    ) -> None:
        super().__init__(centroids, counts, config)
        self.learned = dict(learned)

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike, config: Any, *, facts: ItemFacts | None = None) -> Self:  # noqa: ANN401  each kind has its own
        """Return the index of the rows' items; deterministic.

        `FitError` for NaN, infinity, a wrong shape, fewer rows than codes of a level, or facts that are missing.
        """
        num_rows = len(check_fit(x_ND, config, cls))
        known = check_facts(facts, cls.fit_needs, cls.kind, num_rows)
        pairs_P2 = known.pairs_P2 if "pairs_P2" in cls.fit_needs else None
        chosen_ND, rows = fit_rows(x_ND, config, cls, pairs_P2=pairs_P2)
        assert known.item_hashes_N is not None
        by_hash = np.argsort(known.item_hashes_N[rows], kind="stable")
        x, hashes_N, known = (
            chosen_ND[by_hash],
            known.item_hashes_N[rows[by_hash]],
            _of_rows(known, rows[by_hash], len(known.item_hashes_N)),
        )
        learned = cls._learn(x, hashes_N, known, config)
        blank = [np.zeros((width, x.shape[1]), dtype=np.float32) for width in config.widths]
        codes_NL = cls(blank, [np.zeros(width, dtype=np.int64) for width in config.widths], learned, config)._codes(
            x, hashes_N, known
        )
        centroids, counts, residual = [], [], x
        for level, width in enumerate(config.widths):
            overall_KD = np.repeat(code_means(residual, np.zeros(len(x), dtype=np.int32), residual[:1]), width, axis=0)
            centroids.append(code_means(residual, codes_NL[:, level], overall_KD))
            counts.append(np.bincount(codes_NL[:, level], minlength=width))
            residual = residual - centroids[level][codes_NL[:, level]]
        return cls(centroids, counts, learned, config)

    def encode_with_norms(
        self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu"
    ) -> tuple[Int32Array, Float64Array]:
        """Return codes_NL and the norms_N of what their means leave of the vectors.

        `ValueError` for a wrong dimension or a value that is not finite, `FitError` for facts that are missing.
        """
        x = checked_rows(x_ND, self.dim)
        known = check_facts(facts, self.encode_needs, self.kind, len(x))
        assert known.item_hashes_N is not None
        codes = self._codes(x, known.item_hashes_N, known)
        return codes, self._norms(x, codes)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return ``centroids.<level>``, ``counts.<level>``, then what the rule learned."""
        return super().tensors() | {name: self.learned[name] for name in sorted(self.learned)}

    @classmethod
    def from_tensors(cls, config: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:  # noqa: ANN401  each kind has its own
        """Return the index of which `tensors` came."""
        levels = range(len(config.widths))
        centroids, counts = ([tensors[f"{name}.{level}"] for level in levels] for name in ("centroids", "counts"))
        learned = {name: tensor for name, tensor in tensors.items() if not name.startswith(("centroids.", "counts."))}
        return cls(centroids, counts, learned, config)

    @classmethod
    @abstractmethod
    def _learn(
        cls,
        x_ND: Float32Array,
        hashes_N: Hashes,
        facts: ItemFacts,
        config: Any,  # noqa: ANN401
    ) -> dict[str, npt.NDArray[Any]]:
        """Return what the rule needs to know of the fit's items, which come in the order of their hashes."""

    @abstractmethod
    def _codes(self, x_ND: Float32Array, hashes_N: Hashes, facts: ItemFacts) -> Int32Array:
        """Return codes_NL; a row's codes depend on its own vector and facts alone."""


def hashed_codes(hashes_N: Hashes, width: int, *, seed: int, level: int) -> Int32Array:
    """Return codes_N in [0, `width`), as good as drawn at random, and independent of those of other levels and seeds.

    SplitMix64's finalizer (Steele, Lea & Flood 2014) of the hash plus a multiple of the golden ratio.

    >>> hashed_codes(np.arange(4, dtype=np.uint64), 100, seed=0, level=0).tolist()
    [88, 56, 59, 11]
    """
    step = np.uint64((_GOLDEN * (32 * seed + level + 1)) % 2**64)
    mixed = hashes_N.astype(np.uint64) + step
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return ((mixed >> np.uint64(32)) * np.uint64(width) >> np.uint64(32)).astype(np.int32)


def _of_rows(facts: ItemFacts, rows: Int64Array, num_rows: int) -> ItemFacts:
    """Return the facts of these rows of all, in their order; pairs name them anew, and are gone where they name others."""
    pairs_P2 = facts.pairs_P2
    if pairs_P2 is not None:
        pairs_P2 = pairs_among(pairs_P2, rows, num_rows)
    return replace(
        facts,
        item_hashes_N=None if facts.item_hashes_N is None else facts.item_hashes_N[rows],
        first_seen_N=None if facts.first_seen_N is None else facts.first_seen_N[rows],
        categories_N=None if facts.categories_N is None else [facts.categories_N[row] for row in rows.tolist()],
        pairs_P2=pairs_P2,
        collaborative_NC=None,
        former_codes_NL=None,
    )
