"""How much more often than chance two emoji of one category share a prefix of their SIDs: by pictures, by text, by both.

    python benchmarks/emoji_prefixes.py [--json]

Vectors as `recipes/emoji.toml` makes them, residual k-means of the default widths, unique SIDs. The lift at depth d is the share of
pairs of one category that share their first d codes, over that share among all pairs; the category is the top level of the path.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl

from sidlake.encoders.fusion.fusion import Fusion, FusionConfig
from sidlake.encoders.image.encoder import ImageEncoder, ImageEncoderConfig
from sidlake.encoders.text.encoder import TextEncoder, TextEncoderConfig
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig, default_widths
from sidlake.tokenizers.uniqueness.strategies import make_unique

EMOJI = Path(__file__).parent.parent / "data" / "emoji.parquet"
FUSED = {"pictures": [("image", 1.0, 64)], "text": [("text", 1.0, 64)], "both": [("text", 1.0, 64), ("image", 0.7, 64)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    items = pl.read_parquet(EMOJI).sort("item_id")
    texts = [
        ". ".join([title, ", ".join(words)])
        for title, words in zip(items["title"].to_list(), items["keywords"].to_list(), strict=True)
    ]
    vectors = {
        "image": ImageEncoder.load(ImageEncoderConfig()).encode(items["image"].to_list()).vectors_ND,
        "text": TextEncoder.load(TextEncoderConfig(precision="float32")).encode(texts),
    }
    category = np.array([path[0] for path in items["category"].to_list()])
    result = {name: lifts(blocks, vectors, category, items["item_id"].to_list()) for name, blocks in FUSED.items()}
    if as_json:
        print(json.dumps(result))
        return
    for name, found in result.items():
        print(f"{name:<10}", "  ".join(f"depth {depth}: {lift:.2f} x chance" for depth, lift in enumerate(found, 1)))


def lifts(
    blocks: list[tuple[str, float, int]], vectors: dict[str, np.ndarray], category: np.ndarray, ids: list[str]
) -> list[float]:
    present = {name: np.ones(len(ids), dtype=bool) for name in vectors}
    config = FusionConfig(weights=tuple(blocks))
    x = Fusion.fit(vectors, present, config).transform(vectors, present)
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=default_widths(len(x))))
    codes, norms = model.encode_with_norms(x)
    final = make_unique("reassign", model, codes, norms, item_hashes(ids), latents_of=lambda rows: x[rows]).codes_NL
    assert len(np.unique(final, axis=0)) == len(ids)
    found = []
    same = category[:, None] == category[None]
    for depth in (1, 2):  # unique SIDs never share all three
        shared = (final[:, None, :depth] == final[None, :, :depth]).all(axis=2)
        apart = ~np.eye(len(ids), dtype=bool)
        found.append(round(float(shared[same & apart].mean() / shared[apart].mean()), 3))
    return found


if __name__ == "__main__":
    main()
