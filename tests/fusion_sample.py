"""Two modalities that share causes, and ways to fuse them, for the tests of fusions."""

import numpy as np

from sidlake.encoders.fusion.config import FuseConfig
from sidlake.encoders.fusion.fusion import Fusion, FusionConfig

NUM_ROWS = 700
KINDS = ["concat", "plain", "rank", "pca", "cca", "align", "contrastive", "neighbours"]
WEIGHTS = (("text", 1.0, 10), ("behaviour", 0.7, 6))


def modalities(seed=0, num_rows=NUM_ROWS, whole=False):
    """Two modalities of four shared causes and noise of their own; without `whole` a fifth lacks behaviour, three rows all."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((num_rows, 4))
    text = causes @ rng.standard_normal((4, 14)) + 0.7 * rng.standard_normal((num_rows, 14)) + 3
    behaviour = causes @ rng.standard_normal((4, 8)) + 0.7 * rng.standard_normal((num_rows, 8))
    vectors = {"text": text.astype(np.float32), "behaviour": behaviour.astype(np.float32)}
    present = {"text": np.ones(num_rows, bool), "behaviour": np.ones(num_rows, bool)}
    if not whole:
        present["behaviour"] = rng.random(num_rows) < 0.8
        present["text"][:3] = present["behaviour"][:3] = False
    return vectors, present


def pairs_of(seed=0, num_rows=NUM_ROWS):
    return np.random.default_rng(seed).integers(num_rows, size=(4000, 2)) @ np.array([[1, 1], [0, 1]]) % num_rows


def config_of(kind, weights=WEIGHTS, **settings):
    weights = tuple((name, 1.0, dim) for name, _, dim in weights) if kind == "plain" else weights
    if kind == "contrastive":
        settings = {"num_steps": 20, "batch_size": 64, **settings}
    if kind == "neighbours":
        settings = {"hidden": 16, "num_epochs": 4, "num_neighbours": 20, **settings}
    return FusionConfig(weights=weights, fuse=FuseConfig(kind=kind, **settings))


def fit(kind, data=None, weights=WEIGHTS, **settings):
    vectors, present = data or modalities()
    pairs = pairs_of(num_rows=len(present["text"])) if kind in ("contrastive", "neighbours") else None
    return Fusion.fit(vectors, present, config_of(kind, weights, **settings), pairs_P2=pairs, pairs_window=("2020", "2021"))


def taken(data, rows):
    return tuple({name: values[rows] for name, values in part.items()} for part in data)


def up_to_sign(a, b, **tolerance):
    np.testing.assert_allclose(np.abs(a), np.abs(b), **tolerance)
