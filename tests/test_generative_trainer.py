from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sidlake.errors import ContractError
from sidlake.generative.sequences import SequenceReader
from sidlake.generative.trainer import train_and_evaluate
from sidlake.generative.training import train

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
    assert len(metrics) == 3 * 2 * 4
    assert {key[0] for key in metrics} == {"tiger", "most_popular", "item_to_item"}
    assert {key[2] for key in metrics} == {"recall@5", "recall@10", "ndcg@5", "ndcg@10"}
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


def test_bought_items_are_excluded_for_all_models_alike_when_asked():
    walk = ["i01", "i02", "i03", "i04"]
    targets = {"train": None, "valid": "i01", "test": "i02"}
    rows = [(user, split, walk, target) for user in ("u", "v") for split, target in targets.items()]
    sequences = SAMPLE.sequences(rows, SIDS)
    kept = run(sequences, SAMPLE.tiny_config(num_steps=1, num_beams=40))
    excluded = run(sequences, SAMPLE.tiny_config(num_steps=1, num_beams=40, exclude_seen=True))
    # The held-out items were bought before: the baselines find them, unless such items are excluded.
    assert all(value == 1.0 for model, _, metric, value in kept.metrics if metric == "recall@5" and model != "tiger")
    assert all(value == 0.0 for _, _, _, value in excluded.metrics)
    assert not {row[2] for row in excluded.recommendations} & set(walk)


def test_a_split_without_users_is_refused():
    with pytest.raises(ContractError, match="no users in split valid"):
        run(SAMPLE.sequences([("u", "train", ["i01", "i02"], None)], SIDS), SAMPLE.tiny_config(num_steps=1))


def test_a_trie_of_another_generation_is_refused():
    other = SAMPLE.trie_table(SAMPLE.semantic_ids(seed=1))
    with pytest.raises(ContractError, match="read both from one release"):
        train_and_evaluate(SAMPLE.cycle_sequences(SIDS), SIDS, other, widths=SAMPLE.WIDTHS, config=SAMPLE.tiny_config(num_steps=1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_cuda_learns_the_same_world():
    tables = (SAMPLE.cycle_sequences(SIDS), SIDS, SAMPLE.trie_table(SIDS))
    result = train_and_evaluate(*tables, widths=SAMPLE.WIDTHS, config=SAMPLE.tiny_config(), device="cuda")
    recalls = [value for model, _, metric, value in result.metrics if (model, metric) == ("tiger", "recall@5")]
    assert min(recalls) > 0.9
