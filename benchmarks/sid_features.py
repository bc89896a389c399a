"""SIDs as features of a ranking model: item ids, prefix n-grams, subwords, and ids with each, on warm and on cold items.

    python benchmarks/sid_features.py [--data shop beauty] [--seeds 3] [--warehouse DIR] [--json]

SIDs are those of a release that the pipeline makes of text alone (so no item's purchases are in them), kept in `--warehouse`. The
model scores an item for a user: an `EmbeddingBag` over the item's features, the mean of the user's last ten items, and a network of
both and their product (the shape of DLRM). A tenth of the items, drawn by the hash of their id, is cold: it is in no training
example. Each user's last item is the test, among twenty others of its own kind, warm or cold; AUC and log loss over all of them,
mean over seeds and half of its 95 % interval (Student's t). Beauty may not be redistributed: without it, it is left out.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from recommend import RECIPES, ROOT, has_beauty
from scipy.stats import t as student
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn
from torch.nn import functional

from sidlake.pipelines.compare import comparison_folder
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.sid_features import Subwords, prefix_ngrams
from sidlake.warehouse.embeddings import as_codes
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

HISTORY, NEGATIVES, TESTED_AGAINST = 10, 4, 20
DIM, HIDDEN, EPOCHS, BATCH, LEARNING_RATE = 32, 64, 3, 1024, 3e-3
MOST_EXAMPLES = 200_000
MERGES = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Users' items by number, oldest first; examples are (history [P, 10], positive [P]), -1 where a history is shorter."""

    features: dict[str, tuple[np.ndarray, int]]
    cold_N: np.ndarray
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--warehouse", type=Path, default=ROOT / "lake")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.data:
        if name != "beauty" or has_beauty():
            data = read(name, arguments.warehouse)
            rows += [{"data": name, **row} for row in measured(data, arguments.seeds)]
    result = {"machine": machine("torch", "tokenizers"), "seeds": arguments.seeds, "rows": rows}
    print(json.dumps(result) if arguments.json else "\n".join(map(str, rows)))
    return 0


def read(name: str, warehouse: Path) -> Data:
    """Return the data of a recipe, whose release of text alone is made where there is none."""
    store = Warehouse.create_or_open(comparison_folder(warehouse, f"sid-features-{name}"))
    if not store.exists("releases"):
        recipe = load_recipe(RECIPES[name])
        text = {"text": recipe.encoders.fusion["text"]}
        recipe = replace(recipe, trainer=None, gates=(), encoders=replace(recipe.encoders, behaviour=None, fusion=text))
        run_job(RunContext.open(store, recipe, run_id=new_run_id(), job="retrain"))
    tables = get(store).tables
    sids = store.read("semantic_ids", version=tables["semantic_ids"], columns=["item_id", "codes"])
    names = sids.column("item_id").to_pylist()
    cold_N = item_hashes(names) % 10 == 0
    events = store.scan("interactions", version=tables["interactions"]).select("user_id", "item_id", "ts").collect()
    number = {item: row for row, item in enumerate(names)}
    events = events.sort("user_id", "ts", "item_id").unique(["user_id", "item_id"], keep="first", maintain_order=True)
    users = [
        np.array([number[i] for i in items]) for items in events.group_by("user_id", maintain_order=True).agg("item_id")["item_id"]
    ]
    train, test = examples(users, cold_N)
    return Data(features(as_codes(sids.column("codes")), cold_N), cold_N, train, test)


def examples(users: list[np.ndarray], cold_N: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return training examples, of all but users' last items and without cold ones, and tests, the last items."""
    found: list[list[tuple[np.ndarray, int]]] = [[], []]
    for items in users:
        known = items[:-1][~cold_N[items[:-1]]]
        found[0] += [(known[max(0, i - HISTORY) : i], known[i]) for i in range(1, len(known))]
        if len(known):
            found[1].append((known[-HISTORY:], items[-1]))
    rng = np.random.default_rng(0)
    kept = np.sort(rng.permutation(len(found[0]))[:MOST_EXAMPLES])
    return _as_arrays([found[0][i] for i in kept]), _as_arrays(found[1])


def features(codes_NL: np.ndarray, cold_N: np.ndarray) -> dict[str, tuple[np.ndarray, int]]:
    """Return per contender the rows [N, F] of an embedding table that each item has (0 is padding), and the table's size.

    Cold items have no id of their own: a ranking model meets them for the first time. Vocabulary and hashes know all items' SIDs,
    as a release has them, and nobody's purchases.
    """
    num, widths = len(codes_NL), tuple((codes_NL.max(axis=0) + 1).tolist())
    ids_N1 = np.where(cold_N, 1, np.arange(num) + 2)[:, None]
    hashed = prefix_ngrams(codes_NL, num_rows=2 * num) + 1
    subwords = Subwords.fit(codes_NL, widths, num_merges=MERGES)
    pieces = subwords.encode(codes_NL).astype(np.int64)
    own = num + 2
    return {
        "ids": (ids_N1, own),
        "ngrams": (hashed, 2 * num + 1),
        "subwords": (pieces, subwords.num_rows),
        "ids and ngrams": (np.hstack([ids_N1, hashed + own]), own + 2 * num + 1),
        "ids and subwords": (np.hstack([ids_N1, np.where(pieces, pieces + own, 0)]), own + subwords.num_rows),
    }


class Ranker(nn.Module):
    """Scores of items for users."""

    def __init__(self, rows_NF: np.ndarray, num_rows: int) -> None:
        super().__init__()
        self.rows = torch.from_numpy(rows_NF)
        self.bag = nn.EmbeddingBag(num_rows, DIM, mode="sum", padding_idx=0)
        nn.init.normal_(self.bag.weight, std=0.05)
        self.head = nn.Sequential(nn.Linear(3 * DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, history_BH: torch.Tensor, items_BC: torch.Tensor) -> torch.Tensor:
        """Return logits [B, C]."""
        vectors_ND = self.bag(self.rows)
        known = (history_BH >= 0).float()[:, :, None]
        user_BD = (vectors_ND[history_BH.clamp_min(0)] * known).sum(1) / known.sum(1).clamp_min(1)
        item_BCD = vectors_ND[items_BC]
        user_BCD = user_BD[:, None].expand_as(item_BCD)
        logits: torch.Tensor = self.head(torch.cat([user_BCD, item_BCD, user_BCD * item_BCD], dim=2))[:, :, 0]
        return logits


def measured(data: Data, num_seeds: int) -> Iterator[dict[str, Any]]:
    """Yield a row per contender and kind of item."""
    for name, (rows_NF, num_rows) in data.features.items():
        runs = [scores(data, trained(data, rows_NF, num_rows, seed)) for seed in range(num_seeds)]
        print(f"{name}: {runs}", file=sys.stderr)
        for kind in ("warm", "cold"):
            row: dict[str, Any] = {"features": name, "items": kind, "table_rows": num_rows}
            for metric in ("auc", "logloss"):
                values = np.array([run[f"{kind} {metric}"] for run in runs])
                half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
                row |= {metric: round(float(values.mean()), 4), f"{metric}_half_interval": round(half, 4)}
            yield row


def trained(data: Data, rows_NF: np.ndarray, num_rows: int, seed: int) -> Ranker:
    torch.manual_seed(seed)
    model, draw = Ranker(rows_NF, num_rows), torch.Generator().manual_seed(seed)
    history, positive = (torch.from_numpy(part) for part in data.train)
    warm = torch.from_numpy(np.flatnonzero(~data.cold_N))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(positive), generator=draw), BATCH):
            others = warm[torch.randint(len(warm), (len(batch), NEGATIVES), generator=draw)]
            items = torch.cat([positive[batch][:, None], others], dim=1)
            loss = functional.binary_cross_entropy_with_logits(model(history[batch], items), _labels(items))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


@torch.no_grad()
def scores(data: Data, model: Ranker) -> dict[str, float]:
    """Return AUC and log loss of the tests, warm and cold apart, each against items of its own kind; the same for all models."""
    found = {}
    for kind, of_kind_N in (("warm", ~data.cold_N), ("cold", data.cold_N)):
        tested = of_kind_N[data.test[1]]
        history, positive = (torch.from_numpy(part[tested]) for part in data.test)
        candidates = torch.from_numpy(np.flatnonzero(of_kind_N))
        draw = torch.Generator().manual_seed(1)
        others = candidates[torch.randint(len(candidates), (len(positive), TESTED_AGAINST), generator=draw)]
        items = torch.cat([positive[:, None], others], dim=1)
        logits = torch.cat([model(*part) for part in zip(history.split(4096), items.split(4096), strict=True)])
        truth, chances = _labels(items).numpy().ravel(), torch.sigmoid(logits).numpy().ravel().astype(np.float64)
        found |= {f"{kind} auc": float(roc_auc_score(truth, chances)), f"{kind} logloss": float(log_loss(truth, chances))}
    return found


def _labels(items_BC: torch.Tensor) -> torch.Tensor:
    """Return 1 where an item is the positive, which stands first (a negative that is the same item counts as one), else 0."""
    return (items_BC == items_BC[:, :1]).float()


def _as_arrays(pairs: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    history = np.full((len(pairs), HISTORY), -1, dtype=np.int64)
    for row, (items, _) in enumerate(pairs):
        history[row, : len(items)] = items
    return history, np.array([item for _, item in pairs], dtype=np.int64)


if __name__ == "__main__":
    sys.exit(main())
