"""The step that embeds text. A vector is a function of its content and its encoder, so a row is embedded once and reused for ever.

Memory: one row group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa

from sidlake.encoders.text.encoder import TextEncoder, TextEncoderConfig, calibrate, with_kernel_of
from sidlake.pipelines.embed.known import add_files, same_as_generation, wanting
from sidlake.pipelines.engines import stage
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.warehouse.embeddings import embedding_rows

__all__ = ["EmbedText", "embed_text"]

_TEXTS_PER_GROUP = 4096


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
    config = _as_before(ctx)
    encoder_id = _text_encoder(config).encoder_id
    same_as_generation(ctx, "text", encoder_id)
    items = ctx.read("items", ["item_id", "content_hash", "text"])
    missing = wanting(ctx, items, "text", encoder_id)
    if len(missing):
        folder = ctx.warehouse.staging(ctx.run_id) / "embed_text"
        source = stage(missing, folder / "input.parquet", rows_per_group=_TEXTS_PER_GROUP)
        files = ctx.engine.run(EmbedText(config), source, folder / "output", label="texts", progress=ctx.progress)
        add_files(ctx, files)
    ctx.state.encoders |= {"text": encoder_id, "text_precision": config.precision}
    details = {"encoder": encoder_id, "embedded": len(missing), "reused": len(items) - len(missing)}
    return StepReport(step="embed_text", rows={"item_embeddings": len(missing)}, details=details)


def _as_before(ctx: RunContext) -> TextEncoderConfig:
    """Return the recipe's text encoder with ``auto`` replaced: precision is chosen once, kernel and device are the generation's."""
    config = ctx.recipe.encoders.text
    made_by = ctx.base_state.encoders.get("text") if ctx.job == "refresh" else None
    if made_by is not None:
        config = with_kernel_of(config, made_by)
    if config.precision != "auto":
        return config
    precision = ctx.state.encoders.get("text_precision") or calibrate(config).precision
    return replace(config, precision=precision)  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def _text_encoder(config: TextEncoderConfig) -> TextEncoder:
    return TextEncoder.load(config)
