"""The step that assigns: every item of the catalogue gets a SID of its own, and those that are published stay where they are.

New items are encoded with the generation's codebooks and made unique against the SIDs that are taken. Memory: 40 bytes per new item
and level, and the vectors of colliding items only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidlake.errors import LawBroken
from sidlake.pipelines.engines import stage
from sidlake.pipelines.fit_inputs.given_sids import codes_of
from sidlake.pipelines.fit_inputs.item_facts import facts_of_rows, with_facts
from sidlake.pipelines.generation import cached_codebook, fused_vectors, load_generation
from sidlake.pipelines.retirement import retired_rows, returned_rows, taken_sids, write_retired
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.quality.assignment import Assignment as GivenSids
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.semantic_id import format_sids, sid_keys
from sidlake.tokenizers.tokenizer import Tokenizer
from sidlake.tokenizers.uniqueness.reassign import Assignment
from sidlake.tokenizers.uniqueness.strategies import make_unique
from sidlake.warehouse.contracts import conform
from sidlake.warehouse.embeddings import as_code_lists, as_codes, as_lists, as_matrix, present_modalities

__all__ = ["EncodeVectors", "assign"]

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
        cached_codebook(self.path, self.digest)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return one row of codes per vector."""
        model = cached_codebook(self.path, self.digest)
        codes_NL, norms_N = model.encode_with_norms(as_matrix(rows.column("vector")), facts=facts_of_rows(rows))
        return pa.table({"item_id": rows.column("item_id"), "codes": as_code_lists(codes_NL), "residual_norm": pa.array(norms_N)})


def assign(ctx: RunContext) -> StepReport:
    """Give every item of this generation that has none its own SID; published SIDs stay where they are.

    Raises:
        CapacityError: more items than the code space holds; nothing is written.
    """
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


def _resolve(
    ctx: RunContext, model: Tokenizer, items: pa.Table, x_ND: npt.NDArray[np.float32], occupied_ML: npt.NDArray[np.int32] | None
) -> pa.Table:
    folder = ctx.warehouse.staging(ctx.run_id) / "assign"
    rows = with_facts(ctx, items, model.encode_needs).append_column("vector", as_lists(x_ND))
    source = stage(rows, folder / "input.parquet", rows_per_group=_VECTORS_PER_GROUP)
    transform = EncodeVectors(str(ctx.artifact("codebook.safetensors")), ctx.codebook_hash)
    files = ctx.engine.run(transform, source, folder / "output", label="codes", progress=ctx.progress)
    encoded = pa.concat_tables([pq.read_table(file) for file in files])
    if not encoded.column("item_id").equals(items.column("item_id")):
        msg = f"the engine returned {len(encoded):,} encoded rows for {len(items):,} items, or in another order"
        raise LawBroken(msg, rule="every item is encoded once")
    raw_NL, norms_N = as_codes(encoded.column("codes")), encoded.column("residual_norm").to_numpy()
    if ctx.given is not None:
        raw_NL, norms_N = _with_given(ctx.given, model, items, x_ND, raw_NL, norms_N)
    result = make_unique(
        ctx.recipe.tokenizer.uniqueness,
        model,
        raw_NL,
        norms_N,
        item_hashes(items.column("item_id").to_pylist()),
        latents_of=lambda rows: model.latents(x_ND[rows]),
        occupied_codes_ML=occupied_ML,
    )
    return _semantic_id_rows(ctx, items, raw_NL, result, model.widths)


def _with_given(
    given: GivenSids,
    model: Tokenizer,
    items: pa.Table,
    x_ND: npt.NDArray[np.float32],
    raw_NL: npt.NDArray[np.int32],
    norms_N: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return raw codes and norms with the given codes where an item has some, and how far their sum lies from its vector."""
    given_NL = codes_of(given, items.column("item_id"))
    has_N = given_NL[:, 0] >= 0
    raw_NL, norms_N = np.where(has_N[:, None], given_NL, raw_NL), norms_N.copy()
    norms_N[has_N] = np.linalg.norm(x_ND[has_N].astype(np.float64) - model.decode(raw_NL[has_N]), axis=1)
    return raw_NL, norms_N


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
    embeddings = ctx.warehouse.scan("item_embeddings", version=ctx.tables["item_embeddings"])
    return present_modalities(items, embeddings, {modality: ctx.encoder(modality) for modality in ctx.recipe.encoders.fusion})


def _published(ctx: RunContext) -> pa.Table | None:
    """Return the SIDs that the base release published for this generation."""
    base = ctx.base
    if base is None or base.generation != ctx.generation or "semantic_ids" not in base.tables:
        return None
    rows = ctx.read("semantic_ids")
    return rows.filter(pc.equal(rows.column("generation"), ctx.generation))
