"""No single row steers a release: cut-offs are counted back from the newest time that is no stray."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from sidlake.pipelines.fit_inputs.newest import newest_time
from sidlake.pipelines.fit_inputs.split import Recent, keyed_sessions, ordered_events, training_events
from sidlake.pipelines.recipe import SplitConfig

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def times(count, step=DAY):
    return [START + at * step for at in range(count)]


@pytest.mark.parametrize("strays", [1, 3])
def test_a_few_late_times_of_many_are_strays(strays):
    late = [START + timedelta(days=2000 + at) for at in range(strays)]
    many = times(400)
    assert newest_time(pl.Series([*many, *late]).sample(fraction=1, shuffle=True, seed=1), 10 * DAY) == many[-1]


def test_more_than_one_in_a_hundred_are_no_strays():
    late = [START + timedelta(days=2000 + at) for at in range(8)]
    assert newest_time(pl.Series([*times(400), *late]), 10 * DAY) == late[-1]


@pytest.mark.parametrize("count", [1, 5, 19])
def test_of_few_times_the_newest_counts(count):
    late = START + timedelta(days=5000)
    assert newest_time(pl.Series([*times(count - 1), late]), 10 * DAY) == late


def test_a_time_within_the_span_of_the_others_is_no_stray():
    late = times(400)[-1] + 10 * DAY
    assert newest_time(pl.Series([*times(400), late]), 10 * DAY) == late


def events_of(rows):
    return ordered_events(pa.table({name: [row[at] for row in rows] for at, name in enumerate(("user_id", "item_id", "ts"))}))


def test_one_event_two_years_late_leaves_sessions_and_training_events_as_they_were():
    split = SplitConfig(kind="time", holdout_days=10)
    rows = [(f"u{at % 20}", f"i{at % 37}", START + at * timedelta(hours=5)) for at in range(400)]
    items = pa.chunked_array([[f"i{at}" for at in range(37)]])
    before, after = events_of(rows), events_of([*rows, ("late", "i1", START + timedelta(days=900))])
    keys = ["user_id", "ts", "item_id"]
    assert training_events(before, split).select(keys).equals(training_events(after, split).select(keys))
    assert keyed_sessions(before, split, items).asked.equals(keyed_sessions(after, split, items).asked)


def test_the_history_of_a_session_is_what_sorting_all_earlier_events_gives():
    draw = np.random.default_rng(3)
    rows = [
        (f"u{draw.integers(3)}", f"i{draw.integers(9)}", START + int(draw.integers(200)) * timedelta(hours=1)) for _ in range(300)
    ]
    events, items = events_of(rows), [f"i{at}" for at in range(9)]
    split = SplitConfig(kind="time", holdout_days=3, max_history=4)
    keyed = keyed_sessions(events, split, pa.chunked_array([items]))
    sessions, keys = keyed.sessions, keyed.asked
    assert sessions.num_sessions > 20
    for at, (user, ts, _) in enumerate(keys.iter_rows()):
        past = events.filter((pl.col("user_id") == user) & (pl.col("ts") < ts))["item_id"].to_list()
        wanted = list(dict.fromkeys(past[::-1]))[:4][::-1]
        found = sessions.items_flat[sessions.offsets[at] : sessions.offsets[at + 1]]
        assert [items[row] for row in found] == wanted


class Counted:
    """Rows that count how many of them were asked for."""

    def __init__(self, rows_N):
        self.rows_N, self.asked = rows_N, 0

    def __getitem__(self, wanted):
        found = self.rows_N[wanted]
        self.asked += len(found)
        return found


def test_no_event_of_a_user_with_many_sessions_is_looked_at_twice():
    rows = Counted(np.arange(10_000) % 3)
    recent = Recent(rows)
    found = [recent.before(0, end, 20) for end in range(1, 10_001)]
    assert found[-1] == [1, 2, 0]
    assert rows.asked == 10_000
