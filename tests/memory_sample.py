"""What fits of tokenizers and fusions hold at most, in a process of its own: ``python memory_sample.py`` prints it as JSON.

Each fit runs at two sizes; what the peak of resident memory rose by between them, over the rows between, is bytes per row: blocks
of a fixed size, the interpreter and what was there before drop out. Linux resets the peak on request, so one process does for all.
What does not grow would hide fits that end in seconds, so blocks are small here, and the table of distances that k-means draws its
starts from, 128 MiB, is left out; neither changes a result.
"""

import json
from pathlib import Path

import numpy as np
from fusion_sample import KINDS as FUSIONS
from fusion_sample import config_of
from neural_sample import SMALL

from sidlake.encoders.fusion.fusion import Fusion
from sidlake.tokenizers import fit_input
from sidlake.tokenizers.numeric import exact_product, kmeans, mean_square
from sidlake.tokenizers.quantizers import product, qinco, rq_vae
from sidlake.tokenizers.registry import tokenizer_config
from sidlake.tokenizers.tokenizer import ItemFacts

DIM, LATENT, KEPT = 32, 16, 8
SIZES = (20_000, 80_000)
SETTINGS = {kind: {**values, "num_steps": 2} for kind, values in SMALL.items()} | {
    "balanced_kmeans": {"max_iterations": 1, "exact_rows": 500},
    "optimized_product": {"max_iterations": 3, "rotations": 2},
    "product": {"max_iterations": 3},
    "qinco": {"latent_dim": LATENT, "hidden_dim": 8, "num_blocks": 1, "candidates": 2, "num_steps": 2},
    "residual_kmeans": {"max_iterations": 3},
}


def bytes_per_row(act):
    """Return what `act`, which makes the fit of so many rows, needs for each of them."""
    act(500)()  # what is made once
    small, large = (_peak_of(act(num)) for num in SIZES)
    return (large - small) / (SIZES[1] - SIZES[0])


def tokenizer_fit(kind):
    settings = SETTINGS[kind] | ({"latent_dim": LATENT} if "latent_dim" in SETTINGS[kind] else {})
    cls, config = tokenizer_config(kind, {"widths": [8, 4], "max_fit_rows": 10**6, **settings})

    def act(num):
        rng = np.random.default_rng(0)
        x, first = rng.standard_normal((num, DIM), dtype=np.float32), rng.integers(num, size=300)
        pairs, behaviour = np.stack([first, (first + 1) % num], axis=1), rng.standard_normal((num, 1), dtype=np.float32)
        return lambda: cls.fit(x, config, facts=ItemFacts(pairs_P2=pairs, collaborative_NC=behaviour))

    return act


def fusion_fit(kind):
    weights = (("text", 1.0, DIM if kind == "plain" else KEPT), ("behaviour", 0.7, DIM if kind == "plain" else KEPT))
    config = config_of(kind, weights, **({"num_epochs": 1} if kind == "neighbours" else {}))

    def act(num):
        rng = np.random.default_rng(0)
        vectors = {name: rng.standard_normal((num, DIM), dtype=np.float32) for name in ("text", "behaviour")}
        present = {"text": np.ones(num, bool), "behaviour": rng.random(num) < 0.8}
        pairs = rng.integers(num, size=(num, 2)) if kind in ("contrastive", "neighbours") else None
        return lambda: Fusion.fit(vectors, present, config, pairs_P2=pairs)

    return act


def _peak_of(act):
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    act()
    return _status("VmHWM") - before


def _status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    kmeans._MAX_DISTANCES = 2**18
    exact_product._BLOCK = 1024
    for module in (fit_input, mean_square, product, qinco, rq_vae):
        module._BLOCK_ROWS = 1024
    acts = {kind: tokenizer_fit(kind) for kind in SETTINGS}
    acts |= {f"fusion {kind}": fusion_fit(kind) for kind in FUSIONS if kind != "neighbours"}
    print(json.dumps({kind: bytes_per_row(act) for kind, act in acts.items()}))
