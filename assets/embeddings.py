"""The embedding assets: text, behaviour, and the fused vector that is quantized. All are rows of the table `item_embeddings`."""

from typing import Any

import dagster as dg

from sidlake.assets.evidence import report_metadata, result_of
from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import SidlakeResource
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.steps import STEPS

__all__ = ["behaviour_embeddings", "fused_embeddings", "fusion", "image_embeddings", "precomputed_embeddings", "text_embeddings"]


@dg.asset(
    deps=["items"],
    group_name="embeddings",
    owners=OWNERS,
    kinds={"torch", "huggingface", "deltalake"},
    code_version=CODE_VERSION,
    pool="gpu",
    retry_policy=IO_RETRIES,
)
def text_embeddings(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """Vectors of the items' text; only items whose content or encoder is new are embedded."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["embed_text"])
    return result_of("text_embeddings", ctx, report, seconds, table="item_embeddings", encoder=_encoder(ctx, "text"))


@dg.asset(
    deps=["items", "rejected_rows"],
    group_name="embeddings",
    owners=OWNERS,
    kinds={"pillow", "deltalake"},
    code_version=CODE_VERSION,
    pool="gpu",
    retry_policy=IO_RETRIES,
)
def image_embeddings(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """Vectors of the items' pictures, where the recipe asks for them; unreadable ones go to `rejected_rows`."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["embed_image"])
    return result_of("image_embeddings", ctx, report, seconds, table="item_embeddings", encoder=_encoder(ctx, "image"))


@dg.asset(
    deps=["items"],
    group_name="embeddings",
    owners=OWNERS,
    kinds={"parquet", "deltalake"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)
def precomputed_embeddings(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """Vectors made elsewhere, from the tables that the recipe names, checked for ids, dimension and values."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["embed_precomputed"])
    return result_of("precomputed_embeddings", ctx, report, seconds, table="item_embeddings")


@dg.asset(
    deps=["items", "interactions"],
    group_name="embeddings",
    owners=OWNERS,
    kinds={"scipy", "deltalake"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)
def behaviour_embeddings(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """Vectors of the items by who bought what together, learned from training events only; learned anew by retrain alone."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["embed_behaviour"])
    return result_of("behaviour_embeddings", ctx, report, seconds, table="item_embeddings", encoder=_encoder(ctx, "behaviour"))


@dg.asset(
    deps=["items", "interactions", "text_embeddings", "image_embeddings", "precomputed_embeddings", "behaviour_embeddings"],
    group_name="embeddings",
    owners=OWNERS,
    kinds={"numpy", "safetensors"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)
def fusion(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """How an item's modalities become one vector; learned anew by retrain alone."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["fit_fusion"])
    version = dg.DataVersion(_encoder(ctx, "fused"))
    return dg.MaterializeResult(metadata=report_metadata(report, seconds, "fusion"), data_version=version)


@dg.asset(
    deps=["items", "text_embeddings", "image_embeddings", "precomputed_embeddings", "behaviour_embeddings", "fusion"],
    group_name="embeddings",
    owners=OWNERS,
    kinds={"numpy", "deltalake"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)
def fused_embeddings(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """One vector per item from all its modalities, each reduced and weighted as the recipe says: what is quantized."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["fuse"])
    return result_of("fused_embeddings", ctx, report, seconds, table="item_embeddings", encoder=_encoder(ctx, "fused"))


def _encoder(ctx: RunContext, modality: str) -> str:
    """Return the modality's encoder in force; a name that no row has where the recipe leaves the modality out."""
    return ctx.state.encoders.get(modality, "none")
