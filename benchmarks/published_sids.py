"""Every metric of 23 published semantic-ID assignments of Amazon Beauty, confirmed against what their authors published.

    python benchmarks/published_sids.py [--json] [--methods grid rpg ...] [--codes-only]

Exit code 1 where a confirmed figure differs. The data may not be redistributed: `data/README.md` says where to put it.

Hit rates compare assignments that come without codebooks, so each gets additive codebooks refitted to one reference embedding: the
fused vectors of `recipes/beauty.toml`, made by the pipeline's own steps in a warehouse (kept, so a second run embeds nothing). The
recipe's own semantic IDs, and those of the `--methods` named, go the same way as the published ones.

More codes fit better whatever they mean. Beside each figure of all levels stand the same of the first levels, at most
`COMPARABLE_LEVELS`, of the same codes dealt to items at random (`shuffled_*`), and the error of items left out of the fit
(`held_out_error`; above 1 the refit says nothing of an item). Items that share a SID share a vector; such ties are broken by the
raw vectors, and `ehr_tie_rate` says how often.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidlake.pipelines.compare import comparison_folder, method_paths
from sidlake.pipelines.fit_inputs.split import hit_rate_sessions, ordered_events
from sidlake.pipelines.generation import fused_vectors
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id, run_step
from sidlake.pipelines.steps import STEPS
from sidlake.quality.assignment import Assignment, ends_in_deduplication
from sidlake.quality.imported import assignment_of_table
from sidlake.quality.metrics.collision import collision_stats, gini, group_sizes
from sidlake.quality.metrics.hit_rate import EmbeddingHitRate, embedding_hit_rate
from sidlake.quality.metrics.refit import held_out_error, refit_codebooks
from sidlake.quality.metrics.sessions import Sessions
from sidlake.quality.metrics.utilisation import level_usage
from sidlake.warehouse.tables import Warehouse

ROOT = Path(__file__).resolve().parent.parent
DATA = (ROOT.parent / "shared" / "data" / "beauty", ROOT / "data" / "beauty")
WIDTH = 256
"""Codes per level of the assignments that come without figures: LETTER, IBA and CollisionGenRec state 4 levels of 256."""
PUBLISHED_GINI = {"letter_tiger": 0.0011, "collision_rkmeans_native": 0.1209}
"""Known to four digits: FORGE's coefficient over occupied SIDs."""
TOLERANCE = 1e-9
"""What counts as the same number: the authors' figures are float64 sums in another order."""
RECIPE = ROOT / "recipes" / "beauty.toml"
COMPARABLE_LEVELS = 4
K = 30
CONTROL_SESSIONS = 2_000
"""Sessions of the shuffled control, whose figure needs two digits only."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reference:
    """What codebooks are refitted to, and what hit rates are scored on."""

    statement: str
    item_ids: pa.Array
    x_ND: np.ndarray
    sessions: Sessions
    raw: EmbeddingHitRate


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object per assignment")
    parser.add_argument("--data", type=Path, help="folder of the Beauty files")
    parser.add_argument("--warehouse", type=Path, default=ROOT / "warehouse", help="where embeddings are kept between runs")
    parser.add_argument("--methods", nargs="*", default=[], help="also these of recipes/methods; the recipe itself always")
    parser.add_argument("--codes-only", action="store_true", help="leave out the metrics that need vectors, and our own recipes")
    arguments = parser.parse_args(argv)
    folder = arguments.data or next((path for path in DATA if (path / "sids.parquet").is_file()), None)
    if folder is None:
        parser.error(f"no sids.parquet in {' or '.join(str(path) for path in DATA)}: see data/README.md")
    assignments = published_assignments(folder)
    if not arguments.codes_only:
        reference, own = own_assignments(arguments.warehouse, arguments.methods)
        assignments += [(assignment, None) for assignment in own]
    rows = []
    for assignment, published in assignments:
        rows.append(measure_codes(assignment, published))
        if not arguments.codes_only:
            rows[-1] |= measure_vectors(assignment, reference)
            print(f"{assignment.name}: EHR@{K} {rows[-1]['ehr_reconstructed']:.4f}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print_table(rows)
    wrong = [pair for row in rows for pair in row["compared"] if not pair["equal"]]
    for pair in wrong:
        print(f"differs: {pair}", file=sys.stderr)
    return 1 if wrong else 0


def published_assignments(folder: Path) -> list[tuple[Assignment, dict[str, Any] | None]]:
    """Return the assignments in the file's order, an added de-duplication level stripped, with their authors' figures or None."""
    table = pq.read_table(folder / "sids.parquet")
    found = []
    for method in pc.unique(table.column("method")).to_pylist():
        rows = table.filter(pc.equal(table.column("method").cast("string"), method))
        file = folder / "unigenrec_metrics" / f"{method.removeprefix('unigenrec_')}.metrics.json"
        published = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        found.append((stripped(rows, method, published), published))
    return found


def stripped(rows: pa.Table, method: str, published: dict[str, Any] | None) -> Assignment:
    """Return the assignment without a level that its authors added and their figures leave out."""
    source = rows.column("source")[0].as_py()
    num_levels = rows.column("codes")[0].values
    widths = [WIDTH] * len(num_levels)
    if published:
        widths[: published["num_layers"]] = [layer["codebook_size"] for layer in published["layers"]]
    whole = assignment_of_table(rows, name=method, widths=widths, source=source, where="sids.parquet")
    if published is None or published["num_layers"] == whole.num_levels:
        return whole
    assert published["num_layers"] == whole.num_levels - 1, method
    assert ends_in_deduplication(whole.codes_NL), method
    return whole.first_levels(published["num_layers"], why="it numbers the items of one SID")


def measure_codes(assignment: Assignment, published: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return every metric that needs codes alone, and the figures compared with published ones."""
    codes_NL = assignment.codes_NL
    collisions = collision_stats(codes_NL)
    usage = level_usage(codes_NL, assignment.widths)
    row = {
        "assignment": assignment.name,
        "source": assignment.source,
        "stripped": list(assignment.stripped),
        "items": assignment.num_items,
        "levels": assignment.num_levels,
        "widths": list(assignment.widths),
        "unique": collisions.num_unique,
        "duplicates": assignment.num_items - collisions.num_unique,
        "collision_rate": collisions.collision_rate,
        "uniquely_identified_share": collisions.uniquely_identified_share,
        "largest_group": collisions.largest_group,
        "group_size_histogram": [list(entry) for entry in collisions.group_size_histogram],
        "leaf_gini": gini(group_sizes(codes_NL)),
        "utilisation": float(np.mean([level.utilisation for level in usage])),
        "lowest_utilisation": min(level.utilisation for level in usage),
        "entropy": float(np.mean([level.entropy for level in usage])),
        "normalised_entropy": float(np.mean([level.normalised_entropy for level in usage])),
        "per_level": [
            {
                "level": level.level,
                "width": level.width,
                "used": level.num_used,
                "dead": level.num_dead,
                "utilisation": level.utilisation,
                "entropy": level.entropy,
                "normalised_entropy": level.normalised_entropy,
                "perplexity": level.perplexity,
            }
            for level in usage
        ],
    }
    compared = compare(row, published)
    return row | {"confirmed": all(pair["equal"] for pair in compared) if compared else None, "compared": compared}


def own_assignments(warehouse: Path, methods: list[str]) -> tuple[Reference, list[Assignment]]:
    """Return the reference, and the semantic IDs of our recipe and `methods`, raw and made unique, by the pipeline's own steps."""
    reference, own = None, []
    for method in [None, *method_paths(RECIPE, methods)] if methods else [None]:
        store = Warehouse.create_or_open(comparison_folder(warehouse, "beauty"))
        ctx = RunContext.open(store, load_recipe(RECIPE, method=method), run_id=new_run_id(), job="retrain")
        try:
            with store.writing(ctx.run_id):
                for step in STEPS.values():
                    if step.group in ("catalog", "embeddings", "semantic_ids"):
                        run_step(ctx, step)
                reference = reference or reference_of(ctx)
                own += sids_of(ctx, f"ours_{method.stem}" if method else "ours_beauty.toml")
        finally:
            store.discard_staging(ctx.run_id)
    assert reference is not None
    return reference, own


def reference_of(ctx: RunContext) -> Reference:
    """Return the run's fused vectors, in item_id order, and its sessions: history, then the last item, which no vector has seen."""
    items, x_ND = fused_vectors(ctx)
    events = ordered_events(ctx.read("interactions", ["user_id", "item_id", "ts"]))
    sessions = hit_rate_sessions(events, ctx.recipe.split, items.column("item_id"))
    blocks = " + ".join(f"{block.weight} x {name} ({block.dim})" for name, block in ctx.recipe.encoders.fusion.items())
    return Reference(
        statement=f"fused vectors of recipes/{RECIPE.name}: {blocks}",
        item_ids=items.column("item_id").combine_chunks(),
        x_ND=x_ND,
        sessions=sessions,
        raw=embedding_hit_rate(x_ND, sessions, k=K),
    )


def sids_of(ctx: RunContext, name: str) -> list[Assignment]:
    """Return the run's semantic IDs before and after they were made unique; an appended digit is left out, and then both agree."""
    rows = ctx.read("semantic_ids", ["item_id", "codes", "raw_codes"])
    widths = np.bincount(ctx.read("codebooks", ["level"]).column("level").to_numpy()).tolist()
    found = []
    for suffix, column in (("_raw", "raw_codes"), ("", "codes")):
        table = pa.table({"item_id": rows.column("item_id"), "codes": rows.column(column)})
        whole = assignment_of_table(table, name=name + suffix, widths=widths, source="sidlake", where="semantic_ids")
        digit = ctx.recipe.tokenizer.uniqueness == "append"
        found.append(whole.first_levels(whole.num_levels - 1, why="the appended digit") if digit else whole)
    return found[:1] if ctx.recipe.tokenizer.uniqueness in ("append", "none") else found


def measure_vectors(assignment: Assignment, reference: Reference) -> dict[str, Any]:
    """Return hit rates and errors of codebooks refitted to the reference."""
    ours = assignment.aligned_to(reference.item_ids)
    x_ND, sessions = reference.x_ND, reference.sessions
    fitted = refit_codebooks(ours.codes_NL, ours.widths, x_ND)
    rate = embedding_hit_rate(fitted.decode(ours.codes_NL), sessions, k=K, tie_break_ND=x_ND)
    first, first_rate = fitted, rate
    num_first = min(ours.num_levels, COMPARABLE_LEVELS)
    if num_first < ours.num_levels:
        few = ours.first_levels(num_first, why="to compare")
        first = refit_codebooks(few.codes_NL, few.widths, x_ND)
        first_rate = embedding_hit_rate(first.decode(few.codes_NL), sessions, k=K, tie_break_ND=x_ND)
    dealt_NL = ours.codes_NL[np.random.default_rng(0).permutation(ours.num_items)]
    shuffled = refit_codebooks(dealt_NL, ours.widths, x_ND, tolerance=1e-5)
    control = first_sessions(sessions, CONTROL_SESSIONS)
    return {
        "reference": reference.statement,
        "refit_levels": ours.num_levels,
        "refit_sweeps": fitted.num_sweeps,
        "refit_converged": fitted.converged,
        "relative_reconstruction_error": fitted.relative_error,
        "held_out_error": held_out_error(ours.codes_NL, ours.widths, x_ND),
        "shuffled_error": shuffled.relative_error,
        "ehr_k": K,
        "ehr_num_sessions": rate.num_sessions,
        "ehr_random_floor": rate.random_floor,
        "ehr_raw": reference.raw.value,
        "ehr_reconstructed": rate.value,
        "ehr_ci_low": rate.ci_low,
        "ehr_ci_high": rate.ci_high,
        "ehr_tie_rate": rate.tie_rate,
        "first_levels": num_first,
        "first_levels_error": first.relative_error,
        "first_levels_ehr": first_rate.value,
        "first_levels_tie_rate": first_rate.tie_rate,
        "shuffled_ehr": embedding_hit_rate(shuffled.decode(dealt_NL), control, k=K, tie_break_ND=x_ND).value,
    }


def first_sessions(sessions: Sessions, num_sessions: int) -> Sessions:
    """Return the first sessions; users are in the order of their identifiers, which says nothing of what they buy."""
    kept = min(num_sessions, sessions.num_sessions)
    end = int(sessions.offsets[kept])
    return Sessions(items_flat=sessions.items_flat[:end], offsets=sessions.offsets[: kept + 1], targets=sessions.targets[:kept])


def compare(row: dict[str, Any], published: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return what both sides state: name, ours, theirs, whether equal (counts exactly, others within `TOLERANCE`)."""
    pairs = []
    if published is not None:
        pairs += [pair("items", row["items"], published["num_items"])]
        pairs += [pair("unique", row["unique"], published["sid"]["unique_count"])]
        pairs += [pair("duplicates", row["duplicates"], published["sid"]["duplicate_count"])]
        pairs += [pair("collision_rate", row["collision_rate"], published["sid"]["duplicate_rate"])]
        for ours, theirs in zip(row["per_level"], published["layers"], strict=True):
            for name, key in (
                ("used", "used_tokens"),
                ("dead", "unused_tokens"),
                ("utilisation", "utilization"),
                ("entropy", "entropy"),
                ("normalised_entropy", "normalized_entropy"),
            ):
                pairs.append(pair(f"level {ours['level']} {name}", ours[name], theirs[key]))
        for name, key in (("utilisation", "utilization"), ("entropy", "entropy"), ("normalised_entropy", "normalized_entropy")):
            pairs.append(pair(f"mean {name}", row[name], published["averages"][key]))
    if row["assignment"] in PUBLISHED_GINI:
        pairs.append(pair("leaf_gini", round(row["leaf_gini"], 4), PUBLISHED_GINI[row["assignment"]]))
    return pairs


def pair(what: str, ours: float, theirs: float) -> dict[str, Any]:
    exact = isinstance(theirs, int)
    return {"what": what, "ours": ours, "theirs": theirs, "equal": ours == theirs if exact else abs(ours - theirs) <= TOLERANCE}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print Markdown tables: of codes in the order given, and of vectors, best first."""
    print_columns(
        rows,
        {
            "assignment": lambda row: row["assignment"],
            "levels": lambda row: f"{row['levels']}x{row['widths'][0]}",
            "different SIDs": lambda row: f"{row['unique']:,}",
            "duplicates": lambda row: f"{row['duplicates']:,}",
            "largest group": lambda row: row["largest_group"],
            "leaf Gini": lambda row: f"{row['leaf_gini']:.4f}",
            "codes used": lambda row: f"{row['utilisation']:.1%}",
            "least used level": lambda row: f"{row['lowest_utilisation']:.1%}",
            "entropy, nats": lambda row: f"{row['entropy']:.3f}",
            "normalised": lambda row: f"{row['normalised_entropy']:.3f}",
            "confirmed": lambda row: {True: f"yes, {len(row['compared'])}", False: "**no**", None: ""}[row["confirmed"]],
        },
    )
    if "ehr_raw" not in rows[0]:
        return
    about = rows[0]
    print(f"\nReference: {about['reference']}, raw EHR@{K} {about['ehr_raw']:.4f}; random lists {about['ehr_random_floor']:.4f};")
    print(f"{about['ehr_num_sessions']:,} sessions.\n")
    print_columns(
        sorted(rows, key=lambda row: -row["first_levels_ehr"]),
        {
            "assignment": lambda row: row["assignment"],
            "first levels": lambda row: row["first_levels"],
            "EHR of them": lambda row: f"{row['first_levels_ehr']:.4f}",
            "error of them": lambda row: f"{row['first_levels_error']:.3f}",
            "levels": lambda row: row["refit_levels"],
            "EHR": lambda row: f"{row['ehr_reconstructed']:.4f}",
            "ties": lambda row: f"{row['ehr_tie_rate']:.1%}",
            "EHR if dealt": lambda row: f"{row['shuffled_ehr']:.3f}",
            "error": lambda row: f"{row['relative_reconstruction_error']:.3f}",
            "left out": lambda row: f"{row['held_out_error']:.3f}",
            "if dealt": lambda row: f"{row['shuffled_error']:.3f}",
        },
    )


def print_columns(rows: list[dict[str, Any]], columns: dict[str, Callable[[dict[str, Any]], object]]) -> None:
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(show(row)) for show in columns.values()) + " |")


if __name__ == "__main__":
    sys.exit(main())
