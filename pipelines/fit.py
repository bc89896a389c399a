"""The step that fits the codebooks of a new generation.

`retrain` starts a new generation when items, vectors or the tokenizer's settings have changed, and names its codes after those of
the one before (`former_generation`). Memory: a sample of at most `max_fit_rows` vectors.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sidlake.errors import RecipeError
from sidlake.pipelines.fit_inputs.former_generation import aligned_model, former_codes, starting_facts
from sidlake.pipelines.fit_inputs.given_sids import model_of_given
from sidlake.pipelines.fit_inputs.item_facts import facts_for_fit
from sidlake.pipelines.fit_inputs.trained_on import trained_on
from sidlake.pipelines.generation import fused_vectors
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.tokenizers.artifact import save_codebook
from sidlake.tokenizers.registry import tokenizer_class
from sidlake.tokenizers.tokenizer import Tokenizer
from sidlake.tokenizers.uniqueness.append_digit import AppendDigit
from sidlake.warehouse.embeddings import as_lists
from sidlake.warehouse.ledger import generations
from sidlake.warehouse.releases import history

__all__ = ["fit_codebooks"]


def fit_codebooks(ctx: RunContext) -> StepReport:
    """Fit the tokenizer of a new generation on the fused vectors, in item_id order.

    The report says what share of the items of both generations changed codes, with the codes named anew and without.

    Raises:
        FitError: fewer items than codes of a level, or the catalogue lacks what the tokenizer learns from.
    """
    config = ctx.recipe.tokenizer
    items, x_ND = fused_vectors(ctx)
    device = config.device if config.device != "auto" else _best_device()
    model, about = _given(ctx, items, x_ND) if ctx.given else _fitted(ctx, items, x_ND, device)
    generation = _next_generation(ctx)
    folder = ctx.warehouse.artifacts_dir / generation
    folder.mkdir(parents=True, exist_ok=True)
    digest = save_codebook(model, folder / "codebook.safetensors")
    ctx.warehouse.keep(folder / "codebook.safetensors", digest)
    rows = trained_on(items, fused=ctx.encoder("fused"), seed=config.seed, max_fit_rows=config.max_fit_rows)
    ctx.state.generation, ctx.state.codebook_hash, ctx.state.trained_on = generation, digest, rows
    ctx.write("codebooks", _codebook_rows(model, generation))
    details = {"generation": generation, "kind": config.kind, "widths": list(model.widths), "items": len(x_ND), "device": device}
    return StepReport(step="fit", rows={"codebooks": sum(model.widths)}, details=details | about)


def _fitted(ctx: RunContext, items: pa.Table, x_ND: npt.NDArray[np.float32], device: str) -> tuple[Tokenizer, dict[str, object]]:
    """Return the recipe's tokenizer, fitted, its codes named after the former generation's, and what to say of it."""
    config = ctx.recipe.tokenizer
    kind = tokenizer_class(config.kind)
    facts = facts_for_fit(ctx, items, kind.fit_needs | kind.encode_needs)
    settings_of_fit = config.settings(len(x_ND), device=device)
    former_NL = former_codes(ctx, items)
    start = former_NL if config.warm_start else None
    model = kind.fit(x_ND, settings_of_fit, facts=starting_facts(facts, start, len(settings_of_fit.widths)))
    model, churn = aligned_model(model, x_ND, facts, former_NL if config.align else None)
    model = AppendDigit.around(model, config.digits) if config.uniqueness == "append" else model
    return model, {"start": "cold" if start is None else "warm", **churn}


def _given(ctx: RunContext, items: pa.Table, x_ND: npt.NDArray[np.float32]) -> tuple[Tokenizer, dict[str, object]]:
    """Return a tokenizer of the SIDs that the run was given, and whose they are."""
    if ctx.given is None or ctx.recipe.tokenizer.uniqueness == "append":
        msg = "SIDs made elsewhere have no digit to append: set tokenizer.uniqueness to reassign, sinkhorn or optimal"
        raise RecipeError(msg)
    return model_of_given(ctx.given, items, x_ND), {"given": ctx.given.name, "items_without": len(items) - ctx.given.num_items}


def _best_device() -> str:
    import torch  # takes seconds: only who fits asks

    return "cuda" if torch.cuda.is_available() else "cpu"


def _next_generation(ctx: RunContext) -> str:
    known = {release.generation for release in history(ctx.warehouse)} | generations(ctx.warehouse)
    numbers = [int(generation[1:]) for generation in known]
    return f"g{max(numbers, default=0) + 1:04d}"


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
