from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import ContractError
from sidlake.generative.beam_search import recommend
from sidlake.generative.catalogue import ItemCatalogue
from sidlake.generative.models.tiger import GenerativeModel
from sidlake.generative.trie_tensors import TrieTensors
from sidlake.tokenizers.trie import Trie

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generative_sample.py"))))


def world(num_items: int, seed: int) -> tuple[GenerativeModel, ItemCatalogue, TrieTensors, np.ndarray]:
    sids = SAMPLE.semantic_ids(num_items, seed=seed)
    catalogue = ItemCatalogue.from_table(sids, widths=SAMPLE.WIDTHS)
    trie = TrieTensors.from_trie(Trie.from_table(SAMPLE.trie_table(sids)), catalogue)
    torch.manual_seed(seed)
    model = GenerativeModel(catalogue.space, SAMPLE.tiny_config()).eval()
    items = np.random.default_rng(seed).integers(-1, num_items, (5, 4))
    return model, catalogue, trie, catalogue.history_tokens(items)


def score_everything(model: GenerativeModel, catalogue: ItemCatalogue, history: np.ndarray) -> np.ndarray:
    """Return the log-probability of every item for every user, one forward pass per user."""
    targets = torch.from_numpy(catalogue.tokens_NL)
    scores = np.zeros((len(history), len(targets)), dtype=np.float32)
    with torch.inference_mode():
        for user, row in enumerate(history):
            states, mask = model.encode(torch.from_numpy(row[None]).repeat(len(targets), 1))
            hidden = model.decode(targets[:, :-1], states, mask)
            for level, offset in enumerate(catalogue.space.offsets):
                log_probs = model.level_logits(hidden[:, level], level).log_softmax(-1)
                scores[user] += log_probs.gather(1, targets[:, level : level + 1] - offset)[:, 0].numpy()
    return scores


@given(num_items=st.integers(1, 60), seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_as_many_beams_as_items_is_exhaustive_search(num_items, seed):
    model, catalogue, trie, history = world(num_items, seed)
    items, scores = recommend(model, history, trie, beams=num_items, k=num_items)
    expected = score_everything(model, catalogue, history)
    assert np.sort(items, axis=1).tolist() == [list(range(num_items))] * len(history)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1), atol=1e-4)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, items, axis=1), atol=1e-4)


@given(num_items=st.integers(1, 60), beams=st.integers(1, 12), seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_whatever_is_returned_is_a_published_item_with_its_own_score(num_items, beams, seed):
    model, catalogue, trie, history = world(num_items, seed)
    items, scores = recommend(model, history, trie, beams=beams, k=6)
    expected = score_everything(model, catalogue, history)
    for row, (found, values) in enumerate(zip(items, scores, strict=True)):
        real = found[found >= 0]
        assert len(set(real.tolist())) == len(real) >= 1
        np.testing.assert_allclose(values[: len(real)], expected[row, real], atol=1e-4)
        assert (values[len(real) :] == -np.inf).all()


@given(seed=st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_excluded_items_never_appear_and_the_others_keep_their_order(seed):
    model, _, trie, history = world(30, seed)
    everything, _ = recommend(model, history, trie, beams=30, k=30)
    seen = np.full((5, 9), -1)
    seen[:, :7] = everything[:, 3:10]
    items, scores = recommend(model, history, trie, beams=30, k=30, seen_BS=seen)
    assert items[:, :23].tolist() == np.delete(everything, range(3, 10), axis=1).tolist()
    assert (items[:, 23:] == -1).all()
    assert (scores[:, 23:] == -np.inf).all()


def test_users_are_scored_independently_of_their_batch():
    model, _, trie, history = world(40, 3)
    together, scores = recommend(model, history, trie, beams=10, k=5)
    alone = [recommend(model, row[None], trie, beams=10, k=5) for row in history]
    assert together.tolist() == [items[0].tolist() for items, _ in alone]
    np.testing.assert_allclose(scores, np.vstack([one for _, one in alone]), atol=1e-5)


def test_equal_scores_keep_the_order_of_the_items():
    model, _, trie, history = world(40, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    items, _ = recommend(model, history, trie, beams=40, k=40)
    assert items.tolist() == [list(range(40))] * 5


def test_a_trie_of_other_items_is_refused():
    catalogue = ItemCatalogue.from_table(SAMPLE.semantic_ids(), widths=SAMPLE.WIDTHS)
    other = Trie.from_table(SAMPLE.trie_table(SAMPLE.semantic_ids(seed=1)))
    with pytest.raises(ContractError, match="read both from one release"):
        TrieTensors.from_trie(other, catalogue)


@pytest.mark.parametrize(("beams", "k"), [(0, 1), (1, 0)])
def test_no_beams_or_no_places_is_refused(beams, k):
    model, _, trie, history = world(5, 0)
    with pytest.raises(ValueError, match="must be at least 1"):
        recommend(model, history, trie, beams=beams, k=k)
