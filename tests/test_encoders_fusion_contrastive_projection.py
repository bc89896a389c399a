import numpy as np
import pytest
import torch

from sidlake.encoders.fusion.config import FuseConfig
from sidlake.encoders.fusion.contrastive_projection import contrastive_projection, info_nce, one_modality


def expected_loss(left, right, ids, temperature):
    """The loss by its definition, one row at a time."""
    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
    terms = []
    for queries, keys, own, of in ((left, right, ids[0], ids[1]), (right, left, ids[1], ids[0])):
        for i in range(len(queries)):
            negatives = [j for j in range(len(keys)) if j != i and of[j] not in (of[i], own[i])]
            scores = np.array([queries[i] @ keys[j] for j in [i, *negatives]]) / temperature
            terms.append(np.log(np.exp(scores).sum()) - scores[0])
    return np.mean(terms)


@pytest.mark.parametrize("ids", [([0, 1, 2, 3], [4, 5, 6, 7]), ([0, 1, 2, 0], [4, 4, 0, 7]), ([0, 1, 1, 3], [1, 3, 0, 0])])
def test_loss_is_its_definition_and_an_item_is_no_negative_of_itself(ids):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 4, 3))
    ids_of = tuple(torch.tensor(side) for side in ids)
    found = info_nce(torch.from_numpy(left), torch.from_numpy(right), ids_of, temperature=0.5)
    assert found.item() == pytest.approx(expected_loss(left, right, ids, 0.5))


def test_an_item_shows_one_of_the_modalities_it_has_each_as_often():
    rng = np.random.default_rng(0)
    present = np.tile([[True, True, False], [False, False, True]], (2000, 1))
    shown = one_modality(present, np.array([0, 0, 1, 2, 2, 2]), rng)
    assert not (shown[:, 0] != shown[:, 1]).any()
    chosen = shown[:, [0, 2, 3]]
    assert (chosen.sum(axis=1) == 1).all()
    assert (present | ~chosen).all()
    assert chosen[::2, 0].mean() == pytest.approx(0.5, abs=0.04)


def test_torch_is_left_as_it_was():
    rng = np.random.default_rng(0)
    x, pairs = rng.standard_normal((50, 4)).astype(np.float32), rng.permuted(np.tile(np.arange(50), (60, 1)), axis=1)[:, :2]
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    config = FuseConfig(kind="contrastive", num_steps=3, batch_size=8)
    trained = contrastive_projection(x, np.ones((50, 1), bool), pairs, start_SD=np.eye(4), spans=[slice(0, 4)], config=config)
    assert not np.array_equal(trained, np.eye(4))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_a_modality_that_knows_the_answer_does_not_silence_the_other():
    # the second modality is the group behind the pairs, outright; the first says it beside much else (unmasked its share is 0.38)
    rng = np.random.default_rng(0)
    group = rng.integers(30, size=600)
    centres = rng.standard_normal((30, 4))
    first = np.hstack([2 * rng.standard_normal((600, 8)), centres[group]])
    x = np.hstack([first, 2 * centres[group] @ rng.standard_normal((4, 4))]).astype(np.float32)
    a = rng.integers(600, size=4000)
    pairs = np.stack([a, np.array([rng.choice(np.flatnonzero(group == group[i])) for i in a])], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    spans = [slice(0, 12), slice(12, 16)]
    config = FuseConfig(kind="contrastive", num_steps=150, batch_size=128, learning_rate=1e-2)
    start = np.linalg.qr(rng.standard_normal((16, 4)))[0]
    joint = contrastive_projection(x, np.ones((600, 2), bool), pairs, start_SD=start, spans=spans, config=config)
    parts = [x[:, span] @ joint[span] for span in spans]
    assert np.square(parts[0]).sum() > 0.6 * sum(np.square(part).sum() for part in parts)
    unit = parts[0] / np.linalg.norm(parts[0], axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -2)
    assert (group[scores.argmax(axis=1)] == group).mean() > 0.9
