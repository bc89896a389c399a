"""How many codes an RQ-VAE uses per level on Amazon Beauty: naive training beside ours, and ours with Sinkhorn assignment.

    python benchmarks/collapse.py [--json] [--warehouse DIR]

The vectors are the fused text and behaviour of `recipes/beauty.toml`, made by the pipeline's own steps in a warehouse that is kept.
Naive is what published code does that collapses: inputs as they are, codebooks drawn at random, no dead code revived. Exit code 1
where ours uses less than 95 % of the codes of a level. Takes about four minutes.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from published_sids import RECIPE, own_assignments

from sidlake.tokenizers.registry import tokenizer_config

TRAININGS = {
    "naive": {"standardise": False, "warm_start": 0.0, "revive_every": 0},
    "ours": {},
    "ours, sinkhorn": {"sinkhorn_epsilon": 0.05},
}
LEAST = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--warehouse", type=Path, default=Path("warehouse-beauty"), help=f"where {RECIPE.name} is embedded")
    arguments = parser.parse_args()
    reference, _ = own_assignments(arguments.warehouse, [])
    result = {name: used(reference.x_ND, options) for name, options in TRAININGS.items()}
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, levels in result.items():
            print(f"{name:<16}", "  ".join(f"level {level}: {share:.1%}" for level, share in enumerate(levels)))
    if min(min(levels) for name, levels in result.items() if name != "naive") < LEAST:
        sys.exit(1)


def used(x_ND: np.ndarray, options: dict[str, object]) -> list[float]:
    """Return the share of the 256 codes per level that the rows get."""
    kind, config = tokenizer_config("rq_vae", {"widths": [256, 256, 256], **options})
    codes = kind.fit(x_ND, config).encode(x_ND)
    return [round(len(np.unique(codes[:, level])) / 256, 4) for level in range(3)]


if __name__ == "__main__":
    main()
