"""Small data and small configs for the tokenizers that are trained: seconds on one core."""

import subprocess
import sys

import numpy as np

from sidlake.tokenizers.artifact import codebook_hash, load_codebook, save_codebook
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.registry import tokenizer_config
from sidlake.tokenizers.tokenizer import ItemFacts

WIDTHS = (16, 8)
SMALL = {
    "rq_vae": {"hidden": [24], "latent_dim": 6, "num_steps": 120, "batch_size": 128, "revive_every": 5},
    "contrastive_rq_vae": {"hidden": [24], "latent_dim": 6, "num_steps": 120, "batch_size": 64, "revive_every": 5},
    "letter": {
        "hidden": [24],
        "latent_dim": 6,
        "num_steps": 120,
        "batch_size": 64,
        "revive_every": 5,
        "num_groups": 3,
        "regroup_every": 20,
    },
    "residual_vq": {"num_steps": 60, "batch_size": 128},
    "qinco": {"latent_dim": 6, "hidden_dim": 12, "num_steps": 60, "batch_size": 128, "candidates": 4},
}


def rows(num=400, dim=10, seed=0):
    """Clusters of clusters, far from the origin, as embeddings are."""
    rng = np.random.default_rng(seed)
    coarse, fine = rng.standard_normal((12, dim)), 0.4 * rng.standard_normal((9, dim))
    x = coarse[rng.integers(12, size=num)] + fine[rng.integers(9, size=num)] + 0.1 * rng.standard_normal((num, dim))
    return (2.0 + 0.05 * x).astype(np.float32)


def facts(num=400, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.integers(num, size=600)
    collaborative = rng.standard_normal((num, 5)).astype(np.float32)
    collaborative[: num // 8] = 0.0  # items without behaviour
    return ItemFacts(
        item_hashes_N=item_hashes([f"item-{row}" for row in range(num)]),
        pairs_P2=np.stack([first, (first + 1) % num], axis=1),
        pairs_window=("2010-01-01T00:00:00", "2010-12-01T00:00:00"),
        collaborative_NC=collaborative,
    )


def fitted(kind, x=None, **changes):
    cls, config = tokenizer_config(kind, {"widths": list(WIDTHS), **SMALL.get(kind, {}), **changes})
    x = rows() if x is None else x
    return cls.fit(x, config, facts=facts(len(x)))


LOAD = """
import sys, numpy as np
from sidlake.tokenizers.artifact import load_codebook, codebook_hash
model = load_codebook(sys.argv[1])
codes, norms = model.encode_with_norms(np.load(sys.argv[2])[::-1])
np.savez(sys.argv[3], codes=codes[::-1], norms=norms[::-1], decoded=model.decode(codes)[::-1])
print(codebook_hash(model))
"""


def assert_the_same_in_another_process(model, x, folder):
    """Save, load in a fresh process with another number of threads, encode backwards: the same codes, norms and vectors."""
    digest = save_codebook(model, folder / "codebook.safetensors")
    assert codebook_hash(load_codebook(folder / "codebook.safetensors")) == digest
    np.save(folder / "x.npy", x)
    arguments = [str(folder / name) for name in ("codebook.safetensors", "x.npy", "out.npz")]
    done = subprocess.run([sys.executable, "-c", LOAD, *arguments], capture_output=True, text=True, check=True, env=_two_threads())
    found = np.load(folder / "out.npz")
    codes, norms = model.encode_with_norms(x)
    assert done.stdout.strip() == digest
    assert np.array_equal(found["codes"], codes)
    assert np.array_equal(found["norms"], norms)
    assert np.array_equal(found["decoded"], model.decode(codes))


def _two_threads():
    import os

    return os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
