"""What a trainer gains from a retrain's `code_changes`: its code embeddings carried over to the new codes, against starting anew.

    python benchmarks/warm_start.py [--epochs E] [--seeds 0] [--warehouse lake] [--json]

The shop's release is the former generation; the new one is fitted to the same vectors with another seed and its codes named after
the former ones, as a retrain does it. A decoder that sees codes alone is trained on the former SIDs; then on the new ones, epoch by
epoch:

- ``anew``: nothing carried over;
- ``same names``: all weights, each code's embedding kept under its name;
- ``mapped``: all weights, each new code's embedding the mean of the former codes' that its items had, by their shares.

Printed: Recall@10 and NDCG@10 on validation users before training (epoch 0) and after each epoch, and on test users at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from machine import machine
from recommend import ROOT, Catalogue, catalogue_of, say
from studying.training import BUDGET, facts_of

from sidlake.generative.judging.judge import judge
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.recommenders import DecoderRecommender, ranker_by
from sidlake.generative.trainer import validation_of
from sidlake.generative.training.loop import fit
from sidlake.quality.assignment import Assignment
from sidlake.tokenizers.generations.alignment import align_codes
from sidlake.tokenizers.generations.relabelled import Relabelled
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.uniqueness.strategies import make_unique

Codes = npt.NDArray[np.int32]
WAYS = ("anew", "same names", "mapped")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--warehouse", type=Path, default=ROOT / "lake")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(1)  # a model's bits depend on it
    catalogue = catalogue_of("shop", given.warehouse)
    rows = [row for seed in given.seeds for row in carried_over(catalogue, seed=seed, epochs=given.epochs)]
    if given.json:
        print(json.dumps({"rows": rows, "epochs": given.epochs, "machine": machine("torch", "transformers")}, indent=1))
        return 0
    for row in rows:
        print(f"seed {row['seed']} {row['way']:<11} valid NDCG@10 by epoch {row['ndcg@10']}  test {row['test_recall@10']:.4f}")
    return 0


def carried_over(catalogue: Catalogue, *, seed: int, epochs: int) -> list[dict[str, Any]]:
    """Return a row per way of beginning: figures on validation users before and after each epoch, and on test users."""
    former, new = generations(catalogue, seed)
    teacher = decoder(former, catalogue, seed, epochs)
    fit(teacher.model, catalogue.timelines.train, validation_of(teacher, catalogue.timelines.valid, catalogue.groups_N))
    rows = []
    for way in WAYS:
        start = time.monotonic()
        student = decoder(new, catalogue, seed + 1, epochs)
        begin(student.model, teacher.model, way, former, new)
        validate = validation_of(student, catalogue.timelines.valid, catalogue.groups_N)
        first = validate(student.model.eval())
        fitted = fit(student.model, catalogue.timelines.train, validate)
        figures = judge(ranker_by(student), catalogue.timelines.test, catalogue.groups_N)
        curve = [first, *((one.recall, one.ndcg) for one in fitted.curve)]
        rows.append(
            {
                "way": way,
                "seed": seed,
                "recall@10": [round(recall, 4) for recall, _ in curve],
                "ndcg@10": [round(ndcg, 4) for _, ndcg in curve],
                "test_recall@10": round(figures["recall@10"], 5),
                "test_ndcg@10": round(figures["ndcg@10"], 5),
                "seconds": round(time.monotonic() - start, 1),
            }
        )
        say(f"seed {seed}, {way}: {rows[-1]['ndcg@10']}")
    return rows


def generations(catalogue: Catalogue, seed: int) -> tuple[Assignment, Assignment]:
    """Return the release's SIDs, and those of codebooks fitted anew with another seed and named after the former ones."""
    known, x_ND = catalogue.reader.catalogue, catalogue.fused_NF
    offsets_L, widths = np.array(known.space.offsets), known.space.widths
    former_NL = (known.tokens_NL - offsets_L).astype(np.int32)
    fitted = ResidualKMeans.fit(x_ND, ResidualKMeansConfig(widths=widths, seed=1000 + seed))
    named = Relabelled.around(fitted, align_codes(former_NL, fitted.encode(x_ND), widths).names)
    raw_NL, norms_N = named.encode_with_norms(x_ND)
    hashes_N = item_hashes(known.item_ids.to_pylist())
    new_NL = make_unique("reassign", named, raw_NL, norms_N, hashes_N, latents_of=lambda rows: x_ND[rows]).codes_NL
    return tuple(
        Assignment(name=name, item_ids=known.item_ids, codes_NL=codes_NL, widths=widths, source="warm_start.py")
        for name, codes_NL in (("former", former_NL), ("new", new_NL))
    )  # type: ignore[return-value]


def decoder(assignment: Assignment, catalogue: Catalogue, seed: int, epochs: int) -> DecoderRecommender:
    torch.manual_seed(seed)
    config = replace(BUDGET, seed=seed, max_epochs=epochs, patience=epochs)
    return DecoderRecommender(PackedDecoder(facts_of(assignment, catalogue.timelines.train), config), catalogue.trie)


def begin(student: PackedDecoder, teacher: PackedDecoder, way: str, former: Assignment, new: Assignment) -> None:
    """Give `student` the weights of `teacher`, in the way named; it sees the new codes, the teacher the former ones."""
    if way == "anew":
        return
    own = dict(student.named_parameters())
    with torch.no_grad():
        for name, value in teacher.named_parameters():
            own[name].copy_(value)
        if way == "mapped":
            carried_ED = carried(teacher.codes.weight.numpy(), former.codes_NL, new.codes_NL, new.widths)
            student.codes.weight.copy_(torch.from_numpy(carried_ED))


def carried(
    embeddings_ED: npt.NDArray[np.float32], former_NL: Codes, new_NL: Codes, widths: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Return embeddings of the new codes, each the mean of its items' former codes'; a code without items keeps its name's.

    This is ``code_changes`` as a matrix product: sum over old_code of share * embedding.
    """
    result_ED, start = embeddings_ED.copy(), 0
    for level, width in enumerate(widths):
        counts_KK = np.zeros((width, width))
        np.add.at(counts_KK, (new_NL[:, level], former_NL[:, level]), 1.0)
        total_K = counts_KK.sum(axis=1)
        used_K = total_K > 0
        level_KD = embeddings_ED[start : start + width]
        result_ED[start : start + width][used_K] = (counts_KK[used_K] / total_K[used_K, None]) @ level_KD
        start += width
    return result_ED


if __name__ == "__main__":
    sys.exit(main())
