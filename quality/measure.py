"""Every quality metric of one assignment, as a list of named values for the gates.

Raw codes are the nearest codes, before collisions are resolved; final codes are the published ones. Vectors are what was quantised
(the fused embeddings), in the row order of the codes and the sessions. Not done here: judging (see `gates`), and comparing with a
former generation.

Shapes: N items, L levels, D dimensions, d the first levels of a SID, U different SIDs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.collision import collision_stats, gini, group_sizes
from sidlake.quality.fidelity import ReconstructionError
from sidlake.quality.gates import Metric
from sidlake.quality.hit_rate import EmbeddingHitRate, embedding_hit_rate
from sidlake.quality.sessions import Sessions
from sidlake.quality.utilisation import level_usage

__all__ = ["Decode", "ToInputSpace", "measure"]

Decode = Callable[[npt.NDArray[np.integer[Any]]], npt.NDArray[np.floating[Any]]]
"""Maps codes of the first d levels (N, d), for any d from 1 to L, to their reconstruction (N, D)."""
ToInputSpace = Callable[[npt.NDArray[np.floating[Any]]], npt.NDArray[np.floating[Any]]]
"""Maps vectors of the quantised space (N, D) to the space of the encoders, undoing the fusion."""

_BATCH = 16_384  # float64 copies of a batch: 50 MB each at D = 384


def measure(
    raw_codes_NL: npt.NDArray[np.integer[Any]],
    codes_NL: npt.NDArray[np.integer[Any]],
    *,
    widths: Sequence[int],
    vectors_ND: npt.NDArray[np.floating[Any]],
    decode: Decode,
    sessions: Sessions | None = None,
    to_input_space: ToInputSpace | None = None,
    k: int = 30,
) -> list[Metric]:
    """Return the metrics below; deterministic. Memory: one more (N, D) array, and with sessions that of `embedding_hit_rate`.

    On raw codes: raw_collision_rate (1 − different SIDs/items), raw_largest_group (items), raw_leaf_gini (FORGE's, over occupied
    SIDs); per level level_utilisation (used codes/width), level_perplexity, and prefix_reconstruction_error: Σ‖x − r‖²/Σ‖x − x̄‖²
    with r the reconstruction from levels 0 to this one.
    On final codes: unique_share (different SIDs/items, 1 by law) and relative_reconstruction_error (all levels).
    Between them: moved_share (share of items whose codes changed) and mean_move_cost (mean over moved items of ‖x − r_final‖ −
    ‖x − r_raw‖, Euclidean; 0 where none moved).
    With a scorable session, hit rates at `k`: ehr_raw (the vectors), ehr_quantized (decoded raw codes, as decode returns them),
    ehr_reconstructed (decoded final codes, through `to_input_space` if given; without it only the codes differ from ehr_quantized),
    ehr_unmoved (raw codes by the way of ehr_reconstructed: the difference is what uniqueness cost);
    each with _ci_half_width (95 %) and _tie_rate; ehr_random_floor and ehr_num_sessions. Ties are broken by `vectors_ND`.
    Raises ValueError where shapes disagree, there are no items, or a code is outside its level.
    """
    if raw_codes_NL.shape != codes_NL.shape or len(vectors_ND) != len(codes_NL):
        shapes = f"raw codes {raw_codes_NL.shape}, codes {codes_NL.shape}, vectors {vectors_ND.shape}"
        msg = f"codes and vectors must describe the same items and levels, got {shapes}"
        raise ValueError(msg)
    metrics = _collision_metrics(raw_codes_NL, codes_NL)
    metrics += _level_metrics(raw_codes_NL, codes_NL, widths)
    metrics += _fidelity_metrics(raw_codes_NL, codes_NL, vectors_ND, decode)
    if sessions is not None and sessions.num_scorable:
        metrics += _hit_rate_metrics(
            raw_codes_NL, codes_NL, vectors_ND, sessions, decode=decode, to_input_space=to_input_space, k=k
        )
    return metrics


def _collision_metrics(raw_codes_NL: npt.NDArray[np.integer[Any]], codes_NL: npt.NDArray[np.integer[Any]]) -> list[Metric]:
    raw = collision_stats(raw_codes_NL)
    return [
        Metric(metric="raw_collision_rate", value=raw.collision_rate),
        Metric(metric="raw_largest_group", value=float(raw.largest_group)),
        Metric(metric="raw_leaf_gini", value=gini(group_sizes(raw_codes_NL))),
        Metric(metric="unique_share", value=len(group_sizes(codes_NL)) / len(codes_NL)),
    ]


def _level_metrics(
    raw_codes_NL: npt.NDArray[np.integer[Any]], codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int]
) -> list[Metric]:
    level_usage(codes_NL, widths)  # final codes must lie in the same code space
    usage = level_usage(raw_codes_NL, widths)
    return [Metric(metric="level_utilisation", level=u.level, value=u.utilisation) for u in usage] + [
        Metric(metric="level_perplexity", level=u.level, value=u.perplexity) for u in usage
    ]


def _fidelity_metrics(
    raw_codes_NL: npt.NDArray[np.integer[Any]],
    codes_NL: npt.NDArray[np.integer[Any]],
    vectors_ND: npt.NDArray[np.floating[Any]],
    decode: Decode,
) -> list[Metric]:
    num_levels = codes_NL.shape[1]
    errors = ReconstructionError(num_levels + 1)
    moved_N = np.any(raw_codes_NL != codes_NL, axis=1)
    move_cost = 0.0
    for start in range(0, len(codes_NL), _BATCH):
        batch = slice(start, start + _BATCH)
        x_ND, moved = vectors_ND[batch], moved_N[batch]
        decoded = [decode(raw_codes_NL[batch, :depth]) for depth in range(1, num_levels + 1)] + [decode(codes_NL[batch])]
        errors.update(x_ND, decoded)
        move_cost += float((_distance(x_ND[moved], decoded[-1][moved]) - _distance(x_ND[moved], decoded[-2][moved])).sum())
    *prefixes, final = errors.finalize()
    num_moved = int(np.count_nonzero(moved_N))
    return [Metric(metric="prefix_reconstruction_error", level=level, value=value) for level, value in enumerate(prefixes)] + [
        Metric(metric="relative_reconstruction_error", value=final),
        Metric(metric="moved_share", value=num_moved / len(codes_NL)),
        Metric(metric="mean_move_cost", value=move_cost / num_moved if num_moved else 0.0),
    ]


def _distance(x_ND: npt.NDArray[np.floating[Any]], y_ND: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.norm(x_ND.astype(np.float64) - y_ND, axis=1), dtype=np.float64)


def _hit_rate_metrics(
    raw_codes_NL: npt.NDArray[np.integer[Any]],
    codes_NL: npt.NDArray[np.integer[Any]],
    vectors_ND: npt.NDArray[np.floating[Any]],
    sessions: Sessions,
    *,
    decode: Decode,
    to_input_space: ToInputSpace | None,
    k: int,
) -> list[Metric]:
    raw = embedding_hit_rate(vectors_ND, sessions, k=k)
    quantized = embedding_hit_rate(_decode_distinct(raw_codes_NL, decode), sessions, k=k, tie_break_ND=vectors_ND)
    back = decode if to_input_space is None else lambda codes: to_input_space(decode(codes))
    reconstructed = embedding_hit_rate(_decode_distinct(codes_NL, back), sessions, k=k, tie_break_ND=vectors_ND)
    unmoved = quantized
    if to_input_space is not None:
        unmoved = embedding_hit_rate(_decode_distinct(raw_codes_NL, back), sessions, k=k, tie_break_ND=vectors_ND)
    return [
        *_hit_rate("ehr_raw", raw),
        *_hit_rate("ehr_quantized", quantized),
        *_hit_rate("ehr_reconstructed", reconstructed),
        Metric(metric="ehr_unmoved", value=unmoved.value),
        Metric(metric="ehr_random_floor", value=raw.random_floor),
        Metric(metric="ehr_num_sessions", value=float(raw.num_sessions)),
    ]


def _hit_rate(name: str, result: EmbeddingHitRate) -> list[Metric]:
    return [
        Metric(metric=name, value=result.value),
        Metric(metric=f"{name}_ci_half_width", value=(result.ci_high - result.ci_low) / 2),
        Metric(metric=f"{name}_tie_rate", value=result.tie_rate),
    ]


def _decode_distinct(codes_NL: npt.NDArray[np.integer[Any]], decode: Decode) -> npt.NDArray[np.floating[Any]]:
    """Return the reconstructions (N, D), each SID decoded once: a matrix product may round equal rows apart, hiding ties."""
    codes_UL, group_N = np.unique(codes_NL, axis=0, return_inverse=True)
    vectors_ND: npt.NDArray[np.floating[Any]] = decode(codes_UL)[group_N.reshape(-1)]
    return vectors_ND
