"""Encoding by residual k-means against faiss's residual quantizer, same codebooks, same vectors, same cores.

    python benchmarks/encode.py [--json] [--rows 200000] [--wide-rows 16384] [--repeats 5]

The vectors are a seeded mixture: clusters in a low-dimensional space, a spectrum that decays as that of text embeddings does, unit
length. The codebooks are fitted to 65,536 other rows of it, at least 8 per code, in two passes: codes start at the directions of
sampled residuals (a start of shorter ones would take most rows) and move to the means of their rows.
`equal_share` is the share of rows whose codes at all levels equal those of a plain chunked float32 argmin. Exit code 1 below
0.9999. Both sides get float32 rows in memory and return codes; faiss packs its codes into bytes.
"""

import argparse
import json
import sys

import faiss
import numpy as np
import torch  # loaded, so that both sides run their fastest product
from machine import in_turns, machine, ratio

from sidlake.tokenizers.numeric.nearest import nearest_codes
from sidlake.tokenizers.quantizers.additive import code_means
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig

SEED = 20_261_121
EQUAL = 0.9999
FIT_ROWS = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the 384-d, 3 x 256 shape")
    parser.add_argument("--wide-rows", type=int, default=16_384, help="rows of the 512-d, 3 x 8192 shape; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    shapes = [(arguments.rows, 384, 256), (arguments.wide_rows, 512, 8192)]
    found = [measured(*shape, repeats=arguments.repeats) for shape in shapes if shape[0]]
    result = {
        "ratio_faiss": found[0]["ratio_faiss"],
        "equal_share": min(shape["equal_share"] for shape in found),
        "shapes": found,
        "seed": SEED,
        "machine": machine("faiss-cpu", "numba", "numpy", "torch"),
        "threads": {"faiss": faiss.omp_get_max_threads(), "torch": torch.get_num_threads()},
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        for shape in found:
            print(
                f"{shape['rows']:,} x {shape['dim']}, 3 x {shape['width']}: ours {shape['ours_rows_per_s']:,} rows/s, faiss "
                f"{shape['faiss_rows_per_s']:,}, ratio {shape['ratio_faiss']}, equal {shape['equal_share']:.6f}"
            )
    if result["equal_share"] < EQUAL:
        sys.exit(1)


def measured(rows: int, dim: int, width: int, *, repeats: int) -> dict[str, float]:
    drawn = vectors(FIT_ROWS + rows, dim)
    x = drawn[FIT_ROWS:]
    tokenizer = ResidualKMeans(*codebooks(drawn[:FIT_ROWS], width), ResidualKMeansConfig(widths=(width,) * 3))
    peer = faiss.ResidualQuantizer(dim, 3, width.bit_length() - 1)
    peer.max_beam_size = 1
    faiss.copy_array_to_vector(np.concatenate(tokenizer.centroids).ravel(), peer.codebooks)
    peer.is_trained = True
    seconds = in_turns({"faiss": lambda: peer.compute_codes(x), "ours": lambda: tokenizer.encode(x)}, repeats=repeats)
    codes = tokenizer.encode(x)
    return {
        "rows": rows,
        "dim": dim,
        "width": width,
        "ratio_faiss": ratio(seconds, "faiss", "ours"),
        "equal_share": float((codes == plain_codes(x, tokenizer.centroids)).all(axis=1).mean()),
        "ours_rows_per_s": round(rows / min(seconds["ours"])),
        "faiss_rows_per_s": round(rows / min(seconds["faiss"])),
    }


def vectors(rows: int, dim: int) -> np.ndarray:
    """Return float32 unit rows: 2,000 clusters, half of the variance between them, standard deviations falling as rank**-0.4."""
    rng = np.random.default_rng(SEED)
    spread = (1 + np.arange(dim, dtype=np.float32)) ** -0.4
    centres = rng.standard_normal((2000, dim), dtype=np.float32) * spread
    x = rng.standard_normal((rows, dim), dtype=np.float32) * spread + centres[rng.integers(0, 2000, rows)]
    return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def codebooks(residual: np.ndarray, width: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(SEED + 1)
    centroids, counts = [], []
    for _ in range(3):
        lengths = np.linalg.norm(residual, axis=1)
        chosen = rng.choice(np.flatnonzero(lengths), size=width, replace=False)  # a code's only row leaves nothing
        start = residual[chosen] / lengths[chosen, None]
        book = code_means(residual, nearest_codes(residual, start), start)
        codes = nearest_codes(residual, book)
        residual = residual - book[codes]
        centroids.append(book)
        counts.append(np.bincount(codes, minlength=width))
    return centroids, counts


def plain_codes(x: np.ndarray, centroids: tuple[np.ndarray, ...]) -> np.ndarray:
    codes = np.empty((len(x), len(centroids)), dtype=np.int32)
    for start in range(0, len(x), 4096):
        residual = x[start : start + 4096].copy()
        for level, book in enumerate(centroids):
            found = ((book**2).sum(axis=1) - 2 * residual @ book.T).argmin(axis=1)
            codes[start : start + 4096, level] = found
            residual -= book[found]
    return codes


if __name__ == "__main__":
    main()
