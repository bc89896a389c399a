"""The step that embeds pictures, a modality that some items have and others lack.

A picture that cannot be read is a row of `rejected_rows`, and its item goes on without the modality. Memory: one row group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import polars as pl
import pyarrow as pa

from sidlake.encoders.image.encoder import ImageEncoder, ImageEncoderConfig
from sidlake.errors import EncoderError
from sidlake.pipelines.embed.known import add_files, in_force, same_as_generation, wanting
from sidlake.pipelines.engines import stage
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.warehouse.embeddings import embedding_rows, missing_rows

__all__ = ["EmbedImages", "embed_image"]

_IMAGES_PER_GROUP = 512
_PICTURE = ["image", "image_uri"]


@dataclass(frozen=True, slots=True)
class EmbedImages:
    """Transform: rows of item_id, content_hash, image and image_uri become rows of `item_embeddings`, unreadable ones left out."""

    config: ImageEncoderConfig
    root: str

    def setup(self) -> None:
        """Load the model."""
        _image_encoder(self.config)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return one embedding per picture that could be read."""
        encoder = _image_encoder(self.config)
        encoded = encoder.encode(_pictures(rows), root=self.root)
        kept = rows.filter(pa.array(encoded.present_N))
        return embedding_rows(kept, "image", encoder.encoder_id, encoded.vectors_ND[encoded.present_N])


def embed_image(ctx: RunContext) -> StepReport:
    """Embed the pictures of items whose content or encoder is new; a picture that cannot be read is a rejected value.

    Raises:
        EncoderError: the model cannot be loaded, or in a refresh it is not the one of the generation.
    """
    config = ctx.recipe.encoders.image
    if config is None:
        return StepReport(step="embed_image", skipped=True)
    encoder_id = _image_encoder(config).encoder_id
    same_as_generation(ctx, "image", encoder_id)
    items = ctx.read("items", ["item_id", "content_hash", *_PICTURE])
    with_picture = items.filter(pa.array([picture is not None for picture in _pictures(items)]))
    missing = wanting(ctx, with_picture, "image", encoder_id)
    rejected = pa.table({"item_id": pa.array([], pa.string())})
    if len(missing):
        folder = ctx.warehouse.staging(ctx.run_id) / "embed_image"
        source = stage(missing, folder / "input.parquet", rows_per_group=_IMAGES_PER_GROUP)
        transform = EmbedImages(config, ctx.recipe.folder)
        files = ctx.engine.run(transform, source, folder / "output", label="pictures", progress=ctx.progress)
        add_files(ctx, files)
        rejected = missing_rows(missing, in_force(ctx), "image", encoder_id)
        _reject(ctx, rejected, config)
        if len(rejected) == len(with_picture):
            raise _none_readable(ctx, rejected, config)
    ctx.state.encoders["image"] = encoder_id
    details = {"encoder": encoder_id, "embedded": len(missing) - len(rejected), "rejected": len(rejected)}
    details["without_picture"] = len(items) - len(with_picture)
    return StepReport(step="embed_image", rows={"item_embeddings": len(missing) - len(rejected)}, details=details)


def _none_readable(ctx: RunContext, rows: pa.Table, config: ImageEncoderConfig) -> EncoderError:
    first = rows.slice(0, 1)
    reasons = _image_encoder(config).encode(_pictures(first), root=ctx.recipe.folder).rejected
    column = ctx.recipe.items.image.column if ctx.recipe.items.image else "image"
    why = f"item {first.column('item_id')[0].as_py()!r}: {reasons[0].reason}" if reasons else "none was found"
    return EncoderError(f"image: none of {len(rows)} pictures of column {column!r} could be read, such as {why}", column=column)


def _reject(ctx: RunContext, rows: pa.Table, config: ImageEncoderConfig) -> None:
    """Add unreadable pictures to `rejected_rows`, once per item and reason."""
    if not len(rows):
        return
    reasons = _image_encoder(config).encode(_pictures(rows), root=ctx.recipe.folder).rejected
    ids = rows.column("item_id").to_pylist()
    found = pl.DataFrame(
        {
            "source": [ctx.recipe.items.source] * len(reasons),
            "target": ["item_embeddings"] * len(reasons),
            "row": pl.Series([-1] * len(reasons), dtype=pl.Int64),
            "rule": ["unreadable_picture"] * len(reasons),
            "value": [f"{ids[entry.index]}: {entry.reason}" for entry in reasons],
            "run_id": [ctx.run_id] * len(reasons),
        }
    )
    before = pl.from_arrow(ctx.read("rejected_rows"))
    assert isinstance(before, pl.DataFrame)
    new = found.join(before, on=["target", "rule", "value"], how="anti")
    if len(new):
        ctx.write("rejected_rows", pl.concat([before, new]).to_arrow().cast(ctx.read("rejected_rows").schema))


def _pictures(rows: pa.Table) -> list[bytes | str | None]:
    pairs = zip(rows.column("image").to_pylist(), rows.column("image_uri").to_pylist(), strict=True)
    return [image if image is not None else uri for image, uri in pairs]


@lru_cache(maxsize=2)
def _image_encoder(config: ImageEncoderConfig) -> ImageEncoder:
    return ImageEncoder.load(config)
