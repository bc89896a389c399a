"""Items bought together come nearer by FORGE's loss; the pairs' window is known afterwards."""

import numpy as np
import pytest
from neural_sample import facts, fitted, rows

from sidlake.errors import FitError
from sidlake.tokenizers.artifact import load_codebook, save_codebook
from sidlake.tokenizers.registry import tokenizer_config


def paired_rows(num=400):
    """Vectors of which one half tells the pair (rows 2i and 2i + 1) and the other, louder, is noise."""
    rng = np.random.default_rng(0)
    signal = np.repeat(rng.standard_normal((num // 2, 5)), 2, axis=0)
    return np.concatenate([0.5 * signal, rng.standard_normal((num, 5))], axis=1).astype(np.float32)


def test_reconstructions_of_a_pair_are_nearer_than_without_the_loss():
    x = paired_rows()
    pairs = np.arange(400).reshape(200, 2)
    found = {}
    for kind in ("rq_vae", "contrastive_rq_vae"):
        settings = {"widths": [16, 16], "hidden": [32], "latent_dim": 8, "num_steps": 400, "batch_size": 128}
        cls, config = tokenizer_config(kind, settings)
        known = facts()
        model = cls.fit(x, config, facts=type(known)(item_hashes_N=known.item_hashes_N, pairs_P2=pairs))
        decoded = model.decode(model.encode(x))
        unit = decoded - decoded.mean(axis=0)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        together = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1).mean()
        apart = (unit[pairs[:, 0]] * unit[np.roll(pairs[:, 1], 7)]).sum(axis=1).mean()
        found[kind] = together - apart
    assert found["contrastive_rq_vae"] > found["rq_vae"] + 0.1


def test_the_pairs_window_is_in_the_artifact(tmp_path):
    save_codebook(fitted("contrastive_rq_vae"), tmp_path / "c.safetensors")
    assert load_codebook(tmp_path / "c.safetensors").pairs_window == ("2010-01-01T00:00:00", "2010-12-01T00:00:00")


def test_no_pair_among_the_rows_is_an_error():
    cls, config = tokenizer_config("contrastive_rq_vae", {"widths": [4, 4], "num_steps": 5})
    known = facts()
    with pytest.raises(FitError, match="no such pair"):
        cls.fit(rows(), config, facts=type(known)(pairs_P2=np.empty((0, 2), np.int64)))
