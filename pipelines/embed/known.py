"""Vectors that the warehouse has already, and what a refresh may not change about how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa

from sidlake.errors import EncoderError
from sidlake.pipelines.run import RunContext

__all__ = ["add_files", "add_vectors", "embedded", "same_as_generation"]


def embedded(ctx: RunContext) -> pl.LazyFrame | None:
    """Return the newest version, released or not: what a run that died has embedded need not be embedded again."""
    version = ctx.warehouse.version("item_embeddings")
    if version is None:
        return None
    ctx.tables["item_embeddings"] = version
    return ctx.warehouse.scan("item_embeddings", version=version)


def add_vectors(ctx: RunContext, rows: pa.Table) -> None:
    """Append rows of `item_embeddings` to the version in force; `ReleaseConflict` where another run has added to it since."""
    head = ctx.tables.get("item_embeddings")
    ctx.tables["item_embeddings"] = ctx.warehouse.append_at("item_embeddings", rows, head=head, run_id=ctx.run_id)


def add_files(ctx: RunContext, files: Sequence[Path]) -> None:
    """Do the same with rows that workers have written to Parquet files."""
    head = ctx.tables.get("item_embeddings")
    ctx.tables["item_embeddings"] = ctx.warehouse.append_files("item_embeddings", files, head=head, run_id=ctx.run_id)


def same_as_generation(ctx: RunContext, modality: str, encoder_id: str) -> None:
    """Raise `EncoderError` where a refresh would embed `modality` by another encoder than the generation was made with."""
    known = ctx.base_state.encoders.get(modality)
    if ctx.job == "refresh" and known != encoder_id:
        msg = f"{modality} encoder {encoder_id} is not that of generation {ctx.generation}, {known}; run retrain instead"
        raise EncoderError(msg, encoder=encoder_id, generation_encoder=known)
