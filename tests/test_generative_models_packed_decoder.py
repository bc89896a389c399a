from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sidlake.errors import ContractError
from sidlake.generative.models.dropout import drop
from sidlake.generative.models.item_facts import ItemFacts
from sidlake.generative.models.item_head import SeenPairs, item_loss, item_scores
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.models.repeats import RepeatBias, seen_pairs
from sidlake.generative.sequences import SequenceReader
from sidlake.generative.timelines import whole_histories
from sidlake.generative.training.objective import batch_loss, last_states, score_items
from sidlake.generative.training.packing import pack_histories, pack_pieces, pieces_of

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generative_sample.py"))))
SIDS = SAMPLE.semantic_ids()
READER = SequenceReader(SAMPLE.cycle_sequences(SIDS), SIDS, widths=SAMPLE.WIDTHS, max_history=16)
TIMELINES = whole_histories(READER)
FUSED = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


def model(**changes: object) -> PackedDecoder:
    torch.manual_seed(0)
    config = SAMPLE.tiny_decoder(**changes)
    return PackedDecoder(
        ItemFacts.of(READER.catalogue, TIMELINES.train, FUSED if "fused" in config.inputs else None), config
    ).eval()


@torch.no_grad()
def test_a_history_is_read_alike_alone_and_packed_with_others():
    decoder, whole = model(), TIMELINES.test.take(slice(0, 20))
    users = dataclasses.replace(whole, ends_U=whole.starts_U + np.arange(20) % 5 + 1)  # several to a row of 16
    vectors = decoder.item_vectors()
    together = last_states(decoder, vectors, pack_histories(users, width=16))
    alone = [last_states(decoder, vectors, pack_histories(users.take(slice(n, n + 1)), width=16)) for n in range(20)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_position_sees_nothing_after_it():
    decoder = model()
    vectors = decoder.item_vectors()
    items = torch.arange(8)[None]
    segment, place = torch.zeros((1, 8), dtype=torch.long), torch.arange(8)[None]
    before = decoder.states(vectors, items, segment, place)
    changed = items.clone()
    changed[0, 5] = 30
    after = decoder.states(vectors, changed, segment, place)
    torch.testing.assert_close(before[0, :5], after[0, :5])
    assert not torch.allclose(before[0, 5:], after[0, 5:])


@pytest.mark.parametrize("inputs", [("codes",), ("fused",), ("item",), ("codes", "fused", "item")])
def test_an_item_vector_is_the_sum_of_what_the_inputs_name(inputs):
    heads = ("item", "depth") if "codes" in inputs else ("item",)
    decoder = model(inputs=inputs, heads=heads)
    expected = torch.zeros(40, 32)
    if "codes" in inputs:
        expected = expected + decoder.codes.weight[decoder.codes_NL].sum(dim=1)
    if "fused" in inputs:
        expected = expected + decoder.fused_NF @ decoder.fused.weight.T
    if "item" in inputs:
        expected = expected + decoder.item.weight[decoder.lender_N] * decoder.known_N[decoder.lender_N, None]
    torch.testing.assert_close(decoder.item_vectors(), expected)
    torch.testing.assert_close(decoder.item_vectors(torch.tensor([3, 1])), expected[[3, 1]])


def test_an_item_that_training_does_not_know_has_no_vector_of_its_own():
    train = TIMELINES.train.take(slice(0, 1))
    facts = ItemFacts.of(READER.catalogue, train, None)
    decoder = PackedDecoder(facts, SAMPLE.tiny_decoder(inputs=("item",), heads=("item",))).eval()
    known = np.isin(np.arange(40), train.flat_items())
    assert facts.known_N.tolist() == known.tolist()
    assert (decoder.item_vectors().abs().sum(dim=1) > 0).tolist() == known.tolist()


def test_an_item_that_training_does_not_know_borrows_from_the_known_one_nearest_by_fused_vector():
    facts = ItemFacts.of(READER.catalogue, TIMELINES.train.take(slice(0, 1)), FUSED)
    unit = FUSED / np.linalg.norm(FUSED, axis=1, keepdims=True)
    known = facts.known_N.numpy()
    nearest = np.where(known, np.arange(40), np.where(known, unit @ unit.T, -2.0).argmax(axis=1))
    assert 0 < known.sum() < 40
    assert facts.lenders().tolist() == nearest.tolist()
    decoder = PackedDecoder(facts, SAMPLE.tiny_decoder(inputs=("fused", "item"), heads=("item",))).eval()
    own = decoder.item_vectors() - decoder.fused_NF @ decoder.fused.weight.T
    torch.testing.assert_close(own, decoder.item.weight[nearest], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_the_loss_over_all_items_is_the_cross_entropy_of_the_scores(temperature):
    generator = torch.Generator().manual_seed(0)
    states, items = torch.randn((5, 8), generator=generator), torch.randn((12, 8), generator=generator)
    target = torch.tensor([0, 11, 4, 4, 7])
    seen = SeenPairs(torch.tensor([0, 1, 1]), torch.tensor([0, 2, 3]), torch.tensor([1.5, -2.0, 0.5]))
    scores = item_scores(states, items, temperature=temperature, seen=seen)
    loss = item_loss(states, target, items, torch.arange(12), temperature=temperature, num_known=12, seen=seen)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, target))
    plain = item_scores(states, items, temperature=temperature)
    assert (scores - plain).nonzero().tolist() == [[0, 0], [1, 2], [1, 3]]


def test_the_sampled_loss_tends_to_the_full_one_and_skips_accidental_hits():
    generator = torch.Generator().manual_seed(0)
    states, items = torch.randn((5, 8), generator=generator), torch.randn((400, 8), generator=generator) * 0.5
    target = torch.tensor([0, 11, 4, 4, 7])
    seen = SeenPairs(torch.tensor([0, 1]), torch.tensor([0, 2]), torch.tensor([1.5, -2.0]))
    full = item_loss(states, target, items, torch.arange(400), temperature=0.0, num_known=400, seen=seen)
    draws = [torch.randperm(400, generator=generator)[:300] for _ in range(200)]
    sampled = [item_loss(states, target, items, one, temperature=0.0, num_known=400, seen=seen) for one in draws]
    assert float(torch.stack(sampled).mean()) == pytest.approx(float(full), rel=0.02)
    only_itself = item_loss(states[:1], target[:1], items, target[:1], temperature=0.0, num_known=400)
    assert float(only_itself) == 0.0


def test_a_position_has_seen_the_last_place_of_each_different_item_up_to_itself():
    users = SAMPLE.sequences([("u", "train", ["i01", "i02", "i01", "i03"], None)], SIDS)
    train = SequenceReader(users, SIDS, widths=SAMPLE.WIDTHS, max_history=4).train
    packed = pack_histories(train, width=8)
    pairs = seen_pairs(torch.from_numpy(packed.segment_RW), torch.from_numpy(packed.until_RW))
    assert [(int(position), int(earlier)) for _, position, earlier in zip(*pairs, strict=True)] == [
        (0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3),
    ]  # fmt: skip


def test_the_bias_of_a_repeat_goes_by_powers_of_two():
    bias = RepeatBias(16)
    with torch.no_grad():
        bias.recency.copy_(torch.arange(len(bias.recency)) / 30.0)
        bias.count.copy_(torch.tensor([0.0, 10.0, 20.0, 30.0, 40.0]) / 30.0)
    distance, count = torch.tensor([0, 1, 2, 3, 6, 7, 0, 0, 0]), torch.tensor([1, 1, 1, 1, 1, 1, 2, 3, 99])
    assert bias(distance, count).tolist() == pytest.approx([0, 1, 1, 2, 2, 3, 10, 10, 40], abs=1e-4)


@torch.no_grad()
def test_the_bias_is_added_to_what_each_user_had_and_to_nothing_else():
    decoder = model()
    users = TIMELINES.test.take(slice(0, 6))
    vectors = decoder.item_vectors()
    before = score_items(decoder, vectors, pack_histories(users, width=16))
    decoder.repeats.count.fill_(0.5)
    after = score_items(decoder, vectors, pack_histories(users, width=16))
    for user in range(6):
        had = users.take(slice(user, user + 1)).flat_items()
        expected = np.where(np.isin(np.arange(40), had), 15.0, 0.0)
        np.testing.assert_allclose((after - before)[user].numpy(), expected, atol=1e-5)


def test_the_loss_is_that_of_its_heads():
    losses = {}
    for heads, decode in ((("item",), "item"), (("depth",), "depth"), (("item", "depth"), "item")):
        decoder = model(heads=heads, decode=decode, repeats=False, depth_weight=0.5)
        batch = pack_pieces(TIMELINES.train.items_S, pieces_of(TIMELINES.train, width=16)[:9], width=16)
        losses[heads] = batch_loss(decoder, batch, decoder.known_N.nonzero().squeeze(1))
    # the depth head's weights are drawn before nothing else, so all three have the same body
    torch.testing.assert_close(losses["item", "depth"], losses["item",] + 0.5 * losses["depth",])


def test_dropout_keeps_the_mean_and_drops_the_rate():
    torch.manual_seed(0)
    dropped = drop(torch.ones(200_001), 0.3)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(drop(dropped, 0.0), dropped)


@pytest.mark.parametrize("vectors", [FUSED[:39], np.where(FUSED > 2.0, np.nan, FUSED)])
def test_vectors_that_are_not_those_of_the_items_are_refused(vectors):
    with pytest.raises(ContractError, match="fused vectors for 40 items"):
        ItemFacts.of(READER.catalogue, TIMELINES.train, vectors)
