from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sidlake.errors import ContractError
from sidlake.generative.sequences import SequenceReader
from sidlake.generative.trainer import FusedVectors, train_and_evaluate
from sidlake.generative.training.windows import train

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generative_sample.py"))))
SIDS = SAMPLE.semantic_ids()


def run(sequences, config, **options):
    return train_and_evaluate(sequences, SIDS, SAMPLE.trie_table(SIDS), widths=SAMPLE.WIDTHS, config=config, **options)


@pytest.fixture(scope="module")
def result():
    return run(SAMPLE.cycle_sequences(SIDS), SAMPLE.tiny_config(), num_sample_users=3)


@pytest.fixture(scope="module")
def metrics(result):
    return {(model, split, metric): value for model, split, metric, value in result.metrics}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_trained_model_beats_most_popular_on_a_learnable_world(metrics, split):
    assert metrics["tiger", split, "recall@5"] > 0.9
    assert metrics["most_popular", split, "recall@5"] < 0.5
    assert metrics["tiger", split, "ndcg@10"] > metrics["most_popular", split, "ndcg@10"] + 0.3


def test_every_model_has_every_metric_on_both_splits(metrics):
    assert {key[0] for key in metrics} == {"tiger", "most_popular", "item_to_item"}
    per_model = [{key[1:] for key in metrics if key[0] == model} for model in ("tiger", "most_popular", "item_to_item")]
    assert per_model[0] == per_model[1] == per_model[2]
    totals = {f"{rule}{metric}@{k}" for rule in ("", "left_out_") for metric in ("recall", "ndcg") for k in (5, 10, 20)}
    totals |= {"coverage@10", "recall@10_low", "left_out_tail_ndcg@10"}
    for split in ("valid", "test"):
        assert totals <= {metric for of, metric in per_model[0] if of == split}
    assert all(0.0 <= value <= 1.0 for value in metrics.values())


def test_recommendations_are_ranked_published_items_of_the_sampled_users(result):
    assert {row[0] for row in result.recommendations} == {"u000", "u001", "u002"}
    for user in ("u000", "u001", "u002"):
        rows = [row for row in result.recommendations if row[0] == user]
        assert [row[1] for row in rows] == list(range(1, 11))
        assert len({row[2] for row in rows} & set(SIDS["item_id"].to_pylist())) == 10
        assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)


def test_the_first_recommendation_is_the_next_item_of_the_cycle(result):
    users = SequenceReader(SAMPLE.cycle_sequences(SIDS), SIDS, widths=SAMPLE.WIDTHS, max_history=4).histories("test")
    order = SequenceReader(SAMPLE.cycle_sequences(SIDS), SIDS, widths=SAMPLE.WIDTHS, max_history=4).catalogue.item_ids.to_pylist()
    first = [row[2] for row in result.recommendations if row[1] == 1]
    assert first == [order[target] for target in users.targets_U[:3]]


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    reader = SequenceReader(SAMPLE.cycle_sequences(SIDS), SIDS, widths=SAMPLE.WIDTHS, max_history=4)
    config = SAMPLE.tiny_config(num_steps=5, dropout=0.1)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = train(reader, config), train(reader, config)
    assert torch.equal(torch.rand(3), expected)
    other = train(reader, SAMPLE.tiny_config(num_steps=5, dropout=0.1, seed=1))
    ours, theirs, others = (torch.cat([p.detach().ravel() for p in m.parameters()]) for m in (first, second, other))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, others)


def test_progress_counts_up_to_the_number_of_steps():
    reader = SequenceReader(SAMPLE.cycle_sequences(SIDS), SIDS, widths=SAMPLE.WIDTHS, max_history=4)
    seen: list[tuple[int, int]] = []
    train(reader, SAMPLE.tiny_config(num_steps=3), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_trained_model_is_in_eval_mode(result):
    assert not result.model.training


def test_items_had_before_are_judged_both_ways_and_recommended_unless_excluded():
    walk = ["i01", "i02", "i03", "i04"]
    targets = {"train": None, "valid": "i01", "test": "i02"}
    rows = [(user, split, walk, target) for user in ("u", "v") for split, target in targets.items()]
    sequences = SAMPLE.sequences(rows, SIDS)
    excluded = run(sequences, SAMPLE.tiny_config(num_steps=1, num_beams=40, exclude_seen=True))
    # The held-out items were bought before: the baselines find them, unless such items are left out.
    assert all(value == 1.0 for model, _, metric, value in excluded.metrics if metric == "recall@5" and model != "tiger")
    assert all(value == 0.0 for _, _, metric, value in excluded.metrics if metric == "left_out_recall@5")
    assert not {row[2] for row in excluded.recommendations} & set(walk)


def test_a_split_without_users_is_refused():
    with pytest.raises(ContractError, match="no users in split valid"):
        run(SAMPLE.sequences([("u", "train", ["i01", "i02"], None)], SIDS), SAMPLE.tiny_config(num_steps=1))


def test_a_trie_of_another_generation_is_refused():
    other = SAMPLE.trie_table(SAMPLE.semantic_ids(seed=1))
    with pytest.raises(ContractError, match="read both from one release"):
        train_and_evaluate(SAMPLE.cycle_sequences(SIDS), SIDS, other, widths=SAMPLE.WIDTHS, config=SAMPLE.tiny_config(num_steps=1))


FUSED = FusedVectors(SIDS["item_id"], np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
KINDS = {
    "item head": {},
    "item head alone, from codes": {"inputs": ("codes",), "heads": ("item",)},
    "fused vectors and item vectors": {"inputs": ("fused", "item"), "heads": ("item",)},
    "sampled negatives": {"num_negatives": 20},
    "cosines": {"temperature": 0.1},
    "depth head": {"heads": ("depth",), "decode": "depth", "repeats": False},
    "sasrec": {"kind": "sasrec", "inputs": ("item",), "heads": ("item",)},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_decoder_learns_the_cycle(name):
    result = run(SAMPLE.cycle_sequences(SIDS, num_users=200), SAMPLE.tiny_decoder(**KINDS[name]), fused=FUSED, num_sample_users=3)
    figures = {(model, split, metric): value for model, split, metric, value in result.metrics}
    kind = KINDS[name].get("kind", "decoder")
    assert figures[kind, "test", "recall@5"] > 0.9
    assert figures["most_popular", "test", "recall@5"] < 0.5
    assert [row.epoch for row in result.curve] == list(range(1, len(result.curve) + 1))
    for user in ("u000", "u001", "u002"):
        rows = [row for row in result.recommendations if row[0] == user]
        assert [row[1] for row in rows] == list(range(1, 11))
        assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
        assert all(row[3] <= 0.0 for row in rows)


def test_fused_inputs_without_vectors_are_refused():
    with pytest.raises(ContractError, match="leave fused out of inputs"):
        run(SAMPLE.cycle_sequences(SIDS), SAMPLE.tiny_decoder(inputs=("codes", "fused")))


def test_fused_vectors_of_other_items_are_refused():
    with pytest.raises(ContractError, match="1 of 40 items have no fused vector"):
        run(SAMPLE.cycle_sequences(SIDS), SAMPLE.tiny_decoder(), fused=FusedVectors(SIDS["item_id"][1:], FUSED.vectors_NF[1:]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_cuda_learns_the_same_world():
    tables = (SAMPLE.cycle_sequences(SIDS), SIDS, SAMPLE.trie_table(SIDS))
    result = train_and_evaluate(*tables, widths=SAMPLE.WIDTHS, config=SAMPLE.tiny_config(), device="cuda")
    recalls = [value for model, _, metric, value in result.metrics if (model, metric) == ("tiger", "recall@5")]
    assert min(recalls) > 0.9
