"""The assignments that the study trains on: published ones, our methods', and some that are damaged on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import published_sids
from recommend import BEAUTY_DATA, RECIPES, say

from sidlake.errors import SidlakeError
from sidlake.pipelines.compare import comparison_folder, method_paths
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id, run_step
from sidlake.pipelines.steps import STEPS
from sidlake.quality.assignment import Assignment
from sidlake.warehouse.tables import Warehouse

__all__ = ["METHODS", "Studied", "assignments_of"]

METHODS = (
    *("neighbours", "contrastive", "prorec", "grid", "p5-random", "p5-sequential", "p5-category", "p5-collaborative", "p5-hybrid"),
    *("setrec", "prorec-plain", "onerec", "grid-rvq", "rpg", "tiger"),
)
"""Methods whose fit takes a minute at most; a catalogue without categories leaves out those that need them."""
_UNORDERED = {"rpg", "setrec"}
"""Product quantizers: no code of a SID says more than another."""


@dataclass(frozen=True, slots=True, eq=False)
class Studied:
    """An assignment, whether its first code says most, and whether it was damaged on purpose."""

    assignment: Assignment
    ordered: bool = True
    damaged: bool = False


def assignments_of(
    data: str, warehouse: Path, methods: Sequence[str] = METHODS
) -> tuple[published_sids.Reference, Iterator[Studied]]:
    """Return the vectors that metrics are taken of, and the assignments, each made when it is asked for.

    Beauty has the published ones too; the recipe's own, and what is damaged of it, come next.
    """
    reference, own = _first(data, warehouse)
    published = _published() if data == "beauty" else []
    return reference, chain(published, [own], _damaged(own.assignment), _others(data, warehouse, methods))


def _published() -> Iterator[Studied]:
    folder = next(place for place in BEAUTY_DATA if (place / "sids.parquet").exists())
    return (Studied(one, ordered=_is_ordered(one)) for one, _ in published_sids.published_assignments(folder))


def _is_ordered(assignment: Assignment) -> bool:
    """Return whether levels were fitted one after the other; of published ones, the product quantizers were not."""
    return not any(name in assignment.name.lower() for name in ("opq", "_pq", "rpg", "product"))


def _first(data: str, warehouse: Path) -> tuple[published_sids.Reference, Studied]:
    with _run_of(data, "sidlake", warehouse) as ctx:
        return published_sids.reference_of(ctx), _studied(ctx, "sidlake")


def _others(data: str, warehouse: Path, methods: Sequence[str]) -> Iterator[Studied]:
    for method in methods:
        try:
            with _run_of(data, method, warehouse) as ctx:
                found = _studied(ctx, method)
        except SidlakeError as error:
            say(f"{data}, {method} left out: {error}")
        else:
            yield found


@contextmanager
def _run_of(data: str, method: str, warehouse: Path) -> Iterator[RunContext]:
    """Run the pipeline's own steps up to the SIDs, and yield the run."""
    (path,) = method_paths(RECIPES[data], [method])
    store = Warehouse.create_or_open(comparison_folder(warehouse, f"study-{data}"))
    recipe = replace(load_recipe(RECIPES[data], method=path), trainer=None)
    ctx = RunContext.open(store, recipe, run_id=new_run_id(), job="retrain")
    try:
        with store.writing(ctx.run_id):
            for step in STEPS.values():
                if step.group in ("catalog", "embeddings", "semantic_ids"):
                    run_step(ctx, step)
            yield ctx
    finally:
        store.discard_staging(ctx.run_id)


def _studied(ctx: RunContext, method: str) -> Studied:
    """Return the final SIDs of a method; where an appended digit is all that makes them unique, those without it."""
    return Studied(published_sids.sids_of(ctx, f"ours_{method}")[-1], ordered=method not in _UNORDERED)


def _damaged(base: Assignment) -> Iterator[Studied]:
    rng = np.random.default_rng(0)
    for share in (0.1, 0.3, 1.0):
        codes_NL = base.codes_NL.copy()
        moved = rng.permutation(base.num_items)[: round(share * base.num_items)]
        codes_NL[np.sort(moved)] = base.codes_NL[moved]
        yield _of(base, f"damaged_{share:.0%}_shuffled".replace("%", ""), codes_NL)
    collapsed_NL = base.codes_NL.copy()
    collapsed_NL[:, 1] = 0
    yield _of(base, "damaged_level_1_collapsed", collapsed_NL)
    yield _of(base, "damaged_coarse", base.codes_NL // 8)


def _of(base: Assignment, name: str, codes_NL: np.ndarray) -> Studied:
    return Studied(replace(base, name=name, codes_NL=codes_NL.astype(np.int32), codebooks=None, source="sidlake"), damaged=True)
