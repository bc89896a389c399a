"""The step that trains the recommender on the current release and records how it fares beside its baselines.

It reads the release, never a run's unpublished versions, and the checkpoint carries the release's id, generation and codebook hash.
`model_metrics` and `recommendations` are about a release, not part of one; every row names the release it is about.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pyarrow as pa

from sidlake.errors import LawBroken
from sidlake.pipelines.recipe import digest_of
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.warehouse.catalog import refresh_catalog
from sidlake.warehouse.embeddings import matrix_for
from sidlake.warehouse.keep.leases import reading
from sidlake.warehouse.releases import Release, level_widths

if TYPE_CHECKING:
    from sidlake.generative.config import DecoderConfig, GenerativeConfig
    from sidlake.generative.trainer import FusedVectors, TrainerResult

__all__ = ["train_recommender"]


def train_recommender(ctx: RunContext) -> StepReport:
    """Train on the current release, unless this model has been trained on it already; write metrics and recommendations."""
    config = ctx.recipe.trainer
    if config is None:
        return StepReport(step="train", skipped=True)
    with reading(ctx.warehouse) as current:  # an hour may pass: no vacuum takes the release away meanwhile
        return _train(ctx, config, current)


def _train(ctx: RunContext, config: DecoderConfig | GenerativeConfig, current: Release) -> StepReport:
    folder = ctx.warehouse.fetched(ctx.warehouse.checkpoints_dir / f"{current.release_id}-{digest_of(config)[:12]}")
    if folder.exists():
        if not ctx.warehouse.location.is_kept(folder):  # a run was killed while it uploaded
            ctx.warehouse.keep(folder)
        return StepReport(step="train", skipped=True, details={"checkpoint": folder.name})
    import torch  # with transformers 10 s: only who trains pays

    from sidlake.generative.checkpoint import save_checkpoint
    from sidlake.generative.trainer import train_and_evaluate

    tables = {
        name: ctx.warehouse.read(name, version=current.tables[name]) for name in ("user_sequences", "semantic_ids", "sid_trie")
    }
    widths = level_widths(ctx.warehouse, current)
    unfinished = ctx.warehouse.checkpoints_dir / f".training-{folder.name}"
    with ctx.progress.track("training") as update:
        result = train_and_evaluate(
            tables["user_sequences"],
            tables["semantic_ids"],
            tables["sid_trie"],
            widths=widths,
            config=config,
            fused=_fused(ctx, current) if config.kind == "decoder" and "fused" in config.inputs else None,
            keep_in=unfinished,
            progress=update,
            say=ctx.progress.say,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
    _write(ctx, current, result)
    save_checkpoint(
        folder,
        result.model,
        release_id=current.release_id,
        generation=current.generation,
        codebook_hash=current.codebook_hash,
        widths=widths,
        config=config,
    )
    shutil.rmtree(unfinished, ignore_errors=True)
    ctx.warehouse.keep(folder)
    if missing := refresh_catalog(ctx.warehouse):
        ctx.progress.say(missing)
    figures = {f"{m}_{metric}": round(v, 4) for m, split, metric, v in result.metrics if split == "test" and metric == "recall@10"}
    rows = {"model_metrics": len(result.metrics) + len(_curve(result)), "recommendations": len(result.recommendations)}
    epochs = {"epochs": len(result.curve)} if result.curve else {}
    return StepReport(step="train", rows=rows, details={"checkpoint": folder.name, **epochs, **figures})


def _fused(ctx: RunContext, current: Release) -> FusedVectors:
    """Return the fused vectors that the release's SIDs were made of; 4 * D bytes per item."""
    from sidlake.generative.trainer import FusedVectors

    items = ctx.warehouse.read("items", version=current.tables["items"], columns=["item_id", "content_hash"])
    embeddings = ctx.warehouse.scan("item_embeddings", version=current.tables["item_embeddings"])
    vectors_NF, present_N = matrix_for(items, embeddings, "fused", str(current.encoders["fused"]))
    if not present_N.all():
        lacking = items.filter(pa.array(~present_N)).column("item_id").to_pylist()
        msg = f"{len(lacking):,} items of {current.release_id} have no fused vector, such as {lacking[:3]}; run sidlake check on it"
        raise LawBroken(msg, rule="every item has a fused vector", count=len(lacking), examples=lacking[:5])
    return FusedVectors(items.column("item_id"), vectors_NF)


def _curve(result: TrainerResult) -> list[tuple[str, str, str, float]]:
    """Return the rows of the training curve: the epoch stands where a split does."""
    return [
        (result.model.config.kind, f"epoch {row.epoch}", metric, value)
        for row in result.curve
        for metric, value in (("loss", row.loss), ("recall@10", row.recall), ("ndcg@10", row.ndcg))
    ]


def _write(ctx: RunContext, current: Release, result: TrainerResult) -> None:
    """Append the rows; a repeated training replaces what was written about the same release before it died."""
    metrics = pa.Table.from_pylist(
        [
            {"release_id": current.release_id, "model": model, "split": split, "metric": metric, "value": value}
            for model, split, metric, value in result.metrics + _curve(result)
        ]
    )
    recommendations = pa.Table.from_pylist(
        [
            {"release_id": current.release_id, "user_id": user, "rank": rank, "item_id": item, "score": score}
            for user, rank, item, score in result.recommendations
        ]
    )
    ctx.warehouse.upsert("model_metrics", metrics, ["release_id", "model", "split", "metric"], run_id=ctx.run_id)
    ctx.warehouse.upsert("recommendations", recommendations, ["release_id", "user_id", "rank"], run_id=ctx.run_id)
