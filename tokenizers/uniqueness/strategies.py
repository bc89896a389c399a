"""How colliding codes become unique, by name: every strategy serves every tokenizer.

``reassign`` moves all but the nearest item of a code to the nearest free code of the last level, then wherever there is room
(`collisions`). ``append`` gives them a digit: the same rule on a tokenizer with one more level (`append_digit`).
``sinkhorn_groups`` spreads the items of each SID over the last level by entropic transport first, as LC-Rec and LETTER do,
``sinkhorn`` all that collide together (`sinkhorn`), ``optimal`` a prefix's items by a minimum-cost assignment (`optimal`); what
these leave over is reassigned. ``none`` leaves raw codes as they are, for measuring what the others cost.

All but ``none`` keep the laws: every item gets a SID that no other has, whatever the order of rows, and none that is taken moves.
Shape suffixes as in `collisions`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.increments import Implicit
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array, Int32Array
from sidlake.tokenizers.tokenizer import Tokenizer
from sidlake.tokenizers.uniqueness.append_digit import AppendDigit
from sidlake.tokenizers.uniqueness.optimal import optimal_codes
from sidlake.tokenizers.uniqueness.reassign import Assignment, VectorsOf, assign_unique
from sidlake.tokenizers.uniqueness.sinkhorn import sinkhorn_codes, sinkhorn_groups

__all__ = ["STRATEGIES", "make_unique"]

STRATEGIES = ("reassign", "append", "sinkhorn", "sinkhorn_groups", "optimal", "none")
_PROPOSALS = {"sinkhorn": sinkhorn_codes, "sinkhorn_groups": sinkhorn_groups, "optimal": optimal_codes}


def make_unique(
    strategy: str,
    tokenizer: Tokenizer,
    raw_codes_NL: Int32Array,
    residual_norms_N: Float64Array,
    item_hashes_N: npt.NDArray[np.uint64],
    *,
    latents_of: VectorsOf,
    occupied_codes_ML: Int32Array | None = None,
) -> Assignment:
    """Return SIDs for N items, rows sorted by item_id; unique but for ``none``.

    `raw_codes_NL` and `residual_norms_N` are what ``tokenizer.encode_with_norms`` returned, ``latents_of(rows)`` the latents of
    these (ascending) rows, `occupied_codes_ML` the SIDs already published. For ``append`` the tokenizer is an `AppendDigit`.

    Raises `CapacityError` before anything is decided where there are more items than SIDs, `ValueError` for another strategy, and
    for ``append`` where the tokenizer has no digit.
    """
    if strategy not in STRATEGIES:
        msg = f"strategy must be one of {STRATEGIES}, got {strategy!r}"
        raise ValueError(msg)
    if strategy == "none":
        return _as_they_are(raw_codes_NL, residual_norms_N)
    if strategy == "append" and not isinstance(tokenizer, AppendDigit):
        msg = f"append needs a tokenizer with a digit, got {tokenizer.kind}: make it with AppendDigit.around(tokenizer, digits)"
        raise ValueError(msg)
    space = _space(tokenizer)
    if strategy in _PROPOSALS:
        return _PROPOSALS[strategy](raw_codes_NL, residual_norms_N, item_hashes_N, space, latents_of, occupied_codes_ML)
    return assign_unique(
        raw_codes_NL,
        residual_norms_N,
        item_hashes_N,
        centroids=space,
        vectors_of=latents_of,
        occupied_codes_ML=occupied_codes_ML,
    )


def _space(tokenizer: Tokenizer) -> list[Float32Array] | Implicit:
    first = tokenizer.increments(())
    if tokenizer.implicit:
        return Implicit(tokenizer.increments, tokenizer.widths, first.shape[1])
    return [tokenizer.increments([0] * level) for level in range(len(tokenizer.widths))]


def _as_they_are(raw_codes_NL: Int32Array, norms_N: Float64Array) -> Assignment:
    num_items = len(raw_codes_NL)
    return Assignment(
        codes_NL=raw_codes_NL.astype(np.int32, copy=True),
        moved_N=np.zeros(num_items, dtype=bool),
        spilled_N=np.zeros(num_items, dtype=bool),
        move_cost_N=np.zeros(num_items, dtype=np.float32),
        residual_norm_N=norms_N.astype(np.float32),
    )
