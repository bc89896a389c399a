"""New names for the codes of a new generation, so that as many items as possible keep the codes they had.

Codebooks fitted again number their codes anew: every item gets another SID although hardly one has moved. What a code is called
changes nothing about what it says, so the names are free to choose. Level by level, coarse to fine, an assignment problem is solved
exactly (Kuhn 1955; SciPy) on how many items have each pair of former name and new code: counting first the items that have kept all
codes before, since the rest have another prefix anyway, and among equals all items.

Levels depend on each other, so the best names of one could cost a deeper one. Names are taken only where at every level neither the
items that keep their code nor those that keep their prefix are fewer than without; `align_codes` goes over to the codes' own names,
level by level from the coarsest, until that holds. One permutation serves a whole level, as codebooks shared by all prefixes ask.

Not done here: giving the names to a tokenizer (see `relabelled`), and finding the items that both generations have.

Shape suffixes: N items of both generations, L levels, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

__all__ = ["Alignment", "Kept", "align_codes"]

Codes = npt.NDArray[np.integer[Any]]
Names = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_MAX_ITEMS = 2**26  # weights are products of two counts, whose sums float64 must hold exactly


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """How many items kept their code of each level, and all codes up to it."""

    codes: tuple[int, ...]
    prefixes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Alignment:
    """The new names, and what they achieve on the items of both generations.

    Attributes:
        names: Per level of the new generation, int32 [K]: the name of each code, a permutation of 0 … K − 1.
        num_items: N.
        before: What the codes' own names keep, of the levels that both generations have.
        after: What the new names keep; nowhere less than `before`.
    """

    names: tuple[Names, ...]
    num_items: int
    before: Kept
    after: Kept

    @property
    def changes_nothing(self) -> bool:
        """Whether every code keeps its own name."""
        return all(np.array_equal(names_K, np.arange(len(names_K))) for names_K in self.names)

    def churn(self) -> dict[str, list[float]]:
        """Return the shares of items whose code and whose prefix changed, per level, by the new names and the own; {} for N = 0."""
        if not self.num_items:
            return {}
        kept = {
            "code_churn": self.after.codes,
            "code_churn_unaligned": self.before.codes,
            "prefix_churn": self.after.prefixes,
            "prefix_churn_unaligned": self.before.prefixes,
        }
        return {name: [1.0 - count / self.num_items for count in counts] for name, counts in kept.items()}


def align_codes(former_NL: Codes, fresh_NL: Codes, widths: Sequence[int]) -> Alignment:
    """Return names for the codes of new codebooks of these `widths`; rows are the same items, and their order does not matter.

    The generations may differ in levels (those that both have are aligned, the others keep their names) and in widths: a former
    code that lies outside a level's width cannot be kept. Memory: 32·K² bytes, a level at a time: two gigabytes for 8,192 codes.
    Raises `ValueError` where the rows differ in number or exceed 2**26, or a new code is outside its level.

    >>> found = align_codes(np.array([[0], [1], [1]]), np.array([[1], [0], [0]]), [2])
    >>> found.names[0].tolist(), found.before.codes, found.after.codes
    ([1, 0], (0,), (3,))
    """
    _check(former_NL, fresh_NL, widths)
    num_levels = min(former_NL.shape[1], fresh_NL.shape[1])
    own = [np.arange(width, dtype=np.int32) for width in widths]
    before = _kept(former_NL, fresh_NL, own[:num_levels])
    for first in range(num_levels + 1):  # with first = num_levels all names are the codes' own, which lose nothing
        found = _names_from(first, former_NL, fresh_NL, own[:num_levels], before)
        if found is not None:
            after = _kept(former_NL, fresh_NL, found)
            return Alignment(names=(*found, *own[num_levels:]), num_items=len(fresh_NL), before=before, after=after)
    raise AssertionError


def _names_from(first: int, former_NL: Codes, fresh_NL: Codes, own: Sequence[Names], least: Kept) -> list[Names] | None:
    """Return names per level, the codes' own before level `first`; None where a level cannot keep what `least` asks."""
    kept_N = np.ones(len(fresh_NL), dtype=np.bool_)
    names: list[Names] = []
    for level, own_K in enumerate(own):
        former_N, fresh_N = former_NL[:, level], fresh_NL[:, level]
        options = iter([own_K]) if level < first else _options(former_N, fresh_N, kept_N, own_K)
        for names_K in options:
            same_N = names_K[fresh_N] == former_N
            if same_N.sum() >= least.codes[level] and (same_N & kept_N).sum() >= least.prefixes[level]:
                names.append(names_K)
                kept_N &= same_N
                break
        else:
            return None
    return names


def _options(former_N: Codes, fresh_N: Codes, kept_N: Mask, own_K: Names) -> Iterator[Names]:
    """Yield names of one level to try: best for the items that kept their prefix, best for all items, the codes' own."""
    all_KK = _overlap(former_N, fresh_N, len(own_K))
    prefix_KK = _overlap(former_N[kept_N], fresh_N[kept_N], len(own_K))
    yield _best_names(prefix_KK * (len(fresh_N) + 1.0) + all_KK, own_K)
    yield _best_names(all_KK * (len(fresh_N) + 1.0) + prefix_KK, own_K)
    yield own_K


def _overlap(former_N: Codes, fresh_N: Codes, width: int) -> npt.NDArray[np.float64]:
    """Return how many items have each former name (rows) and new code (columns); former names beyond the width are left out."""
    usable_N = (former_N >= 0) & (former_N < width)
    pairs_N = former_N[usable_N].astype(np.int64) * width + fresh_N[usable_N]
    return np.bincount(pairs_N, minlength=width * width).reshape(width, width).astype(np.float64)


def _best_names(weights_KK: npt.NDArray[np.float64], own_K: Names) -> Names:
    """Return the names of greatest weight, the codes' own where these weigh as much.

    Codes without a common item with any name left keep their own names where these are free; the rest get what is left, ascending.
    """
    given, codes = linear_sum_assignment(weights_KK, maximize=True)
    if weights_KK[given, codes].sum() == np.trace(weights_KK):
        return own_K
    shared = weights_KK[given, codes] > 0
    names_K = np.full(len(own_K), -1, dtype=np.int32)
    names_K[codes[shared]] = given[shared]
    free = np.setdiff1d(own_K, names_K)
    stay = free[names_K[free] < 0]
    names_K[stay] = stay
    names_K[names_K < 0] = np.setdiff1d(free, stay)
    return names_K


def _kept(former_NL: Codes, fresh_NL: Codes, names: Sequence[Names]) -> Kept:
    kept_N = np.ones(len(fresh_NL), dtype=np.bool_)
    codes, prefixes = [], []
    for level, names_K in enumerate(names):
        same_N = names_K[fresh_NL[:, level]] == former_NL[:, level]
        kept_N &= same_N
        codes.append(int(same_N.sum()))
        prefixes.append(int(kept_N.sum()))
    return Kept(codes=tuple(codes), prefixes=tuple(prefixes))


def _check(former_NL: Codes, fresh_NL: Codes, widths: Sequence[int]) -> None:
    if former_NL.ndim != 2 or fresh_NL.ndim != 2 or len(former_NL) != len(fresh_NL) or fresh_NL.shape[1] != len(widths):
        msg = f"codes must have shapes (items, levels) of the same items and {len(widths)} new levels, "
        msg += f"got former {former_NL.shape} and new {fresh_NL.shape}"
        raise ValueError(msg)
    if len(fresh_NL) > _MAX_ITEMS:
        msg = f"at most {_MAX_ITEMS:,} items can be counted exactly, got {len(fresh_NL):,}: pass a sample of them"
        raise ValueError(msg)
    if (fresh_NL < 0).any() or (fresh_NL >= np.array(widths)).any():
        msg = f"new codes range over [{fresh_NL.min()}, {fresh_NL.max()}]; allowed is [0, width) for the widths {tuple(widths)}"
        raise ValueError(msg)
