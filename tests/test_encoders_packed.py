"""Texts side by side without padding: each place belongs to one text, and each text attends to itself alone."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sidlake.encoders.text.encoder import TextEncoder, TextEncoderConfig
from sidlake.encoders.text.packed_attention import packed_attention
from sidlake.encoders.text.packed_batches import Run, packed_batches


@given(st.lists(st.integers(1, 40), max_size=80), st.integers(40, 90))
def test_every_text_has_places_of_its_own_and_batches_are_full(lengths, num_tokens):
    batches = list(packed_batches(lengths, num_tokens=num_tokens))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(lengths)))
    for batch in batches:
        assert batch.runs[0].start == 0
        assert [run.start for run in batch.runs[1:]] == [run.end for run in batch.runs[:-1]]
        assert batch.runs[-1].end <= num_tokens
        assert [lengths[row] for row in batch.rows] == [run.length for run in batch.runs for _ in range(run.num_texts)]
    for batch, following in itertools.pairwise(batches):
        assert batch.runs[-1].end + lengths[following.rows[0]] > num_tokens


@pytest.mark.parametrize("lengths", [[0, 3], [9]])
def test_a_text_without_a_token_or_longer_than_the_batch_is_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths must lie in 1\.\.8"):
        list(packed_batches(lengths, num_tokens=8))


def test_attention_is_torch_s_own_where_each_text_sees_itself_alone():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 20, 8)
    runs = (Run(0, 2, 5), Run(10, 1, 4), Run(14, 3, 1))
    text_T = torch.tensor([0] * 5 + [1] * 5 + [2] * 4 + [3, 4, 5] + [6] * 3)  # the last three places are unused
    alone = (text_T[:, None] == text_T[None, :])[None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=alone, scale=0.5).transpose(1, 2)
    attended, _ = packed_attention(torch.nn.Module(), query, key, value, None, scaling=0.5, runs=runs)
    torch.testing.assert_close(attended[:, :17], expected[:, :17])
    assert not attended[:, 17:].any()


def test_without_runs_attention_is_torch_s_own_with_its_mask():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 6, 8)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.5).transpose(1, 2)
    attended, _ = packed_attention(torch.nn.Module(), query, key, value, mask, scaling=0.5)
    torch.testing.assert_close(attended, expected)


def test_the_bundled_model_runs_without_padding_and_says_what_padded_batches_say():
    encoder = TextEncoder.load(TextEncoderConfig(precision="float32", device="cpu"))
    texts = ["mug", "a blue ceramic mug", "doormat " * 300, "set of six"]
    tokens = encoder._model.tokenise(texts)
    packed = encoder._model.vectors(tokens, tokens_per_batch=64)
    assert {type(batch).__name__ for batch in encoder._model.batches(tokens, tokens_per_batch=64)} == {"PackedBatch"}
    encoder._model._packs = False
    assert {type(batch).__name__ for batch in encoder._model.batches(tokens, tokens_per_batch=64)} == {"FixedBatch"}
    padded = encoder._model.vectors(tokens, tokens_per_batch=64)
    assert abs(packed - padded).max() < 1e-6
