from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.generative.judging.baselines import ItemToItem, MostPopular
from sidlake.generative.judging.rankers import top_items
from sidlake.generative.sequences import Histories, SequenceReader

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generative_sample.py"))))


def histories(walks: list[list[int]]) -> Histories:
    sids = SAMPLE.semantic_ids()
    order = SequenceReader(SAMPLE.sequences([("u", "train", [], None)], sids), sids, widths=SAMPLE.WIDTHS, max_history=1)
    names = order.catalogue.item_ids.to_pylist()
    rows = [(f"u{n}", "train", [names[item] for item in walk], None) for n, walk in enumerate(walks)]
    return SequenceReader(SAMPLE.sequences(rows, sids), sids, widths=SAMPLE.WIDTHS, max_history=1).train


def test_most_popular_counts_every_training_interaction():
    scores = MostPopular(histories([[0, 1, 1], [1, 2]]), num_items=4).scores(histories([[3], []]))
    assert scores.tolist() == [[1, 3, 1, 0]] * 2


def test_item_to_item_is_the_cosine_over_buyers():
    # Buyers: item 0 {u, v, w}, item 1 {u, v}, item 2 {w}; buying twice counts once.
    train = histories([[0, 1, 0], [0, 1], [0, 2]])
    scores = ItemToItem(train, num_items=4).scores(histories([[0]]))
    assert scores[0] == pytest.approx([0, 2 / np.sqrt(3 * 2), 1 / np.sqrt(3 * 1), 0])


def test_older_items_weigh_less_and_those_beyond_the_history_nothing():
    train = histories([[0, 1], [2, 3], [4, 5]])
    scores = ItemToItem(train, num_items=6, max_history=2, decay=0.5).scores(histories([[4, 0, 2]]))
    assert scores[0] == pytest.approx([0, 0.5, 0, 1.0, 0, 0])


def test_a_user_without_history_scores_nothing():
    assert not ItemToItem(histories([[0, 1]]), num_items=3).scores(histories([[]])).any()


def test_only_the_nearest_neighbours_are_kept():
    train = histories([[0, 1, 2], [0, 1]])  # cosine of 0 with 1 is 1, with 2 is 1 / sqrt(2)
    scores = ItemToItem(train, num_items=3, num_neighbors=1).scores(histories([[0]]))
    assert scores[0] == pytest.approx([0, 1, 0])


@given(walks=st.lists(st.lists(st.integers(0, 7), max_size=6), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_item_to_item_equals_counting_pairs_by_hand(walks):
    scores = ItemToItem(histories(walks), num_items=8, max_history=1).scores(histories([[item] for item in range(8)]))
    buyers = [{user for user, walk in enumerate(walks) if item in walk} for item in range(8)]
    for i in range(8):
        for j in range(8):
            both = len(buyers[i] & buyers[j]) if i != j else 0
            assert scores[i, j] == pytest.approx(both / np.sqrt(max(1, len(buyers[i])) * max(1, len(buyers[j]))), abs=1e-6)


def test_ties_go_to_the_lower_index_and_excluded_items_are_absent():
    assert top_items(np.array([[1.0, 2.0, 2.0, -np.inf]], dtype=np.float32), k=4).tolist() == [[1, 2, 0, -1]]


@pytest.mark.parametrize("bad", [{"decay": 0.0}, {"max_history": 0}, {"num_neighbors": 0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="expected, got"):
        ItemToItem(histories([[0, 1]]), num_items=2, **bad)
