"""A small learnable release, built by hand: users walk a fixed cycle of items, so the next item follows from the last one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from sidlake.generative.config import DecoderConfig, GenerativeConfig
from sidlake.tokenizers.trie import build_trie

WIDTHS = (3, 4, 5)


def semantic_ids(num_items: int = 40, *, seed: int = 0) -> pa.Table:
    """Return item_id and codes of `num_items` items with random unique SIDs, rows in random order."""
    keys = np.random.default_rng(seed).choice(np.prod(WIDTHS), num_items, replace=False)
    codes = np.stack(np.unravel_index(keys, WIDTHS), axis=1).astype(np.int32)
    return pa.table({"item_id": [f"i{n:02d}" for n in range(num_items)], "codes": pa.array(codes.tolist(), pa.list_(pa.int32()))})


def trie_table(sids: pa.Table) -> pa.Table:
    """Return the `sid_trie` table of these SIDs."""
    return build_trie(np.array(sids["codes"].to_pylist()), sids["item_id"].to_pylist()).to_table()


def sequences(rows: list[tuple[str, str, list[str], str | None]], sids: pa.Table) -> pa.Table:
    """Return a `user_sequences` table of rows (user_id, split, item_ids, target), with the codes of `sids`."""
    codes = dict(zip(sids["item_id"].to_pylist(), sids["codes"].to_pylist(), strict=True))
    columns = list(zip(*rows, strict=True))
    return pa.table(
        {
            "user_id": pa.array(columns[0], pa.string()),
            "split": pa.array(columns[1], pa.string()),
            "item_ids": pa.array(columns[2], pa.list_(pa.string())),
            "codes": pa.array(
                [[code for item in items for code in codes.get(item, [0, 0, 0])] for items in columns[2]], pa.list_(pa.int32())
            ),
            "target": pa.array(columns[3], pa.string()),
        }
    )


def cycle_sequences(sids: pa.Table, *, num_users: int = 120, length: int = 12, seed: int = 0) -> pa.Table:
    """Return leave-one-out sequences of users who walk one cycle through all items, each from a random start."""
    rng = np.random.default_rng(seed)
    cycle = rng.permutation(sids.num_rows)
    names = sids["item_id"].to_pylist()
    rows: list[tuple[str, str, list[str], str | None]] = []
    for user, start in enumerate(rng.integers(0, len(cycle), num_users)):
        walk = [names[cycle[(start + step) % len(cycle)]] for step in range(length)]
        rows += [
            (f"u{user:03d}", "train", walk[:-2], None),
            (f"u{user:03d}", "valid", walk[:-2], walk[-2]),
            (f"u{user:03d}", "test", walk[:-1], walk[-1]),
        ]
    return sequences(rows, sids)


def tiny_config(**changes: object) -> GenerativeConfig:
    """Return a configuration that learns the cycle in seconds."""
    values: dict[str, object] = {
        "d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2, "max_history": 4, "batch_size": 64,
        "num_steps": 150, "num_warmup_steps": 10, "learning_rate": 1e-2, "num_beams": 10,
    }  # fmt: skip
    return GenerativeConfig(**{**values, **changes})  # type: ignore[arg-type]


def tiny_decoder(**changes: object) -> DecoderConfig:
    """Return a configuration of the packed decoder that learns the cycle in seconds, from codes and item vectors."""
    values: dict[str, object] = {
        "inputs": ("codes", "item"), "d_model": 32, "num_layers": 1, "num_heads": 2, "dropout": 0.0, "max_history": 16,
        "batch_positions": 256, "max_epochs": 12, "patience": 4, "learning_rate": 1e-2, "num_warmup_steps": 5, "num_beams": 10,
    }  # fmt: skip
    return DecoderConfig(**{**values, **changes})  # type: ignore[arg-type]
