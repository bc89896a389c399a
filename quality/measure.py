"""Every quality metric of one assignment, as a list of named values for the gates.

Raw codes are the nearest codes, before collisions are resolved; final codes are the published ones. Vectors are what was quantised
(the fused embeddings), in the row order of the codes and the sessions. A metric of a prefix carries the level that the prefix ends
at. Not done here: judging (see `gates`), and matching the items of a former generation (the caller aligns its codes).

Shapes: N items, L levels, D dimensions, d the first levels of a SID, U different SIDs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.gates import Metric
from sidlake.quality.metrics.categories import category_match
from sidlake.quality.metrics.churn import churn
from sidlake.quality.metrics.code_use import CodeUse, code_use
from sidlake.quality.metrics.consecutive import consecutive_pairs, consecutive_share
from sidlake.quality.metrics.fidelity import ReconstructionError
from sidlake.quality.metrics.hit_rate import SessionHits, hit_rate_of, session_hits
from sidlake.quality.metrics.hit_rate_detail import bootstrap_interval, hit_rate_by_popularity, popularity
from sidlake.quality.metrics.neighbourhoods import near_pairs, neighbourhood_preservation, prefix_spearman, random_pairs
from sidlake.quality.metrics.neighbours import ExactSearch
from sidlake.quality.metrics.sessions import Sessions
from sidlake.quality.metrics.uniqueness_cost import uniqueness_cost
from sidlake.quality.metrics.utilisation import level_usage
from sidlake.quality.modalities import Alone, modality_metrics

__all__ = ["Decode", "Former", "ToInputSpace", "crowding", "measure", "measure_codes"]

Decode = Callable[[npt.NDArray[np.integer[Any]]], npt.NDArray[np.floating[Any]]]
"""Maps codes of the first d levels (N, d), for any d from 1 to L, to their reconstruction (N, D)."""
ToInputSpace = Callable[[npt.NDArray[np.floating[Any]]], npt.NDArray[np.floating[Any]]]
"""Maps vectors of the quantised space (N, D) to the space of the encoders, undoing the fusion."""

_BATCH = 16_384  # float64 copies of a batch: 50 MB each at D = 384
_NEIGHBOURS = 20  # of the neighbourhoods: what published comparisons use
_SAMPLED_QUERIES = 1000
_SAMPLED_PAIRS = 100_000
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

_LEAST_SESSIONS = 100
"""Sessions below which a hit rate near the floor says nothing: the interval is a tenth wide."""

_MOST_BY_CHANCE = 0.5
"""Rate by chance above which a hit rate says nothing of a small catalogue."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Former:
    """What the same items had in another release, and what they would have now had the new codes not been named after the old.

    Attributes:
        codes_NL: Their codes in that release (N, L), −1 in all levels of a new item.
        widths: That release's codes per level.
        unaligned_NL: Their present codes by the codebooks' own names (N, L), None where these are the names.
    """

    codes_NL: npt.NDArray[np.integer[Any]]
    widths: Sequence[int]
    unaligned_NL: npt.NDArray[np.integer[Any]] | None = None


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
    categories_N: npt.NDArray[np.integer[Any]] | None = None,
    popularity_N: npt.NDArray[np.integer[Any]] | None = None,
    former: Former | None = None,
    modalities: Iterable[Alone] = (),
) -> list[Metric]:
    """Return the metrics below; deterministic. Memory: two more (N, D) arrays, and with sessions that of `embedding_hit_rate`.

    On raw codes: raw_collision_rate (1 − different SIDs/items), raw_uniquely_identified_share, raw_largest_group (items),
    raw_leaf_gini (FORGE's, over occupied SIDs); per level level_utilisation (used codes/width), level_dead_codes, level_entropy,
    level_normalised_entropy, level_perplexity, conditional_entropy (given the prefix before), raw_prefix_gini, raw_capacity_gini,
    and prefix_reconstruction_error: Σ‖x − r‖²/Σ‖x − x̄‖² with r the reconstruction from levels 0 to this one.
    On final codes: unique_share (different SIDs/items, 1 by law), relative_reconstruction_error (all levels), mean_depth and
    depth_deviation of the levels that tell an item apart; per level prefix_gini and capacity_gini (of leaves 0, and
    1 − items/capacity, by construction), fan_out_mean, fan_out_max, fan_out_gini, prefix_largest, prefix_mean_load,
    prefix_alone_share; sampled: neighbourhood_jaccard and neighbourhood_rbo of the 20 nearest before and after, beside
    neighbourhood_random_jaccard, and prefix_spearman of cosine and shared prefix over random pairs, prefix_spearman_near over
    near ones.
    Between them: moved_share (share of items whose codes changed), mean_move_cost (mean over moved items of ‖x − r_final‖ −
    ‖x − r_raw‖, Euclidean; 0 where none moved), move_cost_p50, _p90, _p99 and _max, spill_rate (items that left their prefix).
    With a scorable session, hit rates at `k`: ehr_raw (the vectors), ehr_quantized (decoded raw codes, as decode returns them),
    ehr_reconstructed (decoded final codes, through `to_input_space` if given; without it only the codes differ from ehr_quantized),
    ehr_unmoved (raw codes by the way of ehr_reconstructed: the difference is what uniqueness cost);
    each with _ci_half_width (95 %, Wilson), _bootstrap_low, _bootstrap_high and _tie_rate; ehr_random_floor, ehr_num_sessions,
    and, from 100 sessions on, ehr_reconstructed_over_floor, the rate of the published SIDs less that floor.
    Ties are broken by `vectors_ND`. Raw and reconstructed also for cold targets (_cold) and four buckets of targets, rare to
    popular (_popularity_1 to _4, with ehr_num_sessions_… each), by `popularity_N` or, without it, by the histories of the sessions;
    None where no session asks for one. With `modalities`, what each knows by itself (see `modality_metrics`). And per level, on
    final codes: consecutive_share and consecutive_shuffled_share.
    With `categories_N` (−1: none), per level: category_purity, category_nmi, and category_dealt_purity, category_dealt_nmi.
    With `former`, per level, over items that both releases have: code_churn and prefix_churn; code_churn_relabelled and
    prefix_churn_relabelled, under the names that keep most codes; code_churn_unaligned and prefix_churn_unaligned, under the
    codebooks' own names.
    A value that is undefined for these items is None. Raises ValueError where shapes disagree, there are no items, or a code is
    outside its level.
    """
    _check_shapes(raw_codes_NL.shape, codes_NL.shape, vectors_ND.shape)
    level_usage(codes_NL, widths)  # final codes must lie in the same code space
    metrics = _code_metrics(code_use(raw_codes_NL, widths), code_use(codes_NL, widths))
    metrics += _fidelity_metrics(raw_codes_NL, codes_NL, vectors_ND, decode)
    if len(codes_NL) > 1:
        metrics += _neighbourhood_metrics(codes_NL, vectors_ND, decode)
    if categories_N is not None and (categories_N >= 0).any():
        metrics += _category_metrics(codes_NL, widths, categories_N)
    if former is not None:
        metrics += _churn_metrics(codes_NL, widths, former)
    if sessions is not None and sessions.num_scorable:
        metrics += _consecutive_metrics(codes_NL, widths, sessions)
        metrics += _hit_rate_metrics(
            _vectors_to_score(raw_codes_NL, codes_NL, vectors_ND, decode, to_input_space),
            vectors_ND,
            sessions,
            k=k,
            popularity_N=popularity(sessions, len(codes_NL)) if popularity_N is None else popularity_N,
            modalities=modalities,
        )
    return metrics


def measure_codes(codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int]) -> list[Metric]:
    """Return what can be measured of codes alone: the first paragraphs of `measure`, with the codes as raw and final ones."""
    use = code_use(codes_NL, widths)
    return [*_code_metrics(use, use), *crowding(codes_NL, widths)]


def crowding(raw_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int]) -> list[Metric]:
    """Return what collapses when codes do: the largest raw group and the fullest code of each level, as shares of the items."""
    largest = int(np.unique(raw_NL, axis=0, return_counts=True)[1].max())
    shares = [float(np.bincount(raw_NL[:, level], minlength=width).max() / len(raw_NL)) for level, width in enumerate(widths)]
    return [
        Metric(metric="raw_largest_group_share", value=largest / len(raw_NL)),
        *(Metric(metric="level_largest_share", level=level, value=share) for level, share in enumerate(shares)),
    ]


def _check_shapes(raw_codes: tuple[int, ...], codes: tuple[int, ...], vectors: tuple[int, ...]) -> None:
    if raw_codes != codes or vectors[0] != codes[0]:
        shapes = f"raw codes {raw_codes}, codes {codes}, vectors {vectors}"
        msg = f"codes and vectors must describe the same items and levels, got {shapes}"
        raise ValueError(msg)


def _code_metrics(raw: CodeUse, final: CodeUse) -> list[Metric]:
    metrics = [
        Metric(metric="raw_collision_rate", value=raw.collisions.collision_rate),
        Metric(metric="raw_uniquely_identified_share", value=raw.collisions.uniquely_identified_share),
        Metric(metric="raw_largest_group", value=float(raw.collisions.largest_group)),
        Metric(metric="raw_leaf_gini", value=raw.prefixes[-1].gini),
        Metric(metric="unique_share", value=final.collisions.num_unique / final.collisions.num_items),
        Metric(metric="mean_depth", value=final.mean_depth),
        Metric(metric="depth_deviation", value=final.depth_deviation),
    ]
    of_level: dict[str, list[Any]] = {
        "level_utilisation": [level.utilisation for level in raw.levels],
        "level_dead_codes": [level.num_dead for level in raw.levels],
        "level_entropy": [level.entropy for level in raw.levels],
        "level_normalised_entropy": [level.normalised_entropy for level in raw.levels],
        "level_perplexity": [level.perplexity for level in raw.levels],
        "conditional_entropy": [prefix.conditional_entropy for prefix in raw.prefixes],
        "raw_prefix_gini": [prefix.gini for prefix in raw.prefixes],
        "raw_capacity_gini": [prefix.capacity_gini for prefix in raw.prefixes],
        "prefix_gini": [prefix.gini for prefix in final.prefixes],
        "capacity_gini": [prefix.capacity_gini for prefix in final.prefixes],
        "fan_out_mean": [prefix.mean_fan_out for prefix in final.prefixes],
        "fan_out_max": [prefix.max_fan_out for prefix in final.prefixes],
        "fan_out_gini": [prefix.fan_out_gini for prefix in final.prefixes],
        "prefix_largest": [prefix.largest for prefix in final.prefixes],
        "prefix_mean_load": [prefix.mean_load for prefix in final.prefixes],
        "prefix_alone_share": [prefix.alone_share for prefix in final.prefixes],
    }
    return metrics + _per_level(of_level)


def _per_level(of_level: dict[str, list[Any]]) -> list[Metric]:
    return [
        Metric(metric=name, level=level, value=_defined(value))
        for name, values in of_level.items()
        for level, value in enumerate(values)
    ]


def _defined(value: float) -> float | None:
    """Return the value, None for NaN: undefined for these items."""
    return None if math.isnan(value) else float(value)


def _fidelity_metrics(
    raw_codes_NL: npt.NDArray[np.integer[Any]],
    codes_NL: npt.NDArray[np.integer[Any]],
    vectors_ND: npt.NDArray[np.floating[Any]],
    decode: Decode,
) -> list[Metric]:
    num_levels = codes_NL.shape[1]
    errors = ReconstructionError(num_levels + 1)
    moved_N = np.any(raw_codes_NL != codes_NL, axis=1)
    costs: list[npt.NDArray[np.float64]] = []
    for start in range(0, len(codes_NL), _BATCH):
        batch = slice(start, start + _BATCH)
        x_ND, moved = vectors_ND[batch], moved_N[batch]
        decoded = [decode(raw_codes_NL[batch, :depth]) for depth in range(1, num_levels + 1)] + [decode(codes_NL[batch])]
        errors.update(x_ND, decoded)
        costs.append(_distance(x_ND[moved], decoded[-1][moved]) - _distance(x_ND[moved], decoded[-2][moved]))
    *prefixes, final = errors.finalize()
    cost = uniqueness_cost(raw_codes_NL, codes_NL, np.concatenate(costs), quantiles=tuple(_QUANTILES.values()))
    return [
        *(Metric(metric="prefix_reconstruction_error", level=level, value=value) for level, value in enumerate(prefixes)),
        Metric(metric="relative_reconstruction_error", value=final),
        Metric(metric="moved_share", value=cost.moved_share),
        Metric(metric="mean_move_cost", value=cost.mean_cost),
        *(Metric(metric=f"move_cost_{name}", value=at[1]) for name, at in zip(_QUANTILES, cost.cost_quantiles, strict=True)),
        Metric(metric="spill_rate", value=cost.spill_rate),
    ]


def _distance(x_ND: npt.NDArray[np.floating[Any]], y_ND: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.norm(x_ND.astype(np.float64) - y_ND, axis=1), dtype=np.float64)


def _neighbourhood_metrics(
    codes_NL: npt.NDArray[np.integer[Any]], vectors_ND: npt.NDArray[np.floating[Any]], decode: Decode
) -> list[Metric]:
    kept = neighbourhood_preservation(vectors_ND, _decode_distinct(codes_NL, decode), k=_NEIGHBOURS, num_queries=_SAMPLED_QUERIES)
    pairs = {
        "prefix_spearman": random_pairs(len(codes_NL), _SAMPLED_PAIRS),
        "prefix_spearman_near": near_pairs(vectors_ND, k=_NEIGHBOURS, num_queries=_SAMPLED_QUERIES),
    }
    return [
        Metric(metric="neighbourhood_jaccard", value=kept.jaccard),
        Metric(metric="neighbourhood_rbo", value=kept.rank_biased_overlap),
        Metric(metric="neighbourhood_random_jaccard", value=kept.random_jaccard),
        *(Metric(metric=name, value=_defined(prefix_spearman(vectors_ND, codes_NL, of))) for name, of in pairs.items()),
    ]


def _category_metrics(
    codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int], categories_N: npt.NDArray[np.integer[Any]]
) -> list[Metric]:
    found = category_match(codes_NL, widths, categories_N)
    return _per_level(
        {
            "category_purity": [match.purity for match in found],
            "category_nmi": [match.nmi for match in found],
            "category_dealt_purity": [match.dealt_purity for match in found],
            "category_dealt_nmi": [match.dealt_nmi for match in found],
        }
    )


def _churn_metrics(codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int], former: Former) -> list[Metric]:
    unaligned_NL = codes_NL if former.unaligned_NL is None else former.unaligned_NL
    if not former.codes_NL.shape == unaligned_NL.shape == codes_NL.shape:
        shapes = f"{former.codes_NL.shape} and unaligned {unaligned_NL.shape}"
        msg = f"former codes must have the items and levels of these, {codes_NL.shape}, got {shapes}"
        raise ValueError(msg)
    both_N = former.codes_NL[:, 0] >= 0
    if not both_N.any():
        return []
    found = churn(former.codes_NL[both_N], codes_NL[both_N], former.widths, widths)
    changed_NL = unaligned_NL[both_N] != former.codes_NL[both_N]
    return _per_level(
        {
            "code_churn": [level.changed for level in found],
            "code_churn_relabelled": [level.changed_relabelled for level in found],
            "prefix_churn": [level.prefix_changed for level in found],
            "prefix_churn_relabelled": [level.prefix_changed_relabelled for level in found],
            "code_churn_unaligned": changed_NL.mean(axis=0).tolist(),
            "prefix_churn_unaligned": np.logical_or.accumulate(changed_NL, axis=1).mean(axis=0).tolist(),
        }
    )


def _consecutive_metrics(codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int], sessions: Sessions) -> list[Metric]:
    pairs = consecutive_pairs(sessions)
    found = consecutive_share(codes_NL, widths, pairs) if len(pairs) else ()
    return _per_level(
        {
            "consecutive_share": [level.share for level in found],
            "consecutive_shuffled_share": [level.shuffled_share for level in found],
        }
    )


def _vectors_to_score(
    raw_codes_NL: npt.NDArray[np.integer[Any]],
    codes_NL: npt.NDArray[np.integer[Any]],
    vectors_ND: npt.NDArray[np.floating[Any]],
    decode: Decode,
    to_input_space: ToInputSpace | None,
) -> dict[str, Callable[[], npt.NDArray[np.floating[Any]]]]:
    """Return what makes the vectors of each hit rate, one at a time in memory."""
    back = decode if to_input_space is None else lambda codes: to_input_space(decode(codes))
    made: dict[str, Callable[[], npt.NDArray[np.floating[Any]]]] = {
        "ehr_raw": lambda: vectors_ND,
        "ehr_quantized": lambda: _decode_distinct(raw_codes_NL, decode),
        "ehr_reconstructed": lambda: _decode_distinct(codes_NL, back),
    }
    return made if to_input_space is None else made | {"ehr_unmoved": lambda: _decode_distinct(raw_codes_NL, back)}


def _hit_rate_metrics(
    made: dict[str, Callable[[], npt.NDArray[np.floating[Any]]]],
    vectors_ND: npt.NDArray[np.floating[Any]],
    sessions: Sessions,
    *,
    k: int,
    popularity_N: npt.NDArray[np.integer[Any]],
    modalities: Iterable[Alone],
) -> list[Metric]:
    hits = {
        name: session_hits(ExactSearch(make(), None if name == "ehr_raw" else vectors_ND), sessions, num_items=len(vectors_ND), k=k)
        for name, make in made.items()
    }
    raw = hit_rate_of(hits["ehr_raw"])
    metrics = [metric for name in ("ehr_raw", "ehr_quantized", "ehr_reconstructed") for metric in _hit_rate(name, hits[name])]
    metrics += [
        Metric(metric="ehr_unmoved", value=hit_rate_of(hits.get("ehr_unmoved", hits["ehr_quantized"])).value),
        Metric(metric="ehr_random_floor", value=raw.random_floor),
        Metric(metric="ehr_reconstructed_over_floor", value=_beyond_chance(hits["ehr_reconstructed"], raw.random_floor)),
        Metric(metric="ehr_num_sessions", value=float(raw.num_sessions)),
    ]
    tells = _tells(hits["ehr_raw"], raw.random_floor)
    metrics += modality_metrics(modalities, hits["ehr_raw"], sessions, k=k, tells=tells)
    for name in ("ehr_raw", "ehr_reconstructed"):
        for number, bucket in enumerate(hit_rate_by_popularity(hits[name], sessions, popularity_N)):
            of = "cold" if bucket.is_cold else f"popularity_{number}"
            metrics.append(Metric(metric=f"{name}_{of}", value=_defined(bucket.value)))
            if name == "ehr_raw":
                metrics.append(Metric(metric=f"ehr_num_sessions_{of}", value=float(bucket.num_sessions)))
    return metrics


def _beyond_chance(hits: SessionHits, floor: float) -> float | None:
    """Return the rate less what chance gives; None where that tells nothing."""
    return hit_rate_of(hits).value - floor if _tells(hits, floor) else None


def _tells(hits: SessionHits, floor: float) -> bool:
    """Return whether a rate says anything.

    Of few sessions the interval is too wide. Where chance hits more often than not, the lists reach most of a small catalogue, and
    lists of neighbours, which overlap, reach less of it than lists drawn at random.
    """
    return len(hits.hits_S) >= _LEAST_SESSIONS and floor <= _MOST_BY_CHANCE


def _hit_rate(name: str, hits: SessionHits) -> list[Metric]:
    result = hit_rate_of(hits)
    low, high = bootstrap_interval(hits)
    return [
        Metric(metric=name, value=result.value),
        Metric(metric=f"{name}_ci_half_width", value=(result.ci_high - result.ci_low) / 2),
        Metric(metric=f"{name}_bootstrap_low", value=low),
        Metric(metric=f"{name}_bootstrap_high", value=high),
        Metric(metric=f"{name}_tie_rate", value=result.tie_rate),
    ]


def _decode_distinct(codes_NL: npt.NDArray[np.integer[Any]], decode: Decode) -> npt.NDArray[np.floating[Any]]:
    """Return the reconstructions (N, D), each SID decoded once: a matrix product may round equal rows apart, hiding ties."""
    codes_UL, group_N = np.unique(codes_NL, axis=0, return_inverse=True)
    vectors_ND: npt.NDArray[np.floating[Any]] = decode(codes_UL)[group_N.reshape(-1)]
    return vectors_ND
