"""What a packed decoder recommends, by each way of decoding, against the plainest way to say the same."""

import numpy as np
import pytest
import torch
from generative_sample import WIDTHS, cycle_sequences, semantic_ids, tiny_decoder, trie_table

from sidlake.generative.models.item_facts import ItemFacts
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.recommenders import DecoderRecommender
from sidlake.generative.sequences import SequenceReader
from sidlake.generative.timelines import whole_histories
from sidlake.generative.trie_tensors import TrieTensors
from sidlake.tokenizers.trie import Trie

SIDS = semantic_ids()
READER = SequenceReader(cycle_sequences(SIDS), SIDS, widths=WIDTHS, max_history=1)
USERS = whole_histories(READER).test.take(slice(0, 30))
TRIE = TrieTensors.from_trie(Trie.from_table(trie_table(SIDS)), READER.catalogue)


def recommender(decode, *, num_beams=12, temperature=0.0):
    torch.manual_seed(3)
    config = tiny_decoder(
        inputs=("codes", "item"),
        heads=("item", "depth"),
        decode=decode,
        repeats=False,
        num_beams=num_beams,
        temperature=temperature,
    )
    facts = ItemFacts.of(READER.catalogue, whole_histories(READER).train, None)
    return DecoderRecommender(PackedDecoder(facts, config), TRIE)


@pytest.mark.parametrize("temperature", [0.0, 0.1])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_reranked_items_are_those_the_beams_find_in_the_order_of_their_item_scores(temperature, exclude_seen):
    found, _ = recommender("depth", temperature=temperature).recommend(USERS, k=12, exclude_seen=exclude_seen)
    scores = recommender("item", temperature=temperature).scores(USERS)
    items, logs = recommender("rerank", temperature=temperature).recommend(USERS, k=5, exclude_seen=exclude_seen)
    for row, candidates in enumerate(found):
        kept = candidates[candidates >= 0]
        best = kept[np.lexsort((kept, -scores[row, kept].round(5)))][:5]
        np.testing.assert_allclose(scores[row, items[row]], scores[row, best], atol=2e-2)  # bfloat16 adds otherwise in a batch
        assert set(items[row].tolist()) <= set(kept.tolist())
    assert (np.diff(logs, axis=1) <= 0).all()


def test_with_beams_for_all_items_reranking_is_the_item_head():
    items, _ = recommender("rerank", num_beams=60).recommend(USERS, k=10, exclude_seen=False)
    scores = recommender("item").scores(USERS)
    exact = -np.sort(-scores, axis=1)[:, :10]
    np.testing.assert_allclose(np.take_along_axis(scores, items, axis=1), exact, atol=2e-2)


def test_where_the_beams_find_fewer_than_asked_the_rest_is_missing():
    items, logs = recommender("rerank", num_beams=3).recommend(USERS, k=10, exclude_seen=False)
    assert (items[:, :3] >= 0).all()
    assert (items[:, 3:] == -1).all()
    assert np.isneginf(logs[:, 3:]).all()
    np.testing.assert_allclose(np.exp(logs[:, :3]).sum(axis=1), 1.0, atol=1e-5)
