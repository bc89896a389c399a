"""What tokenizers learn of items beside vectors: pairs by hand, dates and categories through a run's tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidlake.pipelines.fit_inputs.item_facts import co_purchases, facts_for_fit, facts_of_rows, with_facts
from sidlake.pipelines.fit_inputs.split import ordered_events, training_events
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.warehouse.tables import Warehouse

ALL = frozenset({"first_seen_N", "categories_N", "pairs_P2", "collaborative_NC"})


@pytest.fixture(scope="module")
def run(shop):
    return RunContext.open(Warehouse(shop.warehouse), load_recipe(shop.recipe), run_id=new_run_id(), job="retrain")


@pytest.fixture(scope="module")
def items(run):
    return run.read("items", ["item_id", "content_hash"]).sort_by("item_id")


def test_a_pair_is_two_items_of_one_user_within_the_window():
    users, rows = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 2, 3, 1, 1, 9])
    assert sorted(map(tuple, co_purchases(users, rows, window=2)[0].tolist())) == [(1, 2), (1, 3), (1, 9), (2, 1), (2, 3), (3, 1)]


def test_an_item_is_no_pair_with_itself():
    assert co_purchases(np.array([0, 0]), np.array([4, 4]), window=3)[0].shape == (0, 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=25), st.integers(1, 6))
def test_pairs_are_those_of_two_nested_loops(events, window):
    events = sorted(events, key=lambda event: event[0])
    expected = [
        [events[a][1], events[b][1]]
        for a in range(len(events))
        for b in range(a + 1, min(a + window + 1, len(events)))
        if events[a][0] == events[b][0] and events[a][1] != events[b][1]
    ]
    users = np.array([user for user, _ in events], dtype=np.int64)
    rows = np.array([row for _, row in events], dtype=np.int64)
    assert sorted(co_purchases(users, rows, window=window)[0].tolist()) == sorted(expected)


def test_pairs_and_their_window_come_from_training_events_alone(run, items):
    facts = facts_for_fit(run, items, ALL)
    events = training_events(ordered_events(run.read("interactions", ["user_id", "item_id", "ts"])), run.recipe.split)
    assert facts.pairs_window == (events["ts"].min().isoformat(), events["ts"].max().isoformat())
    ids = items.column("item_id").to_pylist()
    trained = {ids.index(item) for item in events["item_id"].unique()}
    assert set(facts.pairs_P2.ravel().tolist()) <= trained
    everything = run.read("interactions", ["ts"]).column("ts").to_pylist()
    assert max(everything).isoformat() > facts.pairs_window[1]


def test_facts_follow_the_order_of_the_rows(run, items):
    backwards = items.take(np.arange(len(items))[::-1])
    forth, back = facts_for_fit(run, items, ALL), facts_for_fit(run, backwards, ALL)
    assert forth.first_seen_N.tolist() == back.first_seen_N[::-1].tolist()
    assert np.array_equal(forth.collaborative_NC, back.collaborative_NC[::-1])
    assert forth.item_hashes_N.tolist() == back.item_hashes_N[::-1].tolist()


def test_first_seen_is_the_items_own_date(run, items):
    dates = run.read("items", ["item_id", "first_seen"]).sort_by("item_id").column("first_seen").cast("int64").to_pylist()
    assert facts_for_fit(run, items, ALL).first_seen_N.tolist() == dates


def test_what_the_catalogue_lacks_is_none(run, items):
    assert facts_for_fit(run, items, ALL).categories_N is None


def test_what_is_not_asked_for_is_not_read(run, items):
    facts = facts_for_fit(run, items, frozenset())
    assert (facts.first_seen_N, facts.categories_N, facts.pairs_P2, facts.collaborative_NC) == (None, None, None, None)


def test_staged_rows_carry_the_facts_to_a_worker(run, items):
    staged = with_facts(run, items, frozenset({"first_seen_N"}))
    assert staged.column_names == [*items.column_names, "first_seen"]
    assert facts_of_rows(staged.slice(3, 2)).first_seen_N.tolist() == facts_of_rows(staged).first_seen_N[3:5].tolist()
