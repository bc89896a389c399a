"""The steps that make semantic IDs: fit the codebooks of a new generation, and assign unique codes to items that have none.

A generation is frozen once published: `refresh` only adds items, encoded with its codebooks and made unique against the SIDs
that are taken. `retrain` starts a new generation when items, vectors or the tokenizer's settings have changed, and names its codes
after those of the one before (`former_generation`).

Memory: fitting holds a sample of at most `max_fit_rows` vectors; assigning holds 40 bytes per new item and level, and the
vectors of colliding items only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidlake.errors import ArtifactError
from sidlake.pipelines.engines import stage
from sidlake.pipelines.fit_inputs.former_generation import aligned_model, former_codes, starting_facts
from sidlake.pipelines.fit_inputs.item_facts import facts_for_fit, facts_of_rows, with_facts
from sidlake.pipelines.fit_inputs.trained_on import trained_on
from sidlake.pipelines.retirement import retired_rows, returned_rows, taken_sids, write_retired
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.tokenizers.artifact import codebook_hash, load_codebook, save_codebook
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.registry import tokenizer_class
from sidlake.tokenizers.semantic_id import format_sids, sid_keys
from sidlake.tokenizers.tokenizer import Tokenizer
from sidlake.tokenizers.uniqueness.append_digit import AppendDigit
from sidlake.tokenizers.uniqueness.reassign import Assignment
from sidlake.tokenizers.uniqueness.strategies import make_unique
from sidlake.warehouse.contracts import conform
from sidlake.warehouse.embeddings import as_code_lists, as_codes, as_lists, as_matrix, matrix_for, present_modalities
from sidlake.warehouse.ledger import generations
from sidlake.warehouse.releases import history

__all__ = ["EncodeVectors", "assign", "fit_codebooks", "fused_vectors", "load_generation"]

_VECTORS_PER_GROUP = 32_768


@dataclass(frozen=True, slots=True)
class EncodeVectors:
    """Transform: rows of item_id and vector become item_id, raw codes and residual norm, with the codebook in the file `path`.

    `digest` is the codebook's hash: a worker that finds another codebook under the path refuses to go on.
    """

    path: str
    digest: str

    def setup(self) -> None:
        """Load the codebook."""
        _codebook(self.path, self.digest)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return one row of codes per vector."""
        model = _codebook(self.path, self.digest)
        codes_NL, norms_N = model.encode_with_norms(as_matrix(rows.column("vector")), facts=facts_of_rows(rows))
        return pa.table({"item_id": rows.column("item_id"), "codes": as_code_lists(codes_NL), "residual_norm": pa.array(norms_N)})


def fit_codebooks(ctx: RunContext) -> StepReport:
    """Fit the tokenizer of a new generation on the fused vectors, in item_id order; a refresh keeps the generation's.

    The report says what share of the items of both generations changed codes, with the codes named anew and without.

    Raises:
        FitError: fewer items than codes of a level, or the catalogue lacks what the tokenizer learns from.
    """
    config, fused = ctx.recipe.tokenizer, _fused_id(ctx)
    kind = tokenizer_class(config.kind)
    learns_from = ["items", *(["interactions"] if kind.fit_needs and ctx.recipe.interactions else [])]
    settings = [config, fused, ctx.recipe.split.pair_window if kind.fit_needs else None]
    if ctx.job == "refresh" or ctx.unchanged("fit", inputs=learns_from, outputs=["codebooks"], config=settings):
        return StepReport(step="fit", skipped=True, details={"generation": ctx.generation})
    items, x_ND = fused_vectors(ctx)
    device = config.device if config.device != "auto" else _best_device()
    facts = facts_for_fit(ctx, items, kind.fit_needs | kind.encode_needs)
    settings_of_fit = config.settings(len(x_ND), device=device)
    former_NL = former_codes(ctx, items)
    start = former_NL if config.warm_start else None
    model = kind.fit(x_ND, settings_of_fit, facts=starting_facts(facts, start, len(settings_of_fit.widths)))
    model, churn = aligned_model(model, x_ND, facts, former_NL if config.align else None)
    model = AppendDigit.around(model, config.digits) if config.uniqueness == "append" else model
    generation = _next_generation(ctx)
    folder = ctx.warehouse.artifacts_dir / generation
    folder.mkdir(parents=True, exist_ok=True)
    digest = save_codebook(model, folder / "codebook.safetensors")
    ctx.warehouse.keep(folder / "codebook.safetensors", digest)
    rows = trained_on(items, fused=fused, seed=config.seed, max_fit_rows=config.max_fit_rows)
    ctx.note(generation=generation, codebook_hash=digest, trained_on=rows)
    ctx.write("codebooks", _codebook_rows(model, generation))
    details = {"generation": generation, "kind": config.kind, "widths": list(model.widths), "items": len(x_ND), "device": device}
    details |= {"start": "cold" if start is None else "warm", **churn}
    return StepReport(step="fit", rows={"codebooks": sum(model.widths)}, details=details)


def assign(ctx: RunContext) -> StepReport:
    """Give every item of this generation that has none its own SID; published SIDs stay where they are.

    Raises:
        CapacityError: more items than the code space holds; nothing is written.
    """
    config = [ctx.generation, ctx.facts["codebook_hash"], _fused_id(ctx), ctx.recipe.tokenizer.uniqueness]
    if ctx.unchanged("assign", inputs=["items"], outputs=["semantic_ids"], config=config):
        return StepReport(step="assign", skipped=True)
    model = load_generation(ctx)
    num_levels = len(model.widths)
    published, retired = _published(ctx), retired_rows(ctx)
    item_ids = ctx.read("items", ["item_id"]).column("item_id")
    stay, left = _split(published, item_ids)
    taken = taken_sids(ctx)
    returning = _split(_split(taken, item_ids)[0], stay.column("item_id"))[1]
    back = returned_rows(ctx, returning.column("item_id"), num_levels)
    has_sid = pa.chunked_array([*stay.column("item_id").chunks, *back.column("item_id").chunks], pa.string())
    items, x_ND = fused_vectors(ctx, without=has_sid)
    occupied = as_codes(taken.column("codes")) if len(taken) else None
    rows = _resolve(ctx, model, items, x_ND, occupied) if len(items) else back.slice(0, 0)
    new = pa.concat_tables([back, conform(rows, "semantic_ids", num_levels=num_levels)])
    if published is None:
        ctx.write("semantic_ids", new, num_levels=num_levels)
    elif len(left):
        kept = conform(stay, "semantic_ids", num_levels=num_levels)
        ctx.write("semantic_ids", pa.concat_tables([kept, new]), num_levels=num_levels)
    elif len(new):
        ctx.append("semantic_ids", new, num_levels=num_levels)
    write_retired(ctx, retired, left=left, back=back.column("item_id").to_pylist())
    details = {"assigned": len(rows), "kept": len(stay), "moved": int(np.sum(rows.column("moved").to_numpy()))}
    details |= {"retired": len(left), "returned": len(back)} if len(left) or len(back) else {}
    return StepReport(step="assign", rows={"semantic_ids": len(new)}, details=details)


def _split(rows: pa.Table | None, item_ids: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
    """Return the rows of items that are among `item_ids`, and the others; two empty tables for None."""
    if rows is None:
        nothing = pa.table({"item_id": pa.array([], pa.string()), "codes": pa.array([], pa.list_(pa.int32()))})
        return nothing, nothing
    among = pc.is_in(rows.column("item_id"), value_set=item_ids)
    return rows.filter(among), rows.filter(pc.invert(among))


def fused_vectors(ctx: RunContext, *, without: pa.ChunkedArray | None = None) -> tuple[pa.Table, npt.NDArray[np.float32]]:
    """Return the items (item_id, content_hash) in item_id order and their fused vectors; 4 * D bytes per item."""
    items = ctx.read("items", ["item_id", "content_hash"]).sort_by("item_id")
    if without is not None:
        items = items.filter(pa.compute.invert(pa.compute.is_in(items.column("item_id"), value_set=without)))
    embeddings = ctx.warehouse.scan("item_embeddings", version=ctx.tables["item_embeddings"])
    x_ND, present_N = matrix_for(items, embeddings, "fused", _fused_id(ctx))
    assert present_N.all(), "an item has no fused vector"
    return items, x_ND


def load_generation(ctx: RunContext) -> Tokenizer:
    """Return the codebooks of the generation in force; `ArtifactError` where the file is not the one that the release names."""
    return _codebook(str(ctx.artifact("codebook.safetensors")), str(ctx.facts["codebook_hash"]))


def _resolve(
    ctx: RunContext, model: Tokenizer, items: pa.Table, x_ND: npt.NDArray[np.float32], occupied_ML: npt.NDArray[np.int32] | None
) -> pa.Table:
    folder = ctx.warehouse.staging(ctx.run_id) / "assign"
    rows = with_facts(ctx, items, model.encode_needs).append_column("vector", as_lists(x_ND))
    source = stage(rows, folder / "input.parquet", rows_per_group=_VECTORS_PER_GROUP)
    transform = EncodeVectors(str(ctx.artifact("codebook.safetensors")), str(ctx.facts["codebook_hash"]))
    files = ctx.engine.run(transform, source, folder / "output", label="codes", progress=ctx.progress)
    encoded = pa.concat_tables([pq.read_table(file) for file in files])
    assert encoded.column("item_id").to_pylist() == items.column("item_id").to_pylist(), "an engine lost or reordered rows"
    raw_NL = as_codes(encoded.column("codes"))
    result = make_unique(
        ctx.recipe.tokenizer.uniqueness,
        model,
        raw_NL,
        encoded.column("residual_norm").to_numpy(),
        item_hashes(items.column("item_id").to_pylist()),
        latents_of=lambda rows: model.latents(x_ND[rows]),
        occupied_codes_ML=occupied_ML,
    )
    return _semantic_id_rows(ctx, items, raw_NL, result, model.widths)


def _semantic_id_rows(
    ctx: RunContext, items: pa.Table, raw_NL: npt.NDArray[np.int32], result: Assignment, widths: tuple[int, ...]
) -> pa.Table:
    codes_NL, num = result.codes_NL, len(items)
    keys = sid_keys(codes_NL, widths)
    levels = {f"code_{level}": pa.array(codes_NL[:, level], pa.int32()) for level in range(len(widths))}
    return pa.table(
        {
            "item_id": items.column("item_id"),
            "generation": pa.array([ctx.generation] * num, pa.string()),
            "codes": as_code_lists(codes_NL),
            **levels,
            "sid": pa.array(format_sids(codes_NL), pa.string()),
            "sid_key": pa.nulls(num, pa.int64()) if keys is None else pa.array(keys, pa.int64()),
            "modalities": _modalities(ctx, items),
            "raw_codes": as_code_lists(raw_NL),
            "moved": pa.array(result.moved_N),
            "move_cost": pa.array(result.move_cost_N, pa.float32()),
            "residual_norm": pa.array(result.residual_norm_N, pa.float32()),
            "assigned_at": pa.array([ctx.now] * num, pa.timestamp("us", tz="UTC")),
        }
    )


def _modalities(ctx: RunContext, items: pa.Table) -> pa.ListArray:
    encoders = ctx.facts.get("encoders", {})
    assert isinstance(encoders, dict)
    embeddings = ctx.warehouse.scan("item_embeddings", version=ctx.tables["item_embeddings"])
    return present_modalities(items, embeddings, {modality: encoders[modality] for modality in ctx.recipe.encoders.fusion})


def _published(ctx: RunContext) -> pa.Table | None:
    """Return the SIDs that the base release published for this generation; a step that is tried again starts from them too."""
    base = ctx.base
    if base is None or base.generation != ctx.generation or "semantic_ids" not in base.tables:
        return None
    ctx.tables["semantic_ids"] = base.tables["semantic_ids"]
    rows = ctx.read("semantic_ids")
    return rows.filter(pc.equal(rows.column("generation"), ctx.generation))


def _best_device() -> str:
    import torch  # takes seconds: only who fits asks

    return "cuda" if torch.cuda.is_available() else "cpu"


def _next_generation(ctx: RunContext) -> str:
    known = {release.generation for release in history(ctx.warehouse)} | generations(ctx.warehouse)
    numbers = [int(generation[1:]) for generation in known]
    return f"g{max(numbers, default=0) + 1:04d}"


def _fused_id(ctx: RunContext) -> str:
    encoders = ctx.facts.get("encoders", {})
    assert isinstance(encoders, dict)
    return str(encoders["fused"])


def _codebook_rows(model: Tokenizer, generation: str) -> pa.Table:
    tables = [
        pa.table(
            {
                "generation": pa.array([generation] * len(counts_K), pa.string()),
                "level": pa.array([level] * len(counts_K), pa.int32()),
                "code": pa.array(np.arange(len(counts_K)), pa.int32()),
                "centroid": as_lists(centroids_KE),
                "count": pa.array(counts_K, pa.int64()),
            }
        )
        for level, (centroids_KE, counts_K) in enumerate(model.codebooks())
    ]
    return pa.concat_tables(tables)


@lru_cache(maxsize=2)
def _codebook(path: str, digest: str) -> Tokenizer:
    model = load_codebook(Path(path))
    found = codebook_hash(model)
    if found != digest:
        msg = f"codebook {path}: its hash is {found}, the generation's is {digest}; restore the file from a backup or run retrain"
        raise ArtifactError(msg, path=path)
    return model
