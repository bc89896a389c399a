"""The recommender and its baselines on the demo's shop and on Amazon Beauty, in one harness, by one judge.

    python benchmarks/recommend.py [--data shop beauty] [--minutes 60] [--seed 0] [--only sasrec ...] [--json]

All read the same release (made once by the pipeline's own steps, in `--warehouse`, without `[trainer]`) and are
judged on each user's last item over the whole catalogue: a row per model and judge, items had before ``kept`` or ``left_out``.
`--minutes` bounds the whole run: models share what is left by their weights, a training whose time is up ends, and its best epoch
is judged. Beauty may not be redistributed: `data/README.md` says where to put it; without it, it is left out with that reason.

The anchor is a SASRec of the same body, settings and repeat bias over item numbers alone: what differs is what an item is made of.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sidlake.generative.config import DecoderConfig
from sidlake.generative.judging.judge import JUDGES, Figures, judge, popularity_groups
from sidlake.generative.judging.rankers import ranker_of
from sidlake.generative.models.item_facts import ItemFacts
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.recommenders import DecoderRecommender, ranker_by
from sidlake.generative.sequences import SequenceReader
from sidlake.generative.timelines import Timelines, whole_histories
from sidlake.generative.trainer import FusedVectors, baselines_of, validation_of
from sidlake.generative.training.loop import fit
from sidlake.generative.trie_tensors import TrieTensors
from sidlake.pipelines.compare import comparison_folder
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.tokenizers.trie import Trie
from sidlake.warehouse.embeddings import matrix_for
from sidlake.warehouse.releases import Release, get
from sidlake.warehouse.tables import Warehouse

ROOT = Path(__file__).resolve().parent.parent
BEAUTY_DATA = (ROOT.parent / "shared" / "data" / "beauty", ROOT / "data" / "beauty")
RECIPES = {"shop": ROOT / "recipes" / "online_retail.toml", "beauty": ROOT / "recipes" / "beauty.toml"}
BEAUTY = DecoderConfig(num_negatives=1024, batch_positions=1024, max_epochs=25, patience=5)
"""Beauty's recipe trains nothing, so its decoder stands here; the shop's is that of its recipe."""
WEIGHTS = {"decoder": 3.0, "sasrec": 2.0, "codes": 2.0, "rerank": 3.0}
"""Shares of the time."""
ON_DEMAND = {"rerank"}
"""Models that are trained where `--only` names them."""
JUDGING_SECONDS = 60.0
"""Kept back for what follows a training."""


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """A release as models read it."""

    name: str
    reader: SequenceReader
    timelines: Timelines
    fused_NF: Any
    trie: TrieTensors
    groups_N: Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="models and baselines to run")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warehouse", type=Path, default=ROOT / "lake")
    parser.add_argument("--keep", type=Path, help="folder for the state of trainings, from which a killed run goes on")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60.0 * arguments.minutes
    names = [name for name in arguments.data if name != "beauty" or has_beauty()]
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        share = (deadline - time.monotonic()) / (len(names) - number)
        rows += list(_rows(catalogue_of(name, arguments.warehouse), arguments, time.monotonic() + share))
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print_table(rows)
    return 0


def has_beauty() -> bool:
    place = next((place for place in BEAUTY_DATA if (place / "sequences.parquet").exists()), None)
    if place is None:
        say("beauty left out: its files are absent, and may not be redistributed; data/README.md says where to put them")
        return False
    link = ROOT / "data" / "beauty"
    if not link.exists():
        link.symlink_to(place)
    return True


def catalogue_of(name: str, warehouse: Path) -> Catalogue:
    """Return the release of the recipe without its trainer, made where there is none yet."""
    store = Warehouse.create_or_open(comparison_folder(warehouse, f"recommend-{name}"))
    if not store.exists("releases"):
        say(f"{name}: making a release")
        recipe = replace(load_recipe(RECIPES[name]), trainer=None)
        run_job(RunContext.open(store, recipe, run_id=new_run_id(), job="retrain"))
    release = get(store)

    def table(which: str) -> pa.Table:
        return store.read(which, version=release.tables[which])

    widths = tuple(np.bincount(table("codebooks").column("level").to_numpy()).tolist())
    reader = SequenceReader(table("user_sequences"), table("semantic_ids"), widths=widths, max_history=1)
    timelines = whole_histories(reader)
    trie = TrieTensors.from_trie(Trie.from_table(table("sid_trie")), reader.catalogue)
    groups_N = popularity_groups(timelines.train, num_items=reader.catalogue.num_items)
    return Catalogue(name, reader, timelines, _fused(store, release).of(reader.catalogue), trie, groups_N)


def _fused(store: Warehouse, release: Release) -> FusedVectors:
    items = store.read("items", version=release.tables["items"], columns=["item_id", "content_hash"])
    embeddings = store.scan("item_embeddings", version=release.tables["item_embeddings"])
    return FusedVectors(items.column("item_id"), matrix_for(items, embeddings, "fused", str(release.encoders["fused"]))[0])


def _rows(catalogue: Catalogue, arguments: argparse.Namespace, deadline: float) -> Iterator[dict[str, Any]]:
    wanted = arguments.only
    baselines = baselines_of(catalogue.timelines, catalogue.fused_NF, catalogue.reader.catalogue.num_items)
    for name, baseline in baselines.items():
        if wanted is None or name in wanted:
            start = time.monotonic()
            figures = judge(ranker_of(baseline.scores), catalogue.timelines.test, catalogue.groups_N)
            inputs = ["fused"] if name == "nearest_fused" else ["item"]
            yield from _of(catalogue, name, "baseline", inputs, figures, seconds=time.monotonic() - start, seed=arguments.seed)
    configs = {
        name: config
        for name, config in _configs(catalogue.name, arguments.seed).items()
        if (name not in ON_DEMAND if wanted is None else name in wanted)
    }
    for name, config in configs.items():
        left = sum(WEIGHTS[other] for other in list(configs)[list(configs).index(name) :])
        until = time.monotonic() + (deadline - time.monotonic()) * WEIGHTS[name] / left - JUDGING_SECONDS
        yield from _trained(catalogue, name, config, until, arguments.keep)


def _configs(data: str, seed: int) -> dict[str, DecoderConfig]:
    own = load_recipe(RECIPES[data]).trainer or BEAUTY
    assert isinstance(own, DecoderConfig)
    decoder = replace(own, seed=seed)
    return {
        "decoder": decoder,
        "sasrec": replace(decoder, kind="sasrec", inputs=("item",), heads=("item",)),
        "codes": replace(decoder, inputs=("codes",)),
        "rerank": replace(decoder, heads=("item", "depth"), decode="rerank", repeats=False),
    }


def _trained(catalogue: Catalogue, name: str, config: DecoderConfig, until: float, keep: Path | None) -> Iterator[dict[str, Any]]:
    start = time.monotonic()
    facts = ItemFacts.of(
        catalogue.reader.catalogue, catalogue.timelines.train, catalogue.fused_NF if "fused" in config.inputs else None
    )
    torch.manual_seed(config.seed)
    recommender = DecoderRecommender(PackedDecoder(facts, config), catalogue.trie)
    validate = validation_of(recommender, catalogue.timelines.valid, catalogue.groups_N)
    fitted = fit(
        recommender.model,
        catalogue.timelines.train,
        validate,
        keep_in=None if keep is None else keep / f"{catalogue.name}-{name}-{config.seed}",
        say=lambda line: say(f"{catalogue.name} {name}: {line}, {time.monotonic() - start:.0f} s"),
        stop=lambda: time.monotonic() > until,
    )
    seconds = time.monotonic() - start
    figures = judge(ranker_by(recommender), catalogue.timelines.test, catalogue.groups_N)
    more = {"epochs": len(fitted.curve), "best_epoch": fitted.best_epoch, "stopped_by_time": time.monotonic() > until}
    kind = config.kind
    yield from _of(catalogue, name, kind, list(config.inputs), figures, seconds=seconds, seed=config.seed, **more)


def _of(
    catalogue: Catalogue, model: str, kind: str, inputs: list[str], figures: Figures, **more: float
) -> Iterator[dict[str, Any]]:
    """Yield a row per judge."""
    for rule in JUDGES:
        prefix = "" if rule == "kept" else f"{rule}_"
        own = {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith("left_out_") == (rule == "left_out")}
        cold = int((catalogue.groups_N[catalogue.timelines.test.targets_U] == 0).sum())
        chance = 10 / catalogue.reader.catalogue.num_items
        row = {"data": catalogue.name, "model": model, "kind": kind, "inputs": inputs, "judge": rule}
        yield row | {k: round(v, 5) for k, v in own.items()} | {"cold_users": cold, "chance@10": round(chance, 5)} | more


def print_table(rows: list[dict[str, Any]]) -> None:
    columns: dict[str, Callable[[dict[str, Any]], object]] = {
        "data": lambda row: row["data"],
        "model": lambda row: row["model"],
        "inputs": lambda row: " ".join(row["inputs"]),
        "judge": lambda row: row["judge"],
        "Recall@10": lambda row: f"{row['recall@10']:.4f}",
        "95 %": lambda row: f"{row['recall@10_low']:.4f}-{row['recall@10_high']:.4f}",
        "NDCG@10": lambda row: f"{row['ndcg@10']:.4f}",
        "head": lambda row: f"{row.get('head_recall@10', 0.0):.4f}",
        "middle": lambda row: f"{row.get('middle_recall@10', 0.0):.4f}",
        "tail": lambda row: f"{row.get('tail_recall@10', 0.0):.4f}",
        "cold": lambda row: f"{row['cold_recall@10']:.4f} of {row['cold_users']}" if row["cold_users"] else "",
        "coverage": lambda row: f"{row['coverage@10']:.1%}",
        "seconds": lambda row: f"{row['seconds']:.0f}",
    }
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(show(row)) for show in columns.values()) + " |")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
