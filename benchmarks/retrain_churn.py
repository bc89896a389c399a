"""What a retrain changes: SIDs of a shop's first year against SIDs made anew from two years, fitted and named in several ways.

    python benchmarks/retrain_churn.py [--seeds N] [--json]

Both times the shop's recipe makes the vectors, as `sidlake run retrain` does: rows of the first year, then all rows, with behaviour
and fusion learned anew. The former generation is fitted with seed 0; then, from the two years, with other seeds:

- ``cold``: with no regard to the former generation, as published;
- ``cold_aligned``: the same codebooks, their codes named by `align_codes`;
- ``warm``: started from the former SIDs;
- ``warm_aligned``: both;
- ``centroids``: started from the former centroids, which lie in another space, and named: not offered, only measured.

Churn is the share of the items of both generations whose published code of a level changed, and whose prefix up to it did. Quality
is of all items of the two years: what raw codes leave of the vectors (relative to their variance), raw collisions, and the share of
sessions of the last 30 days whose next item is among the 30 nearest to what was bought before, by decoded SIDs.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from machine import machine

from sidlake.pipelines.fit_inputs.split import hit_rate_sessions, ordered_events
from sidlake.pipelines.generation import fused_vectors
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, run_step
from sidlake.pipelines.steps import STEPS
from sidlake.quality.metrics.fidelity import relative_reconstruction_error
from sidlake.quality.metrics.hit_rate import embedding_hit_rate
from sidlake.quality.metrics.sessions import Sessions
from sidlake.tokenizers.generations.alignment import align_codes
from sidlake.tokenizers.generations.relabelled import Relabelled
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.numeric.kmeans import fit_kmeans
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig, default_widths
from sidlake.tokenizers.tokenizer import ItemFacts, Tokenizer
from sidlake.tokenizers.uniqueness.strategies import make_unique
from sidlake.warehouse.tables import Warehouse

ROOT = Path(__file__).parent.parent
DATA = "online_retail.parquet"
PERIODS = {"first year": "2010-12-10", "two years": "2012-01-01"}
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The items of a period, their vectors, and the sessions that hit rates ask."""

    item_ids: list[str]
    x_ND: npt.NDArray[np.float32]
    sessions: Sessions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before, after = (catalogue_of(Path(folder), until) for until in PERIODS.values())
    result = compare(before, after, seeds=range(1, arguments.seeds + 1)) | {"machine": machine("sidlake", "numpy", "scipy")}
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['items_before']:,} items, then {result['items_after']:,}, {result['items_of_both']:,} of both")
    for row in result["variants"]:
        churn = "  ".join(f"{name} " + " ".join(f"{value:.3f}" for value in row[name]) for name in ("code_churn", "prefix_churn"))
        quality = f"error {row['reconstruction_error']:.4f}  collisions {row['raw_collision_rate']:.3f}  hit rate {row['ehr']:.4f}"
        print(f"{row['variant']:<13} {churn}  {quality}")


def catalogue_of(folder: Path, until: str) -> Catalogue:
    """Return the shop's items and vectors as of the day `until`, made by the steps of a retrain in `folder`."""
    rows = pl.scan_parquet(ROOT / "data" / DATA).filter(pl.col("InvoiceDate") < pl.lit(until).str.to_datetime())
    rows.collect().write_parquet(folder / DATA)
    recipe = (ROOT / "recipes" / "online_retail.toml").read_text(encoding="utf-8").replace(f"../data/{DATA}", DATA)
    (folder / "shop.toml").write_text(recipe + '\n[encoders.text]\nprecision = "float32"\n', encoding="utf-8")
    warehouse = Warehouse.create_or_open(folder / "lake")
    ctx = RunContext.open(warehouse, load_recipe(folder / "shop.toml"), run_id=f"until-{until}", job="retrain")
    for step in STEPS.values():
        if step.group in ("catalog", "embeddings"):
            run_step(ctx, step)
    items, x_ND = fused_vectors(ctx)
    sessions = hit_rate_sessions(ordered_events(ctx.read("interactions")), ctx.recipe.split, items.column("item_id"))
    return Catalogue(item_ids=items.column("item_id").to_pylist(), x_ND=x_ND, sessions=sessions)


def compare(before: Catalogue, after: Catalogue, *, seeds: Sequence[int]) -> dict[str, Any]:
    """Return churn and quality of each variant, averaged over the seeds, and whether alignment ever raised churn."""
    config = ResidualKMeansConfig(widths=default_widths(len(before.item_ids)))
    former = ResidualKMeans.fit(before.x_ND, config)
    row_of = {item: row for row, item in enumerate(before.item_ids)}
    where_N = np.array([row_of.get(item, -1) for item in after.item_ids])
    former_NL = np.where(where_N[:, None] >= 0, published(former, before)[where_N], np.int32(-1))
    of_seed = [variants(former, former_NL, after, seed) for seed in seeds]
    pairs = [(one, f"{one}_aligned", of) for of in of_seed for one in ("cold", "warm")]
    levels = [(of[named][name], of[plain][name]) for plain, named, of in pairs for name in ("code_churn", "prefix_churn")]
    return {
        "items_before": len(before.item_ids),
        "items_after": len(after.item_ids),
        "items_of_both": int((where_N >= 0).sum()),
        "widths": list(config.widths),
        "seeds": list(seeds),
        "never_higher": all(a <= b for named, plain in levels for a, b in zip(named, plain, strict=True)),
        "variants": [
            {"variant": name} | {key: np.mean([of[name][key] for of in of_seed], axis=0).tolist() for key in of_seed[0][name]}
            for name in of_seed[0]
        ],
    }


def variants(former: ResidualKMeans, former_NL: Codes, after: Catalogue, seed: int) -> dict[str, dict[str, Any]]:
    """Return what each way of making the new generation comes to."""
    config = ResidualKMeansConfig(widths=former.widths, seed=seed)
    cold = ResidualKMeans.fit(after.x_ND, config)
    warm = ResidualKMeans.fit(after.x_ND, config, facts=ItemFacts(former_codes_NL=former_NL))
    models = {
        "cold": cold,
        "cold_aligned": aligned(cold, former_NL, after),
        "warm": warm,
        "warm_aligned": aligned(warm, former_NL, after),
        "centroids": aligned(from_centroids(former, after, config), former_NL, after),
    }
    return {name: measured(model, former_NL, after) for name, model in models.items()}


def aligned(model: Tokenizer, former_NL: Codes, after: Catalogue) -> Tokenizer:
    """Return the tokenizer with its codes named after the former ones, as a retrain does it."""
    both_N = former_NL[:, 0] >= 0
    return Relabelled.around(model, align_codes(former_NL[both_N], model.encode(after.x_ND)[both_N], model.widths).names)


def from_centroids(former: ResidualKMeans, after: Catalogue, config: ResidualKMeansConfig) -> ResidualKMeans:
    """Return codebooks whose levels start from the former centroids, whatever space these lie in."""
    residual_ND, fits = after.x_ND.copy(), []
    for level, start_KD in enumerate(former.centroids):
        draw = np.random.default_rng([config.seed, level])
        fit = fit_kmeans(residual_ND, len(start_KD), rng=draw, max_iterations=25, tolerance=config.tolerance, start_KD=start_KD)
        residual_ND -= fit.centroids_KD[fit.codes_N]
        fits.append(fit)
    return ResidualKMeans([fit.centroids_KD for fit in fits], [fit.counts_K for fit in fits], config)


def measured(model: Tokenizer, former_NL: Codes, after: Catalogue) -> dict[str, Any]:
    """Return churn against the former SIDs, and quality."""
    raw_NL, codes_NL = model.encode(after.x_ND), published(model, after)
    both_N = former_NL[:, 0] >= 0
    changed_NL = codes_NL[both_N] != former_NL[both_N]
    hits = embedding_hit_rate(model.decode(codes_NL), after.sessions, k=30, tie_break_ND=after.x_ND)
    return {
        "code_churn": changed_NL.mean(axis=0).tolist(),
        "prefix_churn": np.logical_or.accumulate(changed_NL, axis=1).mean(axis=0).tolist(),
        "reconstruction_error": relative_reconstruction_error(after.x_ND, model.decode(raw_NL)),
        "raw_collision_rate": 1 - len(np.unique(raw_NL, axis=0)) / len(raw_NL),
        "ehr": hits.value,
    }


def published(model: Tokenizer, catalogue: Catalogue) -> Codes:
    """Return the unique codes of the catalogue's items."""
    raw_NL, norms_N = model.encode_with_norms(catalogue.x_ND)
    hashes_N = item_hashes(catalogue.item_ids)
    return make_unique("reassign", model, raw_NL, norms_N, hashes_N, latents_of=lambda rows: catalogue.x_ND[rows]).codes_NL


if __name__ == "__main__":
    main()
