from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidlake.encoders.text.fixed_batches import fixed_batches, ladder_width

lengths_lists = st.lists(st.integers(1, 200), max_size=80)


@given(lengths_lists, st.integers(1, 600))
def test_every_text_is_in_one_batch_that_is_wide_enough(lengths, tokens_per_batch):
    seen = Counter()
    for batch in fixed_batches(lengths, max_length=200, tokens_per_batch=tokens_per_batch):
        seen.update(batch.rows[: batch.real])
        assert all(lengths[row] <= batch.width <= 200 for row in batch.rows)
    assert seen == Counter(range(len(lengths)))


@given(lengths_lists, st.integers(1, 600))
def test_batches_of_one_width_have_one_shape(lengths, tokens_per_batch):
    for batch in fixed_batches(lengths, max_length=200, tokens_per_batch=tokens_per_batch):
        assert len(batch.rows) == max(2, tokens_per_batch // batch.width)


@given(lengths_lists)
def test_texts_that_fill_their_width_share_no_batch_with_texts_that_do_not(lengths):
    for batch in fixed_batches(lengths, max_length=200, tokens_per_batch=300):
        assert len({lengths[row] == batch.width for row in batch.rows}) == 1


@given(st.integers(1, 511))
def test_ladder_never_falls(length):
    assert length <= ladder_width(length, 512) <= ladder_width(length + 1, 512)


@pytest.mark.parametrize("length", [0, 257])
def test_length_outside_the_ladder_is_a_value_error(length):
    with pytest.raises(ValueError, match=r"1\.\.256"):
        ladder_width(length, 256)
