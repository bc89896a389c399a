from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.generative.sequences import Histories
from sidlake.generative.training.packing import pack_histories, pack_pieces, pieces_of


def histories(walks: list[list[int]]) -> Histories:
    ends = np.cumsum([len(walk) for walk in walks])
    starts = ends - np.array([len(walk) for walk in walks])
    items = np.array([item for walk in walks for item in walk], dtype=np.int64)
    return Histories(pa.array([f"u{n}" for n in range(len(walks))]), items, starts, ends, np.full(len(walks), -1))


WALKS = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=8)


@given(walks=WALKS, width=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_every_step_of_every_history_is_a_target_exactly_once(walks, width):
    users = histories(walks)
    packed = pack_pieces(users.items_S, pieces_of(users, width=width), width=width)
    steps = [(a, b) for walk in walks for a, b in itertools.pairwise(walk)]
    at = packed.target_RW >= 0
    assert sorted(zip(packed.items_RW[at].tolist(), packed.target_RW[at].tolist(), strict=True)) == sorted(steps)
    assert (at == (packed.segment_RW >= 0)).all()


@given(walks=WALKS, width=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_a_piece_lies_in_one_row_in_order_with_its_repeats_counted(walks, width):
    users = histories([walk for walk in walks if walk] or [[1]])
    packed = pack_histories(users, width=width)
    for user, (start, end) in enumerate(zip(users.starts_U, users.ends_U, strict=True)):
        wanted = users.items_S[max(start, end - width) : end].tolist()
        rows, positions = np.nonzero(packed.segment_RW == user)
        assert set(rows.tolist()) == {packed.last_B2[user, 0]}
        assert packed.items_RW[rows, positions].tolist() == wanted
        assert packed.place_RW[rows, positions].tolist() == list(range(len(wanted)))
        assert positions[-1] == packed.last_B2[user, 1]
        counts = [wanted[: n + 1].count(item) for n, item in enumerate(wanted)]
        assert packed.count_RW[rows, positions].tolist() == counts
        nexts = [next((m for m in range(n + 1, len(wanted)) if wanted[m] == item), None) for n, item in enumerate(wanted)]
        assert packed.until_RW[rows, positions].tolist() == [width if n is None else positions[0] + n for n in nexts]


def test_short_histories_share_rows():
    packed = pack_histories(histories([[1] * n for n in (3, 5, 2, 6, 4, 4)]), width=8)
    assert packed.items_RW.shape == (3, 8)
    assert (packed.segment_RW >= 0).all()


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match="1 users have an empty history"):
        pack_histories(histories([[1], []]), width=4)
