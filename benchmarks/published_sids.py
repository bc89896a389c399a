"""Every metric of 23 published semantic-ID assignments of Amazon Beauty, confirmed against what their authors published.

    python benchmarks/published_sids.py [--json]

Exit code 1 where a confirmed figure differs. The data may not be redistributed: `data/README.md` says where to put it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidlake.pipelines.imported import assignment_of_table
from sidlake.quality.assignment import Assignment, ends_in_deduplication
from sidlake.quality.collision import collision_stats, gini, group_sizes
from sidlake.quality.utilisation import level_usage

ROOT = Path(__file__).resolve().parent.parent
DATA = (ROOT.parent / "shared" / "data" / "beauty", ROOT / "data" / "beauty")
WIDTH = 256
"""Codes per level of the assignments that come without figures: LETTER, IBA and CollisionGenRec state 4 levels of 256."""
PUBLISHED_GINI = {"letter_tiger": 0.0011, "collision_rkmeans_native": 0.1209}
"""Known to four digits: FORGE's coefficient over occupied SIDs."""
TOLERANCE = 1e-9
"""What counts as the same number: the authors' figures are float64 sums in another order."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object per assignment")
    parser.add_argument("--data", type=Path, help="folder of the Beauty files")
    arguments = parser.parse_args()
    folder = arguments.data or next((path for path in DATA if (path / "sids.parquet").is_file()), None)
    if folder is None:
        parser.error(f"no sids.parquet in {' or '.join(str(path) for path in DATA)}: see data/README.md")
    rows = [measure_codes(assignment, published) for assignment, published in published_assignments(folder)]
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
    """Print a Markdown table, best first."""
    columns = {
        "assignment": lambda row: row["assignment"],
        "levels": lambda row: f"{row['levels']}x{row['widths'][0]}",
        "different SIDs": lambda row: f"{row['unique']:,}",
        "duplicates": lambda row: f"{row['duplicates']:,}",
        "largest group": lambda row: row["largest_group"],
        "leaf Gini": lambda row: f"{row['leaf_gini']:.4f}",
        "used": lambda row: f"{row['utilisation']:.1%}",
        "least used": lambda row: f"{row['lowest_utilisation']:.1%}",
        "entropy, nats": lambda row: f"{row['entropy']:.3f}",
        "normalised": lambda row: f"{row['normalised_entropy']:.3f}",
        "confirmed": lambda row: {True: f"yes, {len(row['compared'])}", False: "**no**", None: "-"}[row["confirmed"]],
    }
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(show(row)) for show in columns.values()) + " |")


if __name__ == "__main__":
    sys.exit(main())
