from __future__ import annotations

import numpy as np
import pytest

from sidlake.errors import GateFailed
from sidlake.quality.gates import REMEDIES, Gate, judge, require_pass
from sidlake.quality.measure import Former, measure
from sidlake.quality.metrics.consecutive import consecutive_pairs, consecutive_share
from sidlake.quality.metrics.hit_rate import embedding_hit_rate
from sidlake.quality.metrics.sessions import Sessions
from sidlake.quality.readings import READINGS

# Two levels of two codes in one dimension: reconstructions 10 and 20, then ± 1.
CENTROIDS = np.array([[[10.0], [20.0]], [[-1.0], [1.0]]], dtype=np.float32)
X_ND = np.array([[9.0], [9.5], [21.0], [19.0]], dtype=np.float32)
RAW = np.array([[0, 0], [0, 0], [1, 1], [1, 0]], dtype=np.int32)
FINAL = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], dtype=np.int32)


def decode(codes_NL: np.ndarray) -> np.ndarray:
    return np.sum([CENTROIDS[level][codes_NL[:, level]] for level in range(codes_NL.shape[1])], axis=0)


def values(**changes: object) -> dict[tuple[str, int | None], float | None]:
    arguments = {"widths": [2, 2], "vectors_ND": X_ND, "decode": decode, **changes}
    return {(m.metric, m.level): m.value for m in measure(RAW, FINAL, **arguments)}


def sessions_of(items: list[list[int]], targets: list[int]) -> Sessions:
    return Sessions(
        items_flat=np.array([i for session in items for i in session], dtype=np.int64),
        offsets=np.cumsum([0, *map(len, items)], dtype=np.int64),
        targets=np.array(targets, dtype=np.int64),
    )


def test_every_metric_of_four_items_matches_its_hand_computed_value():
    spread = np.square(X_ND - X_ND.mean()).sum()  # mean 14.625
    expected = {
        ("raw_collision_rate", None): 0.25,
        ("raw_largest_group", None): 2.0,
        ("raw_leaf_gini", None): 1 / 6,  # 4/3 − 2·(3·1 + 2·1 + 1·2)/(3·4)
        ("unique_share", None): 1.0,
        ("level_utilisation", 0): 1.0,
        ("level_utilisation", 1): 1.0,
        ("level_perplexity", 0): 2.0,
        ("level_perplexity", 1): np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)),
        ("prefix_reconstruction_error", 0): (1.0 + 0.25 + 1.0 + 1.0) / spread,
        ("prefix_reconstruction_error", 1): 0.25 / spread,
        ("relative_reconstruction_error", None): 1.5**2 / spread,
        ("moved_share", None): 0.25,
        ("mean_move_cost", None): 1.5 - 0.5,
        ("spill_rate", None): 0.0,  # the moved item kept its level-0 code
        ("raw_uniquely_identified_share", None): 0.5,
        ("mean_depth", None): 2.0,
        ("depth_deviation", None): 0.0,
        ("neighbourhood_jaccard", None): 1.0,  # three others, each a neighbour
        ("neighbourhood_rbo", None): 1.0,
        ("neighbourhood_random_jaccard", None): 1.0,
        ("prefix_spearman", None): None,  # all cosines of positive numbers are 1
        ("prefix_spearman_near", None): None,
    }
    expected |= {(f"move_cost_{name}", None): 1.0 for name in ("p50", "p90", "p99", "max")}
    second = {
        "level_dead_codes": (0.0, 0.0),
        "level_entropy": (np.log(2), -0.75 * np.log(0.75) - 0.25 * np.log(0.25)),
        "level_normalised_entropy": (1.0, (-0.75 * np.log(0.75) - 0.25 * np.log(0.25)) / np.log(2)),
        "conditional_entropy": (np.log(2), np.log(2) / 2),
        "raw_prefix_gini": (0.0, 1 / 6),
        "raw_capacity_gini": (0.0, 1 - 3 / 4 * 5 / 6),
        "prefix_gini": (0.0, 0.0),
        "capacity_gini": (0.0, 0.0),
        "fan_out_mean": (2.0, 2.0),
        "fan_out_max": (2.0, 2.0),
        "fan_out_gini": (0.0, 0.0),
        "prefix_largest": (2.0, 1.0),
        "prefix_mean_load": (2.0, 1.0),
        "prefix_alone_share": (0.0, 1.0),
    }
    expected |= {(name, level): of_level[level] for name, of_level in second.items() for level in (0, 1)}
    assert values() == pytest.approx(expected)


def test_categories_are_measured_on_published_codes_where_there_are_any():
    found = values(categories_N=np.array([4, 4, 7, -1]))
    assert (found["category_purity", 0], found["category_nmi", 0]) == (1.0, pytest.approx(1.0))
    assert found["category_dealt_purity", 1] == 1.0
    assert ("category_purity", 0) not in values(categories_N=np.full(4, -1))


def test_churn_is_measured_over_items_that_both_releases_have():
    before = np.array([[1, 0], [1, 1], [0, 0], [-1, -1]])
    found = values(former=Former(codes_NL=before, widths=[2, 2]))
    assert (found["code_churn", 0], found["code_churn_relabelled", 0]) == (1.0, 0.0)
    assert (found["code_churn", 1], found["prefix_churn_relabelled", 1]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found["code_churn_unaligned", 0] == 1.0
    assert ("code_churn", 0) not in values(former=Former(codes_NL=np.full((4, 2), -1), widths=[2, 2]))
    with pytest.raises(ValueError, match="former codes"):
        values(former=Former(codes_NL=before[:3], widths=[2, 2]))


def test_churn_without_alignment_is_that_of_the_codebooks_own_names():
    before = np.array([[1, 0], [1, 1], [0, 0], [-1, -1]])
    unaligned = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    found = values(former=Former(codes_NL=before, widths=[2, 2], unaligned_NL=unaligned))
    assert [found["code_churn_unaligned", level] for level in (0, 1)] == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert [found["prefix_churn_unaligned", level] for level in (0, 1)] == [pytest.approx(2 / 3), 1.0]
    with pytest.raises(ValueError, match=r"unaligned \(3, 2\)"):
        values(former=Former(codes_NL=before, widths=[2, 2], unaligned_NL=unaligned[:3]))


def test_popularity_that_is_given_decides_who_is_cold():
    sessions = sessions_of([[0], [1], [2]], [1, 2, 3])
    assert values(sessions=sessions)["ehr_num_sessions_cold", None] == 1.0
    assert values(sessions=sessions, popularity_N=np.array([3, 0, 0, 9]))["ehr_num_sessions_cold", None] == 2.0
    assert values(sessions=sessions, popularity_N=np.full(4, 5))["ehr_raw_cold", None] is None


def test_one_item_is_measured_without_neighbours():
    found = {m.metric for m in measure(RAW[:1], RAW[:1], widths=[2, 2], vectors_ND=X_ND[:1], decode=decode)}
    assert "unique_share" in found
    assert "neighbourhood_jaccard" not in found


def test_nothing_moved_costs_nothing():
    metrics = {m.metric: m.value for m in measure(FINAL, FINAL, widths=[2, 2], vectors_ND=X_ND, decode=decode)}
    assert (metrics["moved_share"], metrics["mean_move_cost"]) == (0.0, 0.0)


def test_each_hit_rate_scores_its_own_vectors():
    rng = np.random.default_rng(0)
    vectors_ND = rng.normal(size=(60, 4)).astype(np.float32)
    books = rng.normal(size=(2, 8, 4)).astype(np.float32)
    raw = rng.integers(0, 4, size=(60, 2))
    final = np.stack([np.arange(60) // 8, np.arange(60) % 8], axis=1)
    sessions = sessions_of(rng.integers(0, 60, size=(200, 3)).tolist(), rng.integers(0, 60, size=200).tolist())
    to_input_space = rng.normal(size=(4, 6)).astype(np.float32)

    def decode_random(codes_NL: np.ndarray) -> np.ndarray:
        return np.sum([books[level][codes_NL[:, level]] for level in range(codes_NL.shape[1])], axis=0)

    metrics = measure(
        raw,
        final,
        widths=[8, 8],
        vectors_ND=vectors_ND,
        decode=decode_random,
        sessions=sessions,
        to_input_space=lambda x_ND: x_ND @ to_input_space,
        k=5,
    )
    got = {m.metric: m.value for m in metrics if m.level is None}
    ceiling = embedding_hit_rate(vectors_ND, sessions, k=5)
    quantized = embedding_hit_rate(decode_random(raw), sessions, k=5, tie_break_ND=vectors_ND)
    reconstructed = embedding_hit_rate(decode_random(final) @ to_input_space, sessions, k=5, tie_break_ND=vectors_ND)
    assert (got["ehr_raw"], got["ehr_quantized"], got["ehr_reconstructed"]) == (ceiling.value, quantized.value, reconstructed.value)
    assert got["ehr_quantized_tie_rate"] == quantized.tie_rate > 0
    assert got["ehr_raw_ci_half_width"] == (ceiling.ci_high - ceiling.ci_low) / 2
    assert (got["ehr_random_floor"], got["ehr_num_sessions"]) == (ceiling.random_floor, 200.0)
    unmoved = embedding_hit_rate(decode_random(raw) @ to_input_space, sessions, k=5, tie_break_ND=vectors_ND)
    assert got["ehr_unmoved"] == unmoved.value
    assert got["ehr_reconstructed_bootstrap_low"] < reconstructed.value < got["ehr_reconstructed_bootstrap_high"]
    buckets = ["cold", *(f"popularity_{number}" for number in (1, 2, 3, 4))]
    assert sum(got[f"ehr_num_sessions_{of}"] for of in buckets) == 200
    for name, whole in (("ehr_raw", ceiling), ("ehr_reconstructed", reconstructed)):
        in_buckets = sum((got[f"{name}_{of}"] or 0.0) * got[f"ehr_num_sessions_{of}"] for of in buckets)
        assert in_buckets == pytest.approx(200 * whole.value)
    shares = consecutive_share(final, [8, 8], consecutive_pairs(sessions))
    by_level = {(m.metric, m.level): m.value for m in metrics}
    assert [by_level["consecutive_share", level] for level in (0, 1)] == [share.share for share in shares]
    assert by_level["consecutive_shuffled_share", 0] == shares[0].shuffled_share


@pytest.mark.parametrize("sessions", [None, sessions_of([[-1]], [0])])
def test_hit_rates_are_absent_without_a_session_to_score(sessions):
    metrics = measure(RAW, FINAL, widths=[2, 2], vectors_ND=X_ND, decode=decode, sessions=sessions)
    assert not [m for m in metrics if m.metric.startswith("ehr")]
    require_pass(judge(metrics, [Gate(metric="ehr_raw", minimum=0.1, optional=True)]))


def test_published_codes_that_are_not_unique_are_refused_by_their_gate():
    metrics = measure(RAW, RAW, widths=[2, 2], vectors_ND=X_ND, decode=decode)
    with pytest.raises(GateFailed, match=r"unique_share: 0\.75 is below the minimum 1"):
        require_pass(judge(metrics, [Gate(metric="unique_share", minimum=1.0)]))


def test_identical_vectors_are_refused_by_the_reconstruction_gate():
    metrics = measure(RAW, FINAL, widths=[2, 2], vectors_ND=np.ones_like(X_ND), decode=decode)
    with pytest.raises(GateFailed, match="not a number"):
        require_pass(judge(metrics, [Gate(metric="relative_reconstruction_error", maximum=1.0)]))


def test_every_remedy_is_for_a_metric_that_is_measured():
    names = {metric for metric, _ in values(sessions=sessions_of([[0]], [1]))}
    assert set(REMEDIES) <= names | set(READINGS)  # the step measures more, and test_quality_readings that each is read


def test_final_codes_outside_their_level_are_refused():
    with pytest.raises(ValueError, match="level 1"):
        measure(RAW, FINAL + np.array([0, 1], dtype=np.int32), widths=[2, 2], vectors_ND=X_ND, decode=decode)


def test_codes_and_vectors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="same items and levels"):
        measure(RAW, FINAL, widths=[2, 2], vectors_ND=X_ND[:3], decode=decode)
