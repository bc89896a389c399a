"""Which metrics of semantic IDs say what a recommender will make of them: the same model on each of many assignments.

    python benchmarks/metric_study.py [--data beauty | shop] [--minutes M] [--seeds 0] [--epochs 8] [--keep FOLDER] [--json]

Beauty: 23 published assignments, our methods, and five that were damaged on purpose; the shop: our methods and the damaged ones.
A model sees codes alone (`studying.training`), is trained for the same epochs, and judged on each user's last item over the whole
catalogue; items that share a SID are ranked at random. Metrics are those of `sidlake.quality.measure` with codebooks refitted to
the recipe's fused vectors, so that assignments without codebooks are measured like the others; hit rates ask for the same last
items, which neither the vectors nor the training have seen. Of a metric per level the first level and the mean stand in the table.

Every trained model and every measurement is a JSON file in `--keep`: a killed study goes on where it was, and `--minutes` ends it
early. Printed: per assignment its metrics and figures, correlations with Recall@10 and NDCG@10 (`studying.correlations`), and the
best two metrics with what they predict of an assignment left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from published_sids import Reference, first_sessions
from recommend import ROOT, Catalogue, catalogue_of, has_beauty, say
from studying.assignments import METHODS, Studied, assignments_of
from studying.correlations import best_pair, correlations
from studying.training import trained_on

from sidlake.quality.assignment import Assignment
from sidlake.quality.measure import measure
from sidlake.quality.metrics.refit import held_out_error, refit_codebooks

FIGURES = ("recall@10", "ndcg@10")
SESSIONS = 5_000
"""Sessions of the hit rates: a standard error of .006 at most."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["beauty", "shop"], default="beauty")
    parser.add_argument("--minutes", type=float, default=None, help="train no further model after so many minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="of recipes/methods")
    parser.add_argument("--only", nargs="+", help="assignments to train on")
    parser.add_argument("--warehouse", type=Path, default=ROOT / "lake")
    parser.add_argument("--keep", type=Path, default=None, help="folder of the results (default: study below the warehouse)")
    parser.add_argument("--plot", type=Path, default=None, help="write a picture of the strongest metrics")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if given.data == "beauty" and not has_beauty():
        return 1
    torch.set_num_threads(1)  # a model's bits depend on it
    rows = study(given, time.monotonic() + 60 * given.minutes if given.minutes else float("inf"))
    result = summary(rows) | {"machine": machine("torch", "transformers", "scipy"), "epochs": given.epochs}
    if given.plot is not None:
        from studying.plot import plot

        plot(rows, result["correlations"]["recall@10"], given.plot)
    print(json.dumps(result, indent=1) if given.json else _told(result))
    return 0


def study(given: argparse.Namespace, until: float) -> list[dict[str, Any]]:
    """Return a row per assignment that has a trained model: its metrics, and the mean of its figures over seeds."""
    keep = (given.keep or given.warehouse / "study") / given.data
    catalogue = catalogue_of(given.data, given.warehouse)
    reference, studied = assignments_of(given.data, given.warehouse, given.methods)
    rows = []
    for one in studied:
        name = one.assignment.name
        if (given.only is None or name in given.only) and time.monotonic() < until:
            measured = _kept(keep / "metrics" / f"{name}.json", lambda one=one: _measured(one.assignment, reference))
            runs = [_trained(one, catalogue, keep, epochs=given.epochs, seed=seed) for seed in given.seeds]
            rows.append(_row(one, measured, runs))
    return rows


def _trained(one: Studied, catalogue: Catalogue, keep: Path, *, epochs: int, seed: int) -> dict[str, Any]:
    name = one.assignment.name
    place = keep / f"epochs-{epochs}" / f"{name}-{seed}.json"
    row = _kept(place, lambda: trained_on(one.assignment, catalogue, seed=seed, epochs=epochs))
    say(f"{name}, seed {seed}: Recall@10 {row['recall@10']:.4f}, {row['seconds']:.0f} s")
    return row


def _kept(place: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what stands in `place`, after making it where nothing does; written whole or not at all."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_suffix(".new")
        beside.write_text(json.dumps(make()), encoding="utf-8")
        beside.replace(place)
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return found


def _measured(assignment: Assignment, reference: Reference) -> dict[str, Any]:
    """Return the metrics of an assignment by name; those of levels as ``name[first]`` and ``name[mean]``."""
    ours = assignment.aligned_to(reference.item_ids)
    fitted = refit_codebooks(ours.codes_NL, ours.widths, reference.x_ND)
    metrics = measure(
        ours.codes_NL,
        ours.codes_NL,
        widths=ours.widths,
        vectors_ND=reference.x_ND,
        decode=fitted.decode,
        sessions=first_sessions(reference.sessions, SESSIONS),
    )
    whole = {one.metric: one.value for one in metrics if one.level is None}
    of_level = defaultdict[str, list[float]](list)
    for one in metrics:
        if one.level is not None and one.value is not None:
            of_level[one.metric].append(one.value)
    of_level_0 = {f"{name}[first]": values[0] for name, values in of_level.items()}
    means = {f"{name}[mean]": float(np.mean(values)) for name, values in of_level.items()}
    held_out = {"held_out_error": held_out_error(ours.codes_NL, ours.widths, reference.x_ND)}
    capacity = {"log_capacity": float(np.log2(np.array(ours.widths, dtype=np.float64)).sum())}
    return {"metrics": whole | of_level_0 | means | held_out | capacity, "levels": ours.num_levels}


def _row(one: Studied, measured: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    about = {"assignment": one.assignment.name, "ordered": one.ordered, "damaged": one.damaged}
    names = [name for name in runs[0] if name.endswith(FIGURES)]
    return about | measured | {name: round(float(np.mean([run[name] for run in runs])), 5) for name in names} | {"runs": runs}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows, best first, with correlations and the best two metrics for each figure."""
    return {
        "assignments": sorted(rows, key=lambda row: -row["recall@10"]),
        "correlations": {figure: correlations(rows, figure) for figure in FIGURES},
        "best_pair": {figure: best_pair(rows, figure) for figure in FIGURES},
    }


def _told(result: dict[str, Any]) -> str:
    lines = ["| assignment | levels | collisions | EHR | Recall@10 | NDCG@10 | left out |", "|---|---|---|---|---|---|---|"]
    for row in result["assignments"]:
        metrics = row["metrics"]
        lines.append(
            f"| {row['assignment']} | {row['levels']} | {metrics['raw_collision_rate']:.1%} | {metrics['ehr_reconstructed']:.4f} "
            f"| {row['recall@10']:.4f} | {row['ndcg@10']:.4f} | {row['left_out_recall@10']:.4f} |"
        )
    lines += ["", "| metric | subset | n | Spearman | 95 % | Pearson | given length |", "|---|---|---|---|---|---|---|"]
    for one in result["correlations"]["recall@10"]:
        given = "" if one["spearman_given_length"] is None else f"{one['spearman_given_length']:.2f}"
        lines.append(
            f"| {one['metric']} | {one['subset']} | {one['assignments']} | {one['spearman']:.2f} "
            f"| {one['spearman_low']:.2f} to {one['spearman_high']:.2f} | {one['pearson']:.2f} | {given} |"
        )
    return "\n".join([*lines, "", f"best two: {result['best_pair']}"])


if __name__ == "__main__":
    sys.exit(main())
