"""LETTER's two losses: groups of codes by hand, and latents that agree with collaborative vectors."""

import numpy as np
import torch
from neural_sample import facts, fitted, rows

from sidlake.tokenizers.quantizers.letter import _equal_groups, _other_of_group


def test_groups_of_codes_are_clusters_of_equal_size():
    book = np.concatenate([np.full((4, 2), 0.0), np.full((4, 2), 9.0)]) + np.random.default_rng(0).standard_normal((8, 2)) * 0.1
    groups = _equal_groups(book.astype(np.float32), 2)
    assert len(set(groups[:4].tolist())) == len(set(groups[4:].tolist())) == 1
    assert np.bincount(_equal_groups(np.random.default_rng(1).standard_normal((11, 2)).astype(np.float32), 3)).tolist() == [4, 4, 3]


def test_another_code_of_the_group_is_drawn_and_never_the_code_itself():
    groups = np.array([0, 1, 0, 1, 0, 2])
    codes = np.array([0, 2, 4, 1, 3, 5] * 50)
    other = _other_of_group(groups, codes, torch.Generator().manual_seed(0))
    assert np.array_equal(groups[other], groups[codes])
    assert not (other == codes)[codes != 5].any()
    assert (other == 5).sum() == 50  # alone in its group
    assert set(other[codes == 0].tolist()) == {2, 4}


def test_aligned_latents_know_more_of_the_collaborative_vectors():
    x, known = rows(), facts()
    found = []
    for alignment in (0.0, 1.0):
        model = fitted("letter", x, alignment=alignment, num_steps=150)
        z = model.latents(x).astype(np.float64)
        z = np.concatenate([z - z.mean(axis=0), np.ones((len(z), 1))], axis=1)
        target = known.collaborative_NC
        weights = np.linalg.lstsq(z, target, rcond=None)[0]
        found.append(1 - np.square(target - z @ weights).sum() / np.square(target - target.mean(axis=0)).sum())
    assert found[1] > found[0]
