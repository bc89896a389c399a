"""What is held out and what may be learned from; nothing that is predicted may leak."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import LawBroken
from sidlake.pipelines.fit_inputs.split import hit_rate_sessions, keyed_sessions, ordered_events, training_events, user_sequences
from sidlake.pipelines.recipe import SplitConfig

START = datetime(2025, 1, 1, tzinfo=UTC)


def interactions(rows):
    """Rows of (user, item, day)."""
    users, items, days = zip(*rows, strict=True)
    stamps = [START + timedelta(days=d) for d in days]
    return pa.table({"user_id": list(users), "item_id": list(items), "ts": pa.array(stamps, pa.timestamp("us", "UTC"))})


def history(user, items, first_day=0):
    return [(user, item, first_day + i) for i, item in enumerate(items)]


LEAVE_ONE_OUT = SplitConfig(kind="leave_one_out")
ITEM_IDS = pa.chunked_array([list("abcdef")])


def test_the_last_two_events_of_each_user_teach_nothing():
    events = ordered_events(interactions(history("u", "abcd") + history("v", "ef")))
    assert training_events(events, LEAVE_ONE_OUT)["item_id"].to_list() == ["a", "b"]


def test_a_time_split_also_holds_out_the_last_days():
    events = ordered_events(interactions(history("u", "abcdef")))
    kept = training_events(events, SplitConfig(kind="time", holdout_days=3))
    assert kept["item_id"].to_list() == ["a", "b", "c"]


def test_a_leave_one_out_session_asks_for_the_last_item():
    sessions = hit_rate_sessions(ordered_events(interactions(history("u", "abac") + history("v", "ab"))), LEAVE_ONE_OUT, ITEM_IDS)
    assert sessions.items_flat.tolist() == [1, 0]
    assert sessions.targets.tolist() == [2]


def test_a_target_the_user_already_had_makes_no_session():
    sessions = hit_rate_sessions(ordered_events(interactions(history("u", "aba"))), LEAVE_ONE_OUT, ITEM_IDS)
    assert sessions.num_sessions == 0


def test_a_time_split_makes_one_session_per_later_instant():
    rows = [*history("u", "ab"), ("u", "c", 20), ("u", "d", 20), ("u", "e", 21), ("v", "f", 20)]
    sessions = hit_rate_sessions(ordered_events(interactions(rows)), SplitConfig(kind="time", holdout_days=10), ITEM_IDS)
    assert sessions.num_sessions == 2  # v has no history
    assert sessions.targets.tolist()[1] == 4
    assert set(sessions.items_flat[sessions.offsets[1] :].tolist()) == {0, 1, 2, 3}


def test_histories_are_bounded_to_the_newest_different_items():
    split = SplitConfig(kind="leave_one_out", max_history=2)
    sessions = hit_rate_sessions(ordered_events(interactions(history("u", "abcad"))), split, ITEM_IDS)
    assert sessions.items_flat.tolist() == [2, 0]


@pytest.mark.parametrize("limit", [3, 100])
def test_sessions_are_sampled_above_the_limit_and_the_same_each_time(limit):
    rows = [row for i in range(8) for row in history(f"u{i}", "abcd")]
    split = SplitConfig(kind="leave_one_out", max_sessions=limit)
    first, second = (hit_rate_sessions(ordered_events(interactions(rows)), split, ITEM_IDS) for _ in range(2))
    assert first.num_sessions == min(limit, 8)
    assert first.items_flat.tolist() == second.items_flat.tolist()


def test_fewer_sessions_may_be_asked_for_and_their_share_is_told():
    events = ordered_events(interactions([row for i in range(8) for row in history(f"u{i}", "abcd")]))
    found = keyed_sessions(events, LEAVE_ONE_OUT, ITEM_IDS, most=2)
    assert (found.sessions.num_sessions, len(found.asked), found.share) == (2, 2, 0.25)
    assert keyed_sessions(events, LEAVE_ONE_OUT, ITEM_IDS).share == 1.0


def sids(num_levels=2):
    codes = [[i] * num_levels for i in range(6)]
    return pa.table({"item_id": list("abcdef"), "codes": pa.array(codes, pa.list_(pa.int32()))})


def test_sequences_hold_a_training_history_and_two_targets():
    rows = user_sequences(
        ordered_events(interactions(history("u", "abcd") + history("v", "ab"))), LEAVE_ONE_OUT, sids()
    ).to_pylist()
    assert [(r["split"], "".join(r["item_ids"]), r["target"]) for r in rows] == [
        ("test", "abc", "d"),
        ("train", "ab", None),
        ("valid", "ab", "c"),
    ]
    assert rows[0]["codes"] == [0, 0, 1, 1, 2, 2]


def test_an_event_of_an_item_without_a_sid_is_refused_by_name():
    with pytest.raises(LawBroken, match=r"1 items of events have no SID, such as \['z'\]"):
        user_sequences(ordered_events(interactions(history("u", "zab"))), LEAVE_ONE_OUT, sids())


def test_no_training_row_holds_a_held_out_event():
    events = ordered_events(interactions([row for u in "xyz" for row in history(u, "abcdef")]))
    rows = user_sequences(events, LEAVE_ONE_OUT, sids()).to_pylist()
    assert all("e" not in r["item_ids"] and "f" not in r["item_ids"] for r in rows if r["split"] == "train")


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(12)))
def test_the_order_of_interaction_rows_changes_nothing(order):
    rows = [("u", item, 0) for item in "abcdef"] + [("v", item, day) for day, item in enumerate("fedcba")]
    straight = ordered_events(interactions(rows))
    assert straight.equals(ordered_events(interactions([rows[i] for i in order])))


def test_the_order_within_an_instant_is_not_the_order_of_item_ids():
    rows = [(f"u{u}", item, 0) for u in range(200) for item in "abcdef"]
    items = np.array(ordered_events(interactions(rows))["item_id"].to_list()).reshape(200, 6)
    first = {item: int((items[:, 0] == item).sum()) for item in "abcdef"}
    assert max(first.values()) < 60  # 33 each in the mean; sorted by item_id, "a" would come first 200 times
