"""Several ways of making semantic IDs on one catalogue, measured alike: what a team looks at before it chooses a recipe.

Each method runs the production steps, from ingest to the quality check, in a warehouse of its own beside the real one
(``comparisons/<catalogue>``): what is compared is what would be published, and nothing here can be published. Vectors that methods
share are computed once. The rows are kept in ``comparison.parquet`` there, one per method, replaced when the method runs again.

A method that this catalogue cannot serve (no interactions, no categories) is a row that says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.errors import NotFoundError, RecipeError, SidlakeError
from sidlake.pipelines.progress import Progress
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, StepReport, new_run_id, run_step
from sidlake.pipelines.run_state import forget_state
from sidlake.pipelines.settings.methods import methods_in, shipped_methods
from sidlake.pipelines.steps import STEPS, describe
from sidlake.quality.imported import read_assignment
from sidlake.tokenizers.registry import tokenizer_class
from sidlake.warehouse.places.location import locate
from sidlake.warehouse.tables import Warehouse
from sidlake.whole_files import replacing

__all__ = ["Compared", "compare", "compare_method", "comparison_folder", "method_paths"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One method's row. Figures are None where they do not apply: hit rates without interactions, anything after an error.

    Attributes:
        method: its name.
        status: ``ok``, or why it could not run on this catalogue.
        source, deviates: what the method's file says of its paper and of what differs here.
        kind, uniqueness, widths: the tokenizer.
        ordered: whether a code refines the codes before it.
        raw_collision_rate: 1 - different raw SIDs / items.
        unique_share: different SIDs / items.
        moved_share, mean_move_cost: items that uniqueness moved, and by how much their error (Euclidean) grew.
        lowest_utilisation: used codes / width of the level that uses the fewest; an appended digit does not count.
        reconstruction_error: squared error of the SIDs' vectors / variance.
        ehr_raw, ehr_reconstructed: hit rate at 30 of the vectors, and of what the final SIDs say of them.
        ehr_unmoved: the same of the raw codes: what uniqueness cost.
        modalities: JSON, the share of the fused vectors that each modality explains.
        embed_seconds, fit_seconds, assign_seconds: wall time; embedding counts what earlier methods had not computed.
    """

    method: str
    status: str
    source: str = ""
    deviates: str = ""
    kind: str = ""
    uniqueness: str = ""
    widths: str = ""
    ordered: bool | None = None
    items: int | None = None
    raw_collision_rate: float | None = None
    unique_share: float | None = None
    moved_share: float | None = None
    mean_move_cost: float | None = None
    lowest_utilisation: float | None = None
    reconstruction_error: float | None = None
    ehr_raw: float | None = None
    ehr_unmoved: float | None = None
    ehr_reconstructed: float | None = None
    ehr_random_floor: float | None = None
    modalities: str = ""
    embed_seconds: float | None = None
    fit_seconds: float | None = None
    assign_seconds: float | None = None


def method_paths(recipe: Path, names: Sequence[str] = (), *, warehouse: Path | None = None) -> list[Path]:
    """Return the files of the methods named (a name, or a path); without names all of the folder ``methods`` beside the recipe.

    A name is that of a file there, else of SIDs that were imported into `warehouse`, else of a method that is installed with
    sidlake; those are also all of them where no folder lies beside the recipe. Raises `NotFoundError` for a name that has no file,
    with those that do.
    """
    own = methods_in(recipe.parent)
    imported = (
        {} if warehouse is None else {path.stem: path for path in (locate(warehouse).folder / "assignments").glob("*.parquet")}
    )
    known = shipped_methods() | imported | own
    found = []
    for name in names or own or shipped_methods():
        path = known.get(name, Path(name))
        if not path.is_file():
            msg = f"there is no method {name!r}; known are {', '.join(sorted(known))}; a path to a TOML file will do as well"
            raise NotFoundError(msg, method=name)
        found.append(path)
    return found


def compare(
    recipe: Path, methods: Sequence[Path], warehouse: Path, *, progress: Progress | None = None, memory: int | None = None
) -> list[Compared]:
    """Return one row per method, in their order, each run on the catalogue of `recipe` within `memory` (`RunContext.open`)."""
    return [compare_method(recipe, method, warehouse, progress=progress, memory=memory) for method in methods]


def compare_method(
    recipe: Path, method: Path, warehouse: Path, *, progress: Progress | None = None, memory: int | None = None
) -> Compared:
    """Return the row of one method, and keep it in ``comparison.parquet``; an error of the method is its status."""
    say = progress or Progress()
    say.say(f"-- {method.stem}")
    name = load_recipe(recipe).name
    given = read_assignment(method, "parquet", name=method.stem) if method.suffix == ".parquet" else None
    try:
        loaded = load_recipe(recipe, method=None if given else method)
    except RecipeError as error:  # the recipe alone is fine, so the catalogue lacks what the method needs, or its file is wrong
        return Compared(method=method.stem, status=f"RecipeError: {error}")
    store = Warehouse.create_or_open(comparison_folder(warehouse, name))
    ctx = RunContext.open(store, loaded, run_id=new_run_id(), job="retrain", progress=say, given=given, memory=memory)
    try:
        with store.writing(ctx.run_id):
            row = _run(ctx, method.stem)
            _keep(store.root / "comparison.parquet", row)
    finally:
        store.discard_staging(ctx.run_id)
        forget_state(store, ctx.run_id)
    return row


def comparison_folder(warehouse: Path, catalogue: str) -> Path:
    """Return where the comparisons of a catalogue are kept."""
    return warehouse / "comparisons" / catalogue


def _run(ctx: RunContext, name: str) -> Compared:
    tokenizer, about = ctx.recipe.tokenizer, ctx.recipe.method
    row = Compared(
        method=name,
        status="ok",
        source=ctx.given.source if ctx.given else about.source if about else "",
        deviates=" ".join(about.deviates) if about and not ctx.given else "",
        kind="imported" if ctx.given else tokenizer.kind,
        uniqueness=tokenizer.uniqueness,
        ordered=tokenizer_class(tokenizer.kind).ordered,
    )
    _timed(ctx, "ingest")
    try:
        embed = sum(_timed(ctx, name)[1] for name, step in STEPS.items() if step.group == "embeddings")
        fitted, fit = _timed(ctx, "fit")
        assigned, taken = _timed(ctx, "assign")
        _timed(ctx, "check")
    except SidlakeError as error:
        ctx.progress.say(f"{name}: {error}")
        return replace(row, status=f"{type(error).__name__}: {error}")
    widths = "x".join(str(width) for width in fitted.details["widths"])  # type: ignore[attr-defined]
    return replace(
        row,
        widths=widths,
        items=assigned.rows["semantic_ids"],
        modalities=json.dumps(ctx.state.explained, sort_keys=True),
        embed_seconds=round(embed, 2),
        fit_seconds=round(fit, 2),
        assign_seconds=round(taken, 2),
        **_metrics(ctx),
    )


def _timed(ctx: RunContext, name: str) -> tuple[StepReport, float]:
    start = time.perf_counter()
    with ctx.progress.running(name):
        report = run_step(ctx, STEPS[name])
    seconds = time.perf_counter() - start
    if not report.skipped:
        ctx.progress.say(describe(report, seconds))
    return report, seconds


_METRICS = {
    "raw_collision_rate": "raw_collision_rate",
    "unique_share": "unique_share",
    "moved_share": "moved_share",
    "mean_move_cost": "mean_move_cost",
    "reconstruction_error": "relative_reconstruction_error",
    "ehr_raw": "ehr_raw",
    "ehr_unmoved": "ehr_unmoved",
    "ehr_reconstructed": "ehr_reconstructed",
    "ehr_random_floor": "ehr_random_floor",
}


def _metrics(ctx: RunContext) -> dict[str, Any]:
    rows = ctx.read("sid_quality", ["metric", "level", "value"]).to_pylist()
    whole = {row["metric"]: row["value"] for row in rows if row["level"] is None}
    usage = [row["value"] for row in sorted(rows, key=lambda row: row["level"] or 0) if row["metric"] == "level_utilisation"]
    usage = usage[:-1] if ctx.recipe.tokenizer.uniqueness == "append" else usage  # the digit is no code
    return {name: whole.get(metric) for name, metric in _METRICS.items()} | {"lowest_utilisation": min(usage)}


def _keep(path: Path, row: Compared) -> None:
    """Put the row in the file, in place of the method's former one; the file is replaced as a whole."""
    rows = [old for old in (pq.read_table(path).to_pylist() if path.exists() else []) if old["method"] != row.method]
    fields = Compared.__dataclass_fields__
    kinds = {"str": pa.string(), "bool | None": pa.bool_(), "int | None": pa.int64(), "float | None": pa.float64()}
    schema = pa.schema([(name, kinds[str(field.type)]) for name, field in fields.items()])
    kept = [{name: entry.get(name) for name in fields} for entry in [*rows, asdict(row)]]
    with replacing(path) as beside:
        pq.write_table(pa.Table.from_pylist(sorted(kept, key=lambda entry: entry["method"]), schema=schema), beside)
