"""The steps that fill `item_embeddings`: text, behaviour, and the fused vector that is quantized.

A vector is a function of its content and its encoder, so a row is embedded once and reused by every later run, also by one that
follows a run that died: rows that no release names do no harm. `retrain` learns behaviour and fusion anew; `refresh` leaves
both as the generation knows them, and an item without behaviour gets its modality's mean.

Memory: `embed_text` one row group; the others 4 * D bytes per item and modality, because principal components need all rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sidlake.encoders.behaviour import behaviour_id, fit_behaviour
from sidlake.encoders.fusion.config import PAIR_KINDS
from sidlake.encoders.fusion.fusion import Fusion
from sidlake.encoders.text.encoder import TextEncoder, TextEncoderConfig, calibrate
from sidlake.errors import EncoderError, NotFoundError
from sidlake.pipelines.embed.image import embed_image, embed_precomputed, encoders_of, head_of_embeddings
from sidlake.pipelines.engines import stage
from sidlake.pipelines.fit_inputs.item_facts import training_pairs
from sidlake.pipelines.fit_inputs.split import ordered_events, training_events
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.warehouse.embeddings import embedding_rows, matrix_for, missing_rows

__all__ = ["EMBEDDING_STEPS", "EmbedText", "embed_behaviour", "embed_text", "fuse", "load_fusion"]

_TEXTS_PER_GROUP = 4096
_KEYS = ["item_id", "content_hash"]


@dataclass(frozen=True, slots=True)
class EmbedText:
    """Transform: rows of item_id, content_hash and text become rows of `item_embeddings`."""

    config: TextEncoderConfig

    def setup(self) -> None:
        """Load the model."""
        _text_encoder(self.config)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return one embedding per row."""
        encoder = _text_encoder(self.config)
        return embedding_rows(rows, "text", encoder.encoder_id, encoder.encode(rows.column("text").to_pylist()))


def embed_text(ctx: RunContext) -> StepReport:
    """Embed the text of items whose content or encoder is new.

    Raises:
        EncoderError: the model cannot be loaded, or in a refresh it is not the one of the generation.
    """
    config = _with_precision(ctx)
    if ctx.unchanged("embed_text", inputs=["items"], outputs=["item_embeddings"], config=config):
        return StepReport(step="embed_text", skipped=True)
    encoder_id = _text_encoder(config).encoder_id
    known = encoders_of(ctx).get("text")
    if ctx.job == "refresh" and known != encoder_id:
        msg = f"text encoder {encoder_id} is not the one generation {ctx.generation} was made with, {known}; run retrain instead"
        raise EncoderError(msg, encoder=encoder_id, generation_encoder=known)
    items = ctx.read("items", [*_KEYS, "text"])
    missing = missing_rows(items, head_of_embeddings(ctx), "text", encoder_id)
    if len(missing):
        folder = ctx.warehouse.staging(ctx.run_id) / "embed_text"
        source = stage(missing, folder / "input.parquet", rows_per_group=_TEXTS_PER_GROUP)
        files = ctx.engine.run(EmbedText(config), source, folder / "output", label="texts", progress=ctx.progress)
        ctx.tables["item_embeddings"] = ctx.warehouse.append_files(
            "item_embeddings", files, head=ctx.tables.get("item_embeddings"), run_id=ctx.run_id
        )
    ctx.note(encoders=encoders_of(ctx) | {"text": encoder_id, "text_precision": config.precision})
    details = {"encoder": encoder_id, "embedded": len(missing), "reused": len(items) - len(missing)}
    return StepReport(step="embed_text", rows={"item_embeddings": len(missing)}, details=details)


def embed_behaviour(ctx: RunContext) -> StepReport:
    """Learn item vectors from who bought what together, from training events only; in a refresh they stay as they are."""
    config, split = ctx.recipe.encoders.behaviour, ctx.recipe.split
    outputs = ["item_embeddings"]
    if config is None or ctx.job == "refresh":
        return StepReport(step="embed_behaviour", skipped=True)
    if ctx.unchanged("embed_behaviour", inputs=["items", "interactions"], outputs=outputs, config=[config, split]):
        return StepReport(step="embed_behaviour", skipped=True)
    items = ctx.read("items", _KEYS)
    events = training_events(ordered_events(ctx.read("interactions")), split)
    users_N, items_N = _indexed(events, items.column("item_id"))
    digest = hashlib.sha256(
        users_N.tobytes() + items_N.tobytes() + "\n".join(items.column("item_id").to_pylist()).encode()
    ).hexdigest()
    encoder_id = behaviour_id(config, digest)
    added = 0
    known = _num_embedded(
        head_of_embeddings(ctx), encoder_id
    )  # all or none: one commit appends them, and the encoder's id covers its input
    if not known:
        result = fit_behaviour(users_N, items_N, len(items), config)
        present = items.filter(pa.array(result.present_I))
        rows = embedding_rows(present, "behaviour", encoder_id, result.vectors_ID[result.present_I])
        added = len(rows)
        ctx.tables["item_embeddings"] = ctx.warehouse.append_at(
            "item_embeddings", rows, head=ctx.tables.get("item_embeddings"), run_id=ctx.run_id
        )
    ctx.note(encoders=encoders_of(ctx) | {"behaviour": encoder_id})
    details = {"encoder": encoder_id, "events": len(events), "items_without_behaviour": len(items) - known - added}
    return StepReport(step="embed_behaviour", rows={"item_embeddings": added}, details=details)


def fuse(ctx: RunContext) -> StepReport:
    """Fuse each item's modalities into the vector that is quantized; `retrain` fits the fusion, `refresh` applies it."""
    config, encoders = ctx.recipe.encoders, encoders_of(ctx)
    sources = {modality: encoders.get(modality) for modality in config.fusion}
    learns_pairs = config.fuse.kind in PAIR_KINDS
    fit_inputs, fit_settings = ["items"], [config, sources]
    if learns_pairs:
        fit_inputs, fit_settings = ["items", "interactions"], [config, sources, ctx.recipe.split]
    fit_needed = ctx.job == "retrain" and not ctx.unchanged("fit_fusion", inputs=fit_inputs, outputs=[], config=fit_settings)
    if ctx.unchanged("fuse", inputs=["items"], outputs=["item_embeddings"], config=[config, sources]) and not fit_needed:
        return StepReport(step="fuse", skipped=True)
    items = ctx.read("items", _KEYS)
    vectors, present = _modalities(ctx, items)
    details: dict[str, object] = {f"{modality}_share": float(has_N.mean()) for modality, has_N in present.items()}
    if fit_needed:
        found = training_pairs(ctx, items) if learns_pairs else None
        pairs_P2, gaps_P, window = (found.pairs_P2, found.gaps_P, found.window) if found else (None, None, None)
        fusion = Fusion.fit(vectors, present, config.fusion_config(), pairs_P2=pairs_P2, gaps_P=gaps_P, pairs_window=window)
        fusion.save(path := _fusion_path(ctx, fusion.fusion_id))
        ctx.warehouse.keep(path)
        explained = {modality: round(share, 4) for modality, share in fusion.explained(vectors, present).items()}
        ctx.note(encoders=encoders_of(ctx) | {"fused": fusion.fusion_id}, explained=explained)
        details |= {f"{modality}_explains": share for modality, share in explained.items()}
        details |= {"pairs": len(found.pairs_P2), "pairs_until": found.window[1]} if found else {}
    else:
        fusion = load_fusion(ctx)
    missing = missing_rows(items, head_of_embeddings(ctx), "fused", fusion.fusion_id)
    if len(missing):
        where = pa.compute.index_in(missing.column("item_id"), value_set=items.column("item_id")).to_numpy()
        x_ND = fusion.transform({m: v[where] for m, v in vectors.items()}, {m: p[where] for m, p in present.items()})
        rows = embedding_rows(missing, "fused", fusion.fusion_id, x_ND)
        ctx.tables["item_embeddings"] = ctx.warehouse.append_at(
            "item_embeddings", rows, head=ctx.tables.get("item_embeddings"), run_id=ctx.run_id
        )
        ctx.save()
    return StepReport(step="fuse", rows={"item_embeddings": len(missing)}, details={"encoder": fusion.fusion_id, **details})


EMBEDDING_STEPS = (embed_text, embed_image, embed_precomputed, embed_behaviour, fuse)
"""What makes the fused vectors, in order."""


def load_fusion(ctx: RunContext) -> Fusion:
    """Return the fusion of the generation in force."""
    fusion_id = encoders_of(ctx).get("fused")
    if fusion_id is None:
        msg = "this warehouse has no fusion yet; run the retrain job first: sidlake run retrain"
        raise NotFoundError(msg)
    return Fusion.load(_fusion_path(ctx, fusion_id))


def _modalities(ctx: RunContext, items: pa.Table) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, npt.NDArray[np.bool_]]]:
    embeddings = ctx.warehouse.scan("item_embeddings", version=ctx.tables["item_embeddings"])
    vectors, present = {}, {}
    for modality in ctx.recipe.encoders.fusion:
        by = ["item_id"] if modality == "behaviour" else _KEYS
        vectors[modality], present[modality] = matrix_for(items, embeddings, modality, encoders_of(ctx)[modality], by=by)
    return vectors, present


def _indexed(events: pl.DataFrame, item_ids: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    users_N = events["user_id"].rle_id().to_numpy().astype(np.int64)
    rows = pa.compute.index_in(events["item_id"].to_arrow().cast(pa.string()), value_set=item_ids)
    return users_N, rows.to_numpy().astype(np.int64)


def _num_embedded(embeddings: pl.LazyFrame | None, encoder_id: str) -> int:
    if embeddings is None:
        return 0
    return int(embeddings.filter(pl.col("encoder_id") == encoder_id).select(pl.len()).collect().item())


def _with_precision(ctx: RunContext) -> TextEncoderConfig:
    """Return the recipe's text encoder with ``auto`` replaced by what this warehouse uses, chosen once."""
    config = ctx.recipe.encoders.text
    if config.precision != "auto":
        return config
    known = encoders_of(ctx).get("text_precision")
    precision = known or calibrate(config).precision
    return replace(config, precision=precision)  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def _text_encoder(config: TextEncoderConfig) -> TextEncoder:
    return TextEncoder.load(config)


def _fusion_path(ctx: RunContext, fusion_id: str) -> Path:
    return ctx.warehouse.fetched(ctx.warehouse.artifacts_dir / "fusion" / f"{fusion_id.replace(':', '-')}.safetensors")
