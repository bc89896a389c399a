"""Names for new codes: as many items as can be keep theirs, by brute force; never fewer than without, by law."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidlake.tokenizers.generations.alignment import align_codes

LAW = settings(max_examples=120, deadline=None)


@st.composite
def generations(draw, levels=(1, 2, 3)):
    """The codes of up to 40 items in two generations that may differ in widths and levels, and the new widths."""
    before, after = (
        draw(st.sampled_from(levels).flatmap(lambda num: st.lists(st.integers(1, 4), min_size=num, max_size=num))) for _ in range(2)
    )
    rng, num = np.random.default_rng(draw(st.integers(0, 10**6))), draw(st.integers(1, 40))
    former = np.stack([rng.integers(width, size=num) for width in before], axis=1)
    fresh = np.stack([rng.integers(width, size=num) for width in after], axis=1)
    alike = draw(st.sampled_from([0.0, 0.5, 0.9]))  # of the items keep what they had, where the new widths allow it
    shared = min(len(before), len(after))
    stays = rng.random((num, shared)) < alike
    fresh[:, :shared] = np.where(stays, np.minimum(former[:, :shared], np.array(after[:shared]) - 1), fresh[:, :shared])
    return former, fresh, after


def named(fresh, names):
    return np.stack([names[level][fresh[:, level]] for level in range(fresh.shape[1])], axis=1)


def kept(former, codes):
    """How many items keep their code of each shared level, and how many all codes up to it: counted one by one."""
    shared = range(min(former.shape[1], codes.shape[1]))
    per_code = tuple(sum(int(a[level] == b[level]) for a, b in zip(former, codes, strict=True)) for level in shared)
    per_prefix = tuple(
        sum(a[: level + 1].tolist() == b[: level + 1].tolist() for a, b in zip(former, codes, strict=True)) for level in shared
    )
    return per_code, per_prefix


@LAW
@given(generations())
def test_no_level_keeps_fewer_codes_or_prefixes_than_without(generation):
    former, fresh, widths = generation
    found = align_codes(former, fresh, widths)
    for names, width in zip(found.names, widths, strict=True):
        assert sorted(names.tolist()) == list(range(width))
    codes, prefixes = kept(former, named(fresh, found.names))
    codes_without, prefixes_without = kept(former, fresh)
    assert all(a >= b for a, b in zip(codes, codes_without, strict=True))
    assert all(a >= b for a, b in zip(prefixes, prefixes_without, strict=True))
    assert (found.after.codes, found.after.prefixes) == (codes, prefixes)
    assert (found.before.codes, found.before.prefixes) == (codes_without, prefixes_without)


@LAW
@given(generations(levels=[1]))
def test_one_level_keeps_as_many_items_as_the_best_of_all_permutations(generation):
    former, fresh, (width,) = generation
    best = max(
        int((np.array(names)[fresh[:, 0]] == former[:, 0]).sum()) for names in itertools.permutations(range(width))
    )  # fmt: skip
    assert align_codes(former, fresh, [width]).after.codes == (best,)


@LAW
@given(generations(levels=[2]))
def test_the_next_level_is_the_best_of_all_permutations_for_the_items_that_kept_their_prefix(generation):
    former, fresh, widths = generation
    found = align_codes(former, fresh, widths)
    stayed = found.names[0][fresh[:, 0]] == former[:, 0]
    scores = []
    for names in itertools.permutations(range(widths[1])):
        same = np.array(names)[fresh[:, 1]] == former[:, 1]
        scores.append((int((same & stayed).sum()), int(same.sum())))
    best = max(scores)
    assume(best[1] >= found.before.codes[1] and best[0] >= found.before.prefixes[1])
    assert (found.after.prefixes[1], found.after.codes[1]) == best


@LAW
@given(generations(), st.randoms(use_true_random=False))
def test_the_order_of_items_changes_nothing(generation, random):
    former, fresh, widths = generation
    order = list(range(len(former)))
    random.shuffle(order)
    one, two = align_codes(former, fresh, widths), align_codes(former[order], fresh[order], widths)
    assert [names.tolist() for names in one.names] == [names.tolist() for names in two.names]


def test_a_shuffled_codebook_gets_its_names_back():
    rng = np.random.default_rng(0)
    former = rng.integers(64, size=(5000, 3))
    shuffled = [rng.permutation(64) for _ in range(3)]
    found = align_codes(former, named(former, shuffled), [64] * 3)
    assert [names.tolist() for names in found.names] == [np.argsort(names).tolist() for names in shuffled]
    assert found.after.prefixes == (5000, 5000, 5000)
    assert found.churn()["prefix_churn"] == [0.0, 0.0, 0.0]
    assert found.churn()["code_churn_unaligned"][0] > 0.9


def test_a_better_first_level_is_not_taken_where_it_costs_the_second():
    # 50 items keep both codes; the other 64 would keep the first by another name, and any names of the second keep 16 of them.
    stay = np.zeros((50, 2), dtype=int)
    others = np.array([[0, code] for code in range(4) for _ in range(16)])
    others_now = np.array([[1, code] for _ in range(16) for code in range(4)])
    found = align_codes(np.concatenate([stay, others]), np.concatenate([stay, others_now]), [2, 4])
    assert found.before.prefixes == (50, 50)
    assert found.after.prefixes == (50, 50)
    assert found.names[0].tolist() == [0, 1]


def test_items_that_kept_their_prefix_decide_the_names_of_the_next_level():
    # Three items that change their first code say that the second should stay; the two that keep it say that it should change.
    former = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 1], [0, 0], [0, 1], [0, 0], [0, 1]])
    fresh = np.array([[0, 1], [0, 0], [0, 0], [0, 1], [0, 1], [0, 1], [0, 0], [0, 1], [0, 0]])
    found = align_codes(former, fresh, [2, 2])
    assert [names.tolist() for names in found.names] == [[0, 1], [1, 0]]
    assert found.after.prefixes == (6, 6)


def test_codes_that_share_no_item_with_the_former_generation_keep_their_own_names():
    former, fresh = np.array([[3], [3], [1]]), np.array([[0], [0], [1]])
    assert align_codes(former, fresh, [6]).names[0].tolist() == [3, 1, 2, 0, 4, 5]


def test_a_former_code_beyond_the_new_width_is_lost_and_others_are_kept():
    former, fresh = np.array([[9], [9], [1], [0]]), np.array([[0], [0], [0], [1]])
    found = align_codes(former, fresh, [2])
    assert found.names[0].tolist() == [1, 0]
    assert found.after.codes == (2,)


def test_levels_that_only_one_generation_has_are_left_alone():
    found = align_codes(np.array([[0], [1]]), np.array([[1, 2], [0, 0]]), [2, 3])
    assert [names.tolist() for names in found.names] == [[1, 0], [0, 1, 2]]
    assert found.after.codes == (2,)
    assert align_codes(np.array([[0, 7], [1, 7]]), np.array([[1], [0]]), [2]).after.codes == (2,)


def test_equal_codes_and_no_items_change_nothing():
    codes = np.array([[0, 1], [1, 0]])
    assert align_codes(codes, codes, [2, 2]).changes_nothing
    none = align_codes(np.empty((0, 2), int), np.empty((0, 2), int), [2, 2])
    assert none.changes_nothing
    assert none.churn() == {}


@pytest.mark.parametrize(
    ("former", "fresh", "says"),
    [
        (np.zeros((2, 1), int), np.zeros((3, 1), int), r"got former \(2, 1\) and new \(3, 1\)"),
        (np.zeros(2, int), np.zeros((2, 1), int), "1 new levels"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), r"1 new levels, got former \(2, 2\)"),
        (np.zeros((1, 1), int), np.full((1, 1), 4), r"range over \[4, 4\]; allowed"),
        (np.zeros((1, 1), int), np.full((1, 1), -1), r"range over \[-1, -1\]"),
        (np.broadcast_to(0, (2**26 + 1, 1)), np.broadcast_to(0, (2**26 + 1, 1)), "at most 67,108,864 items"),
    ],
)
def test_codes_that_do_not_fit_are_refused(former, fresh, says):
    with pytest.raises(ValueError, match=says):
        align_codes(former, fresh, [4])
