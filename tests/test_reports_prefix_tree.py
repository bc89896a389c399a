import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sidlake.reports.prefix_tree import distinctive_words, prefix_tree, word_shares


def codes(*rows):
    found = np.array(rows, dtype=np.int32)
    return found[np.lexsort(found.T[::-1])]


def test_a_prefix_counts_the_items_below_it():
    root = prefix_tree(codes([0, 0, 0], [0, 0, 1], [0, 1, 0], [2, 0, 0]))
    assert [(one.codes, one.num_items) for one in root.walk()] == [((), 4), ((0,), 3), ((0, 0), 2)]


def test_an_item_alone_with_its_next_code_hangs_where_that_begins():
    root = prefix_tree(codes([0, 0, 0], [0, 0, 1], [0, 1, 0], [2, 0, 0]))
    assert {one.codes: one.rows for one in root.walk()} == {(): (3,), (0,): (2,), (0, 0): (0, 1)}


def test_the_fullest_prefixes_are_shown_in_order_of_their_codes():
    root = prefix_tree(codes([0, 0], [1, 0], [1, 1], [2, 0], [2, 1], [2, 2]), max_children=(2,))
    assert [child.codes for child in root.children] == [(1,), (2,)]
    assert root.num_hidden == 1


def test_items_beyond_the_most_are_counted_as_hidden():
    (child,) = prefix_tree(codes(*([0, last] for last in range(20))), max_items=12).children
    assert (child.rows, child.num_hidden) == (tuple(range(12)), 8)


def test_sids_of_one_level_hang_below_the_root():
    root = prefix_tree(codes([3], [5]))
    assert (root.children, root.rows) == ((), (0, 1))


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.int32, st.tuples(st.integers(1, 60), st.integers(1, 4)), elements=st.integers(0, 5)),
    st.integers(1, 40),
)
def test_no_more_is_shown_than_asked_for_and_nothing_is_lost(drawn, max_shown):
    sorted_codes = codes(*np.unique(drawn, axis=0))
    root = prefix_tree(sorted_codes, max_shown=max_shown)
    shown = list(root.walk())
    assert len(shown) - 1 + sum(len(one.rows) for one in shown) <= max_shown
    for one in shown:
        below = [row for row in sorted_codes.tolist() if tuple(row[: len(one.codes)]) == one.codes]
        assert one.num_items == len(below)
        assert len(one.children) + len(one.rows) + one.num_hidden == len({tuple(row[: len(one.codes) + 1]) for row in below})


def test_words_of_a_prefix_are_those_rarer_elsewhere():
    everywhere = word_shares(["red mug", "red lamp", "red bag", "blue mug"])
    assert everywhere == {"red": 0.75, "mug": 0.5, "lamp": 0.25, "bag": 0.25, "blue": 0.25}
    assert distinctive_words(["red mug", "red mug"], everywhere) == ("mug", "red")


def test_numbers_short_and_common_words_say_nothing():
    assert word_shares(["SET OF 6 the tea-CUPS 3d"]) == {"tea": 1.0, "cups": 1.0}
