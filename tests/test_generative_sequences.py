from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import ContractError
from sidlake.generative.sequences import SequenceReader, TrainingBatches, windows_before

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generative_sample.py"))))
SIDS = SAMPLE.semantic_ids()


def reader(rows: list, *, max_history: int = 3) -> SequenceReader:
    return SequenceReader(SAMPLE.sequences(rows, SIDS), SIDS, widths=SAMPLE.WIDTHS, max_history=max_history)


def tokens_of(one: SequenceReader, items: list[str]) -> list[int]:
    return one.catalogue.tokens_NL[one.catalogue.indices(pa.array(items, pa.string()))].ravel().tolist()


def test_every_position_but_the_first_of_each_user_is_a_window():
    one = reader([("u", "train", ["i01", "i02", "i03"], None), ("v", "train", ["i04"], None), ("w", "train", ["i05", "i06"], None)])
    batch = one.windows(np.arange(one.num_windows))
    assert batch.target_BL.tolist() == [tokens_of(one, [item]) for item in ("i02", "i03", "i06")]
    assert batch.history_BT.dtype == batch.target_BL.dtype == np.int64


def test_a_history_is_padded_on_the_left_and_stays_within_its_user():
    one = reader([("u", "train", ["i01", "i02"], None), ("w", "train", ["i05", "i06", "i07"], None)])
    batch = one.windows(np.arange(one.num_windows))
    assert batch.history_BT.tolist() == [
        [0] * 6 + tokens_of(one, ["i01"]),
        [0] * 6 + tokens_of(one, ["i05"]),
        [0] * 3 + tokens_of(one, ["i05", "i06"]),
    ]


def test_a_history_keeps_only_the_newest_items():
    one = reader([("u", "train", ["i01", "i02", "i03", "i04"], None)], max_history=2)
    assert one.windows(np.array([2])).history_BT.tolist() == [tokens_of(one, ["i02", "i03"])]


def test_a_held_out_user_has_the_history_and_the_target_of_its_row():
    one = reader([("u", "train", ["i01"], None), ("u", "valid", ["i01"], "i02"), ("u", "test", ["i01", "i02"], "i03")])
    users = one.histories("test")
    assert users.user_ids.to_pylist() == ["u"]
    assert users.last(3).tolist() == [[-1, *one.catalogue.indices(pa.array(["i01", "i02"]))]]
    assert users.targets_U.tolist() == one.catalogue.indices(pa.array(["i03"])).tolist()


def test_a_held_out_user_without_history_is_all_padding():
    users = reader([("u", "test", [], "i03")]).histories("test")
    assert users.last(2).tolist() == [[-1, -1]]


def test_taking_users_keeps_their_own_histories():
    one = reader([("u", "test", ["i01", "i02"], "i03"), ("v", "test", ["i04"], "i05")])
    second = one.histories("test").take(slice(1, 2))
    assert (second.user_ids.to_pylist(), second.padded().tolist()) == (["v"], [one.catalogue.indices(pa.array(["i04"])).tolist()])


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    max_history=st.integers(1, 7),
)
@settings(max_examples=40, deadline=None)
def test_windows_are_what_a_loop_over_users_cuts(lengths, max_history):
    walks = [[(3 * user + step) % 40 for step in range(length)] for user, length in enumerate(lengths)]
    one = reader(
        [(f"u{n}", "train", [f"i{item:02d}" for item in walk], None) for n, walk in enumerate(walks)], max_history=max_history
    )
    batch = one.windows(np.arange(one.num_windows))
    expected = []
    for walk in walks:
        names = [f"i{item:02d}" for item in walk]
        for end in range(1, len(names)):
            history = tokens_of(one, names[max(0, end - max_history) : end])
            expected.append(([0] * (3 * max_history - len(history)) + history, tokens_of(one, [names[end]])))
    assert list(zip(batch.history_BT.tolist(), batch.target_BL.tolist(), strict=True)) == expected


def test_an_epoch_gives_every_window_once_in_another_order_than_the_next():
    one = SequenceReader(SAMPLE.cycle_sequences(SIDS, num_users=10), SIDS, widths=SAMPLE.WIDTHS, max_history=3)
    batches = TrainingBatches(one, batch_size=9, seed=1)
    stream = (np.hstack([batch.history_BT, batch.target_BL]) for batch in batches)
    epochs = [np.vstack([next(stream) for _ in range(10)]) for _ in range(2)]
    everything = one.windows(np.arange(90))
    assert sorted(epochs[0].tolist()) == sorted(np.hstack([everything.history_BT, everything.target_BL]).tolist())
    assert epochs[0].tolist() != epochs[1].tolist()


@given(before=st.integers(0, 25), seed=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_a_resumed_stream_gives_the_same_batches(before, seed):
    one = SequenceReader(SAMPLE.cycle_sequences(SIDS, num_users=10), SIDS, widths=SAMPLE.WIDTHS, max_history=3)
    stream = TrainingBatches(one, batch_size=8, seed=seed)
    for _ in range(before):
        next(stream)
    resumed = TrainingBatches(one, batch_size=8, seed=seed)
    resumed.load_state_dict(stream.state_dict())
    for _ in range(13):
        ours, theirs = next(stream), next(resumed)
        assert np.array_equal(ours.history_BT, theirs.history_BT)
        assert np.array_equal(ours.target_BL, theirs.target_BL)


def test_a_state_of_another_stream_is_refused():
    one = reader([("u", "train", ["i01", "i02", "i03"], None)])
    state = TrainingBatches(one, batch_size=1, seed=1).state_dict()
    with pytest.raises(ValueError, match="belongs to another stream"):
        TrainingBatches(one, batch_size=1, seed=2).load_state_dict(state)


def test_codes_of_another_generation_are_refused():
    mixed = SAMPLE.sequences([("u", "train", ["i01", "i02"], None)], SAMPLE.semantic_ids(seed=1))
    with pytest.raises(ContractError, match="generations differ"):
        SequenceReader(mixed, SIDS, widths=SAMPLE.WIDTHS, max_history=3)


def test_a_history_naming_an_unknown_item_is_refused():
    with pytest.raises(ContractError, match="'ghost'"):
        reader([("u", "train", ["i01", "ghost"], None)])


def test_a_table_without_windows_cannot_be_trained_on():
    with pytest.raises(ContractError, match="nothing to train on"):
        TrainingBatches(reader([("u", "train", ["i01"], None)]), batch_size=4, seed=0)


def test_windows_of_no_items_at_all_are_padding():
    empty = np.zeros(0, dtype=np.int64)
    zero = np.zeros(1, dtype=np.int64)
    assert windows_before(empty, starts_B=zero, ends_B=zero, max_history=2).tolist() == [[-1, -1]]
