"""Text embedding against sentence-transformers' own `encode` with its defaults, same model, same texts, same cores.

    python benchmarks/embed.py [--json] [--texts 2048] [--repeats 3]

The texts are the shop's item descriptions (`data/online_retail.parquet`, 7 tokens on average), each once: `TextEncoder` encodes
equal texts once, which would flatter it. `min_cosine` is the worst cosine between the two vectors of a text. Exit code 1 below
0.9999.

`bound` is what is possible: the ratio if the model's matrix products ran alone, without padding, at the speed of one large float32
product on all cores in this run, and everything else took no time.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from machine import in_turns, machine, ratio
from sentence_transformers import SentenceTransformer

from sidlake.encoders.model_folder import resolve_folder
from sidlake.encoders.text.encoder import TextEncoder, TextEncoderConfig

SHOP = Path(__file__).resolve().parent.parent / "data" / "online_retail.parquet"
SAME = 0.9999


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    texts = pl.read_parquet(SHOP, columns=["Description"])["Description"].drop_nulls().unique().sort().to_list()[: arguments.texts]
    config = TextEncoderConfig()
    ours = TextEncoder.load(config)
    peer = SentenceTransformer(str(resolve_folder(config.model)), device="cpu")
    seconds = in_turns(
        {"peer": lambda: peer.encode(texts, show_progress_bar=False), "ours": lambda: ours.encode(texts)}, repeats=arguments.repeats
    )
    theirs, vectors = peer.encode(texts, show_progress_bar=False), ours.encode(texts)
    cosine = np.sum(theirs * vectors, axis=1) / (np.linalg.norm(theirs, axis=1) * np.linalg.norm(vectors, axis=1))
    num_tokens = int(sum(len(row) for row in peer.tokenizer(texts, truncation=True, max_length=peer.max_seq_length)["input_ids"]))
    weights = sum(module.weight.numel() for module in peer.modules() if isinstance(module, torch.nn.Linear))
    products_s = num_tokens * weights / multiply_adds_per_s()
    result = {
        "ratio_sentence_transformers": ratio(seconds, "peer", "ours"),
        "min_cosine": float(cosine.min()),
        "bound": round(min(seconds["peer"]) / products_s, 3),
        "ours_texts_per_s": round(len(texts) / min(seconds["ours"])),
        "peer_texts_per_s": round(len(texts) / min(seconds["peer"])),
        "texts": len(texts),
        "tokens": num_tokens,
        "encoder": ours.encoder_id,
        "machine": machine("sentence-transformers", "torch", "transformers"),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"{len(texts):,} texts of {num_tokens / len(texts):.1f} tokens: ours {result['ours_texts_per_s']:,}/s, "
            f"sentence-transformers {result['peer_texts_per_s']:,}/s, ratio {result['ratio_sentence_transformers']} "
            f"(bound {result['bound']}), cosine {result['min_cosine']:.6f} at least"
        )
    if result["min_cosine"] < SAME:
        sys.exit(1)


def multiply_adds_per_s() -> float:
    """Return the best of ten float32 products of 2048 x 1536 by 1536 x 384, a feed-forward layer's shape, on all threads."""
    left, right = torch.randn(2048, 1536), torch.randn(1536, 384)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return 2048 * 1536 * 384 / best


if __name__ == "__main__":
    main()
