"""What codes say by themselves: hand counts, libraries, and laws over order and batches."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import mutual_info_score

from sidlake.quality.metrics.code_use import CodeCounter, code_use, gini_of_histogram
from sidlake.quality.metrics.collision import collision_stats, gini, group_sizes
from sidlake.quality.metrics.utilisation import level_usage

BEAUTY = Path(__file__).resolve().parents[2] / "shared" / "data" / "beauty" / "sids.parquet"
WIDTHS = (3, 4, 2)
codes_strategy = hnp.arrays(np.int32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(0, 1))


def beauty_codes(method):
    if not BEAUTY.exists():
        pytest.skip("../shared/data/beauty is absent")
    table = pq.read_table(BEAUTY, columns=["method", "codes"])
    rows = table.filter(pc.equal(table.column("method").cast("string"), method)).column("codes").to_pylist()
    return np.array(rows, dtype=np.int32)


def mean_difference_gini(sizes):
    sizes = np.asarray(sizes, dtype=np.float64)
    return np.abs(sizes[:, None] - sizes[None, :]).mean() / (2 * sizes.mean())


def test_a_tree_of_six_items_matches_the_hand_count():
    # level 0: prefix 0 has 4 items, prefix 1 has 2; below: 0-0 has 3, 0-1, 1-0 and 1-2 have 1 each
    use = code_use(np.array([[0, 0], [0, 0], [0, 0], [0, 1], [1, 0], [1, 2]]), [3, 4])
    first, second = use.prefixes
    assert (first.num_prefixes, first.capacity, second.num_prefixes, second.capacity) == (2, 3, 4, 12)
    assert (first.mean_fan_out, first.max_fan_out, first.fan_out_gini) == (2.0, 2, 0.0)
    assert (second.mean_fan_out, second.max_fan_out, second.fan_out_gini) == (2.0, 2, 0.0)
    assert (first.largest, second.largest) == (4, 3)
    assert (first.mean_load, second.mean_load) == pytest.approx(((16 + 4) / 6, (9 + 3) / 6))
    assert (first.alone_share, second.alone_share) == (0.0, 0.5)
    assert (first.gini, second.gini) == pytest.approx((1 / 6, 1 / 4))
    assert (first.capacity_gini, second.capacity_gini) == pytest.approx((1 - 2 / 3 * 5 / 6, 1 - 4 / 12 * 3 / 4))
    assert second.conditional_entropy == pytest.approx(4 / 6 * -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) + 2 / 6 * np.log(2))
    assert (use.mean_depth, use.depth_deviation) == (2.0, 0.0)


def test_a_list_hanging_from_one_branch_is_unbalanced():
    # item 0 is told apart by level 0, item 1 by level 1, items 2 and 3 by level 2
    use = code_use(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]), [2, 2, 2])
    assert [load.alone_share for load in use.prefixes] == [0.25, 0.5, 1.0]
    assert use.mean_depth == pytest.approx(2.25)
    assert use.depth_deviation == pytest.approx(np.std([1, 2, 3, 3]))
    assert [load.mean_fan_out for load in use.prefixes] == [2.0, 1.5, pytest.approx(4 / 3)]
    assert use.prefixes[1].fan_out_gini == pytest.approx(mean_difference_gini([1, 2]))


def test_leaves_of_a_unique_table_are_even_while_its_prefixes_are_not():
    use = code_use(np.array([[0, 0], [0, 1], [0, 2], [1, 0]]), [2, 4])
    assert (use.prefixes[0].gini, use.prefixes[1].gini) == (0.25, 0.0)
    assert use.prefixes[1].capacity_gini == 0.5


@given(codes_strategy)
@settings(max_examples=50, deadline=None)
def test_loads_agree_with_counting_and_with_libraries(codes_NL):
    use = code_use(codes_NL, WIDTHS)
    for depth, load in enumerate(use.prefixes, start=1):
        prefixes, group_N, sizes = np.unique(codes_NL[:, :depth], axis=0, return_inverse=True, return_counts=True)
        _, parent_N = np.unique(codes_NL[:, : depth - 1], axis=0, return_inverse=True) if depth > 1 else (0, np.zeros(len(group_N)))
        entropy = scipy.stats.entropy(sizes)
        assert (load.num_prefixes, load.largest) == (len(prefixes), sizes.max())
        assert load.entropy == pytest.approx(entropy, abs=1e-12)
        code_N = codes_NL[:, depth - 1]
        given_prefix = scipy.stats.entropy(np.unique(code_N, return_counts=True)[1]) - mutual_info_score(parent_N.ravel(), code_N)
        assert load.conditional_entropy == pytest.approx(given_prefix, abs=1e-9)
        empty = np.zeros(load.capacity - len(sizes))
        assert load.gini == pytest.approx(mean_difference_gini(sizes), abs=1e-12)
        assert load.capacity_gini == pytest.approx(mean_difference_gini(np.concatenate([sizes, empty])), abs=1e-12)


@given(codes_strategy, st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_order_and_batches_change_nothing(codes_NL, seed):
    rng = np.random.default_rng(seed)
    counter = CodeCounter(WIDTHS)
    for batch in np.array_split(rng.permutation(codes_NL), rng.integers(1, 6)):
        counter.update(batch)
    assert counter.finalize() == code_use(codes_NL, WIDTHS)


@given(codes_strategy)
@settings(max_examples=30, deadline=None)
def test_entropies_add_up_to_that_of_whole_sids(codes_NL):
    use = code_use(codes_NL, WIDTHS)
    assert sum(load.conditional_entropy for load in use.prefixes) == pytest.approx(use.prefixes[-1].entropy, abs=1e-12)


@pytest.mark.parametrize("method", ["letter_tiger", "collision_rkmeans_native", "unigenrec_text.rqvae", "unigenrec_text.opq"])
def test_published_codes_count_as_level_by_level_and_sid_by_sid(method):
    codes_NL = beauty_codes(method)
    widths = (256,) * codes_NL.shape[1]
    use = code_use(codes_NL, widths)
    assert list(use.levels) == level_usage(codes_NL, widths)
    assert use.collisions == collision_stats(codes_NL)
    assert use.prefixes[-1].gini == pytest.approx(gini(group_sizes(codes_NL)), abs=1e-12)


def test_a_histogram_has_the_gini_of_its_groups():
    sizes = np.random.default_rng(0).zipf(1.5, 500)
    assert gini_of_histogram(*np.unique(sizes, return_counts=True)) == pytest.approx(gini(sizes), abs=1e-12)


def test_a_counter_without_items_refuses():
    with pytest.raises(ValueError, match="0 items"):
        CodeCounter([2, 2]).finalize()
